//! Owns a shard's table of connections: who holds which slot, in which phase of its life, since when.
//!
//! Never decides and never performs I/O. A slot is given out again only when the ring has let it go, under a new generation.
//! Lives on its shard's thread.

use std::net::IpAddr;

use crate::types::SessionKey;
use crate::wire::frame::Reader;

/// One connection as the driver sees it; the engine has a session under the same key once it is open.
#[derive(Debug)]
pub(super) struct Connection {
    pub phase: Phase,
    pub remote: IpAddr,
    generation: u32,
    /// When the frame or fragmented message that is incomplete now began, in monotonic milliseconds (wrapping); 0 = none is.
    pub partial_since: u32,
    pub flags: Flags,
    /// When it was accepted, in monotonic milliseconds (wrapping).
    pub since: u32,
}

/// Where a connection is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    Free,
    /// The request for the upgrade is incomplete; what has come of it.
    Handshake(Vec<u8>),
    /// Frames come and go; the engine has a session.
    Open(Reader),
    /// The last bytes are on their way or have left, and the peer is given time to close; the engine knows nothing of it.
    Leaving,
    /// The ring is ending what is in flight.
    Closing,
}

/// Facts about a connection, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    /// The flight in the ring is the driver's own (an HTTP response), not from the outbox.
    pub const OWN_FLIGHT: Flags = Flags(1);
    /// The outbox has something, but a flight of the driver's own is in the ring.
    pub const DIRTY: Flags = Flags(2);
    /// The engine does not want to read from it.
    pub const HELD: Flags = Flags(4);
    /// The engine wants it closed as soon as its outbox is empty.
    pub const SHUT: Flags = Flags(8);
    /// Waits in the list of connections that are looked at for incomplete messages.
    pub const WATCHED: Flags = Flags(16);
    /// Counts among the connections without an open session.
    pub const UNPROVEN: Flags = Flags(32);
    /// Counts against its address and the node.
    pub const ADMITTED: Flags = Flags(64);
    /// Has shown no good token yet: its messages must be small.
    pub const SMALL: Flags = Flags(128);

    pub fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn set(&mut self, flag: Flags) {
        self.0 |= flag.0;
    }

    pub fn clear(&mut self, flag: Flags) {
        self.0 &= !flag.0;
    }

    /// Clears a flag; true when it was set.
    pub fn take(&mut self, flag: Flags) -> bool {
        let had = self.has(flag);
        self.clear(flag);
        had
    }
}

/// All connections of a shard.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Connection>,
    free: Vec<u32>,
}

impl Connections {
    /// Takes a free slot for a connection that starts its handshake.
    pub fn enter(&mut self, remote: IpAddr, since: u32) -> SessionKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = u32::try_from(self.slots.len()).expect("connections are limited far below this");
            self.slots.push(Connection::free(1));
            slot
        });
        let connection = &mut self.slots[slot as usize];
        connection.phase = Phase::Handshake(Vec::new());
        connection.remote = remote;
        connection.since = since;
        SessionKey { slot, generation: connection.generation }
    }

    /// Gives a slot back. Its key is never valid again.
    pub fn leave(&mut self, slot: u32) {
        let connection = &mut self.slots[slot as usize];
        assert!(!matches!(connection.phase, Phase::Free), "a slot is given back once");
        *connection = Connection::free(connection.generation.wrapping_add(1));
        self.free.push(slot);
    }

    /// The connection in a slot that is taken.
    #[inline]
    pub fn at(&mut self, slot: u32) -> &mut Connection {
        &mut self.slots[slot as usize]
    }

    /// The connection of a key, unless it is gone.
    #[inline]
    pub fn of(&mut self, key: SessionKey) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(key.slot as usize)?;
        (connection.generation == key.generation && !matches!(connection.phase, Phase::Free)).then_some(connection)
    }

    /// The key of a slot that is taken.
    #[inline]
    pub fn key(&self, slot: u32) -> SessionKey {
        SessionKey { slot, generation: self.slots[slot as usize].generation }
    }

    /// Slots there are, taken or free.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }
}

impl Connection {
    fn free(generation: u32) -> Connection {
        let remote = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let flags = Flags::default();
        Connection { phase: Phase::Free, remote, generation, partial_since: 0, flags, since: 0 }
    }
}

const _: () = assert!(size_of::<Connection>() <= 96, "an idle connection stays small");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_dies_with_its_connection() {
        let mut connections = Connections::default();
        let remote = IpAddr::from([127, 0, 0, 1]);
        let first = connections.enter(remote, 0);
        let second = connections.enter(remote, 0);
        assert_ne!(first.slot, second.slot);
        connections.leave(first.slot);
        assert!(connections.of(first).is_none());
        let third = connections.enter(remote, 0);
        assert_eq!(third.slot, first.slot);
        assert_ne!(third.generation, first.generation);
        assert!(connections.of(first).is_none());
        assert!(connections.of(third).is_some());
        assert_eq!(connections.slots(), 2);
    }

    #[test]
    fn flags_do_not_touch_each_other() {
        let mut flags = Flags::default();
        flags.set(Flags::DIRTY);
        flags.set(Flags::SHUT);
        assert!(flags.take(Flags::DIRTY));
        assert!(!flags.take(Flags::DIRTY));
        assert!(flags.has(Flags::SHUT));
    }
}
