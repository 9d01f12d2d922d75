//! Owns what is read across a user's conversations: summaries, unread counts, search. Every answer looks at a bounded number of
//! messages, whatever there is. Lives on the reader threads.

use std::collections::BinaryHeap;
use std::collections::VecDeque;

use super::codec::{RowRecord, decode_head, is_lost};
use super::keys;
use super::read::Hidden;
use super::tables::{Look, Space, Trouble, View};
use crate::store::listing::{matches, parse_cursor, position};
use crate::types::push::{ConversationSummary, UnreadEntry};
use crate::types::record::SharedMessage;
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

    /// Every word of the query has to occur, in any case. Looks through the newest messages of all conversations together; when
    /// that was enough for one answer, `next` says where to go on, also when nothing was found so far.
    pub(super) fn search(
        &self,
        user: &UserId,
        query: &str,
        only: Option<&ConversationId>,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Answer, Trouble> {
        let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
        let before = cursor.and_then(parse_cursor);
        let mut heap = BinaryHeap::new();
        for row in self.rows(user)? {
            let (id, row) = row?;
            if only.is_none_or(|only| *only == id) {
                let mut strand = Strand::new(self, id, row, before.clone())?;
                heap.extend(strand.next(self, user)?.map(|message| Newest { message, strand }));
            }
        }
        let (mut messages, mut budget) = (Vec::new(), Budget::new());
        while let Some(Newest { message, mut strand }) = heap.pop() {
            let position = position(&message);
            let enough = !budget.spend(message.content.as_str().len());
            if matches(&message, &words) {
                messages.push(message);
            }
            heap.extend(strand.next(self, user)?.map(|message| Newest { message, strand }));
            if (enough || messages.len() >= limit.max(1) as usize) && !heap.is_empty() {
                return Ok(Answer::Found { messages, next: Some(format!("{}:{}", position.0.0, position.1)) });
            }
        }
        Ok(Answer::Found { messages, next: None })
    }
}

/// What one answer may look at.
struct Budget {
    messages: usize,
    bytes: usize,
}

impl Budget {
    fn new() -> Budget {
        Budget { messages: LOOKED_AT_MAX, bytes: LOOKED_AT_BYTES_MAX }
    }

    /// False when it is used up.
    fn spend(&mut self, bytes: usize) -> bool {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.messages > 0 && self.bytes > 0
    }
}

/// One conversation of a search, walked from its end in pieces.
struct Strand {
    id: ConversationId,
    row: RowRecord,
    /// Only what lies before it.
    before: Option<(Millis, String)>,
    waiting: VecDeque<SharedMessage>,
    /// Last `seq` that was not looked at; None: all have been.
    high: Option<Seq>,
    piece: usize,
}

impl Strand {
    fn new(view: &View<'_>, id: ConversationId, row: RowRecord, before: Option<(Millis, String)>) -> Result<Strand, Trouble> {
        let mut high = Seq(u64::MAX);
        if let Some((at, _)) = &before
            && let Some(record) = view.conversation_record(&id)?
        {
            // A later page begins where the earlier one stopped, not at the end.
            let until = at.0.saturating_add(record.slack_ms);
            let bounds = (record.first_kept.max(row.start_seq.next()), view.head(&record)?);
            high = view.partition(&record, &id, bounds, |time| time.0 <= until)?.previous();
        }
        Ok(Strand { id, row, before, waiting: VecDeque::new(), high: Some(high), piece: PIECE_MIN })
    }

    /// The next older message that the user may find.
    fn next(&mut self, view: &View<'_>, user: &UserId) -> Result<Option<SharedMessage>, Trouble> {
        while self.waiting.is_empty() {
            let Some(high) = self.high.filter(|high| *high > self.row.start_seq) else { return Ok(None) };
            let low = self.row.start_seq.next();
            let mut hidden = Hidden::walk(view, user, self.row.number, (low, high), true);
            self.high = None;
            for (place, guard) in view.log(self.row.number, low, high).rev().enumerate() {
                let (key, bytes) = guard.into_inner()?;
                let seq = keys::seq_of(&key).unwrap_or_default();
                if place == self.piece {
                    self.high = Some(seq);
                    break;
                }
                let head = decode_head(&key, &bytes).map_err(Trouble::at(Space::Messages, self.id.as_str()))?;
                let early = |(at, _): &(Millis, String)| head.created_at > *at;
                if head.recalled || self.before.as_ref().is_some_and(early) || hidden.has(seq)? {
                    continue;
                }
                let message = view.decode(&key, &bytes, &self.id, seq)?;
                if self.before.as_ref().is_none_or(|before| position(&message) < *before) {
                    self.waiting.push_back(message);
                }
            }
            self.piece = (self.piece * 4).min(PIECE_MAX);
        }
        Ok(self.waiting.pop_front())
    }
}

/// A strand by its newest message.
struct Newest {
    message: SharedMessage,
    strand: Strand,
}

impl Newest {
    fn order(&self) -> (Millis, &ConversationId, Seq) {
        (self.message.created_at, &self.message.conversation, self.message.seq)
    }
}

impl PartialEq for Newest {
    fn eq(&self, other: &Newest) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Newest {}

impl PartialOrd for Newest {
    fn partial_cmp(&self, other: &Newest) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Newest {
    fn cmp(&self, other: &Newest) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// More unread messages of one conversation are not counted.
const COUNTED_MAX: usize = 10_000;
const LOOKED_AT_MAX: usize = 100_000;
const LOOKED_AT_BYTES_MAX: usize = 32 << 20;
const PIECE_MIN: usize = 4;
const PIECE_MAX: usize = 256;
