//! `create_group`, and how any change of a group takes effect: written first, then applied, then told.
//!
//! Never lets a request that came after a change be decided before it: the conversation waits while the store writes.

use crate::engine::conversations::{OwnedGroup, OwnedMember, State};
use crate::engine::pending::{GroupPlan, Pending};
use crate::engine::refill::{overloaded, store_fault};
use crate::engine::shard::{Shard, Turn};
use crate::types::command::{Command, NewGroup};
use crate::types::envelope::{Asker, Body, EphemeralLane, Whisper};
use crate::types::outcome::Fault;
use crate::types::planted::{Planted, planted};
use crate::types::push::{Ack, GroupEvent, Push};
use crate::types::record::{Group, Member, Role};
use crate::types::storage::{Answer, GroupChange, GroupState, Operation, StoreFault, Write};
use crate::types::{ConversationId, ErrorName, GroupId, RequestId, SessionId, SessionKey, ShardId, UserId};

use super::super::Hasher;

impl Shard {
    pub(super) fn create_group(&mut self, key: SessionKey, group: NewGroup, request: Option<RequestId>, turn: &mut Turn<'_>) {
        let (id, group) = self.name_group(group, turn);
        let conversation = ConversationId::group(&id);
        self.pass_to_owner(key, conversation, Command::CreateGroup(group), request, turn);
    }

    pub(super) fn create(&mut self, asker: Box<Asker>, conversation: ConversationId, group: NewGroup, turn: &mut Turn<'_>) {
        let Some(entry) = self.conversations.table.get(&conversation) else { return };
        if entry.group.as_ref().is_some_and(|owned| owned.record.is_some()) {
            return self.fail(&asker, Fault::new(ErrorName::AlreadyExists, "a group of this id exists"), turn);
        }
        let head = entry.head;
        let id = group.group.expect("the home has named it");
        let now = turn.now.wall;
        let member = |user: UserId, role: Role| Member { user, role, joined_seq: head, joined_at: now };
        let mut invited = distinct(group.members);
        invited.retain(|user| *user != asker.user);
        let mut put = vec![member(asker.user.clone(), Role::Owner)];
        put.extend(invited.iter().map(|user| member(user.clone(), Role::Member)));
        if put.len() > self.settings.group_members_max as usize {
            return self.fail(&asker, Fault::new(ErrorName::BadRequest, "too many members"), turn);
        }
        let users = put.iter().map(|member| member.user.clone()).collect();
        self.change_group(
            conversation,
            GroupPlan {
                group: id.clone(),
                record: Some(Group { id, name: group.name.into(), open: group.open, created_at: now }),
                put,
                events: vec![(GroupEvent::Created, users)],
                invited,
                name_group: true,
                ..GroupPlan::by(asker)
            },
            turn,
        );
    }

    /// Has the store write a change; requests that follow wait for it.
    pub(super) fn change_group(&mut self, conversation: ConversationId, plan: GroupPlan, turn: &mut Turn<'_>) {
        if self.store_takes_no_writes() {
            if let Some(asker) = plan.asker {
                self.fail(&asker, overloaded(), turn);
            }
            return;
        }
        let entry = self.entry(&conversation);
        debug_assert!(entry.state == State::Ready && entry.appends == 0);
        entry.state = State::Changing;
        let change = GroupChange {
            group: plan.group.clone(),
            record: plan.record.clone(),
            members_put: plan.put.clone(),
            members_removed: plan.removed.clone(),
            delete: plan.delete,
        };
        self.store(Operation::Write(Write::Group(Box::new(change))), Pending::ChangeGroup(Box::new(plan)), turn);
    }

    pub(in crate::engine) fn group_changed(&mut self, plan: GroupPlan, result: Result<Answer, StoreFault>, turn: &mut Turn<'_>) {
        let conversation = ConversationId::group(&plan.group);
        let Some(entry) = self.conversations.table.get_mut(&conversation) else { return };
        entry.state = State::Ready;
        match result {
            Ok(_) => self.apply_change(&conversation, plan, turn),
            Err(_) if planted(Planted::FailedChangeApplied) => self.apply_change(&conversation, plan, turn),
            Err(fault) => {
                if let Some(asker) = &plan.asker {
                    self.fail(asker, store_fault(&fault), turn);
                }
            }
        }
        self.go_on(&conversation, turn);
    }

    fn apply_change(&mut self, conversation: &ConversationId, plan: GroupPlan, turn: &mut Turn<'_>) {
        let by = plan.by;
        let except = plan.asker.as_ref().map_or(SessionId::NONE, |asker| asker.session);
        let entry = self.entry(conversation);
        let owned = entry.group.as_mut().expect("a group conversation has its group");
        let added: Vec<UserId> = plan
            .put
            .iter()
            .filter(|member| !owned.members.contains_key(&member.user))
            .map(|member| member.user.clone())
            .collect();
        owned.put(plan.put);
        if let Some(record) = plan.record {
            owned.record = Some(record);
        }
        // Those who leave hear of it like those who stay, and then nothing more.
        for (event, users) in plan.events {
            let push = Push::GroupEvent { group: plan.group.clone(), event, users, by: by.clone() };
            self.tell_group(conversation, except, EphemeralLane::Receipt, 0, &push, turn);
            self.tell_users(&added, except, EphemeralLane::Receipt, 0, &push, turn);
        }
        self.end_memberships(conversation, &plan.group, plan.removed, plan.delete, turn);
        for user in added {
            let owner = self.owner_of_user(&user);
            self.route_anew(owner, Body::MemberAdded { group: plan.group.clone(), user }, turn);
        }
        self.notify_invited(plan.invited, &plan.group, by.as_ref(), turn);
        if let Some(asker) = plan.asker {
            let group = plan.name_group.then_some(plan.group);
            self.reply(&asker, Push::Ack(Ack { sent: None, group }), turn);
        }
    }

    /// Nothing that is delivered after this reaches those who were removed.
    fn end_memberships(
        &mut self,
        conversation: &ConversationId,
        group: &GroupId,
        removed: Vec<UserId>,
        delete: bool,
        turn: &mut Turn<'_>,
    ) {
        let entry = self.entry(conversation);
        let last = entry.head;
        let owned = entry.group.as_mut().expect("a group conversation has its group");
        let shards: Vec<ShardId> = owned.shards_online().collect();
        for user in &removed {
            owned.end_membership(user);
            owned.remember_former(user);
        }
        if delete {
            owned.record = None;
            owned.former.clear();
        }
        for user in removed {
            if planted(Planted::FormerMemberKept) {
                continue;
            }
            for shard in &shards {
                self.route(*shard, Body::GroupDetached { group: group.clone(), user: user.clone(), last }, turn);
            }
        }
    }

    /// Says something without `seq` to all connected members but one session.
    pub(super) fn tell_group(
        &mut self,
        conversation: &ConversationId,
        except: SessionId,
        lane: EphemeralLane,
        key: u64,
        push: &Push,
        turn: &mut Turn<'_>,
    ) {
        let Some(owned) = self.conversations.table.get(conversation).and_then(|entry| entry.group.as_ref()) else { return };
        let (group, shards) = (owned.id.clone(), owned.shards_online().collect::<Vec<_>>());
        if shards.is_empty() {
            return;
        }
        let frame = self.encoder.shared(push);
        for shard in shards {
            let whisper = Whisper { except, lane, key, frame: frame.clone() };
            let body = Body::EphemeralGroup { group: group.clone(), whisper };
            self.route(shard, body, turn);
        }
    }

    /// Says something without `seq` to all of a user's sessions but one.
    pub(super) fn tell_user(
        &mut self,
        user: &UserId,
        except: SessionId,
        lane: EphemeralLane,
        key: u64,
        push: &Push,
        turn: &mut Turn<'_>,
    ) {
        self.tell_users(std::slice::from_ref(user), except, lane, key, push, turn);
    }

    /// The same to each of `users`. What names thousands is encoded once, not for each of them.
    pub(super) fn tell_users(
        &mut self,
        users: &[UserId],
        except: SessionId,
        lane: EphemeralLane,
        key: u64,
        push: &Push,
        turn: &mut Turn<'_>,
    ) {
        if users.is_empty() {
            return;
        }
        let frame = self.encoder.shared(push);
        for user in users {
            let owner = self.owner_of_user(user);
            let whisper = Whisper { except, lane, key, frame: frame.clone() };
            self.route_anew(owner, Body::EphemeralUser { user: user.clone(), whisper }, turn);
        }
    }
}

impl GroupPlan {
    /// A plan of `asker`'s that changes nothing yet.
    pub(super) fn by(asker: Box<Asker>) -> GroupPlan {
        GroupPlan { by: Some(asker.user.clone()), asker: Some(asker), ..GroupPlan::nobody() }
    }

    /// A plan of an operator's, whom members are not told.
    pub(super) fn ordered(asker: Box<Asker>, group: GroupId) -> GroupPlan {
        GroupPlan { asker: Some(asker), group, ..GroupPlan::nobody() }
    }
}

impl OwnedGroup {
    /// What is known of a group that does not exist.
    pub(super) fn absent(id: GroupId, hasher: Hasher, shards: usize) -> OwnedGroup {
        OwnedGroup {
            id,
            record: None,
            members: indexmap::IndexMap::with_hasher(hasher),
            former: Vec::new(),
            online_by_shard: vec![0; shards],
            leaving: Vec::new(),
        }
    }

    pub(super) fn load(&mut self, state: GroupState) {
        self.record = Some(state.group);
        self.put(state.members);
    }

    fn put(&mut self, members: Vec<Member>) {
        for member in members {
            self.former.retain(|former| *former != member.user);
            let online = self.members.get(&member.user).map_or(0, |known| known.online);
            let Member { user, role, joined_seq, joined_at } = member;
            self.members.insert(user, OwnedMember { role, joined_seq, joined_at, online });
        }
    }

    /// So that they are told that they are no members, rather than that there is no such group.
    fn remember_former(&mut self, user: &UserId) {
        if self.former.len() >= FORMER_MAX {
            self.former.remove(0);
        }
        self.former.push(user.clone());
    }
}

/// Each of `users` once, where they stand first.
pub(super) fn distinct(users: Vec<UserId>) -> Vec<UserId> {
    users.into_iter().collect::<indexmap::IndexSet<UserId>>().into_iter().collect()
}

/// Former members remembered per group.
const FORMER_MAX: usize = 256;
