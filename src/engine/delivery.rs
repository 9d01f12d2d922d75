//! Owns the fast path: how a message that is in the log reaches the connections that are live in it.
//!
//! Never delivers out of order: a cursor that is not exactly one behind falls back to reading the log. Lives on owner shards
//! (who is told) and home shards (what is pushed).

use smallvec::SmallVec;

use crate::types::envelope::{Body, EphemeralLane, Parcel, SessionList, Whisper};
use crate::types::push::Push;
use crate::types::record::SharedMessage;
use crate::types::{ConversationId, ConversationKind, Frame, GroupId, Seq, SessionId, SessionKey, ShardId, UserId};

use super::Counters;
use super::cursor::{Cursor, CursorState};
use super::outbox::{Lane, LogMark};
use super::room::Walk;
use super::session::Session;
use super::shard::{Shard, Turn};

/// Owner side.
impl Shard {
    /// A message is in the log: everyone entitled hears of it.
    pub(super) fn deliver(&mut self, message: &SharedMessage, received_us: u64, turn: &mut Turn<'_>) {
        let frame = self.encoder.shared(&Push::Message { message: message.clone(), redelivered: false });
        let parcel = Parcel { seq: message.seq, origin: message.origin, frame, received_us };
        let conversation = &message.conversation;
        match conversation.kind() {
            ConversationKind::Group(group) => {
                let owned = self.conversations.table.get(conversation).and_then(|entry| entry.group.as_ref());
                let shards: SmallVec<[ShardId; 16]> = owned.map(|owned| owned.shards_online().collect()).unwrap_or_default();
                for shard in shards {
                    self.route(shard, Body::DeliverGroup { group: group.clone(), parcel: parcel.clone() }, turn);
                }
            }
            ConversationKind::Private(one, other) => {
                if one != other {
                    self.deliver_to_owner(other, conversation, parcel.clone(), turn);
                }
                self.deliver_to_owner(one, conversation, parcel, turn);
            }
            ConversationKind::System(user) => self.deliver_to_owner(user, conversation, parcel, turn),
        }
    }

    fn deliver_to_owner(&mut self, user: UserId, conversation: &ConversationId, parcel: Parcel, turn: &mut Turn<'_>) {
        let owner = self.owner_of_user(&user);
        self.route(owner, Body::DeliverUser { user, conversation: conversation.clone(), parcel }, turn);
    }

    /// Where a user's sessions are.
    pub(super) fn sessions_by_shard(&self, user: &UserId) -> SmallVec<[(ShardId, SessionList); 2]> {
        let mut shards: SmallVec<[(ShardId, SessionList); 2]> = SmallVec::new();
        for attached in self.users.online.get(user).map_or(&[][..], |user| &user.sessions) {
            let shard = attached.address.shard;
            match shards.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, keys)) => keys.push(attached.address.key),
                None => shards.push((shard, SessionList::from_slice(&[attached.address.key]))),
            }
        }
        shards
    }

    pub(super) fn deliver_user(&mut self, user: &UserId, conversation: ConversationId, parcel: Parcel, turn: &mut Turn<'_>) {
        for (shard, sessions) in self.sessions_by_shard(user) {
            let (conversation, parcel) = (conversation.clone(), parcel.clone());
            self.route(shard, Body::DeliverSessions { sessions, conversation, parcel }, turn);
        }
    }

    pub(super) fn ephemeral_user(&mut self, user: &UserId, whisper: Whisper, turn: &mut Turn<'_>) {
        for (shard, sessions) in self.sessions_by_shard(user) {
            self.route(shard, Body::EphemeralSessions { sessions, whisper: whisper.clone() }, turn);
        }
    }
}

/// Home side.
impl Shard {
    /// One message for all local members of a group, in slices so that a huge room does not hold up its neighbours.
    pub(super) fn deliver_group(&mut self, group: &GroupId, parcel: Parcel, turn: &mut Turn<'_>) {
        let Some(index) = self.rooms.find(group) else { return };
        let room = self.rooms.get_mut(index).expect("the index knows only rooms that exist");
        debug_assert!(parcel.seq > room.head, "an owner delivers in order");
        room.head = parcel.seq;
        let Parcel { seq, origin, frame, received_us } = parcel;
        room.backlog.push_back(Walk { seq, origin, frame: Frame::shared(frame), received_us });
        if room.backlog.len() == 1 {
            room.position = 0;
            if !self.walk(index, turn) {
                self.busy_rooms.push_back(index);
            }
        } else if room.backlog.len() > BACKLOG_MAX {
            self.drop_backlog(index, turn);
        }
    }

    /// Goes on with the walks that were not finished, one slice a room.
    pub(super) fn walk_busy_rooms(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..self.busy_rooms.len() {
            let Some(index) = self.busy_rooms.pop_front() else { return };
            if !self.walk(index, turn) {
                self.busy_rooms.push_back(index);
            }
        }
    }

    /// Pushes to at most a slice of a room's members. Returns true when no walk is left.
    fn walk(&mut self, index: u32, turn: &mut Turn<'_>) -> bool {
        let bytes_max = self.settings.outbox_bytes_max;
        let ack_timeout_ms = self.settings.ack_timeout_ms;
        let mut follow_up: SmallVec<[SessionKey; 8]> = SmallVec::new();
        let mut budget = WALK_SLICE;
        let mut finished = true;
        if let Some(room) = self.rooms.get_mut(index) {
            while let Some(walk) = room.backlog.front() {
                let end = room.members.len().min(room.position.saturating_add(budget));
                let members = &room.members[room.position.min(end)..end];
                budget -= members.len().min(budget);
                let offer =
                    Offer { seq: walk.seq, origin: walk.origin, frame: &walk.frame, system: false, bytes_max, ack_timeout_ms };
                for member in members {
                    let Some(session) = self.sessions[member.slot as usize].as_deref_mut() else { continue };
                    if offer.to(session, member.cursor, &mut self.counters, turn) {
                        follow_up.push(session.key);
                    }
                }
                room.position = end;
                if end < room.members.len() {
                    finished = false;
                    break;
                }
                self.counters.note_delivery(walk.received_us, turn.now.mono_us);
                room.backlog.pop_front();
                room.position = 0;
            }
        }
        for key in follow_up {
            self.refill(key, turn);
            self.arm(key);
        }
        finished
    }

    /// A room whose walks pile up: its members read what they have not had from the log.
    fn drop_backlog(&mut self, index: u32, turn: &mut Turn<'_>) {
        let Some(room) = self.rooms.get_mut(index) else { return };
        room.backlog.clear();
        room.position = 0;
        let head = room.head;
        let members = room.members.clone();
        for member in members {
            let Some(session) = self.sessions[member.slot as usize].as_deref_mut() else { continue };
            let (key, first) = (session.key, session.lagging == 0);
            let cursor = session.cursor(member.cursor);
            match cursor.state {
                CursorState::Live if cursor.sent < head => {
                    let sent = cursor.sent;
                    session.lag(member.cursor, sent, head);
                    self.counters.lagging += u64::from(first);
                }
                CursorState::Lagging => cursor.head = head.max(cursor.head),
                _ => continue,
            }
            self.refill(key, turn);
        }
    }

    pub(super) fn deliver_sessions(
        &mut self,
        sessions: &SessionList,
        conversation: ConversationId,
        parcel: Parcel,
        turn: &mut Turn<'_>,
    ) {
        let frame = Frame::shared(parcel.frame);
        let mut crowded = SessionList::new();
        let offer = Offer {
            seq: parcel.seq,
            origin: parcel.origin,
            frame: &frame,
            system: conversation.is_system(),
            bytes_max: self.settings.outbox_bytes_max,
            ack_timeout_ms: self.settings.ack_timeout_ms,
        };
        for key in sessions {
            let Some(session) = self.sessions.get_mut(key.slot as usize).and_then(|slot| slot.as_deref_mut()) else {
                continue;
            };
            if session.key != *key {
                continue;
            }
            if let Some(opening) = session.opening.as_mut() {
                opening.note(&conversation, parcel.seq);
                continue;
            }
            if !session.is_ready() {
                continue;
            }
            let index = match session.cursor_of(&conversation) {
                Some(index) => index,
                // Nothing was missed since the session was attached, so this one is the next.
                None => {
                    if session.cursors.len() >= CURSORS_KEPT && session.cursors.len() == session.cursors.capacity() {
                        crowded.push(*key);
                    }
                    session.add_cursor(Cursor::new(conversation.clone(), parcel.seq.previous(), CursorState::Live))
                }
            };
            if offer.to(session, index, &mut self.counters, turn) {
                self.refill(*key, turn);
                self.arm(*key);
            }
        }
        self.counters.note_delivery(parcel.received_us, turn.now.mono_us);
        // What is written need not be remembered here.
        for key in crowded {
            self.persist_deliveries(key, turn);
            if let Some(session) = self.session(key) {
                session.forget_settled_cursors();
            }
        }
    }

    pub(super) fn ephemeral_group(&mut self, group: &GroupId, whisper: Whisper, turn: &mut Turn<'_>) {
        let bytes_max = self.settings.outbox_bytes_max;
        let Some(room) = self.rooms.find(group).and_then(|index| self.rooms.get_mut(index)) else { return };
        let frame = Frame::shared(whisper.frame.clone());
        for member in &room.members {
            let Some(session) = self.sessions[member.slot as usize].as_deref_mut() else { continue };
            push_ephemeral(session, &whisper, &frame, bytes_max, &mut self.counters.shed, turn);
        }
    }

    pub(super) fn ephemeral_sessions(&mut self, sessions: &SessionList, whisper: Whisper, turn: &mut Turn<'_>) {
        let bytes_max = self.settings.outbox_bytes_max;
        let frame = Frame::shared(whisper.frame.clone());
        for session in sessions {
            let mut shed = 0;
            let Some(session) = self.ready(*session) else { continue };
            push_ephemeral(session, &whisper, &frame, bytes_max, &mut shed, turn);
            self.counters.shed += shed;
        }
    }
}

fn push_ephemeral(
    session: &mut Session,
    whisper: &Whisper,
    frame: &Frame,
    bytes_max: usize,
    shed: &mut u64,
    turn: &mut Turn<'_>,
) {
    if session.id == whisper.except || !session.is_ready() {
        return;
    }
    let lane = match whisper.lane {
        EphemeralLane::Receipt => Lane::Reply,
        EphemeralLane::Ephemeral => Lane::Ephemeral,
        EphemeralLane::Message => {
            if session.outbox.lane_bytes(Lane::Message) <= bytes_max + RECEIPT_BYTES_MAX
                && session.outbox.push(Lane::Message, frame.clone(), None)
            {
                turn.effects.dirty.push(session.key);
            }
            return;
        }
    };
    // A reader who has stopped finds what receipts and events said in history and lists when it comes back to life.
    if lane == Lane::Reply && session.outbox.lane_bytes(lane) > RECEIPT_BYTES_MAX {
        *shed += 1;
        return;
    }
    if session.outbox.push_keyed(lane, whisper.key, frame.clone(), shed) {
        turn.effects.dirty.push(session.key);
    }
}

/// One message as it is offered to cursors.
pub(super) struct Offer<'a> {
    pub seq: Seq,
    pub origin: SessionId,
    pub frame: &'a Frame,
    pub system: bool,
    pub bytes_max: usize,
    pub ack_timeout_ms: u64,
}

impl Offer<'_> {
    /// Pushes to a live cursor that is exactly one behind; any other becomes or stays lagging. Returns true when the session has
    /// to be looked after: it lags, or a deadline has come nearer.
    #[inline]
    pub fn to(&self, session: &mut Session, index: u32, counters: &mut Counters, turn: &mut Turn<'_>) -> bool {
        let acks = session.acks();
        let own = self.origin == session.id;
        let cursor = session.cursor(index);
        match cursor.state {
            CursorState::Free | CursorState::Attaching => return false,
            CursorState::Lagging => {
                cursor.head = cursor.head.max(self.seq);
                return true;
            }
            CursorState::Live if self.seq <= cursor.sent => return false,
            CursorState::Live => {}
        }
        let sent = cursor.sent;
        if self.seq != sent.next() {
            return self.fall_behind(session, index, sent, counters);
        }
        if own {
            cursor.passed(self.seq, acks, false);
            return session.persist_by(turn.now.mono_ms() + PERSIST_SENT_MS);
        }
        if session.outbox.lane_bytes(Lane::Message) + self.frame.len() > self.bytes_max {
            self.fall_behind(session, index, sent, counters);
            // Its backlog leaves memory; it is read from the log when the socket drains.
            session.shed();
            return true;
        }
        session.put(index, self.seq, self.frame.clone(), self.system, self.ack_timeout_ms, turn);
        counters.delivered += 1;
        session.timers.ack.min(session.timers.persist) < session.timers.armed
    }

    fn fall_behind(&self, session: &mut Session, index: u32, sent: Seq, counters: &mut Counters) -> bool {
        counters.lagging += u64::from(session.lagging == 0);
        session.lag(index, sent, self.seq);
        true
    }
}

impl Session {
    /// Puts a log entry into the outbox and moves its cursor past it.
    pub(super) fn put(&mut self, index: u32, seq: Seq, frame: Frame, system: bool, ack_timeout_ms: u64, turn: &mut Turn<'_>) {
        let acks = self.acks();
        let mark = LogMark { cursor: index, seq };
        let dirty =
            if system { self.outbox.push_system(frame, mark) } else { self.outbox.push(Lane::Message, frame, Some(mark)) };
        if dirty {
            turn.effects.dirty.push(self.key);
        }
        let cursor = self.cursor(index);
        if acks && !cursor.outstanding() {
            // What is sent again goes on counting its attempts.
            cursor.attempts = if seq <= cursor.repeat_until { cursor.attempts.max(1) } else { 1 };
            cursor.unacked_since_ms = turn.now.mono_ms();
            let deadline = turn.now.mono_ms() + ack_timeout_ms;
            cursor.passed(seq, true, true);
            self.timers.ack = self.timers.ack.min(deadline);
        } else {
            cursor.passed(seq, acks, true);
        }
        if !acks {
            self.persist_by(turn.now.mono_ms() + PERSIST_SENT_MS);
        }
    }

    /// Cursors of private conversations that have nothing to remember are made again when they are needed.
    fn forget_settled_cursors(&mut self) {
        for index in 0..self.cursors.len() as u32 {
            let delivered = self.delivered(index);
            let cursor = &self.cursors[index as usize];
            let settled = cursor.state == CursorState::Live
                && !cursor.conversation.is_group()
                && cursor.persisted == cursor.sent
                && delivered == cursor.sent;
            if settled {
                self.remove_cursor(index);
            }
        }
    }
}

impl super::session::Opening {
    /// A delivery that came before the snapshot.
    pub(super) fn note(&mut self, conversation: &ConversationId, seq: Seq) {
        match self.noted.iter_mut().find(|(known, _)| known == conversation) {
            Some((_, last)) => *last = seq.max(*last),
            None => self.noted.push((conversation.clone(), seq)),
        }
    }
}

/// Milliseconds for which what was put on its way gathers before delivery state is written; a crash repeats about so much.
pub(super) const PERSIST_SENT_MS: u64 = 3_000;
/// Members of one room served before other work gets its turn.
const WALK_SLICE: usize = 4_096;
/// Messages of one room that may wait for their walk; beyond it everyone reads the log.
const BACKLOG_MAX: usize = 1_024;
/// Receipts and events that may wait for one connection.
const RECEIPT_BYTES_MAX: usize = 64 << 10;
/// Cursors a session keeps before it looks for ones to forget.
const CURSORS_KEPT: usize = 64;
