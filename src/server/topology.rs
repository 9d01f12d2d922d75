//! Owns how a process's threads are wired to each other: rings between shards, inboxes, the store's clients, then the shards.
//!
//! Never waits for a client. Lives on the main thread.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::auth::Verifier;
use crate::engine::Settings;
use crate::mesh::directory::Directory;
use crate::mesh::{self, Inbox, InboxSender, Waker};
use crate::metrics::Registry;
use crate::shard::{self, Admission, Caps, Clock, DriverSettings, Frontpage, Order, Parts, Shards};
use crate::store::{self, Observer, Retention, StoreClient, StoreParts, StoreSettings, StoreThreads, Wake};
use crate::types::ShardId;
use crate::types::envelope::Envelope;
use crate::wire::json::JsonEncoder;
use crate::wire::upgrade::UpgradeRules;

use super::ServeError;

/// What a node is to be.
pub(super) struct Plan {
    /// One per shard.
    pub listeners: Vec<OwnedFd>,
    /// Bind shard N to the Nth core this process may use.
    pub pin: bool,
    pub mesh_capacity: usize,
    /// `placement_seed` is set here.
    pub engine: Settings,
    pub driver: DriverSettings,
    pub rules: UpgradeRules,
    pub verifier: Arc<Verifier>,
    pub caps: Caps,
    pub registry: Arc<Registry>,
    pub store: Option<StorePlan>,
}

/// What keeps messages.
pub(super) struct StorePlan {
    pub backend: Box<dyn store::Backend>,
    pub settings: StoreSettings,
    pub observer: Observer,
    /// Wakes whoever else than the shards asks the store.
    pub other: Wake,
}

/// A running node.
#[derive(Debug)]
pub(super) struct Node {
    pub shards: Shards,
    pub store: Option<StoreThreads>,
    /// How long the store keeps messages.
    pub retention: Option<Retention>,
    /// A client of the store that is no shard's.
    pub other_client: Option<StoreClient>,
    pub orders: Arc<[InboxSender<Order>]>,
    pub admission: Arc<Admission>,
    pub frontpage: Arc<Frontpage>,
    pub directory: Arc<Directory>,
}

impl Node {
    /// Starts everything in the order in which it is needed: rings, store, shards. Clients are told to come later until
    /// [`Node::open`].
    pub fn start(plan: Plan) -> Result<Node, ServeError> {
        let shards = u16::try_from(plan.listeners.len()).expect("the configuration bounds the number of shards");
        let system = |what| move |source| ServeError::System { what, source };
        let ports = mesh::build::<Envelope>(shards, plan.mesh_capacity);
        let wakers = ports.iter().map(|port| Waker::new(port.doorbell().clone())).collect::<Result<Vec<_>, _>>();
        let wakers = wakers.map_err(system("cannot make an eventfd"))?;
        let inboxes: Vec<Inbox<Order>> = wakers.iter().map(|waker| Inbox::new(ORDERS_MAX, waker.clone())).collect();
        let orders = inboxes.iter().map(Inbox::sender).collect();
        let (clients, store, retention) = match plan.store {
            Some(store) => {
                let running = start_store(store, &wakers).map_err(system("cannot start the store's threads"))?;
                (running.clients.into_iter().map(Some).collect(), Some(running.threads), Some(running.retention))
            }
            None => (wakers.iter().map(|_| None).collect::<Vec<_>>(), None, None),
        };
        let mut clients = clients.into_iter();
        let shard_clients: Vec<Option<StoreClient>> = clients.by_ref().take(usize::from(shards)).collect();
        let other_client = clients.next().flatten();
        let admission = Arc::new(Admission::new(plan.caps));
        let frontpage = Arc::new(Frontpage::new(shards, plan.registry));
        let directory = Arc::new(Directory::new(usize::from(shards)));
        let engine = Arc::new(Settings { placement_seed: random(), ..plan.engine });
        let rules = Arc::new(plan.rules);
        let (clock, cores) = (Clock::start(), shard::cores());
        let mut parts = Vec::with_capacity(usize::from(shards));
        let ends = ports.into_iter().zip(wakers).zip(inboxes).zip(plan.listeners).zip(shard_clients);
        for (at, ((((port, waker), inbox), listener), store)) in ends.enumerate() {
            parts.push(Parts {
                id: ShardId(at as u16),
                shards,
                core: cores.get(at).copied().filter(|_| plan.pin && cores.len() >= usize::from(shards)),
                engine: engine.clone(),
                encoder: Box::new(JsonEncoder::new()),
                seed: random(),
                port,
                waker,
                inbox,
                store,
                listeners: vec![listener],
                verifier: plan.verifier.clone(),
                rules: rules.clone(),
                frontpage: frontpage.clone(),
                directory: directory.clone(),
                admission: admission.clone(),
                clock,
                driver: plan.driver.clone(),
            });
        }
        let shards = shard::start(parts)?;
        Ok(Node { shards, store, retention, other_client, orders, admission, frontpage, directory })
    }

    /// Lets clients in.
    pub fn open(&self) {
        self.frontpage.ready.store(true, Ordering::Release);
    }

    /// Refuses new clients and has those that are here told to go within `window_ms`.
    pub fn drain(&self, window_ms: u64) {
        self.frontpage.ready.store(false, Ordering::Release);
        self.tell(|| Order::Drain { window_ms });
    }

    /// Ends all shards, whatever they are doing, and returns the store's threads, which end when everything asked is done.
    pub fn stop(self) -> Result<Option<StoreThreads>, ServeError> {
        self.tell(|| Order::Stop);
        self.shards.join()?;
        Ok(self.store)
    }

    fn tell(&self, order: impl Fn() -> Order) {
        for sender in self.orders.iter() {
            let mut order = order();
            // Full only for a moment: shards empty their inboxes every turn. A shard that has ended needs to be told nothing.
            for _ in 0..TELL_ATTEMPTS_MAX {
                match sender.try_send(order) {
                    Ok(()) => break,
                    Err(back) => order = back,
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
}

fn start_store(plan: StorePlan, wakers: &[Waker]) -> std::io::Result<store::Store> {
    let shards = wakers.iter().cloned().map(|waker| -> Wake {
        Arc::new(move || {
            waker.wake();
        })
    });
    let wakes = shards.chain([plan.other]);
    store::spawn(StoreParts {
        backend: plan.backend,
        wakes: wakes.collect(),
        settings: plan.settings,
        observer: Some(plan.observer),
    })
}

/// A number that nobody can guess, from the operating system by way of the standard library's hash keys.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

const ORDERS_MAX: usize = 1_024;
const TELL_ATTEMPTS_MAX: u32 = 100;
