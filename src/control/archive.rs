//! Owns the control plane's own way to the store: reading what users would find, and keeping notes. Never goes through a shard,
//! and never waits without an end: a full queue is a refusal, and every request has its time. Lives on the control thread.

use std::sync::Arc;

use slab::Slab;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::answer::RestFault;
use super::calls::CALL_TIMEOUT;
use crate::store::StoreClient;
use crate::types::ErrorName;
use crate::types::storage::{Answer, Operation, Read, StoreFault, StoreReply, StoreRequest, Ticket, Write};

type Outcome = Result<Answer, StoreFault>;

/// The asking end.
pub(super) struct Archive(mpsc::Sender<Job>);

struct Job {
    operation: Operation,
    answer: oneshot::Sender<Outcome>,
}

impl Archive {
    /// An archive and who works for it; `bell` is rung when the store has answered. Without a store every request is refused.
    pub(super) fn new(store: Option<StoreClient>, bell: Arc<Notify>) -> (Archive, Option<Clerk>) {
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        let clerk = store.map(|store| Clerk { store, bell, jobs, open: Slab::new() });
        (Archive(sender), clerk)
    }

    pub(super) async fn read(&self, read: Read) -> Result<Answer, RestFault> {
        self.ask(Operation::Read(read)).await
    }

    /// Answered when it is durable.
    pub(super) async fn write(&self, write: Write) -> Result<(), RestFault> {
        self.ask(Operation::Write(write)).await.map(drop)
    }

    async fn ask(&self, operation: Operation) -> Result<Answer, RestFault> {
        let (answer, outcome) = oneshot::channel();
        if self.0.try_send(Job { operation, answer }).is_err() {
            return Err(RestFault::new(ErrorName::Overloaded, "too many requests wait for the store; try again"));
        }
        match timeout(CALL_TIMEOUT, outcome).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(StoreFault::Overloaded { .. }))) => Err(RestFault::new(ErrorName::Overloaded, "the store is busy")),
            Ok(Ok(Err(StoreFault::Damaged(_)))) => {
                Err(RestFault::new(ErrorName::StoreUnavailable, "this is damaged in the store: `corehub store check` tells more"))
            }
            Ok(Ok(Err(StoreFault::Unavailable(_)))) => Err(RestFault::from(ErrorName::StoreUnavailable)),
            Ok(Err(_)) | Err(_) => Err(RestFault::new(ErrorName::StoreUnavailable, "the store did not answer in time")),
        }
    }
}

/// Hands requests to the store and answers back.
pub(super) struct Clerk {
    store: StoreClient,
    bell: Arc<Notify>,
    jobs: mpsc::Receiver<Job>,
    open: Slab<oneshot::Sender<Outcome>>,
}

impl Clerk {
    /// Ends when nobody can ask any more.
    pub(super) async fn work(mut self) {
        loop {
            tokio::select! {
                job = self.jobs.recv(), if self.open.len() < JOBS_MAX => match job {
                    Some(job) => self.take(job),
                    None => return,
                },
                () = self.bell.notified() => self.hand_back(),
            }
        }
    }

    fn take(&mut self, Job { operation, answer }: Job) {
        let ticket = Ticket(self.open.insert(answer) as u64);
        let mut requests = vec![StoreRequest { ticket, operation }];
        if let Err(refused) = self.store.submit(&mut requests) {
            self.answer(ticket, Err(StoreFault::Overloaded { retry_after_ms: refused.retry_after_ms }));
        }
    }

    fn hand_back(&mut self) {
        let mut replies: Vec<StoreReply> = Vec::new();
        self.store.drain(usize::MAX, &mut |reply| replies.push(reply));
        replies.into_iter().for_each(|reply| self.answer(reply.ticket, reply.result));
    }

    fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        if let Some(answer) = usize::try_from(ticket.0).ok().and_then(|place| self.open.try_remove(place)) {
            // Whoever asked may have given up.
            let _ = answer.send(outcome);
        }
    }
}

/// Requests that wait, and as many under way: fewer than the client of a store may have.
const JOBS_MAX: usize = 64;
