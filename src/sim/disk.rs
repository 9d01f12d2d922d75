//! Owns the store on virtual time: writes gather and are committed together, reads are answered beside them in any order.
//!
//! What is committed survives a crash of the node; what only waits does not. Never decides anything about messages: the
//! store in memory does.

use std::fmt::Write as _;

use super::ledger::Ledger;
use crate::store::{Backend, MemoryBackend, Outcome};
use crate::types::storage::{Operation, Read, StoreFault, StoreRequest, Ticket, Write};

/// A disk with one queue of writes.
pub(super) struct Disk {
    backend: MemoryBackend,
    writes: Vec<Write>,
    /// Who waits for each write.
    askers: Vec<(usize, Ticket)>,
    outcomes: Vec<Outcome>,
    /// A commit is on the agenda.
    pub gathering: bool,
    /// No commit begins before this time.
    pub stalled_until_us: u64,
    pub commits_to_fail: u32,
    pub reads_to_fail: u32,
    /// Requests that wait at most; more are refused.
    pub requests_max: usize,
    /// Requests not yet answered.
    pub under_way: usize,
    /// Writes committed so far.
    pub committed: u64,
    /// Who was a member when, as committed.
    pub ledger: Ledger,
    /// When the last answer to a write arrives at each shard: later ones do not overtake it.
    pub answered_us: Vec<u64>,
}

impl Disk {
    pub fn new(seed: u64, shards: usize) -> Disk {
        Disk {
            backend: MemoryBackend::new(seed),
            writes: Vec::new(),
            askers: Vec::new(),
            outcomes: Vec::new(),
            gathering: false,
            stalled_until_us: 0,
            commits_to_fail: 0,
            reads_to_fail: 0,
            requests_max: usize::MAX,
            under_way: 0,
            committed: 0,
            ledger: Ledger::default(),
            answered_us: vec![0; shards],
        }
    }

    /// Takes a write, which waits for the next commit. A read comes back.
    pub fn gather(&mut self, shard: usize, request: StoreRequest) -> Option<StoreRequest> {
        match request.operation {
            Operation::Write(write) => {
                self.writes.push(write);
                self.askers.push((shard, request.ticket));
                None
            }
            Operation::Read(_) => Some(request),
        }
    }

    /// What the next commit would do to groups and logs.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for write in &self.writes {
            match write {
                Write::Append(append) => {
                    let message = &append.message;
                    let _ = write!(text, " {}<-{:?}", message.conversation, message.client_id);
                }
                Write::Group(change) => {
                    let put: Vec<_> = change.members_put.iter().map(|member| (&member.user, member.joined_seq.0)).collect();
                    let _ = write!(text, " {}: +{put:?} -{:?} {}", change.group, change.members_removed, change.delete);
                }
                _ => {}
            }
        }
        if self.commits_to_fail > 0 {
            text.push_str(" (fails)");
        }
        text
    }

    /// Commits what has gathered; answers in the order of asking.
    pub fn commit(&mut self) -> Vec<(usize, Ticket, Outcome)> {
        self.gathering = false;
        if self.commits_to_fail > 0 {
            self.commits_to_fail -= 1;
            self.outcomes.extend(self.writes.drain(..).map(|_| Err(injected())));
        } else {
            self.committed += self.writes.len() as u64;
            // One by one, so that the ledger sees the log's end at each change of members.
            for write in self.writes.drain(..) {
                self.ledger.note(&write, &mut self.backend);
                self.backend.commit(&mut vec![write], &mut self.outcomes);
            }
        }
        let askers = self.askers.drain(..);
        askers.zip(self.outcomes.drain(..)).map(|((shard, ticket), outcome)| (shard, ticket, outcome)).collect()
    }

    /// Retention removes a conversation's oldest messages.
    #[cfg(test)]
    pub fn forget_first(&mut self, conversation: &crate::types::ConversationId, count: usize) {
        self.backend.prune_first(conversation, count);
    }

    pub fn read(&mut self, read: &Read) -> Outcome {
        if self.reads_to_fail > 0 {
            self.reads_to_fail -= 1;
            return Err(injected());
        }
        self.backend.read(read)
    }

    /// Looks into the store from outside, as it is on disk.
    pub fn inspect(&mut self, read: &Read) -> Outcome {
        self.backend.read(read)
    }

    /// The node is gone, and with it all that was not committed.
    pub fn crash(&mut self) {
        self.writes.clear();
        self.askers.clear();
        self.gathering = false;
        self.under_way = 0;
        self.answered_us.fill(0);
    }
}

fn injected() -> StoreFault {
    StoreFault::Unavailable("injected fault".to_owned())
}
