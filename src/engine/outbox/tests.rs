//! What an outbox promises, told one promise at a time and then against plain queues under random operations.

use super::*;

fn frame(byte: u8) -> Frame {
    Frame::own(&[byte; 4])
}

fn taken(outbox: &mut Outbox) -> Vec<u8> {
    let mut frames = Vec::new();
    outbox.take(64, 1 << 20, &mut frames);
    outbox.landed();
    frames.iter().map(|frame| frame.bytes()[0]).collect()
}

fn mark(cursor: u32, seq: u64) -> Option<LogMark> {
    Some(LogMark { cursor, seq: Seq(seq) })
}

#[test]
fn ends_of_syncs_are_counted_while_they_are_in_flight() {
    let mut outbox = Outbox::default();
    let mut frames = Vec::new();
    for mark in [Some(LogMark::SYNC_DONE), Some(LogMark { cursor: 0, seq: Seq(1) }), Some(LogMark::SYNC_DONE)] {
        outbox.push(Lane::Message, frame(10), mark);
    }
    assert_eq!(outbox.syncs_in_flight(), 0);
    // More comes meanwhile: the lane need not be empty for one of them to have left.
    outbox.take(2, usize::MAX, &mut frames);
    outbox.push(Lane::Message, frame(10), Some(LogMark { cursor: 0, seq: Seq(2) }));
    assert_eq!(outbox.syncs_in_flight(), 1);
    assert!(outbox.landed());
    assert_eq!(outbox.syncs_in_flight(), 0);
    outbox.take(1, usize::MAX, &mut frames);
    assert_eq!(outbox.syncs_in_flight(), 1);
}

#[test]
fn lanes_leave_in_order_of_importance() {
    let mut outbox = Outbox::default();
    assert!(outbox.push(Lane::Message, frame(3), mark(0, 1)));
    assert!(!outbox.push(Lane::Ephemeral, frame(4), None));
    outbox.push(Lane::Reply, frame(2), None);
    outbox.push(Lane::Control, frame(1), None);
    outbox.push_system(frame(9), LogMark { cursor: 1, seq: Seq(1) });
    assert_eq!(taken(&mut outbox), [1, 2, 9, 3, 4]);
    assert!(outbox.is_empty());
}

#[test]
fn what_waits_can_be_taken_back_and_a_flight_cannot() {
    let (mut outbox, mut shed, mut frames) = (Outbox::default(), 0, Vec::new());
    outbox.push_keyed(Lane::Ephemeral, 1, frame(1), &mut shed);
    outbox.take(64, 1 << 20, &mut frames);
    for key in [1, 2, 3] {
        outbox.push_keyed(Lane::Ephemeral, key, frame(10 + key as u8), &mut shed);
    }
    outbox.withdraw(Lane::Ephemeral, 2);
    outbox.withdraw(Lane::Ephemeral, 1);
    outbox.withdraw(Lane::Ephemeral, 9);
    assert_eq!(outbox.bytes(), 8, "the flight and one more");
    outbox.push(Lane::Reply, frame(5), None);
    outbox.landed();
    assert_eq!(taken(&mut outbox), [5, 13]);
    assert!(outbox.is_empty() && shed == 0);
}

#[test]
fn a_flight_is_never_shed_and_marks_come_back() {
    let mut outbox = Outbox::default();
    for seq in 1..=4 {
        outbox.push(Lane::Message, frame(seq as u8), mark(0, seq));
    }
    let mut frames = Vec::new();
    assert_eq!(outbox.take(2, 1 << 20, &mut frames), 8);
    let mut shed = Vec::new();
    outbox.shed_messages(|mark| shed.push(mark.seq.0));
    assert_eq!(shed, [3, 4]);
    assert_eq!(outbox.first_waiting(0), Some(Seq(1)));
    assert!(!outbox.landed());
    assert!(outbox.is_empty());
}

#[test]
fn what_cannot_be_read_again_is_never_shed() {
    let mut outbox = Outbox::default();
    outbox.push(Lane::Message, frame(1), mark(0, 1));
    outbox.push(Lane::Message, frame(2), mark(1, 1));
    outbox.push_system(frame(3), LogMark { cursor: 2, seq: Seq(1) });
    outbox.push(Lane::Message, frame(4), Some(LogMark::SYNC_DONE));
    outbox.forget_cursor(0);
    outbox.forget_cursor(2);
    let mut shed = Vec::new();
    outbox.shed_messages(|mark| shed.push(mark));
    assert_eq!(shed, [LogMark { cursor: 1, seq: Seq(1) }, LogMark::SYNC_DONE]);
    outbox.push_system(frame(5), LogMark { cursor: 2, seq: Seq(2) });
    assert_eq!(outbox.lane_bytes(Lane::Message), 12);
    assert_eq!(taken(&mut outbox), [3, 5, 1]);
}

#[test]
fn dirty_once_until_taken() {
    let mut outbox = Outbox::default();
    assert!(outbox.push(Lane::Reply, frame(1), None));
    assert!(!outbox.push(Lane::Reply, frame(2), None));
    let mut frames = Vec::new();
    outbox.take(1, 1 << 20, &mut frames);
    // While a flight is under way its landing makes the connection dirty again.
    assert!(!outbox.push(Lane::Reply, frame(3), None));
    assert!(outbox.landed());
    assert_eq!(taken(&mut outbox), [2, 3]);
}

#[test]
fn keyed_frames_replace_and_the_ephemeral_lane_is_bounded() {
    let (mut outbox, mut shed) = (Outbox::default(), 0);
    outbox.push_keyed(Lane::Ephemeral, 7, frame(1), &mut shed);
    outbox.push_keyed(Lane::Ephemeral, 7, frame(2), &mut shed);
    assert_eq!(taken(&mut outbox), [2]);
    for key in 1..=200 {
        outbox.push_keyed(Lane::Ephemeral, key, frame(key as u8), &mut shed);
    }
    assert_eq!(outbox.lane_bytes(Lane::Ephemeral), EPHEMERAL_FRAMES_MAX * 4);
    assert_eq!(shed, 200 - EPHEMERAL_FRAMES_MAX as u64, "what a newer version replaced is not lost");
}

/// What an outbox must do, spelt with one queue of `(byte, mark, key)` per lane and nothing clever.
#[derive(Default)]
struct Model {
    lanes: [VecDeque<(u8, LogMark, u64)>; LANES],
    flight: [usize; LANES],
    /// Notifications at the front of the message lane behind the flight.
    system: usize,
}

impl Model {
    fn take(&mut self, frames_max: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        for lane in 0..LANES {
            for entry in &self.lanes[lane] {
                if taken.len() == frames_max {
                    break;
                }
                taken.push(entry.0);
                self.flight[lane] += 1;
            }
        }
        self.system = self.system.saturating_sub(self.flight[Lane::Message as usize]);
        taken
    }

    fn land(&mut self) {
        for lane in 0..LANES {
            self.lanes[lane].drain(..self.flight[lane]);
        }
        self.flight = [0; LANES];
    }

    fn push_keyed(&mut self, lane: Lane, key: u64, byte: u8) {
        let (flight, entries) = (self.flight[lane as usize], &mut self.lanes[lane as usize]);
        let older = (flight..entries.len()).find(|at| key != 0 && entries[*at].2 == key);
        let full = lane == Lane::Ephemeral && entries.len() - flight >= EPHEMERAL_FRAMES_MAX;
        if let Some(victim) = older.or_else(|| full.then_some(flight)) {
            entries.remove(victim);
        }
        entries.push_back((byte, LogMark::NONE, key));
    }

    fn shed(&mut self) -> Vec<LogMark> {
        let lane = &mut self.lanes[Lane::Message as usize];
        let waiting: Vec<_> = lane.drain(self.flight[Lane::Message as usize]..).collect();
        let (mut dropped, mut system) = (Vec::new(), 0);
        for (at, entry) in waiting.into_iter().enumerate() {
            if entry.1 == LogMark::NONE {
                system += usize::from(at < self.system);
                lane.push_back(entry);
            } else {
                dropped.push(entry.1);
            }
        }
        self.system = system;
        dropped
    }
}

#[test]
fn random_operations_agree_with_plain_queues() {
    for seed in 0..if cfg!(miri) { 5 } else { 300 } {
        run_random(fastrand::Rng::with_seed(seed));
    }
}

fn run_random(mut random: fastrand::Rng) {
    let (mut outbox, mut model) = (Outbox::default(), Model::default());
    let lanes = [Lane::Control, Lane::Reply, Lane::Message, Lane::Ephemeral];
    for step in 0..400u64 {
        let byte = step as u8;
        let mark = LogMark { cursor: random.u32(..3), seq: Seq(step + 1) };
        let flying = outbox.has_flight();
        match random.u8(..12) {
            0..=2 => {
                let lane = lanes[random.usize(..4)];
                let marked = (lane == Lane::Message).then_some(mark);
                outbox.push(lane, frame(byte), marked);
                model.lanes[lane as usize].push_back((byte, marked.unwrap_or(LogMark::NONE), 0));
            }
            3..=4 => {
                outbox.push(Lane::Message, frame(byte), Some(mark));
                model.lanes[Lane::Message as usize].push_back((byte, mark, 0));
            }
            5 => {
                outbox.push_system(frame(byte), mark);
                let at = model.flight[Lane::Message as usize] + model.system;
                model.lanes[Lane::Message as usize].insert(at, (byte, mark, 0));
                model.system += 1;
            }
            6 => {
                let lane = [Lane::Control, Lane::Reply, Lane::Ephemeral][random.usize(..3)];
                let key = random.u64(..100);
                outbox.push_keyed(lane, key, frame(byte), &mut 0);
                model.push_keyed(lane, key, byte);
            }
            7 => {
                let mut dropped = Vec::new();
                outbox.shed_messages(|mark| dropped.push(mark));
                assert_eq!(dropped, model.shed());
            }
            8 => {
                outbox.forget_cursor(mark.cursor);
                let entries = model.lanes[Lane::Message as usize].iter_mut();
                entries.filter(|entry| entry.1.cursor == mark.cursor).for_each(|entry| entry.1 = LogMark::NONE);
            }
            _ if flying => {
                outbox.landed();
                model.land();
            }
            _ => {
                let (mut frames, max) = (Vec::new(), random.usize(1..9));
                outbox.take(max, usize::MAX, &mut frames);
                let bytes: Vec<u8> = frames.iter().map(|frame| frame.bytes()[0]).collect();
                assert_eq!(bytes, model.take(max), "what leaves, and in which order");
            }
        }
        for lane in lanes {
            assert_eq!(outbox.lane_bytes(lane), model.lanes[lane as usize].len() * 4, "{lane:?}");
        }
        for cursor in 0..3 {
            let of = |entry: &&(u8, LogMark, u64)| entry.1.cursor == cursor;
            let first = model.lanes[Lane::Message as usize].iter().filter(of).map(|entry| entry.1.seq).min();
            assert_eq!(outbox.first_waiting(cursor), first);
        }
    }
}
