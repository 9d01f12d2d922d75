//! Owns a shard's thread: a pinned glommio executor whose one task is the turn.
//!
//! The turn is five verbs: *collect* what kernel, mesh and other threads have brought, *step* the engine with it, *apply* the
//! effects, *flush* what waits to leave, *rest* until there is more. Collecting and flushing are one system call.
//!
//! Never decides anything a client can see; the engine does. glommio is used in this folder only, `unsafe` in no more of its
//! files than `ring` and `descriptors`. Everything here but [`mod@start`] and [`listen`] lives on the shard's own thread.

mod admission;
mod calls;
mod clock;
mod connection;
mod core;
mod deadlines;
mod descriptors;
mod handshake;
mod listener;
pub mod ring;
mod start;
mod turn;
mod upkeep;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::auth::Verifier;
use crate::engine::Settings;
use crate::mesh::directory::Directory;
use crate::mesh::{Inbox, Port, Waker};
use crate::store::StoreClient;
use crate::types::call::AnswerTo;
use crate::types::envelope::{Body, Envelope};
use crate::types::{Call, Encode, ShardId};
use crate::wire::frame::FrameLimits;
use crate::wire::upgrade::UpgradeRules;

pub use admission::{Admission, Caps, Refusal};
pub use clock::Clock;
pub use handshake::Frontpage;
pub use listener::{ListenFault, listen};
pub use ring::RingSettings;
pub use start::{ShardFault, Shards, cores, start};

/// Everything one shard is made of.
pub struct Parts {
    pub id: ShardId,
    pub shards: u16,
    /// The core to stay on; None leaves it to the scheduler.
    pub core: Option<usize>,
    pub engine: Arc<Settings>,
    pub encoder: Box<dyn Encode + Send>,
    /// For the engine's own random numbers.
    pub seed: u64,
    pub port: Port<Envelope>,
    /// Wakes this shard from other threads; made from the port's doorbell.
    pub waker: Waker,
    /// What other threads ask.
    pub inbox: Inbox<Order>,
    /// None where nothing is kept (echo).
    pub store: Option<StoreClient>,
    pub listeners: Vec<OwnedFd>,
    pub verifier: Arc<Verifier>,
    pub rules: Arc<UpgradeRules>,
    pub frontpage: Arc<Frontpage>,
    pub directory: Arc<Directory>,
    pub admission: Arc<Admission>,
    pub clock: Clock,
    pub driver: DriverSettings,
}

/// Resolved settings of a shard's driver.
#[derive(Clone, Debug)]
pub struct DriverSettings {
    pub ring: RingSettings,
    pub frames: FrameLimits,
    /// Largest message before authentication, in bytes.
    pub unproven_bytes_max: usize,
    /// From accept to 101.
    pub handshake_timeout_ms: u64,
    pub handshakes_per_turn_max: u32,
    /// From the first to the last byte of a message.
    pub assembly_timeout_ms: u64,
    /// How long an idle shard looks for work before it sleeps.
    pub spin_us: u64,
    /// Each shard has its own table of open files, so that the limit counts per shard.
    pub private_descriptors: bool,
    /// Every message comes back as it is; no authentication.
    pub echo: bool,
}

/// What another thread asks of a shard.
pub enum Order {
    /// An operator's wish, for whichever shard can fulfil it.
    Operator(Box<Body>),
    /// An operator's question, for whichever shard can answer it.
    Call { call: Box<Call>, answer: AnswerTo },
    /// Accept nothing more, tell clients to go, close them over `window_ms`.
    Drain { window_ms: u64 },
    /// End now.
    Stop,
}

impl Order {
    fn is_revocation(&self) -> bool {
        matches!(self, Order::Operator(body) if matches!(**body, Body::Revoke(_)))
    }
}

impl std::fmt::Debug for Order {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Order::Operator(body) => write!(out, "Operator({body:?})"),
            Order::Call { call, .. } => write!(out, "Call({call:?})"),
            Order::Drain { window_ms } => write!(out, "Drain({window_ms})"),
            Order::Stop => out.write_str("Stop"),
        }
    }
}
