//! Owns the client's side of WebSocket framing (RFC 6455 section 5): masked frames out, unmasked frames in.
//!
//! Never copies a payload it reads and never allocates beyond the caller's buffer. The server's codec reads masked frames
//! only, so the generator brings its own and is an independent judge of the bytes. Used on generator threads.

use std::ops::Range;

/// Opcodes a client meets (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// One complete frame inside a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: Opcode,
    /// Where the payload lies in the parsed bytes.
    pub payload: Range<usize>,
    /// Bytes the whole frame takes.
    pub length: usize,
}

/// Bytes that are no frame a server may send to this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecFault {
    #[error("the server masked a frame")]
    Masked,
    #[error("the server sent a fragmented message, which the generator does not read")]
    Fragmented,
    #[error("the server sent opcode {0} or reserved bits")]
    Reserved(u8),
    #[error("the server sent a frame of {0} bytes")]
    TooLong(u64),
}

/// Reads the frame at the start of `bytes`; `None` when it is not complete yet.
pub fn parse(bytes: &[u8]) -> Result<Option<Frame>, CodecFault> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & MASK_BIT != 0 {
        return Err(CodecFault::Masked);
    }
    if first & FIN_BIT == 0 || first & OPCODE_BITS == 0 {
        return Err(CodecFault::Fragmented);
    }
    let opcode = match first & !FIN_BIT {
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => return Err(CodecFault::Reserved(other)),
    };
    let (header, length) = match second & !MASK_BIT {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    if length > FRAME_BYTES_MAX {
        return Err(CodecFault::TooLong(length));
    }
    let end = header + length as usize;
    Ok((bytes.len() >= end).then_some(Frame { opcode, payload: header..end, length: end }))
}

/// Appends one final frame to `out`, masked with `key` (RFC 6455 section 5.3).
pub fn put_masked(out: &mut Vec<u8>, opcode: Opcode, key: u32, payload: &[u8]) {
    let code: u8 = match opcode {
        Opcode::Text => 1,
        Opcode::Binary => 2,
        Opcode::Close => 8,
        Opcode::Ping => 9,
        Opcode::Pong => 10,
    };
    out.push(FIN_BIT | code);
    match payload.len() {
        length @ 0..=125 => out.push(MASK_BIT | length as u8),
        length @ 126..=0xffff => {
            out.push(MASK_BIT | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(MASK_BIT | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let key = key.to_ne_bytes();
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], key);
}

/// Length on the wire of a masked frame with a payload of `payload` bytes.
pub fn masked_length(payload: usize) -> usize {
    payload
        + match payload {
            0..=125 => 6,
            126..=0xffff => 8,
            _ => 14,
        }
}

fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Longest frame the generator reads; beyond it the run fails instead of buffering.
const FRAME_BYTES_MAX: u64 = 16 << 20;
const FIN_BIT: u8 = 0x80;
const MASK_BIT: u8 = 0x80;
const OPCODE_BITS: u8 = 0x0f;

#[cfg(test)]
mod tests {
    use super::*;
    use tungstenite::Message;
    use tungstenite::protocol::{Role, WebSocket};

    #[test]
    fn every_length_form_is_read() {
        for length in [0usize, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let mut socket = WebSocket::from_raw_socket(std::io::Cursor::new(Vec::new()), Role::Server, None);
            socket.send(Message::text("x".repeat(length))).expect("a vector takes every write");
            let mut bytes = socket.get_ref().get_ref().clone();
            for cut in [0, 1, 2, 3, bytes.len().saturating_sub(1)] {
                if cut < bytes.len() {
                    assert_eq!(parse(&bytes[..cut]), Ok(None), "length {length}, cut {cut}");
                }
            }
            let total = bytes.len();
            bytes.extend_from_slice(b"tail");
            let parsed = parse(&bytes).expect("valid").expect("complete");
            assert_eq!((parsed.opcode, parsed.payload.len(), parsed.length), (Opcode::Text, length, total));
        }
    }

    #[test]
    fn masked_frames_are_what_tungstenite_reads() {
        for length in [0usize, 5, 125, 126, 4_099, 65_536] {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let mut bytes = Vec::new();
            put_masked(&mut bytes, Opcode::Binary, 0x9a5c_11f3, &payload);
            assert_eq!(bytes.len(), masked_length(length));
            let mut socket = WebSocket::from_raw_socket(std::io::Cursor::new(bytes), Role::Server, None);
            assert_eq!(socket.read().expect("a valid frame").into_data(), payload);
        }
    }

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(parse(&[0x81, 0x80]), Err(CodecFault::Masked));
        assert_eq!(parse(&[0x01, 0x00]), Err(CodecFault::Fragmented));
        assert_eq!(parse(&[0xc1, 0x00]), Err(CodecFault::Reserved(0x41)));
        assert_eq!(parse(&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]), Err(CodecFault::TooLong(1 << 56)));
    }
}
