//! Well-formed and far too much.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Neighbours;
use crate::at_shards;
use crate::support::{Client, PATIENCE, RawConnection, Server, eventually, frames};

at_shards!(ten_times_the_rate_ends_in_4101, "[limits]\nmessages_per_second = 20\nerrors_per_minute = 30\n", |server| {
    let mut neighbours = Neighbours::calm(server);
    let mut abuser = Client::connect(server, "mallory");
    for index in 0..400 {
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

/// Asks until nothing more is taken, and leaves.
fn flood_unread(server: &Server, user: &str) {
    let mut deaf = RawConnection::authenticated(server, user);
    let batch = frames::text(r#"{"type":"get_unread","message_id":"a-request-whose-answers-nobody-reads"}"#).repeat(100);
    deaf.stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout above zero");
    let start = Instant::now();
    // The server stops reading from it, or closes it: either way the flood ends.
    while std::io::Write::write_all(&mut deaf.stream, &batch).is_ok() {
        assert!(start.elapsed() < PATIENCE, "answers that nobody reads go on for ever");
    }
}

/// What three floods of tens of thousands of requests may leave behind.
const DEAF_GROWTH_BYTES_MAX: u64 = 64 << 20;
