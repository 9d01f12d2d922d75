//! Owns how a client connection comes into being: whom it is, from which source address it calls, what it says first.
//!
//! Never waits: sockets are nonblocking from the start. Shared by all generator threads of one target.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::envelope::Names;
use super::error::BenchResult;
use super::token::TokenMaker;

/// What a connection speaks.
pub enum Speech {
    /// WebSocket upgrade, authentication, then envelopes.
    Corehub { path: String, names: Names, tokens: TokenMaker },
    /// Nothing but bytes: the bare loops.
    Raw,
}

/// How to call one target.
pub struct Dial {
    pub address: SocketAddr,
    pub speech: Speech,
    pub partition: Partition,
    /// More than this many connections leave from 127.0.0.1 and its neighbours in turn.
    pub total: usize,
    /// This client (global index) gets a receive buffer of so many bytes, because it will stop reading.
    pub small_buffer: Option<(usize, usize)>,
}

impl Dial {
    /// Starts a nonblocking connect for the client with this global index.
    pub fn connect(&self, global: usize) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some((_, bytes)) = self.small_buffer.filter(|(index, _)| *index == global) {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = self.source(global) {
            // Ports of closed connections may be in TIME_WAIT from the run before.
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.address.into()) {
            Ok(()) => {}
            Err(fault) if fault.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(fault) => return Err(fault),
        }
        Ok(TcpStream::from_std(socket.into()))
    }

    /// One source address has some 28,000 ports, and finding a free one gets slow past half of them.
    fn source(&self, global: usize) -> Option<IpAddr> {
        if self.total <= CONNECTIONS_PER_SOURCE || !matches!(self.address.ip(), IpAddr::V4(address) if address.is_loopback()) {
            return None;
        }
        let number = 1 + (global / CONNECTIONS_PER_SOURCE) as u32;
        Some(IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number)))
    }

    /// The first bytes of the client, and what the server must answer with; `None` for raw connections.
    pub fn greeting(&self, global: usize) -> BenchResult<Option<Greeting>> {
        let Speech::Corehub { path, names, tokens } = &self.speech else { return Ok(None) };
        let key = generate_key();
        let token = tokens.token(&names.user(global))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {token}\r\n\r\n",
            self.address
        );
        Ok(Some(Greeting { request, accept: derive_accept_key(key.as_bytes()) }))
    }
}

/// An upgrade request and the `Sec-WebSocket-Accept` that proves the answer (RFC 6455 section 4).
pub struct Greeting {
    pub request: String,
    pub accept: String,
}

/// Length of a complete response head that accepts the upgrade; `None` while it is incomplete; an error text else.
pub fn upgrade_accepted(bytes: &[u8], accept: &str) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        let full = bytes.len() > RESPONSE_BYTES_MAX;
        return if full { Err("the answer to the upgrade has no end".to_owned()) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        let body = String::from_utf8_lossy(&bytes[end + 4..]);
        return Err(format!("upgrade refused: {status} {}", body.trim()));
    }
    let proven = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == accept);
    if proven { Ok(Some(end + 4)) } else { Err("the upgrade has a wrong Sec-WebSocket-Accept".to_owned()) }
}

/// Spreads clients over generator threads so that those of one unit (a pair, a small group) share a thread.
#[derive(Clone, Copy, Debug)]
pub struct Partition {
    pub threads: usize,
    pub unit: usize,
}

impl Partition {
    /// The thread that holds this client.
    pub fn owner(self, global: usize) -> usize {
        (global / self.unit) % self.threads
    }

    /// Its index on that thread.
    pub fn local(self, global: usize) -> usize {
        global / self.unit / self.threads * self.unit + global % self.unit
    }

    /// The client behind a thread's local index.
    pub fn global(self, thread: usize, local: usize) -> usize {
        (local / self.unit * self.threads + thread) * self.unit + local % self.unit
    }

    /// How many of the first `total` clients a thread holds; `total` is a multiple of `unit`.
    pub fn share(self, thread: usize, total: usize) -> usize {
        (0..total / self.unit).skip(thread).step_by(self.threads).count() * self.unit
    }
}

const CONNECTIONS_PER_SOURCE: usize = 14_000;
const RESPONSE_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_names_every_client_once() {
        for (threads, unit) in [(1, 1), (2, 2), (3, 10), (4, 1)] {
            let partition = Partition { threads, unit };
            let total = unit * 17;
            let mut seen = vec![false; total];
            for thread in 0..threads {
                for local in 0..partition.share(thread, total) {
                    let global = partition.global(thread, local);
                    assert_eq!((partition.owner(global), partition.local(global)), (thread, local));
                    assert!(!std::mem::replace(&mut seen[global], true));
                }
            }
            assert!(seen.into_iter().all(|seen| seen), "{threads} threads, units of {unit}");
        }
    }

    #[test]
    fn only_a_proven_upgrade_is_accepted() {
        let good = b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: abc\r\n\r\nrest";
        assert_eq!(upgrade_accepted(good, "abc"), Ok(Some(good.len() - 4)));
        assert!(upgrade_accepted(good, "abd").is_err());
        assert_eq!(upgrade_accepted(&good[..30], "abc"), Ok(None));
        let refusal = upgrade_accepted(b"HTTP/1.1 401 Unauthorized\r\n\r\n{\"error\":1}", "abc").expect_err("refused");
        assert!(refusal.contains("401") && refusal.contains("error"));
    }
}
