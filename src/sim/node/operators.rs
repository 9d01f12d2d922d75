//! Owns what comes from the control plane: calls and their answers, revocations, retention, and the issuer of tokens. Never
//! forgets a revocation in a crash, since it is noted before it is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{EPOCH_MS, Node, SECRET};
use crate::auth::{NewToken, issue};
use crate::engine::{Event, Settings};
use crate::types::call::CallOutcome;
use crate::types::envelope::Body;
use crate::types::record::SharedMessage;
use crate::types::revocation::{Revocation, RevokedTokens};
use crate::types::{Call, ConversationId, Millis, UserId};

/// What operators have asked and been told.
#[derive(Default)]
pub(super) struct Desk {
    last_call: u32,
    open: BTreeSet<u32>,
    answered: Vec<(u32, CallOutcome)>,
    /// By user: how often their tokens were revoked.
    revoked: Vec<(UserId, u64)>,
}

impl Node {
    /// An operator wants something of a shard.
    pub fn operate(&mut self, shard: usize, body: Body) {
        self.hand_over(shard, Event::Operator(Box::new(body)));
    }

    /// An operator asks a shard; the answer comes with this number.
    pub fn call(&mut self, shard: usize, call: Call) -> u32 {
        self.desk.last_call += 1;
        let number = self.desk.last_call;
        self.desk.open.insert(number);
        self.remark(|| format!("call {number} to shard {shard}: {call:?}"));
        self.hand_over(shard, Event::Call { number, call: Box::new(call) });
        number
    }

    /// What was answered since the last time. Each call is answered once, unless the node crashes.
    pub fn take_answers(&mut self) -> Vec<(u32, CallOutcome)> {
        std::mem::take(&mut self.desk.answered)
    }

    /// Calls without an answer.
    pub fn calls_open(&self) -> usize {
        self.desk.open.len()
    }

    pub(super) fn answer(&mut self, number: u32, outcome: CallOutcome) {
        assert!(self.desk.open.remove(&number), "call {number} is answered again, or was never made: {outcome:?}");
        self.remark(|| format!("call {number} is answered: {outcome:?}"));
        self.desk.answered.push((number, outcome));
    }

    pub(super) fn forget_calls(&mut self) {
        self.desk.open.clear();
    }

    /// All tokens that a user has so far open nothing any more.
    pub fn revoke(&mut self, user: &UserId) {
        match self.desk.revoked.iter_mut().find(|(known, _)| known == user) {
            Some((_, generation)) => *generation += 1,
            None => self.desk.revoked.push((user.clone(), 1)),
        }
        let revocation = Arc::new(revocation(user, self.generation(user)));
        for shard in 0..self.seats.len() {
            self.operate(shard, Body::Revoke(revocation.clone()));
        }
    }

    /// How often a user's tokens were revoked.
    pub fn generation(&self, user: &UserId) -> u64 {
        self.desk.revoked.iter().find(|(known, _)| known == user).map_or(0, |(_, generation)| *generation)
    }

    /// The settings of a node that starts now.
    pub(super) fn settings_now(&self) -> Arc<Settings> {
        if self.desk.revoked.is_empty() {
            return self.settings.clone();
        }
        let revocations = self.desk.revoked.iter().map(|(user, generation)| revocation(user, *generation)).collect();
        Arc::new(Settings { revocations, ..(*self.settings).clone() })
    }

    /// A token that was not revoked yet and is good for `ttl_ms` from the beginning of the run.
    pub fn token(&self, user: &str, ttl_ms: u64) -> String {
        self.token_until(user, EPOCH_MS + ttl_ms)
    }

    /// The same, good until the wall clock says `until_ms`.
    pub fn token_until(&self, user: &str, until_ms: u64) -> String {
        let user = UserId::new(user).expect("the workload names users well");
        let issued_at = issued_at(self.generation(&user));
        issue(SECRET, &NewToken::for_user(user, until_ms - issued_at.0), issued_at)
    }

    /// Retention removes a conversation's oldest messages.
    pub fn forget_first(&mut self, conversation: &ConversationId, count: usize) {
        self.disk.forget_first(conversation, count);
    }

    /// What retention has removed of a conversation, from its first message on.
    pub fn forgotten(&self, conversation: &ConversationId) -> &[SharedMessage] {
        self.disk.forgotten(conversation)
    }
}

fn revocation(user: &UserId, generation: u64) -> Revocation {
    let tokens = RevokedTokens::OfUser { user: user.clone(), issued_before: issued_at(generation) };
    Revocation { tokens, until: Millis(u64::MAX) }
}

/// The issuer counts revocations instead of looking at a clock, which may be set back. Long before the run, so that no token
/// comes from the future.
fn issued_at(generation: u64) -> Millis {
    Millis(EPOCH_MS - 1_000_000_000 + generation * 1_000)
}
