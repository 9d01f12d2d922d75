//! Owns a shard's side of the wire that needs no kernel: bytes that arrived become events, and the engine takes them in.
//!
//! Never touches a socket: what is to be done is left in the effects, in `answers` and in `broken` for the turn. A panic of the
//! engine costs the one connection whose event it was. Lives on its shard's thread.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use smallvec::SmallVec;

use crate::auth::TokenFault;
use crate::engine::event::Opened;
use crate::engine::{Effects, Event, Shard};
use crate::metrics::ShardMetrics;
use crate::types::outcome::Fault;
use crate::types::{CloseCode, Frame, Now, SessionKey};
use crate::wire::frame::{Feed, FrameLimits, Item, Reader};
use crate::wire::json;
use crate::wire::upgrade;

use super::admission::Refusal;
use super::connection::{Connections, Flags, Phase};
use super::deadlines::Deadlines;
use super::handshake::{Greeter, Upgrade, Verdict};

/// The engine of one shard with its connections.
pub(super) struct Core {
    pub engine: Shard,
    pub effects: Effects,
    pub connections: Connections,
    /// The turn's time.
    pub now: Now,
    pub greeter: Greeter,
    pub limits: FrameLimits,
    /// For connections without a session.
    pub limits_unproven: FrameLimits,
    /// A message must be complete so long after its first byte, give or take a quarter.
    pub assembly_timeout_ms: u32,
    /// Messages come back as they are.
    pub echo: bool,
    /// Connections whose message is incomplete, to be looked at.
    pub watched: Deadlines,
    /// What the driver itself says to connections, before their session or instead of one.
    pub answers: Vec<Answer>,
    /// Connections that are to end at once.
    pub broken: Vec<SessionKey>,
    /// Events taken in.
    pub events: u64,
    /// Handshakes this turn may still look at.
    pub greetings_left: u32,
    pub scratch: json::Scratch,
    pub metrics: Box<ShardMetrics>,
    /// Open connections that their peers dropped without a close frame.
    pub peers_lost: u64,
}

/// An HTTP response.
#[derive(Debug)]
pub(super) struct Answer {
    pub key: SessionKey,
    pub frame: Frame,
    /// The connection ends with it.
    pub last: bool,
}

impl Core {
    /// Has the engine take in one event.
    pub fn step(&mut self, event: Event) {
        let key = subject(&event);
        self.events += 1;
        if let Err(cause) = self.try_step(event) {
            self.survive(key, cause);
        }
    }

    /// Answers a connection that may not stay.
    pub fn refuse(&mut self, key: SessionKey, refusal: Refusal) {
        self.metrics.connections_refused += 1;
        self.connections.at(key.slot).phase = Phase::Leaving;
        let frame = Frame::own(&self.greeter.refusal(refusal));
        self.answers.push(Answer { key, frame, last: true });
    }

    /// The socket of an open connection is gone, or of no use any more.
    pub fn gone(&mut self, key: SessionKey) {
        let lasted_ms = stamp(self.now.mono_ms()).wrapping_sub(self.connections.at(key.slot).since);
        self.metrics.connections = self.metrics.connections.saturating_sub(1);
        self.metrics.connection_seconds.record_us(u64::from(lasted_ms) * 1_000);
        self.step(Event::Gone { key });
    }

    /// True when these bytes must wait for the next turn: handshakes leave room for live traffic.
    pub fn must_wait(&mut self, slot: u32) -> bool {
        self.greetings_left == 0 && matches!(self.connections.at(slot).phase, Phase::Handshake(_))
    }

    /// Takes in bytes of a connection, whatever phase it is in.
    pub fn receive(&mut self, slot: u32, bytes: &mut [u8]) {
        self.metrics.bytes_received += bytes.len() as u64;
        match &mut self.connections.at(slot).phase {
            Phase::Open(_) => self.read_frames(slot, bytes),
            Phase::Handshake(_) => self.greet(slot, bytes),
            Phase::Free | Phase::Leaving | Phase::Closing => {}
        }
    }

    /// Looks at the next connection whose message is incomplete for long. Returns the ones that take too long.
    pub fn overdue(&mut self) -> Option<SessionKey> {
        let now_ms = self.now.mono_ms();
        while let Some(key) = self.watched.pop(now_ms) {
            let Some(connection) = self.connections.of(key) else { continue };
            let since = connection.partial_since;
            if since == 0 {
                connection.flags.clear(Flags::WATCHED);
            } else if stamp(now_ms).wrapping_sub(since) >= self.assembly_timeout_ms {
                connection.flags.clear(Flags::WATCHED);
                connection.partial_since = 0;
                return Some(key);
            } else {
                self.watched.push(key, now_ms);
            }
        }
        None
    }

    /// The peer broke the protocol: the engine says so and, since nothing more is read, waits for no answer.
    pub fn violate(&mut self, key: SessionKey, close: CloseCode, reason: &'static str) {
        self.step(Event::Violation { key, close, reason });
        self.step(Event::CloseReceived { key, code: None });
    }

    fn read_frames(&mut self, slot: u32, bytes: &mut [u8]) {
        let key = self.connections.key(slot);
        let connection = self.connections.at(slot);
        let limits = if connection.flags.has(Flags::SMALL) { self.limits_unproven } else { self.limits };
        let Phase::Open(reader) = &mut connection.phase else { return };
        // Out of the table while events are taken in, so that everything else can be reached.
        let mut reader = std::mem::take(reader);
        let mut feed = Feed::new(bytes);
        let mut finished = false;
        loop {
            match reader.next(&mut feed, &limits) {
                Ok(None) => break,
                Ok(Some(item)) => {
                    finished |= matches!(item, Item::Message { .. });
                    if !self.take_item(key, item) {
                        break;
                    }
                }
                Err(violation) => {
                    self.violate(key, violation.close(), violation.reason());
                    break;
                }
            }
        }
        self.keep_reader(key, reader, finished);
    }

    /// Returns false when nothing more of this connection is to be read.
    fn take_item(&mut self, key: SessionKey, item: Item<'_>) -> bool {
        match item {
            Item::Message { .. } | Item::Ping(_) | Item::Pong(_) if !self.engine.hears(key) => {}
            Item::Message { text, payload } if self.echo => {
                self.step(Event::Raw { key, text, payload: payload.to_vec() });
            }
            Item::Message { text: true, payload } => {
                let event = match json::decode(payload, &mut self.scratch) {
                    Ok(request) => Event::Request { key, request, bytes: payload.len() as u32 },
                    Err(refused) => Event::Refused { key, request: refused.request, fault: refused.fault },
                };
                self.step(event);
            }
            Item::Message { text: false, .. } => {
                self.violate(key, CloseCode::WrongFrameType, "binary frames are not part of this subprotocol");
                return false;
            }
            Item::Ping(payload) => self.step(Event::Ping { key, payload: SmallVec::from_slice(payload) }),
            Item::Pong(_) => self.step(Event::Pong { key }),
            Item::Close { code, .. } => {
                self.step(Event::CloseReceived { key, code });
                return false;
            }
        }
        true
    }

    /// Puts the reader back and notes since when a message has been incomplete; `finished` says that one ended meanwhile, so
    /// what is incomplete now is another. Control frames do not count: they may come in the middle of a message.
    fn keep_reader(&mut self, key: SessionKey, reader: Reader, finished: bool) {
        let now_ms = self.now.mono_ms();
        let connection = self.connections.at(key.slot);
        let partial = reader.is_partial();
        connection.phase = Phase::Open(reader);
        if !partial {
            connection.partial_since = 0;
        } else if finished || connection.partial_since == 0 {
            connection.partial_since = stamp(now_ms);
            if !connection.flags.has(Flags::WATCHED) {
                connection.flags.set(Flags::WATCHED);
                self.watched.push(key, now_ms);
            }
        }
    }

    fn greet(&mut self, slot: u32, bytes: &mut [u8]) {
        self.greetings_left = self.greetings_left.saturating_sub(1);
        let key = self.connections.key(slot);
        let Phase::Handshake(gathered) = &mut self.connections.at(slot).phase else { return };
        if gathered.is_empty() {
            // Nearly always the whole request is in one piece, and nothing needs to be copied.
            let verdict = self.greeter.judge(bytes, self.now);
            return self.conclude(key, verdict, bytes);
        }
        let mut gathered = std::mem::take(gathered);
        gathered.extend_from_slice(bytes);
        let verdict = self.greeter.judge(&gathered, self.now);
        self.conclude(key, verdict, &mut gathered);
    }

    /// The token was good once; the greeter knows no list.
    fn is_revoked(&self, upgrade: &Upgrade) -> bool {
        upgrade.identity.as_ref().is_some_and(|identity| self.engine.check_revoked(identity, self.now.wall).is_err())
    }

    fn conclude(&mut self, key: SessionKey, verdict: Verdict, bytes: &mut [u8]) {
        match verdict {
            Verdict::Incomplete => self.connections.at(key.slot).phase = Phase::Handshake(bytes.to_vec()),
            Verdict::Answer { response, refused } => {
                self.metrics.connections_refused += u64::from(refused);
                self.connections.at(key.slot).phase = Phase::Leaving;
                self.answers.push(Answer { key, frame: Frame::own(&response), last: true });
            }
            Verdict::Upgrade(upgrade) if self.is_revoked(&upgrade) => {
                let refusal = upgrade::Refusal::from(&Fault::from(TokenFault::Revoked));
                let verdict = Verdict::Answer { response: refusal.to_bytes(), refused: true };
                self.conclude(key, verdict, bytes);
            }
            Verdict::Upgrade(upgrade) => {
                self.connections.at(key.slot).phase = Phase::Open(Reader::new());
                self.answers.push(Answer { key, frame: Frame::own(&upgrade.response), last: false });
                self.metrics.opened();
                let connection = self.connections.at(key.slot);
                if upgrade.identity.is_some() || self.echo {
                    connection.flags.clear(Flags::SMALL);
                }
                let remote = connection.remote;
                let opened = Opened { key, remote, identity: upgrade.identity, wishes: upgrade.wishes, echo: self.echo };
                self.step(Event::Opened(Box::new(opened)));
                if upgrade.used < bytes.len() {
                    self.read_frames(key.slot, &mut bytes[upgrade.used..]);
                }
            }
        }
    }

    fn try_step(&mut self, event: Event) -> Result<(), Box<dyn Any + Send>> {
        // The engine keeps its tables consistent between calls of its own methods; what a panic may leave half done is the
        // session of the event, which is closed.
        catch_unwind(AssertUnwindSafe(|| self.engine.handle(event, self.now, &mut self.effects)))
    }

    #[cold]
    fn survive(&mut self, key: Option<SessionKey>, cause: Box<dyn Any + Send>) {
        self.metrics.faults_caught += 1;
        let cause = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
        tracing::error!(cause = cause.unwrap_or("unknown"), ?key, "a handler panicked; its connection is closed");
        let Some(key) = key else { return };
        let close = Event::Violation { key, close: CloseCode::Internal, reason: "internal" };
        let said = self.try_step(close).and_then(|()| self.try_step(Event::CloseReceived { key, code: None }));
        if said.is_err() {
            self.broken.push(key);
        }
    }
}

/// The connection that an event is about.
fn subject(event: &Event) -> Option<SessionKey> {
    match event {
        Event::Opened(opened) => Some(opened.key),
        Event::Request { key, .. }
        | Event::Refused { key, .. }
        | Event::Raw { key, .. }
        | Event::Ping { key, .. }
        | Event::Pong { key }
        | Event::Violation { key, .. }
        | Event::CloseReceived { key, .. }
        | Event::Sent { key, .. }
        | Event::Gone { key } => Some(*key),
        Event::Mesh { .. }
        | Event::Store(_)
        | Event::StoreRefused { .. }
        | Event::Operator(_)
        | Event::Call { .. }
        | Event::Tick
        | Event::Drain { .. } => None,
    }
}

/// Monotonic milliseconds as kept in a connection: never 0, wrapping after 49 days.
pub(super) fn stamp(now_ms: u64) -> u32 {
    (now_ms as u32).max(1)
}
