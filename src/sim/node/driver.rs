//! Owns the driver's part of a node: collect, step, apply, flush. Never decides; it does what effects say, as the real driver
//! does it.

use std::net::{IpAddr, Ipv4Addr};

use super::super::agenda::Happening;
use super::super::seat::Incoming;
use super::super::socket::{LineId, Said, Server};
use super::{Delay, Node};
use crate::engine::effects::DirectoryChange;
use crate::engine::event::Opened;
use crate::engine::{Effects, Event};
use crate::types::command::Wishes;
use crate::types::envelope::Envelope;
use crate::types::{CloseCode, Now, SessionKey};
use crate::wire::json::decode;

impl Node {
    fn now(&self) -> Now {
        Now { wall: self.wall(), mono_us: self.now_us }
    }

    pub(super) fn step(&mut self, shard: usize, event: Event) {
        let now = self.now();
        let seat = &mut self.seats[shard];
        seat.engine.handle(event, now, &mut seat.effects);
    }

    pub(super) fn turn(&mut self, shard: usize) {
        self.seats[shard].turn_planned = false;
        let events = self.random.usize(1..=self.plan.pace.events_per_turn_max);
        for _ in 0..events {
            let Some(incoming) = self.seats[shard].inbox.pop_front() else { break };
            self.take_in(shard, incoming);
        }
        if self.seats[shard].engine.next_deadline_ms().is_some_and(|due| due <= self.now_ms()) {
            self.step(shard, Event::Tick);
        }
        while !self.seats[shard].effects.is_empty() {
            self.apply(shard);
        }
        if !self.seats[shard].inbox.is_empty() {
            return self.plan_turn(shard);
        }
        let Some(due_ms) = self.seats[shard].engine.next_deadline_ms() else { return };
        if due_ms <= self.now_ms() {
            return self.plan_turn(shard);
        }
        let due_us = due_ms * 1_000;
        let seat = &mut self.seats[shard];
        if seat.wake_at_us.is_none_or(|at_us| at_us > due_us) {
            seat.wake_at_us = Some(due_us);
            self.agenda.put(due_us, Happening::Wake(shard));
        }
    }

    fn take_in(&mut self, shard: usize, incoming: Incoming) {
        match incoming {
            Incoming::Event(event) => self.step(shard, *event),
            Incoming::Open(line) => {
                let opened = Opened {
                    key: self.lines[line.0].key,
                    remote: IpAddr::V4(Ipv4Addr::LOCALHOST),
                    identity: None,
                    wishes: Wishes::default(),
                    echo: false,
                };
                self.step(shard, Event::Opened(Box::new(opened)));
            }
            Incoming::From(line, said) => self.hear(line, said),
            Incoming::Sent(line) => {
                let found = &mut self.lines[line.0];
                found.sent_planned = false;
                let bytes = found.flight_bytes.take().expect("a flight leaves once");
                if found.server == Server::Open {
                    let key = found.key;
                    self.step(shard, Event::Sent { key, bytes });
                    self.leave_if_done(line);
                }
            }
        }
    }

    /// The driver reads what a client has said.
    fn hear(&mut self, line: LineId, said: Said) {
        let found = &self.lines[line.0];
        let (shard, key) = (found.shard, found.key);
        if found.server != Server::Open {
            if said == Said::End {
                self.end(line);
            }
            return;
        }
        let event = match said {
            Said::Text(text) => match decode(&text, &mut self.scratch) {
                Ok(request) => Event::Request { key, request, bytes: text.len() as u32 },
                Err(fault) => Event::Refused { key, request: fault.request, fault: fault.fault },
            },
            Said::Ping(payload) => Event::Ping { key, payload: payload.as_slice().into() },
            Said::Pong => Event::Pong { key },
            Said::Close(code) => Event::CloseReceived { key, code: Some(code) },
            Said::Garbage => Event::Violation { key, close: CloseCode::Protocol, reason: "garbage" },
            Said::End => return self.end(line),
        };
        self.step(shard, event);
    }

    fn apply(&mut self, shard: usize) {
        let effects = std::mem::take(&mut self.seats[shard].effects);
        let Effects { forward, store, dirty, shut, reading, directory, answers } = effects;
        debug_assert!(answers.is_empty(), "nobody calls in a simulation");
        for (to, envelope) in forward {
            self.forward(shard, to.index(), envelope);
        }
        for request in store {
            self.ask_store(shard, request);
        }
        for change in directory {
            self.change_directory(shard, change);
        }
        for (key, wanted) in reading {
            if let Some(line) = self.seats[shard].line(key) {
                self.lines[line.0].held = !wanted;
                if wanted {
                    self.plan_upload(line);
                }
            }
        }
        for key in dirty {
            self.flush(shard, key);
        }
        for key in shut {
            self.shut(shard, key);
        }
    }

    fn forward(&mut self, from: usize, to: usize, envelope: Envelope) {
        assert_ne!(from, to, "a shard does not send to itself");
        let delay_us = self.draw(Delay::Mesh);
        let ring = &mut self.rings[from * self.seats.len() + to];
        ring.1 = ring.1.max(self.now_us + delay_us);
        ring.0.push_back(envelope);
        self.agenda.put(ring.1, Happening::Arrive { from, to });
    }

    fn change_directory(&mut self, shard: usize, change: DirectoryChange) {
        match change {
            DirectoryChange::Enter { key, session, .. } => {
                let before = self.directory.insert((shard, key), session);
                assert!(before.is_none(), "a session enters the directory once");
            }
            DirectoryChange::Leave { key } => {
                let before = self.directory.remove(&(shard, key));
                assert!(before.is_some(), "only a session that entered leaves the directory");
            }
        }
    }

    fn flush(&mut self, shard: usize, key: SessionKey) {
        let Some(line) = self.seats[shard].line(key) else { return };
        if self.lines[line.0].server != Server::Open {
            return;
        }
        let frames_max = self.random.usize(1..=self.plan.pace.flight_frames_max);
        let Some(outbox) = self.seats[shard].engine.outbox(key) else { return };
        let mut frames = Vec::new();
        let bytes = outbox.take(frames_max, FLIGHT_BYTES_MAX, &mut frames);
        if bytes == 0 {
            return;
        }
        let found = &mut self.lines[line.0];
        assert!(found.flight_bytes.is_none(), "one flight at a time");
        found.flight_bytes = Some(bytes as u32);
        found.downward.extend(frames);
        found.downward_bytes += bytes;
        self.plan_sent(line);
        self.plan_download(line);
    }

    fn shut(&mut self, shard: usize, key: SessionKey) {
        let Some(line) = self.seats[shard].line(key) else { return };
        let found = &mut self.lines[line.0];
        if found.server == Server::Open && !found.shut {
            found.shut = true;
            self.agenda.put(self.now_us + LINGER_US, Happening::Linger(line.0));
            self.leave_if_done(line);
        }
    }

    fn leave_if_done(&mut self, line: LineId) {
        let found = &self.lines[line.0];
        let (shard, key) = (found.shard, found.key);
        if found.server != Server::Open || !found.shut || found.flight_bytes.is_some() {
            return;
        }
        if self.seats[shard].engine.outbox(key).is_some_and(|outbox| outbox.is_waiting()) {
            return;
        }
        self.lines[line.0].server = Server::Leaving;
        self.step(shard, Event::Gone { key });
        self.plan_turn(shard);
        self.plan_download(line);
    }

    /// The server's end of a connection is closed.
    pub(super) fn end(&mut self, line: LineId) {
        let found = &mut self.lines[line.0];
        let (shard, key, before) = (found.shard, found.key, found.server);
        if before == Server::Closed {
            return;
        }
        found.server = Server::Closed;
        if before == Server::Open {
            self.step(shard, Event::Gone { key });
            self.plan_turn(shard);
        }
        self.seats[shard].leave(key);
        self.plan_download(line);
    }
}

const FLIGHT_BYTES_MAX: usize = 256 << 10;
/// A connection that is to end gets so long for its last bytes, as with the real driver.
const LINGER_US: u64 = 2_000_000;
