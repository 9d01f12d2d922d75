//! Owns a server's life: building it from the configuration, its phases, and its end.
//!
//! Never touches a message. Lives on the main thread, which waits here for signals and for threads that end.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, select};

use crate::config::{Config, ConfigErrors, Limits, Status, StoreKind};
use crate::control::{self, ControlHandle, ControlParts, ControlRuntime, KeyPlace, KeyWatch, KickTarget, Phase, Readiness};
use crate::mesh::InboxSender;
use crate::metrics::{Registry, StoreMetrics};
use crate::shard::{self, DriverSettings, Order};
use crate::store::{Backend, Backups, CommitSample, EmbeddedBackend, MemoryBackend, SearchLag, Wake};
use crate::types::Call;
use crate::types::call::AnswerTo;
use crate::types::envelope::Body;
use crate::types::revocation::Revocation;
use crate::types::storage::{Answer, Read};

use super::signals::{Wish, wishes};
use super::topology::{Node, Plan, StorePlan, random};
use super::{ExitKind, Ready, ServeError, ServeOptions};
use super::{descriptors, resolve};

/// Runs a server until it is told to stop, or until a part of it fails.
pub fn serve(config: Config, options: ServeOptions) -> Result<ExitKind, ServeError> {
    let system = |what| move |source| ServeError::System { what, source };
    let wishes = wishes().map_err(system("cannot wait for signals"))?;
    let limits = Limits::derive(&config, shard::cores().len());
    let private_descriptors = descriptors::raise(&limits);
    let (client, listeners) = shard::listen(config.listen.client, limits.shards, limits.listen_backlog as i32)?;
    let admin = bind_admin(&config)?;
    let verifier = Arc::new(resolve::verifier(&config)?);
    let place = config.auth.jwks.as_deref().map(KeyPlace::new);
    let _keys = place.map(|place| KeyWatch::start(place, verifier.clone())).transpose()?;
    let registry = Arc::new(Registry::new(usize::from(limits.shards)));
    let counts = Arc::new(Mutex::new(StoreCounts::default()));
    let runtime = ControlRuntime::prepare()?;
    let (mut store, backups) = store(&config, &limits, &counts, runtime.wake())?;
    let revocations = revocations(&mut *store.backend)?;
    let mut node = Node::start(Plan {
        listeners,
        pin: limits.pin,
        mesh_capacity: limits.mesh_capacity,
        engine: resolve::engine(&limits, revocations),
        driver: DriverSettings { private_descriptors, ..resolve::driver(&limits) },
        rules: resolve::rules(&config),
        verifier,
        caps: resolve::caps(&limits),
        registry: registry.clone(),
        store: Some(store),
    })?;
    let readiness = Arc::new(Readiness::new(Phase::Starting));
    let ways = Ways { runtime, listener: admin, backups };
    let control = start_control(&config, &limits, &mut node, ways, registry.clone(), readiness.clone())?;
    node.open();
    readiness.set(Phase::Ready);
    let ready = Ready { client, admin: control.address() };
    tracing::info!(client = %ready.client, admin = %ready.admin, shards = limits.shards, "ready");
    (options.on_ready)(ready);

    let failed = wait(&wishes, &node, || reload(&config, &options.reload, &node), || publish(&counts, &registry));
    readiness.set(Phase::Draining);
    let exit = if failed { ExitKind::Done } else { drain(&wishes, &node, limits.drain_deadline_ms) };
    end(node, control).map(|()| exit)
}

/// Returns when the server is to stop; true when that is because a part of it has ended by itself.
fn wait(wishes: &Receiver<Wish>, node: &Node, reload: impl Fn(), publish: impl Fn()) -> bool {
    loop {
        select! {
            recv(wishes) -> wish => match wish {
                Ok(Wish::Reload) => reload(),
                Ok(Wish::Stop) | Err(_) => return false,
            },
            // Its fault is found again, and told, when all shards are joined.
            recv(node.shards.ended()) -> ended => {
                if let Ok((shard, Err(fault))) = &ended {
                    tracing::error!(shard = shard.0, %fault, "a shard has ended");
                }
                return true;
            }
            default(PUBLISH_EVERY) => publish(),
        }
    }
}

/// What the store's writer has counted.
#[derive(Default)]
struct StoreCounts {
    metrics: StoreMetrics,
    /// Asks the search index how far it is behind.
    search: Option<Box<dyn Fn() -> SearchLag + Send>>,
    /// Changed since it was published.
    fresh: bool,
}

/// Leaves a copy of the store's counts where operators read it.
fn publish(counts: &Mutex<StoreCounts>, registry: &Registry) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(SearchLag { messages, rebuild_conversations }) = counts.search.as_ref().map(|lag| lag()) {
        let metrics = &mut counts.metrics;
        let before = (metrics.search_lag_messages, metrics.search_rebuild_conversations);
        (metrics.search_lag_messages, metrics.search_rebuild_conversations) = (messages, rebuild_conversations);
        counts.fresh |= before != (messages, rebuild_conversations);
    }
    if counts.fresh {
        counts.fresh = !registry.publish_store(&counts.metrics);
    }
}

/// Says which options are in force from now on and which need a restart.
fn reload(config: &Config, read: &dyn Fn() -> Result<Config, ConfigErrors>, node: &Node) {
    let new = match read() {
        Ok(new) => new,
        Err(errors) => return tracing::error!(%errors, "not reloaded: the configuration has errors"),
    };
    if let Some(retention) = &node.retention {
        retention.set(new.messages.retention.as_millis() as u64);
    }
    let changes = config.changes(&new);
    if changes.is_empty() {
        tracing::info!("reloaded: nothing has changed");
    }
    for spec in changes {
        match spec.status {
            Status::Reloadable => tracing::info!(option = spec.path, "reloaded"),
            _ => tracing::warn!(option = spec.path, "changed, but in force only after a restart"),
        }
    }
}

/// Sends everybody away, at a pace that depends on how many there are, and waits until they are gone or time is up.
fn drain(wishes: &Receiver<Wish>, node: &Node, deadline_ms: u64) -> ExitKind {
    let connections = node.admission.connections();
    let window_ms = (connections as u64 * DRAIN_MS_PER_CONNECTION).min(deadline_ms / 2);
    tracing::info!(connections, window_ms, deadline_ms, "draining");
    node.drain(window_ms);
    let until = Instant::now() + Duration::from_millis(deadline_ms);
    while node.admission.connections() > 0 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            tracing::warn!(connections = node.admission.connections(), "drain deadline passed: closing what is left");
            break;
        }
        match wishes.recv_timeout(left.min(DRAIN_LOOK)) {
            Ok(Wish::Stop) => {
                tracing::warn!("second signal: stopping at once");
                return ExitKind::Stopped;
            }
            Ok(Wish::Reload) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    ExitKind::Done
}

/// Ends shards and control, then the store, which finishes what it was asked; a store that hangs is not waited for without end.
fn end(node: Node, control: ControlHandle) -> Result<(), ServeError> {
    let stopped = node.stop();
    // It is a client of the store, which waits for all of them.
    control.stop(CONTROL_DEADLINE);
    let Some(store) = stopped? else { return Ok(()) };
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let wait = move || {
        // Nobody may be listening any more.
        let _ = sender.send(store.join());
    };
    let thread = std::thread::Builder::new().name("store-end".to_owned()).spawn(wait);
    thread.map_err(|source| ServeError::System { what: "cannot wait for the store", source })?;
    match receiver.recv_timeout(STORE_DEADLINE) {
        Ok(true) => Ok(()),
        Ok(false) | Err(RecvTimeoutError::Disconnected) => Err(ServeError::Store("a store thread panicked")),
        Err(RecvTimeoutError::Timeout) => Err(ServeError::Store("the store did not finish in time")),
    }
}

fn bind_admin(config: &Config) -> Result<TcpListener, ServeError> {
    let address = config.listen.admin;
    TcpListener::bind(address).map_err(|source| ServeError::Admin { address, source })
}

/// What the control plane lives on and only it has.
struct Ways {
    runtime: ControlRuntime,
    listener: TcpListener,
    backups: Option<Backups>,
}

fn start_control(
    config: &Config,
    limits: &Limits,
    node: &mut Node,
    ways: Ways,
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
) -> Result<ControlHandle, ServeError> {
    let Ways { runtime, listener, backups } = ways;
    let [orders, callers, guards] = [(); 3].map(|()| node.orders.clone());
    let next = AtomicUsize::new(0);
    Ok(control::spawn(ControlParts {
        runtime,
        listener,
        registry,
        directory: node.directory.clone(),
        admin_api_key: config.admin.api_key.as_ref().map(|key| String::from_utf8_lossy(key.expose()).into_owned()),
        dev: config.dev,
        cors_origins: config.admin.cors_origins.clone(),
        readiness,
        node_id: config.server.node_id.clone(),
        durability: resolve::durability(config).to_owned(),
        kick: Box::new(move |target| kick(&orders, target)),
        call: Box::new(move |question, answer| call(&callers, next.fetch_add(1, Ordering::Relaxed), question, answer)),
        revoke: Box::new(move |shard, revocation| revoke(&guards, shard, revocation)),
        shards: node.orders.len(),
        announcements_per_second: config.messages.announcements_per_second,
        dedupe_window_ms: limits.engine.dedupe_window_ms,
        token_life_ms: u64::try_from(config.auth.token_life.as_millis()).unwrap_or(u64::MAX),
        store: node.other_client.take(),
        backups,
        content_bytes_max: limits.engine.content_bytes_max,
    })?)
}

/// Hands a kick to a shard that can do it or pass it on.
fn kick(orders: &[InboxSender<Order>], target: KickTarget) -> bool {
    let (shard, body) = match target {
        KickTarget::User { user, device, close } => (0, Body::Kick { user, device, close }),
        KickTarget::Session { address, close } => (address.shard.index(), Body::KickSession { address, close }),
    };
    orders.get(shard).is_some_and(|sender| sender.try_send(Order::Operator(Box::new(body))).is_ok())
}

/// The revocations that are kept: every shard is to know them before it lets anybody in.
fn revocations(backend: &mut dyn Backend) -> Result<Arc<[Revocation]>, ServeError> {
    let kept = match backend.read(&Read::Notes { kind: Revocation::NOTE }) {
        Ok(Answer::Notes(notes)) => notes.iter().map(|(_, text)| Revocation::from_note(text)).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    let kept =
        kept.ok_or(ServeError::Store("the revocations of tokens cannot be read: restore the data folder from a backup"))?;
    Ok(kept.into())
}

/// Tells one shard of a revocation.
fn revoke(orders: &[InboxSender<Order>], shard: usize, revocation: Arc<Revocation>) -> bool {
    let order = Order::Operator(Box::new(Body::Revoke(revocation)));
    orders.get(shard).is_some_and(|sender| sender.try_send(order).is_ok())
}

/// Hands a call to the shard whose turn it is, or to the next one that has room.
fn call(orders: &[InboxSender<Order>], from: usize, call: Call, answer: AnswerTo) -> bool {
    let mut order = Order::Call { call: Box::new(call), answer };
    for step in 0..orders.len() {
        match orders[(from + step) % orders.len()].try_send(order) {
            Ok(()) => return true,
            Err(back) => order = back,
        }
    }
    false
}

fn store(
    config: &Config,
    limits: &Limits,
    counts: &Arc<Mutex<StoreCounts>>,
    other: Wake,
) -> Result<(StorePlan, Option<Backups>), ServeError> {
    let (backend, backups): (Box<dyn Backend>, _) = match config.store.kind {
        StoreKind::Memory => (Box::new(MemoryBackend::new(random())), None),
        StoreKind::Embedded => {
            let backend = EmbeddedBackend::open(resolve::embedded(config))?;
            if let Some(lag) = backend.search_lag() {
                counts.lock().unwrap_or_else(PoisonError::into_inner).search = Some(Box::new(lag));
            }
            let backups = backend.backups();
            (Box::new(backend), Some(backups))
        }
    };
    match resolve::durability(config) {
        "commit" => tracing::info!(path = %config.store.path.display(), "messages are acknowledged when they are on disk"),
        _ => {
            tracing::warn!("messages are acknowledged before they are on disk: a crash loses some (store.kind, store.durability)")
        }
    }
    let counted = counts.clone();
    let observer = move |sample: &CommitSample| {
        let mut counts = counted.lock().unwrap_or_else(PoisonError::into_inner);
        counts.metrics.commit_seconds.record_us(sample.elapsed.as_micros() as u64);
        counts.metrics.batch_messages.record_items(sample.served.writes as u64);
        counts.fresh = true;
    };
    Ok((StorePlan { backend, settings: resolve::store(limits), observer: Box::new(observer), other }, backups))
}

/// A connection more makes a drain this much longer: a thousand are closed per second.
const DRAIN_MS_PER_CONNECTION: u64 = 1;
const DRAIN_LOOK: Duration = Duration::from_millis(20);
const CONTROL_DEADLINE: Duration = Duration::from_secs(2);
const STORE_DEADLINE: Duration = Duration::from_secs(20);
const PUBLISH_EVERY: Duration = Duration::from_millis(500);
