//! Owns the form of what the server sends: unfragmented and unmasked (RFC 6455 section 5.1). Never copies payload.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::OpCode;

/// Longest header of a server's frame: two bytes and a 64-bit length.
pub const HEADER_BYTES_MAX: usize = 10;

/// Length of the header that [`write_header`] writes, in bytes.
pub fn header_len(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => HEADER_BYTES_MAX,
    }
}

/// Appends the header of a whole message or control frame with `payload_bytes` of payload.
pub fn write_header(out: &mut Vec<u8>, opcode: OpCode, payload_bytes: usize) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(payload_bytes as u64, out).expect("writing to memory cannot fail");
}

/// Appends a whole close frame; `reason` is cut at a character to fit 123 bytes (RFC 6455 section 5.5.1).
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = cut(reason, CLOSE_REASON_BYTES_MAX);
    write_header(out, OpCode::Control(tungstenite::protocol::frame::coding::Control::Close), 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// The longest beginning of `text` of at most `bytes_max` bytes that ends at a character.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

const CLOSE_REASON_BYTES_MAX: usize = 123;
