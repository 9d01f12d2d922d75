//! Owns encoded WebSocket frames that are shared by many connections, and the seam through which the engine has them made.
//!
//! Never changes a frame once made. [`SharedFrame`] may cross threads (one reference per shard); [`Frame`] stays on the
//! shard that made it and is cloned per connection without touching another core's cache lines.

use std::rc::Rc;
use std::sync::Arc;

use super::{CloseCode, Push};

/// A complete, unmasked server-to-client WebSocket frame (header and payload, RFC 6455 section 5.2), sendable between shards.
pub type SharedFrame = Arc<[u8]>;

/// The same frame inside one shard: cloning is one non-atomic increment.
#[derive(Clone, Debug)]
pub struct Frame(Inner);

#[derive(Clone, Debug)]
enum Inner {
    Own(Rc<[u8]>),
    Shared(Rc<SharedFrame>),
}

impl Frame {
    /// A frame made on this shard for this shard. `bytes` is the whole frame, header included.
    pub fn own(bytes: &[u8]) -> Frame {
        Frame(Inner::Own(Rc::from(bytes)))
    }

    /// Takes over one cross-shard reference; clones of the result count locally.
    pub fn shared(bytes: SharedFrame) -> Frame {
        Frame(Inner::Shared(Rc::new(bytes)))
    }

    /// Header and payload, as they leave to the socket.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Inner::Own(bytes) => bytes,
            Inner::Shared(bytes) => bytes,
        }
    }

    /// Length in bytes, header included.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}

/// How a value becomes a frame. The one implementation is `wire::json::JsonEncoder`; the seam exists because the engine
/// decides what is said and may not know how it is spelt. Every method returns a complete frame with its header.
pub trait Encode {
    /// A push for clients on this shard only. `reply_to` is the `message_id` of the request that this answers.
    fn push(&self, push: &Push, reply_to: Option<&super::RequestId>) -> Frame;

    /// A push that other shards will deliver too.
    fn shared(&self, push: &Push) -> SharedFrame;

    /// Protocol ping without payload (RFC 6455 section 5.5.2).
    fn ping(&self) -> Frame;

    /// Protocol pong echoing `payload`, at most 125 bytes (RFC 6455 section 5.5.3).
    fn pong(&self, payload: &[u8]) -> Frame;

    /// Close frame (RFC 6455 section 5.5.1); `reason` is cut to fit 123 bytes.
    fn close(&self, code: CloseCode, reason: &str) -> Frame;

    /// A data message echoed as it came: text when `text`, else binary.
    fn raw(&self, text: bool, payload: &[u8]) -> Frame;
}
