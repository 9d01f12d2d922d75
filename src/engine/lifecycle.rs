//! Owns a connection's life from handshake to grave: opening, signs of life, deadlines, closing, drain.
//!
//! Never touches a socket. Lives on the home shard.

use crate::types::outcome::Fault;
use crate::types::planted::{Planted, Reached, planted, reached};
use crate::types::push::Push;
use crate::types::{CloseCode, ErrorName, Frame, Now, RequestId, SessionKey, UserId};

use super::delivery::PERSIST_SENT_MS;
use super::effects::DirectoryChange;
use super::event::Opened;
use super::outbox::{Lane, Outbox};
use super::rate::{Bucket, Rate};
use super::session::{NEVER, Phase, Session, Timers};
use super::shard::{Shard, Turn};
use crate::types::envelope::Body;

impl Shard {
    pub(super) fn open(&mut self, opened: Opened, turn: &mut Turn<'_>) {
        let now_ms = turn.now.mono_ms();
        let key = opened.key;
        let phase_deadline = if opened.echo { NEVER } else { now_ms + self.settings.auth_timeout_ms };
        let session = Session {
            key,
            id: self.next_session_id(turn.now),
            remote: opened.remote,
            phase: if opened.echo { Phase::Ready } else { Phase::Opening },
            account: None,
            outbox: Outbox::default(),
            cursors: Default::default(),
            index: None,
            requests: Bucket::full(self.request_rate(1), now_ms),
            errors: Bucket::full(self.error_rate(), now_ms),
            sharers: 1,
            timers: Timers {
                armed: NEVER,
                phase: phase_deadline,
                // The first beat comes at a random part of the interval, so that beats of a storm of connects spread out.
                beat: now_ms
                    + self.random.u64(0..=self.settings.heartbeat_interval_ms / 2)
                    + self.settings.heartbeat_interval_ms / 2,
                heard: now_ms,
                pinged: NEVER,
                expiry: NEVER,
                ack: NEVER,
                persist: NEVER,
                refill: NEVER,
                drain: NEVER,
            },
            refilling: false,
            refill_turn: 0,
            lagging: 0,
            reading_held: false,
            lists_owed: 0,
            echo: opened.echo,
            refused_early: 0,
            opening: None,
            sync: None,
            watches: None,
        };
        let slot = key.slot as usize;
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        assert!(self.sessions[slot].is_none(), "a slot is free before it is used again");
        self.sessions[slot] = Some(Box::new(session));
        self.counters.opened += 1;
        self.counters.sessions += 1;
        self.arm(key);
        if self.drain_until.is_some() {
            self.close(key, CloseCode::Shutdown, "shutdown", turn);
        } else if let Some(identity) = opened.identity {
            self.authenticate(key, identity, opened.wishes, None, turn);
        }
    }

    /// The rate of one of `sharers` sessions: its own limit, or its share of the user's, whichever is less.
    pub(super) fn request_rate(&self, sharers: u32) -> Rate {
        let own = Rate::per_second(self.settings.messages_per_second);
        let share = Rate::per_second(self.settings.user_messages_per_second).shared_by(sharers);
        own.least(share)
    }

    /// Errors that a connection may earn: a minute's worth at once, and again each minute.
    pub(super) fn error_rate(&self) -> Rate {
        Rate::per_minute(self.settings.errors_per_minute)
    }

    /// Notes a sign of life.
    pub(super) fn heard(&mut self, key: SessionKey, now: Now) {
        if let Some(session) = self.session(key) {
            session.timers.heard = now.mono_ms();
            session.timers.pinged = NEVER;
        }
    }

    pub(super) fn protocol_ping(&mut self, key: SessionKey, payload: &[u8], turn: &mut Turn<'_>) {
        self.heard(key, turn.now);
        if !self.admit(key, None, turn) {
            return;
        }
        let frame = self.encoder.pong(payload);
        let Some(session) = self.session(key).filter(|session| !session.is_closing()) else { return };
        // Once many wait, a newer pong replaces the last (RFC 6455 section 5.5.3 allows to answer the latest ping only).
        let key_or_none = if session.outbox.lane_bytes(Lane::Control) > PONG_BYTES_MAX { PONG_KEY } else { 0 };
        if session.outbox.push_keyed(Lane::Control, key_or_none, frame, &mut 0) {
            turn.effects.dirty.push(key);
        }
    }

    pub(super) fn echo(&mut self, key: SessionKey, text: bool, payload: &[u8], turn: &mut Turn<'_>) {
        self.heard(key, turn.now);
        let frame = self.encoder.raw(text, payload);
        self.enqueue(key, Lane::Reply, frame, turn);
    }

    /// Takes a token for a request; answers and counts when there is none. Returns whether the request may go on.
    pub(super) fn admit(&mut self, key: SessionKey, request: Option<&RequestId>, turn: &mut Turn<'_>) -> bool {
        let sharers = self.session(key).map_or(1, |session| session.sharers);
        let rate = self.request_rate(sharers);
        let Some(session) = self.session(key) else { return false };
        if session.echo {
            return true;
        }
        match session.requests.take(rate, turn.now.mono_ms()) {
            Ok(()) => true,
            Err(after_ms) => {
                let fault = Fault::retry(ErrorName::RateLimited, "slow down", after_ms);
                self.refuse(key, request, fault, turn);
                false
            }
        }
    }

    /// Answers with an error, and closes a connection that earns too many of them.
    pub(super) fn refuse(&mut self, key: SessionKey, request: Option<&RequestId>, fault: Fault, turn: &mut Turn<'_>) {
        let rate = self.error_rate();
        self.counters.errors[fault.name.index()] += 1;
        // A busy or stopping server is no abuse of the client's.
        let blamed = !matches!(
            fault.name,
            ErrorName::Overloaded | ErrorName::StoreUnavailable | ErrorName::Draining | ErrorName::Internal
        );
        let Some(session) = self.session(key).filter(|session| !session.is_closing()) else { return };
        let abused = blamed && session.errors.take(rate, turn.now.mono_ms()).is_err();
        self.say(key, Lane::Control, &Push::Error(fault), request, turn);
        if abused {
            self.close(key, CloseCode::RateLimited, "rate_limited;retry_after_ms=60000", turn);
        }
    }

    /// An envelope that could not be understood.
    pub(super) fn refused(&mut self, key: SessionKey, request: Option<RequestId>, fault: Fault, turn: &mut Turn<'_>) {
        self.heard(key, turn.now);
        if self.session(key).is_some_and(|session| session.phase == Phase::Opening) {
            self.refuse_early(key, request.as_ref(), fault, turn);
        } else if self.admit(key, request.as_ref(), turn) {
            self.refuse(key, request.as_ref(), fault, turn);
        }
    }

    /// Refuses a request before authentication; the tenth one ends the connection.
    pub(super) fn refuse_early(&mut self, key: SessionKey, request: Option<&RequestId>, fault: Fault, turn: &mut Turn<'_>) {
        self.refuse(key, request, fault, turn);
        let Some(session) = self.session(key) else { return };
        session.refused_early += 1;
        if session.refused_early >= REFUSED_EARLY_MAX {
            self.close(key, CloseCode::Unauthorized, "unauthorized", turn);
        }
    }

    /// Sends a close frame and hears nothing more; the socket follows when the peer has answered, or after `write_timeout`.
    pub(super) fn close(&mut self, key: SessionKey, code: CloseCode, reason: &str, turn: &mut Turn<'_>) {
        let reason = match (reason, code) {
            // Whoever could not be let in comes back when the store has caught its breath.
            ("", CloseCode::Overloaded) => "overloaded;retry_after_ms=1000",
            ("", _) => code.name(),
            _ => reason,
        };
        let frame = self.encoder.close(code, reason);
        if self.begin_closing(key, frame, false, turn) {
            self.counters.closes[code.index()] += 1;
        }
    }

    /// False once nothing more of a connection is heard but its close frame: to decode the rest would be wasted.
    pub fn hears(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key.slot as usize).and_then(|session| session.as_deref());
        session.is_some_and(|session| session.key == key && !session.is_closing())
    }

    /// Returns false when the session is gone or closing already.
    fn begin_closing(&mut self, key: SessionKey, frame: Frame, answered: bool, turn: &mut Turn<'_>) -> bool {
        let deadline = turn.now.mono_ms() + self.settings.write_timeout_ms;
        let Some(session) = self.session(key).filter(|session| !session.is_closing()) else { return false };
        // What was answered and decided before still leaves; the log keeps the rest.
        let was_lagging = session.lagging > 0;
        session.shed();
        let lags = !was_lagging && session.lagging > 0;
        if session.outbox.push_last(frame) {
            turn.effects.dirty.push(key);
        }
        // The peer's answer must be heard.
        if std::mem::take(&mut session.reading_held) {
            turn.effects.reading.push((key, true));
        }
        self.counters.lagging += u64::from(lags);
        self.depart(key, turn);
        let Some(session) = self.session(key) else { return true };
        session.phase = Phase::Closing { answered };
        session.timers = Timers {
            phase: deadline,
            beat: NEVER,
            expiry: NEVER,
            ack: NEVER,
            persist: NEVER,
            refill: NEVER,
            drain: NEVER,
            ..session.timers
        };
        self.arm(key);
        true
    }

    /// The peer closes: it is answered with a close frame of our own, always saying normal (RFC 6455 section 5.5.1).
    pub(super) fn close_received(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let Some(session) = self.session(key) else { return };
        if let Phase::Closing { answered } = &mut session.phase {
            *answered = true;
            if session.outbox.is_empty() {
                turn.effects.shut.push(key);
            }
            return;
        }
        self.counters.closed_by_peer += 1;
        let frame = self.encoder.close(CloseCode::Normal, "");
        self.begin_closing(key, frame, true, turn);
    }

    /// The flight has left.
    pub(super) fn sent(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let Some(session) = self.session(key) else { return };
        let said = if session.sync.is_some() { session.outbox.syncs_in_flight() } else { 0 };
        if session.outbox.landed() {
            turn.effects.dirty.push(key);
        }
        session.syncs_have_left(said);
        if session.reading_held {
            // Whoever takes what was asked for is alive, though its pong is not read yet.
            session.timers.heard = turn.now.mono_ms();
            session.timers.pinged = NEVER;
        }
        self.resume_reading(key, turn);
        let Some(session) = self.session(key) else { return };
        match session.phase {
            Phase::Closing { answered: true } if session.outbox.is_empty() => turn.effects.shut.push(key),
            Phase::Ready if session.lagging > 0 => self.refill(key, turn),
            _ => {}
        }
    }

    /// Holds a connection's requests back when it has enough to take already.
    pub(super) fn hold_reading(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let bytes_max = self.settings.outbox_bytes_max;
        let Some(session) = self.session(key) else { return };
        if !session.reading_held && session.has_enough(bytes_max) {
            reached(Reached::ReadingHeld);
            session.reading_held = true;
            turn.effects.reading.push((key, false));
        }
    }

    fn resume_reading(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let bytes_max = self.settings.outbox_bytes_max;
        let Some(session) = self.session(key) else { return };
        if session.reading_held && !session.has_enough(bytes_max / 2) {
            session.reading_held = false;
            turn.effects.reading.push((key, true));
        }
    }

    /// A list was asked for.
    pub(super) fn owe_list(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        if let Some(session) = self.session(key) {
            session.lists_owed = session.lists_owed.saturating_add(1);
        }
        self.hold_reading(key, turn);
    }

    /// A request was answered that may have been for a list.
    pub(super) fn list_answered(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        if let Some(session) = self.session(key) {
            session.lists_owed = session.lists_owed.saturating_sub(1);
        }
        self.resume_reading(key, turn);
    }

    /// The socket is gone: nothing for this key may be said any more.
    pub(super) fn gone(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        if self.session(key).is_none() {
            return;
        }
        self.depart(key, turn);
        self.sessions[key.slot as usize] = None;
        self.counters.sessions -= 1;
    }

    /// Takes the session out of everything it is in, and keeps what it has had for its device's next visit.
    fn depart(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let Some(session) = self.session(key) else { return };
        if session.is_closing() || session.account.is_none() {
            return;
        }
        if session.lagging > 0 {
            self.counters.lagging -= 1;
        }
        self.persist_deliveries(key, turn);
        let Some(session) = self.session(key) else { return };
        if session.phase == Phase::Ready {
            self.counters.ready -= 1;
            turn.effects.directory.push(DirectoryChange::Leave { key });
        }
        let shard = self.id;
        let Some(session) = self.session(key) else { return };
        let cursors = std::mem::take(&mut session.cursors);
        session.index = None;
        session.lagging = 0;
        let watches: Vec<_> = session.watches.take().into_iter().flat_map(|watches| *watches).collect();
        let account = session.account.take().expect("a session without an account has returned above");
        let address = session.address(shard);
        self.leave_rooms(&account.user, cursors, turn);
        self.unwatch_all(address, watches, turn);
        if planted(Planted::DetachUserForgotten) {
            return;
        }
        let owner = self.owner_of_user(&account.user);
        let body = Body::DetachUser { user: account.user, device: account.device, address, at: turn.now.wall };
        self.route_anew(owner, body, turn);
    }

    /// Has the wheel look at this session when its next deadline comes.
    pub(super) fn arm(&mut self, key: SessionKey) {
        let Some(session) = self.session(key) else { return };
        let deadline = session.next_deadline();
        if deadline < session.timers.armed {
            let at = self.wheel.insert(key, deadline);
            if let Some(session) = self.session(key) {
                // The entry may come early (beyond the horizon) or a tick late; what matters is that it is not made twice.
                session.timers.armed = at.min(deadline);
            }
        }
    }

    /// Does what is due for a session.
    pub(super) fn look_at(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let now_ms = turn.now.mono_ms();
        if planted(Planted::TimerLeak) && self.session(key).is_none() {
            self.wheel.insert(key, now_ms + 1_000);
        }
        let Some(session) = self.session(key) else { return };
        if now_ms < session.timers.armed {
            // An earlier deadline was armed and has gone; this one's own entry is still to come.
            return;
        }
        session.timers.armed = NEVER;
        if session.timers.phase <= now_ms {
            return self.phase_is_over(key, turn);
        }
        if session.timers.drain <= now_ms {
            return self.close(key, CloseCode::Shutdown, "shutdown", turn);
        }
        if session.timers.beat <= now_ms && !self.beat(key, turn) {
            return;
        }
        let Some(session) = self.session(key) else { return };
        session.follow_wall(turn.now);
        if session.timers.expiry <= now_ms {
            self.expire(key, turn);
        }
        if self.session(key).is_some_and(|session| session.timers.ack <= now_ms) {
            self.redeliver(key, turn);
        }
        if self.session(key).is_some_and(|session| session.timers.persist <= now_ms) {
            match self.persists.take(Rate::per_second(PERSISTS_PER_SECOND), now_ms) {
                Ok(()) => self.persist_deliveries(key, turn),
                Err(after_ms) => {
                    // Others have their turn first; spread, so that they do not all come back at once.
                    let later_ms = now_ms + after_ms + self.random.u64(0..PERSIST_SENT_MS);
                    self.live(key).timers.persist = later_ms;
                }
            }
        }
        if let Some(session) = self.session(key).filter(|session| session.timers.refill <= now_ms) {
            session.timers.refill = NEVER;
            self.refill(key, turn);
        }
        self.arm(key);
    }

    fn phase_is_over(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let Some(session) = self.session(key) else { return };
        match session.phase {
            Phase::Opening => {
                self.refuse(key, None, Fault::new(ErrorName::Unauthenticated, "no auth message came in time"), turn);
                self.close(key, CloseCode::Unauthorized, "unauthorized", turn);
            }
            Phase::Authenticating => self.close(key, CloseCode::Overloaded, "", turn),
            Phase::Ready => debug_assert!(false, "a ready session has no phase deadline"),
            // The peer neither reads nor answers.
            Phase::Closing { .. } => {
                session.timers.phase = NEVER;
                turn.effects.shut.push(key);
            }
        }
    }

    /// A heartbeat. Returns false when the peer is taken for dead.
    fn beat(&mut self, key: SessionKey, turn: &mut Turn<'_>) -> bool {
        let now_ms = turn.now.mono_ms();
        let (interval, timeout) = (self.settings.heartbeat_interval_ms, self.settings.heartbeat_timeout_ms);
        let Some(session) = self.session(key) else { return false };
        if session.timers.pinged != NEVER && now_ms < session.timers.pinged + timeout {
            // Not beyond an interval even then: what follows the wall clock is looked at with every beat.
            session.timers.beat = (session.timers.pinged + timeout).min(now_ms + interval);
            return true;
        }
        if session.timers.pinged != NEVER {
            self.close(key, CloseCode::NoPongOrAck, "no_pong_or_ack", turn);
            // Whoever does not answer pings will not answer a close frame.
            turn.effects.shut.push(key);
            return false;
        }
        // Half an interval of silence is enough to be asked: else the first beat, which comes early, would always find life.
        let silent_ms = now_ms.saturating_sub(session.timers.heard);
        if silent_ms * 2 < interval {
            session.timers.beat = session.timers.heard + interval;
            return true;
        }
        session.timers.pinged = now_ms;
        // Answered, the next ping is an interval after this one; unanswered, it is judged when the timeout is over.
        session.timers.beat = now_ms + interval.min(timeout);
        let frame = self.encoder.ping();
        self.enqueue(key, Lane::Control, frame, turn);
        true
    }

    /// The token has run out, as [`Session::follow_wall`] has just found: tell, wait for `refresh`, close.
    fn expire(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let grace_ms = self.settings.expiry_grace_ms;
        let Some(session) = self.session(key) else { return };
        let Some(account) = session.account.as_mut() else { return };
        if !std::mem::replace(&mut account.expiry_told, true) {
            session.timers.expiry = turn.now.mono_ms() + grace_ms;
            let fault = Fault::new(ErrorName::TokenExpired, "send refresh with a new token, or the connection will be closed");
            self.counters.errors[fault.name.index()] += 1;
            self.say(key, Lane::Control, &Push::Error(fault), None, turn);
        } else if planted(Planted::ExpiredStays) {
            session.timers.expiry = NEVER;
        } else {
            self.close(key, CloseCode::TokenExpired, "token_expired", turn);
        }
    }

    /// Everybody is told to go, and closed one after the other within `window_ms`.
    pub(super) fn drain(&mut self, window_ms: u64, turn: &mut Turn<'_>) {
        let now_ms = turn.now.mono_ms();
        self.drain_until = Some(now_ms + window_ms);
        for slot in 0..self.sessions.len() {
            let Some(key) = self.sessions[slot].as_ref().filter(|session| !session.is_closing()).map(|session| session.key)
            else {
                continue;
            };
            let after_ms = self.random.u64(0..=window_ms);
            let push = Push::Reconnect { retry_after_ms: after_ms, reason: "shutdown".into(), targets: Vec::new() };
            self.say(key, Lane::Control, &push, None, turn);
            if let Some(session) = self.session(key) {
                session.timers.drain = now_ms + after_ms;
            }
            self.arm(key);
        }
    }

    pub(super) fn sessions_share(&mut self, key: SessionKey, sessions: u32) {
        if let Some(session) = self.session(key) {
            session.sharers = sessions.max(1);
        }
    }

    /// An operator, or a revocation, ends a user's sessions. Runs on the user's owner.
    pub(super) fn kick(&mut self, user: &UserId, device: Option<&crate::types::DeviceId>, code: CloseCode, turn: &mut Turn<'_>) {
        let Some(found) = self.users.online.get(user) else { return };
        let addresses: Vec<_> = found
            .sessions
            .iter()
            .filter(|attached| device.is_none_or(|device| attached.device == *device))
            .map(|attached| attached.address)
            .collect();
        for address in addresses {
            self.route(address.shard, Body::KickSession { address, close: code }, turn);
        }
    }
}

/// Sessions of a shard whose delivery state is written in a second while they last; at their end it always is.
pub(super) const PERSISTS_PER_SECOND: u32 = 500;
/// Bytes in the control lane beyond which pongs replace each other.
const PONG_BYTES_MAX: usize = 4 << 10;
/// Key under which the one waiting pong is found.
const PONG_KEY: u64 = 1;
/// Requests refused before authentication until the connection is closed.
const REFUSED_EARLY_MAX: u8 = 10;
