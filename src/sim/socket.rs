//! Owns the model of one connection, both ends: what the client has said and the server has not read, what the server has
//! written and the client has not read, and who is still there.
//!
//! Never loses or reorders a byte of a connection that lives. Parses the server's frames; they must be well formed.

use std::collections::VecDeque;
use std::fmt;

use serde_json::Value;

use crate::types::{Frame, SessionKey};
use crate::wire::frame::Reader;

/// Names a connection of a simulation; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId(pub usize);

/// What a client has heard.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Push(Value),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
    /// The connection has ended.
    Lost,
}

impl fmt::Display for Heard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Heard::Push(push) => write!(out, "{push}"),
            other => write!(out, "{other:?}"),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Text(text) if text.windows(9).any(|part| part == b"\"token\":\"") => write!(out, "auth"),
            Said::Text(text) => write!(out, "{}", String::from_utf8_lossy(text)),
            other => write!(out, "{other:?}"),
        }
    }
}

/// What a client says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Text(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(u16),
    /// Something that is no WebSocket.
    Garbage,
    /// The client has closed its socket, or it was torn.
    End,
}

/// What arrives at the server at once.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// The server's side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// The engine has a session.
    Open,
    /// The engine has let it go; the peer is given time to close.
    Leaving,
    /// Its slot is free again.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub struct Line {
    pub(super) shard: usize,
    pub(super) key: SessionKey,
    pub(super) server: Server,
    /// The client's socket still exists.
    pub(super) present: bool,
    /// The client reads what arrives.
    pub(super) reads: bool,
    /// The client answers pings and close frames.
    pub(super) answers: bool,
    /// The engine does not want to read.
    pub(super) held: bool,
    /// The engine wants it closed when everything has left.
    pub(super) shut: bool,
    pub(super) upward: VecDeque<Piece>,
    pub(super) reader: Reader,
    /// When the last of `upward` arrives: later ones do not overtake it.
    pub(super) upward_us: u64,
    pub(super) downward: VecDeque<Frame>,
    pub(super) downward_bytes: usize,
    /// What the kernels at both ends hold while the client does not read.
    kernel_bytes: usize,
    /// Bytes of the flight that the kernel has not taken whole.
    pub(super) flight_bytes: Option<u32>,
    pub(super) sent_planned: bool,
    pub(super) reading_planned: bool,
    /// Everything the client has heard, in order.
    pub heard: Vec<Heard>,
}

impl Line {
    pub(super) fn new(shard: usize, key: SessionKey, kernel_bytes: usize) -> Line {
        Line {
            shard,
            key,
            server: Server::Open,
            present: true,
            reads: true,
            answers: true,
            held: false,
            shut: false,
            upward: VecDeque::new(),
            reader: Reader::new(),
            upward_us: 0,
            downward: VecDeque::new(),
            downward_bytes: 0,
            kernel_bytes,
            flight_bytes: None,
            sent_planned: false,
            reading_planned: false,
            heard: Vec::new(),
        }
    }

    /// The kernel has room for the whole flight.
    pub(super) fn flight_fits(&self) -> bool {
        self.downward_bytes <= self.kernel_bytes
    }

    /// The pushes heard, in order.
    pub fn pushes(&self) -> impl Iterator<Item = &Value> {
        self.heard.iter().filter_map(|heard| match heard {
            Heard::Push(push) => Some(push),
            _ => None,
        })
    }

    /// True once the client knows that the connection has ended.
    pub fn is_lost(&self) -> bool {
        matches!(self.heard.last(), Some(Heard::Lost))
    }

    /// The close frame that was heard.
    pub fn close_code(&self) -> Option<u16> {
        self.heard.iter().find_map(|heard| match heard {
            Heard::Close(code, _) => Some(*code),
            _ => None,
        })
    }
}

/// What a client says, as frames (RFC 6455 section 5.2); texts now and then in two fragments. None for the end.
pub(super) fn frames(said: Said, random: &mut fastrand::Rng) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match said {
        Said::Text(text) if text.len() > 1 && random.u8(..8) == 0 => {
            let (first, second) = text.split_at(random.usize(1..text.len()));
            masked(&mut bytes, 0x01, first, random);
            masked(&mut bytes, 0x80, second, random);
        }
        Said::Text(text) => masked(&mut bytes, 0x81, &text, random),
        Said::Ping(payload) => masked(&mut bytes, 0x89, &payload, random),
        Said::Pong => masked(&mut bytes, 0x8a, &[], random),
        Said::Close(code) => masked(&mut bytes, 0x88, &code.to_be_bytes(), random),
        Said::Garbage => match random.u8(..6) {
            // Reserved bits; no mask; an opcode that does not exist; a control frame that is too long; bad UTF-8; a
            // continuation of nothing.
            0 => bytes.extend([0xf1, 0x80, 0, 0, 0, 0]),
            1 => bytes.extend([0x81, 0x01, b'x']),
            2 => masked(&mut bytes, 0x83, b"x", random),
            3 => masked(&mut bytes, 0x89, &[0; 126], random),
            4 => masked(&mut bytes, 0x81, &[0xff, 0xfe], random),
            _ => masked(&mut bytes, 0x80, b"x", random),
        },
        Said::End => return None,
    }
    Some(bytes)
}

fn masked(bytes: &mut Vec<u8>, first: u8, payload: &[u8], random: &mut fastrand::Rng) {
    bytes.push(first);
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        long => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(long).expect("no client says more than 64 KiB").to_be_bytes());
        }
    }
    let mask = random.u32(..).to_be_bytes();
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Reads one frame of the server (RFC 6455 section 5.2).
///
/// # Panics
/// When it is masked, fragmented, of wrong length, or its text is no JSON.
pub(super) fn parse(bytes: &[u8]) -> Heard {
    assert_eq!(bytes[0] & 0xf0, 0x80, "a server's frame is final and has no reserved bits");
    assert_eq!(bytes[1] & 0x80, 0, "a server does not mask");
    let (len, start) = match bytes[1] {
        126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
        127 => (u64::from_be_bytes(bytes[2..10].try_into().expect("eight bytes were sliced")) as usize, 10),
        short => (usize::from(short), 2),
    };
    let payload = &bytes[start..];
    assert_eq!(payload.len(), len, "a frame's length is what it says");
    match bytes[0] & 0x0f {
        1 => Heard::Push(serde_json::from_slice(payload).expect("the server sends JSON")),
        8 => {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            Heard::Close(code, String::from_utf8_lossy(&payload[2..]).into_owned())
        }
        9 => Heard::Ping,
        10 => Heard::Pong(payload.to_vec()),
        other => panic!("the server sends no frames of kind {other}"),
    }
}
