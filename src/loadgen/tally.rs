//! Owns what is counted while a load runs, per measured stretch ([`Tally`]) and per connection for life ([`Account`]).
//! Never decides whether a figure is good.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What one measured stretch brought. Counters are of events within it; latencies of messages due within it.
#[derive(Clone)]
pub struct Tally {
    pub sent: u64,
    pub acks: u64,
    /// Messages that arrived at receivers (raw: frames).
    pub deliveries: u64,
    /// Closed loop: messages whose ack and delivery have both arrived (raw: echoes).
    pub completed: u64,
    pub reads: u64,
    pub frames: u64,
    pub bytes: u64,
    /// Due → arrival at a receiver, microseconds.
    pub delivery_us: Histogram<u64>,
    /// Due → ack at the sender, microseconds.
    pub ack_us: Histogram<u64>,
    /// Due → handed to the kernel, microseconds: the generator's own lateness.
    pub lag_us: Histogram<u64>,
    /// Processor time of the busiest generator thread, and what it waited for a processor.
    pub thread_busy_ns: u64,
    pub thread_waiting_ns: u64,
    /// Connections with arrivals that one poll of the kernel reported, summed, and polls.
    pub ready: u64,
    pub polls: u64,
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            sent: 0,
            acks: 0,
            deliveries: 0,
            completed: 0,
            reads: 0,
            frames: 0,
            bytes: 0,
            delivery_us: latencies(),
            ack_us: latencies(),
            lag_us: latencies(),
            thread_busy_ns: 0,
            thread_waiting_ns: 0,
            ready: 0,
            polls: 0,
        }
    }

    /// Adds another thread's part.
    pub fn merge(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.acks += other.acks;
        self.deliveries += other.deliveries;
        self.completed += other.completed;
        self.reads += other.reads;
        self.frames += other.frames;
        self.bytes += other.bytes;
        for (own, others) in
            [(&mut self.delivery_us, &other.delivery_us), (&mut self.ack_us, &other.ack_us), (&mut self.lag_us, &other.lag_us)]
        {
            own.add(others).expect("all latency histograms have the same bounds");
        }
        self.thread_busy_ns = self.thread_busy_ns.max(other.thread_busy_ns);
        self.thread_waiting_ns = self.thread_waiting_ns.max(other.thread_waiting_ns);
        self.ready += other.ready;
        self.polls += other.polls;
    }
}

impl Default for Tally {
    fn default() -> Tally {
        Tally::new()
    }
}

/// Adds one latency; `saturating`, since no run lasts as long as the upper bound.
pub fn record(histogram: &mut Histogram<u64>, from_ns: u64, to_ns: u64) {
    histogram.saturating_record(to_ns.saturating_sub(from_ns) / 1_000);
}

/// Quantile in microseconds; 0 when nothing was recorded.
pub fn quantile(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64
}

/// An empty histogram of microseconds.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX.as_micros() as u64, 3).expect("constant bounds are valid")
}

/// What one connection has had of its conversation since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// `seq` of the last message pushed to it.
    pub last_seq: u64,
    /// Messages pushed to it.
    pub pushes: u64,
    /// Its own messages that were acknowledged.
    pub acks: u64,
    /// Pushes at or below `last_seq`: repeated or out of order.
    pub disordered: u64,
    /// The same after it was opened anew, where a repeat is allowed.
    pub repeated: u64,
    pub reopened: bool,
}

impl Account {
    /// Takes a push in; true when it is new and in order.
    pub fn push(&mut self, seq: u64) -> bool {
        if seq > self.last_seq {
            self.last_seq = seq;
            self.pushes += 1;
            return true;
        }
        if self.reopened {
            self.repeated += 1;
        } else {
            self.disordered += 1;
        }
        false
    }
}

/// Verdict over all accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Acknowledged messages that some receiver never got.
    pub missing: u64,
    /// Messages that some receiver got although nobody was told that they exist.
    pub excess: u64,
    pub disordered: u64,
    pub repeated: u64,
}

/// Compares what each client got with what its conversation's senders were promised. `accounts` is by global index.
///
/// With every push above the one before it, and as many of them as acknowledged messages of others, a client has had each exactly
/// once and in order.
pub fn audit(accounts: &[Account], conversation_size: usize) -> Audit {
    let mut audit = Audit::default();
    for members in accounts.chunks(conversation_size) {
        let promised: u64 = members.iter().map(|member| member.acks).sum();
        for member in members {
            let due = promised - member.acks;
            audit.missing += due.saturating_sub(member.pushes);
            audit.excess += member.pushes.saturating_sub(due);
            audit.disordered += member.disordered;
            audit.repeated += member.repeated;
        }
    }
    audit
}

const LATENCY_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_finds_loss_repeat_and_disorder() {
        let full = |acks, seqs: &[u64]| {
            let mut account = Account { acks, ..Account::default() };
            for seq in seqs {
                account.push(*seq);
            }
            account
        };
        let good = [full(2, &[3]), full(1, &[1, 2]), full(0, &[1, 2, 3])];
        assert_eq!(audit(&good, 3), Audit::default());
        let bad = [full(3, &[]), full(0, &[1, 3]), full(0, &[1, 2, 2, 3])];
        assert_eq!(audit(&bad, 3), Audit { missing: 1, disordered: 1, ..Audit::default() });
        let swapped = [full(3, &[]), full(0, &[2, 1, 3]), full(0, &[1, 2, 3, 4])];
        assert_eq!(audit(&swapped, 3), Audit { missing: 1, excess: 1, disordered: 1, repeated: 0 });
    }

    #[test]
    fn repeats_after_opening_anew_are_told_apart() {
        let mut account = Account::default();
        assert!(account.push(1));
        account.reopened = true;
        assert!(!account.push(1));
        assert_eq!((account.repeated, account.disordered, account.pushes), (1, 0, 1));
    }
}
