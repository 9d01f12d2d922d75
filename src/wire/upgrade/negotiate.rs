//! Owns what an upgrade negotiates: key, origin, extensions, subprotocol, and the token places among the headers.
//!
//! Never agrees to an extension and never echoes a token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::head::Head;
use super::{OriginRule, Refusal};

/// The subprotocol of text frames with JSON.
pub const JSON: &str = "corehub.v1.json";
const PROTO: &str = "corehub.v1.proto";

/// The `Sec-WebSocket-Key`: base64 of 16 bytes (RFC 6455 section 4.1).
pub fn key<'b>(head: &Head<'_, 'b>) -> Result<&'b str, Refusal> {
    let Some(key) = head.single("sec-websocket-key")? else {
        return Err(Refusal::bad_request("`Sec-WebSocket-Key` is missing"));
    };
    match STANDARD.decode(key) {
        Ok(bytes) if bytes.len() == 16 => Ok(key),
        _ => Err(Refusal::bad_request("`Sec-WebSocket-Key` must be 16 bytes in base64")),
    }
}

/// The page's origin, when it may connect; exact match only, no prefix, suffix or substring.
pub fn origin<'b>(head: &Head<'_, 'b>, rule: &OriginRule) -> Result<Option<&'b str>, Refusal> {
    let Some(origin) = head.single("origin")? else { return Ok(None) };
    let allowed = match rule {
        OriginRule::Any => true,
        OriginRule::Listed { exact, localhost } => {
            exact.iter().any(|listed| listed == origin) || (*localhost && is_localhost(origin))
        }
    };
    if allowed {
        Ok(Some(origin))
    } else {
        Err(Refusal::new(403, "FORBIDDEN", "this origin may not connect; `listen.origins` lists those that may"))
    }
}

fn is_localhost(origin: &str) -> bool {
    let Some(host) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else { return false };
    match ["localhost", "127.0.0.1", "[::1]"].into_iter().find_map(|name| host.strip_prefix(name)) {
        Some("") => true,
        Some(port) => port
            .strip_prefix(':')
            .is_some_and(|digits| (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())),
        None => false,
    }
}

/// What the offered subprotocols come to.
#[derive(Default)]
pub struct Offer {
    pub subprotocol: Option<&'static str>,
    pub token: Option<String>,
}

/// Chooses a subprotocol and finds a `bearer.<token>` entry. Without any of ours none is named in the answer.
pub fn subprotocols(head: &Head<'_, '_>) -> Result<Offer, Refusal> {
    let mut offer = Offer::default();
    let (mut count, mut proto) = (0, false);
    for value in head.values("sec-websocket-protocol") {
        for entry in value?.split(',').map(str::trim_ascii) {
            count += 1;
            if count > SUBPROTOCOLS_MAX {
                return Err(Refusal::new(431, "HEADERS_TOO_LARGE", "more than 32 subprotocols"));
            }
            if take_token(entry) != Some("") {
                return Err(Refusal::bad_request("`Sec-WebSocket-Protocol` is malformed"));
            }
            match entry {
                JSON => offer.subprotocol = Some(JSON),
                PROTO => proto = true,
                _ if entry.starts_with("corehub.") => {
                    return Err(Refusal::bad_request("there is no such corehub subprotocol; use corehub.v1.json"));
                }
                _ => bearer_entry(entry, &mut offer)?,
            }
        }
    }
    if proto && offer.subprotocol.is_none() {
        return Err(Refusal::bad_request("only corehub.v1.json is available on this server"));
    }
    Ok(offer)
}

fn bearer_entry(entry: &str, offer: &mut Offer) -> Result<(), Refusal> {
    match entry.strip_prefix("bearer.") {
        None => Ok(()),
        Some("") => Err(Refusal::unauthorized("BAD_TOKEN", "the token of the subprotocol list is empty")),
        Some(_) if offer.token.is_some() => Err(Refusal::bad_request("more than one token among the subprotocols")),
        Some(token) => {
            offer.token = Some(token.to_owned());
            Ok(())
        }
    }
}

/// The token of `Authorization: Bearer`; other schemes are for others.
pub fn authorization(head: &Head<'_, '_>) -> Result<Option<String>, Refusal> {
    let Some(value) = head.single("authorization")? else { return Ok(None) };
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    match (scheme.eq_ignore_ascii_case("bearer"), token.trim_ascii()) {
        (false, _) => Ok(None),
        (true, "") => Err(Refusal::unauthorized("BAD_TOKEN", "`Authorization` has no token")),
        (true, token) => Ok(Some(token.to_owned())),
    }
}

/// Every extension is declined by silence; only a list that cannot be read is refused (RFC 6455 section 9.1).
pub fn judge_extensions(head: &Head<'_, '_>) -> Result<(), Refusal> {
    for value in head.values("sec-websocket-extensions") {
        if extensions(value?).is_none() {
            return Err(Refusal::bad_request("`Sec-WebSocket-Extensions` is malformed"));
        }
    }
    Ok(())
}

/// Reads a list of `token *( ";" token [ "=" ( token / quoted-string ) ] )`.
fn extensions(value: &str) -> Option<()> {
    let mut rest = take_token(value.trim_ascii_start())?.trim_ascii_start();
    loop {
        match rest.bytes().next() {
            None => return Some(()),
            Some(b',') => rest = take_token(rest[1..].trim_ascii_start())?.trim_ascii_start(),
            Some(b';') => {
                rest = take_token(rest[1..].trim_ascii_start())?.trim_ascii_start();
                if let Some(value) = rest.strip_prefix('=') {
                    rest = take_value(value.trim_ascii_start())?.trim_ascii_start();
                }
            }
            Some(_) => return None,
        }
    }
}

/// What follows the token that `text` begins with (RFC 9110 section 5.6.2).
fn take_token(text: &str) -> Option<&str> {
    let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
    if end == 0 { None } else { Some(&text[end..]) }
}

fn take_value(text: &str) -> Option<&str> {
    let Some(quoted) = text.strip_prefix('"') else { return take_token(text) };
    let mut escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(&quoted[at + 1..]),
            _ => {}
        }
    }
    None
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const SUBPROTOCOLS_MAX: usize = 32;
