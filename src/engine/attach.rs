//! Owns how a session becomes its user's: token, session policy, snapshot of conversations, cursors; and how it enters
//! groups.
//!
//! Attach first, then read: the user's owner knows the session before the snapshot is read, and a group's owner says where its
//! log ends at the moment it begins to deliver to the session's home. So nothing falls between snapshot and delivery.

use smallvec::SmallVec;

use crate::auth::Identity;
use crate::types::command::{Auth, Wishes};
use crate::types::envelope::{Asker, Body, SessionList};
use crate::types::outcome::Fault;
use crate::types::planted::{Planted, Reached, planted, reached};
use crate::types::push::{AuthSuccess, ClientLimits, Push, SkipReason};
use crate::types::record::{Delivery, UserConversation};
use crate::types::storage::{Answer, Operation, Read, StoreFault, UserState, Write};
use crate::types::{
    CloseCode, ConversationId, ConversationKind, DeviceId, ErrorName, GroupId, Millis, RequestId, Seq, SessionAddress,
    SessionKey, ShardId, UserId,
};

use super::conversations::{State, Waiting};
use super::cursor::{Cursor, CursorState};
use super::effects::DirectoryChange;
use super::outbox::Lane;
use super::pending::Pending;
use super::room::RoomMember;
use super::session::{Account, NEVER, Opening, Phase};
use super::settings::SessionPolicy;
use super::shard::{Shard, Turn};
use super::users::{Attached, Watcher};

/// Home side: from token to `Ready`.
impl Shard {
    /// `auth` in a first message.
    pub(super) fn auth(&mut self, key: SessionKey, auth: Auth, request: Option<RequestId>, turn: &mut Turn<'_>) {
        match self.verify(&auth.token.0, turn.now.wall) {
            Ok(identity) => self.authenticate(key, identity, auth.wishes, request, turn),
            Err(fault) => {
                let fault = Fault::new(fault.name(), fault.to_string());
                self.counters.errors[fault.name.index()] += 1;
                self.say(key, Lane::Control, &Push::AuthFailed(fault), request.as_ref(), turn);
                self.close(key, CloseCode::Unauthorized, "unauthorized", turn);
            }
        }
    }

    /// A token was accepted: the user's owner decides whether one more session may be.
    pub(super) fn authenticate(
        &mut self,
        key: SessionKey,
        identity: Identity,
        wishes: Wishes,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        let shard = self.id;
        let deadline = turn.now.mono_ms() + self.settings.auth_timeout_ms;
        let token = self.revocations.mark(&identity);
        let Some(session) = self.session(key) else { return };
        let device = identity.device.or_else(|| wishes.device.clone()).unwrap_or_else(DeviceId::unnamed);
        let asker = Box::new(Asker {
            address: session.address(shard),
            session: session.id,
            user: identity.user.clone(),
            device: device.clone(),
            request: request.clone(),
            received_us: turn.now.mono_us,
        });
        session.phase = Phase::Authenticating;
        session.timers.phase = deadline;
        session.account = Some(Account {
            user: identity.user.clone(),
            device,
            acks: wishes.acks,
            expires_at: identity.expires_at,
            token,
            expiry_told: false,
        });
        session.follow_wall(turn.now);
        session.opening = Some(Box::new(Opening { wishes: wishes.clone(), request, ..Opening::default() }));
        let owner = self.owner_of_user(&identity.user);
        self.route_anew(owner, Body::AttachUser { asker, wishes }, turn);
    }

    /// The user's owner has let the session in: its cursors take their places.
    pub(super) fn attached(&mut self, key: SessionKey, state: UserState, sessions: u32, turn: &mut Turn<'_>) {
        let Some(session) = self.session(key).filter(|session| session.phase == Phase::Authenticating) else { return };
        session.phase = Phase::Ready;
        session.timers.phase = NEVER;
        session.sharers = sessions.max(1);
        let opening = session.opening.take().expect("an authenticating session has its opening state");
        session.owe_sync(None);
        self.counters.ready += 1;
        self.greet(key, opening.request.as_ref(), turn);
        if state.damaged > 0 {
            self.counters.damaged += u64::from(state.damaged);
            let fault = Fault::new(ErrorName::StoreUnavailable, "some of your conversations are damaged and left out");
            self.refuse(key, None, fault, turn);
        }
        let account = self.live(key).account();
        let (user, device) = (account.user.clone(), account.device.clone());
        if !state.device_known {
            self.register_device(&user, &device, &state.conversations, turn);
        }
        for row in &state.conversations {
            let noted = opening.noted.iter().find(|(conversation, _)| *conversation == row.conversation);
            let head = noted.map_or(row.head, |(_, seq)| row.head.max(*seq));
            self.take_place(key, row, head, state.device_known, turn);
        }
        for (conversation, seq) in &opening.noted {
            if state.conversations.iter().any(|row| row.conversation == *conversation) {
                continue;
            }
            // A conversation that began, or a group that was joined, while the snapshot was being read.
            match conversation.kind() {
                ConversationKind::Group(group) => self.request_group(key, group, Seq::NONE, None, turn),
                _ => self.add_lagging(key, conversation, Seq::NONE, *seq),
            }
        }
        if opening.wishes.presence {
            self.watch_contacts(key, &state.conversations, turn);
        }
        self.refill(key, turn);
        self.sync_progress(key, turn);
        for request in opening.early {
            self.request_ready(key, request, turn);
        }
    }

    /// A conversation that is damaged on disk: the session is told that it goes without, and keeps all others.
    pub(super) fn leave_out(&mut self, key: SessionKey, conversation: &ConversationId, turn: &mut Turn<'_>) {
        self.counters.damaged += 1;
        let message = format!("conversation {conversation} is damaged and left out");
        self.refuse(key, None, Fault::new(ErrorName::StoreUnavailable, message), turn);
    }

    fn greet(&mut self, key: SessionKey, request: Option<&RequestId>, turn: &mut Turn<'_>) {
        let session = self.live(key);
        let account = session.account();
        turn.effects.directory.push(DirectoryChange::Enter {
            key,
            session: session.id,
            user: account.user.clone(),
            device: account.device.clone(),
            remote: session.remote,
            since_ms: turn.now.wall.0,
        });
        self.arm(key);
        let success = self.auth_success(key, turn);
        self.say(key, Lane::Reply, &Push::AuthSuccess(success), request, turn);
    }

    /// What a client is told when it is let in, or has renewed its token.
    pub(super) fn auth_success(&mut self, key: SessionKey, turn: &Turn<'_>) -> Box<AuthSuccess> {
        let settings = self.settings.clone();
        let session = self.live(key);
        let account = session.account();
        Box::new(AuthSuccess {
            user: account.user.clone(),
            device: account.device.clone(),
            session: session.id,
            node: settings.node.as_str().into(),
            server_time: turn.now.wall,
            heartbeat_ms: settings.heartbeat_interval_ms,
            token_expires_at: account.expires_at,
            limits: ClientLimits {
                message_bytes: settings.message_bytes_max as u64,
                content_bytes: settings.content_bytes_max as u64,
                messages_per_second: u64::from(settings.messages_per_second),
            },
        })
    }

    /// A device seen for the first time starts at the present: it gets what no device of the user has had, and what is as recent
    /// as `messages.new_device_window` says.
    fn register_device(&mut self, user: &UserId, device: &DeviceId, rows: &[UserConversation], turn: &mut Turn<'_>) {
        let deliveries = rows
            .iter()
            .map(|row| Delivery {
                user: user.clone(),
                device: device.clone(),
                conversation: row.conversation.clone(),
                seq: row.new_device_from(),
            })
            .collect();
        let write = Box::new(Write::Device { user: user.clone(), device: device.clone(), at: turn.now.wall, deliveries });
        let owner = self.owner_of_user(user);
        self.route_anew(owner, Body::PersistUser { user: user.clone(), write }, turn);
    }

    /// Puts a cursor where the device stands in one conversation.
    fn take_place(&mut self, key: SessionKey, row: &UserConversation, head: Seq, device_known: bool, turn: &mut Turn<'_>) {
        let from = if device_known { row.delivered_device.unwrap_or(row.start_seq) } else { row.new_device_from() };
        let from = from.max(row.start_seq);
        if let ConversationKind::Group(group) = row.conversation.kind() {
            self.request_group(key, group, from, None, turn);
        } else if from < head {
            self.add_lagging(key, &row.conversation, from, head);
        }
        // A conversation that is read to its end needs no cursor before its next message.
    }

    fn add_lagging(&mut self, key: SessionKey, conversation: &ConversationId, from: Seq, head: Seq) {
        let Some(session) = self.session(key) else { return };
        let was_lagging = session.lagging > 0;
        let mut cursor = Cursor::new(conversation.clone(), from, CursorState::Lagging);
        cursor.head = head;
        if let Some(sync) = session.sync.as_mut() {
            cursor.counted = true;
            sync.behind += 1;
        }
        session.add_cursor(cursor);
        if !was_lagging {
            self.counters.lagging += 1;
        }
    }

    /// Asks a group's owner to deliver to this session.
    pub(super) fn request_group(
        &mut self,
        key: SessionKey,
        group: GroupId,
        from: Seq,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        let conversation = ConversationId::group(&group);
        let Some(session) = self.ready(key) else { return };
        if let Some(index) = session.cursor_of(&conversation) {
            reached(Reached::Reattached);
            session.cursor(index).reattach = true;
            return;
        }
        session.add_cursor(Cursor::new(conversation.clone(), from, CursorState::Attaching));
        if let Some(sync) = session.sync.as_mut() {
            sync.attaching += 1;
        }
        let Some(asker) = self.asker(key, request, turn) else { return };
        let owner = self.owner_of(&conversation);
        self.route_anew(owner, Body::AttachGroup { group, asker }, turn);
    }

    /// The group's owner delivers from `head` on.
    pub(super) fn group_attached(
        &mut self,
        group: GroupId,
        address: SessionAddress,
        user: UserId,
        head: Seq,
        joined: Seq,
        turn: &mut Turn<'_>,
    ) {
        let key = address.key;
        let conversation = ConversationId::group(&group);
        let place = self.ready(key).and_then(|session| {
            let index = session.cursor_of(&conversation)?;
            (session.cursor(index).state == CursorState::Attaching).then_some(index)
        });
        let Some(index) = place else {
            // Gone in the meantime, so the owner counts one too many.
            self.detach_from(&conversation, group, user, turn);
            return;
        };
        let room = self.rooms.enter(&group, head);
        let entered = self.rooms.get_mut(room).expect("a room that was just entered");
        let head = entered.head.max(head);
        let position = entered.members.len() as u32;
        entered.members.push(RoomMember { slot: key.slot, cursor: index });
        let Some(session) = self.session(key) else { return };
        let was_lagging = session.lagging > 0;
        let cursor = session.cursor(index);
        cursor.room = room;
        cursor.room_position = position;
        cursor.reattach = false;
        let had = cursor.sent;
        let from = if planted(Planted::AttachIgnoresHead) { head } else { cursor.sent.max(joined).min(head) };
        // What was pushed here before is in the log, though its owner may not have heard so yet.
        let head = head.max(cursor.repeat_until);
        (cursor.sent, cursor.acked, cursor.persisted, cursor.foreign) = (from, from, cursor.persisted.min(from), from);
        cursor.began = from;
        let behind = from < head;
        session.set_state(index, CursorState::Live);
        if behind {
            session.lag(index, from, head);
        }
        if let Some(sync) = session.sync.as_mut() {
            sync.attaching = sync.attaching.saturating_sub(1);
            sync.behind += u32::from(behind);
            session.cursors[index as usize].counted = behind;
        }
        self.counters.lagging += u64::from(behind && !was_lagging);
        if had > Seq::NONE && had < from {
            self.explain(key, index, had.next(), from, SkipReason::NotAMember, turn);
        }
        if behind {
            self.refill(key, turn);
        }
        self.sync_progress(key, turn);
    }

    /// The user became a member while these sessions were connected.
    pub(super) fn attach_sessions(&mut self, sessions: &SessionList, group: GroupId, turn: &mut Turn<'_>) {
        for key in sessions {
            match self.session(*key).and_then(|session| session.opening.as_mut()) {
                // The snapshot on its way may be older than this membership.
                Some(opening) => opening.note(&ConversationId::group(&group), Seq::NONE),
                None => self.request_group(*key, group.clone(), Seq::NONE, None, turn),
            }
        }
    }
}

/// Owner of the user.
impl Shard {
    /// Writes something of a user's own.
    pub(super) fn write_for_user(&mut self, user: UserId, write: Write, turn: &mut Turn<'_>) {
        self.users.fences.entry(user.clone()).or_default().writes += 1;
        self.store(Operation::Write(write), Pending::UserWrite(user), turn);
    }

    /// The store has answered such a write: what waited for the last of them goes on.
    pub(super) fn user_written(&mut self, user: &UserId, turn: &mut Turn<'_>) {
        let Some(fence) = self.users.fences.get_mut(user) else { return };
        fence.writes -= 1;
        if fence.writes > 0 {
            return;
        }
        let waiting = self.users.fences.swap_remove(user).map(|fence| fence.waiting).unwrap_or_default();
        for body in waiting {
            self.route_anew(self.id, body, turn);
        }
    }

    pub(super) fn attach_user(&mut self, asker: Box<Asker>, wishes: Wishes, turn: &mut Turn<'_>) {
        // A device that comes back at once must find what it has had before.
        if let Some(fence) = self.users.fences.get_mut(&asker.user) {
            reached(Reached::FenceWaited);
            return fence.waiting.push(Body::AttachUser { asker, wishes });
        }
        if self.store_is_full() {
            self.route(asker.address.shard, Body::Refused { address: asker.address, close: CloseCode::Overloaded }, turn);
            return;
        }
        let known = self.users.online.get(&asker.user);
        let first = known.is_none();
        let known_device = known.is_some_and(|user| user.sessions.iter().any(|attached| attached.device == asker.device));
        if self.make_room(&asker, turn) {
            let body = Body::Refused { address: asker.address, close: CloseCode::ConnectionLimit };
            self.route(asker.address.shard, body, turn);
            return;
        }
        let user = self.users.online.entry(asker.user.clone()).or_default();
        if !planted(Planted::AttachAfterSnapshot) {
            user.sessions.push(Attached { address: asker.address, device: asker.device.clone() });
        }
        self.counters.online_users += u64::from(first);
        if first || !known_device {
            self.presence_of(&asker.user, None, turn);
        }
        // The first session is told its share with its snapshot.
        if !first {
            self.share_rate(&asker.user, turn);
        }
        let window_ms = self.settings.new_device_window_ms;
        let recent_since = (window_ms > 0).then(|| Millis(turn.now.wall.0.saturating_sub(window_ms)));
        let read = Read::User { user: asker.user.clone(), device: asker.device.clone(), recent_since };
        self.store(Operation::Read(read), Pending::LoadUser { asker }, turn);
    }

    /// Applies the session policy. Returns whether the new session is refused.
    fn make_room(&mut self, asker: &Asker, turn: &mut Turn<'_>) -> bool {
        let cap = self.settings.sessions_per_user as usize;
        let policy = self.settings.session_policy;
        let Some(user) = self.users.online.get_mut(&asker.user) else { return false };
        let mut evicted: Vec<Attached> = Vec::new();
        if policy == SessionPolicy::ReplaceDevice {
            while let Some(at) = user.sessions.iter().position(|attached| attached.device == asker.device) {
                evicted.push(user.sessions.remove(at));
            }
        }
        let mut refused = false;
        while cap > 0 && user.sessions.len() >= cap {
            if policy != SessionPolicy::EvictOldest {
                reached(Reached::SessionRefused);
                refused = true;
                break;
            }
            evicted.push(user.sessions.remove(0));
        }
        for attached in evicted {
            reached(Reached::SessionEvicted);
            let body = Body::Refused { address: attached.address, close: CloseCode::Replaced };
            self.route(attached.address.shard, body, turn);
        }
        refused
    }

    /// Tells each of a user's sessions how many share the user's rate.
    fn share_rate(&mut self, user: &UserId, turn: &mut Turn<'_>) {
        let Some(found) = self.users.online.get(user) else { return };
        if self.settings.user_messages_per_second == 0 {
            return;
        }
        let sessions = found.sessions.len() as u32;
        let addresses: SmallVec<[SessionAddress; 8]> = found.sessions.iter().map(|attached| attached.address).collect();
        for address in addresses {
            self.route(address.shard, Body::SessionsShare { address, sessions }, turn);
        }
    }

    pub(super) fn user_loaded(&mut self, asker: &Asker, result: Result<Answer, StoreFault>, turn: &mut Turn<'_>) {
        if planted(Planted::AttachAfterSnapshot)
            && let Some(user) = self.users.online.get_mut(&asker.user)
        {
            user.sessions.push(Attached { address: asker.address, device: asker.device.clone() });
        }
        let sessions = self.users.online.get(&asker.user).map_or(1, |user| user.sessions.len() as u32);
        let body = match result {
            Ok(Answer::User(state)) => Body::Attached { address: asker.address, state, sessions },
            // Nothing of the user's can be read, which coming back would not change: they get what is said from now on.
            Err(StoreFault::Damaged(_)) => {
                let state = UserState { device_known: true, conversations: Vec::new(), last_seen: None, damaged: 1 };
                Body::Attached { address: asker.address, state: Box::new(state), sessions }
            }
            _ => Body::Refused { address: asker.address, close: CloseCode::Overloaded },
        };
        self.route(asker.address.shard, body, turn);
    }

    pub(super) fn detach_user(
        &mut self,
        user: UserId,
        device: DeviceId,
        address: SessionAddress,
        at: Millis,
        turn: &mut Turn<'_>,
    ) {
        if let Some(fence) = self.users.fences.get_mut(&user) {
            // It has left before it was let in.
            fence.waiting.retain(|body| !matches!(body, Body::AttachUser { asker, .. } if asker.address == address));
        }
        let Some(found) = self.users.online.get_mut(&user) else { return };
        let before = found.sessions.len();
        found.sessions.retain(|attached| attached.address != address);
        if found.sessions.len() == before && before > 0 {
            // Evicted before: its place was given away.
            return;
        }
        if found.sessions.is_empty() {
            self.users.online.swap_remove(&user);
            self.counters.online_users -= 1;
            self.write_for_user(user.clone(), Write::LastSeen { user: user.clone(), at }, turn);
            if !planted(Planted::PresenceUntold) {
                self.presence_of(&user, Some(at), turn);
            }
        } else if !found.sessions.iter().any(|attached| attached.device == device) {
            self.presence_of(&user, None, turn);
        }
        self.share_rate(&user, turn);
    }

    /// The user's connected sessions attach to a group they were added to.
    pub(super) fn member_added(&mut self, group: GroupId, user: &UserId, turn: &mut Turn<'_>) {
        for (shard, sessions) in self.sessions_by_shard(user) {
            self.route(shard, Body::AttachSessions { sessions, group: group.clone() }, turn);
        }
    }

    pub(super) fn watch(&mut self, users: Vec<UserId>, address: SessionAddress, session: crate::types::SessionId) {
        for user in users {
            let watchers = self.users.watchers.entry(user).or_default();
            let watcher = Watcher { address, session };
            if !watchers.contains(&watcher) && watchers.len() < WATCHERS_MAX {
                watchers.push(watcher);
            }
        }
    }

    pub(super) fn unwatch(&mut self, users: &[UserId], address: SessionAddress) {
        for user in users {
            if let Some(watchers) = self.users.watchers.get_mut(user) {
                watchers.retain(|watcher| watcher.address != address);
                if watchers.is_empty() {
                    self.users.watchers.swap_remove(user);
                }
            }
        }
    }
}

/// Owner of the group.
impl Shard {
    pub(super) fn attach_group(&mut self, group: GroupId, asker: Box<Asker>, turn: &mut Turn<'_>) {
        let conversation = ConversationId::group(&group);
        if self.prepare(&conversation, turn) {
            self.attach_now(group, &asker, turn);
        } else {
            self.wait(&conversation, Waiting::Attach(asker), turn);
        }
    }

    pub(super) fn attach_now(&mut self, group: GroupId, asker: &Asker, turn: &mut Turn<'_>) {
        let conversation = ConversationId::group(&group);
        let shards = usize::from(self.shards);
        let entry = self.entry(&conversation);
        debug_assert!(entry.state == State::Ready);
        let head = entry.head;
        let owned = entry.group.as_mut().expect("a group conversation has its group");
        let address = asker.address;
        let body = match owned.members.get_mut(&asker.user) {
            Some(member) => {
                member.online += 1;
                owned.online_by_shard.resize(shards, 0);
                owned.online_by_shard[asker.address.shard.index()] += 1;
                Body::GroupAttached { group, address: asker.address, user: asker.user.clone(), head, joined: member.joined_seq }
            }
            None => Body::GroupRefused { group, address: asker.address, damaged: false },
        };
        self.route(address.shard, body, turn);
    }

    pub(super) fn detach_group(&mut self, group: &GroupId, user: &UserId, shard: ShardId) {
        let conversation = ConversationId::group(group);
        if let Some(owned) = self.conversations.table.get_mut(&conversation).and_then(|entry| entry.group.as_mut()) {
            owned.detach(user, shard);
        }
    }

    /// The home learns that a group it asked for is not for this session.
    pub(super) fn group_refused(&mut self, group: &GroupId, key: SessionKey, damaged: bool, turn: &mut Turn<'_>) {
        let conversation = ConversationId::group(group);
        if damaged {
            self.leave_out(key, &conversation, turn);
        }
        if let Some(dropped) = self.drop_cursor(key, &conversation, turn).filter(|dropped| dropped.reattach) {
            self.request_group_again(key, group, dropped.pushed, turn);
        }
        self.sync_progress(key, turn);
    }
}

/// Sessions that may watch one user.
const WATCHERS_MAX: usize = 10_000;
