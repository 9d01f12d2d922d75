//! What clients bring along must not speak in the log or in metrics: neither secrets nor line ends of their making.

use serde_json::json;

use super::Neighbours;
use crate::at_shards;
use crate::support::{Client, Login, Place, RawConnection, Server, frames, token};

at_shards!(tokens_reach_no_log_and_no_metric, "[log]\nlevel = \"debug\"\n", |server| {
    let good = token::for_user("alice");
    let bad = format!("{}-not-quite", token::for_user("mallory"));
    for place in [Place::Header, Place::Subprotocol, Place::Query, Place::Message] {
        for token in [&good, &bad] {
            // Some of them are let in, some are not; it is all the same here.
            let client = Client::try_enter(server, &Login::of("alice").token(token.clone()).place(place));
            if let (Ok(mut client), true) = (client, place == Place::Message && *token == bad) {
                client.expect_close_as(4001, "unauthorized");
            }
        }
    }
    let mut client = Client::connect(server, "alice");
    client.ask_refused("BAD_TOKEN", "refresh", json!({"token": bad}));
    client.ask_refused("FORBIDDEN", "refresh", json!({"token": token::for_user("mallory")}));
    client.tell("bob", "a-content-that-nobody-else-may-read");
    let spoken = server.log() + &server.metrics();
    for secret in [good.as_str(), &bad, token::SECRET, "a-content-that-nobody-else-may-read"] {
        let telling = secret.rsplit('.').next().unwrap_or(secret);
        assert!(!spoken.contains(telling), "{telling}");
    }
});

at_shards!(what_clients_write_cannot_forge_a_line, "[log]\nlevel = \"debug\"\n", |server| {
    let mut neighbours = Neighbours::of(server);
    let loud = "x".repeat(10_000);
    for (name, value) in [("User-Agent", loud.as_str()), ("Origin", "https://\u{202e}forged"), ("X-Forwarded-For", "forged")] {
        RawConnection::open(server).upgrade("/ws", &[(name, value)]);
    }
    for forged in ["\u{1b}[31mforged", "a\nforged"] {
        assert_eq!(RawConnection::open(server).upgrade("/ws", &[("User-Agent", forged)]).status, 400);
    }
    for device in ["%0aforged", "%1b[31mforged"] {
        assert_eq!(RawConnection::open(server).upgrade(&format!("/ws?device_id={device}"), &[]).status, 400);
    }
    let odd = ["u\u{2028}forged", "u\u{202e}forged", "u\"} forged{x=\"", "u forged=1"];
    for user in odd {
        let mut client = Client::connect_on(server, user, "d%22%7d");
        client.ask_refused("BAD_REQUEST", "join_group", json!({"group_id": "g\nforged"}));
        server.rest("POST", &format!("/v1/users/{}/kick", escape(user)), None);
        client.expect_close();
    }
    let mut leaving = RawConnection::authenticated(server, "leaving");
    leaving.send(&frames::close(1000, b"\nforged \x1b[31mreason")).expect("the connection is open");
    assert_eq!(leaving.close_code(), Some(1000));
    assert_one_line_each(server);
    for odd in ["forged", "\u{2028}", &loud] {
        assert!(!server.metrics().contains(odd), "{odd} is part of a metric");
    }
    neighbours.assert_undisturbed("odd texts");
});

/// Every line is one that the server began, and none of them can move a terminal's cursor.
fn assert_one_line_each(server: &Server) {
    let log = server.log();
    for line in log.lines() {
        assert!(line.starts_with("20"), "a line begins with its time: {line:?}");
        assert!(!line.chars().any(|character| character.is_control() || "\u{2028}\u{202e}".contains(character)), "{line:?}");
        assert!(line.len() < 4_000, "{} bytes in one line", line.len());
    }
}

fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
