//! Who may come in: every place for a token, every kind of bad one, what is allowed before, and how a session ends with its
//! token.

use serde_json::{Value, json};

use crate::at_shards;
use crate::support::client::assert_error;
use crate::support::token::{self, SECRET, now_millis, now_seconds};
use crate::support::{Client, Login, Place, RawConnection};

at_shards!(a_token_is_taken_from_every_place, "[auth]\nquery_token = true\n", |server| {
    for place in [Place::Header, Place::Subprotocol, Place::Query, Place::Message] {
        let exp = now_seconds() + 600;
        let login = Login::of("alice").token(token::with_claims(&json!({"sub": "alice", "exp": exp}))).place(place);
        let before = now_millis();
        let client = Client::open(server, &login);
        let success = &client.success;
        assert_eq!(success["user_id"], "alice");
        assert_eq!(success["device_id"], "default");
        assert!(success["session_id"].as_str().is_some_and(|id| !id.is_empty()), "{success}");
        assert!(success["node_id"].as_str().is_some_and(|id| !id.is_empty()), "{success}");
        assert!(success["server_time"].as_u64().is_some_and(|time| time + 1000 >= before), "{success}");
        assert_eq!(success["heartbeat_ms"], 54_000);
        assert_eq!(success["token_expires_at"], exp * 1000);
        assert!(success["limits"].is_object(), "{success}");
    }
});

at_shards!(the_query_is_no_place_unless_allowed, |server| {
    let refusal = Client::try_enter(server, &Login::of("alice").place(Place::Query)).err().expect("refused");
    assert_eq!(refusal.status, 401);
    assert!(matches!(refusal.error_name().as_str(), "BAD_TOKEN" | "UNAUTHENTICATED"));
    assert!(!server.log().contains(&Login::of("alice").token), "a token never reaches the log");
});

at_shards!(the_header_wins_over_the_query, "[auth]\nquery_token = true\n", |server| {
    let mut connection = RawConnection::open(server);
    let target = format!("/ws?token={}", token::for_user("bob"));
    let bearer = format!("Bearer {}", token::for_user("alice"));
    assert_eq!(connection.upgrade(&target, &[("Authorization", &bearer)]).status, 101);
    assert_eq!(connection.read_until("auth_success")["data"]["user_id"], "alice");
});

at_shards!(a_token_in_the_subprotocol_is_never_echoed, |server| {
    let mut connection = RawConnection::open(server);
    let entry = format!("bearer.{}", token::for_user("alice"));
    let response = connection.upgrade("/ws", &[("Sec-WebSocket-Protocol", &entry)]);
    assert_eq!(response.status, 101);
    assert_eq!(response.header("sec-websocket-protocol"), None);
    connection.read_until("auth_success");
    assert!(!server.log().contains(&entry[7..]), "a token never reaches the log");
});

at_shards!(the_claim_names_the_device_before_message_and_query, |server| {
    let claims = json!({"sub": "alice", "exp": now_seconds() + 600, "device_id": "claimed"});
    for place in [Place::Header, Place::Message] {
        let login = Login::of("alice").token(token::with_claims(&claims)).device("wished").place(place);
        assert_eq!(Client::open(server, &login).success["device_id"], "claimed");
        let login = Login::of("alice").device("wished").place(place);
        assert_eq!(Client::open(server, &login).success["device_id"], "wished");
    }
});

at_shards!(a_bad_token_is_refused_in_every_place, "[auth]\nquery_token = true\n", |server| {
    for (what, token, name) in bad_tokens() {
        for place in [Place::Header, Place::Subprotocol, Place::Query] {
            let refusal = Client::try_enter(server, &Login::of("alice").token(token.clone()).place(place));
            let refusal = refusal.err().unwrap_or_else(|| panic!("{what}: let in"));
            assert_eq!(refusal.status, 401, "{what}");
            assert_eq!(refusal.error_name(), name, "{what}");
        }
        let mut client = Client::enter(server, &Login::of("alice").token(token).place(Place::Message));
        let failed = client.expect("auth_failed");
        assert_eq!((&failed["code"], &failed["name"]), (&json!(401), &json!(name)), "{what}");
        assert!(failed["message"].is_string());
        client.expect_close_as(4001, "unauthorized");
    }
});

at_shards!(silence_is_closed_after_the_timeout, "[auth]\ntimeout = \"4s\"\n", |server| {
    let mut silent = Client::anonymous(server);
    silent.expect_close_as(4001, "unauthorized");
    for kind in ["error", "auth_failed"] {
        assert!(silent.queued(kind).iter().all(|data| data["name"] == "UNAUTHENTICATED"));
    }
    // Pings are allowed but do not count as authentication.
    let mut pinging = Client::anonymous(server);
    pinging.assert_alive();
    pinging.expect_close_as(4001, "unauthorized");
});

at_shards!(before_authentication_only_auth_and_ping_are_answered, |server| {
    let verbs = [
        ("send_message", json!({"to_user_id": "bob", "content": "x"})),
        ("send_group_message", json!({"group_id": "g", "content": "x"})),
        ("refresh", json!({"token": token::for_user("alice")})),
        ("join_group", json!({"group_id": "g"})),
        ("get_history", json!({"user_id": "bob"})),
        ("sync", json!({"cursors": {}})),
        ("get_presence", json!({"user_ids": ["bob"]})),
        ("get_unread", json!({})),
        ("typing", json!({"to_user_id": "bob", "state": "start"})),
    ];
    let mut client = Client::anonymous(server);
    for (kind, data) in &verbs {
        client.ask_refused("UNAUTHENTICATED", kind, data.clone());
        client.assert_alive();
    }
    // Nine were forgiven; the tenth is not.
    client.send("get_unread", json!({}));
    client.expect_close_as(4001, "unauthorized");
});

at_shards!(refused_verbs_do_not_spoil_a_later_auth, |server| {
    let mut client = Client::anonymous(server);
    client.ask_refused("UNAUTHENTICATED", "get_unread", json!({}));
    let reply = client.request("auth", json!({"token": token::for_user("alice")}));
    assert_eq!(reply["type"], "auth_success", "the reply echoes the message_id of auth");
    client.take("sync_done");
    client.tell("bob", "hello");
});

at_shards!(a_second_auth_changes_nothing, |server| {
    let mut client = Client::connect(server, "alice");
    client.ask_refused("ALREADY_AUTHENTICATED", "auth", json!({"token": token::for_user("bob")}));
    client.ask_refused("ALREADY_AUTHENTICATED", "auth", json!({"token": "rubbish"}));
    let ack = client.tell("carol", "still alice");
    assert_eq!(ack["conversation_id"], "p:alice:carol");
});

at_shards!(a_refresh_prolongs_the_session, |server| {
    let mut client = Client::connect(server, "alice");
    let exp = now_seconds() + 7200;
    let reply = client.request("refresh", json!({"token": token::with_claims(&json!({"sub": "alice", "exp": exp}))}));
    assert_eq!(reply["type"], "auth_success");
    assert_eq!(reply["data"]["token_expires_at"], exp * 1000);
    assert_eq!(reply["data"]["session_id"], client.success["session_id"]);
});

at_shards!(a_failed_refresh_changes_nothing, |server| {
    let mut client = Client::connect(server, "alice");
    client.ask_refused("FORBIDDEN", "refresh", json!({"token": token::for_user("bob")}));
    for (what, token, name) in bad_tokens() {
        let reply = client.request("refresh", json!({"token": token}));
        assert_error(&reply, name, what);
    }
    assert_eq!(client.tell("carol", "still alice")["conversation_id"], "p:alice:carol");
});

at_shards!(an_expired_session_is_told_and_closed, "[auth]\nexpiry_grace = \"1s\"\n", |server| {
    let claims = json!({"sub": "alice", "exp": now_seconds() + 6});
    let mut client = Client::open(server, &Login::of("alice").token(token::with_claims(&claims)));
    let told = client.take("error");
    assert_error(&told, "TOKEN_EXPIRED", "push at exp");
    assert!(now_seconds() >= claims["exp"].as_u64().expect("a number"), "not before its time");
    client.expect_close_as(4204, "token_expired");
});

at_shards!(a_refresh_within_the_grace_keeps_the_session, "[auth]\nexpiry_grace = \"15s\"\n", |server| {
    let claims = json!({"sub": "alice", "exp": now_seconds() + 6});
    let mut client = Client::open(server, &Login::of("alice").token(token::with_claims(&claims)));
    assert_error(&client.take("error"), "TOKEN_EXPIRED", "push at exp");
    assert_eq!(client.request("refresh", json!({"token": token::for_user("alice")}))["type"], "auth_success");
    client.tell("bob", "still here");
});

at_shards!(audience_and_issuer_are_checked_when_configured, "[auth]\naudience = [\"chat\"]\nissuer = \"me\"\n", |server| {
    let with = |aud: Value, iss: &str| {
        let claims = json!({"sub": "alice", "exp": now_seconds() + 60, "aud": aud, "iss": iss});
        Client::try_enter(server, &Login::of("alice").token(token::with_claims(&claims)))
    };
    for aud in [json!("chat"), json!(["other", "chat"])] {
        assert!(with(aud, "me").is_ok());
    }
    for (aud, iss) in [(json!("other"), "me"), (json!(["other"]), "me"), (Value::Null, "me"), (json!("chat"), "me/")] {
        let refusal = with(aud.clone(), iss).err().unwrap_or_else(|| panic!("{aud} {iss}: let in"));
        assert_eq!((refusal.status, refusal.error_name().as_str()), (401, "BAD_TOKEN"), "{aud} {iss}");
    }
});

at_shards!(a_token_without_expiry_needs_permission, "[auth]\nrequire_exp = false\n", |server| {
    let client = Client::open(server, &Login::of("alice").token(token::with_claims(&json!({"sub": "alice"}))));
    assert!(client.success["token_expires_at"].is_null(), "{}", client.success);
});

/// Tokens that nobody may come in with, and the name of each refusal.
fn bad_tokens() -> Vec<(&'static str, String, &'static str)> {
    let good_header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let later = now_seconds() + 3600;
    let good_claims = format!(r#"{{"sub":"alice","exp":{later}}}"#);
    let none = |alg: &str| token::signed(&format!(r#"{{"alg":"{alg}"}}"#), &good_claims, SECRET);
    let unsigned = none("none").rsplit_once('.').map(|(message, _)| format!("{message}.")).expect("three segments");
    vec![
        ("not a token", "rubbish".to_owned(), "BAD_TOKEN"),
        ("other secret", token::signed(good_header, &good_claims, "another secret of more than 32 bytes"), "BAD_TOKEN"),
        ("alg none, unsigned", unsigned, "BAD_TOKEN"),
        ("alg nOnE, signed", none("nOnE"), "BAD_TOKEN"),
        ("an algorithm that is not allowed", none("HS384"), "BAD_TOKEN"),
        ("no subject", token::with_claims(&json!({"exp": later})), "BAD_TOKEN"),
        ("no expiry", token::with_claims(&json!({"sub": "alice"})), "BAD_TOKEN"),
        ("not yet valid", token::with_claims(&json!({"sub": "alice", "exp": later, "nbf": later})), "BAD_TOKEN"),
        ("expired", token::with_claims(&json!({"sub": "alice", "exp": now_seconds() - 3600})), "TOKEN_EXPIRED"),
    ]
}
