//! Owns the closed set of what can happen to a shard. Never carries a borrow: events may be queued and replayed.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::auth::Identity;
use crate::types::command::Wishes;
use crate::types::envelope::{Body, Envelope};
use crate::types::outcome::Fault;
use crate::types::storage::{StoreReply, Ticket};
use crate::types::{Call, CloseCode, Request, RequestId, SessionKey, ShardId};

/// Everything that can happen to a shard.
#[derive(Debug)]
pub enum Event {
    /// A connection finished its handshake (101 is on its way). `key` is new on this shard.
    Opened(Box<Opened>),
    /// A well-formed envelope of `bytes` bytes arrived.
    Request { key: SessionKey, request: Request, bytes: u32 },
    /// A text that is no good envelope arrived: answer and count it.
    Refused { key: SessionKey, request: Option<RequestId>, fault: Fault },
    /// A data message in echo mode.
    Raw { key: SessionKey, text: bool, payload: Vec<u8> },
    /// Protocol ping (RFC 6455 section 5.5.2).
    Ping { key: SessionKey, payload: SmallVec<[u8; 16]> },
    /// Protocol pong, asked for or not: a sign of life.
    Pong { key: SessionKey },
    /// The peer broke the WebSocket protocol or a size limit: close with this code.
    Violation { key: SessionKey, close: CloseCode, reason: &'static str },
    /// The peer's close frame; answer it (RFC 6455 section 5.5.1). `code` is None when it carried none.
    CloseReceived { key: SessionKey, code: Option<u16> },
    /// The frames taken last for this connection have left; `bytes` of them.
    Sent { key: SessionKey, bytes: u32 },
    /// The socket is gone, whoever ended it. No effect for this key may follow.
    Gone { key: SessionKey },
    /// Another shard says something.
    Mesh { from: ShardId, envelope: Envelope },
    /// The store answered.
    Store(StoreReply),
    /// The store's queue had no room for this request; nothing was done.
    StoreRefused { ticket: Ticket, retry_after_ms: u64 },
    /// An operator wants something of whichever shard can do it.
    Operator(Box<Body>),
    /// An operator asks; the answer is an effect under the same number, which no other call of this shard has meanwhile.
    Call { number: u32, call: Box<Call> },
    /// Time has passed: at least once when `next_deadline_ms` is reached.
    Tick,
    /// The server is going down: refuse new work, tell clients, close them over `window_ms`.
    Drain { window_ms: u64 },
}

/// A new connection.
#[derive(Debug)]
pub struct Opened {
    pub key: SessionKey,
    pub remote: IpAddr,
    /// Present when the handshake carried a good token.
    pub identity: Option<Identity>,
    /// What the query asked for.
    pub wishes: Wishes,
    /// Echo mode: no authentication, messages come back as they are.
    pub echo: bool,
}
