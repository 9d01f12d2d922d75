//! Signs of life: pings of both kinds in both directions, and the end of connections that give none.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::at_shards;
use crate::support::raw::Received;
use crate::support::{Client, PATIENCE, RawConnection, eventually, frames, token};

const SHORT: &str = "[heartbeat]\ninterval = \"1s\"\ntimeout = \"2s\"\n";

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
    unless_held_up(|pace| {
        let mut raw = RawConnection::authenticated(server, "alice");
        // Pings of several timeouts: without an answer there are three at most.
        let mut pings = 0;
        while pings < 6 {
            pace.step();
            match raw.receive(PATIENCE) {
                Received::Frame { first, payload } if first == frames::FIN | frames::PING => {
                    pings += 1;
                    if raw.send(&frames::masked(frames::FIN | frames::PONG, &payload)).is_err() {
                        return Err(format!("closed after {pings} pings"));
                    }
                }
                Received::Frame { first, .. } if first & 0xf == frames::TEXT => {}
                other => return Err(format!("{other:?} after {pings} pings")),
            }
        }
        Ok(())
    });
});

at_shards!(a_dead_connection_is_reaped_and_goes_offline, SHORT, |server| {
    let presence = || server.rest_ok("GET", "/v1/users/alice/presence", None);
    assert!(presence()["last_seen"].is_null(), "never here");
    let mut dead = RawConnection::authenticated(server, "alice");
    // It reads, and answers nothing.
    assert_eq!(dead.close_code(), Some(4201));
    let offline = eventually("alice is offline", || Some(presence()).filter(|own| own["last_seen"].is_u64()));
    assert_eq!((&offline["status"], &offline["devices"]), (&json!("offline"), &json!(0)));
});

at_shards!(messages_and_unasked_pongs_count_as_life, SHORT, |server| {
    unless_held_up(|pace| {
        let mut talking = RawConnection::authenticated(server, "alice");
        let mut ponging = RawConnection::authenticated(server, "bob");
        // Somebody silent who came later is closed, and somebody else who came then: several timeouts, however long they take.
        for name in ["carol", "dave"] {
            let mut silent = RawConnection::authenticated(server, name);
            loop {
                pace.step();
                let talked = talking.send(&frames::text(r#"{"type":"ping"}"#));
                let ponged = ponging.send(&frames::masked(frames::FIN | frames::PONG, b"unasked"));
                if talked.is_err() || ponged.is_err() {
                    return Err(format!("closed: {talked:?}, {ponged:?}"));
                }
                match silent.receive(Duration::from_millis(100)) {
                    Received::Frame { first, payload } if first & 0xf == frames::CLOSE => {
                        assert_eq!(payload[..2], 4201u16.to_be_bytes());
                        break;
                    }
                    Received::End => panic!("{name} is closed without a word"),
                    Received::Frame { .. } | Received::Nothing => {}
                }
            }
        }
        for (name, mut connection) in [("talking", talking), ("ponging", ponging)] {
            if !is_alive(&mut connection) {
                return Err(format!("the {name} one is closed"));
            }
        }
        Ok(())
    });
});

at_shards!(bytes_without_a_whole_message_are_no_life, SHORT, |server| {
    let mut drip = RawConnection::authenticated(server, "alice");
    let frame = frames::text(&"x".repeat(100_000));
    let start = Instant::now();
    for byte in frame.chunks(1) {
        let sent = drip.send(byte);
        match drip.receive(Duration::from_millis(100)) {
            Received::Frame { first, payload } if first & 0xf == frames::CLOSE => {
                // Long before the message would have to be complete.
                assert_eq!(payload[..2], 4201u16.to_be_bytes());
                return;
            }
            Received::End => panic!("no close frame"),
            Received::Frame { .. } | Received::Nothing => assert!(sent.is_ok(), "{sent:?} without a close frame"),
        }
        assert!(start.elapsed() < PATIENCE, "a drip of bytes keeps the connection open");
    }
});

/// How long this test's own steps have taken.
struct Pace {
    last: Instant,
    longest: Duration,
}

impl Pace {
    fn step(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

/// Runs a check in which somebody has to give signs of life in time. Who did not because this test itself did not get to run is
/// closed by right: such a try proves nothing and is made again. A failure of a try that went on steadily is one.
fn unless_held_up(check: impl Fn(&mut Pace) -> Result<(), String>) {
    for _ in 0..TRIES_MAX {
        let mut pace = Pace { last: Instant::now(), longest: Duration::ZERO };
        let Err(fault) = check(&mut pace) else { return };
        pace.step();
        assert!(pace.longest > STEADY, "{fault}, though no step took longer than {:?}", pace.longest);
    }
    panic!("held up {TRIES_MAX} times");
}

/// Whether a `ping` message is still answered.
fn is_alive(connection: &mut RawConnection) -> bool {
    if connection.send(&frames::text(r#"{"type":"ping","message_id":"still-there"}"#)).is_err() {
        return false;
    }
    loop {
        match connection.receive(PATIENCE) {
            Received::Frame { first, payload } if first & 0xf == frames::TEXT => {
                if String::from_utf8_lossy(&payload).contains("still-there") {
                    return true;
                }
            }
            Received::Frame { first, .. } if matches!(first & 0xf, frames::PING | frames::PONG) => {}
            Received::Frame { .. } | Received::End => return false,
            Received::Nothing => panic!("neither closed nor answered"),
        }
    }
}

/// Less than the timeout of [`SHORT`], more than its interval.
const STEADY: Duration = Duration::from_millis(1_500);
const TRIES_MAX: usize = 20;
