//! Owns the proof of the handshake: one test per bad input, and what a good one yields.

use super::*;

/// Rules as in production, with two origins.
fn rules() -> UpgradeRules {
    let exact = vec!["https://good.example".to_owned(), "http://dev.example:3000".to_owned()];
    UpgradeRules { path: Some("/ws".to_owned()), origins: OriginRule::Listed { exact, localhost: false }, query_token: false }
}

const GOOD: [&str; 5] = [
    "Host: chat.example",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn head(line: &str, headers: &[&str]) -> Vec<u8> {
    format!("{line}\r\n{}\r\n\r\n", headers.join("\r\n")).into_bytes()
}

/// A good upgrade of `target` with more headers.
fn with(target: &str, more: &[&str]) -> Vec<u8> {
    head(&format!("GET {target} HTTP/1.1"), &[&GOOD[..], more].concat())
}

/// A good upgrade with the header called `name` replaced.
fn replacing(name: &str, by: &[&str]) -> Vec<u8> {
    let kept: Vec<&str> = GOOD.into_iter().filter(|line| !line.starts_with(name)).collect();
    head("GET /ws HTTP/1.1", &[&kept[..], by].concat())
}

fn upgraded_by(bytes: &[u8], rules: &UpgradeRules) -> UpgradeRequest {
    match parse(bytes, rules) {
        Ok(Parsed::Upgrade(request)) => request,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

fn upgraded(bytes: &[u8]) -> UpgradeRequest {
    upgraded_by(bytes, &rules())
}

/// The refusal, its response checked for form; `NeedMore` and successes fail.
fn refused_by(bytes: &[u8], rules: &UpgradeRules) -> Refusal {
    let refusal = match parse(bytes, rules) {
        Err(refusal) => refusal,
        Ok(other) => panic!("{}: {other:?}", String::from_utf8_lossy(bytes)),
    };
    let response = String::from_utf8(refusal.to_bytes()).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {} ", refusal.status)));
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())));
    assert!(head.contains("\r\nConnection: close"));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"]["code"], refusal.status);
    assert_eq!(body["error"]["name"], refusal.name);
    assert_eq!(body["error"]["message"], *refusal.message);
    refusal
}

fn status(bytes: &[u8]) -> u16 {
    refused_by(bytes, &rules()).status
}

fn response(bytes: &[u8]) -> String {
    String::from_utf8(refused_by(bytes, &rules()).to_bytes()).unwrap()
}

#[test]
fn the_example_of_the_standard_is_accepted() {
    let mut bytes = with("/ws", &[]);
    let size = bytes.len();
    bytes.extend(b"\x81\x80frames");
    let request = upgraded(&bytes);
    assert_eq!(request.consumed, size);
    assert_eq!(request.subprotocol, None);
    assert_eq!(request.token, None);
    assert_eq!(request.wishes, Wishes::default());
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(String::from_utf8(accept(&request)).unwrap(), expected);
}

#[test]
fn a_head_may_come_in_any_pieces() {
    let bytes = with("/ws", &["Sec-WebSocket-Protocol: corehub.v1.json"]);
    for size in 0..bytes.len() {
        assert!(matches!(parse(&bytes[..size], &rules()), Ok(Parsed::NeedMore)), "{size}");
    }
    upgraded(&bytes);
}

#[test]
fn plain_pages_are_told_apart() {
    for (path, page) in [("/health", PlainPage::Health), ("/ready", PlainPage::Ready), ("/stats?x=1", PlainPage::Stats)] {
        let bytes = head(&format!("GET {path} HTTP/1.1"), &["Host: h"]);
        let Ok(Parsed::Plain(request)) = parse(&bytes, &rules()) else { panic!("{path}") };
        assert_eq!(request, PlainRequest { consumed: bytes.len(), page, head_only: false });
        let bytes = request.respond(200, &[("Content-Type", "text/plain")], b"ok");
        assert_eq!(bytes, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }
    let Ok(Parsed::Plain(request)) = parse(&head("HEAD /health HTTP/1.1", &["Host: h"]), &rules()) else { panic!("HEAD") };
    assert!(request.respond(200, &[], b"ok").ends_with(b"Content-Length: 2\r\nConnection: close\r\n\r\n"));
    assert_eq!(status(&head("POST /health HTTP/1.1", &["Host: h"])), 405);
    for path in ["/", "/ws/", "/wss", "/WS", "/health/", "/v1/x", "/..%2fws"] {
        assert_eq!(status(&with(path, &[])), 404, "{path}");
    }
}

#[test]
fn methods_and_missing_upgrades_are_answered() {
    let post = response(&head("POST /ws HTTP/1.1", &["Host: h", "Content-Length: 5"]));
    assert!(post.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && post.contains("\r\nAllow: GET\r\n"), "{post}");
    let plain = response(&head("GET /ws HTTP/1.1", &["Host: h"]));
    assert!(plain.starts_with("HTTP/1.1 426 ") && plain.contains("\r\nUpgrade: websocket\r\n"), "{plain}");
    assert_eq!(status(&replacing("Upgrade", &["Upgrade: h2c"])), 426);
    assert_eq!(status(&replacing("Connection", &["Connection: keep-alive"])), 400);
    upgraded(&replacing("Connection", &["Connection: keep-alive", "connection: UPGRADE"]));
}

#[test]
fn other_protocols_are_refused_early() {
    assert_eq!(status(&head("GET /ws HTTP/1.0", &GOOD)), 400);
    assert_eq!(status(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400);
    assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400);
    assert_eq!(status(b"\x16"), 400);
    assert_eq!(status(b"\r\n"), 400);
    assert_eq!(status(&head("GET /ws", &GOOD)), 400);
    assert_eq!(status(&head("GET  /ws HTTP/1.1", &GOOD)), 400);
    assert_eq!(status(&head("GET ws HTTP/1.1", &GOOD)), 400);
    upgraded(&with("http://chat.example/ws", &[]));
}

#[test]
fn version_and_key_are_judged() {
    for line in [&["Sec-WebSocket-Version: 8"][..], &[]] {
        let answer = response(&replacing("Sec-WebSocket-Version", line));
        assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{answer}");
    }
    let keys: [&[&str]; 6] = [
        &[],
        &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"],
        &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA="],
        &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==AA=="],
        &["Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="],
        &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="],
    ];
    for lines in keys {
        assert_eq!(status(&replacing("Sec-WebSocket-Key", lines)), 400, "{lines:?}");
    }
}

#[test]
fn malformed_heads_are_refused() {
    assert_eq!(status(&replacing("Host", &[])), 400);
    assert_eq!(status(&with("/ws", &["Host: other"])), 400);
    for line in
        ["X: a\rb", "X: a\nb", "X: a\0b", "X: a\r\n folded", "X: a\r\n\tfolded", "X : a", "X", "X: a\x7fb", ": a", "X\x01: a"]
    {
        assert_eq!(status(&with("/ws", &[line])), 400, "{line:?}");
    }
    let bare = String::from_utf8(with("/ws", &[])).unwrap().replace("\r\n", "\n");
    assert_eq!(status(bare.as_bytes()), 400);
    for line in ["Content-Length: 5", "Content-Length: +0", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"] {
        assert_eq!(status(&with("/ws", &[line])), 400, "{line}");
    }
    upgraded(&with("/ws", &["Content-Length: 0"]));
    let mut bytes = with("/ws", &["Content-Length: 5"]);
    let at = bytes.len() - 5;
    bytes[at] = 0xb5;
    assert_eq!(status(&bytes), 400, "a length that is no text is a length all the same");
}

#[test]
fn sizes_are_bounded() {
    let long = format!("X: {}", "a".repeat(17 << 10));
    assert_eq!(status(&with("/ws", &[&long])), 431);
    assert_eq!(status(format!("GET /ws HTTP/1.1\r\n{long}").as_bytes()), 431, "before its end has come");
    let lines: Vec<String> = (0..120).map(|at| format!("X{at}: a")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    upgraded(&with("/ws", &lines[..119]));
    assert_eq!(status(&with("/ws", &lines)), 431);
    let path = "a".repeat(8 << 10);
    assert_eq!(status(&with(&format!("/{path}"), &[])), 414);
    assert_eq!(status(&with(&format!("/ws?{path}"), &[])), 414);
    assert_eq!(status(format!("GET /{path}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").as_bytes()), 414, "before its end has come");
}

#[test]
fn origins_match_exactly() {
    let bad = [
        "https://evil.example",
        "null",
        "https://good.example.evil.example",
        "https://good.example:8443",
        "http://good.example",
        "https://sub.good.example",
        "https://good.example/",
        "HTTPS://good.example",
        "http://localhost:3000",
        "",
    ];
    for origin in bad {
        assert_eq!(status(&with("/ws", &[&format!("Origin: {origin}")])), 403, "{origin}");
    }
    assert_eq!(status(&with("/ws", &["Origin: https://good.example", "Origin: https://good.example"])), 400);
    for origin in ["https://good.example", "http://dev.example:3000"] {
        let request = upgraded(&with("/ws", &[&format!("Origin: {origin}")]));
        assert_eq!(request.origin.as_deref(), Some(origin));
    }
    assert_eq!(upgraded(&with("/ws", &[])).origin, None);
}

#[test]
fn development_admits_pages_of_this_machine() {
    let dev = UpgradeRules { origins: OriginRule::Listed { exact: vec![], localhost: true }, ..rules() };
    for origin in ["http://localhost", "http://localhost:5173", "https://127.0.0.1:8080", "http://[::1]:80"] {
        upgraded_by(&with("/ws", &[&format!("Origin: {origin}")]), &dev);
    }
    let bad = [
        "http://localhost.evil.example",
        "http://localhost:80.evil.example",
        "http://localhost:",
        "http://localhost8080",
        "http://[::1]8080",
        "http://127.0.0.12",
        "http://evil.example#localhost",
        "file://localhost",
        "null",
        "http://localhost:80/",
    ];
    for origin in bad {
        assert_eq!(refused_by(&with("/ws", &[&format!("Origin: {origin}")]), &dev).status, 403, "{origin}");
    }
    let echo = UpgradeRules { path: None, origins: OriginRule::Any, query_token: false };
    for target in ["/", "/getCaseCount?agent=x", "/health"] {
        upgraded_by(&with(target, &["Origin: https://any.example"]), &echo);
    }
    assert!(matches!(parse(&head("GET /health HTTP/1.1", &["Host: h"]), &echo), Ok(Parsed::Plain(_))));
    assert_eq!(refused_by(&head("GET / HTTP/1.1", &["Host: h"]), &echo).status, 426);
}

#[test]
fn subprotocols_are_negotiated() {
    let chosen = |value: &str| upgraded(&with("/ws", &[&format!("Sec-WebSocket-Protocol: {value}")])).subprotocol;
    assert_eq!(chosen("corehub.v1.json"), Some("corehub.v1.json"));
    assert_eq!(chosen("chat, corehub.v1.json ,mqtt"), Some("corehub.v1.json"));
    assert_eq!(chosen("corehub.v1.proto, corehub.v1.json"), Some("corehub.v1.json"));
    assert_eq!(chosen("chat"), None);
    let bytes = with("/ws", &["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: corehub.v1.json"]);
    assert!(String::from_utf8(accept(&upgraded(&bytes))).unwrap().contains("\r\nSec-WebSocket-Protocol: corehub.v1.json\r\n"));
    for bad in ["corehub.v9", "corehub.v1.json, corehub.v9", "corehub.", "corehub.v1.proto", "a b", "a,,b", "", "a/b", "\"a\""] {
        assert_eq!(status(&with("/ws", &[&format!("Sec-WebSocket-Protocol: {bad}")])), 400, "{bad}");
    }
    let thousand = vec!["p"; 1_000].join(",");
    assert_eq!(status(&with("/ws", &[&format!("Sec-WebSocket-Protocol: {thousand}")])), 431);
}

#[test]
fn tokens_are_found_in_order_and_never_shown() {
    let any = UpgradeRules { query_token: true, ..rules() };
    let header = "Authorization: bEARER  aa.SECRET.aa";
    let entry = "Sec-WebSocket-Protocol: corehub.v1.json, bearer.bb.SECRET.bb";
    let token = |target: &str, more: &[&str]| {
        let request = upgraded_by(&with(target, more), &any);
        assert!(!format!("{request:?}").contains("SECRET"));
        assert!(!String::from_utf8(accept(&request)).unwrap().contains("SECRET"));
        request.token.map(|token| token.0)
    };
    assert_eq!(token("/ws?token=cc.SECRET.cc", &[header, entry]).as_deref(), Some("aa.SECRET.aa"));
    assert_eq!(token("/ws?token=cc.SECRET.cc", &[entry]).as_deref(), Some("bb.SECRET.bb"));
    assert_eq!(token("/ws?token=cc%2ESECRET.cc", &[]).as_deref(), Some("cc.SECRET.cc"));
    assert_eq!(token("/ws", &["Authorization: Basic SECRET"]), None);
    assert_eq!(token("/ws", &["Sec-WebSocket-Protocol: bearer.SECRET"]).as_deref(), Some("SECRET"));

    let off = refused_by(&with("/ws?token=SECRET", &[header]), &rules());
    assert_eq!((off.status, off.name), (401, "UNAUTHENTICATED"));
    assert!(!format!("{off:?} {}", String::from_utf8(off.to_bytes()).unwrap()).contains("SECRET"));
    assert!(String::from_utf8(off.to_bytes()).unwrap().contains("\r\nWWW-Authenticate: Bearer\r\n"));
    for more in ["Authorization: Bearer", "Authorization: Bearer  ", "Sec-WebSocket-Protocol: bearer."] {
        assert_eq!(status(&with("/ws", &[more])), 401, "{more}");
    }
    assert_eq!(status(&with("/ws", &[header, header])), 400);
    assert_eq!(status(&with("/ws", &["Sec-WebSocket-Protocol: bearer.a, bearer.b"])), 400);
    assert_eq!(refused_by(&with("/ws?token=", &[]), &any).status, 401);
}

#[test]
fn wishes_travel_in_the_query() {
    let request = upgraded(&with("/ws?acks=1&presence=true&device_id=my%20ph%C3%B6ne+2&other=x&&lone", &[]));
    let device = Some(crate::types::DeviceId::new("my ph\u{f6}ne 2").unwrap());
    assert_eq!(request.wishes, Wishes { device, acks: true, presence: true });
    assert_eq!(upgraded(&with("/ws?acks=0&presence=false", &[])).wishes, Wishes::default());
    for bad in
        ["acks=yes", "acks=", "acks=1&acks=1", "device_id=", "device_id=a%00", "device_id=%4", "device_id=%ff", "device_id=%zz"]
    {
        assert_eq!(status(&with(&format!("/ws?{bad}"), &[])), 400, "{bad}");
    }
}

#[test]
fn extensions_are_declined_and_only_broken_lists_refused() {
    let hundred = vec!["permessage-deflate; client_max_window_bits"; 100].join(", ");
    let good = [
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=7; client_max_window_bits=16",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "x; a=\"quoted \\\" , ; value\" , y",
        &hundred,
    ];
    for offer in good {
        let request = upgraded(&with("/ws", &[&format!("Sec-WebSocket-Extensions: {offer}")]));
        assert!(!String::from_utf8(accept(&request)).unwrap().to_ascii_lowercase().contains("extensions"));
    }
    for broken in ["", ";", "permessage-deflate;", "permessage-deflate; =5", "a b", "x; a=", "x; a=\"open", "x,,y", "x; a==b"] {
        assert_eq!(status(&with("/ws", &[&format!("Sec-WebSocket-Extensions: {broken}")])), 400, "{broken}");
    }
}

#[test]
fn refusals_tell_when_to_return() {
    let full = String::from_utf8(Refusal::unavailable("full", 1_500).to_bytes()).unwrap();
    assert!(full.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && full.contains("\r\nRetry-After: 2\r\n"), "{full}");
    let many = String::from_utf8(Refusal::too_many("many", 0).to_bytes()).unwrap();
    assert!(many.starts_with("HTTP/1.1 429 Too Many Requests\r\n") && many.contains("\r\nRetry-After: 1\r\n"), "{many}");
    let fault = crate::types::outcome::Fault::new(crate::types::ErrorName::TokenExpired, "");
    let refusal = Refusal::from(&fault);
    assert_eq!((refusal.status, refusal.name, &*refusal.message), (401, "TOKEN_EXPIRED", "the token has expired"));
}

#[test]
fn random_damage_never_panics() {
    let bytes = with(
        "/ws?acks=1&device_id=a%20b",
        &["Sec-WebSocket-Protocol: corehub.v1.json, bearer.x", "Origin: https://good.example"],
    );
    const HEADS: u64 = if cfg!(miri) { 60 } else { 20_000 };
    let mut outcomes = [0; 2];
    for seed in 0..HEADS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut damaged = bytes.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..damaged.len());
            match random.u8(0..3) {
                0 => damaged[at] = random.u8(..),
                1 => drop(damaged.remove(at)),
                _ => damaged.insert(at, *random.choice(b"\r\n :,;=%?&\0\"a").unwrap()),
            }
        }
        outcomes[usize::from(parse(&damaged, &rules()).is_ok())] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > HEADS / 20), "{outcomes:?}");
}
