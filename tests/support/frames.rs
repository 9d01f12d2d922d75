//! Makes and reads WebSocket frames by hand (RFC 6455 section 5.2), valid or not. Never keeps state.

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CONTINUATION: u8 = 0x0;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
pub const FIN: u8 = 0x80;

const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x88];

/// A masked frame, as clients send them. `first` is the first byte: FIN, reserved bits and opcode.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0x80, payload.len() as u64);
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    frame
}

/// An unmasked frame, which a client may not send.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0, payload.len() as u64);
    frame.extend_from_slice(payload);
    frame
}

/// A masked text message.
pub fn text(payload: &str) -> Vec<u8> {
    masked(FIN | TEXT, payload.as_bytes())
}

/// A close frame.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// The header of a masked frame that claims `length` and the mask, without payload.
pub fn claim(first: u8, length: u64) -> Vec<u8> {
    let mut frame = header(first, 0x80, length);
    frame.extend_from_slice(&MASK);
    frame
}

/// A header with its length in the 8-byte form, however small.
pub fn claim_in_8_bytes(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0x80 | 127][..], &length.to_be_bytes(), &MASK].concat()
}

/// A header with its length in the 2-byte form, however small.
pub fn claim_in_2_bytes(first: u8, length: u16) -> Vec<u8> {
    [&[first, 0x80 | 126][..], &length.to_be_bytes(), &MASK].concat()
}

fn header(first: u8, mask_bit: u8, length: u64) -> Vec<u8> {
    match length {
        0..=125 => vec![first, mask_bit | length as u8],
        126..=0xffff => [&[first, mask_bit | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, mask_bit | 127][..], &length.to_be_bytes()].concat(),
    }
}

/// The first frame of a server's bytes: its first byte, and where its payload lies, which ends the frame. None when incomplete.
pub fn parse(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let first = *bytes.first()?;
    let short = *bytes.get(1)?;
    assert_eq!(short & 0x80, 0, "a server never masks");
    let (start, length) = match short {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(length)),
    };
    (bytes.len() >= start + length).then_some((first, start..start + length))
}
