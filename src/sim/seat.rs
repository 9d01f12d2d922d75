//! Owns one shard of a simulated node: its engine, what waits to be taken in, and which connection holds which slot. Never
//! decides when: the node does.

use std::collections::VecDeque;

use crate::engine::{Effects, Event, Shard};
use crate::mesh::Port;
use crate::types::SessionKey;
use crate::types::envelope::Envelope;

use super::socket::{LineId, Piece};

/// What a shard takes in at its next turn.
#[derive(Debug)]
pub(super) enum Incoming {
    /// From the mesh, the store or an operator.
    Event(Box<Event>),
    /// A new connection.
    Open(LineId),
    /// What a client has said.
    From(LineId, Piece),
    /// A flight has left.
    Sent(LineId),
}

/// A shard.
pub(super) struct Seat {
    pub engine: Shard,
    pub port: Port<Envelope>,
    /// It sleeps, or is about to, and says so to those who give it something.
    pub parked: bool,
    /// Its doorbell was rung and will be heard.
    pub rung: bool,
    /// It takes no turn before this time.
    pub stalled_until_us: u64,
    pub effects: Effects,
    pub inbox: VecDeque<Incoming>,
    /// A turn is on the agenda.
    pub turn_planned: bool,
    /// A deadline is on the agenda for this time.
    pub wake_at_us: Option<u64>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    line: Option<LineId>,
}

impl Seat {
    pub fn new(engine: Shard, port: Port<Envelope>) -> Seat {
        Seat {
            engine,
            port,
            parked: false,
            rung: false,
            stalled_until_us: 0,
            effects: Effects::default(),
            inbox: VecDeque::new(),
            turn_planned: false,
            wake_at_us: None,
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Gives a new connection a slot.
    pub fn enter(&mut self, line: LineId) -> SessionKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, line: None });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.generation += 1;
        place.line = Some(line);
        SessionKey { slot, generation: place.generation }
    }

    /// Takes a slot back.
    pub fn leave(&mut self, key: SessionKey) {
        let place = &mut self.slots[key.slot as usize];
        assert!(place.generation == key.generation && place.line.is_some(), "a slot is given back once");
        place.line = None;
        self.free.push(key.slot);
    }

    /// The connection of a key, unless it is gone.
    pub fn line(&self, key: SessionKey) -> Option<LineId> {
        let place = self.slots.get(key.slot as usize)?;
        place.line.filter(|_| place.generation == key.generation)
    }
}
