//! Owns the answer to a connection's first bytes: the upgrade, one of the plain HTTP pages of the client port, or a refusal.
//!
//! Never sends and never keeps a connection. Lives on its shard's thread.

use std::net::IpAddr;

use crate::auth::Identity;
use crate::types::Now;
use crate::types::command::Wishes;

use super::admission::Refusal;

/// What is to be done after looking at a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// More bytes are needed.
    Incomplete,
    /// Send this and close.
    Answer { response: Vec<u8> },
    Upgrade(Box<Upgrade>),
}

/// A good request for the upgrade.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The complete 101.
    pub response: Vec<u8>,
    /// Bytes of the request; what follows are frames.
    pub used: usize,
    pub identity: Option<Identity>,
    pub wishes: Wishes,
}

/// Judges requests.
#[derive(Debug, Default)]
pub(super) struct Greeter {}

impl Greeter {
    /// The response to a connection that may not stay.
    pub fn refusal(&self, refusal: Refusal) -> Vec<u8> {
        format!("HTTP/1.1 {} Over\r\nRetry-After: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", refusal.status(), refusal.retry_after_s()).into_bytes()
    }

    /// Looks at all bytes of a connection so far.
    pub fn judge(&self, bytes: &[u8], _remote: IpAddr, _now: Now) -> Verdict {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Verdict::Incomplete };
        let text = String::from_utf8_lossy(&bytes[..end]);
        let key = text.lines().find_map(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key:").then(|| line[18..].trim().to_owned()));
        let Some(key) = key else {
            return Verdict::Answer { response: b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec() };
        };
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let response = format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes();
        Verdict::Upgrade(Box::new(Upgrade { response, used: end + 4, identity: None, wishes: Wishes::default() }))
    }
}
