//! Bad frames: each closes with its code, at the earliest byte that shows the fault.

use super::Neighbours;
use crate::at_shards;
use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, claim, claim_in_2_bytes, claim_in_8_bytes, close, masked, text, unmasked,
};
use crate::support::raw::Received;
use crate::support::{Client, PATIENCE, RawConnection, eventually};

const CONFIG: &str = "[limits]\nmessage_bytes = \"64KiB\"\nerrors_per_minute = 1000000\n";
const LIMIT: usize = 64 * 1024;

at_shards!(faults_close_with_their_code, CONFIG, |server| {
    let mut neighbours = Neighbours::of(server);
    for (what, bytes, code) in faults() {
        let mut connection = RawConnection::authenticated(server, "mallory");
        // The server may close before it has read everything; then the rest cannot be sent.
        let _ = connection.send(&bytes);
        assert_eq!(connection.close_code(), Some(code), "{what}");
        neighbours.assert_undisturbed(what);
    }
});

at_shards!(faults_before_authentication_close_too, CONFIG, |server| {
    for (what, bytes, code) in faults() {
        let mut connection = RawConnection::upgraded(server);
        let _ = connection.send(&bytes);
        let found = connection.close_code();
        // Before authentication less may be sent, so that size may be what is noticed first.
        assert!(found == Some(code) || found == Some(1009), "{what}: {found:?}");
    }
});

at_shards!(what_is_unusual_but_right_is_taken, CONFIG, |server| {
    let mut connection = RawConnection::authenticated(server, "alice");
    let ping = |id: &str| format!(r#"{{"type":"ping","message_id":"{id}"}}"#);
    let fragments = |parts: &[&[u8]]| -> Vec<u8> {
        let frame = |(index, part): (usize, &&[u8])| {
            let fin = if index + 1 == parts.len() { FIN } else { 0 };
            masked(fin | if index == 0 { TEXT } else { CONTINUATION }, part)
        };
        parts.iter().enumerate().flat_map(frame).collect()
    };
    let accented = ping("é€😀");
    let cut = accented.find('€').expect("it is there") + 1;
    let padded = |bytes: usize| format!("{}{}", ping("padded"), " ".repeat(bytes - ping("padded").len()));
    let exact = padded(LIMIT);
    for (what, bytes, id) in [
        ("fragments", fragments(&[b"{\"type\":", b"", b"\"ping\",\"message_id\":\"f\"}"]), "f"),
        ("a character split across fragments", fragments(&[&accented.as_bytes()[..cut], &accented.as_bytes()[cut..]]), "é€😀"),
        ("every byte a fragment", fragments(&accented.as_bytes().chunks(1).collect::<Vec<_>>()), "é€😀"),
        ("exactly the largest message", text(&exact), "padded"),
        ("exactly the largest message in fragments", fragments(&exact.as_bytes().chunks(1000).collect::<Vec<_>>()), "padded"),
        ("unasked pongs", [masked(FIN | PONG, b""), masked(FIN | PONG, &[1; 125]), text(&ping("p"))].concat(), "p"),
    ] {
        connection.send(&bytes).expect("the connection is open");
        assert_eq!(connection.read_until("pong")["message_id"], id, "{what}");
    }
    // A ping between fragments is answered at once.
    connection.send(&[masked(TEXT, b"{\"type\":"), masked(FIN | PING, b"between")].concat()).expect("the connection is open");
    assert_eq!(connection.receive(PATIENCE), Received::Frame { first: FIN | PONG, payload: b"between".to_vec() });
    connection.send(&masked(FIN | CONTINUATION, b"\"ping\"}")).expect("the connection is open");
    connection.read_until("pong");
});

at_shards!(a_close_is_answered_and_ends_it, CONFIG, |server| {
    for (what, bytes, code) in [
        ("empty close", masked(FIN | CLOSE, b""), None),
        ("normal", close(1000, b"bye"), Some(1000)),
        ("own code", close(4999, b""), Some(4999)),
        ("registered code", close(3000, b""), Some(3000)),
        ("longest reason", close(1001, &[b'x'; 123]), Some(1001)),
        ("twice", [close(1000, b""), close(1001, b"")].concat(), Some(1000)),
        ("rubbish after it", [close(1000, b""), vec![0xff; 100]].concat(), Some(1000)),
        ("inside a fragmented message", [masked(TEXT, b"x"), close(1000, b"")].concat(), Some(1000)),
    ] {
        let mut connection = RawConnection::authenticated(server, "alice");
        connection.send(&bytes).expect("the connection is open");
        let found = connection.close_code().unwrap_or_else(|| panic!("{what}: ended without an answer"));
        assert!(code.is_none_or(|code| found == code) || found == 1000, "{what}: {found}");
    }
});

at_shards!(connections_that_break_are_cleaned_up, |server| {
    let mut neighbours = Neighbours::of(server);
    let lines = server.log().lines().count();
    for index in 0..50 {
        let mut connection = RawConnection::authenticated(server, &format!("u{index}"));
        connection.send(&claim(FIN | TEXT, 1000)).expect("the connection is open");
        match index % 3 {
            0 => connection.reset(),
            1 => drop(connection),
            _ => connection.stream.shutdown(std::net::Shutdown::Write).expect("the connection is open"),
        }
    }
    eventually("only the neighbours are left", || (server.fetch("/stats").json()["online_users"] == 2).then_some(()));
    neighbours.assert_undisturbed("broken connections");
    assert!(server.log().lines().count() <= lines + 50, "at most one line of log for each");
});

at_shards!(half_a_frame_and_then_silence_is_closed, "[limits]\nassembly_timeout = \"1s\"\n", |server| {
    let mut neighbours = Neighbours::of(server);
    for bytes in [claim(FIN | TEXT, 1000), masked(FIN | TEXT, b"{}")[..3].to_vec(), masked(TEXT, b"{")] {
        let mut connection = RawConnection::authenticated(server, "mallory");
        connection.send(&bytes).expect("the connection is open");
        connection.close_code();
        neighbours.assert_undisturbed("half a frame");
    }
});

at_shards!(many_fragments_without_end_are_cut_off, CONFIG, |server| {
    let mut neighbours = Neighbours::of(server);
    for payload in [&b""[..], b"x"] {
        let mut connection = RawConnection::authenticated(server, "mallory");
        let mut bytes = masked(TEXT, payload);
        for _ in 0..100_000 {
            bytes.extend(masked(CONTINUATION, payload));
        }
        let _ = connection.send(&bytes);
        assert_eq!(connection.close_code(), Some(1009));
        neighbours.assert_undisturbed("fragments without end");
    }
});

at_shards!(a_flood_of_pings_grows_nothing, |server| {
    let mut neighbours = Neighbours::of(server);
    let mut reading = Client::connect(server, "reading");
    let mut deaf = RawConnection::authenticated(server, "mallory");
    let pings = masked(FIN | PING, &[7; 125]).repeat(1_000);
    deaf.stream.set_write_timeout(Some(std::time::Duration::from_secs(1))).expect("a timeout above zero");
    for _ in 0..200 {
        // It may be closed (4101) or simply not read any more: either ends the flood.
        if std::io::Write::write_all(&mut deaf.stream, &pings).is_err() {
            break;
        }
    }
    reading.assert_alive();
    neighbours.assert_undisturbed("a flood of pings");
});

/// What is wrong, the bytes, and the code of the close.
fn faults() -> Vec<(&'static str, Vec<u8>, u16)> {
    let mut rows = vec![
        ("unmasked", unmasked(FIN | TEXT, b"{}"), 1002),
        ("RSV1", masked(FIN | 0x40 | TEXT, b"{}"), 1002),
        ("RSV2", masked(FIN | 0x20 | TEXT, b"{}"), 1002),
        ("RSV3", masked(FIN | 0x10 | TEXT, b"{}"), 1002),
        ("RSV1 on a continuation", [masked(TEXT, b"{"), masked(FIN | 0x40 | CONTINUATION, b"}")].concat(), 1002),
        ("RSV1 on a close", masked(FIN | 0x40 | CLOSE, b""), 1002),
        ("a bomb for a decompressor that is not there", masked(FIN | 0x40 | TEXT, &[0xec, 0xc1, 1, 0, 0, 0].repeat(100)), 1002),
        ("RSV1 on a ping", masked(FIN | 0x40 | PING, b""), 1002),
        ("fragmented ping", masked(PING, b""), 1002),
        ("fragmented close", masked(CLOSE, b""), 1002),
        ("ping of 126 bytes", masked(FIN | PING, &[0; 126]), 1002),
        ("ping that claims 16 MiB", claim(FIN | PING, 16 << 20), 1002),
        ("continuation of nothing", masked(FIN | CONTINUATION, b"x"), 1002),
        ("text inside a text", [masked(TEXT, b"x"), masked(FIN | TEXT, b"y")].concat(), 1002),
        ("length with the top bit", claim_in_8_bytes(FIN | TEXT, 1 << 63), 1002),
        ("length of 2^62", claim_in_8_bytes(FIN | TEXT, 1 << 62), 1009),
        ("5 bytes in the 8-byte form", claim_in_8_bytes(FIN | TEXT, 5), 1002),
        ("65535 bytes in the 8-byte form", claim_in_8_bytes(FIN | TEXT, 65_535), 1002),
        ("5 bytes in the 2-byte form", claim_in_2_bytes(FIN | TEXT, 5), 1002),
        ("125 bytes in the 2-byte form", claim_in_2_bytes(FIN | TEXT, 125), 1002),
        ("one byte too many", claim(FIN | TEXT, LIMIT as u64 + 1), 1009),
        ("too many in fragments", [masked(TEXT, &[b' '; LIMIT]), claim(FIN | CONTINUATION, 1)].concat(), 1009),
        ("close of 1 byte", masked(FIN | CLOSE, &[3]), 1002),
        ("close with a reason in bad UTF-8", close(1000, &[0xc3, 0x28]), 1007),
        ("close with a reason of 124 bytes", close(1000, &[b'x'; 124]), 1002),
        ("binary on the JSON subprotocol", masked(FIN | BINARY, b"{}"), 1003),
        ("overlong UTF-8", masked(FIN | TEXT, &[0xc0, 0x80]), 1007),
        ("surrogate in UTF-8", masked(FIN | TEXT, &[0xed, 0xa0, 0x80]), 1007),
        ("above U+10FFFF", masked(FIN | TEXT, &[0xf4, 0x90, 0x80, 0x80]), 1007),
        ("UTF-8 cut at the end", masked(FIN | TEXT, &[b'x', 0xe2, 0x82]), 1007),
        ("bad UTF-8 in the first fragment", [masked(TEXT, &[0xff]), masked(FIN | CONTINUATION, b"x")].concat(), 1007),
        ("UTF-8 cut in the last fragment", [masked(TEXT, &[0xe2]), masked(FIN | CONTINUATION, &[0x82])].concat(), 1007),
    ];
    for opcode in (3..8).chain(11..16) {
        rows.push(("reserved opcode", masked(FIN | opcode, b""), 1002));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        rows.push(("close with a forbidden code", close(code, b""), 1002));
    }
    rows
}
