//! What operators see and may do: health, figures, metrics, lists of connections, and the door that keeps others out.

use serde_json::{Value, json};

use crate::at_shards;
use crate::support::http;
use crate::support::server::API_KEY;
use crate::support::{Client, RawConnection, Server, eventually, frames, token};

/// Every metric that operators may rely on (CONTRACT, "Metrics"), with its type.
const METRICS: &[(&str, &str)] = &[
    ("corehub_connections", "gauge"),
    ("corehub_connections_opened_total", "counter"),
    ("corehub_connections_closed_total", "counter"),
    ("corehub_connection_seconds", "histogram"),
    ("corehub_messages_received_total", "counter"),
    ("corehub_messages_delivered_total", "counter"),
    ("corehub_ack_seconds", "histogram"),
    ("corehub_delivery_seconds", "histogram"),
    ("corehub_errors_total", "counter"),
    ("corehub_outbox_bytes", "gauge"),
    ("corehub_mesh_messages_total", "counter"),
    ("corehub_store_commit_seconds", "histogram"),
    ("corehub_store_batch_messages", ""),
    ("corehub_lagging_connections", "gauge"),
    ("corehub_turn_seconds", "histogram"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_cpu_seconds_total", "counter"),
];

at_shards!(both_ports_tell_their_health, |server| {
    assert_eq!(server.fetch("/health").status, 200);
    for path in ["/health", "/ready"] {
        assert_eq!(server.rest_with("GET", path, &[], None).status, 200, "{path} needs no key");
    }
    let address = server.client_address().to_string();
    let told = |line: &str| line.contains("ready") && line.contains(&address);
    eventually("it says so", || server.log().lines().any(told).then_some(()));
});

at_shards!(stats_count_users_not_connections, |server| {
    assert_eq!(server.fetch("/stats").json()["online_users"], 0);
    let clients = [("alice", "phone"), ("alice", "laptop"), ("bob", "phone")]
        .map(|(user, device)| Client::connect_on(server, user, device));
    eventually("two users", || (server.fetch("/stats").json()["online_users"] == 2).then_some(()));
    let response = server.fetch("/stats");
    assert_eq!(response.status, 200);
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    assert!(server.rest("GET", "/v1/stats", None).status == 200);
    clients.into_iter().for_each(Client::leave);
    eventually("nobody is left", || (server.fetch("/stats").json()["online_users"] == 0).then_some(()));
});

at_shards!(unknown_paths_and_methods_are_refused, |server| {
    assert_eq!(server.fetch("/nothing-here").status, 404);
    assert_eq!(http::exchange(server.client_address(), "DELETE", "/health", &[], None).status, 405);
    assert_eq!(server.rest("GET", "/v1/nothing-here", None).status, 404);
    assert_eq!(server.rest("PATCH", "/v1/online", None).status, 405);
});

at_shards!(every_metric_is_there_from_the_start, |server| {
    let text = server.metrics();
    for (name, kind) in METRICS {
        let family = name.strip_suffix("_total").unwrap_or(name);
        let typed = text.lines().find(|line| {
            let mut words = line.strip_prefix("# TYPE ").unwrap_or("").split(' ');
            words.next().is_some_and(|word| word == *name || word == family)
        });
        let typed = typed.unwrap_or_else(|| panic!("{name} is missing in:\n{text}"));
        assert!(typed.ends_with(kind), "{typed}: expected a {kind}");
        let alone = *name == "corehub_mesh_messages_total" && server.shards() == 1;
        assert!(alone || text.lines().any(|line| line.starts_with(name)), "{name} has no sample");
        assert!(text.lines().any(|line| line.starts_with(&format!("# HELP {family}"))), "{name} has no help");
    }
    for shard in 0..server.shards() {
        let label = format!("shard=\"{shard}\"");
        for name in ["corehub_connections{", "corehub_turn_seconds_count{"] {
            assert!(text.lines().any(|line| line.starts_with(name) && line.contains(&label)), "{name}{label}");
        }
    }
    for name in ["BAD_JSON", "RATE_LIMITED", "DRAINING"] {
        assert!(text.contains(&format!("corehub_errors_total{{name=\"{name}\"}} 0")), "{name}");
    }
    assert!(text.contains(r#"corehub_messages_received_total{type="send_message"} 0"#));
});

at_shards!(metrics_follow_the_traffic, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut bob = Client::connect(server, "bob");
    for _ in 0..10 {
        alice.tell("bob", "x");
    }
    bob.expect_many("new_message", 10);
    alice.send_text("no json");
    alice.expect("error");
    let at_least = |name: &str, label: &str, count: f64| {
        eventually(name, || (server.metric(name, label) >= count).then_some(()));
    };
    eventually("two connections", || (server.metric("corehub_connections", "shard") == 2.0).then_some(()));
    at_least("corehub_connections_opened_total", "", 2.0);
    at_least("corehub_messages_received_total", r#"type="send_message""#, 10.0);
    at_least("corehub_messages_delivered_total", "", 10.0);
    at_least("corehub_errors_total", r#"name="BAD_JSON""#, 1.0);
    at_least("corehub_ack_seconds_count", "", 10.0);
    at_least("corehub_delivery_seconds_count", "", 10.0);
    at_least("corehub_store_commit_seconds_count", "", 1.0);
    assert!(server.metric("process_resident_memory_bytes", "") > 1e6);
    assert!(server.metric("process_open_fds", "") > 2.0);
    alice.leave();
    at_least("corehub_connections_closed_total", "", 1.0);
    at_least("corehub_connection_seconds_count", "", 1.0);
});

// Whoever says goodbye and does not wait for the answer has not been lost as well.
at_shards!(an_end_is_counted_once, |server| {
    for number in 0..200 {
        let mut connection = RawConnection::upgraded(server);
        connection.send(&frames::masked(frames::FIN | frames::CLOSE, &1000_u16.to_be_bytes())).expect("it is connected");
        if number % 2 == 0 {
            connection.reset();
        }
    }
    let count = |name: &str| server.metric(name, "shard");
    eventually("all have been opened", || (server.metric("corehub_connections_opened_total", "") == 200.0).then_some(()));
    eventually("all are gone", || (count("corehub_connections") == 0.0).then_some(()));
    assert_eq!(server.metric("corehub_connections_closed_total", ""), 200.0);
});

at_shards!(the_key_opens_and_nothing_else_does, |server| {
    let _alice = Client::connect(server, "alice");
    let paths = ["/v1/online", "/v1/connections?user=alice", "/v1/stats"];
    let wrong = format!("{API_KEY}x");
    let long = "x".repeat(100_000);
    let user = format!("Bearer {}", token::for_user("alice"));
    let attempts: [&[(&str, &str)]; 6] = [
        &[],
        &[("X-API-Key", "")],
        &[("X-API-Key", &wrong)],
        &[("X-API-Key", &API_KEY[..API_KEY.len() - 1])],
        &[("Authorization", &user)],
        &[("Authorization", "Bearer rubbish")],
    ];
    for path in paths {
        for headers in attempts {
            let response = server.rest_with("GET", path, headers, None);
            assert_eq!(response.status, 401, "{path} {headers:?}");
            assert_eq!(response.error_name(), "UNAUTHENTICATED", "{path}");
        }
        assert_eq!(
            server.rest_with("GET", &format!("{path}&api_key={API_KEY}").replace("online&", "online?"), &[], None).status,
            401
        );
        assert_eq!(server.rest("GET", path, None).status, 200, "{path}");
    }
    let response = server.rest_with("GET", "/v1/online", &[("X-API-Key", &long)], None);
    assert!(matches!(response.status, 401 | 431), "{}", response.status);
    for (method, path) in [("POST", "/v1/users/alice/kick"), ("DELETE", "/v1/connections/1")] {
        assert_eq!(server.rest_with(method, path, &[], Some(json!({}))).status, 401, "{method} {path}");
    }
    assert!(!server.log().contains(API_KEY) && !server.log().contains(&user[7..]), "keys never reach the log");
});

at_shards!(connections_are_listed_with_their_particulars, |server| {
    let before = token::now_millis();
    let _clients = [Client::connect_on(server, "alice", "phone"), Client::connect_on(server, "alice", "laptop")];
    let _other = Client::connect(server, "bob");
    let list = eventually("both are listed", || {
        let list = server.rest_ok("GET", "/v1/connections?user=alice", None)["connections"].clone();
        (list.as_array().map(Vec::len) == Some(2)).then_some(list)
    });
    for connection in list.as_array().expect("checked") {
        assert_eq!(connection["user_id"], "alice");
        assert!(matches!(connection["device_id"].as_str(), Some("phone" | "laptop")), "{connection}");
        assert!(connection["shard"].as_u64().is_some_and(|shard| shard < u64::from(server.shards())), "{connection}");
        assert!(connection["since"].as_u64().is_some_and(|since| since + 1_000 >= before), "{connection}");
        assert!(connection["remote"].as_str().is_some_and(|remote| remote.starts_with("127.0.0.1")), "{connection}");
        assert!(!connection["connection_id"].is_null());
    }
    assert_ne!(list[0]["connection_id"], list[1]["connection_id"]);
});

at_shards!(the_online_list_has_pages, |server| {
    let _clients: Vec<Client> = (0..7).map(|index| Client::connect(server, &format!("user-{index}"))).collect();
    let _again = Client::connect_on(server, "user-0", "tablet");
    let found = pages(server, "/v1/online?limit=3", "users");
    let mut users: Vec<&str> = found.iter().map(|entry| entry["user_id"].as_str().expect("an id")).collect();
    users.sort_unstable();
    assert_eq!(users, (0..7).map(|index| format!("user-{index}")).collect::<Vec<_>>());
    let first = found.iter().find(|entry| entry["user_id"] == "user-0").expect("checked");
    assert_eq!(first["devices"], 2);
    assert!(first["since"].is_u64(), "{first}");
});

at_shards!(a_revoked_token_ends_its_sessions, |server| {
    let exp = token::now_seconds() + 3600;
    let iat = token::now_seconds() - 10;
    let claims = |jti: &str| token::with_claims(&json!({"sub": "alice", "exp": exp, "jti": jti, "iat": iat}));
    let login = |jti: &str| crate::support::Login::of("alice").token(claims(jti));
    let mut stolen = Client::open(server, &login("stolen"));
    let mut good = Client::open(server, &login("good"));
    server.rest_ok("POST", "/v1/tokens/revoke", Some(json!({"jti": "stolen"})));
    stolen.expect_close_as(4009, "token_revoked");
    good.assert_alive();
    let refusal = Client::try_enter(server, &login("stolen")).err().expect("revoked");
    assert_eq!((refusal.status, refusal.error_name().as_str()), (401, "TOKEN_REVOKED"));
    server.rest_ok("POST", "/v1/tokens/revoke", Some(json!({"user_id": "alice", "issued_before": token::now_millis()})));
    good.expect_close_as(4009, "token_revoked");
    assert!(Client::try_enter(server, &login("other")).is_err());
    // Times in tokens are whole seconds: what is issued from the next one on is later for sure.
    std::thread::sleep(std::time::Duration::from_millis(1_001));
    let fresh = token::with_claims(&json!({"sub": "alice", "exp": exp, "iat": token::now_seconds()}));
    let fresh = crate::support::Login::of("alice").token(fresh);
    let mut kept = Client::open(server, &fresh);
    kept.assert_alive();
    server.crash_and_restart();
    for (login, status) in [(login("stolen"), 401), (login("other"), 401)] {
        assert_eq!(Client::try_enter(server, &login).err().map(|refusal| refusal.status), Some(status), "kept over a restart");
    }
    Client::open(server, &fresh).assert_alive();
});

at_shards!(the_description_of_the_api_is_served, |server| {
    let description = server.rest_ok("GET", "/openapi.json", None);
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    for path in ["/v1/stats", "/v1/online", "/v1/connections", "/v1/users/{id}/kick"] {
        assert!(description["paths"][path].is_object(), "{path}");
    }
});

at_shards!(strange_paths_reach_nothing, |server| {
    for path in [
        "/v1/users/..%2f..%2fetc/presence",
        "/v1/users/%00/presence",
        "/v1/users/a%0d%0ab/presence",
        "/../../etc/passwd",
        "/%2e%2e/etc/passwd",
    ] {
        let response = server.rest("GET", path, None);
        let harmless = matches!(response.status, 400 | 404);
        let an_odd_user = response.status == 200 && path.contains("..%2f");
        assert!(harmless || an_odd_user, "{path}: {} {}", response.status, response.text());
        assert!(!response.text().contains("root:"), "{path}");
    }
});

/// All entries of a list that comes in pages.
pub fn pages(server: &Server, path: &str, name: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut page = server.rest_ok("GET", path, None);
    loop {
        found.extend(page[name].as_array().unwrap_or_else(|| panic!("no {name} in {page}")).clone());
        let Some(next) = page["next"].as_str().map(str::to_owned) else { return found };
        assert!(found.len() < 10_000, "a list without end");
        page = server.rest_ok("GET", &format!("{path}&cursor={next}"), None);
    }
}
