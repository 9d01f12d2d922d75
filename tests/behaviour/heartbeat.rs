//! Signs of life: pings of both kinds in both directions, and the end of connections that give none.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::at_shards;
use crate::support::raw::Received;
use crate::support::{Client, PATIENCE, RawConnection, eventually, frames, token};

const SHORT: &str = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"2s\"\n";
const LESS_SHORT: &str = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"4s\"\n";

at_shards!(a_ping_message_is_answered, |server| {
    let mut client = Client::connect(server, "alice");
    let before = token::now_millis();
    let pong = client.request_as("p1", "ping", json!({}));
    assert_eq!((&pong["type"], &pong["message_id"]), (&json!("pong"), &json!("p1")));
    assert!(pong["data"]["server_time"].as_u64().is_some_and(|time| time + 1_000 >= before));
    // Data and message_id may be missing.
    client.send_text(r#"{"type":"ping"}"#);
    assert!(client.take("pong").get("message_id").is_none_or(serde_json::Value::is_null));
});

at_shards!(a_protocol_ping_is_answered_with_its_payload, |server| {
    let mut client = Client::connect(server, "alice");
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        assert_eq!(client.protocol_ping(payload), payload);
    }
    assert_eq!(Client::anonymous(server).protocol_ping(b"early"), b"early");
});

at_shards!(the_server_pings_and_an_answer_keeps_the_connection, SHORT, |server| {
    let mut raw = RawConnection::authenticated(server, "alice");
    let start = Instant::now();
    let mut pings = 0;
    while start.elapsed() < Duration::from_secs(5) {
        match raw.receive(Duration::from_secs(5)) {
            Received::Frame { first, payload } if first == frames::FIN | frames::PING => {
                pings += 1;
                raw.send(&frames::masked(frames::FIN | frames::PONG, &payload)).expect("the connection is open");
            }
            Received::Frame { first, .. } => assert_eq!(first & 0xf, frames::TEXT, "no close"),
            other => panic!("{other:?} after {pings} pings"),
        }
    }
    raw.assert_alive();
    assert!(pings >= 2, "{pings} pings in 5 s");
});

at_shards!(a_dead_connection_is_reaped_and_goes_offline, SHORT, |server| {
    let mut dead = RawConnection::authenticated(server, "alice");
    let status = || {
        let mut watcher = Client::connect(server, "watcher");
        watcher.ask("get_presence", json!({"user_ids": ["alice"]}))["users"][0]["status"].clone()
    };
    assert_eq!(status(), "online");
    // It reads, and answers nothing.
    assert_eq!(dead.close_code(), Some(4201));
    eventually("alice is offline", || (status() == "offline").then_some(()));
});

at_shards!(messages_and_unasked_pongs_count_as_life, LESS_SHORT, |server| {
    let mut talking = RawConnection::authenticated(server, "alice");
    let mut ponging = RawConnection::authenticated(server, "bob");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(7) {
        talking.send_text(r#"{"type":"ping"}"#);
        ponging.send(&frames::masked(frames::FIN | frames::PONG, b"unasked")).expect("the connection is open");
        std::thread::sleep(Duration::from_millis(200));
    }
    talking.assert_alive();
    ponging.assert_alive();
});

at_shards!(bytes_without_a_whole_message_are_no_life, SHORT, |server| {
    let mut drip = RawConnection::authenticated(server, "alice");
    let frame = frames::text(&"x".repeat(100_000));
    let start = Instant::now();
    for byte in frame.chunks(1) {
        if drip.send(byte).is_err() {
            return;
        }
        if let Received::End = drip.receive(Duration::from_millis(100)) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "a drip of bytes keeps the connection open");
    }
});
