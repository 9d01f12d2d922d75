//! Owns what operators do in a run: what they write and were told of it, what they arrange, revoke and let age. Never a fault.

use std::collections::BTreeMap;

use serde_json::Value;

use super::node::Node;
use super::oracle;
use super::people::Draft;
use super::run::Run;
use super::script::{Action, Arranged, Ordered};
use crate::types::call::GroupOrder;
use crate::types::command::{self, Target};
use crate::types::push::Push;
use crate::types::record::MessageType;
use crate::types::{Call, ConversationId, GroupId, RawJson, RequestId, UserId};

/// What operators have had written.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub drafts: Vec<Draft>,
    /// What each of them asks for.
    asked: Vec<Wanted>,
    /// Whether an answer has said that it was not a repeat.
    stored: Vec<bool>,
    /// Which one a call is for.
    open: BTreeMap<u32, usize>,
}

#[derive(Clone, Debug)]
enum Wanted {
    Message(UserId, Target),
    Notification(UserId),
}

impl Orders {
    fn put(&mut self, node: &mut Node, shard: usize, wanted: Wanted) {
        let id = format!("op/{}", self.drafts.len());
        self.drafts.push(Draft { id, data: Value::Null, ack: None, refused: false });
        self.stored.push(false);
        self.asked.push(wanted);
        self.say(node, shard, self.drafts.len() - 1);
    }

    fn say(&mut self, node: &mut Node, shard: usize, which: usize) {
        let Some(wanted) = self.asked.get(which).cloned() else { return };
        let id = &self.drafts[which].id;
        let (request, content) = (RequestId::new(id).ok(), RawJson::string(id));
        let call = match wanted {
            Wanted::Message(sender, target) => {
                let draft = command::Draft {
                    target,
                    kind: MessageType::Text,
                    content,
                    content_bytes: id.len() as u32,
                    mentions: None,
                    reply_to: None,
                    loss_time_ms: None,
                    ext: None,
                };
                Call::Send { sender, request, draft: Box::new(draft) }
            }
            Wanted::Notification(user) => Call::Notify { user, request, kind: "custom".into(), content },
        };
        let number = node.call(shard, call);
        self.open.insert(number, which);
    }

    /// Takes in what was answered.
    pub fn listen(&mut self, node: &mut Node) {
        for (number, outcome) in node.take_answers() {
            let Some(which) = self.open.remove(&number) else { continue };
            let Ok(push) = outcome else { continue };
            let Push::Ack(ack) = push else { panic!("call {number} is answered with {push:?}") };
            let sent = ack.sent.unwrap_or_else(|| panic!("call {number} is acked without saying what was sent"));
            let place = (sent.message_id.to_string(), sent.conversation.to_string(), sent.seq.0);
            let draft = &mut self.drafts[which];
            // Two calls of one order under way at once may be answered in any order, but only one is the first.
            if let Some(before) = &draft.ack {
                assert_eq!(before, &place, "an order repeated gets the same ack");
            }
            draft.ack = Some(place);
            let again = !sent.duplicate && std::mem::replace(&mut self.stored[which], true);
            assert!(!again, "{} is stored twice, says call {number}", draft.id);
        }
    }
}

impl Run {
    /// What operators do, and what has to do with tokens.
    pub(super) fn operate(&mut self, action: &Action) {
        let shard = self.random.usize(..self.node.shards());
        match *action {
            Action::ConnectBriefly { device, good_ms } => {
                let at = device % self.devices.len();
                self.devices[at].connect(&mut self.node, shard, Some(good_ms));
            }
            Action::Refresh { device, good_ms } => self.with(device, |device, node| device.refresh(node, good_ms)),
            Action::Revoke(user) => {
                let user = self.user(user);
                self.node.revoke(&user);
                self.node.tally.fault("revocation");
            }
            Action::Age { which, count } => {
                let (user, group) = (self.user(which), self.group(which));
                let conversation = match which % 7 {
                    0 => ConversationId::system(&user),
                    1..=3 => ConversationId::private(&user, &self.user(which / 7)),
                    _ => ConversationId::group(&group),
                };
                self.node.forget_first(&conversation, count);
                self.node.tally.fault("messages removed by retention");
            }
            Action::Order { user, to, kind } => {
                let user = self.user(user);
                let wanted = match kind {
                    Ordered::ToUser => Wanted::Message(user, Target::User(self.user(to))),
                    Ordered::ToGroup => Wanted::Message(user, Target::Group(self.group(to))),
                    Ordered::Notification => Wanted::Notification(user),
                    Ordered::Again => {
                        let which = to % self.orders.drafts.len().max(1);
                        return self.orders.say(&mut self.node, shard, which);
                    }
                };
                self.orders.put(&mut self.node, shard, wanted);
            }
            Action::Arrange { group, user, change } => {
                let (group, user) = (self.group(group), self.user(user));
                let order = match change {
                    Arranged::Add => GroupOrder::Add(vec![user]),
                    Arranged::Remove => GroupOrder::Remove(vec![user]),
                    Arranged::Put => GroupOrder::Put { user, role: None },
                    Arranged::Delete => GroupOrder::Delete,
                };
                self.node.call(shard, Call::Group { group, order });
            }
            ref other => unreachable!("{other:?} is done elsewhere"),
        }
    }

    fn user(&self, at: usize) -> UserId {
        oracle::user(&self.users[at % self.users.len()])
    }

    fn group(&self, at: usize) -> GroupId {
        self.groups[at % self.groups.len()].clone()
    }
}
