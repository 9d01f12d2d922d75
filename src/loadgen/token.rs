//! Owns the tokens that bench clients present. Never checks one; that is the server's work. Used on generator threads.

use std::time::SystemTime;

use crate::auth::{NewToken, issue};
use crate::types::{Millis, UserId};

use super::error::{BenchError, BenchResult};

/// Makes HS256 tokens with the server's secret.
#[derive(Clone)]
pub struct TokenMaker {
    secret: String,
}

impl TokenMaker {
    /// `secret` as in `auth.hmac_secret`.
    pub fn new(secret: String) -> TokenMaker {
        TokenMaker { secret }
    }

    /// A token for `user` that outlives every run.
    pub fn token(&self, user: &str) -> BenchResult<String> {
        let user = UserId::new(user).map_err(|fault| BenchError::Usage(fault.to_string()))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(issue(self.secret.as_bytes(), &NewToken::for_user(user, TOKEN_MS), Millis(now.as_millis() as u64)))
    }
}

const TOKEN_MS: u64 = 24 * 3_600 * 1_000;
