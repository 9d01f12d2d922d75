//! Owns a second, slow reading of RFC 6455 for tests: one byte at a time over the whole stream, everything kept, nothing
//! shared with the real reader.

use super::{FrameLimits, Item, Violation};

/// What a stream means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Message(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    /// 1002, 1007 or 1009; the last one.
    Fault(u16),
}

impl Said {
    /// What the real reader has read.
    pub fn item(item: Item<'_>) -> Said {
        match item {
            Item::Message { text, payload } => Said::Message(text, payload.to_vec()),
            Item::Ping(payload) => Said::Ping(payload.to_vec()),
            Item::Pong(payload) => Said::Pong(payload.to_vec()),
            Item::Close { code, reason } => Said::Close(code, reason.to_owned()),
        }
    }

    pub fn fault(violation: Violation) -> Said {
        Said::Fault(violation.close().code())
    }
}

/// The header of a client's frame with `first` as its first byte; `wide` takes eight bytes for any length.
pub fn put_header(stream: &mut Vec<u8>, first: u8, length: usize, mask: [u8; 4], wide: bool) {
    stream.push(first);
    match length {
        0..=125 if !wide => stream.push(0x80 | length as u8),
        126..=0xffff if !wide => {
            stream.push(0x80 | 126);
            stream.extend((length as u16).to_be_bytes());
        }
        _ => {
            stream.push(0x80 | 127);
            stream.extend((length as u64).to_be_bytes());
        }
    }
    stream.extend(mask);
}

/// Reads a whole stream.
pub fn read(stream: &[u8], limits: &FrameLimits) -> Vec<Said> {
    let mut said = Vec::new();
    if let Err(code) = walk(stream, limits, &mut said) {
        said.push(Said::Fault(code));
    }
    said
}

struct Source<'a> {
    bytes: &'a [u8],
}

impl Source<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }
}

fn walk(stream: &[u8], limits: &FrameLimits, said: &mut Vec<Said>) -> Result<(), u16> {
    let mut source = Source { bytes: stream };
    let mut message: Option<(bool, Vec<u8>, u32)> = None;
    loop {
        let (Some(first), Some(second)) = (source.byte(), source.byte()) else { return Ok(()) };
        let (last, reserved, opcode) = (first >= 0x80, first & 0x70, first & 0x0f);
        if reserved != 0 || second < 0x80 || matches!(opcode, 3..=7 | 11..=15) {
            return Err(1002);
        }
        let mut length = u64::from(second & 0x7f);
        if opcode >= 8 && (!last || length > 125) {
            return Err(1002);
        }
        if (opcode == 0 && message.is_none()) || (matches!(opcode, 1 | 2) && message.is_some()) {
            return Err(1002);
        }
        let width = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if width > 0 {
            length = 0;
            for _ in 0..width {
                let Some(byte) = source.byte() else { return Ok(()) };
                length = length << 8 | u64::from(byte);
            }
            if length > i64::MAX as u64 || length < 126 || (width == 8 && length < 65_536) {
                return Err(1002);
            }
        }
        if opcode < 8 {
            let (held, frames) = message.as_ref().map_or((0, 0), |(_, payload, frames)| (payload.len() as u64, *frames));
            if held + length > limits.message_bytes_max as u64 {
                return Err(1009);
            }
            if frames + 1 > limits.fragments_max && !(frames == 0 && last) {
                return Err(1009);
            }
        }
        let mut mask = [0; 4];
        for key in &mut mask {
            let Some(byte) = source.byte() else { return Ok(()) };
            *key = byte;
        }
        if matches!(opcode, 1 | 2) {
            message = Some((opcode == 1, Vec::new(), 0));
        }
        if opcode < 8 {
            message.as_mut().unwrap().2 += 1;
        }
        let mut control = Vec::new();
        for at in 0..length {
            let Some(byte) = source.byte() else { return Ok(()) };
            let byte = byte ^ mask[at as usize % 4];
            if opcode >= 8 {
                control.push(byte);
                continue;
            }
            let (text, payload, _) = message.as_mut().unwrap();
            payload.push(byte);
            if *text && std::str::from_utf8(payload).is_err_and(|fault| fault.error_len().is_some()) {
                return Err(1007);
            }
        }
        match opcode {
            0..=2 if last => {
                let (text, payload, _) = message.take().unwrap();
                if text && std::str::from_utf8(&payload).is_err() {
                    return Err(1007);
                }
                said.push(Said::Message(text, payload));
            }
            8 => {
                said.push(close(&control)?);
                return Ok(());
            }
            9 => said.push(Said::Ping(control)),
            10 => said.push(Said::Pong(control)),
            _ => {}
        }
    }
}

fn close(payload: &[u8]) -> Result<Said, u16> {
    if payload.is_empty() {
        return Ok(Said::Close(None, String::new()));
    }
    if payload.len() == 1 {
        return Err(1002);
    }
    let code = u16::from(payload[0]) << 8 | u16::from(payload[1]);
    if !matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999) {
        return Err(1002);
    }
    let reason = String::from_utf8(payload[2..].to_vec()).map_err(|_| 1007u16)?;
    Ok(Said::Close(Some(code), reason))
}
