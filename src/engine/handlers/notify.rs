//! Notifications: entries in a user's system conversation, in the log like everything else, before chat on the wire.

use compact_str::CompactString;

use crate::engine::conversations::Waiting;
use crate::engine::shard::{Shard, Turn};
use crate::types::envelope::{Asker, Body};
use crate::types::record::{Message, MessageKind};
use crate::types::{ConversationId, ConversationKind, GroupId, RawJson, Seq, SessionId, UserId};

/// A notification that is tried again.
#[derive(Debug)]
pub struct Later {
    pub at_ms: u64,
    conversation: ConversationId,
    kind: CompactString,
    content: RawJson,
}

impl Shard {
    /// Writes a notification into `s:<user>`. Runs on that conversation's owner.
    pub(in crate::engine) fn notify(
        &mut self,
        user: UserId,
        kind: CompactString,
        content: RawJson,
        asker: Option<Box<Asker>>,
        turn: &mut Turn<'_>,
    ) {
        let conversation = ConversationId::system(&user);
        if self.prepare(&conversation, turn) {
            self.notify_now(&conversation, kind, content, asker, turn);
        } else {
            self.wait(&conversation, Waiting::Notify { kind, content, asker }, turn);
        }
    }

    pub(super) fn notify_now(
        &mut self,
        conversation: &ConversationId,
        kind: CompactString,
        content: RawJson,
        asker: Option<Box<Asker>>,
        turn: &mut Turn<'_>,
    ) {
        let message = Message {
            conversation: conversation.clone(),
            seq: Seq::NONE,
            id: self.next_message_id(turn.now.wall),
            sender: None,
            origin: SessionId::NONE,
            client_id: asker.as_ref().and_then(|asker| asker.request.clone()),
            kind: MessageKind::Notification(kind),
            content,
            created_at: turn.now.wall,
            extra: None,
        };
        self.append_message(message, asker, None, turn);
    }

    /// Keeps a notification that the store could not take. Full, the oldest is given up and counted.
    pub(super) fn notify_later(
        &mut self,
        conversation: ConversationId,
        kind: CompactString,
        content: RawJson,
        turn: &mut Turn<'_>,
    ) {
        if self.later.len() >= LATER_MAX {
            self.later.pop_front();
            self.counters.notifications_lost += 1;
        }
        self.later.push_back(Later { at_ms: turn.now.mono_ms() + LATER_MS, conversation, kind, content });
    }

    /// Tries again what is due.
    pub(in crate::engine) fn notify_again(&mut self, turn: &mut Turn<'_>) {
        let now_ms = turn.now.mono_ms();
        while let Some(later) = self.later.pop_front_if(|later| later.at_ms <= now_ms) {
            if let ConversationKind::System(user) = later.conversation.kind() {
                self.notify(user, later.kind, later.content, None, turn);
            }
        }
    }

    /// Tells users that they were added to a group.
    pub(super) fn notify_invited(&mut self, users: Vec<UserId>, group: &GroupId, by: Option<&UserId>, turn: &mut Turn<'_>) {
        let mut text = format!("{{\"group_id\":{}", RawJson::string(group.as_str()).as_str());
        if let Some(by) = by {
            text.push_str(",\"by\":");
            text.push_str(RawJson::string(by.as_str()).as_str());
        }
        text.push('}');
        for user in users {
            let owner = self.owner_of(&ConversationId::system(&user));
            let content = RawJson::from_validated(&text);
            let body = Body::Notify { user, kind: CompactString::const_new("group_invite"), content, asker: None };
            self.route_anew(owner, body, turn);
        }
    }
}

/// Notifications kept for later per shard.
const LATER_MAX: usize = 10_000;
/// Milliseconds until the next try.
const LATER_MS: u64 = 500;
