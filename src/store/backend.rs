//! Owns the seam between the store's threads and the ways of keeping things. Never knows of queues, tickets or threads. A
//! backend lives on the writer's thread; a [`ReadSide`] is shared by the reader threads.

use std::sync::Arc;

use crate::types::Millis;
use crate::types::storage::{Answer, Read, StoreFault, Write};

/// What a request ends with.
pub type Outcome = Result<Answer, StoreFault>;

/// One way of keeping everything. `conformance` states in tests what every implementation must do.
pub trait Backend: Send {
    /// Applies `writes` in their order, each atomically and all as one commit, and appends one outcome per write. When it
    /// returns, every `Ok` is as durable as the backend promises. Takes all of `writes`, also when it fails.
    fn commit(&mut self, writes: &mut Vec<Write>, outcomes: &mut Vec<Outcome>);

    /// Answers a read; sees every commit before it.
    fn read(&mut self, read: &Read) -> Outcome;

    /// A way to read beside the writer, which sees at least every commit that has returned. None: the writer reads.
    fn read_side(&self) -> Option<Arc<dyn ReadSide>> {
        None
    }

    /// Forgets messages older than `before`, at most about `messages_max` of them; returns how many. Going on later continues
    /// where it stopped. The end of a log never moves back.
    fn prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, StoreFault>;

    /// Forgets what is of no use any more, at about `entries_max` entries looked at: first uses of client ids from before
    /// `first_uses_before`, which no longer count from now on whatever a write says, and marks on messages that are gone.
    /// Returns how many it forgot. Going on later continues where it stopped.
    fn expire(&mut self, first_uses_before: Millis, entries_max: usize) -> Result<usize, StoreFault> {
        let _ = (first_uses_before, entries_max);
        Ok(0)
    }

    /// True when a commit costs as much with little in it as with much: then they are kept a little apart while many come.
    fn is_paced(&self) -> bool {
        false
    }

    /// Called a few times a second, busy or idle: what is to be done without being asked, such as trying a failed disk again.
    fn tend(&mut self) {}
}

/// Reading from several threads at once.
pub trait ReadSide: Send + Sync {
    fn read(&self, read: &Read) -> Outcome;
}

impl<B: Backend + ?Sized> Backend for Box<B> {
    fn commit(&mut self, writes: &mut Vec<Write>, outcomes: &mut Vec<Outcome>) {
        (**self).commit(writes, outcomes);
    }

    fn read(&mut self, read: &Read) -> Outcome {
        (**self).read(read)
    }

    fn read_side(&self) -> Option<Arc<dyn ReadSide>> {
        (**self).read_side()
    }

    fn prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, StoreFault> {
        (**self).prune(before, messages_max)
    }

    fn expire(&mut self, first_uses_before: Millis, entries_max: usize) -> Result<usize, StoreFault> {
        (**self).expire(first_uses_before, entries_max)
    }

    fn is_paced(&self) -> bool {
        (**self).is_paced()
    }

    fn tend(&mut self) {
        (**self).tend();
    }
}
