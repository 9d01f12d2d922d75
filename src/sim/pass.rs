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
    /// How long it was good then.
    good_ms: u64,
}

impl Pass {
    /// A token, and what is known of it. `good_ms`: how long by the present wall clock; None for ever.
    pub fn new(node: &Node, user: &str, good_ms: Option<u64>) -> (String, Pass) {
        let wall_ms = node.wall().0;
        let until_ms = good_ms.map_or(EPOCH_MS + TOKEN_MS, |good_ms| wall_ms + good_ms);
        let generation = node.generation(&oracle::user(user));
        let pass = Pass { generation, until_ms, shown_ms: node.now_ms(), good_ms: until_ms - wall_ms };
        (node.token_until(user, until_ms), pass)
    }

    /// It may run out within a run.
    pub fn is_brief(&self) -> bool {
        self.good_ms < BRIEF_MS_MAX
    }

    /// It has run out, by the wall clock and by the other, and the grace is over since `slack_ms`.
    pub fn is_over(&self, node: &Node, slack_ms: u64) -> bool {
        let late_ms = GRACE_MS + slack_ms;
        node.wall().0 > self.until_ms + late_ms && node.now_ms() > self.shown_ms + self.good_ms + late_ms
    }
}

/// Most tokens outlive every run and every jump of its clock.
const TOKEN_MS: u64 = 10_000 * 3_600_000;
/// Tokens that are good for less may run out within a run.
const BRIEF_MS_MAX: u64 = 1_000 * 3_600_000;
/// What the server gives to those whose tokens have run out.
pub(super) const GRACE_MS: u64 = 1_000;
