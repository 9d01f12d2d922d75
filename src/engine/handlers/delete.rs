//! `delete_message`: hides a message from one user on all devices; nobody else notices.

use crate::engine::pending::Pending;
use crate::engine::refill::overloaded;
use crate::engine::shard::{Shard, Turn};
use crate::types::ErrorName;
use crate::types::envelope::Asker;
use crate::types::record::SharedMessage;
use crate::types::storage::{Operation, Write};
use crate::types::{ConversationId, ConversationKind};

impl Shard {
    /// At the client's home, with the message that was found.
    pub(super) fn delete(&mut self, asker: Box<Asker>, message: SharedMessage, turn: &mut Turn<'_>) {
        let entitled = match message.conversation.kind() {
            ConversationKind::Private(one, other) => one == asker.user || other == asker.user,
            ConversationKind::System(user) => user == asker.user,
            // A member's own session holds a cursor of each of their groups.
            ConversationKind::Group(_) => self.has_cursor(&asker, &message.conversation),
        };
        if !entitled {
            return self.fail(&asker, ErrorName::NoSuchMessage, turn);
        }
        if self.store_takes_no_writes() {
            return self.fail(&asker, overloaded(), turn);
        }
        let write = Write::Hide { user: asker.user.clone(), conversation: message.conversation.clone(), seq: message.seq };
        self.store(Operation::Write(write), Pending::AckWhenDone { asker }, turn);
    }

    fn has_cursor(&mut self, asker: &Asker, conversation: &ConversationId) -> bool {
        self.ready(asker.address.key).is_some_and(|session| session.cursor_of(conversation).is_some())
    }
}
