//! Checks the request head: reading it in pieces and at once agree, and what is accepted is accepted by a plain reading of the
//! lines too, in which nothing can hide a second request (RFC 9112 section 11.2). Where tungstenite accepts as well, both find
//! the same end and the same key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response};

use super::input::Input;
use crate::wire::upgrade::{HEAD_BYTES_MAX, OriginRule, Parsed, Refusal, UpgradeRequest, UpgradeRules, accept, parse};

/// A byte that chooses the rules, then what arrives.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let rules = rules(input.byte());
    let bytes = input.rest();
    let whole = parse(bytes, &rules);
    for end in (0..bytes.len()).step_by((bytes.len() / PREFIXES_MAX).max(1)) {
        agree(&parse(&bytes[..end], &rules), &whole, end);
    }
    match whole {
        Ok(Parsed::NeedMore) => assert!(bytes.len() < HEAD_BYTES_MAX, "no more than that is waited for"),
        Ok(Parsed::Upgrade(request)) => accepted(bytes, &request, &rules),
        Ok(Parsed::Plain(request)) => {
            let head = Lines::read(&bytes[..request.consumed]);
            head.one_reading();
            assert!(["GET", "HEAD"].contains(&head.method.as_str()));
            well_formed(&request.respond(200, &[("Content-Type", "text/plain")], b"ok"));
        }
        Err(refusal) => refused(&refusal),
    }
}

fn rules(choice: u8) -> UpgradeRules {
    let origins = match choice & 3 {
        0 => OriginRule::Any,
        at => OriginRule::Listed { exact: vec!["https://good.example".to_owned()], localhost: at & 2 != 0 },
    };
    UpgradeRules { path: (choice & 4 == 0).then(|| "/ws".to_owned()), origins, query_token: choice & 8 == 0 }
}

/// What a part of the bytes was taken for is what the whole is.
fn agree(part: &Result<Parsed, Refusal>, whole: &Result<Parsed, Refusal>, end: usize) {
    match (part, whole) {
        (Ok(Parsed::NeedMore), _) | (Err(_), Err(_)) => {}
        (Ok(Parsed::Upgrade(part)), Ok(Parsed::Upgrade(whole))) => {
            assert_eq!((part.consumed, &part.accept_key, &part.token), (whole.consumed, &whole.accept_key, &whole.token));
            assert!(part.consumed <= end);
        }
        (Ok(Parsed::Plain(part)), Ok(Parsed::Plain(whole))) => assert_eq!(part, whole),
        _ => panic!("{end} bytes are {part:?}, all of them are {whole:?}"),
    }
}

fn accepted(bytes: &[u8], request: &UpgradeRequest, rules: &UpgradeRules) {
    let (head, rest) = bytes.split_at(request.consumed);
    let lines = Lines::read(head);
    lines.one_reading();
    assert_eq!(lines.method, "GET");
    assert!(lines.list("upgrade").any(|entry| entry.eq_ignore_ascii_case("websocket")));
    assert!(lines.list("connection").any(|entry| entry.eq_ignore_ascii_case("upgrade")));
    assert_eq!(lines.only("sec-websocket-version"), Some("13"));
    let key = lines.only("sec-websocket-key").expect("an upgrade has one key");
    assert_eq!(STANDARD.decode(key).map(|key| key.len()), Ok(16));
    assert_eq!(request.accept_key, derive_accept_key(key.as_bytes()));
    if let (Some(origin), OriginRule::Listed { exact, localhost }) = (lines.only("origin"), &rules.origins) {
        assert!(exact.iter().any(|one| one == origin) || (*localhost && of_this_machine(origin)), "{origin}");
    }
    if let Some(chosen) = request.subprotocol {
        assert!(lines.list("sec-websocket-protocol").any(|entry| entry == chosen));
    }
    if let Some(token) = &request.token {
        let (query, wanted) = (lines.target.contains("token"), &*token.0);
        let bearer = format!("bearer.{wanted}");
        let in_headers = lines.list("sec-websocket-protocol").any(|entry| entry == bearer)
            || lines.only("authorization").is_some_and(|value| value.ends_with(wanted));
        assert!(in_headers || (query && rules.query_token), "the token comes from one of its places");
    }
    let answer = accept(request);
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    well_formed(&answer);
    // A second opinion. It knows no absolute targets, and may refuse what is allowed.
    if let Ok(Some((size, other))) = Request::try_parse(head) {
        assert_eq!(size, head.len(), "{} bytes follow", rest.len());
        if let Ok(response) = create_response(&other) {
            assert_eq!(response.headers()["sec-websocket-accept"], request.accept_key);
        }
    }
}

fn of_this_machine(origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    ["http", "https"].contains(&scheme) && ["localhost", "127.0.0.1", "[::1]"].contains(&host)
}

fn refused(refusal: &Refusal) {
    assert!((400..=431).contains(&refusal.status), "{refusal}");
    assert!(refusal.message.len() <= 256, "a refusal repeats little of the request");
    let bytes = refusal.to_bytes();
    let body = well_formed(&bytes);
    let body: serde_json::Value = serde_json::from_slice(body).expect("the body of a refusal is JSON");
    assert_eq!(body["error"]["code"], refusal.status);
    assert_eq!(body["error"]["name"], refusal.name);
    assert_eq!(body["error"]["message"], refusal.message.as_ref());
}

/// The body of a response that is one response.
fn well_formed(response: &[u8]) -> &[u8] {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(size)) = parsed.parse(response) else { panic!("a response that nobody can read") };
    let length = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = &response[size..];
    if let Some(length) = length {
        let length = String::from_utf8_lossy(length.value).parse::<usize>();
        assert!(length == Ok(body.len()) || body.is_empty(), "{length:?}");
    }
    body
}

/// A head, read as simply as can be.
struct Lines {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Lines {
    /// # Panics
    /// When any line could be read in two ways.
    fn read(head: &[u8]) -> Lines {
        let text: String = head.iter().map(|byte| char::from(*byte)).collect();
        let text = text.strip_suffix("\r\n\r\n").expect("a head ends with an empty line");
        assert!(!text.contains("\r\n\r\n"), "the first empty line ends the head");
        let lines: Vec<&str> = text.split("\r\n").collect();
        let words: Vec<&str> = lines[0].split(' ').collect();
        let [method, target, "HTTP/1.1"] = words[..] else { panic!("{:?}", lines[0]) };
        let headers = lines[1..].iter().map(|line| {
            assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
            let (name, value) = line.split_once(':').expect("a header has a colon");
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert!(!name.is_empty() && name.bytes().all(token), "{name:?}");
            // As UTF-8 where it is; otherwise as it stands.
            let value: Vec<u8> = value.chars().map(|character| character as u8).collect();
            (name.to_ascii_lowercase(), String::from_utf8_lossy(&value).trim_matches([' ', '\t']).to_owned())
        });
        Lines { method: method.to_owned(), target: target.to_owned(), headers: headers.collect() }
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(name).flat_map(|value| value.split(',')).map(|entry| entry.trim_matches([' ', '\t']))
    }

    fn only<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.values(name);
        let first = values.next();
        assert_eq!(values.next(), None, "`{name}` comes once");
        first
    }

    /// Nobody in front of us can have seen another request in these bytes.
    fn one_reading(&self) {
        assert!(self.only("host").is_some());
        assert_eq!(self.values("transfer-encoding").next(), None);
        assert!(self.values("content-length").all(|length| length == "0"));
    }
}

const PREFIXES_MAX: usize = 48;
