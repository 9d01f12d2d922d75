//! Thousands of connections over four shards: everyone gets everything once and in order.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::support::crowd::Crowd;
use crate::support::{Client, PATIENCE, Server, eventually};

const MEMBERS: usize = 1_000;
const BYSTANDERS: usize = 1_000;
const SENDERS: usize = 3;
const MESSAGES: usize = 1_000;
const WINDOW: usize = 20;

const CONFIG: &str = "[limits]\nconnections = 10000\nconnections_per_ip = 10000\nconnects_per_second = 100000\n\
                      messages_per_second = 0\nuser_messages_per_second = 0\n\
                      [heartbeat]\ninterval = \"300s\"\ntimeout = \"400s\"\n";

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(rename = "type", borrow)]
    kind: &'a str,
    data: Option<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    conversation_id: Option<&'a str>,
    seq: Option<u64>,
    #[serde(borrow)]
    sender_id: Option<&'a str>,
    /// As it is spelt: text for messages, an object for notifications.
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// A thousand members and a thousand others; three members send a thousand messages among them.
#[test]
fn a_large_group_gets_every_message_once_and_in_order() {
    let server = Server::start(4, CONFIG);
    let senders: Vec<String> = (0..SENDERS).map(|index| format!("sender-{index}")).collect();
    let members: Vec<String> = (0..MEMBERS).map(|index| format!("member-{index}")).collect();
    let mut owner = Client::connect(&server, "sender-0");
    owner.acked("create_group", json!({"group_id": "large", "members": senders}));
    for part in members.chunks(500) {
        owner.acked("invite_to_group", json!({"group_id": "large", "user_ids": part}));
    }
    let bystanders = (0..BYSTANDERS).map(|index| format!("bystander-{index}"));
    let logins: Vec<(String, String)> = members.iter().cloned().chain(bystanders).map(|user| (user, "d".to_owned())).collect();
    let mut crowd = Crowd::gather(&server, &logins);
    eventually("all are counted", || (server.fetch("/stats").json()["online_users"] == MEMBERS + BYSTANDERS + 1).then_some(()));

    let (mut heads, mut counts, mut complete) = (vec![0u64; logins.len()], vec![[0usize; SENDERS]; logins.len()], 0);
    std::thread::scope(|scope| {
        for (index, sender) in senders.iter().enumerate() {
            let (server, share) = (&server, MESSAGES / SENDERS + usize::from(index < MESSAGES % SENDERS));
            scope.spawn(move || send_in_windows(server, sender, share));
        }
        crowd.listen(PATIENCE, |index, text| {
            let push: Push = serde_json::from_slice(text).expect("a push is JSON");
            if push.kind != "new_message" {
                return false;
            }
            let message = push.data.expect("a message has data");
            assert!(index < MEMBERS, "{} is no member", logins[index].0);
            assert_eq!(message.conversation_id, Some("g:large"));
            heads[index] += 1;
            assert_eq!(message.seq, Some(heads[index]), "{}: in order, once, without gaps", logins[index].0);
            let sender =
                senders.iter().position(|sender| Some(sender.as_str()) == message.sender_id).expect("one of the senders");
            let expected = format!("\"{}\"", counts[index][sender]);
            assert_eq!(message.content.map(RawValue::get), Some(expected.as_str()), "{}: senders' order", logins[index].0);
            counts[index][sender] += 1;
            complete += usize::from(heads[index] == MESSAGES as u64);
            complete == MEMBERS
        });
    });
    assert_eq!(complete, MEMBERS, "members who have everything");
    crowd.listen(Duration::from_millis(500), |index, text| {
        assert!(!text.starts_with(br#"{"type":"new_message""#), "{}: one too many", logins[index].0);
        false
    });
}

/// Many pairs at once, each user on several devices, spread over the shards.
#[test]
fn private_messages_reach_every_device_of_both_sides() {
    const PAIRS: usize = 50;
    const DEVICES: usize = 4;
    const EACH: usize = 20;
    let server = Server::start(4, CONFIG);
    let users: Vec<String> = (0..PAIRS).flat_map(|pair| [format!("a{pair}"), format!("b{pair}")]).collect();
    let devices = |user: &String| (0..DEVICES).map(|device| (user.clone(), format!("d{device}"))).collect::<Vec<_>>();
    let logins: Vec<(String, String)> = users.iter().flat_map(devices).collect();
    let mut crowd = Crowd::gather(&server, &logins);
    let mut heads = vec![0u64; logins.len()];
    let mut complete = 0;
    std::thread::scope(|scope| {
        let server = &server;
        for part in 0..4 {
            scope.spawn(move || {
                for pair in (part..PAIRS).step_by(4) {
                    let mut sender = Client::connect_on(server, &format!("a{pair}"), "sender");
                    for index in 0..EACH {
                        assert_eq!(sender.tell(&format!("b{pair}"), &index.to_string())["seq"], index + 1);
                    }
                }
            });
        }
        crowd.listen(PATIENCE, |index, text| {
            let push: Push = serde_json::from_slice(text).expect("a push is JSON");
            if push.kind == "new_message" {
                heads[index] += 1;
                let message = push.data.expect("a message has data");
                assert_eq!(message.seq, Some(heads[index]), "{:?}", logins[index]);
                let pair = &logins[index].0[1..];
                assert_eq!(message.conversation_id, Some(format!("p:a{pair}:b{pair}").as_str()));
                complete += usize::from(heads[index] == EACH as u64);
            }
            complete == logins.len()
        });
    });
    assert_eq!(complete, logins.len(), "connections that have everything");
}

/// Sends numbered messages, at most [`WINDOW`] unanswered.
fn send_in_windows(server: &Server, user: &str, count: usize) {
    let mut client = Client::connect_on(server, user, "sender");
    for index in 0..count {
        let data = json!({"group_id": "large", "content": index.to_string()});
        client.send_json(&json!({"type": "send_group_message", "message_id": format!("{user}-{index}"), "data": data}));
        if index >= WINDOW {
            assert_eq!(client.reply_to(&format!("{user}-{}", index - WINDOW))["type"], "ack");
        }
    }
    for index in count.saturating_sub(WINDOW)..count {
        assert_eq!(client.reply_to(&format!("{user}-{index}"))["type"], "ack");
    }
}
