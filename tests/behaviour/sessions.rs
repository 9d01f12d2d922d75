//! How many connections a user may have, which one goes when there are too many, and how operators end them.

use serde_json::json;

use crate::at_shards;
use crate::support::{Client, Login, Server, eventually};

at_shards!(the_sixth_connection_evicts_the_oldest, |server| {
    let mut clients: Vec<Client> = (0..5).map(|device| Client::connect_on(server, "alice", &format!("d{device}"))).collect();
    let mut sixth = Client::connect_on(server, "alice", "d5");
    clients[0].expect_close_as(4010, "replaced");
    sixth.assert_alive();
    for client in &mut clients[1..] {
        client.assert_alive();
    }
    Client::connect_on(server, "bob", "d0").assert_alive();
});

at_shards!(one_too_many_is_turned_away, "[sessions]\nper_user = 2\npolicy = \"reject\"\n", |server| {
    let mut first = Client::connect_on(server, "alice", "phone");
    let mut second = Client::connect_on(server, "alice", "phone");
    let mut third = Client::enter(server, &Login::of("alice").device("laptop"));
    third.expect_close_as(4004, "connection_limit");
    first.assert_alive();
    second.assert_alive();
    first.leave();
    eventually("room for another", || {
        let mut again = Client::enter(server, &Login::of("alice"));
        again.send("ping", json!({}));
        again.listen(std::time::Duration::from_millis(200));
        (!again.queued("pong").is_empty()).then_some(())
    });
});

at_shards!(a_device_replaces_itself, "[sessions]\nper_user = 2\npolicy = \"replace_device\"\n", |server| {
    let mut phone = Client::connect_on(server, "alice", "phone");
    let mut laptop = Client::connect_on(server, "alice", "laptop");
    let mut again = Client::connect_on(server, "alice", "laptop");
    laptop.expect_close_as(4010, "replaced");
    phone.assert_alive();
    again.assert_alive();
});

at_shards!(single_sign_on_is_a_cap_of_one, "[sessions]\nper_user = 1\n", |server| {
    let mut last = Client::connect(server, "alice");
    for _ in 0..5 {
        let next = Client::connect(server, "alice");
        last.expect_close_as(4010, "replaced");
        last = next;
    }
    last.assert_alive();
});

at_shards!(operators_kick_one_connection, |server| {
    let mut phone = Client::connect_on(server, "alice", "phone");
    let mut laptop = Client::connect_on(server, "alice", "laptop");
    let id = connection_of(server, "alice", "phone");
    assert!(server.rest("DELETE", &format!("/v1/connections/{id}"), None).status < 300);
    phone.expect_close_as(4011, "kicked");
    laptop.assert_alive();
    assert_eq!(server.rest("DELETE", &format!("/v1/connections/{id}"), None).status, 404, "it is gone");
});

at_shards!(operators_kick_a_user, |server| {
    let mut clients = ["phone", "laptop", "tablet"].map(|device| Client::connect_on(server, "alice", device));
    let mut bob = Client::connect(server, "bob");
    server.rest_ok("POST", "/v1/users/alice/kick", Some(json!({})));
    for client in &mut clients {
        client.expect_close_as(4011, "kicked");
    }
    bob.assert_alive();
    Client::connect(server, "alice").assert_alive();
});

at_shards!(a_connection_that_ends_leaves_no_trace, |server| {
    for round in 0..20 {
        let client = Client::connect(server, "alice");
        if round % 2 == 0 { client.leave() } else { client.vanish() }
    }
    eventually("the list is empty", || {
        let list = server.rest_ok("GET", "/v1/connections?user=alice", None);
        list["connections"].as_array().expect("a list").is_empty().then_some(())
    });
    eventually("nobody is online", || (server.fetch("/stats").json()["online_users"] == 0).then_some(()));
});

fn connection_of(server: &Server, user: &str, device: &str) -> String {
    eventually("the connection is listed", || {
        let list = server.rest_ok("GET", &format!("/v1/connections?user={user}"), None);
        let list = list["connections"].as_array().expect("a list").clone();
        let own = list.into_iter().find(|connection| connection["device_id"] == device)?;
        // An id is opaque: a string, or a number that is written in decimal.
        Some(own["connection_id"].as_str().map_or_else(|| own["connection_id"].to_string(), str::to_owned))
    })
}
