//! Owns one conversation's log in memory. Never gives a `seq` twice, also when everything has been pruned. Lives with its
//! backend.

use std::collections::VecDeque;

use crate::types::record::SharedMessage;
use crate::types::storage::{RangePage, RangeQuery};
use crate::types::{Millis, Seq};

/// A log: messages under `seq` without gaps, from `first_kept` to `head`.
#[derive(Debug)]
pub struct Log {
    messages: VecDeque<SharedMessage>,
    first_kept: Seq,
    /// Some message is older than the one before it (the wall clock stepped back): time bounds must look at every message.
    unordered: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log { messages: VecDeque::new(), first_kept: Seq(1), unordered: false }
    }
}

impl Log {
    /// Last `seq` ever given.
    pub fn head(&self) -> Seq {
        Seq(self.first_kept.0 + self.messages.len() as u64 - 1)
    }

    /// Takes the message under [`Log::head`]`.next()`, which it carries already.
    pub fn push(&mut self, message: SharedMessage) {
        debug_assert_eq!(message.seq, self.head().next(), "a log has no gaps");
        self.unordered |= self.messages.back().is_some_and(|last| last.created_at > message.created_at);
        self.messages.push_back(message);
    }

    /// The newest message that is kept.
    pub fn last(&self) -> Option<&SharedMessage> {
        self.messages.back()
    }

    /// The last `seq` before all messages from `since` on.
    pub fn before(&self, since: Millis) -> Seq {
        let older = |message: &SharedMessage| message.created_at < since;
        let count = match self.unordered {
            true => self.messages.iter().take_while(|message| older(message)).count(),
            false => self.messages.partition_point(older),
        };
        Seq(self.first_kept.0 + count as u64 - 1)
    }

    /// The kept messages after `seq`.
    pub fn after(&self, seq: Seq) -> impl Iterator<Item = &SharedMessage> {
        self.messages.range(self.offset(seq.next())..)
    }

    pub fn message(&self, seq: Seq) -> Option<&SharedMessage> {
        self.messages.get(self.index(seq)?)
    }

    /// Puts another message in the place of one that is kept.
    pub fn replace(&mut self, message: SharedMessage) {
        if let Some(index) = self.index(message.seq) {
            self.messages[index] = message;
        }
    }

    /// Takes the oldest message out when it is older than `before`.
    pub fn prune_one(&mut self, before: Millis) -> Option<SharedMessage> {
        let message = self.messages.pop_front_if(|message| message.created_at < before)?;
        self.first_kept = message.seq.next();
        Some(message)
    }

    /// A page of it, without those that `hidden` names.
    pub fn page(&self, query: &RangeQuery, hidden: impl Fn(Seq) -> bool) -> RangePage {
        let mut page = RangePage { messages: Vec::new(), has_more: false, covered: NOTHING, first_kept: self.first_kept };
        let Some((low, high)) = self.bounds(query) else {
            return page;
        };
        let mut weight_bytes = 0;
        let mut take = |message: &SharedMessage| {
            if hidden(message.seq) || !within(query, message) {
                return true;
            }
            let full = page.messages.len() as u32 >= query.limit.max(1) || weight_bytes >= query.bytes_max.max(1);
            page.has_more = full;
            if !full {
                weight_bytes += message.weight_bytes();
                page.messages.push(message.clone());
            }
            !full
        };
        let kept = self.messages.range(self.offset(low)..self.offset(high.next()));
        if query.newest {
            kept.rev().all(&mut take)
        } else {
            { kept }.all(&mut take)
        };
        let end = page.messages.last().map(|message| message.seq);
        page.covered = match end.filter(|_| page.has_more) {
            None => (low, high),
            Some(end) if query.newest => (end, high),
            Some(end) => (low, end),
        };
        if query.newest {
            page.messages.reverse();
        }
        page
    }

    /// First and last `seq` within all bounds, whether kept or pruned; None when there is nothing. Time bounds narrow to
    /// what is kept.
    fn bounds(&self, query: &RangeQuery) -> Option<(Seq, Seq)> {
        let low = query.after.map_or(Seq(1), |after| Seq(after.0.saturating_add(1)));
        let high = query.before.map_or(self.head(), |before| before.previous().min(self.head()));
        if low > high {
            return None;
        }
        if query.since.is_none() && query.until.is_none() {
            return Some((low, high));
        }
        let (from, to) = (self.offset(low), self.offset(high.next()));
        let (from, to) = if self.unordered {
            let mut all = self.messages.range(from..to);
            let first = from + all.position(|message| within(query, message))?;
            let last =
                first + 1 + self.messages.range(first + 1..to).rposition(|message| within(query, message)).map_or(0, |at| at + 1);
            (first, last)
        } else {
            let since = query.since.map_or(0, |since| self.messages.partition_point(|message| message.created_at < since));
            let until = query.until.map_or(to, |until| self.messages.partition_point(|message| message.created_at < until));
            (from.max(since), to.min(until))
        };
        (from < to).then(|| (Seq(self.first_kept.0 + from as u64), Seq(self.first_kept.0 + to as u64 - 1)))
    }

    fn index(&self, seq: Seq) -> Option<usize> {
        seq.0.checked_sub(self.first_kept.0).map(|index| index as usize).filter(|index| *index < self.messages.len())
    }

    /// Where `seq` is or would be among the kept messages.
    fn offset(&self, seq: Seq) -> usize {
        (seq.0.saturating_sub(self.first_kept.0) as usize).min(self.messages.len())
    }
}

fn within(query: &RangeQuery, message: &SharedMessage) -> bool {
    query.since.is_none_or(|since| message.created_at >= since) && query.until.is_none_or(|until| message.created_at < until)
}

/// [`RangePage::covered`] when nothing was looked at.
pub const NOTHING: (Seq, Seq) = (Seq(1), Seq(0));
