//! Owns the tokens that bench clients present. Never checks one; that is the server's work.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::error::{BenchError, BenchResult};

/// Makes HS256 tokens with the server's secret.
pub struct TokenMaker {
    key: EncodingKey,
    expires_at: u64,
}

impl TokenMaker {
    /// `expires_at` in Unix seconds: after the end of the run, so that no expiry disturbs it.
    pub fn new(secret: &[u8], expires_at: u64) -> TokenMaker {
        TokenMaker { key: EncodingKey::from_secret(secret), expires_at }
    }

    /// A token for `user` (claim `sub`).
    pub fn token(&self, user: &str) -> BenchResult<String> {
        sign(&self.key, user, self.expires_at)
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
}

fn sign(key: &EncodingKey, user: &str, expires_at: u64) -> BenchResult<String> {
    let claims = Claims { sub: user, exp: expires_at };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, key)
        .map_err(|fault| BenchError::Usage(format!("the secret makes no token: {fault}")))
}
