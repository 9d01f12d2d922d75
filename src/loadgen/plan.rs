//! Owns the description of a load: who is in a conversation with whom, who sends when, and which stretch of it is measured.
//! Plain values, handed from the measuring thread to the generator threads.

use super::envelope::Target;

/// Which clients share a conversation. Clients are numbered so that each conversation is one run of indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Groups { count: usize, size: usize },
    Pairs { count: usize },
}

impl Layout {
    /// Clients in all.
    pub fn clients(self) -> usize {
        match self {
            Layout::Groups { count, size } => count * size,
            Layout::Pairs { count } => count * 2,
        }
    }

    /// Clients of one conversation.
    pub fn size(self) -> usize {
        match self {
            Layout::Groups { size, .. } => size,
            Layout::Pairs { .. } => 2,
        }
    }

    /// The conversation of a client.
    pub fn conversation(self, global: usize) -> usize {
        global / self.size()
    }

    /// Where a client's messages go.
    pub fn target(self, global: usize) -> Target {
        match self {
            Layout::Groups { size, .. } => Target::Group(global / size),
            Layout::Pairs { .. } => Target::User(global ^ 1),
        }
    }

    /// Who sends the message with this number in an open loop: in one group its first member, in many groups one group after the
    /// other and a random member of it, among pairs everybody in turn.
    pub fn sender(self, number: u64) -> usize {
        match self {
            Layout::Groups { count: 1, .. } => 0,
            Layout::Groups { count, size } => {
                let member = fastrand::Rng::with_seed(number).usize(..size);
                (number % count as u64) as usize * size + member
            }
            Layout::Pairs { count } => (number % (count as u64 * 2)) as usize,
        }
    }

    /// Clients that should stay on one generator thread; pairs must.
    pub fn unit(self, threads: usize) -> usize {
        match self {
            Layout::Groups { count, .. } if count < threads => 1,
            other => other.size(),
        }
    }
}

/// How messages are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// Nothing is sent; a raw connection counts frames of `frame_bytes` that arrive.
    Listen { frame_bytes: usize },
    /// Message number k is due at k / rate, whatever the server does: latency counts from then.
    Open { per_second: f64, bytes: usize },
    /// Every client keeps this many messages on their way.
    Closed { outstanding: usize, bytes: usize },
}

/// One run of load.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub pattern: Pattern,
    /// Nanoseconds since the epoch: load begins, measuring begins, both end.
    pub start_ns: u64,
    pub from_ns: u64,
    pub to_ns: u64,
    /// A client (global index) whose latency is not counted.
    pub unmeasured: Option<usize>,
}

impl Plan {
    /// True when `at_ns` is measured.
    pub fn covers(&self, at_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&at_ns)
    }

    /// When message `number` of an open loop is due; `None` past the end and in other patterns.
    pub fn due_ns(&self, number: u64) -> Option<u64> {
        let Pattern::Open { per_second, .. } = self.pattern else { return None };
        let due = self.start_ns + (number as f64 * 1e9 / per_second) as u64;
        (due < self.to_ns).then_some(due)
    }
}
