//! Owns what waits to leave to one connection: four lanes of frames in order of importance, and the flight that the kernel has.
//!
//! Never drops a frame that is in flight and never reorders a lane. Empty outboxes own no memory. Lives in its session, on the
//! home shard.

use std::collections::VecDeque;

use crate::types::{Frame, Seq};

/// Lanes in order of importance (PROTOCOL, promise 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Pong, close, error, reconnect.
    Control = 0,
    /// Acks, replies and receipts.
    Reply = 1,
    /// Log entries; system messages pass chat messages that still wait.
    Message = 2,
    /// Typing and presence: newest per key kept, the only lane that is ever shed.
    Ephemeral = 3,
}

pub const LANES: usize = 4;

/// Where a log entry in the outbox came from, so that dropping it moves the right cursor back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogMark {
    /// The session's own index of the cursor.
    pub cursor: u32,
    pub seq: Seq,
}

impl LogMark {
    /// No log entry, or one whose cursor is gone: nothing can bring it back, so it is never shed.
    const NONE: LogMark = LogMark { cursor: u32::MAX, seq: Seq::NONE };
    /// The end of a sync, which follows the log entries it speaks of: shed with them and said again after them.
    pub const SYNC_DONE: LogMark = LogMark { cursor: u32::MAX - 1, seq: Seq::NONE };
}

#[derive(Debug)]
struct Entry {
    frame: Frame,
    /// Message lane: its log position. Other lanes: no cursor, and the conflation key in `seq` (0 = none).
    mark: LogMark,
}

/// What waits for one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queues: Option<Box<Queues>>,
}

#[derive(Debug, Default)]
struct Queues {
    lanes: [VecDeque<Entry>; LANES],
    /// How many of each lane's first entries the kernel has.
    flight: [u32; LANES],
    /// System messages at the front of the message lane behind the flight.
    system: u32,
    /// Bytes waiting and in flight, per lane.
    bytes: [usize; LANES],
    flight_bytes: usize,
    /// The connection is on its shard's list of those that have something to send.
    dirty: bool,
}

impl Outbox {
    /// Puts a frame at the end of a lane. Returns true when the outbox had nothing waiting before and no flight is under way,
    /// that is, when its connection has just become dirty.
    pub fn push(&mut self, lane: Lane, frame: Frame, mark: Option<LogMark>) -> bool {
        let queues = self.queues.get_or_insert_default();
        let len = frame.len();
        let mark = mark.unwrap_or(LogMark::NONE);
        queues.lanes[lane as usize].push_back(Entry { frame, mark });
        queues.bytes[lane as usize] += len;
        queues.become_dirty()
    }

    /// Moves clones of the first waiting frames, in order of lanes, into `frames` and marks them as in flight: at most
    /// `frames_max` frames, and no further frame once `bytes_max` bytes are passed. Returns their bytes, 0 when nothing waits.
    /// A flight must have landed before the next one is taken.
    pub fn take(&mut self, frames_max: usize, bytes_max: usize, frames: &mut Vec<Frame>) -> usize {
        let Some(queues) = self.queues.as_deref_mut() else { return 0 };
        assert!(queues.flight_bytes == 0, "one flight at a time");
        queues.dirty = false;
        let (mut bytes, mut count) = (0, 0);
        for (lane, entries) in queues.lanes.iter().enumerate() {
            for entry in entries {
                if count == frames_max || (bytes > 0 && bytes + entry.frame.len() > bytes_max) {
                    queues.flight_bytes = bytes;
                    return bytes;
                }
                bytes += entry.frame.len();
                count += 1;
                queues.flight[lane] += 1;
                if lane == Lane::Message as usize {
                    queues.system = queues.system.saturating_sub(1);
                }
                frames.push(entry.frame.clone());
            }
        }
        queues.flight_bytes = bytes;
        bytes
    }

    /// How many ends of syncs are in flight.
    pub fn syncs_in_flight(&self) -> usize {
        self.queues.as_deref().map_or(0, |queues| {
            let flight = queues.flight[Lane::Message as usize] as usize;
            queues.lanes[Lane::Message as usize].iter().take(flight).filter(|entry| entry.mark == LogMark::SYNC_DONE).count()
        })
    }

    /// The flight has left: its frames are forgotten. Returns true when more waits, that is, when the connection is dirty again.
    pub fn landed(&mut self) -> bool {
        let Some(queues) = self.queues.as_deref_mut() else { return false };
        for lane in 0..LANES {
            for _ in 0..std::mem::take(&mut queues.flight[lane]) {
                let entry = queues.lanes[lane].pop_front().expect("a flight lies at the front of its lanes");
                queues.bytes[lane] -= entry.frame.len();
            }
        }
        queues.flight_bytes = 0;
        queues.invariants();
        if queues.lanes.iter().all(VecDeque::is_empty) {
            self.queues = None;
            return false;
        }
        queues.dirty = true;
        true
    }

    /// Puts a system message before the chat messages that wait.
    pub fn push_system(&mut self, frame: Frame, mark: LogMark) -> bool {
        let queues = self.queues.get_or_insert_default();
        let lane = Lane::Message as usize;
        queues.bytes[lane] += frame.len();
        let at = (queues.flight[lane] + queues.system) as usize;
        queues.lanes[lane].insert(at, Entry { frame, mark });
        queues.system += 1;
        queues.become_dirty()
    }

    /// Puts a frame whose older version, waiting under the same `key` in the same lane, it replaces. The ephemeral lane keeps
    /// at most [`EPHEMERAL_FRAMES_MAX`] frames and sheds its oldest; the reply lane keeps its order and is bounded by its
    /// keys. Counts in `shed` what was lost without a newer version.
    pub fn push_keyed(&mut self, lane: Lane, key: u64, frame: Frame, shed: &mut u64) -> bool {
        debug_assert!(lane != Lane::Message);
        let queues = self.queues.get_or_insert_default();
        let flight = queues.flight[lane as usize] as usize;
        let entries = &mut queues.lanes[lane as usize];
        let older = if key == 0 { None } else { (flight..entries.len()).find(|at| entries[*at].mark.seq == Seq(key)) };
        let victim =
            older.or_else(|| (lane == Lane::Ephemeral && entries.len() - flight >= EPHEMERAL_FRAMES_MAX).then_some(flight));
        if let Some(victim) = victim {
            *shed += u64::from(older.is_none());
            let entry = entries.remove(victim).expect("the index was just found");
            queues.bytes[lane as usize] -= entry.frame.len();
        }
        queues.bytes[lane as usize] += frame.len();
        entries.push_back(Entry { frame, mark: LogMark { seq: Seq(key), ..LogMark::NONE } });
        queues.become_dirty()
    }

    /// Takes back what waits under `key` and is not in flight. An outbox that it leaves empty is put away with the next frame
    /// that lands, so another one has to follow.
    pub fn withdraw(&mut self, lane: Lane, key: u64) {
        let Some(queues) = self.queues.as_deref_mut() else { return };
        let flight = queues.flight[lane as usize] as usize;
        let entries = &mut queues.lanes[lane as usize];
        if let Some(at) = (flight..entries.len()).find(|at| entries[*at].mark.seq == Seq(key)) {
            let entry = entries.remove(at).expect("the index was just found");
            queues.bytes[lane as usize] -= entry.frame.len();
        }
    }

    /// Puts the connection's last frame behind everything that waits; what is ephemeral is shed.
    pub fn push_last(&mut self, frame: Frame) -> bool {
        let queues = self.queues.get_or_insert_default();
        let lane = Lane::Ephemeral as usize;
        let flight = queues.flight[lane] as usize;
        for entry in queues.lanes[lane].drain(flight..) {
            queues.bytes[lane] -= entry.frame.len();
        }
        self.push(Lane::Ephemeral, frame, None)
    }

    /// Drops what is not in flight and can be read again, telling each one's mark, oldest first.
    pub fn shed_messages(&mut self, mut tell: impl FnMut(LogMark)) {
        let Some(queues) = self.queues.as_deref_mut() else { return };
        let lane = Lane::Message as usize;
        let flight = queues.flight[lane];
        let system_end = flight + std::mem::take(&mut queues.system);
        let (bytes, system) = (&mut queues.bytes[lane], &mut queues.system);
        let mut at = 0;
        queues.lanes[lane].retain(|entry| {
            at += 1;
            let stays = at <= flight || entry.mark.cursor == LogMark::NONE.cursor;
            if !stays {
                *bytes -= entry.frame.len();
                tell(entry.mark);
            } else if at > flight && at <= system_end {
                *system += 1;
            }
            stays
        });
        queues.lanes[lane].shrink_to_fit();
        queues.invariants();
    }

    /// Log entries of this cursor no longer move it when they are shed.
    pub fn forget_cursor(&mut self, cursor: u32) {
        let Some(queues) = self.queues.as_deref_mut() else { return };
        for entry in &mut queues.lanes[Lane::Message as usize] {
            if entry.mark.cursor == cursor {
                entry.mark = LogMark::NONE;
            }
        }
    }

    /// The first log entry of a cursor that waits or is in flight.
    pub fn first_waiting(&self, cursor: u32) -> Option<Seq> {
        let queues = self.queues.as_deref()?;
        queues.lanes[Lane::Message as usize].iter().filter(|entry| entry.mark.cursor == cursor).map(|entry| entry.mark.seq).min()
    }

    /// True when frames wait that are not in flight.
    pub fn is_waiting(&self) -> bool {
        self.queues.as_deref().is_some_and(Queues::is_waiting)
    }

    pub fn has_flight(&self) -> bool {
        self.queues.as_deref().is_some_and(|queues| queues.flight_bytes > 0)
    }

    pub fn is_empty(&self) -> bool {
        self.queues.is_none()
    }

    /// Bytes waiting and in flight in one lane.
    pub fn lane_bytes(&self, lane: Lane) -> usize {
        self.queues.as_deref().map_or(0, |queues| queues.bytes[lane as usize])
    }

    /// Bytes of what the client itself asked for, waiting and in flight: its requests are held back while there is too much.
    pub fn answer_bytes(&self) -> usize {
        self.lane_bytes(Lane::Control) + self.lane_bytes(Lane::Reply)
    }

    /// Bytes waiting and in flight.
    pub fn bytes(&self) -> usize {
        self.queues.as_deref().map_or(0, |queues| queues.bytes.iter().sum())
    }
}

impl Queues {
    fn is_waiting(&self) -> bool {
        self.lanes.iter().zip(self.flight).any(|(entries, flight)| entries.len() > flight as usize)
    }

    fn invariants(&self) {
        debug_assert!(
            self.lanes
                .iter()
                .zip(self.bytes)
                .all(|(entries, bytes)| { entries.iter().map(|entry| entry.frame.len()).sum::<usize>() == bytes }),
            "a lane's bytes are the sum of its frames"
        );
        debug_assert!(self.system as usize <= self.lanes[Lane::Message as usize].len());
    }

    fn become_dirty(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true) && self.flight_bytes == 0
    }
}

/// Ephemeral frames that wait for one connection at most.
pub const EPHEMERAL_FRAMES_MAX: usize = 64;

#[cfg(test)]
mod tests;
