//! Limits: who is told to slow down, who is turned away at the door, and that the neighbours do not notice.

use std::time::Instant;

use serde_json::{Value, json};

use crate::at_shards;
use crate::support::client::assert_error;
use crate::support::http::Response;
use crate::support::{Client, Login, RawConnection, Server, eventually};

const FIVE: &str = "[limits]\nmessages_per_second = 5\nerrors_per_minute = 1000000\n";

at_shards!(too_fast_is_refused_with_a_time_to_wait, FIVE, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    let start = Instant::now();
    let (mut acked, mut refused) = (Vec::new(), Vec::new());
    // Until many are refused, however long the server takes over the first ones.
    for round in 0..ROUNDS_MAX {
        for index in 0..40 {
            let data = json!({"to_user_id": "bob", "content": index.to_string()});
            alice.send_json(&json!({"type": "send_message", "message_id": format!("m{round}-{index}"), "data": data}));
        }
        let replies = (0..40).map(|index| alice.reply_to(&format!("m{round}-{index}")));
        let (good, bad): (Vec<Value>, Vec<Value>) = replies.partition(|reply| reply["type"] == "ack");
        acked.extend(good);
        refused.extend(bad);
        if refused.len() >= 20 {
            break;
        }
    }
    let allowed = 10.0 + 5.0 * (start.elapsed().as_secs_f64() + 1.0);
    assert!(refused.len() >= 20 && acked.len() >= 5, "{} acked, {} refused", acked.len(), refused.len());
    assert!(acked.len() as f64 <= allowed, "{} acked, {allowed} at most may be", acked.len());
    for reply in &refused {
        assert_error(reply, "RATE_LIMITED", "too fast");
        assert!(reply["data"]["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0 && wait <= 60_000), "{reply}");
    }
    assert_eq!(bob.expect_many("new_message", acked.len()).len(), acked.len());
    bob.expect_none("new_message");
    bob.assert_alive();
    eventually("it may go on after the pause", || {
        let reply = alice.request("send_message", json!({"to_user_id": "bob", "content": "slowly"}));
        (reply["type"] == "ack").then_some(())
    });
});

at_shards!(repeated_errors_close, "[limits]\nerrors_per_minute = 5\n", |server| {
    let mut abuser = Client::connect(server, "mallory");
    let mut neighbour = Client::connect(server, "alice");
    for _ in 0..6 {
        abuser.send_text("no json");
    }
    abuser.expect_close_as(4101, "rate_limited");
    let errors = abuser.queued("error");
    assert!((5..=6).contains(&errors.len()) && errors.iter().all(|data| data["name"] == "BAD_JSON"), "{errors:?}");
    neighbour.assert_alive();
});

at_shards!(a_few_errors_do_not_close, |server| {
    let mut client = Client::connect(server, "alice");
    for _ in 0..50 {
        client.send_text("no json");
    }
    client.expect_many("error", 50);
    client.assert_alive();
});

at_shards!(an_address_has_a_cap, "[limits]\nconnections_per_ip = 3\n", |server| {
    let mut clients: Vec<Client> = (0..3).map(|index| Client::connect(server, &format!("u{index}"))).collect();
    assert_busy(refusal(server), 429, "RATE_LIMITED");
    for client in &mut clients {
        client.assert_alive();
    }
    clients.pop().expect("three").leave();
    eventually("room for another", || Client::try_enter(server, &Login::of("late")).ok());
});

at_shards!(a_node_has_a_cap, "[limits]\nconnections = 3\n", |server| {
    let mut clients: Vec<Client> = (0..3).map(|index| Client::connect(server, &format!("u{index}"))).collect();
    assert_busy(refusal(server), 503, "OVERLOADED");
    for client in &mut clients {
        client.assert_alive();
    }
    clients.pop().expect("three").vanish();
    eventually("room for another", || Client::try_enter(server, &Login::of("late")).ok());
});

at_shards!(a_node_accepts_so_many_a_second, "[limits]\nconnects_per_second = 5\n", |server| {
    let start = Instant::now();
    let (mut accepted, mut refused) = (0, 0);
    // All of a round come at once, whatever the answers take; another round only where even that was slow enough.
    for _ in 0..ROUNDS_MAX {
        let mut connections: Vec<RawConnection> = (0..60).map(|_| RawConnection::open(server)).collect();
        for connection in &mut connections {
            connection.send(UPGRADE).expect("the server takes a request");
        }
        for mut connection in connections {
            match connection.response().expect("an answer") {
                answer if answer.status == 101 => accepted += 1,
                answer => {
                    refused += 1;
                    assert_busy(answer, 503, "OVERLOADED");
                }
            }
        }
        if refused > 0 {
            break;
        }
    }
    // Each shard takes its part, rounded up.
    let shards = server.shards();
    let allowed = f64::from(5_u16.div_ceil(shards) * shards) * (start.elapsed().as_secs_f64() + 2.0);
    assert!(accepted >= 5 && refused >= 1, "{accepted} accepted, {refused} refused");
    assert!(f64::from(accepted) <= allowed, "{accepted} accepted, {allowed} at most may be");
    eventually("it goes on after the pause", || Client::try_enter(server, &Login::of("late")).ok());
});

at_shards!(content_has_a_limit_of_its_own, "[limits]\ncontent_bytes = 100\n", |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    alice.tell("bob", &"x".repeat(100));
    alice.tell("bob", &"é".repeat(50));
    // What counts is the text, not its spelling in JSON.
    alice.tell("bob", &"\n".repeat(100));
    for content in [json!("x".repeat(101)), json!("é".repeat(51)), json!({"k": "x".repeat(100)})] {
        alice.ask_refused("TOO_LARGE", "send_message", json!({"to_user_id": "bob", "content": content}));
    }
    let text =
        format!(r#"{{"type":"send_message","message_id":"e","data":{{"to_user_id":"bob","content":"{}"}}}}"#, r"\n".repeat(101));
    alice.send_text(&text);
    assert_error(&alice.reply_to("e"), "TOO_LARGE", "escapes count as what they stand for");
    assert_eq!(bob.expect_many("new_message", 3).len(), 3);
    bob.expect_none("new_message");
});

at_shards!(a_message_over_the_limit_closes, "[limits]\nmessage_bytes = 4096\n", |server| {
    let envelope = |bytes: usize| {
        let empty = r#"{"type":"send_message","message_id":"m","data":{"to_user_id":"bob","content":""}}"#;
        empty.replace(r#""content":"""#, &format!(r#""content":"{}""#, "x".repeat(bytes - empty.len())))
    };
    let mut alice = Client::connect(server, "alice");
    alice.send_text(&envelope(4096));
    assert_eq!(alice.reply_to("m")["type"], "ack", "exactly at the limit");
    alice.send_text(&envelope(4097));
    assert_eq!(alice.expect_close().0, 1009);
});

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Rounds until a limit must have been met: a machine on which it was not is no machine.
const ROUNDS_MAX: usize = 100;

fn refusal(server: &Server) -> Response {
    Client::try_enter(server, &Login::of("late")).err().expect("turned away")
}

fn assert_busy(response: Response, status: u16, name: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    let wait = response.header("retry-after").unwrap_or_else(|| panic!("no Retry-After in {:?}", response.headers));
    assert!(wait.parse::<u64>().is_ok_and(|seconds| (1..=600).contains(&seconds)), "{wait}");
    assert_eq!(response.error_name(), name);
}

at_shards!(caps_count_connections_that_never_authenticate, "[limits]\nconnections_per_ip = 2\n", |server| {
    let _idle = [RawConnection::upgraded(server), RawConnection::upgraded(server)];
    assert_eq!(refusal(server).status, 429);
});
