//! Owns what a client knows of its token: whose it is, when it was shown, how long it is good. Never asks the server.

use super::node::{EPOCH_MS, Node};
use super::oracle;

/// The token that a connection lives by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pass {
    /// How often its user's tokens had been revoked before it was issued.
    pub generation: u64,
    /// Wall milliseconds at which it runs out.
    until_ms: u64,
    /// When it was shown, by the clock that is never set.
    shown_ms: u64,
}

impl Pass {
    /// A token, and what is known of it. `good_ms`: how long by the present wall clock; None for ever.
    pub fn new(node: &Node, user: &str, good_ms: Option<u64>) -> (String, Pass) {
        let until_ms = good_ms.map_or(EPOCH_MS + TOKEN_MS, |good_ms| node.wall().0 + good_ms);
        let generation = node.generation(&oracle::user(user));
        // A token names whole seconds.
        let pass = Pass { generation, until_ms: until_ms / 1_000 * 1_000, shown_ms: node.now_ms() };
        (node.token_until(user, until_ms), pass)
    }

    /// Whoever shows it may not be here any more: it has run out, the server has noticed (by its timer, or when the wall clock
    /// was set shortly before, with the next beat), and the grace is over since `slack_ms`.
    pub fn is_over(&self, node: &Node, slack_ms: u64) -> bool {
        let Some(since_ms) = self.ended(node).last().filter(|(_, to_ms)| *to_ms > node.now_ms()).map(|(from_ms, _)| *from_ms)
        else {
            return false;
        };
        let set = node.clock_sets().iter().map(|(at_ms, _)| *at_ms);
        let set_ms = set.filter(|at_ms| (self.shown_ms..=since_ms).contains(at_ms)).max();
        let noticed_ms = set_ms.map_or(since_ms, |set_ms| since_ms.max(set_ms + HEARTBEAT_MS));
        node.now_ms() > noticed_ms + GRACE_MS + slack_ms
    }

    /// Whoever shows it may have been sent away by now: told that it has run out when it had, and closed when it still, or
    /// again, had, after the grace.
    pub fn may_be_over(&self, node: &Node) -> bool {
        let ended = self.ended(node);
        let (first, last) = (ended.first().map(|(from_ms, _)| *from_ms), ended.last().map(|(_, to_ms)| *to_ms));
        first.zip(last).is_some_and(|(first_ms, last_ms)| last_ms >= first_ms + GRACE_MS)
    }

    /// The times since it was shown at which the wall clock says that it has run out, by the clock that is never set: from,
    /// and to before when. Between two of them it was good again.
    fn ended(&self, node: &Node) -> Vec<(u64, u64)> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        let sets = node.clock_sets();
        let stretches = std::iter::once((0, 0)).chain(sets.iter().copied());
        let ends = sets.iter().map(|(at_ms, _)| *at_ms).chain([node.now_ms() + 1]);
        for ((begin_ms, skew_ms), end_ms) in stretches.zip(ends) {
            let due_ms = self.until_ms.saturating_sub(EPOCH_MS.saturating_add_signed(skew_ms));
            let from_ms = due_ms.max(begin_ms).max(self.shown_ms);
            match found.last_mut() {
                _ if from_ms >= end_ms => {}
                Some((_, to_ms)) if *to_ms == from_ms => *to_ms = end_ms,
                _ => found.push((from_ms, end_ms)),
            }
        }
        found
    }
}

/// Most tokens outlive every run and every jump of its clock.
const TOKEN_MS: u64 = 10_000 * 3_600_000;
/// What the server gives to those whose tokens have run out.
pub(super) const GRACE_MS: u64 = 1_000;
/// How often the server looks at a connection at least, and so how late it may notice that the wall clock was set.
pub(super) const HEARTBEAT_MS: u64 = 4_000;
