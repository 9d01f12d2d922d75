//! Bad tokens in the first message: none opens, each closes 4001.

use serde_json::json;

use super::Neighbours;
use crate::at_shards;
use crate::support::token::{SECRET, now_seconds, signed};
use crate::support::{Client, Login, Place};

at_shards!(none_of_them_opens, |server| {
    let mut neighbours = Neighbours::of(server);
    for (what, token) in tokens() {
        let mut client = Client::enter(server, &Login::of("mallory").token(token).place(Place::Message));
        let (code, _) = client.expect_close();
        assert!(client.queued("auth_success").is_empty(), "{what}: let in");
        assert_eq!(code, 4001, "{what}");
        let failed = client.queued("auth_failed");
        let name = failed.first().map(|data| data["name"].as_str().unwrap_or("none").to_owned());
        assert!(matches!(name.as_deref(), Some("BAD_TOKEN" | "TOKEN_EXPIRED")), "{what}: {name:?}");
        neighbours.assert_undisturbed(what);
    }
});

at_shards!(a_huge_token_is_refused_before_it_is_decoded, |server| {
    let mut neighbours = Neighbours::of(server);
    let mut client = Client::enter(server, &Login::of("mallory").token("x".repeat(400_000)).place(Place::Message));
    let (code, _) = client.expect_close();
    assert!(matches!(code, 4001 | 1009), "{code}: an unauthenticated client may send little");
    neighbours.assert_undisturbed("a huge token");
});

at_shards!(subjects_that_differ_stay_different, |server| {
    for (subject, other) in [("a:b", "a%3Ab"), ("%", "%25"), ("é", "e\u{301}"), ("A", "a")] {
        let mut one = Client::connect(server, subject);
        let mut two = Client::connect(server, other);
        assert_eq!((&one.success["user_id"], &two.success["user_id"]), (&json!(subject), &json!(other)));
        assert_ne!(one.tell("x", "1")["conversation_id"], two.tell("x", "2")["conversation_id"]);
    }
});

fn tokens() -> Vec<(&'static str, String)> {
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let later = now_seconds() + 3_600;
    let claims = format!(r#"{{"sub":"mallory","exp":{later}}}"#);
    let good = signed(header, &claims, SECRET);
    let with = |claims: String| signed(header, &claims, SECRET);
    let under = |header: &str| signed(header, &claims, SECRET);
    let (message, signature) = good.rsplit_once('.').expect("three segments");
    vec![
        ("empty", String::new()),
        ("one segment", "x".to_owned()),
        ("two segments", message.to_owned()),
        ("empty signature", format!("{message}.")),
        ("five segments", format!("{good}.a.b")),
        ("padded", format!("{good}==")),
        ("a space in front", format!(" {good}")),
        ("a line end behind", format!("{good}\n")),
        ("cut signature", format!("{message}.{}", &signature[..signature.len() - 2])),
        ("no header", format!(".{}", good.split_once('.').expect("three segments").1)),
        ("header is no JSON", under("rubbish")),
        ("alg none", under(r#"{"alg":"none"}"#)),
        ("alg None", under(r#"{"alg":"None"}"#)),
        ("alg nOnE", under(r#"{"alg":"nOnE"}"#)),
        ("alg missing", under(r#"{"typ":"JWT"}"#)),
        ("alg RS256 with an HMAC signature", under(r#"{"alg":"RS256"}"#)),
        ("alg ES256 with an HMAC signature", under(r#"{"alg":"ES256"}"#)),
        ("alg HS512", under(r#"{"alg":"HS512"}"#)),
        ("a critical header", under(r#"{"alg":"HS256","crit":["x"],"x":1}"#)),
        (
            "a key inside, other secret",
            signed(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"YQ"}}"#, &claims, "a".repeat(40).as_str()),
        ),
        (
            "a path as kid, other secret",
            signed(r#"{"alg":"HS256","kid":"../../dev/null"}"#, &claims, "another secret of 32 bytes or more"),
        ),
        ("kid is a number", under(r#"{"alg":"HS256","kid":7}"#)),
        ("the other base64 alphabet", format!("{message}.{}+/", &signature[2..])),
        ("a space inside", good.replacen('.', ". ", 1)),
        ("claims are no JSON", with("rubbish".to_owned())),
        ("claims are a list", with("[]".to_owned())),
        ("exp missing", with(r#"{"sub":"mallory"}"#.to_owned())),
        ("exp a string", with(format!(r#"{{"sub":"mallory","exp":"{later}"}}"#))),
        ("exp null", with(r#"{"sub":"mallory","exp":null}"#.to_owned())),
        ("exp 1e18", with(r#"{"sub":"mallory","exp":1e18}"#.to_owned())),
        ("exp with a fraction", with(format!(r#"{{"sub":"mallory","exp":{later}.5}}"#))),
        ("exp negative", with(r#"{"sub":"mallory","exp":-1}"#.to_owned())),
        ("exp 61 s ago", with(format!(r#"{{"sub":"mallory","exp":{}}}"#, now_seconds() - 61))),
        ("nbf a string", with(format!(r#"{{"sub":"mallory","exp":{later},"nbf":"x"}}"#))),
        ("nbf ahead", with(format!(r#"{{"sub":"mallory","exp":{later},"nbf":{later}}}"#))),
        ("iat ahead", with(format!(r#"{{"sub":"mallory","exp":{},"iat":{later}}}"#, later + 3_600))),
        ("sub missing", with(format!(r#"{{"exp":{later}}}"#))),
        ("sub empty", with(format!(r#"{{"sub":"","exp":{later}}}"#))),
        ("sub a number", with(format!(r#"{{"sub":7,"exp":{later}}}"#))),
        ("sub of 129 bytes", with(format!(r#"{{"sub":"{}","exp":{later}}}"#, "x".repeat(129)))),
        ("sub with a control", with(format!(r#"{{"sub":"a\u0000b","exp":{later}}}"#))),
        ("sub twice", with(format!(r#"{{"sub":"alice","sub":"mallory","exp":{later}}}"#))),
    ]
}
