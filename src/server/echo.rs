//! Owns the echo server: the production WebSocket layer without authentication, for conformance suites and measurements.
//!
//! Never keeps anything. Its shards run on their own threads; the caller's waits.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::auth::{AuthRules, Verifier};
use crate::engine::Settings;
use crate::metrics::Registry;
use crate::shard::{self, Caps, DriverSettings, RingSettings};
use crate::wire::frame::FrameLimits;
use crate::wire::upgrade::{OriginRule, UpgradeRules};

use super::signals::wishes;
use super::topology::{Node, Plan, random};
use super::{ExitKind, ServeError};

/// A running echo server.
#[derive(Debug)]
pub struct EchoServer {
    /// Where it listens.
    pub address: SocketAddr,
    node: Node,
}

impl EchoServer {
    /// Listens on `listen` (port 0 = any) with `shards` shards.
    pub fn start(listen: SocketAddr, shards: u16) -> Result<EchoServer, ServeError> {
        let (address, listeners) = shard::listen(listen, shards, BACKLOG)?;
        // Nobody is asked for a token, and no token is good.
        let rules =
            AuthRules { hmac_secrets: vec![(0..4).flat_map(|_| random().to_ne_bytes()).collect()], ..AuthRules::default() };
        let node = Node::start(Plan {
            listeners,
            pin: true,
            mesh_capacity: 1_024,
            engine: engine(),
            driver: driver(),
            rules: UpgradeRules { path: None, origins: OriginRule::Any, query_token: false },
            verifier: Arc::new(Verifier::new(rules).expect("a secret of 32 bytes is a good key")),
            caps: Caps::default(),
            registry: Arc::new(Registry::new(usize::from(shards))),
            store: None,
        })?;
        node.open();
        Ok(EchoServer { address, node })
    }

    /// Stops at once.
    pub fn stop(self) -> Result<(), ServeError> {
        self.node.stop().map(drop)
    }
}

/// Answers every message on `listen` with itself until a signal comes or a shard fails.
pub fn echo(listen: SocketAddr) -> Result<ExitKind, ServeError> {
    let wishes = wishes().map_err(|source| ServeError::System { what: "cannot wait for signals", source })?;
    let shards = shard::cores().len().clamp(1, SHARDS_MAX) as u16;
    let server = EchoServer::start(listen, shards)?;
    tracing::info!(address = %server.address, shards, "ready");
    crossbeam_channel::select! {
        recv(wishes) -> _ => {}
        recv(server.node.shards.ended()) -> _ => {}
    }
    server.stop()?;
    Ok(ExitKind::Done)
}

/// Whoever talks to an echo server is judged by protocol only: no rates.
fn engine() -> Settings {
    Settings {
        messages_per_second: 0,
        user_messages_per_second: 0,
        errors_per_minute: 0,
        message_bytes_max: MESSAGE_BYTES_MAX,
        content_bytes_max: MESSAGE_BYTES_MAX,
        outbox_bytes_max: 4 * MESSAGE_BYTES_MAX,
        ..Settings::default()
    }
}

fn driver() -> DriverSettings {
    DriverSettings {
        ring: RingSettings::default(),
        frames: FrameLimits { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: u32::MAX },
        unproven_bytes_max: MESSAGE_BYTES_MAX,
        handshake_timeout_ms: 10_000,
        handshakes_per_turn_max: 1_024,
        assembly_timeout_ms: 60_000,
        spin_us: 0,
        private_descriptors: false,
        echo: true,
    }
}

const MESSAGE_BYTES_MAX: usize = 64 << 20;
const BACKLOG: i32 = 4_096;
/// A suite tests one connection at a time.
const SHARDS_MAX: usize = 2;
