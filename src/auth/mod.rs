//! Owns the way from a token to an identity. Never performs I/O: keys are given, time is a parameter. Lives on shard threads
//! (shared, immutable) and in the CLI that makes tokens.

mod claims;
mod issue;
mod key_set;
mod keys;
mod verify;

#[cfg(test)]
mod tests;

pub use issue::{NewToken, issue};
pub use key_set::{KeySet, KeySetFault};
pub use keys::Algorithm;
pub use verify::{AuthRules, LEEWAY_MS_MAX, TOKEN_BYTES_MAX, Verifier};

use crate::types::outcome::Fault;
use crate::types::{DeviceId, ErrorName, Millis, UserId};

/// Who a valid token says its bearer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    /// The token's claim, which wins over what the client says.
    pub device: Option<DeviceId>,
    /// None only when `auth.require_exp = false`.
    pub expires_at: Option<Millis>,
    pub issued_at: Option<Millis>,
    /// For revocation.
    pub token_id: Option<String>,
}

/// Why a token opens nothing. Never carries any part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Malformed, not signed by a configured key, or a claim that does not fit. Trying again changes nothing.
    #[error("{0}")]
    Bad(&'static str),
    /// It was good once: ask the issuer for a new one.
    #[error("the token has expired")]
    Expired,
    /// Withdrawn by an operator. Never answered by [`Verifier`], which knows no list; for those who keep one.
    #[error("the token has been revoked")]
    Revoked,
}

impl TokenFault {
    /// The error of the protocol that says this.
    pub fn name(self) -> ErrorName {
        match self {
            TokenFault::Bad(_) => ErrorName::BadToken,
            TokenFault::Expired => ErrorName::TokenExpired,
            TokenFault::Revoked => ErrorName::TokenRevoked,
        }
    }
}

impl From<TokenFault> for Fault {
    fn from(fault: TokenFault) -> Fault {
        match fault {
            TokenFault::Bad(reason) => Fault::new(ErrorName::BadToken, reason),
            other => Fault::from(other.name()),
        }
    }
}

/// Why rules cannot be used; each says which setting to change. Never carries key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFault {
    #[error("no key to check tokens with: set auth.hmac_secret, auth.public_key_file or auth.jwks")]
    NoKeys,
    #[error("auth.algorithms is empty: name at least one of HS256, RS256, ES256, EdDSA")]
    NoAlgorithms,
    #[error("auth.algorithms: {0:?} is not known; use HS256, RS256, ES256 or EdDSA")]
    UnknownAlgorithm(String),
    #[error("auth.hmac_secret must not be empty")]
    EmptySecret,
    #[error("more than {max} keys are configured: each is tried on every token, so remove those that are no longer in use")]
    TooManyKeys { max: usize },
    #[error("public key {index} (counted from 1) cannot be used: {reason}")]
    BadKey { index: usize, reason: &'static str },
    #[error("a configured key is for {algorithm}, which auth.algorithms does not allow: add it there or remove the key")]
    KeyNotAllowed { algorithm: &'static str },
    #[error("auth.leeway is {given_ms} ms: at most {LEEWAY_MS_MAX} ms are allowed")]
    Leeway { given_ms: u64 },
}
