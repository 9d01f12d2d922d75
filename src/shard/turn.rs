//! Owns the turn of a shard: collect what happened, step the engine, apply its effects, flush what waits to leave, rest.
//!
//! Never decides what is said; the engine does. Lives on its shard's thread as the one foreground task.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::engine::Event;
use crate::engine::effects::DirectoryChange;
use crate::mesh::directory::{Directory, Entry};
use crate::mesh::{Inbox, Port};
use crate::store::StoreClient;
use crate::types::envelope::Envelope;
use crate::types::outcome::Fault;
use crate::types::storage::StoreRequest;
use crate::types::{CloseCode, ErrorName, Frame, Millis, SessionKey};

use super::admission::{Admission, ConnectRate, Refusal};
use super::calls::Calls;
use super::clock::Clock;
use super::connection::{Flags, Phase};
use super::core::{Core, stamp};
use super::deadlines::Deadlines;
use super::handshake::Frontpage;
use super::ring::{Completion, ReceiveEnd, Ring};
use super::upkeep::Survey;
use super::{DriverSettings, Order};

#[cfg(test)]
mod tests;

/// A shard's driver: everything it owns.
pub(super) struct Driver {
    pub ring: Ring,
    pub core: Core,
    pub clock: Clock,
    pub port: Port<Envelope>,
    pub inbox: Inbox<Order>,
    pub calls: Calls,
    /// None: nothing is kept (echo).
    pub store: Option<StoreClient>,
    pub directory: Arc<Directory>,
    pub frontpage: Arc<Frontpage>,
    pub admission: Arc<Admission>,
    pub rate: ConnectRate,
    pub handshakes: Deadlines,
    pub leaving: Deadlines,
    /// Connections to receive from again.
    pub rearm: Vec<SessionKey>,
    /// Bytes that arrived while the mesh or the store was full; their buffers stay out, which holds back everybody.
    pub held: VecDeque<(u32, u16)>,
    /// By slot: what had arrived when the engine stopped reading from a connection. A connection stops receiving at once, so this
    /// is at most what the kernel had handed over by then.
    pub late: HashMap<u32, Vec<u8>>,
    /// Some of it may be taken in now.
    pub late_ready: bool,
    /// Accepting pauses until then, in monotonic milliseconds; 0 = it does not.
    pub accept_again_ms: u64,
    pub idle_listeners: Vec<u32>,
    /// Refused connections whose response is on its way.
    pub refusing: usize,
    /// What other shards have said, on its way to the engine.
    pub heard: Vec<(crate::types::ShardId, Envelope)>,
    pub scratch: Vec<Frame>,
    pub draining: bool,
    pub stopped: bool,
    /// The store's threads have ended.
    pub store_lost: bool,
    pub survey: Survey,
    pub settings: DriverSettings,
    /// Events until the last turn that had any, and until when (monotonic microseconds) the shard spins after it.
    pub spin: (u64, u64),
}

impl Driver {
    /// One turn without its rest.
    pub fn turn(&mut self) {
        self.core.now = self.clock.now();
        self.collect();
        self.pass_time();
        self.apply();
        self.flush();
        self.frontpage.tell_online(self.port.shard(), self.core.engine.counters().online_users);
        let took_us = self.clock.mono_us() - self.core.now.mono_us;
        self.core.metrics.turn_seconds.record_us(took_us);
    }

    /// Waits for something to do, at most until the next deadline; one system call.
    pub fn rest(&mut self) -> io::Result<()> {
        let park = self.park_time();
        if park == Duration::ZERO || self.is_spinning() {
            return self.ring.enter(Some(Duration::ZERO));
        }
        let may_sleep = self.port.park(|| self.inbox.is_empty() && self.store.as_ref().is_none_or(StoreClient::is_idle));
        let entered = self.ring.enter(Some(if may_sleep { park } else { Duration::ZERO }));
        self.port.unpark();
        entered
    }

    /// True while an idle shard still looks for work instead of sleeping.
    fn is_spinning(&mut self) -> bool {
        if self.settings.spin_us == 0 {
            return false;
        }
        let now_us = self.core.now.mono_us;
        if self.core.events != self.spin.0 {
            self.spin = (self.core.events, now_us + self.settings.spin_us);
        }
        now_us < self.spin.1
    }

    /// Takes in what the kernel, the other shards and other threads have brought, up to a turn's worth.
    fn collect(&mut self) {
        self.core.greetings_left = self.settings.handshakes_per_turn_max;
        let orders = self.take_orders();
        if !self.is_held_back() {
            for _ in 0..self.held.len() {
                let Some((slot, buffer)) = self.held.pop_front() else { break };
                self.received(slot, buffer);
            }
        }
        self.take_late();
        let events_max = self.core.events + EVENTS_PER_TURN_MAX;
        while self.core.events < events_max
            && let Some(completion) = self.ring.next_completion()
        {
            self.completed(completion);
        }
        let core = &mut self.core;
        let heard = &mut self.heard;
        self.port.drain(MESH_PER_TURN_MAX, &mut |from, envelope| heard.push((from, envelope)));
        // A client that comes back on another shard must not overtake what its former shard said of it.
        heard.sort_by_key(|(_, envelope)| envelope.sent_us);
        for (from, envelope) in heard.drain(..) {
            core.step(Event::Mesh { from, envelope });
        }
        if let Some(store) = &mut self.store {
            store.drain(REPLIES_PER_TURN_MAX, &mut |reply| core.step(Event::Store(reply)));
        }
        for order in orders {
            self.obey(order);
        }
    }

    /// Everything in the inbox, to be obeyed after what the other shards have said before it. Only revocations are obeyed at
    /// once: whoever shows a token after its revocation was answered was heard by the last entry into the kernel at the
    /// earliest, and by then the order was here. So no turn admits a token that an operator was told is of no use.
    fn take_orders(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        self.inbox.drain(self.inbox.len(), &mut |order| orders.push(order));
        let (revocations, orders): (Vec<Order>, Vec<Order>) = orders.into_iter().partition(Order::is_revocation);
        for revocation in revocations {
            self.obey(revocation);
        }
        orders
    }

    /// Takes in a buffer, or keeps it for a later turn.
    fn received(&mut self, slot: u32, buffer: u16) {
        let behind = !self.held.is_empty() && self.held.iter().any(|(other, _)| *other == slot);
        if behind || self.is_held_back() || self.core.must_wait(slot) {
            self.held.push_back((slot, buffer));
            return;
        }
        let bytes = self.ring.filled(buffer);
        let is_late = self.core.connections.at(slot).flags.has(Flags::HELD) || self.late_ready && self.late.contains_key(&slot);
        if is_late {
            self.late.entry(slot).or_default().extend_from_slice(bytes);
        } else {
            self.core.receive(slot, bytes);
        }
        self.ring.give_back(buffer);
        self.follow_reading();
    }

    /// Stops or resumes reading as the engine wants, at once: what comes behind must not be taken in any more.
    fn follow_reading(&mut self) {
        for (key, wanted) in self.core.effects.reading.drain(..) {
            let Some(connection) = self.core.connections.of(key) else { continue };
            if wanted {
                connection.flags.clear(Flags::HELD);
                self.rearm.push(key);
                self.late_ready |= self.late.contains_key(&key.slot);
            } else {
                connection.flags.set(Flags::HELD);
                self.ring.pause(key.slot);
            }
        }
    }

    /// Takes in what arrived before reading stopped, for connections that are read from again.
    fn take_late(&mut self) {
        if !std::mem::take(&mut self.late_ready) {
            return;
        }
        let connections = &mut self.core.connections;
        let ready: Vec<u32> = self.late.keys().copied().filter(|slot| !connections.at(*slot).flags.has(Flags::HELD)).collect();
        for slot in ready {
            let mut bytes = self.late.remove(&slot).unwrap_or_default();
            self.core.receive(slot, &mut bytes);
            self.follow_reading();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Operator(body) => self.core.step(Event::Operator(body)),
            Order::Call { call, answer } => match self.calls.enter(answer, self.core.now.mono_ms()) {
                Ok(number) => self.core.step(Event::Call { number, call }),
                Err(answer) => answer(Err(Fault::retry(ErrorName::Overloaded, "too many requests are under way", 1_000))),
            },
            Order::Drain { window_ms } => {
                self.draining = true;
                self.ring.stop_listening();
                self.core.step(Event::Drain { window_ms });
            }
            Order::Stop => self.stopped = true,
        }
    }

    fn completed(&mut self, completion: Completion) {
        match completion {
            Completion::Received { slot, buffer, ended } => {
                if ended {
                    self.rearm.push(self.core.connections.key(slot));
                }
                self.received(slot, buffer);
            }
            Completion::Sent { slot, bytes } => self.sent(slot, bytes),
            Completion::ReceiveEnded { slot, end } => self.receive_ended(slot, end),
            Completion::SendFailed { slot, .. } => self.lost(slot),
            Completion::Closed { slot } => self.closed(slot),
            Completion::Accepted { listener, result, ended } => self.accepted(listener, result, ended),
            Completion::Rung => {}
        }
    }

    /// Work must not come in faster than it can go on.
    fn is_held_back(&self) -> bool {
        self.port.is_congested()
    }

    fn receive_ended(&mut self, slot: u32, end: ReceiveEnd) {
        match end {
            ReceiveEnd::NoBuffers => self.rearm.push(self.core.connections.key(slot)),
            // The engine may have changed its mind meanwhile.
            ReceiveEnd::Paused if !self.core.connections.at(slot).flags.has(Flags::HELD) => {
                self.rearm.push(self.core.connections.key(slot));
            }
            ReceiveEnd::Paused => {}
            ReceiveEnd::Closed | ReceiveEnd::Failed(_) => self.lost(slot),
        }
    }

    /// Forgets what waits for a connection which is ending: its slot may soon be another's.
    fn drop_held(&mut self, slot: u32) {
        self.late.remove(&slot);
        let ring = &mut self.ring;
        self.held.retain(|(other, buffer)| {
            if *other == slot {
                ring.give_back(*buffer);
            }
            *other != slot
        });
    }

    fn sent(&mut self, slot: u32, bytes: u32) {
        let key = self.core.connections.key(slot);
        let connection = self.core.connections.at(slot);
        if connection.flags.take(Flags::OWN_FLIGHT) {
            let dirty = connection.flags.take(Flags::DIRTY);
            match connection.phase {
                Phase::Leaving => self.ring.shut_write(slot),
                _ if dirty => self.core.effects.dirty.push(key),
                _ => {}
            }
        } else if matches!(connection.phase, Phase::Open(_)) {
            self.core.metrics.bytes_sent += u64::from(bytes);
            self.core.step(Event::Sent { key, bytes });
        }
        self.leave_if_done(key);
    }

    /// The peer has closed or reset the socket.
    fn lost(&mut self, slot: u32) {
        let key = self.core.connections.key(slot);
        let connection = self.core.connections.at(slot);
        let is_open = matches!(connection.phase, Phase::Open(_)) && !connection.flags.has(Flags::SHUT);
        // An end is counted once: one that a close frame announced was.
        if is_open && !self.core.engine.is_closing(key) {
            self.core.peers_lost += 1;
        }
        self.end(slot);
    }

    /// Ends a connection at once.
    fn end(&mut self, slot: u32) {
        let key = self.core.connections.key(slot);
        let connection = self.core.connections.at(slot);
        let was_open = matches!(connection.phase, Phase::Open(_));
        connection.phase = Phase::Closing;
        connection.partial_since = 0;
        if was_open {
            self.core.gone(key);
        }
        self.drop_held(slot);
        self.ring.close(slot);
    }

    fn closed(&mut self, slot: u32) {
        let connection = self.core.connections.at(slot);
        if connection.flags.has(Flags::UNPROVEN) {
            self.admission.prove();
        }
        if connection.flags.has(Flags::ADMITTED) {
            self.admission.leave(connection.remote);
        } else {
            self.refusing -= 1;
        }
        self.core.connections.leave(slot);
        if self.accept_again_ms > 0 {
            // A descriptor is free again.
            self.accept_again_ms = self.core.now.mono_ms();
        }
    }

    fn accepted(&mut self, listener: u32, result: Result<OwnedFd, Errno>, ended: bool) {
        let exhausted = match result {
            Ok(socket) => {
                self.welcome(socket);
                false
            }
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => true,
            // The peer has gone again, or the like: the next one may be better.
            Err(_) => false,
        };
        if ended && !self.draining {
            self.idle_listeners.push(listener);
            if exhausted && self.accept_again_ms == 0 {
                tracing::warn!("out of descriptors or memory: accepting pauses; raise the limit of open files");
            }
            let pause_ms = if exhausted { ACCEPT_PAUSE_MS } else { 0 };
            self.accept_again_ms = self.core.now.mono_ms() + pause_ms;
        }
    }

    fn welcome(&mut self, socket: OwnedFd) {
        let Ok(Some(remote)) = rustix::net::getpeername(&socket).map(|peer| peer.and_then(ip_of)) else { return };
        let now_ms = self.core.now.mono_ms();
        let admitted = if self.rate.take(now_ms) { self.admission.enter(remote) } else { Err(Refusal::TooFast) };
        if admitted.is_err() && self.refusing >= REFUSING_MAX {
            return;
        }
        let key = self.core.connections.enter(remote, stamp(now_ms));
        self.ring.open(key.slot, socket);
        match admitted {
            Ok(()) => {
                let flags = &mut self.core.connections.at(key.slot).flags;
                flags.set(Flags::ADMITTED);
                flags.set(Flags::UNPROVEN);
                flags.set(Flags::SMALL);
                self.handshakes.push(key, now_ms);
                self.ring.receive(key.slot);
            }
            Err(refusal) => {
                self.refusing += 1;
                self.core.refuse(key, refusal);
            }
        }
    }

    /// Looks at every deadline.
    fn pass_time(&mut self) {
        let now_ms = self.core.now.mono_ms();
        if self.core.engine.next_deadline_ms().is_some_and(|due| due <= now_ms) {
            self.core.step(Event::Tick);
        }
        while let Some(key) = self.handshakes.pop(now_ms) {
            if self.core.connections.of(key).is_some_and(|connection| matches!(connection.phase, Phase::Handshake(_))) {
                self.core.metrics.connections_refused += 1;
                self.end(key.slot);
            }
        }
        let connections = &mut self.core.connections;
        self.handshakes.trim(|key| connections.of(key).is_none_or(|connection| !matches!(connection.phase, Phase::Handshake(_))));
        while let Some(key) = self.leaving.pop(now_ms) {
            if self.core.connections.of(key).is_some_and(|connection| !matches!(connection.phase, Phase::Closing)) {
                self.end(key.slot);
            }
        }
        while let Some(key) = self.core.overdue() {
            self.core.violate(key, CloseCode::Protocol, "a message was not completed in time");
        }
        if self.accept_again_ms != 0 && self.accept_again_ms <= now_ms {
            self.accept_again_ms = 0;
            for listener in std::mem::take(&mut self.idle_listeners) {
                self.ring.accept(listener);
            }
        }
    }

    /// Does what the engine wants from others than the sockets.
    fn apply(&mut self) {
        for (target, envelope) in self.core.effects.forward.drain(..) {
            self.core.metrics.mesh_to[target.index()] += 1;
            self.port.push(target, envelope);
        }
        for target in self.port.flush() {
            self.ring.ring(target.index());
        }
        if !self.core.effects.store.is_empty() {
            self.ask_store();
        }
        let mut changes = std::mem::take(&mut self.core.effects.directory);
        for change in changes.drain(..) {
            self.change_directory(change);
        }
        self.core.effects.directory = changes;
        for (number, outcome) in self.core.effects.answers.drain(..) {
            self.calls.answer(number, outcome);
        }
    }

    /// Sends the turn's requests to the store; those it has no room for are refused at once.
    fn ask_store(&mut self) {
        let mut requests = std::mem::take(&mut self.core.effects.store);
        let retry_after_ms = match self.store.as_mut().map(|store| store.submit(&mut requests)) {
            Some(Ok(())) => {
                self.core.effects.store = requests;
                return;
            }
            Some(Err(refused)) => refused.retry_after_ms,
            // An echo server asks for nothing; if it did, it would be told to wait for ever.
            None => u64::from(u32::MAX),
        };
        for StoreRequest { ticket, .. } in requests {
            self.core.step(Event::StoreRefused { ticket, retry_after_ms });
        }
    }

    fn change_directory(&mut self, change: DirectoryChange) {
        let shard = self.port.shard();
        match change {
            DirectoryChange::Enter { key, session, user, device, remote, since_ms } => {
                let entry = Entry { user, device, shard, key, session, since: Millis(since_ms), remote };
                // A full directory hides a session from operators; the session itself is as good as any.
                let _ = self.directory.enter(entry);
                self.prove(key);
            }
            DirectoryChange::Leave { key } => {
                self.directory.leave_session(shard, key);
            }
        }
    }

    /// A connection no longer counts among those without a session.
    fn prove(&mut self, key: SessionKey) {
        let Some(connection) = self.core.connections.of(key) else { return };
        connection.flags.clear(Flags::SMALL);
        if connection.flags.take(Flags::UNPROVEN) {
            self.admission.prove();
        }
    }

    /// Hands the kernel what waits to leave, and ends what is to end.
    fn flush(&mut self) {
        self.follow_reading();
        self.flush_answers();
        let mut dirty = std::mem::take(&mut self.core.effects.dirty);
        for key in dirty.drain(..) {
            self.flush_outbox(key);
        }
        self.core.effects.dirty = dirty;
        let mut shut = std::mem::take(&mut self.core.effects.shut);
        for key in shut.drain(..) {
            self.shut(key);
        }
        self.core.effects.shut = shut;
        for key in std::mem::take(&mut self.core.broken) {
            if self.core.connections.of(key).is_some() {
                self.end(key.slot);
            }
        }
        if !self.is_held_back() {
            let mut rearm = std::mem::take(&mut self.rearm);
            for key in rearm.drain(..) {
                let wanted = |flags: Flags| !flags.has(Flags::HELD);
                if self.core.connections.of(key).is_some_and(|connection| wanted(connection.flags)) {
                    self.ring.receive(key.slot);
                }
            }
            self.rearm = rearm;
        }
    }

    #[inline]
    fn flush_outbox(&mut self, key: SessionKey) {
        let Some(connection) = self.core.connections.of(key) else { return };
        if !matches!(connection.phase, Phase::Open(_)) {
            return;
        }
        if self.ring.is_sending(key.slot) {
            // Only the driver's own flight can be in the way; the engine knows about its own.
            connection.flags.set(Flags::DIRTY);
            return;
        }
        let Some(outbox) = self.core.engine.outbox(key) else { return };
        if outbox.take(FLIGHT_FRAMES_MAX, FLIGHT_BYTES_MAX, &mut self.scratch) > 0 {
            self.ring.send(key.slot, &mut self.scratch);
        }
    }

    fn flush_answers(&mut self) {
        let mut answers = std::mem::take(&mut self.core.answers);
        for answer in answers.drain(..) {
            let Some(connection) = self.core.connections.of(answer.key) else { continue };
            connection.flags.set(Flags::OWN_FLIGHT);
            if answer.last {
                self.leaving.push(answer.key, self.core.now.mono_ms());
                self.ring.receive(answer.key.slot);
            }
            self.scratch.push(answer.frame);
            self.ring.send(answer.key.slot, &mut self.scratch);
        }
        self.core.answers = answers;
    }

    /// The engine wants a connection to end once everything has left.
    fn shut(&mut self, key: SessionKey) {
        let Some(connection) = self.core.connections.of(key) else { return };
        if matches!(connection.phase, Phase::Open(_)) && !connection.flags.has(Flags::SHUT) {
            connection.flags.set(Flags::SHUT);
            self.leaving.push(key, self.core.now.mono_ms());
            self.leave_if_done(key);
        }
    }

    /// Says goodbye to a connection that is to be shut and of which everything has left; the peer is given time to close.
    fn leave_if_done(&mut self, key: SessionKey) {
        let Some(connection) = self.core.connections.of(key) else { return };
        let shut = matches!(connection.phase, Phase::Open(_)) && connection.flags.has(Flags::SHUT);
        if !shut || self.ring.is_sending(key.slot) || self.core.engine.outbox(key).is_some_and(|outbox| outbox.is_waiting()) {
            return;
        }
        self.core.connections.at(key.slot).phase = Phase::Leaving;
        self.core.gone(key);
        self.ring.shut_write(key.slot);
        self.ring.receive(key.slot);
    }

    /// How long nothing has to be done.
    fn park_time(&self) -> Duration {
        let more = self.stopped
            || self.late_ready
            || !self.rearm.is_empty() && !self.is_held_back()
            || !self.held.is_empty() && !self.is_held_back()
            || !self.core.effects.is_empty()
            || !self.core.answers.is_empty();
        if more {
            return Duration::ZERO;
        }
        let accept_again = (self.accept_again_ms != 0).then_some(self.accept_again_ms);
        let deadlines = [
            self.core.engine.next_deadline_ms(),
            self.handshakes.next_ms(),
            self.leaving.next_ms(),
            self.core.watched.next_ms(),
            accept_again,
        ];
        let next_us = deadlines.into_iter().flatten().min().map_or(u64::MAX, |next_ms| next_ms.saturating_mul(1000));
        let wait_us = next_us.saturating_sub(self.core.now.mono_us).min(PARK_US_MAX);
        Duration::from_micros(wait_us)
    }
}

fn ip_of(peer: rustix::net::SocketAddrAny) -> Option<IpAddr> {
    let address = std::net::SocketAddr::try_from(peer).ok()?;
    Some(address.ip().to_canonical())
}

/// Events of one turn after which effects are applied, so that what a turn piles up stays small.
const EVENTS_PER_TURN_MAX: u64 = 2_048;
const MESH_PER_TURN_MAX: usize = 4_096;
const REPLIES_PER_TURN_MAX: usize = 4_096;
/// Frames and bytes of one flight.
const FLIGHT_FRAMES_MAX: usize = 64;
const FLIGHT_BYTES_MAX: usize = 256 << 10;
/// Refused connections of a shard that wait for their response to leave; more are closed without one.
const REFUSING_MAX: usize = 1_024;
/// Without descriptors accepting pauses so long, unless a connection closes before.
const ACCEPT_PAUSE_MS: u64 = 200;
/// The longest sleep: what runs in the background of the executor must have its turn too.
const PARK_US_MAX: u64 = 250_000;
/// Connections that are to close get so long for their last bytes and for closing their side.
pub(super) const LEAVE_MS_MAX: u64 = 2_000;
