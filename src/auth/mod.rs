//! Owns the way from a token to an identity. Never performs I/O: keys are given, time is a parameter. Lives on shard threads
//! (shared, immutable) and in the CLI that makes tokens.

use crate::types::{DeviceId, Millis, UserId};

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
