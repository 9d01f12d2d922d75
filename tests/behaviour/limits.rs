//! Limits: who is told to slow down, who is turned away at the door, and that the neighbours do not notice.

use serde_json::{Value, json};

use crate::at_shards;
use crate::support::client::assert_error;
use crate::support::http::Response;
use crate::support::{Client, Login, RawConnection, Server, eventually};

at_shards!(too_fast_is_refused_with_a_time_to_wait, "[limits]\nmessages_per_second = 5\n", |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    for index in 0..40 {
        let data = json!({"to_user_id": "bob", "content": index.to_string()});
        alice.send_json(&json!({"type": "send_message", "message_id": format!("m{index}"), "data": data}));
    }
    let replies: Vec<Value> = (0..40).map(|index| alice.reply_to(&format!("m{index}"))).collect();
    let (acked, refused): (Vec<&Value>, Vec<&Value>) = replies.iter().partition(|reply| reply["type"] == "ack");
    assert!(acked.len() >= 5 && refused.len() >= 20, "{} acked, {} refused", acked.len(), refused.len());
    for reply in refused {
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
    let answers: Vec<Result<Client, Response>> =
        (0..60).map(|index| Client::try_enter(server, &Login::of(&format!("u{index}")))).collect();
    let (mut accepted, mut refused) = (0, 0);
    for answer in answers {
        match answer {
            Ok(_) => accepted += 1,
            Err(response) => {
                refused += 1;
                assert_busy(response, 503, "OVERLOADED");
            }
        }
    }
    assert!(accepted >= 5 && refused >= 1, "{accepted} accepted, {refused} refused");
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
