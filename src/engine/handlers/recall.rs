//! `recall_message`: the message keeps its `seq`, its content is gone.

use crate::engine::conversations::Waiting;
use crate::engine::pending::Pending;
use crate::engine::refill::{overloaded, store_fault};
use crate::engine::shard::{Shard, Turn};
use crate::types::envelope::{Asker, EphemeralLane};
use crate::types::outcome::Fault;
use crate::types::push::{Ack, Push};
use crate::types::record::{Role, SharedMessage};
use crate::types::storage::{Answer, Operation, StoreFault, Write};
use crate::types::{ConversationId, ConversationKind, ErrorName, MessageId, Seq};

impl Shard {
    /// At the conversation's owner, with the message its home has found; who may recall it in a group is looked up first.
    pub(super) fn recall(&mut self, asker: Box<Asker>, message: SharedMessage, turn: &mut Turn<'_>) {
        if !message.conversation.is_group() || self.prepare(&message.conversation, turn) {
            return self.recall_now(asker, message, turn);
        }
        let conversation = message.conversation.clone();
        self.wait(&conversation, Waiting::Recall(asker, message), turn);
    }

    pub(super) fn recall_now(&mut self, asker: Box<Asker>, message: SharedMessage, turn: &mut Turn<'_>) {
        let conversation = message.conversation.clone();
        let own = message.sender.as_ref() == Some(&asker.user);
        let role = match conversation.kind() {
            ConversationKind::Group(_) => match self.role_of(&conversation, &asker.user) {
                Ok(role) => role,
                Err(_) => return self.fail(&asker, ErrorName::NoSuchMessage, turn),
            },
            ConversationKind::Private(one, other) if one == asker.user || other == asker.user => Role::Member,
            _ => return self.fail(&asker, ErrorName::NoSuchMessage, turn),
        };
        if role == Role::Member {
            if !own {
                return self.fail(
                    &asker,
                    Fault::new(ErrorName::Forbidden, "only its sender or a group admin may recall it"),
                    turn,
                );
            }
            let age_ms = turn.now.wall.0.saturating_sub(message.created_at.0);
            if age_ms > self.settings.recall_window_ms {
                return self.fail(&asker, ErrorName::RecallWindowPassed, turn);
            }
        }
        if message.recalled_by().is_some() {
            return self.reply(&asker, Push::Ack(Ack::default()), turn);
        }
        if self.store_takes_no_writes() {
            return self.fail(&asker, overloaded(), turn);
        }
        let write = Write::Recall { conversation: conversation.clone(), seq: message.seq, by: asker.user.clone() };
        let pending = Pending::Recall { asker, conversation, message_id: message.id, seq: message.seq };
        self.store(Operation::Write(write), pending, turn);
    }

    pub(in crate::engine) fn recalled(
        &mut self,
        asker: Box<Asker>,
        conversation: ConversationId,
        message_id: MessageId,
        seq: Seq,
        result: Result<Answer, StoreFault>,
        turn: &mut Turn<'_>,
    ) {
        if let Err(fault) = result {
            return self.fail(&asker, store_fault(&fault), turn);
        }
        self.reply(&asker, Push::Ack(Ack::default()), turn);
        let push = Push::Recalled { conversation: conversation.clone(), message_id, seq, by: asker.user.clone() };
        match conversation.kind() {
            ConversationKind::Group(_) => self.tell_group(&conversation, asker.session, EphemeralLane::Message, 0, &push, turn),
            ConversationKind::Private(one, other) => {
                self.tell_user(&one, asker.session, EphemeralLane::Message, 0, &push, turn);
                if one != other {
                    self.tell_user(&other, asker.session, EphemeralLane::Message, 0, &push, turn);
                }
            }
            ConversationKind::System(_) => {}
        }
    }
}
