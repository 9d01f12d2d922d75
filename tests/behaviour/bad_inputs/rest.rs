//! Rows of the admin port: keys, identifiers, bodies. After each the neighbours' traffic goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use super::Neighbours;
use crate::at_shards;
use crate::support::http::read_response;
use crate::support::server::API_KEY;
use crate::support::{PATIENCE, Server};

/// Every request that changes something or tells of users, with identifiers that exist.
const REQUESTS: &[(&str, &str)] = &[
    ("POST", "/v1/messages"),
    ("GET", "/v1/announcements"),
    ("POST", "/v1/tokens/revoke"),
    ("GET", "/v1/users/alice/presence"),
    ("GET", "/v1/users/alice/unread"),
    ("GET", "/v1/users/alice/offline"),
    ("GET", "/v1/users/alice/conversations"),
    ("POST", "/v1/users/alice/kick"),
    ("GET", "/v1/conversations/p:alice:bob/messages"),
    ("GET", "/v1/groups"),
    ("POST", "/v1/groups"),
    ("GET", "/v1/groups/team"),
    ("DELETE", "/v1/groups/team"),
    ("GET", "/v1/groups/team/members"),
    ("POST", "/v1/groups/team/members"),
    ("DELETE", "/v1/groups/team/members"),
    ("PUT", "/v1/groups/team/members/alice"),
    ("DELETE", "/v1/groups/team/members/alice"),
];

at_shards!(keys_that_are_not_the_key, |server| {
    let mut neighbours = Neighbours::calm(server);
    let (longer, bearer) = (format!("{API_KEY}x"), format!("Bearer {API_KEY}x"));
    let keys: [&[(&str, &str)]; 7] = [
        &[],
        &[("X-API-Key", "")],
        &[("X-API-Key", &longer)],
        &[("X-API-Key", &API_KEY[1..])],
        &[("Authorization", &bearer)],
        &[("Authorization", API_KEY)],
        &[("X-API-Key", "wrong"), ("Authorization", &format!("Bearer {API_KEY}"))],
    ];
    let body = json!({"announcement": true, "content": "from a stranger"});
    for (method, path) in REQUESTS {
        for headers in keys {
            let response = server.rest_with(method, path, headers, Some(body.clone()));
            assert_eq!((response.status, response.error_name().as_str()), (401, "UNAUTHENTICATED"), "{method} {path}");
        }
        for query in ["api_key", "X-API-Key", "token", "access_token"] {
            let response = server.rest_with(method, &format!("{path}?{query}={API_KEY}"), &[], Some(body.clone()));
            assert_eq!(response.status, 401, "{method} {path}?{query}");
        }
    }
    let megabyte = "x".repeat(1 << 20);
    assert_eq!(server.rest_with("POST", "/v1/messages", &[("X-API-Key", &megabyte)], Some(body)).status, 401);
    assert!(!server.log().contains(API_KEY));
    assert_eq!(server.rest_ok("GET", "/v1/announcements", None)["announcements"], json!([]));
    neighbours.exchange("as before");
});

at_shards!(identifiers_that_lead_elsewhere, |server| {
    let mut neighbours = Neighbours::calm(server);
    let too_long = "x".repeat(129);
    for (method, path) in REQUESTS.iter().filter(|(_, path)| path.matches('/').count() > 2 && !path.ends_with("revoke")) {
        let mut parts: Vec<&str> = path.split('/').collect();
        for wrong in ["%00", "a%00", "a%0d%0ab", "a%0aSet-Cookie:%20x", "%ff", "%c3%28", "%7f", "%c2%80", &too_long] {
            parts[3] = wrong;
            let target = parts.join("/");
            let response = server.rest(method, &target, Some(json!({"user_ids": ["alice"]})));
            assert_eq!((response.status, response.error_name().as_str()), (400, "BAD_REQUEST"), "{method} {target}");
            assert!(response.header("set-cookie").is_none());
        }
        for elsewhere in ["..%2f..%2fetc%2fpasswd", "..", ".", "%2e%2e", "%2e%2e/%2e%2e/etc/passwd", "../../../../etc/passwd", ""]
        {
            parts[3] = elsewhere;
            let target = parts.join("/");
            let response = server.rest(method, &target, None);
            // A slash may be part of an identifier: then this is a user, or a group, whom nobody knows.
            let unknown = response.status == 200 && target.starts_with("/v1/users/");
            assert!(matches!(response.status, 400 | 404 | 405) || unknown, "{method} {target}: {}", response.status);
            assert!(!response.text().contains("root:"), "{target}");
        }
    }
    for path in ["/v1/conversations/p:b:a/messages", "/v1/conversations/x/messages", "/v1/conversations/g:a%2541/messages"] {
        assert_eq!(server.rest("GET", path, None).error_name(), "BAD_REQUEST", "{path}");
    }
    for query in
        ["limit=0", "limit=x", "before_seq=0", "before_seq=-1", "after_seq=1.5", "since=x", "cursor=z", "limit=1&limit=2"]
    {
        let path = format!("/v1/conversations/p:alice:bob/messages?{query}");
        assert_eq!(server.rest("GET", &path, None).error_name(), "BAD_REQUEST", "{query}");
    }
    for path in ["/v1/users/a/offline?cursor=!", "/v1/groups?cursor=!", "/v1/users/a/offline?device_id=%00"] {
        assert_eq!(server.rest("GET", path, None).error_name(), "BAD_REQUEST", "{path}");
    }
    neighbours.exchange("as before");
});

at_shards!(bodies_that_are_not_as_described, |server| {
    let mut neighbours = Neighbours::calm(server);
    let deep = "[".repeat(100_000);
    let nested = format!(r#"{{"sender_id":"a","to_user_id":"b","content":{}1{}}}"#, r#"{"a":"#.repeat(100), "}".repeat(100));
    let texts: Vec<&str> = vec![
        "",
        "{",
        "null",
        "7",
        "[]",
        "\"x\"",
        "{} x",
        "\u{feff}{}",
        &deep,
        &nested,
        r#"{"sender_id":"a","sender_id":"b","to_user_id":"c","content":"x"}"#,
        r#"{"sender_id":"a","to_user_id":"b","content":"x","unknown":1}"#,
        r#"{"sender_id":"a","to_user_id":"b","content":"\ud800"}"#,
        r#"{"sender_id":"a","to_user_id":"b\u0000","content":"x"}"#,
        r#"{"sender_id":"a","to_user_id":"b","content":["x"]}"#,
        r#"{"sender_id":"a","to_user_id":"b","content":"x","msg_type":8}"#,
        r#"{"sender_id":"a","to_user_id":"b","content":"x","kind":"custom"}"#,
        r#"{"to_user_id":"b","content":"x","kind":""}"#,
        r#"{"to_user_id":"b","group_id":"g","content":"x"}"#,
        r#"{"group_id":"g","content":"x"}"#,
        r#"{"group_id":"g"}"#,
        r#"{"group_id":"g","owner_id":7}"#,
        r#"{"group_id":"g","owner_id":"a","members":"b"}"#,
        r#"{"group_id":"g","owner_id":"a","members":[""]}"#,
        r#"{"user_ids":[7]}"#,
        r#"{"jti":"a","user_id":"b"}"#,
        r#"{"jti":""}"#,
        r#"{"user_id":"a","issued_before":-1}"#,
    ];
    for path in ["/v1/messages", "/v1/groups", "/v1/groups/none/members", "/v1/tokens/revoke"] {
        for text in &texts {
            let response = send(server, "POST", path, &format!("Content-Length: {}\r\n", text.len()), text.as_bytes());
            assert_eq!(response.0, 400, "{path} {text:.60}: {}", response.1);
            assert!(
                ["BAD_REQUEST", "BAD_JSON"].contains(&response.1["error"]["name"].as_str().unwrap_or_default()),
                "{text:.60}"
            );
        }
    }
    let system = json!({"sender_id": "a", "to_user_id": "b", "content": "x", "msg_type": "system"});
    assert_eq!(server.rest("POST", "/v1/messages", Some(system)).error_name(), "FORBIDDEN", "as on the socket");
    assert_eq!(server.rest_ok("GET", "/v1/groups", None)["groups"], json!([]));
    neighbours.exchange("as before");
});

at_shards!(content_over_its_limit, "[limits]\ncontent_bytes = 1000\n", |server| {
    for target in [json!({"sender_id": "a", "to_user_id": "b"}), json!({"to_user_id": "b"}), json!({"announcement": true})] {
        let mut body = target;
        body["content"] = json!("x".repeat(1_001));
        let response = server.rest("POST", "/v1/messages", Some(body.clone()));
        assert_eq!((response.status, response.error_name().as_str()), (413, "TOO_LARGE"));
        body["content"] = json!("x".repeat(1_000));
        server.rest_ok("POST", "/v1/messages", Some(body));
    }
});

at_shards!(bodies_without_end, |server| {
    let mut neighbours = Neighbours::calm(server);
    for (method, path) in [("POST", "/v1/messages"), ("POST", "/v1/groups"), ("DELETE", "/v1/groups/team/members")] {
        let (status, error) = send(server, method, path, "Content-Length: 1000000000\r\n", b"");
        assert_eq!((status, &error["error"]["name"]), (413, &json!("TOO_LARGE")), "{method} {path}");
        let mut stream = begin(server, method, path, "Transfer-Encoding: chunked\r\n");
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        let mut reader = stream.try_clone().expect("a socket can be shared");
        let answered = std::thread::spawn(move || read_response(&mut reader, &mut Vec::new()));
        while !answered.is_finished() && stream.write_all(&chunk).is_ok() {}
        let response = answered.join().expect("no panic").expect("readable").expect("an answer");
        assert_eq!((response.status, response.error_name().as_str()), (413, "TOO_LARGE"), "{method} {path}");
    }
    neighbours.exchange("as before");
});

/// One server is enough: its own limit of 10 s is what is waited for.
#[test]
fn slow_bodies_are_cut_off() {
    let server = Server::start(1, "");
    let begun = Instant::now();
    let mut stream = begin(&server, "POST", "/v1/messages", "Content-Length: 1000\r\n");
    stream.write_all(b"{").expect("the server listens");
    let response = read_response(&mut stream, &mut Vec::new()).expect("in time").expect("an answer");
    assert_eq!((response.status, response.error_name().as_str()), (408, "REQUEST_TIMEOUT"));
    assert!(begun.elapsed() < PATIENCE);
    let mut rest = Vec::new();
    // The connection is of no use after half a body.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(server.rest("GET", "/v1/stats", None).status, 200);
}

/// A request of one's own making: status and body of the answer.
fn send(server: &Server, method: &str, path: &str, lines: &str, body: &[u8]) -> (u16, Value) {
    let mut stream = begin(server, method, path, lines);
    // The server may answer before it has read everything.
    let _ = stream.write_all(body);
    let response = read_response(&mut stream, &mut Vec::new()).expect("in time").expect("an answer");
    (response.status, response.json())
}

fn begin(server: &Server, method: &str, path: &str, lines: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.admin_address()).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {API_KEY}\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).expect("the server takes a request");
    stream
}
