//! Owns the answer to a connection's first bytes: the upgrade, one of the plain pages of the client port, or a refusal.
//!
//! Never sends and never keeps a connection. Lives on its shard's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::auth::{Identity, Verifier};
use crate::metrics::Registry;
use crate::types::command::Wishes;
use crate::types::outcome::Fault;
use crate::types::{Now, ShardId};
use crate::wire::upgrade::{self, Parsed, PlainPage, PlainRequest, UpgradeRequest, UpgradeRules};

use super::admission::Refusal;

/// What is to be done after looking at a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// More bytes are needed.
    Incomplete,
    /// Send this and close; `refused` when it is no page that was asked for.
    Answer {
        response: Vec<u8>,
        refused: bool,
    },
    Upgrade(Box<Upgrade>),
}

/// A good request for the upgrade.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The complete 101.
    pub response: Vec<u8>,
    /// Bytes of the request; what follows are frames.
    pub used: usize,
    pub identity: Option<Identity>,
    pub wishes: Wishes,
}

/// What the client port says about the server as a whole. Shared by all shards, set by whoever runs the server.
#[derive(Debug)]
pub struct Frontpage {
    /// New clients are welcome.
    pub ready: AtomicBool,
    pub registry: Arc<Registry>,
    online: Box<[OnlineUsers]>,
}

/// Users online that one shard owns, written by it alone.
#[derive(Debug, Default)]
#[repr(align(64))]
struct OnlineUsers(AtomicU64);

impl Frontpage {
    /// For as many shards; not ready yet.
    pub fn new(shards: u16, registry: Arc<Registry>) -> Frontpage {
        let online = (0..shards).map(|_| OnlineUsers::default()).collect();
        Frontpage { ready: AtomicBool::new(false), registry, online }
    }

    /// Users online now, as of every shard's last turn.
    pub fn online_users(&self) -> u64 {
        self.online.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }

    /// Says how many of the users that a shard owns are online.
    pub(super) fn tell_online(&self, shard: ShardId, users: u64) {
        let told = &self.online[shard.index()].0;
        // Reading the own cache line is free; writing it unasked would not be.
        if told.load(Ordering::Relaxed) != users {
            told.store(users, Ordering::Relaxed);
        }
    }
}

/// Judges requests.
#[derive(Debug)]
pub(super) struct Greeter {
    pub rules: Arc<UpgradeRules>,
    pub verifier: Arc<Verifier>,
    pub frontpage: Arc<Frontpage>,
}

impl Greeter {
    /// Looks at all bytes of a connection so far.
    pub fn judge(&self, bytes: &[u8], now: Now) -> Verdict {
        match upgrade::parse(bytes, &self.rules) {
            Ok(Parsed::NeedMore) => Verdict::Incomplete,
            Ok(Parsed::Plain(request)) => Verdict::Answer { response: self.page(&request), refused: false },
            Ok(Parsed::Upgrade(request)) => self.upgrade(request, now),
            Err(refusal) => Verdict::Answer { response: refusal.to_bytes(), refused: true },
        }
    }

    /// The response to a connection that may not stay.
    pub fn refusal(&self, refusal: Refusal) -> Vec<u8> {
        let (message, after_ms) = (refusal.message(), refusal.retry_after_ms());
        match refusal {
            Refusal::AddressFull => upgrade::Refusal::too_many(message, after_ms),
            Refusal::NodeFull | Refusal::TooFast => upgrade::Refusal::unavailable(message, after_ms),
            Refusal::Draining => upgrade::Refusal::draining(message, after_ms),
        }
        .to_bytes()
    }

    fn upgrade(&self, request: UpgradeRequest, now: Now) -> Verdict {
        if !self.frontpage.ready.load(Ordering::Relaxed) {
            return Verdict::Answer { response: self.refusal(Refusal::Draining), refused: true };
        }
        let identity = match request.token.as_ref().map(|token| self.verifier.verify(&token.0, now.wall)) {
            None => None,
            Some(Ok(identity)) => Some(identity),
            Some(Err(fault)) => {
                let refusal = upgrade::Refusal::from(&Fault::from(fault));
                return Verdict::Answer { response: refusal.to_bytes(), refused: true };
            }
        };
        let response = upgrade::accept(&request);
        Verdict::Upgrade(Box::new(Upgrade { response, used: request.consumed, identity, wishes: request.wishes }))
    }

    fn page(&self, request: &PlainRequest) -> Vec<u8> {
        let json: (&str, &str) = ("Content-Type", "application/json");
        match request.page {
            PlainPage::Health => request.respond(200, &[json], br#"{"status":"ok"}"#),
            PlainPage::Ready if self.frontpage.ready.load(Ordering::Relaxed) => {
                request.respond(200, &[json], br#"{"status":"ready"}"#)
            }
            PlainPage::Ready => request.respond(503, &[json], br#"{"status":"not_ready"}"#),
            PlainPage::Stats => {
                let body = format!(r#"{{"online_users":{}}}"#, self.frontpage.online_users());
                request.respond(200, &[json], body.as_bytes())
            }
        }
    }
}
