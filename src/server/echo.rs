//! Owns the echo server: the production WebSocket layer without authentication, for conformance suites and measurements.
//!
//! Never keeps anything. Runs its shards on their own threads and waits on the caller's.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::engine::Settings;
use crate::mesh::{self, Inbox, InboxSender, Waker};
use crate::shard::{self, Admission, Caps, Clock, DriverSettings, Order, Parts, RingSettings, Shards};
use crate::types::ShardId;
use crate::types::envelope::Envelope;
use crate::wire::frame::FrameLimits;
use crate::wire::json::JsonEncoder;

use super::signals::wishes;
use super::{ExitKind, ServeError};

/// A running echo server.
#[derive(Debug)]
pub struct EchoServer {
    /// Where it listens.
    pub address: SocketAddr,
    shards: Shards,
    orders: Vec<InboxSender<Order>>,
}

impl EchoServer {
    /// Listens on `listen` (port 0 = any) with `shards` shards.
    pub fn start(listen: SocketAddr, shards: u16) -> Result<EchoServer, ServeError> {
        let (address, listeners) = shard::listen(listen, shards, BACKLOG)?;
        let clock = Clock::start();
        let admission = Arc::new(Admission::new(Caps::default()));
        let settings = Arc::new(settings());
        let cores = shard::cores();
        let mut orders = Vec::new();
        let mut parts = Vec::new();
        for (at, (port, listener)) in mesh::build::<Envelope>(shards, MESH_RING).into_iter().zip(listeners).enumerate() {
            let waker = Waker::new(port.doorbell().clone())
                .map_err(|source| ServeError::System { what: "cannot make an eventfd", source })?;
            let inbox = Inbox::new(ORDERS, waker.clone());
            orders.push(inbox.sender());
            parts.push(Parts {
                id: ShardId(at as u16),
                shards,
                core: (cores.len() >= usize::from(shards)).then(|| cores[at]),
                engine: settings.clone(),
                encoder: Box::new(JsonEncoder::new()),
                seed: at as u64,
                port,
                waker,
                inbox,
                listeners: vec![listener],
                admission: admission.clone(),
                clock,
                driver: DriverSettings {
                    ring: RingSettings::default(),
                    frames: FrameLimits { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: u32::MAX },
                    handshake_timeout_ms: HANDSHAKE_MS,
                    echo: true,
                },
            });
        }
        Ok(EchoServer { address, shards: shard::start(parts)?, orders })
    }

    /// Stops at once.
    pub fn stop(self) -> Result<(), ServeError> {
        for order in &self.orders {
            // An inbox is full only when its shard is stuck, and gone when it has ended.
            let _ = order.try_send(Order::Stop);
        }
        Ok(self.shards.join()?)
    }
}

/// Answers every message on `listen` with itself until a signal comes or a shard fails.
pub fn echo(listen: SocketAddr) -> Result<ExitKind, ServeError> {
    let wishes = wishes().map_err(|source| ServeError::System { what: "cannot wait for signals", source })?;
    let shards = shard::cores().len().clamp(1, ECHO_SHARDS_MAX) as u16;
    let server = EchoServer::start(listen, shards)?;
    tracing::info!(address = %server.address, shards, "ready");
    crossbeam_channel::select! {
        recv(wishes) -> _ => {}
        recv(server.shards.ended()) -> _ => {}
    }
    server.stop()?;
    Ok(ExitKind::Done)
}

/// Whoever talks to an echo server is to be judged by protocol only: no rates, no heartbeats within a test's time.
fn settings() -> Settings {
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

const MESSAGE_BYTES_MAX: usize = 64 << 20;
const HANDSHAKE_MS: u64 = 10_000;
const BACKLOG: i32 = 4_096;
const MESH_RING: usize = 1_024;
/// A suite tests one connection at a time.
const ECHO_SHARDS_MAX: usize = 2;
const ORDERS: usize = 64;
