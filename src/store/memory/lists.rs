//! Owns what is read across a user's conversations: summaries, unread counts, search. Never changes anything. Lives with its
//! backend.

use super::MemoryBackend;
use super::log::Log;
use super::users::{Row, User};
use crate::store::listing::{FOUND_BYTES_MAX, Wanted, parse_cursor, position};
use crate::store::text::Query;
use crate::types::push::{ConversationSummary, UnreadEntry};
use crate::types::record::{Mentions, SharedMessage};
use crate::types::storage::Answer;
use crate::types::{ConversationId, Millis, Seq, UserId};

impl MemoryBackend {
    /// Newest conversation first; the cursor names the last one answered by time and id.
    pub(super) fn summaries(&self, user: &UserId, limit: u32, cursor: Option<&str>) -> Answer {
        let Some(found) = self.users.user(user) else {
            return Answer::Summaries { conversations: Vec::new(), next: None };
        };
        let after = cursor.and_then(parse_cursor);
        let mut rows: Vec<(Millis, &ConversationId, &Log, &Row)> = found
            .rows()
            .iter()
            .map(|row| {
                let (conversation, log) = self.log_of(row);
                (log.last().map_or(Millis(0), |message| message.created_at), conversation, log, row)
            })
            .filter(|(at, conversation, _, _)| {
                after.as_ref().is_none_or(|(time, id)| (*at, conversation.as_str()) < (*time, id.as_str()))
            })
            .collect();
        rows.sort_unstable_by(|one, other| (other.0, other.1).cmp(&(one.0, one.1)));
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|(at, conversation, _, _)| format!("{}:{conversation}", at.0));
        let conversations = rows
            .into_iter()
            .map(|(_, conversation, log, row)| ConversationSummary {
                conversation: conversation.clone(),
                last_message: log.last().filter(|message| message.seq > row.start_seq).cloned(),
                last_seq: log.head(),
                read_seq: row.read_seq,
                unread: unread(user, found, row, log).0,
            })
            .collect();
        Answer::Summaries { conversations, next }
    }

    pub(super) fn unread(&self, user: &UserId) -> Answer {
        let Some(found) = self.users.user(user) else { return Answer::Unread(Vec::new()) };
        let entries = found.rows().iter().filter_map(|row| {
            let (conversation, log) = self.log_of(row);
            let (unread, mentioned) = unread(user, found, row, log);
            (unread > 0).then(|| UnreadEntry { conversation: conversation.clone(), unread, mentioned })
        });
        Answer::Unread(entries.collect())
    }

    /// Every word of the query has to occur. Looks at everything the user may read: memory holds little.
    pub(super) fn search(&self, wanted: &Wanted<'_>) -> Answer {
        let Some(found) = self.users.user(wanted.user) else { return Answer::Found { messages: Vec::new(), next: None } };
        let query = Query::new(wanted.query);
        let before = wanted.cursor.and_then(parse_cursor);
        let mut hits: Vec<SharedMessage> = Vec::new();
        for row in found.rows() {
            let (conversation, log) = self.log_of(row);
            if wanted.only.is_some_and(|only| only != conversation) {
                continue;
            }
            hits.extend(
                log.after(wanted.after(conversation, row.start_seq))
                    .filter(|message| !found.hides(row.log, message.seq) && message.recalled_by().is_none())
                    .filter(|message| before.as_ref().is_none_or(|(at, id)| position(message) < (*at, id.clone())))
                    .filter(|message| query.matches(message))
                    .cloned(),
            );
        }
        hits.sort_unstable_by_key(|message| std::cmp::Reverse(position(message)));
        let all = hits.len();
        let mut bytes = 0;
        let within = |message: &SharedMessage| {
            let more = bytes < FOUND_BYTES_MAX;
            bytes += message.weight_bytes();
            more
        };
        let page = hits.iter().take(wanted.limit as usize).map(within).take_while(|more| *more).count();
        hits.truncate(page);
        let next = hits.last().filter(|_| page < all).map(|message| {
            let (at, id) = position(message);
            format!("{}:{id}", at.0)
        });
        Answer::Found { messages: hits, next }
    }

    /// Up to [`SENDERS_MAX`] distinct senders of what has become read.
    pub(super) fn senders(&self, conversation: &ConversationId, from: Seq, to: Seq) -> Vec<UserId> {
        let mut senders: Vec<UserId> = Vec::new();
        let Some(log) = self.logs.get(conversation) else { return senders };
        for message in log.after(from).take_while(|message| message.seq <= to).take(SENDERS_LOOKED_AT_MAX) {
            if let Some(sender) = &message.sender
                && !senders.contains(sender)
                && senders.len() < SENDERS_MAX
            {
                senders.push(sender.clone());
            }
        }
        senders
    }

    fn log_of(&self, row: &Row) -> (&ConversationId, &Log) {
        self.logs.get_index(row.log as usize).expect("logs are never removed")
    }
}

/// Unread messages of a row, and whether one of them mentions the user.
fn unread(user: &UserId, found: &User, row: &Row, log: &Log) -> (u64, bool) {
    let (mut unread, mut mentioned) = (0, false);
    for message in log.after(row.read_seq.max(row.start_seq)) {
        let own = message.sender.as_ref() == Some(user);
        if own || message.recalled_by().is_some() || found.hides(row.log, message.seq) {
            continue;
        }
        unread += 1;
        mentioned |= match message.extra.as_ref().and_then(|extra| extra.mentions.as_ref()) {
            Some(Mentions::All) => true,
            Some(Mentions::Users(users)) => users.contains(user),
            None => false,
        };
    }
    (unread, mentioned)
}

const SENDERS_MAX: usize = 64;
const SENDERS_LOOKED_AT_MAX: usize = 1_000;
