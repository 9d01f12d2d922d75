//! Owns the query of an upgrade: `token`, `acks`, `presence`, `device_id`. Unknown parameters are ignored.
//!
//! Never puts a value into a message: the query may carry a token.

use std::borrow::Cow;

use super::Refusal;
use crate::types::DeviceId;
use crate::types::command::Wishes;

/// What the query asks for.
#[derive(Default)]
pub struct Asked {
    pub token: Option<String>,
    pub wishes: Wishes,
}

/// Reads a query, without its `?`. With `token_allowed` false a `token` is 401.
pub fn parse(query: &str, token_allowed: bool) -> Result<Asked, Refusal> {
    let mut asked = Asked::default();
    let mut seen = [false; KNOWN.len()];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name)?;
        let Some(slot) = KNOWN.iter().position(|known| *known == name) else { continue };
        let name = KNOWN[slot];
        if std::mem::replace(&mut seen[slot], true) {
            return Err(Refusal::bad_request(format!("the query has `{name}` twice")));
        }
        let value = decode(value)?;
        match name {
            "token" if !token_allowed => {
                return Err(Refusal::unauthorized("UNAUTHENTICATED", "tokens in the query are off (`auth.query_token`)"));
            }
            "token" if value.is_empty() => {
                return Err(Refusal::unauthorized("BAD_TOKEN", "the token of the query is empty"));
            }
            "token" => asked.token = Some(value.into_owned()),
            "acks" => asked.wishes.acks = flag(name, &value)?,
            "presence" => asked.wishes.presence = flag(name, &value)?,
            _ => {
                let device = DeviceId::new(&value);
                let device = device.map_err(|fault| Refusal::bad_request(format!("`device_id` of the query {fault}")))?;
                asked.wishes.device = Some(device);
            }
        }
    }
    Ok(asked)
}

fn flag(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Refusal::bad_request(format!("`{name}` of the query must be 1, true, 0 or false"))),
    }
}

/// Decodes `%XX` and `+`, as forms and `URLSearchParams` write them.
fn decode(text: &str) -> Result<Cow<'_, str>, Refusal> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(Refusal::bad_request("the query has a broken percent-encoding")),
            },
            other => other,
        });
    }
    String::from_utf8(plain).map(Cow::Owned).map_err(|_| Refusal::bad_request("the query is not UTF-8"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

const KNOWN: [&str; 4] = ["token", "acks", "presence", "device_id"];
