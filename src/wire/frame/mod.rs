//! Owns WebSocket frames (RFC 6455 section 5): reading what clients send, in place in the buffer it arrived in, and the
//! headers of what the server sends.
//!
//! Never performs I/O, never answers (a ping or a fault is an [`Item`] or a [`Violation`]; the engine decides) and never
//! allocates on what a header merely claims. Lives on shard threads; the shard's driver owns one [`Reader`] per connection.
//!
//! permessage-deflate (RFC 7692) is not spoken: `upgrade` declines every offer and RSV1 is a fault. Its place, should it
//! come: `head::judge` lets RSV1 pass on the first frame of a data message, `Partial` remembers it per message, and a
//! bounded inflate step stands between unmasking and the UTF-8 check.

mod head;
mod mask;
mod partial;
mod write;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use std::fmt;

use tungstenite::protocol::frame::coding::{CloseCode as WireCloseCode, Control, Data, OpCode};

use crate::types::CloseCode;
use head::Head;
use partial::Partial;

pub use write::{HEADER_BYTES_MAX, cut, header_len, write_close, write_header};

/// Bounds of what one client may send. All faults against them close 1009.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Payload bytes at most of one message, whether in one frame or in fragments.
    pub message_bytes_max: usize,
    /// Frames at most of one message; without it a message of empty fragments would never end.
    pub fragments_max: u32,
}

impl FrameLimits {
    /// Limits for messages of `message_bytes_max` bytes with the usual bound on fragments.
    pub fn new(message_bytes_max: usize) -> FrameLimits {
        FrameLimits { message_bytes_max, fragments_max: FRAGMENTS_MAX }
    }
}

/// Fragments of one message, unless the limits say otherwise.
pub const FRAGMENTS_MAX: u32 = 1_024;

/// What a client said. Borrows from the receive buffer or, for what arrived in pieces, from the [`Reader`]. Debug output
/// shows sizes only: payload may hold tokens.
#[derive(PartialEq, Eq)]
pub enum Item<'a> {
    /// A whole message, unmasked; valid UTF-8 when `text`.
    Message {
        text: bool,
        payload: &'a mut [u8],
    },
    /// At most 125 bytes to be echoed (RFC 6455 section 5.5.2).
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The peer is done; nothing follows it. `code` is None when the frame carried none, else one that may be sent.
    Close {
        code: Option<u16>,
        reason: &'a str,
    },
}

/// How a client broke RFC 6455 or a limit. The connection is to be closed with [`Violation::close`]; nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Close 1002.
    #[error("{0}")]
    Protocol(&'static str),
    /// Close 1007.
    #[error("{0}")]
    BadUtf8(&'static str),
    /// Close 1009.
    #[error("{0}")]
    TooLarge(&'static str),
}

impl Violation {
    /// The close code to answer with.
    pub fn close(self) -> CloseCode {
        match self {
            Violation::Protocol(_) => CloseCode::Protocol,
            Violation::BadUtf8(_) => CloseCode::BadUtf8,
            Violation::TooLarge(_) => CloseCode::TooLarge,
        }
    }

    /// What exactly was wrong, for the close frame's reason.
    pub fn reason(self) -> &'static str {
        match self {
            Violation::Protocol(reason) | Violation::BadUtf8(reason) | Violation::TooLarge(reason) => reason,
        }
    }
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Message { text, payload } => write!(out, "Message {{ text: {text}, {} bytes }}", payload.len()),
            Item::Ping(payload) => write!(out, "Ping({} bytes)", payload.len()),
            Item::Pong(payload) => write!(out, "Pong({} bytes)", payload.len()),
            Item::Close { code, reason } => write!(out, "Close {{ code: {code:?}, {} bytes }}", reason.len()),
        }
    }
}

/// One receive buffer on its way through a [`Reader`].
pub struct Feed<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl<'b> Feed<'b> {
    pub fn new(bytes: &'b mut [u8]) -> Feed<'b> {
        Feed { bytes, at: 0 }
    }

    /// Bytes not yet taken.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Takes `count` bytes that are known to be there; returns where they start.
    fn take(&mut self, count: usize) -> usize {
        let start = self.at;
        self.at += count;
        start
    }
}

impl fmt::Debug for Feed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Feed({} of {} bytes)", self.at, self.bytes.len())
    }
}

/// A connection's place in its incoming frames. 16 bytes; owns memory only while a frame or a fragmented message is
/// incomplete, and then no more than about twice what has been received of it.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Option<Box<Partial>>,
    /// A close frame or a violation has been seen: everything later is ignored.
    closed: bool,
}

/// Where a finished item lies; without borrows, so that the search for it may use the whole reader.
#[derive(Debug)]
enum Found {
    InFeed { opcode: OpCode, start: usize, end: usize },
    Held { opcode: OpCode },
}

impl Reader {
    pub fn new() -> Reader {
        Reader::default()
    }

    /// The next item of `feed`, or None when the feed is used up; what is left of an incomplete frame has then been copied,
    /// so the buffer may be handed back.
    ///
    /// Call it until it returns None or an error. Bad UTF-8 is reported as soon as received bytes show it, also inside an
    /// incomplete frame; headers are judged before any of their payload is kept.
    pub fn next<'a>(&'a mut self, feed: &'a mut Feed<'_>, limits: &FrameLimits) -> Result<Option<Item<'a>>, Violation> {
        if self.closed {
            feed.at = feed.bytes.len();
            self.partial = None;
            return Ok(None);
        }
        let item = match self.advance(feed, limits) {
            Ok(None) => return Ok(None),
            Ok(Some(Found::InFeed { opcode, start, end })) => item(opcode, &mut feed.bytes[start..end], Check::All),
            Ok(Some(Found::Held { opcode })) => {
                let partial = self.partial.as_mut().expect("a held item was just found in it");
                item(opcode, partial.finished(), Check::Close)
            }
            Err(violation) => {
                self.partial = None;
                Err(violation)
            }
        };
        self.closed = matches!(item, Err(_) | Ok(Item::Close { .. }));
        item.map(Some)
    }

    /// True while a frame or a fragmented message is incomplete: the driver's assembly deadline applies.
    pub fn is_partial(&self) -> bool {
        !self.closed && self.partial.as_ref().is_some_and(|partial| partial.is_waiting())
    }

    /// Heap memory held for incomplete input, in bytes.
    pub fn buffered_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.held_bytes())
    }

    /// True once a close frame or a violation has been seen.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn advance(&mut self, feed: &mut Feed<'_>, limits: &FrameLimits) -> Result<Option<Found>, Violation> {
        if self.partial.as_mut().is_some_and(|partial| partial.release()) {
            self.partial = None;
        }
        loop {
            if let Some(partial) = self.partial.as_deref_mut().filter(|partial| partial.has_open_frame()) {
                match partial.fill(feed, limits)? {
                    Some(opcode) => return Ok(Some(Found::Held { opcode })),
                    None if partial.has_open_frame() => return Ok(None),
                    None => {}
                }
            }
            if feed.remaining() == 0 {
                return Ok(None);
            }
            let Some(head) = self.head(feed, limits)? else { return Ok(None) };
            let message_open = self.partial.as_ref().is_some_and(|partial| partial.message_open());
            let whole = feed.remaining() as u64 >= head.length;
            if whole && (head.is_control() || (head.is_final && !message_open)) {
                let start = feed.take(head.length as usize);
                mask::unmask(&mut feed.bytes[start..feed.at], head.mask, 0);
                return Ok(Some(Found::InFeed { opcode: head.opcode, start, end: feed.at }));
            }
            self.partial.get_or_insert_default().open(head);
        }
    }

    /// Takes one header off the feed, or keeps the part of it that is there.
    fn head(&mut self, feed: &mut Feed<'_>, limits: &FrameLimits) -> Result<Option<Head>, Violation> {
        let Some(partial) = self.partial.as_deref_mut() else {
            if let Some(head) = head::parse(feed.rest(), None, limits)? {
                feed.take(head.size);
                return Ok(Some(head));
            }
            let rest = feed.take(feed.remaining());
            self.partial.get_or_insert_default().keep_head(&feed.bytes[rest..]);
            return Ok(None);
        };
        partial.head(feed, limits)
    }
}

/// What is still unchecked about a finished payload: text that was held has been checked as it came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    All,
    Close,
}

fn item(opcode: OpCode, payload: &mut [u8], check: Check) -> Result<Item<'_>, Violation> {
    match opcode {
        OpCode::Data(Data::Text) => {
            if check == Check::All && simdutf8::basic::from_utf8(payload).is_err() {
                return Err(Violation::BadUtf8(TEXT_NOT_UTF8));
            }
            Ok(Item::Message { text: true, payload })
        }
        OpCode::Data(_) => Ok(Item::Message { text: false, payload }),
        OpCode::Control(Control::Ping) => Ok(Item::Ping(payload)),
        OpCode::Control(Control::Pong) => Ok(Item::Pong(payload)),
        OpCode::Control(_) => close(payload),
    }
}

/// Reads a close frame's payload (RFC 6455 sections 5.5.1 and 7.4).
fn close(payload: &[u8]) -> Result<Item<'_>, Violation> {
    match payload {
        [] => Ok(Item::Close { code: None, reason: "" }),
        [_] => Err(Violation::Protocol("a close payload of one byte")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !WireCloseCode::from(code).is_allowed() {
                return Err(Violation::Protocol("a close code that must not be sent"));
            }
            match simdutf8::basic::from_utf8(reason) {
                Ok(reason) => Ok(Item::Close { code: Some(code), reason }),
                Err(_) => Err(Violation::BadUtf8("a close reason that is not UTF-8")),
            }
        }
    }
}

const TEXT_NOT_UTF8: &str = "a text message that is not UTF-8";
