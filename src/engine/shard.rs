//! Owns one shard's state and the one `match` over everything that can happen to it.
//!
//! Never does what it decides: effects tell the driver. Lives on the shard's thread.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::auth::Verifier;
use crate::types::envelope::{Asker, Body, Envelope, HOPS_MAX, Question};
use crate::types::outcome::Fault;
use crate::types::planted::{Planted, planted};
use crate::types::push::Push;
use crate::types::storage::{Operation, StoreFault, StoreReply, StoreRequest, Ticket};
use crate::types::{ConversationId, Encode, Frame, Millis, Now, RequestId, SessionId, SessionKey, ShardId, UserId};

use super::conversations::{Conversation, Conversations, Waiting};
use super::lifecycle::PERSISTS_PER_SECOND;
use super::outbox::{Lane, Outbox};
use super::pending::{Pending, PendingTable};
use super::rate::{Bucket, Rate};
use super::revocations::Revocations;
use super::room::Rooms;
use super::session::Session;
use super::users::Users;
use super::wheel::Wheel;
use super::{Counters, Effects, Event, Hasher, Settings};

/// One core's share of the truth: the sessions at home here, and the users, groups and conversations it owns.
pub struct Shard {
    pub(super) id: ShardId,
    pub(super) shards: u16,
    pub(super) settings: Arc<Settings>,
    pub(super) encoder: Box<dyn Encode>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) random: fastrand::Rng,
    pub(super) sessions: Vec<Option<Box<Session>>>,
    pub(super) rooms: Rooms,
    /// Rooms whose walks are not finished.
    pub(super) busy_rooms: VecDeque<u32>,
    pub(super) users: Users,
    pub(super) conversations: Conversations,
    pub(super) pending: PendingTable,
    pub(super) wheel: Wheel,
    pub(super) revocations: Revocations,
    pub(super) gathers: super::handlers::Gathers,
    /// Notifications that the store could not take, in order of when they are tried again.
    pub(super) later: VecDeque<super::handlers::Later>,
    /// What this shard says to itself, in order.
    local: VecDeque<Envelope>,
    /// Paces the writing of delivery state.
    pub(super) persists: Bucket,
    /// Hops of what is being handled.
    pub(super) hops: u8,
    pub(super) counters: Counters,
    /// Set by `Event::Drain`: until when, in monotonic milliseconds, the last connection is told to go.
    pub(super) drain_until: Option<u64>,
    placement: Hasher,
    hasher: Hasher,
    last_session: u64,
    due: Vec<SessionKey>,
}

/// What every handler needs beside the shard: the time and the place for effects.
pub(super) struct Turn<'a> {
    pub now: Now,
    pub effects: &'a mut Effects,
}

impl Shard {
    /// `seed` feeds the shard's own random numbers (ids, jitter, hash keys); the same seed and events give the same effects.
    pub fn new(
        id: ShardId,
        shards: u16,
        settings: Arc<Settings>,
        encoder: Box<dyn Encode>,
        verifier: Arc<Verifier>,
        seed: u64,
    ) -> Shard {
        assert!(id.0 < shards, "a shard's id is below their number");
        let hasher = Hasher::with_seed(seed);
        let mut revocations = Revocations::new(hasher.clone());
        settings.revocations.iter().for_each(|revocation| revocations.put(revocation, Millis(0)));
        Shard {
            id,
            shards,
            encoder,
            verifier,
            random: fastrand::Rng::with_seed(seed ^ u64::from(id.0)),
            sessions: Vec::new(),
            rooms: Rooms::new(hasher.clone()),
            busy_rooms: VecDeque::new(),
            users: Users::new(hasher.clone()),
            conversations: Conversations::new(hasher.clone()),
            hasher,
            pending: PendingTable::default(),
            wheel: Wheel::new(0),
            revocations,
            gathers: Default::default(),
            later: VecDeque::new(),
            local: VecDeque::new(),
            persists: Bucket::full(Rate::per_second(PERSISTS_PER_SECOND), 0),
            hops: 0,
            counters: Counters::default(),
            drain_until: None,
            placement: Hasher::with_seed(settings.placement_seed),
            settings,
            last_session: 0,
            due: Vec::new(),
        }
    }

    /// Takes in one event and appends what has to be done. Call with the turn's `now`.
    pub fn handle(&mut self, event: Event, now: Now, effects: &mut Effects) {
        let mut turn = Turn { now, effects };
        let turn = &mut turn;
        self.hops = 0;
        match event {
            Event::Opened(opened) => self.open(*opened, turn),
            Event::Request { key, request, bytes } => self.request(key, request, bytes, turn),
            Event::Refused { key, request, fault } => self.refused(key, request, fault, turn),
            Event::Raw { key, text, payload } => self.echo(key, text, &payload, turn),
            Event::Ping { key, payload } => self.protocol_ping(key, &payload, turn),
            Event::Pong { key } => self.heard(key, turn.now),
            Event::Violation { key, close, reason } => self.close(key, close, reason, turn),
            Event::CloseReceived { key, code: _ } => self.close_received(key, turn),
            Event::Sent { key, bytes: _ } => self.sent(key, turn),
            Event::Gone { key } => self.gone(key, turn),
            Event::Mesh { from: _, envelope } => self.receive(envelope, turn),
            Event::Store(reply) => self.stored(reply, turn),
            Event::StoreRefused { ticket, retry_after_ms } => {
                self.stored(StoreReply { ticket, result: Err(StoreFault::Overloaded { retry_after_ms }) }, turn)
            }
            Event::Operator(body) => self.operator(*body, turn),
            Event::Call { number, call } => self.call(number, *call, turn),
            Event::Tick => self.tick(turn),
            Event::Drain { window_ms } => self.drain(window_ms, turn),
        }
        while let Some(envelope) = self.local.pop_front() {
            self.receive(envelope, turn);
        }
    }

    /// The outbox of a live session, to take its next flight from.
    pub fn outbox(&mut self, key: SessionKey) -> Option<&mut Outbox> {
        self.session(key).map(|session| &mut session.outbox)
    }

    /// Whether one side or the other has ended the session already, and only the last frames are still to leave.
    pub fn is_closing(&mut self, key: SessionKey) -> bool {
        self.session(key).is_some_and(|session| session.is_closing())
    }

    /// Monotonic milliseconds at which [`Event::Tick`] is wanted at the latest; 0 when at once, None when nothing is due.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if !self.busy_rooms.is_empty() || self.revocations.is_walking() {
            return Some(0);
        }
        let later = self.later.front().map(|later| later.at_ms);
        [self.wheel.next_ms(), later].into_iter().flatten().min()
    }

    /// What this shard has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The same, so that the driver can take the latency samples.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Sessions still open here.
    pub fn sessions_open(&self) -> u64 {
        self.counters.sessions
    }

    /// Entries of the timing wheel: about one per session; those of sessions that are gone run out by themselves.
    pub fn timers_waiting(&self) -> usize {
        self.wheel.len()
    }

    /// Whether this shard holds anything for anybody: for leak checks when all clients are gone.
    pub fn leftovers(&self) -> Leftovers {
        Leftovers {
            sessions: self.sessions.iter().flatten().count(),
            rooms: self.rooms.len(),
            users_online: self.users.online.len(),
            watchers: self.users.watchers.len(),
            fences: self.users.fences.len(),
            pending: self.pending.len(),
            local: self.local.len(),
            walks: self.busy_rooms.len(),
            attached: self
                .conversations
                .table
                .values()
                .filter_map(|conversation| conversation.group.as_ref())
                .map(|group| group.online_by_shard.iter().map(|online| *online as usize).sum::<usize>())
                .sum(),
        }
    }

    /// How full the fullest queue of each kind is: for checks that none is fuller than it may be.
    pub fn load(&self) -> Load {
        let sessions = self.sessions.iter().flatten();
        let conversations = self.conversations.table.values();
        let asking = |waiting: &Waiting| !matches!(waiting, Waiting::Attach(..));
        Load {
            outbox_bytes: sessions.map(|session| session.outbox.lane_bytes(Lane::Message)).max().unwrap_or(0),
            waiting: conversations.map(|entry| entry.waiting.iter().filter(|one| asking(one)).count()).max().unwrap_or(0),
            walks: self.rooms.iter().map(|room| room.backlog.len()).max().unwrap_or(0),
        }
    }

    fn receive(&mut self, envelope: Envelope, turn: &mut Turn<'_>) {
        self.hops = envelope.hops;
        match envelope.body {
            Body::Ask(question) => {
                let Question { asker, conversation, command } = *question;
                self.ask(asker, conversation, command, turn)
            }
            Body::AskAbout { asker, message, command } => self.ask_about(asker, message, *command, turn),
            Body::AttachGroup { group, asker } => self.attach_group(group, asker, turn),
            Body::DetachGroup { group, user, shard } => self.detach_group(&group, &user, shard),
            Body::Notify { user, kind, content, asker } => self.notify(user, kind, content, asker, turn),
            Body::AttachUser { asker, wishes } => self.attach_user(asker, wishes, turn),
            Body::DetachUser { user, device, address, at } => self.detach_user(user, device, address, at, turn),
            Body::PersistUser { user, write } => self.write_for_user(user, *write, turn),
            Body::AskPresence { asker, users, watch, gather } => self.ask_presence(asker, users, watch, gather, turn),
            Body::Watch { users, address, session } => self.watch(users, address, session),
            Body::Unwatch { users, address } => self.unwatch(&users, address),
            Body::GroupAttached { group, address, user, head, joined } => {
                self.group_attached(group, address, user, head, joined, turn)
            }
            Body::GroupRefused { group, address, damaged } => self.group_refused(&group, address.key, damaged, turn),
            Body::GroupDetached { group, user, last } => self.group_detached(&group, &user, last, turn),
            Body::DeliverGroup { group, parcel } => self.deliver_group(&group, parcel, turn),
            Body::EphemeralGroup { group, whisper } => self.ephemeral_group(&group, whisper, turn),
            Body::DeliverUser { user, conversation, parcel } => self.deliver_user(&user, conversation, parcel, turn),
            Body::EphemeralUser { user, whisper } => self.ephemeral_user(&user, whisper, turn),
            Body::MemberAdded { group, user } => self.member_added(group, &user, turn),
            Body::Attached { address, state, sessions } => self.attached(address.key, *state, sessions, turn),
            Body::Refused { address, close } => self.close(address.key, close, "", turn),
            Body::SessionsShare { address, sessions } => self.sessions_share(address.key, sessions),
            Body::DeliverSessions { sessions, conversation, parcel } => {
                self.deliver_sessions(&sessions, conversation, parcel, turn)
            }
            Body::EphemeralSessions { sessions, whisper } => self.ephemeral_sessions(&sessions, whisper, turn),
            Body::AttachSessions { sessions, group } => self.attach_sessions(&sessions, group, turn),
            Body::Reply { address, session, request, push, received_us } => {
                self.reply_here(address.key, session, request.as_ref(), &push, received_us, turn)
            }
            Body::Failure { address, session, request, fault } => {
                self.fail_here(address.key, session, request.as_ref(), fault, turn)
            }
            Body::PresencePart { address, gather, entries } => self.presence_part(address.key, gather, entries, turn),
            Body::WatchFor { address, session, users } => self.watch_for(address.key, session, users, turn),
            Body::PresenceChanged { address, entry } => self.presence_changed(address.key, &entry, turn),
            Body::Kick { user, device, close } => self.kick(&user, device.as_ref(), close, turn),
            Body::KickSession { address, close } => self.close(address.key, close, "", turn),
            Body::Revoke(revocation) => self.revoke(&revocation, turn),
            Body::Order { asker, group, order } => self.order(asker, group, order, turn),
        }
    }

    /// Passes an operator's wish to the shard that can fulfil it.
    fn operator(&mut self, body: Body, turn: &mut Turn<'_>) {
        let to = match &body {
            Body::Revoke(_) => self.id,
            Body::Kick { user, .. } => self.owner_of_user(user),
            Body::KickSession { address, .. } => address.shard,
            Body::Notify { user, .. } => self.owner_of(&ConversationId::system(user)),
            other => return debug_assert!(false, "no operator asks for {other:?}"),
        };
        self.route_anew(to, body, turn);
    }

    fn stored(&mut self, reply: StoreReply, turn: &mut Turn<'_>) {
        // Whoever asked came over one ring at most.
        self.hops = 1;
        let Some(pending) = self.pending.take(reply.ticket) else {
            debug_assert!(false, "a reply without a request");
            return;
        };
        match pending {
            Pending::LoadConversation(conversation) => self.conversation_loaded(conversation, reply.result, turn),
            Pending::Append { conversation, asker, notification, refusal } => {
                self.appended(conversation, asker, notification, refusal, reply.result, turn)
            }
            Pending::ChangeGroup(plan) => self.group_changed(*plan, reply.result, turn),
            Pending::LoadUser { asker } => self.user_loaded(&asker, reply.result, turn),
            Pending::Refill(page) => self.refilled(*page, reply.result, turn),
            Pending::SyncRows { key, session, request, cursors } => {
                self.sync_rows(key, session, request, *cursors, reply.result, turn)
            }
            Pending::History { asker, query, conversation } => self.history_read(asker, *query, conversation, reply.result, turn),
            Pending::Locate { asker, command } => self.located(asker, *command, reply.result, turn),
            Pending::MarkRead { asker, conversation } => self.read_marked(asker, conversation, reply.result, turn),
            Pending::Recall { asker, conversation, message_id, seq } => {
                self.recalled(asker, conversation, message_id, seq, reply.result, turn)
            }
            Pending::List { asker } => self.list_read(asker, reply.result, turn),
            Pending::AckWhenDone { asker } => self.done(asker, reply.result, turn),
            Pending::Contacts { asker, users, watch } => self.contacts_found(&asker, users, watch, reply.result, turn),
            Pending::PresenceLastSeen { asker, gather, entries } => {
                self.presence_last_seen(&asker, gather, entries, reply.result, turn)
            }
            Pending::UserWrite(user) => self.user_written(&user, turn),
        }
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        self.walk_busy_rooms(turn);
        self.notify_again(turn);
        self.walk_revoked(turn);
        let mut due = std::mem::take(&mut self.due);
        self.wheel.sweep(turn.now.mono_ms(), &mut due);
        for key in due.drain(..) {
            self.look_at(key, turn);
        }
        self.due = due;
    }
}

/// Routes, replies and look-ups that handlers share.
impl Shard {
    pub(super) fn session(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(key.slot as usize)?.as_deref_mut().filter(|session| session.key == key)
    }

    /// A session that the caller has found before, in the handling of the same event.
    pub(super) fn live(&mut self, key: SessionKey) -> &mut Session {
        self.session(key).expect("a session stays until its `Gone` is handled")
    }

    /// A conversation that was prepared in the handling of the same event, or has something under way.
    pub(super) fn entry(&mut self, conversation: &ConversationId) -> &mut Conversation {
        self.conversations.table.get_mut(conversation).expect("a conversation in use is not forgotten")
    }

    /// A session that can be talked to.
    pub(super) fn ready(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.session(key).filter(|session| session.is_ready())
    }

    /// Which shard holds the truth for a name.
    fn owner(&self, name: &str) -> ShardId {
        if self.shards == 1 {
            return ShardId(0);
        }
        use std::hash::BuildHasher;
        ShardId((self.placement.hash_one(name) % u64::from(self.shards)) as u16)
    }

    pub(super) fn owner_of_user(&self, user: &UserId) -> ShardId {
        self.owner(user.as_str())
    }

    pub(super) fn owner_of(&self, conversation: &ConversationId) -> ShardId {
        self.owner(conversation.as_str())
    }

    /// How this shard's tables hash.
    pub(super) fn hasher(&self) -> Hasher {
        self.hasher.clone()
    }

    /// A number under which an ephemeral frame's older version is found; never 0.
    pub(super) fn ephemeral_key(&self, what: &str, whose: &str) -> u64 {
        use std::hash::BuildHasher;
        self.hasher.hash_one((what, whose)) | 1
    }

    /// Passes on what is being handled: one hop more.
    pub(super) fn route(&mut self, to: ShardId, body: Body, turn: &mut Turn<'_>) {
        if to == self.id {
            self.local.push_back(Envelope { hops: self.hops, sent_us: turn.now.mono_us, body });
        } else {
            assert!(self.hops < HOPS_MAX, "one hop too many: {body:?}");
            turn.effects.forward.push((to, Envelope { hops: self.hops + 1, sent_us: turn.now.mono_us, body }));
        }
    }

    /// Begins something new: the hops of what led here do not count.
    pub(super) fn route_anew(&mut self, to: ShardId, body: Body, turn: &mut Turn<'_>) {
        let hops = std::mem::replace(&mut self.hops, 0);
        self.route(to, body, turn);
        self.hops = hops;
    }

    pub(super) fn store(&mut self, operation: Operation, pending: Pending, turn: &mut Turn<'_>) {
        let ticket: Ticket = self.pending.insert(pending);
        turn.effects.store.push(StoreRequest { ticket, operation });
    }

    /// True when no further client request may go to the store.
    pub(super) fn store_is_full(&self) -> bool {
        self.pending.len() >= self.settings.store_requests_max
    }

    /// True when no further request that writes may go to the store: a part of its queue is for those that read, which may be
    /// answered while a disk takes nothing.
    pub(super) fn store_takes_no_writes(&self) -> bool {
        let requests_max = self.settings.store_requests_max;
        self.pending.len() >= requests_max - requests_max / 4
    }

    /// Answers whoever asked.
    pub(super) fn reply(&mut self, asker: &Asker, push: Push, turn: &mut Turn<'_>) {
        if asker.address.shard == self.id {
            self.reply_here(asker.address.key, asker.session, asker.request.as_ref(), &push, asker.received_us, turn);
        } else {
            let body = Body::Reply {
                address: asker.address,
                session: asker.session,
                request: asker.request.clone(),
                push: Box::new(push),
                received_us: asker.received_us,
            };
            self.route(asker.address.shard, body, turn);
        }
    }

    /// Refuses whoever asked.
    pub(super) fn fail(&mut self, asker: &Asker, fault: impl Into<Fault>, turn: &mut Turn<'_>) {
        let fault = fault.into();
        if asker.address.shard == self.id {
            self.fail_here(asker.address.key, asker.session, asker.request.as_ref(), fault, turn);
        } else {
            let body = Body::Failure { address: asker.address, session: asker.session, request: asker.request.clone(), fault };
            self.route(asker.address.shard, body, turn);
        }
    }

    pub(super) fn reply_here(
        &mut self,
        key: SessionKey,
        session: SessionId,
        request: Option<&RequestId>,
        push: &Push,
        received_us: u64,
        turn: &mut Turn<'_>,
    ) {
        if let Some(number) = key.call() {
            return turn.effects.answers.push((number, Ok(push.clone())));
        }
        if self.ready(key).is_none_or(|found| found.id != session) {
            return;
        }
        if matches!(push, Push::Ack(_)) {
            self.counters.note_ack(received_us, turn.now.mono_us);
        }
        self.say(key, Lane::Reply, push, request, turn);
        if matches!(push, Push::History { .. } | Push::Conversations { .. } | Push::Unread { .. } | Push::SearchResult { .. }) {
            self.list_answered(key, turn);
        }
    }

    fn fail_here(&mut self, key: SessionKey, session: SessionId, request: Option<&RequestId>, fault: Fault, turn: &mut Turn<'_>) {
        if let Some(number) = key.call() {
            if planted(Planted::CallUnanswered) {
                return;
            }
            return turn.effects.answers.push((number, Err(fault)));
        }
        if self.session(key).is_some_and(|found| found.id == session) {
            self.refuse(key, request, fault, turn);
            self.list_answered(key, turn);
        }
    }

    /// Says something to a connection at home here.
    pub(super) fn say(&mut self, key: SessionKey, lane: Lane, push: &Push, request: Option<&RequestId>, turn: &mut Turn<'_>) {
        let frame = self.encoder.push(push, request);
        self.enqueue(key, lane, frame, turn);
    }

    /// Puts a frame into a connection's outbox; holds back its requests while more than `outbox_bytes_max` of answers wait.
    pub(super) fn enqueue(&mut self, key: SessionKey, lane: Lane, frame: Frame, turn: &mut Turn<'_>) {
        let Some(session) = self.session(key).filter(|session| !session.is_closing()) else { return };
        if session.outbox.push(lane, frame, None) {
            turn.effects.dirty.push(key);
        }
        self.hold_reading(key, turn);
    }

    /// A session's name: 42 bits of milliseconds, 8 of the shard, 14 of a counter; always ascending here.
    pub(super) fn next_session_id(&mut self, now: Now) -> SessionId {
        let floor = now.wall.0 << 22;
        let shard = u64::from(self.id.0 & 0xff) << 14;
        let last = self.last_session & !(0xff << 14);
        let mut next = floor.max(last + 1);
        // The counter ran over into the shard's bits: go on with the next millisecond.
        if next & (0xff << 14) != 0 {
            next = ((next >> 22) + 1) << 22;
        }
        self.last_session = next;
        SessionId(next | shard)
    }
}

/// The fullest queues of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes of log entries that wait for one connection.
    pub outbox_bytes: usize,
    /// Requests that wait for one conversation.
    pub waiting: usize,
    /// Messages that wait for their walk over one room.
    pub walks: usize,
}

/// What a shard still holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub sessions: usize,
    pub rooms: usize,
    pub users_online: usize,
    pub watchers: usize,
    pub fences: usize,
    pub pending: usize,
    pub local: usize,
    pub walks: usize,
    /// Sessions that group owners count as attached.
    pub attached: usize,
}
