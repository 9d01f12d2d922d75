//! Owns the judgement of frame headers: everything about a frame that can be refused before its payload arrives. Stricter
//! than tungstenite's parser, which reads the fields. Never looks at payload.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::{FrameLimits, Violation};

/// A complete, acceptable header.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub opcode: OpCode,
    pub is_final: bool,
    pub mask: [u8; 4],
    /// Payload bytes; within the limits.
    pub length: u64,
    /// Bytes of the header itself.
    pub size: usize,
}

impl Head {
    pub fn is_control(&self) -> bool {
        matches!(self.opcode, OpCode::Control(_))
    }
}

/// The message that earlier fragments have begun.
#[derive(Clone, Copy, Debug)]
pub struct OpenMessage {
    /// Payload bytes so far.
    pub bytes: usize,
    /// Frames so far.
    pub fragments: u32,
}

/// Longest header a client can send (RFC 6455 section 5.2): two bytes, a 64-bit length, the mask.
pub const HEAD_BYTES_MAX: usize = 14;

/// Reads and judges the header at the start of `bytes`; None when it is incomplete and nothing is wrong with it so far.
pub fn parse(bytes: &[u8], open: Option<OpenMessage>, limits: &FrameLimits) -> Result<Option<Head>, Violation> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    judge_shape(first, second, open.is_some())?;
    let Some(length) = length(second & LENGTH_BITS, &bytes[2..])? else { return Ok(None) };
    if first & CONTROL_BIT == 0 {
        judge_size(first & FINAL_BIT != 0, length, open, limits)?;
    }
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Ok(Some((FrameHeader { opcode, is_final, mask: Some(mask), .. }, length))) => {
            Ok(Some(Head { opcode, is_final, mask, length, size: cursor.position() as usize }))
        }
        Ok(None) => Ok(None),
        Ok(Some(_)) | Err(_) => Err(Violation::Protocol("a malformed frame header")),
    }
}

/// What the first two bytes alone decide.
fn judge_shape(first: u8, second: u8, message_open: bool) -> Result<(), Violation> {
    if first & RESERVED_BITS != 0 {
        return Err(Violation::Protocol("a reserved bit is set and no extension was agreed"));
    }
    if second & MASK_BIT == 0 {
        return Err(Violation::Protocol("client frames must be masked"));
    }
    let is_final = first & FINAL_BIT != 0;
    match OpCode::from(first & OPCODE_BITS) {
        OpCode::Data(Data::Reserved(_)) => return Err(Violation::Protocol("a reserved opcode")),
        OpCode::Data(Data::Continue) if !message_open => {
            return Err(Violation::Protocol("a continuation without a message"));
        }
        OpCode::Data(Data::Text | Data::Binary) if message_open => {
            return Err(Violation::Protocol("a new message inside a fragmented one"));
        }
        OpCode::Data(_) => {}
        OpCode::Control(tungstenite::protocol::frame::coding::Control::Reserved(_)) => {
            return Err(Violation::Protocol("a reserved opcode"));
        }
        OpCode::Control(_) if !is_final => return Err(Violation::Protocol("a fragmented control frame")),
        OpCode::Control(_) if second & LENGTH_BITS > CONTROL_BYTES_MAX => {
            return Err(Violation::Protocol("a control frame of more than 125 bytes"));
        }
        OpCode::Control(_) => {}
    }
    Ok(())
}

/// Reads the payload length; refuses spellings longer than needed and the top bit (RFC 6455 section 5.2).
fn length(short: u8, rest: &[u8]) -> Result<Option<u64>, Violation> {
    let (length, least) = match (short, rest) {
        (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 126),
        (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 1 << 16),
        (126 | 127, _) => return Ok(None),
        (short, _) => return Ok(Some(u64::from(short))),
    };
    if length >> 63 != 0 {
        return Err(Violation::Protocol("a payload length with its top bit set"));
    }
    if length < least {
        return Err(Violation::Protocol("a payload length that is not in its shortest form"));
    }
    Ok(Some(length))
}

fn judge_size(is_final: bool, length: u64, open: Option<OpenMessage>, limits: &FrameLimits) -> Result<(), Violation> {
    let before = open.map_or(0, |open| open.bytes) as u64;
    if length > (limits.message_bytes_max as u64).saturating_sub(before) {
        return Err(Violation::TooLarge("the message is larger than this server accepts"));
    }
    let fragments = open.map_or(0, |open| open.fragments) + 1;
    if fragments > limits.fragments_max && (open.is_some() || !is_final) {
        return Err(Violation::TooLarge("the message has more fragments than this server accepts"));
    }
    Ok(())
}

const FINAL_BIT: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const CONTROL_BIT: u8 = 0x08;
const OPCODE_BITS: u8 = 0x0f;
const MASK_BIT: u8 = 0x80;
const LENGTH_BITS: u8 = 0x7f;
const CONTROL_BYTES_MAX: u8 = 125;
