//! Owns the load of one generator thread: sends what a plan says is due, and counts what comes back.
//!
//! Never looks at the server's processor time and never judges. Every conversation has one connection per client here, so one
//! [`Account`] per connection is enough to prove order and completeness.

use std::collections::VecDeque;

use super::dial::Speech;
use super::envelope::{Seen, Stamp};
use super::fleet::{Fleet, FleetCounts, Handler};
use super::plan::{Layout, Pattern, Plan};
use super::process::{Times, this_thread_times};
use super::tally::{Account, Tally, record};

/// Sums since the start, for progress and for knowing when all has arrived.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub sent: u64,
    pub acks: u64,
    pub pushes: u64,
    /// Preparing requests not answered yet.
    pub asks_open: u64,
    pub refused: u64,
    /// `messages_skipped` received.
    pub skipped: u64,
    pub closed: u64,
    /// The first refusal or close, as the server worded it.
    pub first_trouble: Option<String>,
}

/// The load of one thread.
pub struct Traffic {
    pub progress: Progress,
    pub tally: Tally,
    pub accounts: Vec<Account>,
    layout: Layout,
    plan: Option<Plan>,
    /// Next message of an open loop.
    next: u64,
    ended: bool,
    number: u32,
    asks: Option<Asks>,
    asks_in_flight: usize,
    slots: Vec<Slot>,
    raw: Vec<RawState>,
    /// Clocks when measuring began, until it ends.
    opening: Option<(FleetCounts, Times)>,
    opened: bool,
    message: Vec<u8>,
}

/// Preparing requests still to be made.
struct Asks {
    create: bool,
    next: usize,
    until: usize,
}

/// One message of a closed loop on its way.
#[derive(Clone, Copy, Default)]
struct Slot {
    number: u32,
    acked: bool,
    delivered: bool,
}

/// Arrivals of one raw connection.
#[derive(Default)]
struct RawState {
    bytes: usize,
    dues: VecDeque<u64>,
}

impl Traffic {
    pub fn new(layout: Layout) -> Traffic {
        Traffic {
            progress: Progress::default(),
            tally: Tally::new(),
            accounts: Vec::new(),
            layout,
            plan: None,
            next: 0,
            ended: true,
            number: 0,
            asks: None,
            asks_in_flight: 0,
            slots: Vec::new(),
            raw: Vec::new(),
            opening: None,
            opened: false,
            message: Vec::new(),
        }
    }

    /// Has the connections `from..until` create their group (its first member) or join it (the others).
    pub fn ask(&mut self, create: bool, from: usize, until: usize) {
        self.asks = Some(Asks { create, next: from, until });
        self.progress.asks_open = 1;
    }

    /// Starts a plan; what an earlier one counted is gone.
    pub fn begin(&mut self, plan: Plan, connections: usize) {
        self.tally = Tally::new();
        self.next = 0;
        self.ended = false;
        self.opening = None;
        self.opened = false;
        self.raw.clear();
        self.raw.resize_with(connections, RawState::default);
        if let Pattern::Closed { outstanding, .. } = plan.pattern {
            self.slots = vec![Slot::default(); connections * outstanding];
        }
        self.plan = Some(plan);
    }

    /// When [`Traffic::tick`] wants to be called next.
    pub fn wake_ns(&self, now_ns: u64) -> u64 {
        let Some(plan) = self.plan.as_ref().filter(|_| !self.ended) else { return u64::MAX };
        let edges = [plan.start_ns, plan.from_ns, plan.to_ns].into_iter().find(|edge| *edge > now_ns);
        let due = plan.due_ns(self.next).unwrap_or(u64::MAX);
        due.min(edges.unwrap_or(u64::MAX))
    }

    /// Sends what is due and notes the clocks at the edges of the measured stretch.
    pub fn tick(&mut self, fleet: &mut Fleet) {
        self.ask_more(fleet);
        let Some(plan) = self.plan.filter(|_| !self.ended) else { return };
        let now = fleet.now_ns();
        if !self.opened && now >= plan.from_ns {
            self.opened = true;
            self.opening = Some((fleet.counts, this_thread_times()));
        }
        if now >= plan.to_ns {
            self.close_window(fleet);
            // What was due and could not be sent in time is sent all the same: leaving it out would flatter the latency.
            self.ended = plan.due_ns(self.next).is_none();
        }
        if now < plan.start_ns || self.ended {
            return;
        }
        match plan.pattern {
            Pattern::Listen { .. } => {}
            Pattern::Open { bytes, .. } => self.send_due(fleet, &plan, bytes),
            Pattern::Closed { outstanding, bytes } => {
                if self.next == 0 {
                    self.next = 1;
                    self.start_loops(fleet, outstanding, bytes);
                }
            }
        }
    }

    /// The plan has ended on this thread.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Notes how many connections one poll found ready.
    pub fn polled(&mut self, ready: usize) {
        self.tally.polls += 1;
        self.tally.ready += ready as u64;
    }

    fn close_window(&mut self, fleet: &Fleet) {
        let Some((counts, times)) = self.opening.take() else { return };
        let times = this_thread_times().since(times);
        self.tally.reads = fleet.counts.reads - counts.reads;
        self.tally.frames = fleet.counts.frames - counts.frames;
        self.tally.bytes = fleet.counts.bytes - counts.bytes;
        self.tally.thread_busy_ns = times.busy_ns;
        self.tally.thread_waiting_ns = times.waiting_ns;
    }

    fn send_due(&mut self, fleet: &mut Fleet, plan: &Plan, bytes: usize) {
        let now = fleet.now_ns();
        let mut burst = 0;
        while let Some(due) = plan.due_ns(self.next).filter(|due| *due <= now) {
            let sender = self.layout.sender(self.next);
            self.next += 1;
            if fleet.dial().partition.owner(sender) == fleet.thread() {
                self.send(fleet, fleet.dial().partition.local(sender), due, 0, bytes);
                burst += 1;
                if burst == BURST_MAX {
                    break; // Reading must not starve while the generator catches up.
                }
            }
        }
    }

    fn start_loops(&mut self, fleet: &mut Fleet, outstanding: usize, bytes: usize) {
        for slot in 0..outstanding {
            for local in 0..fleet.len() {
                let now = fleet.now_ns();
                self.send_slot(fleet, local, slot, outstanding, now, bytes);
            }
        }
    }

    fn send_slot(&mut self, fleet: &mut Fleet, local: usize, slot: usize, outstanding: usize, now: u64, bytes: usize) {
        let number = self.send(fleet, local, now, slot as u32, bytes);
        self.slots[local * outstanding + slot] = Slot { number, acked: false, delivered: false };
    }

    /// Sends one message and returns its number: a count above `slot` in the lowest eight bits.
    fn send(&mut self, fleet: &mut Fleet, local: usize, due_ns: u64, slot: u32, bytes: usize) -> u32 {
        self.number = self.number.wrapping_add(1);
        let number = self.number << 8 | slot;
        self.message.clear();
        let sent = match &fleet.dial().speech {
            Speech::Corehub { names, .. } => {
                let target = self.layout.target(fleet.global(local));
                names.send(&mut self.message, target, Stamp { due_ns, number }, bytes);
                fleet.send(local, &self.message)
            }
            Speech::Raw => {
                self.message.resize(bytes, b'x');
                self.raw[local].dues.push_back(due_ns);
                fleet.send_raw(local, &self.message)
            }
        };
        if sent {
            self.progress.sent += 1;
        }
        if sent && self.plan.is_some_and(|plan| plan.covers(due_ns)) {
            self.tally.sent += 1;
            record(&mut self.tally.lag_us, due_ns, fleet.now_ns());
        }
        number
    }

    fn ask_more(&mut self, fleet: &mut Fleet) {
        while self.asks_in_flight < ASKS_IN_FLIGHT_MAX
            && let Some(asks) = &mut self.asks
            && asks.next < asks.until
        {
            let (local, create) = (asks.next, asks.create);
            asks.next += 1;
            let global = fleet.global(local);
            let first = global.is_multiple_of(self.layout.size());
            if let Speech::Corehub { names, .. } = &fleet.dial().speech
                && create == first
            {
                self.message.clear();
                names.enter(&mut self.message, self.layout.conversation(global), create, local as u32);
                fleet.send(local, &self.message);
                self.asks_in_flight += 1;
            }
        }
        let left = self.asks.as_ref().map_or(0, |asks| asks.until - asks.next);
        self.progress.asks_open = (left + self.asks_in_flight) as u64;
    }

    fn acked(&mut self, fleet: &mut Fleet, local: usize, stamp: Stamp, now_ns: u64) {
        self.accounts[local].acks += 1;
        self.progress.acks += 1;
        let Some(plan) = self.plan else { return };
        self.tally.acks += u64::from(plan.covers(now_ns));
        if plan.covers(stamp.due_ns) && plan.unmeasured != Some(fleet.global(local)) {
            record(&mut self.tally.ack_us, stamp.due_ns, now_ns);
        }
        self.half_done(fleet, local, stamp, now_ns, |slot| slot.acked = true);
    }

    fn delivered(&mut self, fleet: &mut Fleet, local: usize, stamp: Stamp, seq: u64, now_ns: u64) {
        if !self.accounts[local].push(seq) {
            return;
        }
        self.progress.pushes += 1;
        let Some(plan) = self.plan else { return };
        self.tally.deliveries += u64::from(plan.covers(now_ns));
        if plan.covers(stamp.due_ns) && plan.unmeasured != Some(fleet.global(local)) {
            record(&mut self.tally.delivery_us, stamp.due_ns, now_ns);
        }
        if matches!(self.layout, Layout::Pairs { .. }) {
            self.half_done(fleet, local ^ 1, stamp, now_ns, |slot| slot.delivered = true);
        }
    }

    /// Closed loop: a message of `sender` came one step further; when both steps are done the next one leaves.
    fn half_done(&mut self, fleet: &mut Fleet, sender: usize, stamp: Stamp, now_ns: u64, mark: impl Fn(&mut Slot)) {
        let Some(plan) = self.plan else { return };
        let Pattern::Closed { outstanding, bytes } = plan.pattern else { return };
        let slot_index = (stamp.number & 0xff) as usize;
        let slot = &mut self.slots[sender * outstanding + slot_index];
        if slot.number != stamp.number {
            return;
        }
        mark(slot);
        if slot.acked && slot.delivered {
            self.complete(now_ns);
            if now_ns >= plan.to_ns {
                return;
            }
            self.send_slot(fleet, sender, slot_index, outstanding, now_ns, bytes);
        }
    }

    /// One whole frame or echo on a raw connection.
    fn raw_message(&mut self, fleet: &mut Fleet, local: usize, plan: &Plan, bytes: usize, now_ns: u64) {
        self.progress.pushes += 1;
        self.tally.deliveries += u64::from(plan.covers(now_ns));
        let Some(due_ns) = self.raw[local].dues.pop_front() else { return };
        self.complete(now_ns);
        if plan.covers(due_ns) {
            record(&mut self.tally.delivery_us, due_ns, now_ns);
        }
        if matches!(plan.pattern, Pattern::Closed { .. }) && now_ns < plan.to_ns {
            self.send(fleet, local, now_ns, 0, bytes);
        }
    }

    fn complete(&mut self, now_ns: u64) {
        self.tally.completed += u64::from(self.plan.is_some_and(|plan| plan.covers(now_ns)));
    }

    fn trouble(&mut self, text: impl FnOnce() -> String) {
        self.progress.first_trouble.get_or_insert_with(text);
    }
}

impl Handler for Traffic {
    fn message(&mut self, fleet: &mut Fleet, local: usize, seen: Seen, text: &[u8], now_ns: u64) {
        match seen {
            Seen::Acked(Some(Stamp { due_ns: 0, .. })) => {
                self.asks_in_flight -= 1;
                self.ask_more(fleet);
            }
            Seen::Acked(Some(stamp)) => self.acked(fleet, local, stamp, now_ns),
            Seen::Delivered { stamp, seq } => self.delivered(fleet, local, stamp, seq, now_ns),
            Seen::Refused(_) => {
                self.progress.refused += 1;
                self.trouble(|| String::from_utf8_lossy(text).into_owned());
            }
            Seen::Skipped => self.progress.skipped += 1,
            Seen::Acked(None) | Seen::Authenticated | Seen::Synced | Seen::Other => {}
        }
    }

    fn bytes(&mut self, fleet: &mut Fleet, local: usize, length: usize, now_ns: u64) {
        let Some(plan) = self.plan else { return };
        let message = match plan.pattern {
            Pattern::Listen { frame_bytes } => frame_bytes,
            Pattern::Open { bytes, .. } | Pattern::Closed { bytes, .. } => bytes,
        };
        self.raw[local].bytes += length;
        while self.raw[local].bytes >= message {
            self.raw[local].bytes -= message;
            self.raw_message(fleet, local, &plan, message, now_ns);
        }
    }

    fn opened(&mut self, local: usize) {
        if self.accounts.len() <= local {
            self.accounts.resize(local + 1, Account::default());
        }
    }

    fn closed(&mut self, local: usize, reason: String) {
        self.progress.closed += 1;
        self.trouble(|| format!("connection {local}: {reason}"));
    }
}

/// Messages sent in a row before arrivals are looked at again.
const BURST_MAX: usize = 64;
/// Preparing requests of one thread on their way at a time.
const ASKS_IN_FLIGHT_MAX: usize = 64;
