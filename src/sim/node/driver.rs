//! Owns the driver's part of a node: collect, step, apply, flush. Never decides; it does what effects say, as the real driver
//! does it.

use std::net::{IpAddr, Ipv4Addr};

use super::super::agenda::Happening;
use super::super::seat::Incoming;
use super::super::socket::{LineId, Piece, Server};
use super::Node;
use crate::engine::effects::DirectoryChange;
use crate::engine::event::Opened;
use crate::engine::{Effects, Event};
use crate::types::command::Wishes;
use crate::types::{CloseCode, Now, SessionKey};
use crate::wire::frame::{Feed, FrameLimits, Item};
use crate::wire::json::{Scratch, decode};

impl Node {
    fn now(&self) -> Now {
        Now { wall: self.wall(), mono_us: self.now_us }
    }

    pub(super) fn step(&mut self, shard: usize, event: Event) {
        let now = self.now();
        self.tally.events += 1;
        let seat = &mut self.seats[shard];
        seat.engine.handle(event, now, &mut seat.effects);
    }

    pub(super) fn turn(&mut self, shard: usize) {
        let seat = &mut self.seats[shard];
        if seat.stalled_until_us > self.now_us {
            return self.agenda.put(seat.stalled_until_us, Happening::Turn(shard));
        }
        seat.turn_planned = false;
        seat.parked = false;
        seat.port.unpark();
        self.collect(shard);
        if self.seats[shard].engine.next_deadline_ms().is_some_and(|due| due <= self.now_ms()) {
            self.step(shard, Event::Tick);
        }
        while !self.seats[shard].effects.is_empty() {
            self.apply(shard);
        }
        self.flush_mesh(shard);
        self.rest(shard);
        self.turns += 1;
        self.judge_sleepers();
        if self.turns.is_multiple_of(TURNS_PER_SAMPLE) {
            self.judge_queues();
        }
    }

    pub(super) fn take_in(&mut self, shard: usize, incoming: Incoming) {
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
            Incoming::From(line, piece) => self.hear(line, piece),
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
    fn hear(&mut self, line: LineId, piece: Piece) {
        let Piece::Bytes(mut bytes) = piece else { return self.end(line) };
        let found = &mut self.lines[line.0];
        let (shard, key) = (found.shard, found.key);
        if found.server != Server::Open {
            return;
        }
        let mut feed = Feed::new(&mut bytes);
        let mut events = Vec::new();
        loop {
            match found.reader.next(&mut feed, &FrameLimits::new(self.settings.message_bytes_max)) {
                Ok(None) => break,
                Ok(Some(item)) => events.push(event_of(key, item, &mut self.scratch)),
                Err(violation) => {
                    self.tally.fault("garbage from a client");
                    events.push(Event::Violation { key, close: violation.close(), reason: violation.reason() });
                    events.push(Event::CloseReceived { key, code: None });
                    break;
                }
            }
        }
        for event in events {
            self.step(shard, event);
        }
    }

    fn apply(&mut self, shard: usize) {
        let effects = std::mem::take(&mut self.seats[shard].effects);
        let Effects { forward, store, dirty, shut, reading, directory, answers } = effects;
        for (number, outcome) in answers {
            self.answer(number, outcome);
        }
        for (to, envelope) in forward {
            self.seats[shard].port.push(to, envelope);
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

fn event_of(key: SessionKey, item: Item<'_>, scratch: &mut Scratch) -> Event {
    match item {
        Item::Message { text: true, payload } => match decode(payload, scratch) {
            Ok(request) => Event::Request { key, request, bytes: payload.len() as u32 },
            Err(fault) => Event::Refused { key, request: fault.request, fault: fault.fault },
        },
        Item::Message { text: false, .. } => Event::Violation { key, close: CloseCode::WrongFrameType, reason: "binary" },
        Item::Ping(payload) => Event::Ping { key, payload: payload.into() },
        Item::Pong(_) => Event::Pong { key },
        Item::Close { code, .. } => Event::CloseReceived { key, code },
    }
}

/// Turns between two looks at all queues.
const TURNS_PER_SAMPLE: u64 = 8;
const FLIGHT_BYTES_MAX: usize = 256 << 10;
/// A connection that is to end gets so long for its last bytes, as with the real driver.
const LINGER_US: u64 = 2_000_000;
