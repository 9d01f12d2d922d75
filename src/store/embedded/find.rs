//! Owns searching: a user's logs, newest message first, by the index where there is one and by looking through the log where
//! there is none. Whatever is found is read from the log, which alone says what may be seen. Every answer looks at a bounded
//! number of messages. Lives on the reader threads.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use super::codec::{RowRecord, decode_head};
use super::keys;
use super::lists::Budget;
use super::read::Hidden;
use super::search::{Hits, Search, Sight, block_begin, block_of};
use super::tables::{Look, Space, Trouble, View};
use crate::store::listing::{FOUND_BYTES_MAX, Wanted, parse_cursor};
use crate::store::text::Query;
use crate::types::record::SharedMessage;
use crate::types::storage::Answer;
use crate::types::{ConversationId, Millis, Seq};

impl View<'_> {
    /// Every word of the query has to occur. When an answer has looked at enough, `next` says where to go on, also when nothing
    /// was found so far.
    pub fn find(&self, wanted: &Wanted<'_>, search: Option<&Search>) -> Result<Answer, Trouble> {
        let query = Query::new(wanted.query);
        let rows = match wanted.only {
            _ if query.is_empty() => Vec::new(),
            Some(id) => self.row_of(wanted.user, id)?.map(|row| (id.clone(), row)).into_iter().collect(),
            None => self.rows(wanted.user)?.collect::<Result<_, _>>()?,
        };
        let numbers = rows.iter().map(|(_, row)| row.number);
        let sight = search.and_then(|search| search.sight(query.terms(), numbers)).transpose()?;
        let before = wanted.cursor.and_then(parse_cursor).map(Place::new);
        Finding { view: self, wanted, query, sight, before }.page(rows)
    }
}

/// One search under way.
struct Finding<'a> {
    view: &'a View<'a>,
    wanted: &'a Wanted<'a>,
    query: Query,
    sight: Option<Sight>,
    /// Only what lies before it.
    before: Option<Place>,
}

/// A place among all messages: by time, then by conversation and `seq`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    at: Millis,
    conversation: String,
    seq: Seq,
}

impl Place {
    /// What a cursor names; a client may have made it up.
    fn new((at, id): (Millis, String)) -> Place {
        let (conversation, seq) = id.rsplit_once(':').unwrap_or((&id, ""));
        Place { at, conversation: conversation.to_owned(), seq: seq.parse().map(Seq).unwrap_or_default() }
    }
}

impl Finding<'_> {
    fn page(&self, rows: Vec<(ConversationId, RowRecord)>) -> Result<Answer, Trouble> {
        // Enough for a step in each conversation: so every page ends further back than it began.
        let mut budget = Budget::with(rows.len() * (OPEN_COST + BLOCK_COST + MATCH_COST));
        let mut heap = BinaryHeap::with_capacity(rows.len());
        for (id, row) in rows {
            heap.extend(Strand::new(self, id, row)?);
        }
        let (limit, mut messages, mut bytes) = (self.wanted.limit.max(1) as usize, Vec::new(), 0);
        let mut held_blocks = 0;
        while let Some(mut strand) = heap.pop() {
            if let Some(message) = strand.found.take() {
                bytes += message.weight_bytes();
                messages.push(message);
            }
            held_blocks -= usize::from(strand.hits.is_some());
            if strand.step(self, &mut budget)? {
                if held_blocks == HELD_BLOCKS_MAX {
                    strand.hits = None;
                }
                held_blocks += usize::from(strand.hits.is_some());
                heap.push(strand);
            }
            if messages.len() >= limit || bytes >= FOUND_BYTES_MAX || budget.is_spent() {
                return Ok(Answer::Found { messages, next: Finding::cursor(&heap) });
            }
        }
        Ok(Answer::Found { messages, next: None })
    }

    /// Where the next page goes on: all that is newer than the newest strand has been looked at.
    fn cursor(heap: &BinaryHeap<Strand>) -> Option<String> {
        let Strand { id, at, below, opened, .. } = heap.peek()?;
        let seq = if *opened { below.0 } else { ANY_SEQ.0 };
        Some(format!("{}:{id}:{seq:020}", at.0))
    }

    fn is_before(&self, message: &SharedMessage) -> bool {
        let Some(before) = &self.before else { return true };
        match message.conversation.as_str().cmp(&before.conversation) {
            Ordering::Equal if before.seq != ANY_SEQ => message.seq < before.seq,
            Ordering::Less | Ordering::Equal => message.created_at <= before.at,
            Ordering::Greater => message.created_at < before.at,
        }
    }
}

/// One conversation of a search, walked from its end. It is ordered by the newest message that it may still have.
struct Strand {
    id: ConversationId,
    row: RowRecord,
    /// The time of what it may still have, at most, and the `seq` that all of it is below.
    at: Millis,
    below: Seq,
    /// What is below it was not looked at.
    next: Seq,
    /// The first one that may be found.
    low: Seq,
    /// Where `next` really is within the page that is asked for has been looked up.
    opened: bool,
    found: Option<SharedMessage>,
    /// Matches from the last piece of the log.
    waiting: VecDeque<SharedMessage>,
    /// What is left of a block of the index.
    hits: Option<Hits>,
    piece: usize,
}

impl Strand {
    fn new(finding: &Finding<'_>, id: ConversationId, row: RowRecord) -> Result<Option<Strand>, Trouble> {
        let Some((last, key, bytes)) = finding.view.newest_message(row.number)? else { return Ok(None) };
        let low = finding.wanted.after(&id, row.start_seq).next();
        if last < low {
            return Ok(None);
        }
        let head = decode_head(&key, &bytes).map_err(Trouble::at(Space::Messages, id.as_str()))?;
        let (mut at, mut next, mut opened) = (head.created_at, last.next(), true);
        if let Some(before) = &finding.before {
            match id.as_str().cmp(&before.conversation) {
                Ordering::Equal if before.seq != ANY_SEQ => (at, next) = (before.at, before.seq.min(next)),
                Ordering::Less | Ordering::Equal => (at, opened) = (at.min(before.at), false),
                Ordering::Greater => (at, opened) = (at.min(Millis(before.at.0.saturating_sub(1))), false),
            }
        }
        let (found, waiting, hits, piece) = (None, VecDeque::new(), None, PIECE_MIN);
        Ok(Some(Strand { id, row, at, below: next, next, low, opened, found, waiting, hits, piece }))
    }

    /// Looks for the next older match, or through a piece of the log; false when there is nothing left.
    fn step(&mut self, finding: &Finding<'_>, budget: &mut Budget) -> Result<bool, Trouble> {
        if !self.opened {
            budget.spend_messages(OPEN_COST);
            self.open(finding)?;
        }
        if self.waiting.is_empty() {
            let scan_from = finding.sight.as_ref().map_or(Seq::NONE, |sight| sight.scan_from(self.row.number)).max(self.low);
            if self.next > scan_from {
                self.scan(finding, scan_from, budget)?;
            } else if self.next > self.low {
                self.look_up(finding, budget)?;
            }
        }
        self.found = self.waiting.pop_front();
        match &self.found {
            Some(message) => (self.at, self.below) = (message.created_at, message.seq.next()),
            None => self.below = self.next,
        }
        Ok(self.found.is_some() || self.next > self.low)
    }

    /// A later page begins where the earlier one stopped, not at the end.
    fn open(&mut self, finding: &Finding<'_>) -> Result<(), Trouble> {
        self.opened = true;
        let view = finding.view;
        let Some(record) = view.conversation_record(&self.id)? else { return Ok(()) };
        self.low = self.low.max(record.first_kept);
        if self.low < self.next {
            let until = self.at.0.saturating_add(record.slack_ms);
            self.next = view.partition(&record, &self.id, (self.low, self.next.previous()), |time| time.0 <= until)?;
        }
        Ok(())
    }

    /// Looks through the next piece of the log down to `from`.
    fn scan(&mut self, finding: &Finding<'_>, from: Seq, budget: &mut Budget) -> Result<(), Trouble> {
        let (view, high) = (finding.view, self.next.previous());
        let mut hidden = Hidden::walk(view, finding.wanted.user, self.row.number, (from, high), true);
        self.next = from;
        for (place, guard) in view.log(self.row.number, from, high).rev().enumerate() {
            let (key, bytes) = guard.into_inner()?;
            let seq = keys::seq_of(&key).unwrap_or_default();
            if place == self.piece || (place > 0 && budget.is_spent()) {
                self.next = seq.next();
                break;
            }
            budget.spend(bytes.len());
            let head = decode_head(&key, &bytes).map_err(Trouble::at(Space::Messages, self.id.as_str()))?;
            self.at = self.at.min(head.created_at);
            if head.recalled || hidden.has(seq)? {
                continue;
            }
            let message = view.decode(&key, &bytes, &self.id, seq)?;
            if finding.is_before(&message) && finding.query.matches(&message) {
                self.waiting.push_back(message);
            }
        }
        self.piece = (self.piece * 4).min(PIECE_MAX);
        Ok(())
    }

    /// Looks for the next match by the index, in one block.
    fn look_up(&mut self, finding: &Finding<'_>, budget: &mut Budget) -> Result<(), Trouble> {
        let Some(sight) = &finding.sight else { return Ok(()) };
        let (view, number, block) = (finding.view, self.row.number, block_of(self.next.previous()));
        if self.hits.as_ref().is_none_or(|hits| hits.block() != block) {
            budget.spend_messages(BLOCK_COST);
            self.hits = sight.block(number, block)?;
        }
        let low = block_begin(block).max(self.low);
        while self.next > low && !budget.is_spent() {
            let hit = self.hits.as_ref().and_then(|hits| hits.newest(self.next.previous()));
            let Some(seq) = hit.filter(|seq| *seq >= low) else {
                self.next = low;
                break;
            };
            self.next = seq;
            budget.spend_messages(MATCH_COST);
            if let Some(message) = self.read(finding, seq)? {
                self.waiting.push_back(message);
                return Ok(());
            }
        }
        if self.next <= low {
            self.hits = None;
        }
        // Other conversations may have something newer than what is left here.
        if self.next > self.low
            && let key = keys::message(number, self.next.previous())
            && let Some(bytes) = view.get(Space::Messages, &key)?
        {
            let head = decode_head(&key, &bytes).map_err(Trouble::at(Space::Messages, self.id.as_str()))?;
            self.at = self.at.min(head.created_at);
        }
        Ok(())
    }

    /// The message, when the log agrees that it is to be found.
    fn read(&self, finding: &Finding<'_>, seq: Seq) -> Result<Option<SharedMessage>, Trouble> {
        let (view, number) = (finding.view, self.row.number);
        let key = keys::message(number, seq);
        let Some(bytes) = view.get(Space::Messages, &key)? else { return Ok(None) };
        let message = view.decode(&key, &bytes, &self.id, seq)?;
        let seen = message.recalled_by().is_none() && finding.is_before(&message) && finding.query.matches(&message);
        if !seen || view.get(Space::Hidden, &keys::hidden(finding.wanted.user, number, seq))?.is_some() {
            return Ok(None);
        }
        Ok(Some(message))
    }

    fn order(&self) -> (Millis, &str, Seq) {
        (self.at, self.id.as_str(), self.below)
    }
}

impl PartialEq for Strand {
    fn eq(&self, other: &Strand) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Strand {}

impl PartialOrd for Strand {
    fn partial_cmp(&self, other: &Strand) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Strand {
    fn cmp(&self, other: &Strand) -> Ordering {
        self.order().cmp(&other.order())
    }
}

/// In a cursor: by time alone, for a conversation that the page had not come to.
const ANY_SEQ: Seq = Seq(u64::MAX);
const PIECE_MIN: usize = 4;
const PIECE_MAX: usize = 256;
/// Conversations whose block of the index stays at hand; of others it is looked up again when it is their turn.
const HELD_BLOCKS_MAX: usize = 256;
/// What finding the place in a log, looking into a block of the index, and reading one message count for, in messages that are
/// looked through.
const OPEN_COST: usize = 8;
const BLOCK_COST: usize = 8;
const MATCH_COST: usize = 4;
