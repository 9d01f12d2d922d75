//! `get_conversations`, `get_unread`, `search`: what a user has, in lists. All three are readings of the store by the client's
//! home; a user's rows say what is theirs.

use crate::engine::pending::Pending;
use crate::engine::refill::{overloaded, store_fault};
use crate::engine::shard::{Shard, Turn};
use crate::types::command::ConversationRef;
use crate::types::envelope::Asker;
use crate::types::push::Push;
use crate::types::storage::{Answer, Operation, Read, StoreFault};
use crate::types::{RequestId, SessionKey};

/// What is searched for.
pub(super) struct Search {
    pub query: String,
    pub conversation: Option<ConversationRef>,
    pub limit: u32,
    pub cursor: Option<String>,
}

impl Shard {
    pub(super) fn get_conversations(
        &mut self,
        key: SessionKey,
        limit: u32,
        cursor: Option<String>,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        let Some(asker) = self.asker(key, request, turn) else { return };
        let read = Read::Summaries { user: asker.user.clone(), limit, cursor };
        self.read_list(asker, read, turn);
    }

    pub(super) fn get_unread(&mut self, key: SessionKey, request: Option<RequestId>, turn: &mut Turn<'_>) {
        let Some(asker) = self.asker(key, request, turn) else { return };
        let read = Read::Unread { user: asker.user.clone() };
        self.read_list(asker, read, turn);
    }

    pub(super) fn search(&mut self, key: SessionKey, search: Search, request: Option<RequestId>, turn: &mut Turn<'_>) {
        let Search { query, conversation, limit, cursor } = search;
        let conversation = match conversation.map(|named| self.resolve(key, named)).transpose() {
            Ok(conversation) => conversation,
            Err(fault) => return self.refuse(key, request.as_ref(), fault, turn),
        };
        let Some(asker) = self.asker(key, request, turn) else { return };
        let whole_groups = self.settings.group_history_all;
        let read = Read::Search { user: asker.user.clone(), query, conversation, whole_groups, limit, cursor };
        self.read_list(asker, read, turn);
    }

    fn read_list(&mut self, asker: Box<Asker>, read: Read, turn: &mut Turn<'_>) {
        if self.store_is_full() {
            return self.fail(&asker, overloaded(), turn);
        }
        self.store(Operation::Read(read), Pending::List { asker }, turn);
    }

    pub(in crate::engine) fn list_read(&mut self, asker: Box<Asker>, result: Result<Answer, StoreFault>, turn: &mut Turn<'_>) {
        let push = match result {
            Ok(Answer::Summaries { conversations, next }) => {
                Push::Conversations { conversations, has_more: next.is_some(), next }
            }
            Ok(Answer::Unread(conversations)) => {
                Push::Unread { total: conversations.iter().map(|entry| entry.unread).sum(), conversations }
            }
            Ok(Answer::Found { messages, next }) => Push::SearchResult { messages, has_more: next.is_some(), next },
            Ok(_) => return debug_assert!(false, "a list was asked for"),
            Err(fault) => return self.fail(&asker, store_fault(&fault), turn),
        };
        self.reply(&asker, push, turn);
    }
}
