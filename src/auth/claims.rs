//! Owns the reading of a token's header and claims, with every type checked (RFC 7519 section 4, RFC 7515 section 4). Never
//! compares with a clock or a key. Pure; lives on whichever thread verifies.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Algorithm, TokenFault};
use crate::types::id::check_id;
use crate::types::{DeviceId, Millis, UserId};

/// What a header may say. `jku`, `x5u` and `jwk` are not even read, since a token brings no keys.
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    /// `kid`: one name among those of a published set; means nothing to configured keys.
    pub(super) key_name: Option<String>,
}

#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    #[serde(default)]
    kid: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// Reads the header, or says why it is refused.
pub(super) fn read_header(json: &[u8]) -> Result<Header, TokenFault> {
    // What is skipped in reading is not looked at, so that it is made sure before that all of it is text (RFC 7515 section 5.2).
    let header = std::str::from_utf8(json).ok().and_then(|json| serde_json::from_str::<RawHeader>(json).ok());
    let header = header.ok_or(TokenFault::Bad("the header is not a JSON object with one alg"))?;
    if header.crit {
        // RFC 7515 section 4.1.11: extensions that are not understood make the token invalid, and none is understood.
        return Err(TokenFault::Bad("crit in the header is not supported"));
    }
    let algorithm = Algorithm::known(&header.alg).ok_or(TokenFault::Bad("the algorithm is not allowed"))?;
    let key_name = match header.kid {
        None => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => return Err(TokenFault::Bad("kid in the header must be a text")),
    };
    Ok(Header { algorithm, key_name })
}

/// The claims, typed. Times are as in the token: whole seconds, here in milliseconds.
pub(super) struct Claims {
    pub(super) user: UserId,
    pub(super) device: Option<DeviceId>,
    pub(super) expires_at: Option<Millis>,
    pub(super) not_before: Option<Millis>,
    pub(super) issued_at: Option<Millis>,
    pub(super) token_id: Option<String>,
    audience: Option<Value>,
    issuer: Option<Value>,
}

impl Claims {
    pub(super) fn read(json: &[u8]) -> Result<Claims, TokenFault> {
        let raw = std::str::from_utf8(json).ok().and_then(|json| serde_json::from_str::<RawClaims>(json).ok());
        let raw = raw.ok_or(TokenFault::Bad("the claims are not a JSON object without repeats"))?;
        let user = match raw.sub {
            Some(Value::String(text)) => UserId::new(&text).map_err(|_| TokenFault::Bad(BAD_SUBJECT))?,
            _ => return Err(TokenFault::Bad(BAD_SUBJECT)),
        };
        let device = match raw.device_id {
            None => None,
            Some(Value::String(text)) => Some(DeviceId::new(&text).map_err(|_| TokenFault::Bad(BAD_DEVICE))?),
            Some(_) => return Err(TokenFault::Bad(BAD_DEVICE)),
        };
        let token_id = match raw.jti {
            None => None,
            Some(Value::String(text)) if check_id(&text).is_ok() => Some(text),
            Some(_) => return Err(TokenFault::Bad("jti must be a text of 1 to 128 bytes without control characters")),
        };
        Ok(Claims {
            user,
            device,
            expires_at: seconds(raw.exp, "exp must be a whole number of seconds since 1970")?,
            not_before: seconds(raw.nbf, "nbf must be a whole number of seconds since 1970")?,
            issued_at: seconds(raw.iat, "iat must be a whole number of seconds since 1970")?,
            token_id,
            audience: raw.aud,
            issuer: raw.iss,
        })
    }

    /// True when `aud` (a text or an array of texts) names one of `wanted`.
    pub(super) fn audience_is_one_of(&self, wanted: &[String]) -> bool {
        let named = |value: &Value| value.as_str().is_some_and(|text| wanted.iter().any(|one| one == text));
        match &self.audience {
            Some(Value::Array(values)) => values.iter().all(Value::is_string) && values.iter().any(named),
            Some(value) => named(value),
            None => false,
        }
    }

    /// True when `iss` is exactly `wanted`, byte for byte.
    pub(super) fn issuer_is(&self, wanted: &str) -> bool {
        self.issuer.as_ref().and_then(Value::as_str) == Some(wanted)
    }
}

/// The claims as they came. A `null` counts as present and of the wrong type; a repeated name is refused by the reader.
#[derive(Deserialize)]
struct RawClaims {
    #[serde(default, deserialize_with = "any")]
    sub: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    nbf: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    iat: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    aud: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    iss: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    jti: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    device_id: Option<Value>,
}

fn any<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(input).map(Some)
}

fn present<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(input).map(|_| true)
}

/// A NumericDate (RFC 7519 section 2). Fractions are refused: no issuer needs them, and what rounds can be made to overflow.
fn seconds(value: Option<Value>, reason: &'static str) -> Result<Option<Millis>, TokenFault> {
    match value {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(seconds) if seconds <= SECONDS_MAX => Ok(Some(Millis(seconds * 1_000))),
            _ => Err(TokenFault::Bad(reason)),
        },
    }
}

/// The end of the year 9999: later times are mistakes of unit, not wishes.
const SECONDS_MAX: u64 = 253_402_300_799;
const BAD_SUBJECT: &str = "sub must be a user id: 1 to 128 bytes of text without control characters";
const BAD_DEVICE: &str = "device_id must be 1 to 128 bytes of text without control characters";
