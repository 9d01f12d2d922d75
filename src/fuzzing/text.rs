//! Checks the incremental UTF-8 of text messages against the standard library: a fault shows with the very piece that proves it,
//! not earlier and not later, across pieces and across fragments.

use super::input::Input;
use crate::wire::frame::reference::put_header;
use crate::wire::frame::{Feed, FrameLimits, Item, Reader, Violation};

/// How the text is cut, then the text.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let fragmented = input.flag();
    let sizes: Vec<usize> = input.some_bytes().iter().map(|size| usize::from(*size)).collect();
    let text = input.take(TEXT_BYTES_MAX);
    let parts = cut(text, &sizes);
    let mut reader = Reader::new();
    let limits = FrameLimits::new(TEXT_BYTES_MAX);
    let mut received = 0;
    let mut feed_all = |bytes: Vec<u8>, seen: usize, whole: bool| {
        let mut bytes = bytes;
        let mut feed = Feed::new(&mut bytes);
        let heard = reader.next(&mut feed, &limits);
        match (std::str::from_utf8(&text[..seen]), heard) {
            (Ok(good), Ok(Some(Item::Message { text: true, payload }))) if whole => assert_eq!(payload, good.as_bytes()),
            (Err(_), Err(Violation::BadUtf8(_))) if whole => {}
            (Ok(_), Ok(None)) if !whole => {}
            (Err(fault), Ok(None)) if !whole && fault.error_len().is_none() => {}
            (Err(fault), Err(Violation::BadUtf8(_))) if fault.error_len().is_some() => return false,
            (expected, heard) => panic!("{expected:?} after {seen} of {} bytes, but {heard:?}", text.len()),
        }
        !whole
    };
    if !fragmented {
        feed_all(header(0x81, text.len()), 0, text.is_empty());
    }
    for (at, part) in parts.iter().enumerate() {
        received += part.len();
        let last = if fragmented { at + 1 == parts.len() } else { received == text.len() };
        let mut bytes = match (fragmented, at, last) {
            (false, ..) if text.is_empty() => return,
            (false, ..) => Vec::new(),
            (true, 0, last) => header(if last { 0x81 } else { 0x01 }, part.len()),
            (true, _, last) => header(if last { 0x80 } else { 0x00 }, part.len()),
        };
        bytes.extend_from_slice(part);
        if !feed_all(bytes, received, last) {
            return;
        }
    }
}

/// Pieces of these sizes in turn; the last one is what remains. Never more than the reader allows as fragments.
fn cut<'a>(text: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = text;
    for size in sizes.iter().cycle().take(if sizes.is_empty() { 0 } else { 1_000 }) {
        if rest.is_empty() {
            break;
        }
        let (part, after) = rest.split_at((*size).min(rest.len()));
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}

/// A header whose mask changes nothing.
fn header(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_header(&mut bytes, first, length, [0; 4], false);
    bytes
}

const TEXT_BYTES_MAX: usize = 1 << 17;
