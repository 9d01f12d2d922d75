//! Owns the caps on connections: of the node, of one address, of those without a session, and of new ones per second.
//!
//! Never keeps a connection; it only counts. Shared by all shards; touched when a connection comes or goes, never for a message.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Caps; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Connections of the node, those in their handshake included.
    pub connections: usize,
    /// Connections of one address; IPv6 counts by /64.
    pub connections_per_ip: usize,
    /// Connections without an open session, so that they cannot crowd out users.
    pub unproven: usize,
    /// New connections per second and node; each shard allows its share.
    pub connects_per_second: u32,
}

/// Why a connection is not taken, and how the refusal is spelt (PROTOCOL, "Over a cap").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// HTTP 503.
    NodeFull,
    /// HTTP 429.
    AddressFull,
    /// HTTP 503.
    TooFast,
    /// HTTP 503.
    Draining,
}

impl Refusal {
    /// When to come back, in milliseconds.
    pub fn retry_after_ms(self) -> u64 {
        match self {
            Refusal::TooFast => 1_000,
            Refusal::Draining => 5_000,
            Refusal::NodeFull | Refusal::AddressFull => 30_000,
        }
    }

    /// For people.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::NodeFull => "this server has as many connections as it may have",
            Refusal::AddressFull => "this address has as many connections as it may have",
            Refusal::TooFast => "too many new connections at once",
            Refusal::Draining => "this server is shutting down",
        }
    }
}

/// The node's counts.
#[derive(Debug)]
pub struct Admission {
    caps: Caps,
    connections: AtomicUsize,
    unproven: AtomicUsize,
    addresses: Vec<Mutex<HashMap<u64, u32>>>,
}

impl Admission {
    pub fn new(caps: Caps) -> Admission {
        let parts = if caps.connections_per_ip == 0 { 0 } else { ADDRESS_PARTS };
        Admission {
            caps,
            connections: AtomicUsize::new(0),
            unproven: AtomicUsize::new(0),
            addresses: (0..parts).map(|_| Mutex::default()).collect(),
        }
    }

    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a new connection, or says why it may not stay. Each admission is given back by [`Admission::leave`].
    pub fn enter(&self, remote: IpAddr) -> Result<(), Refusal> {
        if !count_up(&self.connections, self.caps.connections) {
            return Err(Refusal::NodeFull);
        }
        if !count_up(&self.unproven, self.caps.unproven) {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::NodeFull);
        }
        if let Some((part, address)) = self.part(remote) {
            let mut counts = part.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_insert(0);
            if *count as usize >= self.caps.connections_per_ip {
                drop(counts);
                self.connections.fetch_sub(1, Ordering::Relaxed);
                self.prove();
                return Err(Refusal::AddressFull);
            }
            *count += 1;
        }
        Ok(())
    }

    /// A connection has got its session, or has gone before it had one.
    pub fn prove(&self) {
        let before = self.unproven.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0);
    }

    /// A connection has gone.
    pub fn leave(&self, remote: IpAddr) {
        let before = self.connections.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0);
        if let Some((part, address)) = self.part(remote) {
            let mut counts = part.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = counts.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&address);
                }
            }
        }
    }

    fn part(&self, remote: IpAddr) -> Option<(&Mutex<HashMap<u64, u32>>, u64)> {
        let address = address_key(remote);
        let at = (address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
        let part = self.addresses.get(at % self.addresses.len().max(1))?;
        Some((part, address))
    }
}

/// IPv6 by /64, IPv4 (also when mapped into IPv6) whole.
fn address_key(remote: IpAddr) -> u64 {
    match remote.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        // No IPv4 address collides: global IPv6 prefixes have their upper bits set.
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

fn count_up(count: &AtomicUsize, cap: usize) -> bool {
    let before = count.fetch_add(1, Ordering::Relaxed);
    if cap != 0 && before >= cap {
        count.fetch_sub(1, Ordering::Relaxed);
        return false;
    }
    true
}

/// A shard's share of new connections per second: a bucket that holds one second's worth.
#[derive(Debug)]
pub(super) struct ConnectRate {
    per_second: u64,
    /// Thousandths of a connection.
    tokens: u64,
    filled_ms: u64,
}

impl ConnectRate {
    /// `per_second` of the node, divided by `shards`; 0 = unlimited.
    pub fn new(per_second: u32, shards: u16) -> ConnectRate {
        let share = u64::from(per_second).div_ceil(u64::from(shards));
        ConnectRate { per_second: share, tokens: share * 1000, filled_ms: 0 }
    }

    /// Takes one connection out of the bucket; false when it is empty.
    pub fn take(&mut self, now_ms: u64) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let passed = now_ms.saturating_sub(self.filled_ms);
        self.tokens = self.tokens.saturating_add(passed.saturating_mul(self.per_second)).min(self.per_second * 1000);
        self.filled_ms = now_ms;
        let enough = self.tokens >= 1000;
        if enough {
            self.tokens -= 1000;
        }
        enough
    }
}

/// Locks over which addresses are spread.
const ADDRESS_PARTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn caps_hold_and_are_given_back() {
        let admission = Admission::new(Caps { connections: 3, connections_per_ip: 2, unproven: 0, connects_per_second: 0 });
        assert_eq!(admission.enter(ip("10.0.0.1")), Ok(()));
        assert_eq!(admission.enter(ip("::ffff:10.0.0.1")), Ok(()));
        assert_eq!(admission.enter(ip("10.0.0.1")), Err(Refusal::AddressFull));
        assert_eq!(admission.connections(), 2);
        assert_eq!(admission.enter(ip("2001:db8::1")), Ok(()));
        assert_eq!(admission.enter(ip("10.0.0.9")), Err(Refusal::NodeFull));
        admission.leave(ip("10.0.0.1"));
        assert_eq!(admission.enter(ip("10.0.0.1")), Ok(()));
    }

    #[test]
    fn ipv6_counts_by_prefix() {
        let admission = Admission::new(Caps { connections_per_ip: 1, ..Caps::default() });
        assert_eq!(admission.enter(ip("2001:db8:0:1::1")), Ok(()));
        assert_eq!(admission.enter(ip("2001:db8:0:1:ffff::2")), Err(Refusal::AddressFull));
        assert_eq!(admission.enter(ip("2001:db8:0:2::1")), Ok(()));
    }

    #[test]
    fn the_unproven_have_their_own_cap() {
        let admission = Admission::new(Caps { unproven: 1, ..Caps::default() });
        assert_eq!(admission.enter(ip("10.0.0.1")), Ok(()));
        assert_eq!(admission.enter(ip("10.0.0.2")), Err(Refusal::NodeFull));
        admission.prove();
        assert_eq!(admission.enter(ip("10.0.0.2")), Ok(()));
        assert_eq!(admission.connections(), 2);
    }

    #[test]
    fn the_rate_allows_a_second_at_once_and_then_its_pace() {
        let mut rate = ConnectRate::new(10, 2);
        let at_once = (0..20).filter(|_| rate.take(5_000)).count();
        assert_eq!(at_once, 5);
        assert!(!rate.take(5_100));
        assert!(rate.take(5_200));
        let mut free = ConnectRate::new(0, 1);
        assert!((0..1000).all(|_| free.take(0)));
    }
}
