//! Owns what is read across a user's conversations: summaries and unread counts. Every answer looks at a bounded number of
//! messages, whatever there is. Lives on the reader threads.

use super::codec::{RowRecord, decode_head, is_lost};
use super::keys;
use super::read::Hidden;
use super::tables::{Look, Space, Trouble, View};
use crate::store::listing::parse_cursor;
use crate::types::push::{ConversationSummary, UnreadEntry};
use crate::types::storage::Answer;
use crate::types::{ConversationId, Millis, Seq, UserId};

impl View<'_> {
    /// Newest conversation first; the cursor names the last one answered by time and id.
    pub(super) fn summaries(&self, user: &UserId, limit: u32, cursor: Option<&str>) -> Result<Answer, Trouble> {
        let after = cursor.and_then(parse_cursor);
        let mut found: Vec<(Millis, ConversationId, RowRecord)> = Vec::new();
        for row in self.rows(user)? {
            let (id, row) = row?;
            let at = match self.newest_message(row.number)? {
                Some((_, key, bytes)) => decode_head(&key, &bytes).map_err(Trouble::at(Space::Messages, id.as_str()))?.created_at,
                None => Millis(0),
            };
            if after.as_ref().is_none_or(|(time, text)| (at, id.as_str()) < (*time, text.as_str())) {
                found.push((at, id, row));
            }
        }
        found.sort_unstable_by(|one, other| (other.0, &other.1).cmp(&(one.0, &one.1)));
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| more).map(|(at, id, _)| format!("{}:{id}", at.0));
        let mut budget = Budget::new();
        let summaries = found.into_iter().map(|(_, id, row)| self.summary(user, id, &row, &mut budget));
        Ok(Answer::Summaries { conversations: summaries.collect::<Result<_, _>>()?, next })
    }

    fn summary(
        &self,
        user: &UserId,
        id: ConversationId,
        row: &RowRecord,
        budget: &mut Budget,
    ) -> Result<ConversationSummary, Trouble> {
        let (last_seq, last_message) = match self.newest_message(row.number)? {
            Some((seq, key, bytes)) if seq > row.start_seq => {
                (seq, Some(self.decode(&key, &bytes, &id, seq)?).filter(|message| !is_lost(message)))
            }
            Some((seq, _, _)) => (seq, None),
            None => match self.conversation_record(&id)? {
                Some(record) => (record.first_kept.previous(), None),
                None => (Seq::NONE, None),
            },
        };
        let (unread, _) = self.count(user, &id, row, budget)?;
        Ok(ConversationSummary { conversation: id, last_message, last_seq, read_seq: row.read_seq, unread })
    }

    pub(super) fn unread(&self, user: &UserId) -> Result<Answer, Trouble> {
        let (mut entries, mut budget) = (Vec::new(), Budget::new());
        for row in self.rows(user)? {
            let (id, row) = row?;
            let (unread, mentioned) = self.count(user, &id, &row, &mut budget)?;
            if unread > 0 {
                entries.push(UnreadEntry { conversation: id, unread, mentioned });
            }
        }
        Ok(Answer::Unread(entries))
    }

    /// Unread messages of a row, and whether one of them mentions the user. Counts the first [`COUNTED_MAX`]; when the answer
    /// as a whole has looked at enough, what is left counts without being looked at.
    fn count(&self, user: &UserId, id: &ConversationId, row: &RowRecord, budget: &mut Budget) -> Result<(u64, bool), Trouble> {
        let (from, end) = (row.read_seq.max(row.start_seq).next(), Seq(u64::MAX));
        if self.head_now(row.number)?.is_none_or(|head| head < from) {
            return Ok((0, false));
        }
        let (mut unread, mut mentioned) = (0, false);
        let mut hidden = None;
        for guard in self.log(row.number, from, end).take(COUNTED_MAX) {
            let (key, bytes) = guard.into_inner()?;
            let seq = keys::seq_of(&key).unwrap_or_default();
            if !budget.spend(bytes.len()) {
                let last = self.newest_message(row.number)?.map_or(seq, |(last, _, _)| last);
                return Ok((unread + (last.0 - seq.0 + 1).min(COUNTED_MAX as u64), mentioned));
            }
            let head = decode_head(&key, &bytes).map_err(Trouble::at(Space::Messages, format!("{id} seq {}", seq.0)))?;
            let hidden = hidden.get_or_insert_with(|| Hidden::walk(self, user, row.number, (from, end), false));
            if head.sender == Some(user.as_str()) || head.recalled || hidden.has(seq)? {
                continue;
            }
            unread += 1;
            mentioned |= head.mentions(user.as_str());
        }
        Ok((unread, mentioned))
    }
}

/// What one answer may look at.
pub(super) struct Budget {
    messages: usize,
    bytes: usize,
}

impl Budget {
    fn new() -> Budget {
        Budget::with(0)
    }

    /// So many messages more than usual.
    pub(super) fn with(messages: usize) -> Budget {
        Budget { messages: LOOKED_AT_MAX + messages, bytes: LOOKED_AT_BYTES_MAX }
    }

    /// For a message that is looked at; false when it is used up.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.spend_messages(1)
    }

    /// For what costs as much as so many messages.
    pub(super) fn spend_messages(&mut self, messages: usize) -> bool {
        self.messages = self.messages.saturating_sub(messages);
        !self.is_spent()
    }

    pub(super) fn is_spent(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }
}

/// More unread messages of one conversation are not counted.
const COUNTED_MAX: usize = 10_000;
const LOOKED_AT_MAX: usize = 100_000;
const LOOKED_AT_BYTES_MAX: usize = 32 << 20;
