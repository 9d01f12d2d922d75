//! `send_message`, `send_group_message`: home → owner → store → ack and delivery.
//!
//! Never acks what the store has not promised. The store gives the `seq` and knows duplicates, because a repeat may name
//! another conversation and so reach another owner.

use compact_str::CompactString;

use crate::engine::pending::Pending;
use crate::engine::refill::{overloaded, store_fault};
use crate::engine::shard::{Shard, Turn};
use crate::types::command::{Command, Draft, Target};
use crate::types::envelope::Asker;
use crate::types::outcome::Fault;
use crate::types::push::{Ack, Push, SentAck};
use crate::types::record::{Message, MessageExtra, MessageKind, SharedMessage};
use crate::types::storage::{Answer, Append, Operation, StoreFault, Write};
use crate::types::{ConversationId, ErrorName, MessageId, Millis, RawJson, RequestId, Seq, SessionKey, UserId};

impl Shard {
    pub(super) fn send(&mut self, key: SessionKey, draft: Box<Draft>, request: Option<RequestId>, turn: &mut Turn<'_>) {
        if let Some(fault) = self.too_large(draft.content_bytes as usize) {
            return self.refuse(key, request.as_ref(), fault, turn);
        }
        let Some(session) = self.ready(key) else { return };
        let conversation = target_of(&session.account().user, &draft);
        self.pass_to_owner(key, conversation, Command::Send(draft), request, turn);
    }

    /// What is said of content of so many bytes, when that is too much.
    pub(super) fn too_large(&self, content_bytes: usize) -> Option<Fault> {
        let content_bytes_max = self.settings.content_bytes_max;
        let text = format!("content has {content_bytes} bytes; at most {content_bytes_max} are allowed");
        (content_bytes > content_bytes_max).then(|| Fault::new(ErrorName::TooLarge, text))
    }

    /// The owner's part: membership, then the store.
    pub(super) fn append(&mut self, asker: Box<Asker>, conversation: ConversationId, draft: Draft, turn: &mut Turn<'_>) {
        let refusal = if conversation.is_group() { self.role_of(&conversation, &asker.user).err() } else { None };
        // What was written while they might is theirs: its repeat is acknowledged also after they have left.
        if let Some(name) = refusal
            && asker.request.is_none()
        {
            return self.fail(&asker, name, turn);
        }
        let extra = MessageExtra {
            mentions: draft.mentions,
            reply_to: draft.reply_to,
            loss_time_ms: draft.loss_time_ms,
            ext: draft.ext,
            recalled_by: None,
        };
        let message = Message {
            conversation: conversation.clone(),
            seq: Seq::NONE,
            id: self.next_message_id(turn.now.wall),
            sender: Some(asker.user.clone()),
            origin: asker.session,
            client_id: asker.request.clone(),
            kind: MessageKind::Chat(draft.kind),
            content: draft.content,
            created_at: turn.now.wall,
            extra: (extra != MessageExtra::default()).then(|| Box::new(extra)),
        };
        self.append_message(message, Some(asker), refusal, turn);
    }

    /// Gives a message to the store; whoever asked is answered when it has it.
    /// With a `refusal` nothing is written: it is the answer unless the message was written before.
    pub(super) fn append_message(
        &mut self,
        message: Message,
        asker: Option<Box<Asker>>,
        refusal: Option<ErrorName>,
        turn: &mut Turn<'_>,
    ) {
        let conversation = message.conversation.clone();
        let notification = match &message.kind {
            MessageKind::Notification(kind) if asker.is_none() => Some(Box::new((kind.clone(), message.content.clone()))),
            _ => None,
        };
        if self.store_takes_no_writes() {
            match (asker, notification) {
                (Some(asker), _) => self.fail(&asker, overloaded(), turn),
                (None, Some(kept)) => self.notify_later(conversation, kept.0, kept.1, turn),
                (None, None) => {}
            }
            return;
        }
        let entry = self.entry(&conversation);
        let head = entry.head_hint();
        entry.appends += 1;
        let dedupe_since = Millis(turn.now.wall.0.saturating_sub(self.settings.dedupe_window_ms));
        let append = Box::new(Append { message, head, dedupe_since, repeat_only: refusal.is_some() });
        self.store(Operation::Write(Write::Append(append)), Pending::Append { conversation, asker, notification, refusal }, turn);
    }

    /// The store has answered an append.
    pub(in crate::engine) fn appended(
        &mut self,
        conversation: ConversationId,
        asker: Option<Box<Asker>>,
        notification: Option<Box<(CompactString, RawJson)>>,
        refusal: Option<ErrorName>,
        result: Result<Answer, StoreFault>,
        turn: &mut Turn<'_>,
    ) {
        let waiting = match self.conversations.table.get_mut(&conversation) {
            Some(entry) => {
                entry.appends -= 1;
                if let Ok(Answer::Appended(message)) = &result {
                    debug_assert!(message.seq == entry.head.next(), "a log has no gaps");
                    entry.head = message.seq;
                }
                !entry.waiting.is_empty()
            }
            None => unreachable!("a conversation with appends under way is not forgotten"),
        };
        match result {
            Ok(Answer::Appended(message)) => {
                let received_us = asker.as_ref().map_or(turn.now.mono_us, |asker| asker.received_us);
                if let Some(asker) = asker {
                    let ack = sent_ack(message.id, conversation.clone(), message.seq, message.created_at, false);
                    self.reply(&asker, ack, turn);
                }
                self.deliver(&message, received_us, turn);
            }
            Ok(Answer::Duplicate { message_id, conversation, seq, created_at }) => {
                if let Some(asker) = asker {
                    self.reply(&asker, sent_ack(message_id, conversation, seq, created_at, true), turn);
                }
            }
            Ok(_) => match (asker, refusal) {
                (Some(asker), Some(name)) => self.fail(&asker, name, turn),
                _ => debug_assert!(false, "an append was asked for"),
            },
            Err(fault) => match (asker, notification) {
                (Some(asker), _) => self.fail(&asker, store_fault(&fault), turn),
                (None, Some(kept)) => self.notify_later(conversation.clone(), kept.0, kept.1, turn),
                (None, None) => {}
            },
        }
        if waiting {
            self.go_on(&conversation, turn);
        }
    }

    pub(super) fn next_message_id(&mut self, now: Millis) -> MessageId {
        MessageId::from_parts(now.0, self.random.u128(..))
    }

    /// Where a message is, for verbs that name only its id.
    pub(super) fn locate(
        &mut self,
        key: SessionKey,
        message_id: MessageId,
        command: Command,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        if self.store_is_full() {
            return self.refuse(key, request.as_ref(), overloaded(), turn);
        }
        let Some(asker) = self.asker(key, request, turn) else { return };
        let read = Operation::Read(crate::types::storage::Read::Locate { message_id });
        self.store(read, Pending::Locate { asker, command: Box::new(command) }, turn);
    }

    /// The message was found, or not: the verb goes on.
    pub(in crate::engine) fn located(
        &mut self,
        asker: Box<Asker>,
        command: Command,
        result: Result<Answer, StoreFault>,
        turn: &mut Turn<'_>,
    ) {
        let message: SharedMessage = match result {
            Ok(Answer::Located(Some(message))) => message,
            Ok(_) => return self.fail(&asker, ErrorName::NoSuchMessage, turn),
            Err(fault) => return self.fail(&asker, store_fault(&fault), turn),
        };
        match command {
            Command::Recall(_) => {
                let owner = self.owner_of(&message.conversation);
                let body = crate::types::envelope::Body::AskAbout { asker, message, command: Box::new(command) };
                self.route_anew(owner, body, turn);
            }
            Command::Delete(_) => self.delete(asker, message, turn),
            Command::MarkRead { .. } => self.mark_read_located(asker, message, command, turn),
            other => debug_assert!(false, "{} looks nothing up", other.name()),
        }
    }
}

/// The conversation that a draft of `sender`'s belongs to.
pub(super) fn target_of(sender: &UserId, draft: &Draft) -> ConversationId {
    match &draft.target {
        Target::User(user) => ConversationId::private(sender, user),
        Target::Group(group) => ConversationId::group(group),
    }
}

fn sent_ack(message_id: MessageId, conversation: ConversationId, seq: Seq, created_at: Millis, duplicate: bool) -> Push {
    Push::Ack(Ack { sent: Some(SentAck { message_id, conversation, seq, created_at, duplicate }), group: None })
}
