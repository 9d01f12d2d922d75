//! Owns the translation of configuration and limits into what each part is given. Pure.

use std::sync::Arc;

use crate::auth::{self, AuthRules, Verifier};
use crate::config::{Algorithm, Config, Durability, Limits, SessionPolicy, StoreKind};
use crate::engine::{self, Settings};
use crate::shard::{Caps, DriverSettings, RingSettings};
use crate::store::{self, EmbeddedSettings, SearchSettings, StoreSettings};
use crate::types::revocation::Revocation;
use crate::wire::frame::FrameLimits;
use crate::wire::upgrade::{OriginRule, UpgradeRules};

use super::ServeError;

/// The engine's settings; the placement seed is the node's.
pub(super) fn engine(limits: &Limits, revocations: Arc<[Revocation]>) -> Settings {
    let from = limits.engine.clone();
    Settings {
        node: from.node,
        placement_seed: 0,
        auth_timeout_ms: from.auth_timeout_ms,
        expiry_grace_ms: from.expiry_grace_ms,
        heartbeat_interval_ms: from.heartbeat_interval_ms,
        heartbeat_timeout_ms: from.heartbeat_timeout_ms,
        write_timeout_ms: from.write_timeout_ms,
        sessions_per_user: from.sessions_per_user,
        session_policy: match from.session_policy {
            SessionPolicy::EvictOldest => engine::settings::SessionPolicy::EvictOldest,
            SessionPolicy::Reject => engine::settings::SessionPolicy::Reject,
            SessionPolicy::ReplaceDevice => engine::settings::SessionPolicy::ReplaceDevice,
        },
        message_bytes_max: from.message_bytes_max,
        content_bytes_max: from.content_bytes_max,
        outbox_bytes_max: from.outbox_bytes_max,
        messages_per_second: from.messages_per_second,
        user_messages_per_second: from.user_messages_per_second,
        errors_per_minute: from.errors_per_minute,
        dedupe_window_ms: from.dedupe_window_ms,
        recall_window_ms: from.recall_window_ms,
        new_device_window_ms: from.new_device_window_ms,
        ack_timeout_ms: from.ack_timeout_ms,
        delivery_attempts: from.delivery_attempts,
        group_members_max: from.group_members_max,
        groups_per_user_max: from.groups_per_user_max,
        group_history_all: from.group_history_all,
        receipts_max: from.receipts_max,
        presence_contacts_only: from.presence_contacts_only,
        presence_watches_max: from.presence_watches_max,
        conversations_cached_max: from.conversations_cached_max,
        loading_requests_max: from.loading_requests_max,
        store_requests_max: from.store_requests_max,
        revocations,
    }
}

pub(super) fn driver(limits: &Limits) -> DriverSettings {
    DriverSettings {
        ring: RingSettings {
            submissions: limits.ring_entries,
            completions: limits.ring_completions.max(COMPLETIONS_MIN),
            buffers: limits.receive_buffers,
            buffer_bytes: u32::try_from(limits.receive_buffer_bytes).expect("the configuration bounds it by 1 MiB"),
        },
        frames: FrameLimits { message_bytes_max: limits.message_bytes_max, fragments_max: limits.fragments_max },
        unproven_bytes_max: limits.unauthenticated_bytes_max,
        handshake_timeout_ms: limits.handshake_timeout_ms,
        handshakes_per_turn_max: limits.handshakes_per_turn_max as u32,
        assembly_timeout_ms: limits.assembly_timeout_ms,
        spin_us: limits.spin_us,
        private_descriptors: false,
        echo: false,
    }
}

pub(super) fn caps(limits: &Limits) -> Caps {
    Caps {
        connections: limits.connections_max,
        connections_per_ip: limits.connections_per_ip_max as usize,
        unproven: limits.unauthenticated_connections_max,
        connects_per_second: limits.connects_per_second_max,
    }
}

pub(super) fn rules(config: &Config) -> UpgradeRules {
    let origins = OriginRule::Listed { exact: config.listen.origins.clone(), localhost: config.dev };
    UpgradeRules { path: Some(CLIENT_PATH.to_owned()), origins, query_token: config.auth.query_token }
}

/// The one who checks tokens.
///
/// # Errors
/// When a key cannot be read or used; the message says which option to change.
pub(super) fn verifier(config: &Config) -> Result<Verifier, ServeError> {
    let auth = &config.auth;
    let algorithms = auth.algorithms.iter().map(|algorithm| match algorithm {
        Algorithm::Hs256 => auth::Algorithm::Hs256,
        Algorithm::Rs256 => auth::Algorithm::Rs256,
        Algorithm::Es256 => auth::Algorithm::Es256,
        Algorithm::EdDsa => auth::Algorithm::EdDsa,
    });
    let public_keys_pem = match &auth.public_key_file {
        Some(path) => vec![std::fs::read_to_string(path).map_err(|source| ServeError::PublicKey { path: path.clone(), source })?],
        None => Vec::new(),
    };
    Ok(Verifier::new(AuthRules {
        algorithms: algorithms.collect(),
        hmac_secrets: auth.hmac_secret.iter().map(|secret| secret.expose().to_vec()).collect(),
        public_keys_pem,
        key_set: auth.jwks.is_some(),
        audience: (!auth.audience.is_empty()).then(|| auth.audience.clone()),
        issuer: auth.issuer.clone(),
        require_exp: auth.require_exp,
        leeway_ms: 0,
    })?)
}

pub(super) fn store(limits: &Limits) -> StoreSettings {
    StoreSettings {
        client_requests_max: limits.engine.store_requests_max,
        batch_requests: limits.store.batch_messages_max,
        reader_threads: limits.store.readers,
        retention_ms: limits.store.retention_ms,
        dedupe_window_ms: Some(limits.store.dedupe_window_ms),
        ..StoreSettings::default()
    }
}

pub(super) fn embedded(config: &Config) -> EmbeddedSettings {
    let durability = match config.store.durability {
        Durability::Commit => store::Durability::Commit,
        Durability::Memory => store::Durability::Memory,
    };
    let memory_bytes = usize::try_from(config.store.search_memory_bytes.0).expect("the table bounds it by 1 GiB");
    let search = config.store.search.then(|| SearchSettings { memory_bytes, ..SearchSettings::default() });
    EmbeddedSettings {
        path: config.store.path.clone(),
        durability,
        encryption_key_file: config.store.encryption_key_file.clone(),
        cache_bytes: config.store.cache_bytes.0,
        write_buffer_bytes: config.store.write_buffer_bytes.0,
        search,
    }
}

/// What an acknowledgement promises, as operators are told.
pub(super) fn durability(config: &Config) -> &'static str {
    match (config.store.kind, config.store.durability) {
        (StoreKind::Memory, _) | (_, Durability::Memory) => "memory",
        (StoreKind::Embedded, Durability::Commit) => "commit",
    }
}

const CLIENT_PATH: &str = "/ws";
/// The kernel's table of armed requests grows with the completion queue; cancelling looks through one of its rows.
const COMPLETIONS_MIN: u32 = 16_384;
