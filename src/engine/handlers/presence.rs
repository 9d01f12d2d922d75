//! `get_presence`, `subscribe_presence`, `unsubscribe_presence`: who is online, now and from now on.
//!
//! The owner of each user answers for them; the home puts the parts together. Subscriptions are per session and end with it.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::engine::outbox::Lane;
use crate::engine::pending::Pending;
use crate::engine::refill::store_fault;
use crate::engine::shard::{Shard, Turn};
use crate::types::command::{Command, PresenceTarget};
use crate::types::envelope::{Asker, Body};
use crate::types::outcome::Fault;
use crate::types::planted::{Planted, planted};
use crate::types::push::{Ack, PresenceEntry, Push};
use crate::types::record::UserConversation;
use crate::types::storage::{Answer, Operation, Read, StoreFault};
use crate::types::{
    ConversationId, ConversationKind, ErrorName, Frame, Millis, RequestId, SessionAddress, SessionKey, ShardId, UserId,
};

/// Answers that are being put together.
#[derive(Debug, Default)]
pub struct Gathers {
    open: HashMap<u64, Gather, foldhash::quality::FixedState>,
    next: u64,
}

#[derive(Debug)]
struct Gather {
    request: Option<RequestId>,
    parts_missing: usize,
    /// In the order in which they were asked for; those who are not shown come last.
    users: Vec<UserId>,
    entries: Vec<PresenceEntry>,
}

/// At the client's home.
impl Shard {
    pub(super) fn presence(
        &mut self,
        key: SessionKey,
        target: PresenceTarget,
        watch: bool,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        let users = match target {
            PresenceTarget::Group(ref group) => {
                let conversation = ConversationId::group(group);
                let command = if watch { Command::SubscribePresence(target) } else { Command::GetPresence(target) };
                return self.pass_to_owner(key, conversation, command, request, turn);
            }
            PresenceTarget::Users(users) => users,
        };
        if self.gathers.open.len() >= GATHERS_MAX {
            return self.refuse(key, request.as_ref(), crate::engine::refill::overloaded(), turn);
        }
        if !self.settings.presence_contacts_only || planted(Planted::StrangersTold) {
            return self.presence_of_users(key, users, Vec::new(), watch, request, turn);
        }
        if self.store_is_full() {
            return self.refuse(key, request.as_ref(), crate::engine::refill::overloaded(), turn);
        }
        let Some(asker) = self.asker(key, request, turn) else { return };
        let read = Read::Contacts { user: asker.user.clone(), others: users.clone() };
        self.store(Operation::Read(read), Pending::Contacts { asker, users, watch }, turn);
    }

    /// The store has said who of `users` shares a conversation with the asker: the others look as if they had never been here.
    pub(in crate::engine) fn contacts_found(
        &mut self,
        asker: &Asker,
        users: Vec<UserId>,
        watch: bool,
        result: Result<Answer, StoreFault>,
        turn: &mut Turn<'_>,
    ) {
        let contacts = match result {
            Ok(Answer::Contacts(contacts)) => contacts,
            Ok(_) => return debug_assert!(false, "contacts were asked for"),
            Err(fault) => return self.fail(asker, store_fault(&fault), turn),
        };
        let key = asker.address.key;
        if self.ready(key).is_none_or(|session| session.id != asker.session) {
            return;
        }
        let (contacts, strangers) = users.into_iter().partition(|user| *user == asker.user || contacts.contains(user));
        self.presence_of_users(key, contacts, strangers, watch, asker.request.clone(), turn);
    }

    /// Asks for `users`; `hidden` are answered for as offline.
    fn presence_of_users(
        &mut self,
        key: SessionKey,
        users: Vec<UserId>,
        hidden: Vec<UserId>,
        watch: bool,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        if watch && let Err(fault) = self.note_watches(key, &users) {
            return self.refuse(key, request.as_ref(), fault, turn);
        }
        self.gather(key, users, hidden, watch, request, turn);
    }

    fn gather(
        &mut self,
        key: SessionKey,
        users: Vec<UserId>,
        hidden: Vec<UserId>,
        watch: bool,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        let Some(asker) = self.asker(key, request.clone(), turn) else { return };
        let parts = self.by_owner(&users);
        let offline = |user: UserId| PresenceEntry { user, online: false, last_seen: None, devices: 0 };
        let entries: Vec<PresenceEntry> = hidden.into_iter().map(offline).collect();
        if parts.is_empty() {
            return self.say(key, Lane::Reply, &Push::PresenceUsers(entries), request.as_ref(), turn);
        }
        self.gathers.next += 1;
        let id = self.gathers.next;
        let gather = Gather { request, parts_missing: parts.len(), users, entries };
        self.gathers.open.insert(id, gather);
        for (shard, users) in parts {
            let body = Body::AskPresence { asker: asker.clone(), users, watch, gather: id };
            self.route_anew(shard, body, turn);
        }
    }

    fn by_owner(&self, users: &[UserId]) -> SmallVec<[(ShardId, Vec<UserId>); 4]> {
        let mut parts: SmallVec<[(ShardId, Vec<UserId>); 4]> = SmallVec::new();
        for user in users {
            let owner = self.owner_of_user(user);
            match parts.iter_mut().find(|(shard, _)| *shard == owner) {
                Some((_, part)) => part.push(user.clone()),
                None => parts.push((owner, vec![user.clone()])),
            }
        }
        parts
    }

    pub(in crate::engine) fn presence_part(
        &mut self,
        key: SessionKey,
        gather: u64,
        entries: Vec<PresenceEntry>,
        turn: &mut Turn<'_>,
    ) {
        if let Some(number) = key.call() {
            return turn.effects.answers.push((number, Ok(Push::PresenceUsers(entries))));
        }
        let Some(open) = self.gathers.open.get_mut(&gather) else { return };
        open.entries.extend(entries);
        open.parts_missing -= 1;
        if open.parts_missing > 0 {
            return;
        }
        let gather = self.gathers.open.remove(&gather).expect("the gather was just counted down");
        let mut entries = gather.entries;
        entries.sort_by_key(|entry| gather.users.iter().position(|user| *user == entry.user).unwrap_or(usize::MAX));
        if self.ready(key).is_some() {
            self.say(key, Lane::Reply, &Push::PresenceUsers(entries), gather.request.as_ref(), turn);
        }
    }

    /// Somebody watched has come or gone.
    pub(in crate::engine) fn presence_changed(&mut self, key: SessionKey, entry: &PresenceEntry, turn: &mut Turn<'_>) {
        let keep = self.ephemeral_key("presence", entry.user.as_str());
        let frame: Frame = self.encoder.push(&Push::PresenceUsers(vec![entry.clone()]), None);
        let mut shed = 0;
        let Some(session) = self.ready(key) else { return };
        // What was on its way when the subscription ended comes too late.
        if !session.watches.as_ref().is_some_and(|watches| watches.contains(&entry.user)) {
            return;
        }
        if session.outbox.push_keyed(Lane::Ephemeral, keep, frame, &mut shed) {
            turn.effects.dirty.push(key);
        }
        self.counters.shed += shed;
    }

    pub(super) fn unsubscribe_presence(
        &mut self,
        key: SessionKey,
        target: PresenceTarget,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        let shard = self.id;
        let Some(session) = self.ready(key) else { return };
        let address = session.address(shard);
        let users = match target {
            PresenceTarget::Users(users) => {
                if let Some(watches) = session.watches.as_mut() {
                    watches.retain(|watched| !users.contains(watched));
                }
                users
            }
            // A group's subscription is made of users; which ones the session does not know apart from its others.
            PresenceTarget::Group(_) => session.watches.take().into_iter().flat_map(|watches| *watches).collect(),
        };
        let kept: Vec<u64> = users.iter().map(|user| self.ephemeral_key("presence", user.as_str())).collect();
        if let Some(session) = self.ready(key) {
            // It would leave behind the ack.
            kept.into_iter().for_each(|keep| session.outbox.withdraw(Lane::Ephemeral, keep));
        }
        self.unwatch_all(address, users, turn);
        self.say(key, Lane::Reply, &Push::Ack(Ack::default()), request.as_ref(), turn);
    }

    /// Ends a session's subscriptions to `users`.
    pub(in crate::engine) fn unwatch_all(&mut self, address: SessionAddress, users: Vec<UserId>, turn: &mut Turn<'_>) {
        for (shard, users) in self.by_owner(&users) {
            self.route_anew(shard, Body::Unwatch { users, address }, turn);
        }
    }

    /// `presence: true` at authentication: everyone who shares a conversation.
    pub(in crate::engine) fn watch_contacts(&mut self, key: SessionKey, rows: &[UserConversation], turn: &mut Turn<'_>) {
        let Some(session) = self.ready(key) else { return };
        let me = session.account().user.clone();
        let watches_max = self.settings.presence_watches_max as usize;
        let mut peers: Vec<UserId> = Vec::new();
        for row in rows {
            match row.conversation.kind() {
                ConversationKind::Private(one, other) => {
                    let peer = if one == me { other } else { one };
                    if peer != me && peers.len() < watches_max {
                        peers.push(peer);
                    }
                }
                ConversationKind::Group(group) => {
                    let command = Command::SubscribePresence(PresenceTarget::Group(group));
                    self.pass_to_owner(key, row.conversation.clone(), command, None, turn);
                }
                ConversationKind::System(_) => {}
            }
        }
        if !peers.is_empty() && self.note_watches(key, &peers).is_ok() && self.gathers.open.len() < GATHERS_MAX {
            self.gather(key, peers, Vec::new(), true, None, turn);
        }
    }

    /// Remembers whom a session watches, within its limit.
    fn note_watches(&mut self, key: SessionKey, users: &[UserId]) -> Result<(), Fault> {
        let watches_max = self.settings.presence_watches_max as usize;
        let Some(session) = self.ready(key) else { return Ok(()) };
        let watches = session.watches.get_or_insert_default();
        let new: Vec<UserId> = users.iter().filter(|user| !watches.contains(*user)).cloned().collect();
        if watches.len() + new.len() > watches_max {
            let text = format!("at most {watches_max} users can be watched by one connection");
            return Err(Fault::new(ErrorName::BadRequest, text));
        }
        watches.extend(new);
        Ok(())
    }
}

/// At the owners.
impl Shard {
    pub(in crate::engine) fn ask_presence(
        &mut self,
        asker: Box<Asker>,
        users: Vec<UserId>,
        watch: bool,
        gather: u64,
        turn: &mut Turn<'_>,
    ) {
        if watch {
            self.watch(users.clone(), asker.address, asker.session);
        }
        // Somebody is just leaving: when is being written.
        let leaving = users.iter().find(|user| !self.users.online.contains_key(*user) && self.users.fences.contains_key(*user));
        if let Some(fence) = leaving.cloned().and_then(|user| self.users.fences.get_mut(&user)) {
            return fence.waiting.push(Body::AskPresence { asker, users, watch: false, gather });
        }
        let entries: Vec<PresenceEntry> = users.iter().map(|user| self.entry_of(user, None)).collect();
        let offline: Vec<UserId> = entries.iter().filter(|entry| !entry.online).map(|entry| entry.user.clone()).collect();
        if offline.is_empty() || self.store_is_full() {
            let body = Body::PresencePart { address: asker.address, gather, entries };
            return self.route(asker.address.shard, body, turn);
        }
        let pending = Pending::PresenceLastSeen { asker, gather, entries };
        self.store(Operation::Read(Read::LastSeen { users: offline }), pending, turn);
    }

    pub(in crate::engine) fn presence_last_seen(
        &mut self,
        asker: &Asker,
        gather: u64,
        mut entries: Vec<PresenceEntry>,
        result: Result<Answer, StoreFault>,
        turn: &mut Turn<'_>,
    ) {
        // A store that cannot say when leaves it unsaid.
        if let Ok(Answer::LastSeen(seen)) = result {
            for (user, at) in seen {
                if let Some(entry) = entries.iter_mut().find(|entry| entry.user == user) {
                    entry.last_seen = at;
                }
            }
        }
        // Who has come in the meantime is online, whatever was true when the store was asked.
        for entry in &mut entries {
            let last_seen = entry.last_seen;
            *entry = self.entry_of(&entry.user, None);
            entry.last_seen = last_seen.filter(|_| !entry.online);
        }
        self.route(asker.address.shard, Body::PresencePart { address: asker.address, gather, entries }, turn);
    }

    fn entry_of(&self, user: &UserId, last_seen: Option<Millis>) -> PresenceEntry {
        let devices = self.users.online.get(user).map_or(0, |found| found.devices());
        PresenceEntry { user: user.clone(), online: devices > 0, last_seen, devices }
    }

    /// Tells everyone who watches a user what has changed.
    pub(in crate::engine) fn presence_of(&mut self, user: &UserId, last_seen: Option<Millis>, turn: &mut Turn<'_>) {
        let Some(watchers) = self.users.watchers.get(user) else { return };
        let watchers = watchers.clone();
        let entry = std::sync::Arc::new(self.entry_of(user, last_seen));
        for watcher in watchers {
            let body = Body::PresenceChanged { address: watcher.address, entry: entry.clone() };
            self.route_anew(watcher.address.shard, body, turn);
        }
    }

    pub(super) fn group_presence(&mut self, asker: Box<Asker>, conversation: ConversationId, watch: bool, turn: &mut Turn<'_>) {
        if let Err(name) = self.role_of(&conversation, &asker.user) {
            return self.fail(&asker, name, turn);
        }
        let owned = self.conversations.table.get(&conversation).and_then(|entry| entry.group.as_ref());
        let owned = owned.expect("a prepared group conversation has its group");
        let online = owned.members.values().filter(|member| member.online > 0).count() as u64;
        let users: Vec<PresenceEntry> = owned
            .members
            .iter()
            .filter(|(_, member)| member.online > 0)
            .take(GROUP_USERS_MAX)
            .map(|(user, member)| PresenceEntry { user: user.clone(), online: true, last_seen: None, devices: member.online })
            .collect();
        let watched: Vec<UserId> = if watch {
            owned.members.keys().filter(|user| **user != asker.user).take(GROUP_USERS_MAX).cloned().collect()
        } else {
            Vec::new()
        };
        let group = owned.id.clone();
        if !watched.is_empty() {
            let body = Body::WatchFor { address: asker.address, session: asker.session, users: watched };
            self.route(asker.address.shard, body, turn);
        }
        self.reply(&asker, Push::PresenceGroup { group, online, users }, turn);
    }

    /// A group's owner has named the members a session watches.
    pub(in crate::engine) fn watch_for(
        &mut self,
        key: SessionKey,
        session: crate::types::SessionId,
        users: Vec<UserId>,
        turn: &mut Turn<'_>,
    ) {
        let shard = self.id;
        if self.ready(key).is_none_or(|found| found.id != session) || self.note_watches(key, &users).is_err() {
            return;
        }
        let address = SessionAddress { shard, key };
        for (owner, users) in self.by_owner(&users) {
            self.route_anew(owner, Body::Watch { users, address, session }, turn);
        }
    }
}

/// Answers in the making per shard.
const GATHERS_MAX: usize = 4_096;
/// Members of a group named in one answer.
const GROUP_USERS_MAX: usize = 100;
