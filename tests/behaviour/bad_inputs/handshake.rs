//! Bad HTTP upgrades.

use std::time::Duration;

use super::Neighbours;
use crate::at_shards;
use crate::support::raw::{HANDSHAKE_KEY, Received};
use crate::support::{Client, Login, Place, RawConnection, Server, eventually, frames, token};

/// What must come back.
enum Outcome {
    /// This status, and this header with this value.
    Refused(u16, &'static str, &'static str),
    /// This status.
    Status(u16),
    /// A status or the end of the connection, but no upgrade.
    StatusOrEnd(u16),
}

use Outcome::{Refused, Status, StatusOrEnd};

const CONFIG: &str = "[listen]\norigins = [\"https://good.example\"]\n[auth]\ntimeout = \"2s\"\n";

at_shards!(requests_that_are_no_good_upgrade, CONFIG, |server| {
    let mut neighbours = Neighbours::of(server);
    for (what, request, outcome) in requests() {
        let mut connection = RawConnection::open(server);
        // The server may have made up its mind before it has read everything.
        let _ = connection.send(&request);
        let response = connection.response();
        let found = response.as_ref().map(|response| response.status);
        match outcome {
            Refused(status, name, value) => {
                let response = response.unwrap_or_else(|| panic!("{what}: no answer"));
                assert_eq!(response.status, status, "{what}: {}", response.text());
                let header = response.header(name).unwrap_or_else(|| panic!("{what}: no {name} in {:?}", response.headers));
                assert!(header.to_lowercase().contains(&value.to_lowercase()), "{what}: {name}: {header}");
            }
            Status(status) => assert_eq!(found, Some(status), "{what}"),
            StatusOrEnd(status) => assert!(found.is_none() || found == Some(status), "{what}: {found:?}"),
        }
        neighbours.assert_undisturbed(what);
    }
    let lines = server.log().lines().count();
    assert!(lines < 1_000, "{lines} lines of log");
});

at_shards!(origins_are_compared_exactly, CONFIG, |server| {
    for origin in [
        "https://evil.example",
        "null",
        "https://good.example.evil.example",
        "https://evil-good.example",
        "http://good.example",
        "https://good.example:8443",
        "https://good.example/",
        "https://sub.good.example",
    ] {
        assert_eq!(try_origin(server, origin), 403, "{origin}");
    }
    assert_eq!(try_origin(server, "https://good.example"), 101);
    assert!(Client::try_enter(server, &Login::of("native")).is_ok(), "without an origin");
});

at_shards!(extensions_are_declined, |server| {
    let many = vec!["permessage-deflate"; 100].join(", ");
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "x-unknown",
        &many,
    ] {
        let mut connection = RawConnection::open(server);
        let response = connection.upgrade("/ws", &[("Sec-WebSocket-Extensions", offer)]);
        assert_eq!((response.status, response.header("sec-websocket-extensions")), (101, None), "{offer}");
    }
});

at_shards!(frames_in_the_packet_of_the_request_are_taken, |server| {
    let mut connection = RawConnection::open(server);
    let auth = format!(r#"{{"type":"auth","data":{{"token":"{}"}}}}"#, token::for_user("alice"));
    let packet = [upgrade("/ws", "").into_bytes(), frames::text(&auth), frames::text(r#"{"type":"ping"}"#)].concat();
    connection.send(&packet).expect("the server listens");
    assert_eq!(connection.response().map(|response| response.status), Some(101));
    // A pong may overtake, for a token takes its time.
    let mut awaited = vec!["auth_success", "pong"];
    while !awaited.is_empty() {
        let kind = connection.receive_json()["type"].clone();
        awaited.retain(|awaited| kind != *awaited);
    }
});

at_shards!(frames_in_that_packet_are_counted_as_those_of_a_stranger, |server| {
    let mut neighbours = Neighbours::of(server);
    let mut connection = RawConnection::open(server);
    let large = format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(9 << 10));
    let packet = [upgrade("/ws", "").into_bytes(), frames::text(&large)].concat();
    connection.send(&packet).expect("the server listens");
    assert_eq!(connection.response().map(|response| response.status), Some(101));
    assert_eq!(connection.close_code(), Some(1009));
    neighbours.assert_undisturbed("a large frame with the request");
});

at_shards!(cookies_open_nothing, |server| {
    let mut connection = RawConnection::open(server);
    let cookie = format!("token={0}; Authorization=Bearer {0}; session={0}", token::for_user("alice"));
    assert_eq!(connection.upgrade("/ws", &[("Cookie", &cookie)]).status, 101);
    connection.send_text(r#"{"type":"get_unread"}"#);
    assert_eq!(connection.receive_json()["data"]["name"], "UNAUTHENTICATED");
});

at_shards!(a_request_in_pieces_is_one_request, |server| {
    let mut connection = RawConnection::open(server);
    for byte in upgrade("/ws", "").as_bytes() {
        connection.send(&[*byte]).expect("the server listens");
    }
    assert_eq!(connection.response().map(|response| response.status), Some(101));
});

at_shards!(slow_and_silent_requests_are_closed, CONFIG, |server| {
    let mut neighbours = Neighbours::of(server);
    let mut silent = RawConnection::open(server);
    let mut half = RawConnection::open(server);
    half.send(b"GET /ws HTTP/1.1\r\nHost: x\r\n").expect("the server listens");
    let mut slow = RawConnection::open(server);
    eventually("a byte a moment does not keep it open", || {
        let sent = slow.send(b"G").is_ok();
        (!sent || matches!(slow.receive(Duration::from_millis(200)), Received::End)).then_some(())
    });
    for connection in [&mut silent, &mut half] {
        let answer = connection.response().map(|response| response.status);
        assert!(matches!(answer, None | Some(408)), "{answer:?}");
    }
    neighbours.assert_undisturbed("slow handshakes");
});

at_shards!(a_token_that_cannot_be_one_is_refused_unread, "[auth]\nquery_token = true\n", |server| {
    let mut neighbours = Neighbours::of(server);
    for token in ["", " ", "a.b", "a.b.c.d.e", "....", "%00", "+/=.+/=.+/=", "ä.ö.ü"] {
        for place in [Place::Header, Place::Query] {
            if place == Place::Query && (token.trim().is_empty() || !token.is_ascii()) {
                continue;
            }
            let refusal = Client::try_enter(server, &Login::of("mallory").token(token.to_owned()).place(place));
            let status = refusal.err().map(|response| response.status);
            assert!(matches!(status, Some(401 | 400)), "{token}: {status:?}");
        }
    }
    neighbours.assert_undisturbed("tokens that cannot be one");
});

fn try_origin(server: &Server, origin: &str) -> u16 {
    let bearer = format!("Bearer {}", token::for_user("alice"));
    RawConnection::open(server).upgrade("/ws", &[("Authorization", &bearer), ("Origin", origin)]).status
}

/// A good upgrade request with further header lines.
fn upgrade(target: &str, more: &str) -> String {
    with_key(target, &format!("Sec-WebSocket-Key: {HANDSHAKE_KEY}\r\n{more}"))
}

/// An upgrade request that is good but for what the caller adds in place of the key.
fn with_key(target: &str, lines: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

fn requests() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let good = upgrade("/ws", "");
    let many: String = (0..125).map(|index| format!("X-{index}: x\r\n")).collect();
    let offers = vec!["corehub.v1.json"; 1_100].join(", ");
    let text = |what, request: String, outcome| (what, request.into_bytes(), outcome);
    vec![
        text("POST", good.replacen("GET", "POST", 1), Refused(405, "allow", "GET")),
        text("no upgrade", "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".into(), Refused(426, "upgrade", "websocket")),
        text("other upgrade", good.replace("Upgrade: websocket", "Upgrade: h2c"), Refused(426, "upgrade", "websocket")),
        text("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0"), StatusOrEnd(400)),
        text("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), StatusOrEnd(400)),
        ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20), StatusOrEnd(400)),
        ("binary rubbish", (0..=255).collect(), StatusOrEnd(400)),
        text("version 8", good.replace("Version: 13", "Version: 8"), Refused(426, "sec-websocket-version", "13")),
        text("no version", good.replace("Sec-WebSocket-Version: 13\r\n", ""), Refused(426, "sec-websocket-version", "13")),
        text("no key", with_key("/ws", ""), Status(400)),
        text("key of 15 bytes", with_key("/ws", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n"), Status(400)),
        text("key of 17 bytes", with_key("/ws", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=\r\n"), Status(400)),
        text("key not base64", with_key("/ws", "Sec-WebSocket-Key: ????????????????????????\r\n"), Status(400)),
        text("key twice", upgrade("/ws", &format!("Sec-WebSocket-Key: {HANDSHAKE_KEY}\r\n")), Status(400)),
        text("no host", good.replace("Host: localhost\r\n", ""), Status(400)),
        text("host twice", upgrade("/ws", "Host: other\r\n"), Status(400)),
        text("bare CR in a value", upgrade("/ws", "X-A: a\rb\r\n"), Status(400)),
        text("folded header", upgrade("/ws", "X-A: a\r\n b\r\n"), Status(400)),
        text("NUL in a value", upgrade("/ws", "X-A: a\0b\r\n"), Status(400)),
        text("space before the colon", upgrade("/ws", "X-A : a\r\n"), Status(400)),
        text("header without a colon", upgrade("/ws", "rubbish\r\n"), Status(400)),
        text("Content-Length", upgrade("/ws", "Content-Length: 5\r\n") + "hello", Status(400)),
        (
            "Content-Length that is no text",
            [good.strip_suffix("\r\n").expect("a head ends so").as_bytes(), b"Content-Length: \xb5\r\n\r\nhello"].concat(),
            Status(400),
        ),
        text("Transfer-Encoding", upgrade("/ws", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", Status(400)),
        text("17 KiB of headers", upgrade("/ws", &format!("X-A: {}\r\n", "x".repeat(17 * 1024))), Status(431)),
        text("125 headers", upgrade("/ws", &many), Status(431)),
        text("path of 8 KiB", upgrade(&format!("/ws?x={}", "x".repeat(8 * 1024)), ""), Status(414)),
        text("unknown subprotocol", upgrade("/ws", "Sec-WebSocket-Protocol: corehub.v9\r\n"), Status(400)),
        text("Protobuf", upgrade("/ws", "Sec-WebSocket-Protocol: corehub.v1.proto\r\n"), Status(400)),
        text("a thousand subprotocols", upgrade("/ws", &format!("Sec-WebSocket-Protocol: {offers}\r\n")), Status(431)),
        text("broken extensions", upgrade("/ws", "Sec-WebSocket-Extensions: permessage-deflate; ;=,,\"\r\n"), Status(400)),
        text("other path", upgrade("/other", ""), Status(404)),
        text("path traversal", upgrade("/ws/../../etc/passwd", ""), StatusOrEnd(404)),
    ]
}
