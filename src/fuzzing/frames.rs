//! Checks the frame reader against `wire::frame::reference`: any bytes, in any pieces, mean the same messages and end in the
//! same fault, and what is kept of them stays near what was received.

use super::input::Input;
use crate::wire::frame::reference::{self, Said};
use crate::wire::frame::{Feed, FrameLimits, Reader};

/// Limits, pieces, then the stream.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let limits = limits(&mut input);
    let pieces = input.some_bytes();
    compare(input.rest(), &limits, pieces);
}

pub fn limits(input: &mut Input<'_>) -> FrameLimits {
    let message_bytes_max = [0, 1, 125, 126, 1_000, 65_535, 65_536, 1 << 20][input.below(8)];
    FrameLimits { message_bytes_max, fragments_max: [1, 2, 3, 8, 1_024][input.below(5)] }
}

/// Reads `stream` whole, byte by byte, and in pieces of the given sizes; all must say what the reference says.
pub fn compare(stream: &[u8], limits: &FrameLimits, pieces: &[u8]) {
    let expected = reference::read(stream, limits);
    let whole = read_pieces(&mut [stream].into_iter(), limits);
    assert_eq!(whole, expected, "whole, {limits:?}");
    if stream.len() <= BYTEWISE_BYTES_MAX {
        assert_eq!(read_pieces(&mut stream.chunks(1), limits), expected, "byte by byte, {limits:?}");
    }
    let mut sizes = pieces.iter().cycle();
    let mut rest = stream;
    let mut cut = std::iter::from_fn(|| {
        let size = sizes.next().map_or(stream.len(), |size| usize::from(*size) + 1).min(rest.len());
        let (piece, after) = rest.split_at(size);
        rest = after;
        (size > 0).then_some(piece)
    });
    assert_eq!(read_pieces(&mut cut, limits), expected, "in pieces of {pieces:?}, {limits:?}");
}

fn read_pieces(pieces: &mut dyn Iterator<Item = &[u8]>, limits: &FrameLimits) -> Vec<Said> {
    let (mut reader, mut said, mut received) = (Reader::new(), Vec::new(), 0);
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut feed = Feed::new(&mut bytes);
        received += piece.len();
        loop {
            match reader.next(&mut feed, limits) {
                Ok(None) => break,
                Ok(Some(item)) => said.push(Said::item(item)),
                Err(violation) => said.push(Said::fault(violation)),
            }
        }
        assert_eq!(feed.remaining(), 0, "the whole piece is taken");
        let held = reader.buffered_bytes();
        assert!(held <= 2 * received + KEPT_BYTES && held <= 2 * limits.message_bytes_max + KEPT_BYTES, "{held} bytes are held");
        assert!(!(reader.is_closed() && reader.is_partial()), "a closed reader waits for nothing");
    }
    said
}

/// The reader's own place for an incomplete header and control frame.
const KEPT_BYTES: usize = 1_024;
/// The reference is slow by intent.
const BYTEWISE_BYTES_MAX: usize = 4_096;
