//! Owns groups and who is in them. Never touches rows or logs. Lives with its backend.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::types::record::{Group, Member, Role};
use crate::types::{GroupId, Millis, Seq, UserId};

use super::users::Users;

/// All groups that exist.
#[derive(Debug)]
pub struct Groups {
    hasher: FixedState,
    table: HashMap<GroupId, Members, FixedState>,
}

impl Groups {
    pub fn new(hasher: FixedState) -> Groups {
        Groups { table: HashMap::with_hasher(hasher.clone()), hasher }
    }

    /// Creates or replaces the record; members stay.
    pub fn put(&mut self, record: Group) {
        match self.table.get_mut(&record.id) {
            Some(members) => members.record = record,
            None => {
                let of = HashMap::with_hasher(self.hasher.clone());
                self.table.insert(record.id.clone(), Members { record, of, joins: 0 });
            }
        }
    }

    pub fn members(&self, group: &GroupId) -> Option<&Members> {
        self.table.get(group)
    }

    pub fn members_mut(&mut self, group: &GroupId) -> Option<&mut Members> {
        self.table.get_mut(group)
    }

    /// Records by id, after `after`.
    pub fn records(&self, after: Option<&GroupId>, limit: usize) -> Vec<Group> {
        let mut found: Vec<&Group> = self.table.values().map(|members| &members.record).collect();
        found.retain(|group| after.is_none_or(|after| group.id > *after));
        found.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        found.into_iter().take(limit).cloned().collect()
    }

    pub fn remove(&mut self, group: &GroupId) -> Option<Members> {
        self.table.remove(group)
    }
}

/// One group.
#[derive(Debug)]
pub struct Members {
    pub record: Group,
    /// By number of the user.
    of: HashMap<u32, Membership, FixedState>,
    /// How many have ever joined: numbers the order.
    joins: u32,
}

#[derive(Debug)]
struct Membership {
    joined_seq: Seq,
    joined_at: Millis,
    order: u32,
    role: Role,
}

impl Members {
    /// Inserts a member at the end, or replaces one in their place.
    pub fn put(&mut self, user: u32, member: &Member) {
        let order = self.of.get(&user).map_or(self.joins, |known| known.order);
        self.joins = self.joins.max(order + 1);
        let Member { role, joined_seq, joined_at, .. } = *member;
        self.of.insert(user, Membership { joined_seq, joined_at, order, role });
    }

    /// False when they were none.
    pub fn remove(&mut self, user: u32) -> bool {
        self.of.remove(&user).is_some()
    }

    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.of.keys().copied()
    }

    /// In order of joining.
    pub fn listed(&self, users: &Users) -> Vec<Member> {
        let mut ordered: Vec<(&u32, &Membership)> = self.of.iter().collect();
        ordered.sort_unstable_by_key(|(_, membership)| membership.order);
        let member = |(user, membership): (&u32, &Membership)| -> Member {
            let user: UserId = users.id(*user).clone();
            Member { user, role: membership.role, joined_seq: membership.joined_seq, joined_at: membership.joined_at }
        };
        ordered.into_iter().map(member).collect()
    }
}

const _: () = assert!(size_of::<(u32, Membership)>() <= 32);
