//! Owns which sessions a user has, on which shards, and who watches their presence.
//!
//! Never talks to sockets: homes do. Lives on the user's owner shard.

use indexmap::IndexMap;
use smallvec::SmallVec;

use crate::types::envelope::Body;
use crate::types::{DeviceId, SessionAddress, SessionId, UserId};

use super::Hasher;

/// All users with sessions, and all watched users, that this shard owns.
#[derive(Debug)]
pub struct Users {
    pub online: IndexMap<UserId, User, Hasher>,
    pub watchers: IndexMap<UserId, Vec<Watcher>, Hasher>,
    /// Users of whom something is being written: what would read it waits.
    pub fences: IndexMap<UserId, Fence, Hasher>,
}

/// Writes under way for a user, and what waits for them.
#[derive(Debug, Default)]
pub struct Fence {
    pub writes: u32,
    /// At most one per connecting session and one per question of a session.
    pub waiting: Vec<Body>,
}

/// A user who is online.
#[derive(Debug, Default)]
pub struct User {
    /// In order of attaching.
    pub sessions: SmallVec<[Attached; 1]>,
}

/// One session of a user.
#[derive(Clone, Debug)]
pub struct Attached {
    pub address: SessionAddress,
    pub device: DeviceId,
}

/// A session that wants to know of a user's comings and goings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watcher {
    pub address: SessionAddress,
    pub session: SessionId,
}

impl Users {
    pub fn new(hasher: Hasher) -> Users {
        Users {
            online: IndexMap::with_hasher(hasher.clone()),
            watchers: IndexMap::with_hasher(hasher.clone()),
            fences: IndexMap::with_hasher(hasher),
        }
    }
}

impl User {
    /// Distinct devices connected.
    pub fn devices(&self) -> u32 {
        let mut distinct = 0;
        for (at, attached) in self.sessions.iter().enumerate() {
            distinct += u32::from(!self.sessions[..at].iter().any(|earlier| earlier.device == attached.device));
        }
        distinct
    }
}
