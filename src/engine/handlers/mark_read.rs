//! `mark_read`: read state moves forward, and those concerned are told.

use crate::engine::pending::Pending;
use crate::engine::refill::{overloaded, store_fault};
use crate::engine::shard::{Shard, Turn};
use crate::types::command::{Command, ConversationRef, ReadUpTo};
use crate::types::envelope::{Asker, Body, EphemeralLane, Question};
use crate::types::outcome::Fault;
use crate::types::push::{Ack, Push};
use crate::types::record::SharedMessage;
use crate::types::storage::{Answer, Operation, StoreFault, Write};
use crate::types::{ConversationId, ConversationKind, ErrorName, RequestId, SessionKey, UserId};

impl Shard {
    pub(super) fn mark_read(
        &mut self,
        key: SessionKey,
        named: ConversationRef,
        upto: ReadUpTo,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        let conversation = match self.resolve(key, named) {
            Ok(conversation) => conversation,
            Err(fault) => return self.refuse(key, request.as_ref(), fault, turn),
        };
        let command = Command::MarkRead { conversation: ConversationRef::Id(conversation.clone()), upto };
        match upto {
            ReadUpTo::Seq(_) => self.pass_to_owner(key, conversation, command, request, turn),
            ReadUpTo::Message(message) => self.locate(key, message, command, request, turn),
        }
    }

    pub(super) fn mark_read_located(&mut self, asker: Box<Asker>, message: SharedMessage, command: Command, turn: &mut Turn<'_>) {
        let Command::MarkRead { conversation: ConversationRef::Id(conversation), .. } = command else { return };
        if message.conversation != conversation {
            return self.fail(&asker, Fault::new(ErrorName::NoSuchMessage, "no such message in this conversation"), turn);
        }
        let command =
            Command::MarkRead { conversation: ConversationRef::Id(conversation.clone()), upto: ReadUpTo::Seq(message.seq) };
        let owner = self.owner_of(&conversation);
        let body = Body::Ask(Box::new(Question { asker, conversation, command }));
        self.route_anew(owner, body, turn);
    }

    pub(super) fn mark_read_now(&mut self, asker: Box<Asker>, conversation: ConversationId, upto: ReadUpTo, turn: &mut Turn<'_>) {
        if conversation.is_group()
            && let Err(name) = self.role_of(&conversation, &asker.user)
        {
            return self.fail(&asker, name, turn);
        }
        if self.store_takes_no_writes() {
            return self.fail(&asker, overloaded(), turn);
        }
        let ReadUpTo::Seq(seq) = upto else { return debug_assert!(false, "the home has looked the message up") };
        let write = Write::MarkRead { user: asker.user.clone(), conversation: conversation.clone(), seq };
        let pending = Pending::MarkRead { asker, conversation };
        self.store(Operation::Write(write), pending, turn);
    }

    /// Read state is kept: the reader's other devices and those who wrote what was read hear of it.
    pub(in crate::engine) fn read_marked(
        &mut self,
        asker: Box<Asker>,
        conversation: ConversationId,
        result: Result<Answer, StoreFault>,
        turn: &mut Turn<'_>,
    ) {
        let (seq, moved, senders) = match result {
            Ok(Answer::ReadAt { seq, moved, senders }) => (seq, moved, senders),
            Ok(_) => return debug_assert!(false, "read state was asked for"),
            Err(fault) => return self.fail(&asker, store_fault(&fault), turn),
        };
        self.reply(&asker, Push::Ack(Ack::default()), turn);
        if !moved {
            return;
        }
        let push = Push::ReadReceipt { conversation: conversation.clone(), user: asker.user.clone(), read_seq: seq };
        let key = self.ephemeral_key(conversation.as_str(), asker.user.as_str());
        let mut concerned: Vec<UserId> = vec![asker.user.clone()];
        match conversation.kind() {
            ConversationKind::Private(one, other) => {
                let peer = if one == asker.user { other } else { one };
                if peer != asker.user {
                    concerned.push(peer);
                }
            }
            ConversationKind::Group(_) => {
                let members = self
                    .conversations
                    .table
                    .get(&conversation)
                    .and_then(|entry| entry.group.as_ref())
                    .map_or(0, |owned| owned.members.len());
                if members <= self.settings.receipts_max as usize {
                    concerned.extend(senders.into_iter().filter(|sender| *sender != asker.user));
                }
            }
            ConversationKind::System(_) => {}
        }
        for user in concerned {
            self.tell_user(&user, asker.session, EphemeralLane::Receipt, key, &push, turn);
        }
    }
}
