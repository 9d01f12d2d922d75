//! Owns the proof of the frame reader: one test per bad input, and random streams in random splits against `reference`.

use super::reference::{self, Said};
use super::*;

/// Feeds `pieces` one after the other.
fn read_pieces<'a>(reader: &mut Reader, pieces: impl IntoIterator<Item = &'a [u8]>, limits: &FrameLimits) -> Vec<Said> {
    let mut said = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut feed = Feed::new(&mut bytes);
        loop {
            match reader.next(&mut feed, limits) {
                Ok(None) => break,
                Ok(Some(item)) => said.push(Said::item(item)),
                Err(violation) => said.push(Said::fault(violation)),
            }
        }
        assert_eq!(feed.remaining(), 0, "the whole piece is taken");
    }
    said
}

fn read(stream: &[u8]) -> Vec<Said> {
    read_pieces(&mut Reader::new(), [stream], &LIMITS)
}

/// A masked frame with `first` as its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    reference::put_header(&mut bytes, first, payload.len(), MASK, false);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    bytes
}

fn text(payload: &str) -> Said {
    Said::Message(true, payload.as_bytes().to_vec())
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 1_000, fragments_max: 8 };
/// Under Miri everything is some thousand times slower.
const LARGE_BYTES: usize = if cfg!(miri) { 1 << 15 } else { 1 << 20 };
const STREAMS: usize = if cfg!(miri) { 120 } else { 6_000 };

#[test]
fn whole_frames_are_read_in_place_and_hold_nothing() {
    let stream = [frame(0x81, b"hello"), frame(0x82, &[0xff, 0]), frame(0x89, b"p"), frame(0x8a, b"")].concat();
    let mut reader = Reader::new();
    let said = read_pieces(&mut reader, [&stream[..]], &LIMITS);
    assert_eq!(said, [text("hello"), Said::Message(false, vec![0xff, 0]), Said::Ping(b"p".to_vec()), Said::Pong(vec![])]);
    assert!(!reader.is_partial());
    assert_eq!(reader.buffered_bytes(), 0);
    assert!(size_of::<Reader>() <= 16);
}

#[test]
fn a_frame_in_single_bytes_is_assembled_and_freed() {
    let stream = frame(0x81, &[b'x'; 300]);
    let mut reader = Reader::new();
    assert_eq!(read_pieces(&mut reader, stream[..100].chunks(1), &LIMITS), []);
    assert!(reader.is_partial());
    assert_eq!(read_pieces(&mut reader, stream[100..].chunks(1), &LIMITS), [text(&"x".repeat(300))]);
    assert!(!reader.is_partial());
    assert_eq!(read_pieces(&mut reader, [&[][..]], &LIMITS), []);
    assert_eq!(reader.buffered_bytes(), 0);
}

#[test]
fn a_claimed_length_reserves_nothing() {
    let limits = FrameLimits::new(64 << 20);
    let mut stream = vec![0x82, 0x80 | 127];
    stream.extend((64u64 << 20).to_be_bytes());
    stream.extend(MASK);
    stream.extend([1, 2, 3]);
    let mut reader = Reader::new();
    assert_eq!(read_pieces(&mut reader, [&stream[..]], &limits), []);
    assert!(reader.is_partial());
    assert!(reader.buffered_bytes() < 512, "{}", reader.buffered_bytes());
}

#[test]
#[cfg_attr(miri, ignore = "the messages that Miri can read are too short for these bounds")]
fn assembly_memory_stays_near_what_was_received() {
    let limits = FrameLimits::new(1 << 20);
    let stream = frame(0x82, &vec![7; LARGE_BYTES]);
    let mut reader = Reader::new();
    let mut received = 0;
    for piece in stream[..stream.len() - 1].chunks(1_000) {
        assert_eq!(read_pieces(&mut reader, [piece], &limits), []);
        received += piece.len();
        assert!(reader.buffered_bytes() <= received * 2 + 512);
        assert!(reader.buffered_bytes() <= LARGE_BYTES + 512);
    }
}

#[test]
fn fragments_with_control_frames_between_them_become_one_message() {
    let stream = [
        frame(0x01, "gr\u{fc}".as_bytes().split_at(3).0),
        frame(0x89, b"are you there"),
        frame(0x00, "gr\u{fc}".as_bytes().split_at(3).1),
        frame(0x8a, b""),
        frame(0x80, b"n"),
    ]
    .concat();
    let expected = [Said::Ping(b"are you there".to_vec()), Said::Pong(vec![]), text("gr\u{fc}n")];
    assert_eq!(read(&stream), expected);
    assert_eq!(read_pieces(&mut Reader::new(), stream.chunks(1), &LIMITS), expected);
}

#[test]
fn the_fragment_count_is_per_message() {
    let mut reader = Reader::new();
    let message: Vec<u8> =
        [frame(0x01, b"a")].into_iter().chain((0..6).map(|_| frame(0x00, b""))).chain([frame(0x80, b"z")]).flatten().collect();
    for _ in 0..if cfg!(miri) { 10 } else { 1_000 } {
        assert_eq!(read_pieces(&mut reader, [&message[..], &frame(0x81, b"whole")[..]], &LIMITS), [text("az"), text("whole")]);
    }
}

#[test]
fn fragments_without_end_are_refused_at_the_limit() {
    let mut stream = frame(0x02, b"");
    (0..7).for_each(|_| stream.extend(frame(0x00, b"")));
    assert_eq!(read(&stream), []);
    stream.extend([0x00, 0x80]);
    assert_eq!(read(&stream), [Said::Fault(1009)]);
}

#[test]
fn faults_are_found_at_the_header_without_its_mask_or_payload() {
    let cases: [(&str, &[u8], u16); 16] = [
        ("unmasked", &[0x81, 0x05], 1002),
        ("reserved bit 1", &[0xc1, 0x85], 1002),
        ("reserved bit 2", &[0xa1, 0x85], 1002),
        ("reserved bit 3", &[0x91, 0x85], 1002),
        ("opcode 3", &[0x83, 0x80], 1002),
        ("opcode 7", &[0x87, 0x80], 1002),
        ("opcode 11", &[0x8b, 0x80], 1002),
        ("opcode 15", &[0x8f, 0x80], 1002),
        ("fragmented ping", &[0x09, 0x80], 1002),
        ("ping of 126 bytes", &[0x89, 0x80 | 126], 1002),
        ("ping claiming 16 MiB", &[0x89, 0x80 | 127], 1002),
        ("close of 124 bytes of reason", &[0x88, 0x80 | 126], 1002),
        ("continuation first", &[0x80, 0x81], 1002),
        ("length with its top bit set", &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("length 2^62", &[0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0], 1009),
        ("one byte too many", &[0x82, 0xfe, 0x03, 0xe9], 1009),
    ];
    for (name, stream, code) in cases {
        assert_eq!(read(stream), [Said::Fault(code)], "{name}");
        assert_eq!(read_pieces(&mut Reader::new(), stream.chunks(1), &LIMITS), [Said::Fault(code)], "{name} in bytes");
    }
    assert_eq!(read(&[0x82, 0xfe, 0, 125]), [Said::Fault(1002)], "16-bit length that fits 7 bits");
    assert_eq!(read(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), [Said::Fault(1002)], "64-bit length that fits 16 bits");
    assert_eq!(read(&[frame(0x01, b"a"), frame(0x81, b"b")].concat()), [Said::Fault(1002)], "new message inside one");
}

#[test]
fn a_message_may_be_exactly_as_large_as_the_limit() {
    assert_eq!(read(&frame(0x82, &[1; 1_000])), [Said::Message(false, vec![1; 1_000])]);
    let fragments = [frame(0x02, &[1; 600]), frame(0x80, &[1; 400])].concat();
    assert_eq!(read(&fragments), [Said::Message(false, vec![1; 1_000])]);
    let crossing = [frame(0x02, &[1; 600]), vec![0x80, 0xfe, 0x01, 0x91]].concat();
    assert_eq!(read(&crossing), [Said::Fault(1009)]);
}

#[test]
fn close_payloads_are_judged() {
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes()[..], reason].concat());
    assert_eq!(read(&frame(0x88, b"")), [Said::Close(None, String::new())]);
    assert_eq!(read(&frame(0x88, &[3])), [Said::Fault(1002)]);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        assert_eq!(read(&close(code, b"")), [Said::Fault(1002)], "{code}");
    }
    for code in [1000, 1001, 1011, 3000, 3999, 4000, 4999] {
        assert_eq!(read(&close(code, b"bye")), [Said::Close(Some(code), "bye".to_owned())], "{code}");
    }
    assert_eq!(read(&close(1000, &[0xff])), [Said::Fault(1007)]);
}

#[test]
fn nothing_follows_a_close_or_a_fault() {
    let mut reader = Reader::new();
    let stream = [frame(0x88, b""), frame(0x81, b"late"), frame(0x88, b"")].concat();
    assert_eq!(read_pieces(&mut reader, [&stream[..]], &LIMITS), [Said::Close(None, String::new())]);
    assert!(reader.is_closed());
    let mut reader = Reader::new();
    assert_eq!(read_pieces(&mut reader, [&[0xf1, 0x80][..], &frame(0x81, b"late")[..]], &LIMITS), [Said::Fault(1002)]);
    assert!(!reader.is_partial());
    assert_eq!(reader.buffered_bytes(), 0);
}

#[test]
fn bad_text_is_refused() {
    let bad: [&[u8]; 6] =
        [&[0xc0, 0xaf], &[0xed, 0xa0, 0x80], &[0xf4, 0x90, 0x80, 0x80], &[b'a', 0xe2, 0x82], &[0x80], &[0xf8, 0x88, 0x80, 0x80]];
    for bytes in bad {
        assert_eq!(read(&frame(0x81, bytes)), [Said::Fault(1007)], "{bytes:x?}");
        assert_eq!(read(&frame(0x82, bytes)), [Said::Message(false, bytes.to_vec())], "{bytes:x?} as binary");
    }
}

#[test]
fn bad_text_is_refused_inside_an_incomplete_frame() {
    let stream = frame(0x81, &[b'a', 0xf4, 0x90, 0x80, 0x80, b'b']);
    let header = 6;
    let mut reader = Reader::new();
    assert_eq!(read_pieces(&mut reader, [&stream[..header + 2]], &LIMITS), []);
    assert_eq!(read_pieces(&mut reader, [&stream[header + 2..header + 3]], &LIMITS), [Said::Fault(1007)]);
}

#[test]
fn a_character_may_be_split_anywhere() {
    let snow = "\u{1f328}";
    for at in 1..4 {
        let (one, two) = snow.as_bytes().split_at(at);
        assert_eq!(read(&[frame(0x01, one), frame(0x80, two)].concat()), [text(snow)]);
    }
}

#[test]
fn random_streams_in_random_pieces_agree_with_the_reference() {
    let (mut messages, mut faults) = (0, Vec::new());
    for seed in 0..STREAMS as u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let stream = random_stream(&mut random);
        let expected = reference::read(&stream, &LIMITS);
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        let piece_max = *random.choice([1, 3, 20, 400, 5_000].as_slice()).unwrap();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(random.usize(1..=piece_max).min(rest.len()));
            pieces.push(piece);
            rest = later;
        }
        let said = read_pieces(&mut Reader::new(), pieces, &LIMITS);
        assert_eq!(said, expected, "seed {seed}");
        messages += said.iter().filter(|said| matches!(said, Said::Message(..))).count();
        faults.extend(said.iter().filter_map(|said| if let Said::Fault(code) = said { Some(*code) } else { None }));
    }
    assert!(messages > STREAMS, "the streams must be mostly good: {messages}");
    for code in [1002, 1007, 1009] {
        assert!(faults.iter().filter(|fault| **fault == code).count() > STREAMS / 60, "too few streams end with {code}");
    }
}

/// A few frames, mostly good, with damage in some streams.
fn random_stream(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut open = false;
    for _ in 0..random.usize(1..12) {
        let opcode = match random.u8(0..20) {
            0..=3 => 0x9,
            4 => 0xa,
            5 if random.bool() => 0x8,
            6 => random.u8(0..16),
            _ if open => 0,
            _ => random.u8(1..=2),
        };
        let is_final = opcode >= 8 || random.u8(0..3) > 0;
        if opcode < 3 {
            open = !is_final;
        }
        let reserved = if random.u8(0..60) == 0 { random.u8(0..8) << 4 } else { 0 };
        let payload = random_payload(random, opcode);
        stream.extend(frame(u8::from(is_final) << 7 | reserved | opcode, &payload));
    }
    if random.u8(0..4) == 0 {
        let at = random.usize(0..stream.len());
        stream[at] ^= 1 << random.u8(0..8);
    }
    if random.u8(0..6) == 0 {
        stream.truncate(random.usize(0..stream.len()));
    }
    stream
}

fn random_payload(random: &mut fastrand::Rng, opcode: u8) -> Vec<u8> {
    let length = match random.u8(0..12) {
        0 => 0,
        1 if opcode < 8 => random.usize(100..1_100),
        _ => random.usize(0..40),
    };
    let mut payload = Vec::new();
    if opcode == 8 && length >= 2 {
        payload.extend(random.choice([1000u16, 1001, 1005, 3000, 4999, 5000]).unwrap().to_be_bytes());
    }
    while payload.len() < length {
        match random.u8(0..8) {
            0 => payload.extend("\u{e4}".as_bytes()),
            1 => payload.extend("\u{20ac}".as_bytes()),
            2 => payload.extend("\u{1f600}".as_bytes()),
            3 if random.u8(0..40) == 0 => payload.push(random.u8(0x80..)),
            _ => payload.push(random.u8(b' '..b'~')),
        }
    }
    if random.u8(0..4) == 0 {
        payload.truncate(length);
    }
    payload
}

#[test]
fn written_frames_carry_the_shortest_length() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        let mut bytes = Vec::new();
        write_header(&mut bytes, OpCode::Data(Data::Text), length);
        assert_eq!(bytes.len(), header_len(length), "{length}");
        let mut masked = bytes.clone();
        masked[1] |= 0x80;
        masked.extend(MASK);
        let head = head::parse(&masked, None, &FrameLimits::new(1 << 20)).unwrap().unwrap();
        assert_eq!(head.length, length as u64);
    }
    let mut bytes = Vec::new();
    write_close(&mut bytes, 4100, &"\u{e4}".repeat(100));
    assert_eq!(bytes.len(), 2 + 2 + 122, "cut before the character that does not fit");
}
