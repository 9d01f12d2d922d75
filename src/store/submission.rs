//! Owns what travels between a client and a store thread: one allocation-free parcel that goes there with requests and comes
//! back with replies. Never outlives its round trip but as a spare.

use super::backend::{Backend, Outcome};
use crate::types::storage::{Operation, Read, StoreReply, StoreRequest, Ticket, Write};

/// Requests of one client on their way there, their replies on the way back. Both vectors are used again and again.
#[derive(Debug, Default)]
pub struct Submission {
    /// Which client asked.
    pub client: usize,
    pub requests: Vec<StoreRequest>,
    pub replies: Vec<StoreReply>,
}

/// Turns submissions into replies: all their writes as one commit, then their reads. Holds nothing between two calls but
/// emptied vectors.
#[derive(Debug, Default)]
pub struct Desk {
    writes: Vec<Write>,
    outcomes: Vec<Outcome>,
    /// Where the reply of each write belongs.
    written: Vec<(usize, Ticket)>,
    reads: Vec<(usize, Ticket, Read)>,
}

/// How much one call of [`Desk::serve`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub writes: usize,
    pub reads: usize,
}

impl Desk {
    /// Empties the requests of all `submissions` into replies. Writes are applied in the order of the submissions and of the
    /// requests in each; reads see all of them.
    pub fn serve(&mut self, backend: &mut dyn Backend, submissions: &mut [Submission]) -> Served {
        for (place, submission) in submissions.iter_mut().enumerate() {
            for StoreRequest { ticket, operation } in submission.requests.drain(..) {
                match operation {
                    Operation::Write(write) => {
                        self.writes.push(write);
                        self.written.push((place, ticket));
                    }
                    Operation::Read(read) => self.reads.push((place, ticket, read)),
                }
            }
        }
        let served = Served { writes: self.writes.len(), reads: self.reads.len() };
        if served.writes > 0 {
            backend.commit(&mut self.writes, &mut self.outcomes);
            assert_eq!(self.outcomes.len(), served.writes, "a backend answers every write");
        }
        for ((place, ticket), result) in self.written.drain(..).zip(self.outcomes.drain(..)) {
            submissions[place].replies.push(StoreReply { ticket, result });
        }
        for (place, ticket, read) in self.reads.drain(..) {
            let result = backend.read(&read);
            submissions[place].replies.push(StoreReply { ticket, result });
        }
        served
    }
}
