//! Owns what each verb does, one file a verb: its part at the client's home, and its part at the owner of what it is about.
//!
//! Adding a verb: a file here, an arm in [`Shard::request_ready`], and an arm in [`Shard::decide`] when an owner decides.

mod delete;
mod groups;
mod history;
mod lists;
mod mark_read;
mod members;
mod notify;
mod operate;
mod ping;
mod presence;
mod recall;
mod refresh;
mod send;
mod typing;

pub(super) use notify::Later;
pub(super) use presence::Gathers;

use crate::types::command::ConversationRef;
use crate::types::envelope::{Asker, Body, Question};
use crate::types::outcome::Fault;
use crate::types::planted::{Planted, Reached, planted, reached};
use crate::types::push::{Ack, Push};
use crate::types::record::{Role, SharedMessage};
use crate::types::storage::{Answer, Operation, Read, StoreFault};
use crate::types::{Command, ConversationId, ConversationKind, ErrorName, GroupId, Request, RequestId, SessionKey, UserId};

use super::conversations::{Conversation, OwnedGroup, State, Waiting};
use super::pending::Pending;
use super::refill::{overloaded, store_fault};
use super::session::Phase;
use super::shard::{Shard, Turn};

/// At the client's home.
impl Shard {
    /// A well-formed envelope.
    pub(super) fn request(&mut self, key: SessionKey, request: Request, _bytes: u32, turn: &mut Turn<'_>) {
        self.heard(key, turn.now);
        self.counters.received[request.command.index()] += 1;
        let Some(session) = self.session(key) else { return };
        match (session.phase, request.command) {
            (Phase::Closing { .. }, _) => {}
            (Phase::Ready, command) => self.request_ready(key, Request { id: request.id, command }, turn),
            (_, Command::Ping) => {
                if self.admit(key, request.id.as_ref(), turn) {
                    self.ping(key, request.id.as_ref(), turn);
                }
            }
            (Phase::Opening, Command::Auth(auth)) => self.auth(key, auth, request.id, turn),
            (Phase::Opening, _) => self.refuse_early(key, request.id.as_ref(), ErrorName::Unauthenticated.into(), turn),
            (Phase::Authenticating, Command::Auth(_)) => {
                self.refuse(key, request.id.as_ref(), ErrorName::AlreadyAuthenticated.into(), turn)
            }
            (Phase::Authenticating, command) => {
                let opening = session.opening.as_mut().expect("an authenticating session has its opening state");
                if opening.early.len() < EARLY_REQUESTS_MAX {
                    reached(Reached::RequestEarly);
                    opening.early.push(Request { id: request.id, command });
                } else {
                    let fault = Fault::retry(ErrorName::RateLimited, "wait for auth_success", 100);
                    self.refuse(key, request.id.as_ref(), fault, turn);
                }
            }
        }
    }

    /// A request of an authenticated session.
    pub(super) fn request_ready(&mut self, key: SessionKey, request: Request, turn: &mut Turn<'_>) {
        let id = request.id;
        if !matches!(request.command, Command::RecvAck(_)) && !self.admit(key, id.as_ref(), turn) {
            return;
        }
        if self.drain_until.is_some() && writes(&request.command) {
            let fault = Fault::retry(ErrorName::Draining, "this server is shutting down", 1_000);
            return self.refuse(key, id.as_ref(), fault, turn);
        }
        if lists(&request.command) {
            self.owe_list(key, turn);
        }
        match request.command {
            Command::Auth(_) => self.refuse(key, id.as_ref(), ErrorName::AlreadyAuthenticated.into(), turn),
            Command::Refresh { token } => self.refresh(key, &token, id, turn),
            Command::Ping => self.ping(key, id.as_ref(), turn),
            Command::Send(draft) => self.send(key, draft, id, turn),
            Command::RecvAck(acks) => self.recv_ack(key, acks, turn),
            Command::Sync { cursors } => self.sync(key, id, cursors, turn),
            Command::Typing { target, active } => self.typing(key, target, active, id, turn),
            Command::GetPresence(target) => self.presence(key, target, false, id, turn),
            Command::SubscribePresence(target) => self.presence(key, target, true, id, turn),
            Command::UnsubscribePresence(target) => self.unsubscribe_presence(key, target, id, turn),
            Command::Recall(message) => self.locate(key, message, Command::Recall(message), id, turn),
            Command::Delete(message) => self.locate(key, message, Command::Delete(message), id, turn),
            Command::MarkRead { conversation, upto } => self.mark_read(key, conversation, upto, id, turn),
            Command::GetHistory(query) => self.get_history(key, query, id, turn),
            Command::GetConversations { limit, cursor } => self.get_conversations(key, limit, cursor, id, turn),
            Command::GetUnread => self.get_unread(key, id, turn),
            Command::Search { query, conversation, limit, cursor } => {
                self.search(key, lists::Search { query, conversation, limit, cursor }, id, turn)
            }
            Command::CreateGroup(_) if self.has_enough_groups(key, None) => self.refuse_group(key, id.as_ref(), turn),
            Command::JoinGroup(ref group) if self.has_enough_groups(key, Some(group)) => {
                self.refuse_group(key, id.as_ref(), turn);
            }
            Command::CreateGroup(group) => self.create_group(key, group, id, turn),
            Command::JoinGroup(ref group)
            | Command::LeaveGroup(ref group)
            | Command::Invite { ref group, .. }
            | Command::Remove { ref group, .. } => {
                let conversation = ConversationId::group(group);
                self.pass_to_owner(key, conversation, request.command, id, turn);
            }
        }
    }

    fn refuse_group(&mut self, key: SessionKey, request: Option<&RequestId>, turn: &mut Turn<'_>) {
        let text = format!("one user can be in at most {} groups", self.settings.groups_per_user_max);
        self.refuse(key, request, Fault::new(ErrorName::BadRequest, text), turn);
    }

    /// A session holds a cursor of each of its user's groups; one that it is in already is none too many.
    fn has_enough_groups(&mut self, key: SessionKey, joins: Option<&GroupId>) -> bool {
        let groups_max = self.settings.groups_per_user_max as usize;
        let Some(session) = self.ready(key) else { return false };
        if joins.is_some_and(|group| session.cursor_of(&ConversationId::group(group)).is_some()) {
            return false;
        }
        groups_max > 0
            && session.cursors.len() >= groups_max
            && session.cursors.iter().filter(|cursor| cursor.conversation.is_group()).count() >= groups_max
    }

    /// Who asks, for owners elsewhere.
    pub(super) fn asker(&mut self, key: SessionKey, request: Option<RequestId>, turn: &Turn<'_>) -> Option<Box<Asker>> {
        let shard = self.id;
        let session = self.ready(key)?;
        let account = session.account();
        Some(Box::new(Asker {
            address: session.address(shard),
            session: session.id,
            user: account.user.clone(),
            device: account.device.clone(),
            request,
            received_us: turn.now.mono_us,
        }))
    }

    /// Has the owner of a conversation decide.
    pub(super) fn pass_to_owner(
        &mut self,
        key: SessionKey,
        conversation: ConversationId,
        command: Command,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        let Some(asker) = self.asker(key, request, turn) else { return };
        let owner = self.owner_of(&conversation);
        self.route_anew(owner, Body::Ask(Box::new(Question { asker, conversation, command })), turn);
    }

    /// The conversation a request names, if it may be this user's: groups are judged by their owners.
    pub(super) fn resolve(&mut self, key: SessionKey, named: ConversationRef) -> Result<ConversationId, Fault> {
        let Some(session) = self.ready(key) else { return Err(ErrorName::Unauthenticated.into()) };
        let user = &session.account().user;
        let conversation = match named {
            ConversationRef::Id(id) => id,
            ConversationRef::Group(group) => ConversationId::group(&group),
            ConversationRef::User(other) => ConversationId::private(user, &other),
        };
        let entitled = match conversation.kind() {
            ConversationKind::Private(one, other) => one == *user || other == *user,
            ConversationKind::System(owner) => owner == *user,
            ConversationKind::Group(_) => true,
        };
        if entitled { Ok(conversation) } else { Err(Fault::new(ErrorName::Forbidden, "this conversation is not yours")) }
    }
}

/// At the owner of a conversation.
impl Shard {
    /// A request about a conversation that this shard owns.
    pub(super) fn ask(&mut self, asker: Box<Asker>, conversation: ConversationId, command: Command, turn: &mut Turn<'_>) {
        // Reading a private log needs nothing of its owner's state.
        if matches!(command, Command::GetHistory(_)) && !conversation.is_group() {
            return self.decide(asker, conversation, command, turn);
        }
        if self.prepare(&conversation, turn) {
            self.decide(asker, conversation, command, turn);
        } else {
            self.wait(&conversation, Waiting::Ask(asker, command), turn);
        }
    }

    /// Makes a conversation's state available. Returns true when it is and nothing waits before; else the request has to wait.
    pub(super) fn prepare(&mut self, conversation: &ConversationId, turn: &mut Turn<'_>) -> bool {
        if let Some(entry) = self.conversations.table.get_mut(conversation) {
            entry.used = true;
            return entry.state == State::Ready && entry.waiting.is_empty();
        }
        self.conversations.forget_one(self.settings.conversations_cached_max);
        self.conversations.table.insert(conversation.clone(), Conversation::loading());
        let read = match conversation.kind() {
            ConversationKind::Group(group) => Read::Group { group },
            _ => Read::Head { conversation: conversation.clone() },
        };
        self.store(Operation::Read(read), Pending::LoadConversation(conversation.clone()), turn);
        false
    }

    pub(super) fn wait(&mut self, conversation: &ConversationId, waiting: Waiting, turn: &mut Turn<'_>) {
        let waiting_max = self.settings.loading_requests_max;
        let Some(entry) = self.conversations.table.get_mut(conversation) else { return };
        reached(Reached::RequestWaited);
        let is_full = entry.waiting.len() >= waiting_max && !planted(Planted::WaitingUnlimited);
        if is_full {
            reached(Reached::WaitingFull);
        }
        match waiting {
            // Attaching is bounded by the number of sessions.
            Waiting::Ask(asker, _) | Waiting::Recall(asker, _) if is_full => self.fail(&asker, overloaded(), turn),
            Waiting::Notify { kind, content, asker } if is_full => match asker {
                Some(asker) => self.fail(&asker, overloaded(), turn),
                None => self.notify_later(conversation.clone(), kind, content, turn),
            },
            Waiting::Order(asker, _) if is_full => self.fail(&asker, overloaded(), turn),
            waiting => entry.waiting.push_back(waiting),
        }
    }

    pub(super) fn conversation_loaded(
        &mut self,
        conversation: ConversationId,
        result: Result<Answer, StoreFault>,
        turn: &mut Turn<'_>,
    ) {
        let hasher = self.hasher();
        let shards = usize::from(self.shards);
        let Some(entry) = self.conversations.table.get_mut(&conversation) else { return };
        match result {
            Ok(Answer::Head(head)) => entry.head = head,
            Ok(Answer::Group(state)) => {
                let ConversationKind::Group(id) = conversation.kind() else { return };
                let mut owned = OwnedGroup::absent(id, hasher, shards);
                let exists = state.is_some();
                if let Some(state) = state {
                    entry.head = state.head;
                    owned.load(*state);
                }
                entry.group = Some(Box::new(owned));
                if !exists {
                    // A group that was deleted has left its log: the next of that name goes on behind it.
                    let read = Read::Head { conversation: conversation.clone() };
                    return self.store(Operation::Read(read), Pending::LoadConversation(conversation), turn);
                }
            }
            Ok(_) => return debug_assert!(false, "a head or a group was asked for"),
            Err(fault) => {
                let waiting = std::mem::take(&mut entry.waiting);
                self.conversations.table.swap_remove(&conversation);
                return self.fail_waiting(&conversation, waiting, &fault, turn);
            }
        }
        entry.state = State::Ready;
        self.go_on(&conversation, turn);
    }

    fn fail_waiting(
        &mut self,
        conversation: &ConversationId,
        waiting: std::collections::VecDeque<Waiting>,
        fault: &StoreFault,
        turn: &mut Turn<'_>,
    ) {
        for waiting in waiting {
            match waiting {
                Waiting::Ask(asker, _) | Waiting::Recall(asker, _) => self.fail(&asker, store_fault(fault), turn),
                // Coming back would not help: it is told, and keeps its other conversations.
                Waiting::Attach(asker) if matches!(fault, StoreFault::Damaged(_)) => {
                    if let ConversationKind::Group(group) = conversation.kind() {
                        let body = Body::GroupRefused { group, address: asker.address, damaged: true };
                        self.route(asker.address.shard, body, turn);
                    }
                }
                // A session that cannot be attached would miss messages without knowing: it comes back instead.
                Waiting::Attach(asker) => {
                    let close = crate::types::CloseCode::Overloaded;
                    self.route(asker.address.shard, Body::Refused { address: asker.address, close }, turn);
                }
                Waiting::Notify { asker: Some(asker), .. } => self.fail(&asker, store_fault(fault), turn),
                Waiting::Notify { kind, content, asker: None } => self.notify_later(conversation.clone(), kind, content, turn),
                Waiting::Order(asker, _) => self.fail(&asker, store_fault(fault), turn),
            }
        }
    }

    /// Decides what has waited, in order, until something has to wait again.
    pub(super) fn go_on(&mut self, conversation: &ConversationId, turn: &mut Turn<'_>) {
        loop {
            let Some(entry) = self.conversations.table.get_mut(conversation) else { return };
            if entry.state != State::Ready {
                return;
            }
            let Some(next) = entry.waiting.front() else { return };
            // Members change only between messages, so that everyone agrees on who got which.
            let changes = match next {
                Waiting::Ask(_, command) => changes_members(command),
                Waiting::Order(..) => true,
                _ => false,
            };
            if entry.appends > 0 && changes {
                return;
            }
            match entry.waiting.pop_front().expect("the queue was just seen to have a front") {
                Waiting::Ask(asker, command) => self.decide(asker, conversation.clone(), command, turn),
                Waiting::Attach(asker) => {
                    if let ConversationKind::Group(group) = conversation.kind() {
                        self.attach_now(group, &asker, turn);
                    }
                }
                Waiting::Notify { kind, content, asker } => self.notify_now(conversation, kind, content, asker, turn),
                Waiting::Recall(asker, message) => self.recall_now(asker, message, turn),
                Waiting::Order(asker, order) => self.order_now(asker, conversation.clone(), order, turn),
            }
        }
    }

    /// The state is at hand: the verb's owner part runs.
    fn decide(&mut self, asker: Box<Asker>, conversation: ConversationId, command: Command, turn: &mut Turn<'_>) {
        if changes_members(&command) && self.conversations.table.get(&conversation).is_some_and(|entry| entry.appends > 0) {
            let entry = self.entry(&conversation);
            entry.waiting.push_front(Waiting::Ask(asker, command));
            return;
        }
        match command {
            Command::Send(draft) => self.append(asker, conversation, *draft, turn),
            Command::JoinGroup(_) => self.join(asker, conversation, turn),
            Command::LeaveGroup(_) => self.leave(asker, conversation, turn),
            Command::CreateGroup(group) => self.create(asker, conversation, group, turn),
            Command::Invite { users, .. } => self.invite(asker, conversation, users, turn),
            Command::Remove { users, .. } => self.remove(asker, conversation, users, turn),
            Command::Typing { active, .. } => self.typing_in_group(asker, conversation, active, turn),
            Command::MarkRead { upto, .. } => self.mark_read_now(asker, conversation, upto, turn),
            Command::GetHistory(query) => self.read_history(asker, conversation, query, turn),
            Command::GetPresence(_) => self.group_presence(asker, conversation, false, turn),
            Command::SubscribePresence(_) => self.group_presence(asker, conversation, true, turn),
            // A stranger named it in a sync.
            Command::Sync { .. } => {
                if let Err(name) = self.role_of(&conversation, &asker.user) {
                    self.fail(&asker, name, turn);
                } else {
                    self.fail(&asker, overloaded(), turn);
                }
            }
            other => debug_assert!(false, "no owner decides {}", other.name()),
        }
    }

    /// The asker's role in a group, or how they are to be refused.
    pub(super) fn role_of(&self, conversation: &ConversationId, user: &UserId) -> Result<Role, ErrorName> {
        let owned = self.conversations.table.get(conversation).and_then(|entry| entry.group.as_ref());
        let Some((owned, record)) = owned.and_then(|owned| Some((owned, owned.record.as_ref()?))) else {
            return Err(ErrorName::NoSuchGroup);
        };
        match owned.role(user) {
            Some(role) => Ok(role),
            None if record.open || owned.former.contains(user) => Err(ErrorName::NotAMember),
            None => Err(ErrorName::NoSuchGroup),
        }
    }

    /// A request about a message that its home has looked up.
    pub(super) fn ask_about(&mut self, asker: Box<Asker>, message: SharedMessage, command: Command, turn: &mut Turn<'_>) {
        match command {
            Command::Recall(_) => self.recall(asker, message, turn),
            other => debug_assert!(false, "{} is not about a message", other.name()),
        }
    }

    /// A write that had nothing more to say.
    pub(super) fn done(&mut self, asker: Box<Asker>, result: Result<Answer, StoreFault>, turn: &mut Turn<'_>) {
        match result {
            Ok(_) => self.reply(&asker, Push::Ack(Ack::default()), turn),
            Err(fault) => self.fail(&asker, store_fault(&fault), turn),
        }
    }
}

/// True for requests that a stopping server refuses.
fn writes(command: &Command) -> bool {
    matches!(
        command,
        Command::Send(_)
            | Command::JoinGroup(_)
            | Command::LeaveGroup(_)
            | Command::CreateGroup(_)
            | Command::Invite { .. }
            | Command::Remove { .. }
            | Command::Recall(_)
            | Command::Delete(_)
            | Command::MarkRead { .. }
    )
}

/// True for requests whose answers may be large.
fn lists(command: &Command) -> bool {
    matches!(command, Command::GetHistory(_) | Command::GetConversations { .. } | Command::GetUnread | Command::Search { .. })
}

fn changes_members(command: &Command) -> bool {
    matches!(
        command,
        Command::JoinGroup(_)
            | Command::LeaveGroup(_)
            | Command::CreateGroup(_)
            | Command::Invite { .. }
            | Command::Remove { .. }
    )
}

/// Requests a client may send between its token and the answer to it.
const EARLY_REQUESTS_MAX: usize = 64;
