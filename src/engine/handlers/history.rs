//! `get_history`: a page of a log for whoever may read it.

use crate::engine::pending::Pending;
use crate::engine::refill::{overloaded, store_fault};
use crate::engine::shard::{Shard, Turn};
use crate::types::command::{Command, ConversationRef, HistoryQuery};
use crate::types::envelope::Asker;
use crate::types::push::{HistoryNext, Push};
use crate::types::storage::{Answer, Operation, RangePage, RangeQuery, Read, StoreFault};
use crate::types::{ConversationId, RequestId, Seq, SessionKey};

impl Shard {
    pub(super) fn get_history(
        &mut self,
        key: SessionKey,
        mut query: HistoryQuery,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        match self.resolve(key, query.conversation) {
            Ok(conversation) => {
                query.conversation = ConversationRef::Id(conversation.clone());
                self.pass_to_owner(key, conversation, Command::GetHistory(query), request, turn);
            }
            Err(fault) => self.refuse(key, request.as_ref(), fault, turn),
        }
    }

    /// At the owner, who knows since when the asker may read.
    pub(super) fn read_history(
        &mut self,
        asker: Box<Asker>,
        conversation: ConversationId,
        query: HistoryQuery,
        turn: &mut Turn<'_>,
    ) {
        let mut floor = Seq::NONE;
        if conversation.is_group() {
            if let Err(name) = self.role_of(&conversation, &asker.user) {
                return self.fail(&asker, name, turn);
            }
            if !self.settings.group_history_all {
                let owned = self.conversations.table.get(&conversation).and_then(|entry| entry.group.as_ref());
                floor = owned.and_then(|owned| owned.members.get(&asker.user)).map_or(Seq::NONE, |member| member.joined_seq);
            }
        }
        if self.store_is_full() {
            return self.fail(&asker, overloaded(), turn);
        }
        let after = match (query.after, floor) {
            (None, Seq::NONE) => None,
            (after, floor) => Some(after.unwrap_or(Seq::NONE).max(floor)),
        };
        let range = RangeQuery {
            conversation: conversation.clone(),
            viewer: Some(asker.user.clone()),
            after,
            before: query.before,
            since: query.since,
            until: query.until,
            newest: query.after.is_none(),
            limit: query.limit,
            bytes_max: PAGE_BYTES_MAX,
        };
        let pending = Pending::History { asker, query: Box::new(query), conversation };
        self.store(Operation::Read(Read::Range(range)), pending, turn);
    }

    pub(in crate::engine) fn history_read(
        &mut self,
        asker: Box<Asker>,
        query: HistoryQuery,
        conversation: ConversationId,
        result: Result<Answer, StoreFault>,
        turn: &mut Turn<'_>,
    ) {
        let page = match result {
            Ok(Answer::Range(page)) => page,
            Ok(_) => return debug_assert!(false, "a range was asked for"),
            Err(fault) => return self.fail(&asker, store_fault(&fault), turn),
        };
        let next = page.has_more.then(|| next_page(&query, &page)).flatten();
        let push = Push::History { conversation, has_more: next.is_some(), next, messages: page.messages };
        self.reply(&asker, push, turn);
    }
}

/// Where the page after this one begins: older ones unless the client reads forward.
fn next_page(query: &HistoryQuery, page: &RangePage) -> Option<HistoryNext> {
    if query.after.is_none() {
        page.messages.first().map(|first| HistoryNext::Before(first.seq))
    } else {
        page.messages.last().map(|last| HistoryNext::After(last.seq))
    }
}

/// A page of history holds at most this much content, so that one answer never fills an outbox many times over.
const PAGE_BYTES_MAX: usize = 1 << 20;
