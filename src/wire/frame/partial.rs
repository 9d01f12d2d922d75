//! Owns what has arrived of an incomplete header, frame or fragmented message. Exists only while there is something
//! incomplete; never holds more than about twice the bytes received and never more than the limits allow.

use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::types::planted::{Planted, planted};

use super::head::{self, HEAD_BYTES_MAX, Head, OpenMessage};
use super::{Feed, FrameLimits, TEXT_NOT_UTF8, Violation, mask};

/// The incomplete part of a connection's input. Debug output shows sizes only.
#[derive(Default)]
pub struct Partial {
    /// Received bytes of an incomplete header.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: u8,
    /// The frame whose payload is incomplete.
    frame: Option<OpenFrame>,
    /// The data message that is incomplete: begun by a fragment, or being received in one frame.
    message: Option<Assembly>,
    /// Unmasked payload of `message`.
    payload: Vec<u8>,
    /// How much of `payload` is known to be whole UTF-8 sequences; used for text only.
    checked: usize,
    /// Unmasked payload of an incomplete control frame, which may stand between the fragments of `message`.
    control: Vec<u8>,
    /// The item last handed out lies here until the next call.
    finished: Option<Finished>,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Partial({} bytes of payload, {:?})", self.payload.len(), self.frame)
    }
}

#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    head: Head,
    /// Payload bytes received.
    filled: usize,
}

#[derive(Clone, Copy, Debug)]
struct Assembly {
    opcode: OpCode,
    fragments: u32,
}

#[derive(Clone, Copy, Debug)]
enum Finished {
    Payload,
    Control,
}

impl Partial {
    /// True when a frame has begun whose payload is incomplete (or empty and not yet accounted for).
    pub fn has_open_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// True when a data message is incomplete.
    pub fn message_open(&self) -> bool {
        self.message.is_some()
    }

    /// True when more bytes must come before everything here is delivered.
    pub fn is_waiting(&self) -> bool {
        self.head_bytes > 0 || self.frame.is_some() || self.message.is_some()
    }

    pub fn held_bytes(&self) -> usize {
        size_of::<Partial>() + self.payload.capacity() + self.control.capacity()
    }

    /// The payload of the item that [`Partial::fill`] has just completed.
    pub fn finished(&mut self) -> &mut [u8] {
        match self.finished {
            Some(Finished::Control) => &mut self.control,
            _ => &mut self.payload,
        }
    }

    /// Frees what the last item was read from. True when nothing is left that is worth keeping.
    pub fn release(&mut self) -> bool {
        match self.finished.take() {
            Some(Finished::Payload) => {
                self.payload = Vec::new();
                self.checked = 0;
            }
            Some(Finished::Control) => self.control = Vec::new(),
            None => {}
        }
        !self.is_waiting()
    }

    /// Keeps the beginning of a header.
    pub fn keep_head(&mut self, bytes: &[u8]) {
        self.head[..bytes.len()].copy_from_slice(bytes);
        self.head_bytes = bytes.len() as u8;
    }

    /// Takes a header off the feed, completing the kept beginning of one.
    pub fn head(&mut self, feed: &mut Feed<'_>, limits: &FrameLimits) -> Result<Option<Head>, Violation> {
        let kept = usize::from(self.head_bytes);
        let taken = feed.remaining().min(HEAD_BYTES_MAX - kept);
        self.head[kept..kept + taken].copy_from_slice(&feed.rest()[..taken]);
        let open = self.message.map(|message| OpenMessage { bytes: self.payload.len(), fragments: message.fragments });
        match head::parse(&self.head[..kept + taken], open, limits)? {
            Some(head) => {
                feed.take(head.size - kept);
                self.head_bytes = 0;
                Ok(Some(head))
            }
            None => {
                feed.take(taken);
                self.head_bytes = (kept + taken) as u8;
                Ok(None)
            }
        }
    }

    /// Begins a frame that cannot be delivered in place.
    pub fn open(&mut self, head: Head) {
        if !head.is_control() {
            match &mut self.message {
                Some(message) => message.fragments += 1,
                none => *none = Some(Assembly { opcode: head.opcode, fragments: 1 }),
            }
        }
        self.frame = Some(OpenFrame { head, filled: 0 });
    }

    /// Moves payload of the open frame from the feed. Returns the opcode of the item it completed, if any.
    pub fn fill(&mut self, feed: &mut Feed<'_>, limits: &FrameLimits) -> Result<Option<OpCode>, Violation> {
        let Some(OpenFrame { head, filled }) = self.frame else { return Ok(None) };
        let missing = head.length as usize - filled;
        let taken = missing.min(feed.remaining());
        let start = feed.take(taken);
        let chunk = &mut feed.bytes[start..start + taken];
        mask::unmask(chunk, head.mask, if planted(Planted::MaskPhaseLost) { 0 } else { filled });
        if head.is_control() {
            self.control.extend_from_slice(chunk);
        } else {
            grow(&mut self.payload, taken, limits.message_bytes_max);
            self.payload.extend_from_slice(chunk);
            self.check_text()?;
        }
        if taken < missing {
            self.frame = Some(OpenFrame { head, filled: filled + taken });
            return Ok(None);
        }
        self.frame = None;
        if head.is_control() {
            self.finished = Some(Finished::Control);
            return Ok(Some(head.opcode));
        }
        if head.is_final { self.finish_message().map(Some) } else { Ok(None) }
    }

    /// Refuses bad UTF-8 as soon as it shows; an incomplete sequence at the end may still become good.
    fn check_text(&mut self) -> Result<(), Violation> {
        if !self.message.is_some_and(|message| message.opcode == OpCode::Data(Data::Text)) {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.payload[self.checked..]) {
            Ok(_) => self.checked = self.payload.len(),
            Err(fault) if fault.error_len().is_none() => self.checked += fault.valid_up_to(),
            Err(_) => return Err(Violation::BadUtf8(TEXT_NOT_UTF8)),
        }
        Ok(())
    }

    fn finish_message(&mut self) -> Result<OpCode, Violation> {
        let message = self.message.take().expect("a data frame belongs to a message");
        if message.opcode == OpCode::Data(Data::Text) && self.checked < self.payload.len() {
            return Err(Violation::BadUtf8(TEXT_NOT_UTF8));
        }
        self.finished = Some(Finished::Payload);
        Ok(message.opcode)
    }
}

/// Makes room for `taken` bytes by doubling, but never past the limit: a header's claim reserves nothing.
fn grow(payload: &mut Vec<u8>, taken: usize, bytes_max: usize) {
    let needed = payload.len() + taken;
    if needed > payload.capacity() {
        let wanted = payload.capacity().saturating_mul(2).min(bytes_max).max(needed);
        payload.reserve_exact(wanted - payload.len());
    }
}
