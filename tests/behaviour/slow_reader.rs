//! A reader that stalls in a busy group costs its neighbours nothing, the server no memory, and itself no message.

use serde_json::{Value, json};

use crate::at_shards;
use crate::support::{Client, RawConnection, Server, token};

const CONFIG: &str = "[limits]\noutbox_bytes = \"64KiB\"\nmessages_per_second = 0\nuser_messages_per_second = 0\n\
                      [heartbeat]\ninterval = \"300s\"\ntimeout = \"400s\"\nwrite_timeout = \"300s\"\n";
const STALLED: usize = 20;
const MESSAGES: usize = 2_000;
const CONTENT_BYTES: usize = 4_096;
/// The log's own caches may take their part; the backlogs (20 times 8 MB) may not.
const GROWTH_BYTES_MAX: u64 = 80 << 20;

at_shards!(stalled_readers_cost_no_memory_and_lose_nothing, CONFIG, |server| {
    let users: Vec<String> = (0..STALLED).map(|index| format!("stalled-{index}")).collect();
    let mut owner = Client::connect(server, "owner");
    let members: Vec<&str> = users.iter().map(String::as_str).chain(["reader"]).collect();
    owner.acked("create_group", json!({"group_id": "busy", "members": members}));
    let mut stalled: Vec<RawConnection> = users.iter().map(|user| narrow(server, user)).collect();
    let mut reader = Client::connect(server, "reader");
    let before = server.resident_bytes();
    send_all(&mut owner, &mut reader);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{} MiB more after {STALLED} stalled readers", grown >> 20);
    for connection in &mut stalled {
        for seq in 1..=MESSAGES {
            let message = connection.read_until("new_message")["data"].clone();
            assert_eq!(message["seq"], seq, "in order, without gap or repeat");
        }
        connection.assert_alive();
    }
});

at_shards!(a_stalled_reader_that_leaves_finds_the_rest_later, CONFIG, |server| {
    let mut owner = Client::connect(server, "owner");
    owner.acked("create_group", json!({"group_id": "busy", "members": ["stalled", "reader"]}));
    let mut reader = Client::connect(server, "reader");
    let stalled = narrow(server, "stalled");
    send_all(&mut owner, &mut reader);
    stalled.reset();
    // What the sockets had taken may or may not come again; all that follows must come, in order, to the end.
    let mut back = Client::connect(server, "stalled");
    let mut next = back.expect("new_message")["seq"].as_u64().expect("a number");
    while next < MESSAGES as u64 {
        let seq = back.expect("new_message")["seq"].as_u64().expect("a number");
        assert_eq!(seq, next + 1);
        next = seq;
    }
    back.expect_none("new_message");
});

/// Sends every message in small windows; the reader follows and shows that it is served all the time.
fn send_all(owner: &mut Client, reader: &mut Client) {
    let content = "x".repeat(CONTENT_BYTES);
    for window in 0..MESSAGES / WINDOW {
        let ids: Vec<String> = (0..WINDOW).map(|index| format!("{window}-{index}")).collect();
        for id in &ids {
            let data = json!({"group_id": "busy", "content": content});
            owner.send_json(&json!({"type": "send_group_message", "message_id": id, "data": data}));
        }
        for (index, id) in ids.iter().enumerate() {
            let ack: Value = owner.reply_to(id);
            assert_eq!((&ack["type"], &ack["data"]["seq"]), (&json!("ack"), &json!(window * WINDOW + index + 1)));
            assert_eq!(reader.expect("new_message")["seq"], ack["data"]["seq"]);
        }
    }
}

/// A connection whose sockets hold little, and which does not read until asked.
fn narrow(server: &Server, user: &str) -> RawConnection {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(8 * 1024).expect("a TCP socket has that option");
    socket.connect(&server.client_address().into()).expect("the server listens");
    let mut connection = RawConnection { stream: socket.into(), received: Vec::new() };
    let bearer = format!("Bearer {}", token::for_user(user));
    assert_eq!(connection.upgrade("/ws", &[("Authorization", &bearer)]).status, 101);
    connection.read_until("sync_done");
    connection
}

const WINDOW: usize = 50;
