//! Owns one shard's access to the store. Never waits and never loses a reply: the ring on which replies return holds as many
//! submissions as may be under way. Lives on its shard's thread.

use crossbeam_channel::{Sender, TrySendError};
use rtrb::Consumer;

use super::submission::Submission;
use crate::types::storage::{Operation, StoreReply, StoreRequest};

/// The store's queue has no room for what was asked; nothing of it was or will be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub retry_after_ms: u64,
}

/// One shard's end.
#[derive(Debug)]
pub struct StoreClient {
    client: usize,
    writer: Route,
    /// Where reads go when others than the writer answer them.
    readers: Option<Route>,
    /// One ring per store thread.
    replies: Vec<Consumer<Submission>>,
    /// Emptied submissions, for the next requests.
    spares: Vec<Submission>,
    /// Requests without a reply yet.
    under_way: usize,
    requests_max: usize,
    retry_after_ms: u64,
}

/// The way to one kind of store thread.
#[derive(Debug)]
pub(super) struct Route {
    pub sender: Sender<Submission>,
    /// Requests for which no submission may leave yet: they go together when one comes back.
    pub waiting: Vec<StoreRequest>,
    pub submissions_under_way: usize,
    pub submissions_max: usize,
    /// Requests at most in one submission.
    pub submission_requests_max: usize,
}

impl StoreClient {
    pub(super) fn new(
        client: usize,
        writer: Route,
        readers: Option<Route>,
        replies: Vec<Consumer<Submission>>,
        limits: ClientLimits,
    ) -> StoreClient {
        let ClientLimits { requests_max, retry_after_ms } = limits;
        StoreClient { client, writer, readers, replies, spares: Vec::new(), under_way: 0, requests_max, retry_after_ms }
    }

    /// Takes requests from the front of `requests` in their order, as many as there is room for, and sends them off. On `Err`
    /// those without room are still in `requests`: tell whoever asked. To be called once a turn, since what one call takes
    /// travels together.
    pub fn submit(&mut self, requests: &mut Vec<StoreRequest>) -> Result<(), Refused> {
        let taken = requests.len().min(self.requests_max - self.under_way);
        self.under_way += taken;
        for request in requests.drain(..taken) {
            match (&request.operation, &mut self.readers) {
                (Operation::Read(_), Some(readers)) => readers.waiting.push(request),
                _ => self.writer.waiting.push(request),
            }
        }
        self.depart();
        if requests.is_empty() { Ok(()) } else { Err(Refused { retry_after_ms: self.retry_after_ms }) }
    }

    /// Hands replies to `sink` until about `max` were handed over (submissions are not split) or none are left; returns how
    /// many. Replies of one store thread keep the order of their requests' submissions.
    pub fn drain(&mut self, max: usize, sink: &mut impl FnMut(StoreReply)) -> usize {
        let mut total = 0;
        for thread in 0..self.replies.len() {
            while total < max {
                let Ok(mut submission) = self.replies[thread].pop() else {
                    break;
                };
                total += submission.replies.len();
                submission.replies.drain(..).for_each(&mut *sink);
                self.returned(thread, submission);
            }
        }
        self.under_way -= total;
        if total > 0 {
            self.depart();
        }
        total
    }

    /// No reply waits. To be looked at after announcing to park.
    pub fn is_idle(&self) -> bool {
        self.replies.iter().all(Consumer::is_empty)
    }

    /// Requests without a reply yet.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// True when the store's threads have ended (after a panic): no reply will come any more.
    pub fn is_abandoned(&self) -> bool {
        self.replies.iter().any(Consumer::is_abandoned)
    }

    fn returned(&mut self, thread: usize, submission: Submission) {
        match &mut self.readers {
            Some(readers) if thread > 0 => readers.submissions_under_way -= 1,
            _ => self.writer.submissions_under_way -= 1,
        }
        if self.spares.len() < SPARES_MAX && submission.requests.capacity() <= SPARE_REQUESTS_MAX {
            self.spares.push(submission);
        }
    }

    /// Sends off what waits, as far as submissions may leave.
    fn depart(&mut self) {
        let StoreClient { client, spares, writer, readers, .. } = self;
        for route in [Some(writer), readers.as_mut()].into_iter().flatten() {
            route.depart(*client, spares);
        }
    }
}

/// Bounds of one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimits {
    pub requests_max: usize,
    pub retry_after_ms: u64,
}

impl Route {
    fn depart(&mut self, client: usize, spares: &mut Vec<Submission>) {
        while !self.waiting.is_empty() && self.submissions_under_way < self.submissions_max {
            let mut submission = spares.pop().unwrap_or_default();
            submission.client = client;
            if self.waiting.len() <= self.submission_requests_max {
                std::mem::swap(&mut submission.requests, &mut self.waiting);
            } else {
                submission.requests.extend(self.waiting.drain(..self.submission_requests_max));
            }
            match self.sender.try_send(submission) {
                Ok(()) => self.submissions_under_way += 1,
                // The channel has room for all submissions of all clients, so only the end of the threads comes here. Their
                // requests stay unanswered, like those which the threads had taken: `is_abandoned` tells.
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return,
            }
        }
    }
}

const SPARES_MAX: usize = 64;
/// A submission that was once larger gives its memory back.
const SPARE_REQUESTS_MAX: usize = 4_096;
