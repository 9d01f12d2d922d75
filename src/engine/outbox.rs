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

#[derive(Debug)]
struct Entry {
    frame: Frame,
    /// Message lane: its log position. Other lanes: `cursor == u32::MAX` and the conflation key in `seq` (0 = none).
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
    /// Frames pushed and taken for good since the outbox was last empty of them.
    dirty: bool,
}

impl Outbox {
    /// Puts a frame at the end of a lane. Returns true when the outbox had nothing waiting before and no flight is under way,
    /// that is, when its connection has just become dirty.
    pub fn push(&mut self, lane: Lane, frame: Frame, mark: Option<LogMark>) -> bool {
        let queues = self.queues.get_or_insert_default();
        let len = frame.len();
        let mark = mark.unwrap_or(LogMark { cursor: u32::MAX, seq: Seq::NONE });
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
                frames.push(entry.frame.clone());
            }
        }
        queues.flight_bytes = bytes;
        bytes
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
        if queues.lanes.iter().all(VecDeque::is_empty) {
            self.queues = None;
            return false;
        }
        queues.become_dirty()
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

    /// Bytes waiting and in flight.
    pub fn bytes(&self) -> usize {
        self.queues.as_deref().map_or(0, |queues| queues.bytes.iter().sum())
    }
}

impl Queues {
    fn is_waiting(&self) -> bool {
        self.lanes.iter().zip(self.flight).any(|(entries, flight)| entries.len() > flight as usize)
    }

    fn become_dirty(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true) && self.flight_bytes == 0
    }
}
