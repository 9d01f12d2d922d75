//! Owns the making of tokens for `corehub token` and `--dev`: HS256 only. Never reads a clock; lives in the CLI.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::types::{DeviceId, Millis, UserId};

/// What a new token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    pub user: UserId,
    pub device: Option<DeviceId>,
    /// Time to live in milliseconds; cut to whole seconds, at least one.
    pub ttl_ms: u64,
    /// `aud`: what `auth.audience` asks for, when it is set.
    pub audience: Option<String>,
    /// `iss`: what `auth.issuer` asks for, when it is set.
    pub issuer: Option<String>,
    /// `jti`, for revocation.
    pub token_id: Option<String>,
}

impl NewToken {
    /// A token that names a user and nothing else.
    pub fn for_user(user: UserId, ttl_ms: u64) -> NewToken {
        NewToken { user, device: None, ttl_ms, audience: None, issuer: None, token_id: None }
    }
}

/// Signs a token with `secret` (raw bytes) at wall time `now`.
pub fn issue(secret: &[u8], token: &NewToken, now: Millis) -> String {
    let issued_at = now.0 / 1_000;
    let claims = Claims {
        sub: token.user.as_str(),
        device_id: token.device.as_ref().map(DeviceId::as_str),
        iat: issued_at,
        exp: issued_at.saturating_add((token.ttl_ms / 1_000).max(1)),
        aud: token.audience.as_deref(),
        iss: token.issuer.as_deref(),
        jti: token.token_id.as_deref(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret))
        .expect("texts and numbers are always JSON, and HMAC takes a secret of any length")
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
}
