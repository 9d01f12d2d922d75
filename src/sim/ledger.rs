//! Owns who was a member of which group from which message to which, read off the commits of the disk and not off the engine.

use std::collections::BTreeMap;

use crate::store::{Backend, MemoryBackend};
use crate::types::storage::{Answer, GroupChange, Read, Write};
use crate::types::{ConversationId, GroupId, UserId};

/// All memberships there have been.
#[derive(Debug, Default)]
pub struct Ledger {
    stays: BTreeMap<(GroupId, UserId), Vec<Stay>>,
}

/// One membership: its user gets what was written after `after`, up to `until` once it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    pub after: u64,
    pub until: Option<u64>,
}

impl Ledger {
    /// Takes note of a write that is about to be committed.
    pub(super) fn note(&mut self, write: &Write, backend: &mut MemoryBackend) {
        let Write::Group(change) = write else { return };
        let conversation = ConversationId::group(&change.group);
        let Ok(Answer::Head(head)) = backend.read(&Read::Head { conversation }) else { unreachable!("a head was asked for") };
        self.change(change, head.0);
    }

    fn change(&mut self, change: &GroupChange, head: u64) {
        for ((group, user), stays) in &mut self.stays {
            let removed = change.delete || change.members_removed.contains(user);
            if *group == change.group && removed {
                for stay in stays.iter_mut().filter(|stay| stay.until.is_none()) {
                    stay.until = Some(head);
                }
            }
        }
        if change.delete {
            return;
        }
        for member in &change.members_put {
            let stays = self.stays.entry((change.group.clone(), member.user.clone())).or_default();
            if stays.last().is_none_or(|last| last.until.is_some()) {
                assert_eq!(member.joined_seq.0, head, "who joins starts at the group's present");
                stays.push(Stay { after: member.joined_seq.0, until: None });
            }
        }
    }

    /// Whether a message of a group was for this user.
    pub fn entitled(&self, group: &GroupId, user: &UserId, seq: u64) -> bool {
        let stays = self.stays.get(&(group.clone(), user.clone()));
        stays.is_some_and(|stays| stays.iter().any(|stay| stay.after < seq && stay.until.is_none_or(|until| seq <= until)))
    }

    /// All memberships of a user, in order.
    pub fn stays(&self, group: &GroupId, user: &UserId) -> &[Stay] {
        self.stays.get(&(group.clone(), user.clone())).map_or(&[], Vec::as_slice)
    }

    /// The membership that lasts.
    pub fn present(&self, group: &GroupId, user: &UserId) -> Option<Stay> {
        self.stays.get(&(group.clone(), user.clone()))?.last().copied().filter(|stay| stay.until.is_none())
    }
}
