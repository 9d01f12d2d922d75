//! The end of a server: everybody is told, nothing acknowledged is lost, and it ends by its deadline or at the second asking.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::at_shards;
use crate::support::{Client, RawConnection, Server, eventually};

/// What a stuck connection is sent, far more than its sockets hold.
const STUCK_MESSAGES: usize = 400;

at_shards!(everybody_is_told_and_closed, |server| {
    let mut clients: Vec<Client> = (0..20).map(|index| Client::connect(server, &format!("u{index}"))).collect();
    let mut pending = Client::anonymous(server);
    server.terminate();
    for client in &mut clients {
        let told = client.expect("reconnect");
        assert!(told["retry_after_ms"].is_u64() && told["reason"].is_string(), "{told}");
        client.expect_close_as(4202, "shutdown");
    }
    assert_eq!(pending.expect_close().0, 4202);
    assert_eq!(server.wait_for_exit().code(), Some(0));
});

at_shards!(a_busy_server_drains_too, UNLIMITED, |server| {
    std::thread::scope(|scope| {
        for index in 0..4 {
            scope.spawn(move || {
                let mut sender = Client::connect(server, &format!("s{index}"));
                let data = json!({"to_user_id": "bob", "content": "x".repeat(4_000)});
                // Until the server has gone.
                while sender.try_send(&json!({"type": "send_message", "data": data})) {}
            });
        }
        eventually("the server is busy", || (server.metric("corehub_ack_seconds_count", "") > 1_000.0).then_some(()));
        server.terminate();
        assert_eq!(server.wait_for_exit().code(), Some(0), "its log:\n{}", server.log());
    });
});

at_shards!(an_interrupt_drains_too, |server| {
    let mut client = Client::connect(server, "alice");
    server.signal(Signal::INT);
    client.expect_close_as(4202, "shutdown");
    assert_eq!(server.wait_for_exit().code(), Some(0));
});

at_shards!(what_was_acknowledged_is_there_afterwards, |server| {
    let mut alice = Client::connect(server, "alice");
    for index in 0..500 {
        let data = json!({"to_user_id": "bob", "content": index.to_string()});
        let open = alice.try_send(&json!({"type": "send_message", "message_id": format!("m{index}"), "data": data}));
        if index == 250 {
            server.terminate();
        }
        // It may be closed before the last one is sent, but not before it is told to end.
        if !open {
            assert!(index > 250, "closed at message {index}");
            break;
        }
    }
    alice.expect_close_as(4202, "shutdown");
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let acked: Vec<Value> = alice.queued("ack").iter().map(|ack| ack["message_id"].clone()).collect();
    for fault in alice.queued("error") {
        assert!(matches!(fault["name"].as_str(), Some("DRAINING" | "RATE_LIMITED" | "OVERLOADED")), "{fault}");
        assert_eq!(fault["temporary"], true);
    }
    server.start_again();
    let mut bob = Client::connect(server, "bob");
    let found: Vec<Value> = bob.queued("new_message").iter().map(|message| message["message_id"].clone()).collect();
    let lost: Vec<&Value> = acked.iter().filter(|id| !found.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged messages are lost", lost.len(), acked.len());
});

at_shards!(a_stuck_reader_cannot_hold_it_past_the_deadline, "[server]\ndrain_deadline = \"5s\"\n", |server| {
    let _stuck = stuck_reader(server);
    let mut client = Client::connect(server, "alice");
    server.terminate();
    client.expect_close_as(4202, "shutdown");
    assert_eq!(server.wait_for_exit().code(), Some(0));
});

at_shards!(a_second_signal_ends_it_at_once, "[server]\ndrain_deadline = \"1h\"\n", |server| {
    let _stuck = stuck_reader(server);
    let mut client = Client::connect(server, "alice");
    server.terminate();
    client.expect("reconnect");
    server.terminate();
    assert_eq!(server.wait_for_exit().code(), Some(130));
});

at_shards!(it_can_start_again_on_its_data, |server| {
    Client::connect(server, "alice").tell("bob", "x");
    for _ in 0..3 {
        server.terminate();
        assert_eq!(server.wait_for_exit().code(), Some(0));
        server.start_again();
    }
    assert_eq!(Client::connect(server, "bob").expect("new_message")["content"], "x");
});

/// A connection that has been sent more than it reads.
fn stuck_reader(server: &Server) -> RawConnection {
    let stuck = RawConnection::authenticated(server, "stuck");
    // What its side of the socket may hold is little, whatever the machine would give it.
    socket2::SockRef::from(&stuck.stream).set_recv_buffer_size(64 << 10).expect("a TCP socket has that option");
    let mut sender = Client::connect(server, "sender");
    let content = "x".repeat(60_000);
    for _ in 0..STUCK_MESSAGES {
        sender.tell("stuck", &content);
    }
    stuck
}

/// Whoever sends without a pause is not cut off.
const UNLIMITED: &str = "[limits]\nmessages_per_second = 0\nuser_messages_per_second = 0\n";
