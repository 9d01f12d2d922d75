//! Tokens by published keys: the type of a key fixes the algorithm, its name is a name and nothing else, and a set may change,
//! break or become unreachable while clients come and go.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::Neighbours;
use crate::support::token::now_seconds;
use crate::support::{Client, Login, Place, Server, eventually};

#[test]
fn the_type_of_a_key_fixes_the_algorithm() {
    on_shards(KEY_SET, |server, _| {
        let mut neighbours = Neighbours::of(server);
        for (algorithm, kid, key) in keys() {
            assert_eq!(status(server, sign(&named(algorithm, kid), &key)), 101, "{algorithm:?} by name");
            assert_eq!(status(server, sign(&json!({"alg": name(algorithm)}), &key)), 101, "{algorithm:?} without a name");
        }
        for (what, bad) in confused_tokens() {
            let mut client = Client::enter(server, &Login::of("mallory").token(bad.clone()).place(Place::Message));
            client.expect_close_as(4001, "unauthorized");
            assert_eq!(client.queued("auth_failed")[0]["name"], "BAD_TOKEN", "{what}");
            assert_eq!(status(server, bad), 401, "{what}");
            neighbours.assert_undisturbed(what);
        }
    });
}

#[test]
fn the_name_of_a_key_is_a_name_and_nothing_else() {
    on_shards(KEY_SET, |server, _| {
        let mut neighbours = Neighbours::of(server);
        let [_, (algorithm, _, key), _] = keys();
        let long = "k".repeat(10_000);
        for kid in ["../../etc/passwd", "/dev/zero", "' OR '1'='1", "https://127.0.0.1:1/keys", "", "\u{0}", "ed-1", &long] {
            assert_eq!(status(server, sign(&named(algorithm, kid), &key)), 401, "{}", &kid[..kid.len().min(40)]);
        }
        for (member, value) in [
            ("jku", json!("http://127.0.0.1:1/keys")),
            ("x5u", json!("http://127.0.0.1:1/certificate")),
            ("x5c", json!(["AAAA"])),
            ("jwk", json!({"kty": "oct", "k": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE"})),
        ] {
            let header = json!({"alg": "HS256", "kid": "ec-1", member: value});
            let forged = sign_as(&header, &EncodingKey::from_secret(&[b'a'; 32]), Algorithm::HS256);
            assert_eq!(status(server, forged), 401, "{member} brings no key");
        }
        let mut critical = named(algorithm, "ec-1");
        critical["crit"] = json!(["exp"]);
        assert_eq!(status(server, sign(&critical, &key)), 401);
        neighbours.assert_undisturbed("names of keys");
    });
}

#[test]
fn a_file_of_keys_is_read_again_when_it_changes() {
    on_shards(&only(&["ec-1"]), |server, file| {
        let mut neighbours = Neighbours::of(server);
        let [_, (es256, _, ec_key), (eddsa, _, ed_key)] = keys();
        let (old, new) = (sign(&named(es256, "ec-1"), &ec_key), sign(&named(eddsa, "ed-1"), &ed_key));
        assert_eq!((status(server, old.clone()), status(server, new.clone())), (101, 401));
        // The overlap of a rotation: both are good.
        std::fs::write(file, only(&["ec-1", "ed-1"])).expect("the folder is writable");
        eventually("the new key is in force", || (status(server, new.clone()) == 101).then_some(()));
        assert_eq!(status(server, old.clone()), 101);
        // What cannot be used changes nothing.
        std::fs::write(file, r#"{"keys":[{"kty":"oct","k":"YQ"}]}"#).expect("the folder is writable");
        eventually("it is told", || server.log().contains("published keys stay as they were").then_some(()));
        assert_eq!((status(server, old.clone()), status(server, new.clone())), (101, 101));
        std::fs::write(file, only(&["ed-1"])).expect("the folder is writable");
        eventually("the old key is out of force", || (status(server, old.clone()) == 401).then_some(()));
        assert_eq!(status(server, new), 101);
        neighbours.assert_undisturbed("a rotation");
    });
}

#[test]
fn an_issuer_is_asked_rarely_and_may_go_away() {
    for shards in [1, 4] {
        let issuer = Issuer::start();
        let begun = Instant::now();
        let server = Server::start(shards, &config(&format!("http://{}/keys", issuer.address)));
        let mut neighbours = Neighbours::of(&server);
        let [_, (algorithm, kid, key), _] = keys();
        let good = sign(&named(algorithm, kid), &key);
        assert_eq!(status(&server, good.clone()), 101);
        for index in 0..50 {
            assert_eq!(status(&server, sign(&named(algorithm, &format!("unknown-{index}")), &key)), 401);
        }
        std::thread::sleep(Duration::from_secs(3));
        let asked = issuer.asked.load(Ordering::Relaxed) as u64;
        let allowed = 1 + begun.elapsed().as_secs() / 60;
        assert!((1..=allowed).contains(&asked), "asked {asked} times: unknown names make it ask at most once a minute");
        *issuer.answer.lock().expect("nobody panics with it") = None;
        assert_eq!(status(&server, good.clone()), 101, "the last good set stays in use");
        neighbours.assert_undisturbed("an issuer that is gone");
    }
}

#[test]
fn an_issuer_that_answers_badly_gives_no_keys_and_is_asked_again() {
    let issuer = Issuer::start();
    *issuer.answer.lock().expect("nobody panics with it") = None;
    let server = Server::start(1, &config(&format!("http://{}/keys", issuer.address)));
    let [_, (algorithm, kid, key), _] = keys();
    let good = sign(&named(algorithm, kid), &key);
    assert_eq!(status(&server, good.clone()), 401);
    eventually("it is told", || server.log().contains("there are no published keys yet").then_some(()));
    *issuer.answer.lock().expect("nobody panics with it") = Some(KEY_SET.to_owned());
    eventually("it is asked again", || (status(&server, good.clone()) == 101).then_some(()));
}

/// Tokens that would be good if a token could choose how it is checked.
fn confused_tokens() -> Vec<(&'static str, String)> {
    let pem = include_str!("../../fixtures/auth/rsa_public.pem");
    let set: Value = serde_json::from_str(KEY_SET).expect("the fixture is JSON");
    let modulus = set["keys"][0]["n"].as_str().expect("the first one is RSA").to_owned();
    let by_secret =
        |kid: &str, secret: &[u8]| sign_as(&named(Algorithm::HS256, kid), &EncodingKey::from_secret(secret), Algorithm::HS256);
    let unsigned =
        |algorithm, kid, signature: &[u8]| format!("{}.{}", message(&named(algorithm, kid)), URL_SAFE_NO_PAD.encode(signature));
    let [(_, _, rsa), (_, _, ec), (_, _, ed)] = keys();
    vec![
        ("HS256 with the RSA key's PEM as secret", by_secret("rsa-1", pem.as_bytes())),
        ("HS256 with the trimmed PEM as secret", by_secret("rsa-1", pem.trim().as_bytes())),
        ("HS256 with the RSA modulus as secret", by_secret("rsa-1", &URL_SAFE_NO_PAD.decode(&modulus).expect("base64url"))),
        ("HS256 with a published secret", by_secret("secret", b"a")),
        ("ES256 with r = s = 0", unsigned(Algorithm::ES256, "ec-1", &[0; 64])),
        ("ES256 with r = s = 0, no name", unsigned(Algorithm::ES256, "", &[0; 64])),
        ("ES256 in DER", unsigned(Algorithm::ES256, "ec-1", &[0x30, 6, 2, 1, 0, 2, 1, 0])),
        ("EdDSA of zeros", unsigned(Algorithm::EdDSA, "ed-1", &[0; 64])),
        ("RS256 of zeros", unsigned(Algorithm::RS256, "rsa-1", &[0; 256])),
        ("RS256 by the key for encryption", sign_as(&named(Algorithm::RS256, "enc-1"), &rsa, Algorithm::RS256)),
        ("RSA key, ES256 in the header", sign_as(&named(Algorithm::ES256, "rsa-1"), &rsa, Algorithm::RS256)),
        ("P-256 key, EdDSA in the header", sign_as(&named(Algorithm::EdDSA, "ec-1"), &ec, Algorithm::ES256)),
        ("Ed25519 key, RS256 in the header", sign_as(&named(Algorithm::RS256, "ed-1"), &ed, Algorithm::EdDSA)),
        ("PS256 by the RSA key", sign_as(&json!({"alg": "PS256", "kid": "rsa-1"}), &rsa, Algorithm::PS256)),
        ("none", format!("{}.", message(&json!({"alg": "none", "kid": "ec-1"})))),
    ]
}

/// A server with this set in a file, once with one shard and once with four.
fn on_shards(set: &str, check: impl Fn(&Server, &Path)) {
    for shards in [1, 4] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("keys.json");
        std::fs::write(&file, set).expect("the folder is writable");
        check(&Server::start(shards, &config(&file.display().to_string())), &file);
    }
}

fn config(jwks: &str) -> String {
    format!("[auth]\nalgorithms = [\"HS256\", \"RS256\", \"ES256\", \"EdDSA\"]\njwks = {jwks:?}\n")
}

/// The keys of the fixture with these names.
fn only(names: &[&str]) -> String {
    let mut set: Value = serde_json::from_str(KEY_SET).expect("the fixture is JSON");
    let keys = set["keys"].as_array_mut().expect("the fixture is a set");
    keys.retain(|key| names.iter().any(|name| key["kid"] == *name));
    set.to_string()
}

/// Algorithm, name and private half of each usable key of the fixture.
fn keys() -> [(Algorithm, &'static str, EncodingKey); 3] {
    let (rsa, ec) =
        (include_bytes!("../../fixtures/auth/rsa_private.pem"), include_bytes!("../../fixtures/auth/es256_private.pem"));
    let ed = include_bytes!("../../fixtures/auth/ed25519_private.pem");
    [
        (Algorithm::RS256, "rsa-1", EncodingKey::from_rsa_pem(rsa).expect("the fixture is a key")),
        (Algorithm::ES256, "ec-1", EncodingKey::from_ec_pem(ec).expect("the fixture is a key")),
        (Algorithm::EdDSA, "ed-1", EncodingKey::from_ed_pem(ed).expect("the fixture is a key")),
    ]
}

fn name(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

fn named(algorithm: Algorithm, kid: &str) -> Value {
    json!({"alg": name(algorithm), "kid": kid})
}

fn message(header: &Value) -> String {
    let claims = json!({"sub": "mallory", "exp": now_seconds() + 3_600});
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// Signed as the header says.
fn sign(header: &Value, key: &EncodingKey) -> String {
    let algorithm = header["alg"].as_str().and_then(|name| name.parse().ok()).expect("the header names an algorithm");
    sign_as(header, key, algorithm)
}

fn sign_as(header: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = message(header);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("the key fits the algorithm");
    format!("{message}.{signature}")
}

fn status(server: &Server, token: String) -> u16 {
    Client::try_enter(server, &Login::of("mallory").token(token)).err().map_or(101, |refusal| refusal.status)
}

/// Somebody who publishes keys over HTTP.
struct Issuer {
    address: std::net::SocketAddr,
    asked: Arc<AtomicUsize>,
    /// None: the request is answered with something else.
    answer: Arc<Mutex<Option<String>>>,
}

impl Issuer {
    fn start() -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let (asked, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Some(KEY_SET.to_owned()))));
        let issuer = Issuer { address, asked: asked.clone(), answer: answer.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut lines = BufReader::new(&stream).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                asked.fetch_add(1, Ordering::Relaxed);
                let response = match &*answer.lock().expect("nobody panics with it") {
                    Some(set) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{set}", set.len()),
                    // Leads to a set, but not where it was asked for.
                    None => format!(
                        "HTTP/1.1 302 Found\r\nLocation: http://{address}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    ),
                };
                let _ = stream.write_all(response.as_bytes());
            }
        });
        issuer
    }
}

const KEY_SET: &str = include_str!("../../fixtures/auth/jwks.json");
