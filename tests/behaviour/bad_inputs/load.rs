//! Well-formed and far too much.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Neighbours;
use crate::at_shards;
use crate::support::raw::Received;
use crate::support::{Client, PATIENCE, RawConnection, Server, eventually, frames};

at_shards!(ten_times_the_rate_ends_in_4101, "[limits]\nmessages_per_second = 20\nerrors_per_minute = 30\n", |server| {
    let mut neighbours = Neighbours::calm(server);
    let mut abuser = Client::connect(server, "mallory");
    // Ten times the rate as long as it takes: whoever sends so much slower than that on a slow machine is right to stay.
    for index in 0..4_000 {
        let data = json!({"to_user_id": "carol", "content": index.to_string()});
        if !abuser.try_send(&json!({"type": "send_message", "data": data})) {
            break;
        }
    }
    abuser.expect_close_as(4101, "rate_limited");
    let errors = abuser.queued("error");
    assert!(!errors.is_empty() && errors.iter().all(|data| data["name"] == "RATE_LIMITED"), "{errors:?}");
    neighbours.assert_undisturbed("ten times the rate");
});

at_shards!(what_follows_a_close_is_not_looked_at, "[limits]\nmessages_per_second = 20\nerrors_per_minute = 30\n", |server| {
    const MESSAGES: usize = 20_000;
    let mut abuser = RawConnection::authenticated(server, "mallory");
    let message = br#"{"type":"send_message","data":{"to_user_id":"carol","content":"x"}}"#;
    // It may be closed before all are taken.
    let _ = abuser.send(&frames::masked(frames::FIN | frames::TEXT, message).repeat(MESSAGES));
    loop {
        match abuser.receive(PATIENCE) {
            Received::Frame { first, payload } if first & 0xf == frames::CLOSE => {
                assert_eq!(payload[..2], 4101u16.to_be_bytes());
                break;
            }
            Received::Frame { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    eventually("it is counted as closed", || {
        (server.metric("corehub_connections_closed_total", "rate_limited") == 1.0).then_some(())
    });
    let received = server.metric("corehub_messages_received_total", "send_message");
    assert!(received < MESSAGES as f64 / 2.0, "{received} were decoded after the close");
});

at_shards!(ten_times_the_rate_in_pings_ends_in_4101, "[limits]\nmessages_per_second = 100\nerrors_per_minute = 30\n", |server| {
    const PINGS: usize = 10_000;
    let mut neighbours = Neighbours::calm(server);
    let mut abuser = RawConnection::authenticated(server, "mallory");
    // It may be closed before all are taken.
    let _ = abuser.send(&frames::masked(frames::FIN | frames::PING, b"hurry").repeat(PINGS));
    let mut pongs = 0;
    loop {
        match abuser.receive(PATIENCE) {
            Received::Frame { first, .. } if first & 0xf == frames::PONG => pongs += 1,
            Received::Frame { first, payload } if first & 0xf == frames::CLOSE => {
                assert_eq!(payload[..2], 4101u16.to_be_bytes());
                break;
            }
            Received::Frame { .. } => {}
            other => panic!("{other:?} after {pongs} pongs"),
        }
    }
    assert!(pongs < PINGS, "{pongs} pongs");
    neighbours.assert_undisturbed("pings");
});

at_shards!(a_flood_of_connects_is_capped, "[limits]\nconnects_per_second = 50\n", |server| {
    let mut neighbours = Neighbours::of(server);
    let start = Instant::now();
    let mut taken = 0.0;
    for index in 0..2_000 {
        let mut connection = RawConnection::open(server);
        let asked = connection.send(
            b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        // When very many are refused at once, some are closed without a response.
        let status = asked.ok().and_then(|()| connection.try_response()).map(|response| response.status);
        assert!(matches!(status, None | Some(101 | 503)), "{status:?}");
        taken += if status == Some(101) { 1.0 } else { 0.0 };
        if index % 500 == 0 {
            neighbours.exchange("a flood of connects");
        }
    }
    // Each shard takes its part, rounded up.
    let shards = server.shards();
    let allowed = f64::from(50_u16.div_ceil(shards) * shards) * (start.elapsed().as_secs_f64() + 2.0);
    assert!(taken <= allowed, "{taken} were taken, {allowed} at most may be");
    neighbours.assert_undisturbed("a flood of connects");
});

at_shards!(groups_beyond_the_limits_are_refused, "[limits]\ngroups_per_user = 20\nerrors_per_minute = 1000000\n", |server| {
    let mut neighbours = Neighbours::of(server);
    let mut owner = Client::connect(server, "owner");
    for index in 0..20 {
        owner.acked("create_group", json!({"group_id": format!("o{index}")}));
    }
    assert_full(&mut owner, "create_group", json!({}));
    let mut mallory = Client::connect(server, "mallory");
    for index in 0..20 {
        mallory.acked("join_group", json!({"group_id": format!("o{index}")}));
    }
    let mut other = Client::connect(server, "other");
    other.acked("create_group", json!({"group_id": "another"}));
    assert_full(&mut mallory, "create_group", json!({}));
    for _ in 0..500 {
        mallory.ask_refused("BAD_REQUEST", "join_group", json!({"group_id": "another"}));
    }
    mallory.acked("join_group", json!({"group_id": "o7"}));
    let members = |count: usize| (0..count).map(|index| format!("u{index}")).collect::<Vec<_>>();
    other.ask_refused("BAD_REQUEST", "create_group", json!({"group_id": "large", "members": members(20_000)}));
    other.ask_refused("BAD_REQUEST", "invite_to_group", json!({"group_id": "another", "user_ids": members(20_000)}));
    other.ask_refused("NO_SUCH_GROUP", "leave_group", json!({"group_id": "large"}));
    other.send("create_group", json!({"group_id": "huge", "members": members(100_000)}));
    assert_eq!(other.expect_close().0, 1009);
    neighbours.assert_undisturbed("too many groups");
});

at_shards!(
    many_whole_messages_on_one_connection_are_fine,
    "[limits]\nmessages_per_second = 0\nuser_messages_per_second = 0\n",
    |server| {
        const ROUNDS: usize = 200;
        const EACH: usize = 1_000;
        let mut neighbours = Neighbours::of(server);
        let mut connection = RawConnection::authenticated(server, "alice-too");
        let batch = frames::text(r#"{"type":"ping"}"#).repeat(EACH);
        for _ in 0..ROUNDS {
            connection.send(&batch).expect("the connection is open");
            for _ in 0..EACH {
                connection.read_until("pong");
            }
        }
        neighbours.assert_undisturbed("200,000 messages");
    }
);

at_shards!(connections_that_come_and_go_leave_nothing, "[limits]\nconnects_per_second = 0\n", |server| {
    let mut neighbours = Neighbours::of(server);
    for index in 0..2_000 {
        let mut connection = RawConnection::open(server);
        if index % 4 != 0 {
            assert_eq!(connection.upgrade("/ws", &[]).status, 101);
        }
        if index % 2 == 0 {
            connection.reset();
        }
    }
    eventually("they are gone", || (server.metric("corehub_connections", "") <= 2.0).then_some(()));
    neighbours.assert_undisturbed("connections that come and go");
});

at_shards!(a_client_that_never_reads_is_bounded, "[limits]\nmessages_per_second = 0\nuser_messages_per_second = 0\n", |server| {
    // The first flood shows the allocator what it has to keep at hand; all further ones find it there.
    flood_unread(server, "first");
    let mut neighbours = Neighbours::of(server);
    for user in ["second", "third", "fourth"] {
        flood_unread(server, user);
        // The allocator and the store keep some of a flood's pages at hand; a queue without bounds would pass this in a second.
        neighbours.assert_bounded("a client that never reads", DEAF_GROWTH_BYTES_MAX);
    }
});

/// Groups are counted when the session has learnt of them, which may be a moment after the answer.
fn assert_full(client: &mut Client, kind: &str, data: serde_json::Value) {
    eventually("one too many is refused", || (client.request(kind, data.clone())["data"]["name"] == "BAD_REQUEST").then_some(()));
}

/// Asks until nothing more is taken, and leaves.
fn flood_unread(server: &Server, user: &str) {
    let mut deaf = RawConnection::authenticated(server, user);
    // What its own side of the socket holds is little, so that the flood is about what the server does.
    socket2::SockRef::from(&deaf.stream).set_recv_buffer_size(64 << 10).expect("a TCP socket has that option");
    let batch = frames::text(r#"{"type":"get_unread","message_id":"a-request-whose-answers-nobody-reads"}"#).repeat(100);
    deaf.stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout above zero");
    let (mut taken, mut refused, mut at) = (0, 0, 0);
    // The server stops reading from it, or closes it: either way the flood ends. A server that is only slow takes more once it
    // has answered somebody else.
    while refused < 2 {
        match std::io::Write::write(&mut deaf.stream, &batch[at..]) {
            Ok(count) => (taken, refused, at) = (taken + count, 0, (at + count) % batch.len()),
            Err(fault) if matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                refused += 1;
                RawConnection::upgraded(server).assert_alive();
            }
            Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
        assert!(taken < FLOOD_BYTES_MAX, "answers that nobody reads go on for ever");
    }
}

/// What the sockets on both sides and the server's bounds hold is far less.
const FLOOD_BYTES_MAX: usize = 256 << 20;

/// What three floods of tens of thousands of requests may leave behind.
const DEAF_GROWTH_BYTES_MAX: u64 = 64 << 20;
