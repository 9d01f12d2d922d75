//! Checks fragmented messages with control frames between them: the input is a list of frames, mostly well formed, so that deep
//! states are reached which random bytes do not reach. Judged as in `frames`.

use super::frames::{compare, limits};
use super::input::Input;
use crate::wire::frame::reference::put_header;

/// Limits, pieces, then frames: what is unusual about each, its first byte, its payload.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let limits = limits(&mut input);
    let pieces = input.some_bytes();
    let mut stream = Vec::new();
    let mut open = false;
    while !input.is_empty() && stream.len() < STREAM_BYTES_MAX {
        let how = input.byte();
        let first = match how & 7 {
            // The next frame of a message, its last one, a control frame, anything.
            0..=2 => {
                if open {
                    0x00
                } else {
                    0x01
                }
            }
            3 | 4 => {
                if open {
                    0x80
                } else {
                    0x81
                }
            }
            5 => 0x89 + (how >> 7),
            6 => {
                if open {
                    0x80
                } else {
                    0x82
                }
            }
            _ => input.byte(),
        };
        if first & 8 == 0 {
            open = first & 0x80 == 0;
        }
        let mask = if how & 8 == 0 { [0; 4] } else { [how, input.byte(), 0, 255] };
        let payload =
            if how & 16 == 0 { input.some_bytes().to_vec() } else { input.text().repeat(input.below(300)).into_bytes() };
        write(&mut stream, first, mask, &payload, how & 0x60 == 0x60);
    }
    compare(&stream, &limits, pieces);
}

fn write(stream: &mut Vec<u8>, first: u8, mask: [u8; 4], payload: &[u8], wide: bool) {
    put_header(stream, first, payload.len(), mask, wide);
    stream.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, key)| byte ^ key));
}

const STREAM_BYTES_MAX: usize = 1 << 14;
