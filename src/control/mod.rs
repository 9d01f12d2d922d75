//! Owns the control plane: the administrators' HTTP port with its routes, on a thread of its own. Never touches a client's
//! connection: it reads published copies and the directory, and asks shards through a bounded queue. It may be slow or die
//! without a client noticing.
//!
//! Lives on the thread `corehub-control`, in a tokio runtime that exists nowhere else.

mod access;
mod announcements;
mod answer;
mod archive;
mod backups;
mod body;
mod calls;
mod client;
mod groups;
mod keys;
mod listen;
mod lookups;
mod messages;
mod openapi;
mod operation;
mod process;
mod routes;
mod sessions;
mod tokens;

#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};

use crate::mesh::directory::Directory;
use crate::metrics::Registry;
use crate::store::{Backups, StoreClient};
use crate::types::call::AnswerTo;
use crate::types::revocation::Revocation;
use crate::types::{Call, CloseCode, DeviceId, Millis, SessionAddress, UserId};

pub use client::{AdminFault, ask};

use access::Access;
use announcements::Crier;
use archive::Archive;
use tokens::Noted;

/// What must exist before any shard takes a table of open files of its own: answers wake this runtime from the shards' threads,
/// through a descriptor that they know under the same number only if it was open before.
#[derive(Debug)]
pub struct ControlRuntime {
    runtime: Runtime,
    bell: Arc<Notify>,
}

impl ControlRuntime {
    /// # Errors
    /// When the system refuses its descriptors.
    pub fn prepare() -> Result<ControlRuntime, ControlFault> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(ControlRuntime { runtime, bell: Arc::new(Notify::new()) })
    }

    /// To be called when the store has answered; from any thread.
    pub fn wake(&self) -> Arc<dyn Fn() + Send + Sync> {
        let bell = self.bell.clone();
        Arc::new(move || bell.notify_one())
    }
}

pub use keys::{KeyFault, KeyPlace, KeyWatch};

/// What the control plane is made of.
pub struct ControlParts {
    pub runtime: ControlRuntime,
    /// Bound already, so that a port in use is known before anything starts.
    pub listener: TcpListener,
    pub registry: Arc<Registry>,
    pub directory: Arc<Directory>,
    /// `admin.api_key`. None: `/v1` is refused, unless `dev`.
    pub admin_api_key: Option<String>,
    /// `--dev`: without a key, `/v1` is open to this machine; browsers may come from any localhost origin.
    pub dev: bool,
    /// `admin.cors_origins`, compared exactly.
    pub cors_origins: Vec<String>,
    pub readiness: Arc<Readiness>,
    pub node_id: String,
    /// `store.durability`, as `/stats` tells it.
    pub durability: String,
    /// Hands a wish to the shards. Answers false when their queue is full: nothing was done, and the operator is told so.
    pub kick: Box<dyn Fn(KickTarget) -> bool + Send + Sync>,
    /// Asks the shards something. Answers false when their queues are full: nothing was or will be done.
    pub call: Box<dyn Fn(Call, AnswerTo) -> bool + Send + Sync>,
    /// Tells one shard of a revocation. Answers false when its queue is full.
    pub revoke: Box<dyn Fn(usize, Arc<Revocation>) -> bool + Send + Sync>,
    pub shards: usize,
    /// `messages.announcements_per_second`.
    pub announcements_per_second: u32,
    /// `messages.dedupe_window`.
    pub dedupe_window_ms: u64,
    /// `auth.token_life`.
    pub token_life_ms: u64,
    /// A way to the store of its own; None: nothing is kept. Woken by [`ControlRuntime::wake`].
    pub store: Option<StoreClient>,
    /// Copies the store while it is used; None: it is not on disk.
    pub backups: Option<Backups>,
    /// `limits.content_bytes`.
    pub content_bytes_max: usize,
}

/// Whom to close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KickTarget {
    /// All sessions of a user, or of one device of theirs. Goes to the user's owner.
    User { user: UserId, device: Option<DeviceId>, close: CloseCode },
    /// One session. Goes to its home.
    Session { address: SessionAddress, close: CloseCode },
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    /// The only phase in which `/ready` answers 200.
    Ready,
    Draining,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        }
    }
}

/// The phase, as the server tells it and `/ready` shows it.
#[derive(Debug)]
pub struct Readiness(AtomicU8);

impl Readiness {
    pub fn new(phase: Phase) -> Readiness {
        Readiness(AtomicU8::new(phase as u8))
    }

    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlFault {
    #[error("admin.api_key must not be empty: give it at least 32 bytes, or leave it out")]
    EmptyKey,
    #[error("the admin port cannot be served: {0}")]
    Io(#[from] std::io::Error),
}

/// A running control plane. Dropping it stops it without waiting; [`ControlHandle::stop`] waits.
#[derive(Debug)]
pub struct ControlHandle {
    address: SocketAddr,
    stop: watch::Sender<Option<Duration>>,
    thread: JoinHandle<()>,
}

impl ControlHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connection, lets requests that are being answered finish for at most `deadline`, then ends the thread.
    pub fn stop(self, deadline: Duration) {
        // No receiver is left only when the thread has ended already.
        let _ = self.stop.send(Some(deadline));
        if self.thread.join().is_err() {
            tracing::error!("the control thread had panicked");
        }
    }
}

/// Starts the control plane on its own thread.
pub fn spawn(parts: ControlParts) -> Result<ControlHandle, ControlFault> {
    let address = parts.listener.local_addr()?;
    parts.listener.set_nonblocking(true)?;
    let access = Access::new(parts.admin_api_key, parts.dev, parts.cors_origins)?;
    let ControlRuntime { runtime, bell } = parts.runtime;
    let (archive, clerk) = Archive::new(parts.store, bell);
    let state = Arc::new(State {
        registry: parts.registry,
        directory: parts.directory,
        access,
        readiness: parts.readiness,
        node_id: parts.node_id,
        durability: parts.durability,
        kick: parts.kick,
        call: parts.call,
        archive,
        backups: parts.backups,
        crier: Crier::default(),
        revocations: Default::default(),
        revoke: parts.revoke,
        shards: parts.shards,
        announcements_per_second: parts.announcements_per_second,
        dedupe_window_ms: parts.dedupe_window_ms,
        token_life_ms: parts.token_life_ms,
        content_bytes_max: parts.content_bytes_max,
        started: Instant::now(),
    });
    let (stop, stopped) = watch::channel(None);
    let listener = parts.listener;
    let thread = std::thread::Builder::new().name("corehub-control".to_owned()).spawn(move || {
        if let Some(clerk) = clerk {
            runtime.spawn(clerk.work());
            runtime.spawn(announcements::work(state.clone()));
        }
        if let Err(fault) = runtime.block_on(listen::serve(listener, routes::router(state), stopped)) {
            tracing::error!(%fault, "the admin port is no longer served");
        }
    })?;
    Ok(ControlHandle { address, stop, thread })
}

/// What handlers share.
struct State {
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    access: Access,
    readiness: Arc<Readiness>,
    node_id: String,
    durability: String,
    kick: Box<dyn Fn(KickTarget) -> bool + Send + Sync>,
    call: Box<dyn Fn(Call, AnswerTo) -> bool + Send + Sync>,
    archive: Archive,
    backups: Option<Backups>,
    crier: Crier,
    revocations: Noted,
    revoke: Box<dyn Fn(usize, Arc<Revocation>) -> bool + Send + Sync>,
    shards: usize,
    announcements_per_second: u32,
    dedupe_window_ms: u64,
    token_life_ms: u64,
    content_bytes_max: usize,
    started: Instant,
}

/// The time of day.
fn clock() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
