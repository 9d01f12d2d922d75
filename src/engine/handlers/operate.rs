//! What operators' programs ask: verbs in the name of a user, notifications, changes of groups, presence.
//!
//! Everything goes the way of the clients' verbs, with an asker that is no session: whichever shard took the call stands for the
//! home. Never counts against a user's rate.

use crate::engine::conversations::Waiting;
use crate::engine::pending::GroupPlan;
use crate::engine::shard::{Shard, Turn};
use crate::types::call::{CALL_SESSION, Call, GroupOrder};
use crate::types::command::{Command, NewGroup};
use crate::types::envelope::{Asker, Body, Question};
use crate::types::outcome::Fault;
use crate::types::push::{Ack, GroupEvent, Push};
use crate::types::record::Role;
use crate::types::{ConversationId, DeviceId, ErrorName, GroupId, RequestId, SessionAddress, UserId};

use super::send::target_of;

/// Where the call was taken.
impl Shard {
    pub(in crate::engine) fn call(&mut self, number: u32, call: Call, turn: &mut Turn<'_>) {
        if self.drain_until.is_some() && !matches!(call, Call::Presence { .. }) {
            let fault = Fault::retry(ErrorName::Draining, "this server is shutting down", 1_000);
            return turn.effects.answers.push((number, Err(fault)));
        }
        match call {
            Call::Send { sender, request, draft } => {
                if let Some(fault) = self.too_large(draft.content_bytes as usize) {
                    return turn.effects.answers.push((number, Err(fault)));
                }
                let conversation = target_of(&sender, &draft);
                self.ask_owner(number, sender, request, conversation, Command::Send(draft), turn);
            }
            Call::CreateGroup { owner, group } => {
                let (id, group) = self.name_group(group, turn);
                self.ask_owner(number, owner, None, ConversationId::group(&id), Command::CreateGroup(group), turn);
            }
            Call::Notify { user, request, kind, content } => {
                let asker = self.caller(number, user.clone(), request, turn);
                let owner = self.owner_of(&ConversationId::system(&user));
                self.route_anew(owner, Body::Notify { user, kind, content, asker: Some(asker) }, turn);
            }
            Call::Group { group, order } => {
                let asker = self.caller(number, nobody(), None, turn);
                let owner = self.owner_of(&ConversationId::group(&group));
                self.route_anew(owner, Body::Order { asker, group, order }, turn);
            }
            Call::Presence { user } => {
                let asker = self.caller(number, user.clone(), None, turn);
                let owner = self.owner_of_user(&user);
                self.route_anew(owner, Body::AskPresence { asker, users: vec![user], watch: false, gather: 0 }, turn);
            }
        }
    }

    fn ask_owner(
        &mut self,
        number: u32,
        user: UserId,
        request: Option<RequestId>,
        conversation: ConversationId,
        command: Command,
        turn: &mut Turn<'_>,
    ) {
        let asker = self.caller(number, user, request, turn);
        let owner = self.owner_of(&conversation);
        self.route_anew(owner, Body::Ask(Box::new(Question { asker, conversation, command })), turn);
    }

    fn caller(&self, number: u32, user: UserId, request: Option<RequestId>, turn: &Turn<'_>) -> Box<Asker> {
        Box::new(Asker {
            address: SessionAddress::of_call(self.id, number),
            session: CALL_SESSION,
            user,
            device: DeviceId::unnamed(),
            request,
            received_us: turn.now.mono_us,
        })
    }

    /// Gives a new group its id when its maker has not.
    pub(super) fn name_group(&mut self, mut group: NewGroup, turn: &Turn<'_>) -> (GroupId, NewGroup) {
        let id = group.group.take().unwrap_or_else(|| {
            let id = self.next_message_id(turn.now.wall);
            GroupId::new(&id.to_string()).expect("a UUID is an identifier")
        });
        group.group = Some(id.clone());
        (id, group)
    }
}

/// At the owner of the group.
impl Shard {
    pub(in crate::engine) fn order(&mut self, asker: Box<Asker>, group: GroupId, order: GroupOrder, turn: &mut Turn<'_>) {
        let conversation = ConversationId::group(&group);
        let ready = self.prepare(&conversation, turn);
        if ready && self.conversations.table.get(&conversation).is_some_and(|entry| entry.appends == 0) {
            self.order_now(asker, conversation, order, turn);
        } else {
            self.wait(&conversation, Waiting::Order(asker, order), turn);
        }
    }

    pub(super) fn order_now(&mut self, asker: Box<Asker>, conversation: ConversationId, order: GroupOrder, turn: &mut Turn<'_>) {
        if self.owned(&conversation).record.is_none() {
            return self.fail(&asker, ErrorName::NoSuchGroup, turn);
        }
        match order {
            GroupOrder::Add(users) => self.add(asker, conversation, users, Role::Member, turn),
            GroupOrder::Remove(users) => self.take_out(asker, conversation, users, turn),
            GroupOrder::Put { user, role } if self.owned(&conversation).members.contains_key(&user) => {
                self.set_role(asker, conversation, user, role, turn);
            }
            GroupOrder::Put { user, role } => self.add(asker, conversation, vec![user], role.unwrap_or(Role::Member), turn),
            GroupOrder::Delete => {
                let owned = self.owned(&conversation);
                let plan = GroupPlan {
                    removed: owned.members.keys().cloned().collect(),
                    delete: true,
                    events: vec![(GroupEvent::Deleted, Vec::new())],
                    ..GroupPlan::ordered(asker, owned.id.clone())
                };
                self.change_group(conversation, plan, turn);
            }
        }
    }

    fn add(&mut self, asker: Box<Asker>, conversation: ConversationId, users: Vec<UserId>, role: Role, turn: &mut Turn<'_>) {
        let owned = self.owned(&conversation);
        let mut added = indexmap::IndexSet::new();
        added.extend(users.into_iter().filter(|user| !owned.members.contains_key(user)));
        if added.is_empty() {
            return self.reply(&asker, Push::Ack(Ack::default()), turn);
        }
        if owned.members.len() + added.len() > self.settings.group_members_max as usize {
            return self.fail(&asker, Fault::new(ErrorName::Forbidden, "the group would be too large"), turn);
        }
        let added: Vec<UserId> = added.into_iter().collect();
        let mut plan = GroupPlan {
            put: added.iter().map(|user| self.new_member(&conversation, user.clone(), turn)).collect(),
            events: vec![(GroupEvent::Joined, added.clone())],
            invited: added,
            ..GroupPlan::ordered(asker, owned.id.clone())
        };
        plan.put.iter_mut().for_each(|member| member.role = role);
        if role == Role::Owner {
            self.depose(&conversation, &mut plan);
            plan.events.push((GroupEvent::OwnerChanged, plan.invited.clone()));
        }
        self.change_group(conversation, plan, turn);
    }

    /// A group keeps exactly one owner: a new one makes the old one an admin.
    fn depose(&self, conversation: &ConversationId, plan: &mut GroupPlan) {
        if let Some(mut former) = self.owned(conversation).owner() {
            former.role = Role::Admin;
            plan.put.push(former);
        }
    }

    fn set_role(
        &mut self,
        asker: Box<Asker>,
        conversation: ConversationId,
        user: UserId,
        role: Option<Role>,
        turn: &mut Turn<'_>,
    ) {
        let owned = self.owned(&conversation);
        let mut member = owned.member(&user).expect("the caller has found the member");
        let Some(role) = role.filter(|role| *role != member.role) else {
            return self.reply(&asker, Push::Ack(Ack::default()), turn);
        };
        if member.role == Role::Owner {
            let fault = Fault::new(ErrorName::Forbidden, "a group has an owner: make somebody else the owner instead");
            return self.fail(&asker, fault, turn);
        }
        let event = if role == Role::Owner { GroupEvent::OwnerChanged } else { GroupEvent::RoleChanged };
        let mut plan = GroupPlan { events: vec![(event, vec![user])], ..GroupPlan::ordered(asker, owned.id.clone()) };
        if role == Role::Owner {
            self.depose(&conversation, &mut plan);
        }
        member.role = role;
        plan.put.push(member);
        self.change_group(conversation, plan, turn);
    }

    fn take_out(&mut self, asker: Box<Asker>, conversation: ConversationId, users: Vec<UserId>, turn: &mut Turn<'_>) {
        let owned = self.owned(&conversation);
        let mut removed = indexmap::IndexSet::new();
        removed.extend(users.into_iter().filter(|user| owned.members.contains_key(user)));
        if removed.is_empty() {
            return self.reply(&asker, Push::Ack(Ack::default()), turn);
        }
        let removed: Vec<UserId> = removed.into_iter().collect();
        let mut plan = GroupPlan {
            delete: removed.len() == owned.members.len(),
            events: vec![(GroupEvent::Removed, removed.clone())],
            ..GroupPlan::ordered(asker, owned.id.clone())
        };
        if owned.owner().is_some_and(|owner| removed.contains(&owner.user))
            && let Some(heir) = owned.heir(&removed)
        {
            plan.events.push((GroupEvent::OwnerChanged, vec![heir.user.clone()]));
            plan.put.push(heir);
        }
        plan.removed = removed;
        self.change_group(conversation, plan, turn);
    }
}

/// Orders are nobody's in particular.
fn nobody() -> UserId {
    UserId::new("-").expect("a dash is an identifier")
}
