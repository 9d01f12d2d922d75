//! `join_group`, `leave_group`, `invite_to_group`, `remove_from_group`: members as members may change them.

use crate::engine::handlers::groups::distinct;
use crate::engine::pending::GroupPlan;
use crate::engine::shard::{Shard, Turn};
use crate::types::envelope::Asker;
use crate::types::outcome::Fault;
use crate::types::push::{Ack, GroupEvent, Push};
use crate::types::record::{Member, Role};
use crate::types::{ConversationId, ErrorName, UserId};

use crate::engine::conversations::OwnedGroup;

impl Shard {
    pub(super) fn join(&mut self, asker: Box<Asker>, conversation: ConversationId, turn: &mut Turn<'_>) {
        match self.role_of(&conversation, &asker.user) {
            Ok(_) => return self.reply(&asker, Push::Ack(Ack::default()), turn),
            Err(name) => {
                let open = self.owned(&conversation).record.as_ref().is_some_and(|record| record.open);
                if !open {
                    return self.fail(&asker, name, turn);
                }
            }
        }
        if self.owned(&conversation).members.len() >= self.settings.group_members_max as usize {
            return self.fail(&asker, Fault::new(ErrorName::Forbidden, "the group is full"), turn);
        }
        let user = asker.user.clone();
        let put = vec![self.new_member(&conversation, user.clone(), turn)];
        let plan = GroupPlan {
            group: self.owned(&conversation).id.clone(),
            put,
            events: vec![(GroupEvent::Joined, vec![user])],
            ..GroupPlan::by(asker)
        };
        self.change_group(conversation, plan, turn);
    }

    pub(super) fn leave(&mut self, asker: Box<Asker>, conversation: ConversationId, turn: &mut Turn<'_>) {
        let role = match self.role_of(&conversation, &asker.user) {
            Ok(role) => role,
            Err(name) => return self.fail(&asker, name, turn),
        };
        let owned = self.owned(&conversation);
        let user = asker.user.clone();
        let mut plan = GroupPlan {
            group: owned.id.clone(),
            removed: vec![user.clone()],
            delete: owned.members.len() == 1,
            events: vec![(GroupEvent::Left, vec![user.clone()])],
            ..GroupPlan::by(asker)
        };
        if role == Role::Owner
            && let Some(heir) = owned.heir(std::slice::from_ref(&user))
        {
            plan.events.push((GroupEvent::OwnerChanged, vec![heir.user.clone()]));
            plan.put.push(heir);
        }
        self.change_group(conversation, plan, turn);
    }

    pub(super) fn invite(&mut self, asker: Box<Asker>, conversation: ConversationId, users: Vec<UserId>, turn: &mut Turn<'_>) {
        if let Err(fault) = self.require_admin(&conversation, &asker.user) {
            return self.fail(&asker, fault, turn);
        }
        let mut added = distinct(users);
        let known = &self.owned(&conversation).members;
        added.retain(|user| !known.contains_key(user));
        if added.is_empty() {
            return self.reply(&asker, Push::Ack(Ack::default()), turn);
        }
        if self.owned(&conversation).members.len() + added.len() > self.settings.group_members_max as usize {
            return self.fail(&asker, Fault::new(ErrorName::Forbidden, "the group would be too large"), turn);
        }
        let put = added.iter().map(|user| self.new_member(&conversation, user.clone(), turn)).collect();
        let plan = GroupPlan {
            group: self.owned(&conversation).id.clone(),
            put,
            events: vec![(GroupEvent::Joined, added.clone())],
            invited: added,
            ..GroupPlan::by(asker)
        };
        self.change_group(conversation, plan, turn);
    }

    pub(super) fn remove(&mut self, asker: Box<Asker>, conversation: ConversationId, users: Vec<UserId>, turn: &mut Turn<'_>) {
        let role = match self.require_admin(&conversation, &asker.user) {
            Ok(role) => role,
            Err(fault) => return self.fail(&asker, fault, turn),
        };
        let mut removed: Vec<UserId> = Vec::new();
        for user in distinct(users) {
            match self.owned(&conversation).role(&user) {
                _ if user == asker.user => {
                    let fault = Fault::new(ErrorName::BadRequest, "use leave_group to leave");
                    return self.fail(&asker, fault, turn);
                }
                Some(theirs) if theirs >= role => {
                    let fault = Fault::new(ErrorName::Forbidden, "only a member of a lower role can be removed");
                    return self.fail(&asker, fault, turn);
                }
                Some(_) => removed.push(user),
                None => {}
            }
        }
        if removed.is_empty() {
            return self.reply(&asker, Push::Ack(Ack::default()), turn);
        }
        let plan = GroupPlan {
            group: self.owned(&conversation).id.clone(),
            removed: removed.clone(),
            events: vec![(GroupEvent::Removed, removed)],
            ..GroupPlan::by(asker)
        };
        self.change_group(conversation, plan, turn);
    }

    pub(super) fn owned(&self, conversation: &ConversationId) -> &OwnedGroup {
        self.conversations
            .table
            .get(conversation)
            .and_then(|entry| entry.group.as_deref())
            .expect("a prepared group conversation has its group")
    }

    fn require_admin(&self, conversation: &ConversationId, user: &UserId) -> Result<Role, Fault> {
        match self.role_of(conversation, user)? {
            Role::Member => Err(Fault::new(ErrorName::Forbidden, "only the owner and admins may do this")),
            role => Ok(role),
        }
    }

    /// Whoever joins starts at the group's present.
    pub(super) fn new_member(&self, conversation: &ConversationId, user: UserId, turn: &Turn<'_>) -> Member {
        let joined_seq = self.conversations.table.get(conversation).expect("a prepared conversation is at hand").head;
        Member { user, role: Role::Member, joined_seq, joined_at: turn.now.wall }
    }
}

impl OwnedGroup {
    pub(super) fn member(&self, user: &UserId) -> Option<Member> {
        self.members.get(user).map(|member| Member {
            user: user.clone(),
            role: member.role,
            joined_seq: member.joined_seq,
            joined_at: member.joined_at,
        })
    }

    pub(super) fn owner(&self) -> Option<Member> {
        let user = self.members.iter().find(|(_, member)| member.role == Role::Owner)?.0;
        self.member(user)
    }

    /// Who becomes owner when `leavers` go: the longest-standing admin, else member.
    pub(super) fn heir(&self, leavers: &[UserId]) -> Option<Member> {
        let user = self
            .members
            .iter()
            .filter(|(user, _)| !leavers.contains(user))
            .min_by_key(|(user, member)| (std::cmp::Reverse(member.role), member.joined_at, (*user).clone()))?
            .0;
        let mut heir = self.member(user)?;
        heir.role = Role::Owner;
        Some(heir)
    }
}
