//! Owns what is checked of logs: every message of every conversation, without gaps, each found by its id and, as long as it
//! counts, by its client id. A message that cannot be read becomes a lost one: its `seq` stays, clients are told of the gap.

use std::collections::HashMap;

use fjall::Slice;

use super::super::codec::{self, ConversationRecord, FirstUse, RowRecord, Unreadable};
use super::super::keys;
use super::super::tables::{Look, Space, Trouble, View};
use super::check::{Check, Mend, NO_MEND};
use crate::types::record::Message;
use crate::types::{ConversationId, ConversationKind, Millis, Seq, UserId};

/// A log on the way through it.
struct Log {
    id: ConversationId,
    record: ConversationRecord,
    /// What the next message is to have.
    expected: Seq,
    newest: Millis,
    /// As [`ConversationRecord::slack_ms`] and `newest`, by what was seen.
    slack: (u64, Millis),
}

impl Check<'_> {
    /// All logs, in the order of their numbers.
    pub fn logs(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        let mut after = 0;
        for guard in view.prefix(Space::Numbers, keys::numbers()) {
            let (key, bytes) = guard.into_inner()?;
            let number = keys::seq_of(&key).map_or(0, |number| number.0);
            self.nobodys(view, after, Some(number))?;
            after = number + 1;
            let id = codec::decode_conversation_id(&key, &bytes);
            match self.named.get(&number).cloned().map_or(id, Ok) {
                Ok(id) => self.log(view, number, id)?,
                Err(_) if view.log(number, Seq(0), Seq(u64::MAX)).next().is_none() => {
                    let told =
                        format!("conversation number {number}: its id is damaged, and it has no messages (repair: removed)");
                    self.fault(told, &[(Space::Numbers, key, None)]);
                }
                Err(_) => self.nameless(view, number)?,
            }
            self.mend_some()?;
        }
        self.nobodys(view, after, None)
    }

    /// Messages from one number to before another that belong to no conversation.
    fn nobodys(&mut self, view: &View<'_>, from: u64, to: Option<u64>) -> Result<(), Trouble> {
        let end = to.map(|to| keys::message(to, Seq(0)));
        let mut seen = None;
        for guard in view.range(Space::Messages, keys::message(from, Seq(0)), end) {
            let (key, bytes) = guard.into_inner()?;
            let number = key.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            // What will be led back to is told already.
            if self.named.contains_key(&number) {
                continue;
            }
            if codec::decode_head(&key, &bytes).is_err() {
                self.fault(
                    "a damaged record lies where no message belongs (repair: removed)".to_owned(),
                    &[(Space::Messages, key, None)],
                );
            } else if seen.replace(number) != Some(number) {
                self.nameless(view, number)?;
            }
            self.mend_some()?;
        }
        Ok(())
    }

    /// Messages whose conversation is known by its users' rows at most.
    fn nameless(&mut self, view: &View<'_>, number: u64) -> Result<(), Trouble> {
        if self.rows_say.is_none() {
            let mut found = HashMap::new();
            for guard in view.range(Space::Rows, Slice::from(b""), None) {
                let (key, bytes) = guard.into_inner()?;
                if let (Some((_, id)), Ok(row)) = (keys::row_parts(&key), RowRecord::decode(&key, &bytes)) {
                    found.insert(row.number, id);
                }
            }
            self.rows_say = Some(found);
        }
        match self.rows_say.as_ref().and_then(|found| found.get(&number)).cloned() {
            Some(id) => {
                let key = keys::number(number);
                let value = codec::encode_conversation_id(&id, &key);
                let told = format!("messages under number {number}: of {id}, as a row of it says (repair: led back to)");
                self.fault(told, &[(Space::Numbers, key, Some(value))]);
                self.named.insert(number, id.clone());
                self.log(view, number, id)
            }
            None => {
                self.fault(format!("messages under number {number} belong to no conversation"), &NO_MEND);
                Ok(())
            }
        }
    }

    fn log(&mut self, view: &View<'_>, number: u64, id: ConversationId) -> Result<(), Trouble> {
        let key = keys::conversation(&id);
        let record = match view.get(Space::Conversations, &key)? {
            Some(bytes) => ConversationRecord::decode(&key, &bytes).ok(),
            None => None,
        };
        if record.is_some_and(|record| record.number != number) {
            let told = format!("conversation number {number}: {id} has another number (repair: this one is removed)");
            self.fault(told, &[(Space::Numbers, keys::number(number), None)]);
            return Ok(());
        }
        let first = match view.log(number, Seq(0), Seq(u64::MAX)).next() {
            Some(guard) => keys::seq_of(&guard.key()?),
            None => None,
        };
        let rebuilt = match record {
            Some(_) => None,
            None => {
                let first_kept = first.map_or_else(|| self.furthest(view, &id).map(Seq::next), Ok)?;
                Some(ConversationRecord { number, first_kept, slack_ms: 0, newest: Millis(0) })
            }
        };
        let record =
            record.or(rebuilt).unwrap_or(ConversationRecord { number, first_kept: Seq(1), slack_ms: 0, newest: Millis(0) });
        let (expected, newest) = (record.first_kept, Millis(0));
        let mut log = Log { id, record, expected, newest, slack: (0, Millis(0)) };
        for guard in view.log(number, Seq(0), Seq(u64::MAX)) {
            let (key, bytes) = guard.into_inner()?;
            self.report.counts.messages += 1;
            self.entry(view, &mut log, key, &bytes)?;
            self.mend_some()?;
        }
        self.lost_end(view, &mut log)?;
        if log.expected > Seq(1) {
            self.rows_of(view, &log.id)?;
        }
        self.end_of_log(log, rebuilt.is_some());
        Ok(())
    }

    /// Messages behind the end that somebody has had, or whose id is known: their `seq` must not be given again.
    fn lost_end(&mut self, view: &View<'_>, log: &mut Log) -> Result<(), Trouble> {
        let known = self.furthest.get(&log.record.number).copied().unwrap_or_default().max(self.furthest(view, &log.id)?);
        if known < log.expected {
            return Ok(());
        }
        let (from, told) = (log.expected, format!("{} seq {} to {}: its end is missing", log.id, log.expected.0, known.0));
        self.fill(log, from, known, &told, true)?;
        log.expected = known.next();
        Ok(())
    }

    /// Lost messages take the place of those that are missing. Of more than can be stood in for at the end of a log, the last one
    /// alone does: so the end stays known, and no `seq` is given again.
    fn fill(&mut self, log: &Log, from: Seq, to: Seq, told: &str, at_end: bool) -> Result<(), Trouble> {
        self.lost_of(&log.id, from, to);
        if to.0 - from.0 >= GAP_MAX {
            let last = [self.lost(log, to)];
            let (told, mends) = match at_end {
                true => {
                    (format!("{told}, too much of it to stand in for (repair: only the last becomes a lost message)"), &last[..])
                }
                false => (format!("{told}, too much to stand in for"), &NO_MEND[..]),
            };
            self.fault(told, mends);
            return Ok(());
        }
        let first = self.lost(log, from);
        self.fault(format!("{told} (repair: they become lost messages)"), &[first]);
        for seq in from.0 + 1..=to.0 {
            if !self.repair {
                break;
            }
            let mend = self.lost(log, Seq(seq));
            self.mend_also(mend);
            self.mend_some()?;
        }
        Ok(())
    }

    /// Those whom a conversation is named after have a row; members of groups are looked at with their group.
    fn rows_of(&mut self, view: &View<'_>, id: &ConversationId) -> Result<(), Trouble> {
        let users = match id.kind() {
            ConversationKind::Private(one, other) => vec![one, other],
            ConversationKind::System(user) => vec![user],
            ConversationKind::Group(_) => Vec::new(),
        };
        for user in users {
            if view.get(Space::Rows, &keys::row(&user, id))?.is_none() {
                let mends = self.new_row(view, &user, id, Seq::NONE);
                self.fault(format!("row of {user} in {id}: missing (repair: made, nothing read or delivered)"), &mends);
            }
        }
        Ok(())
    }

    /// One message in its place.
    fn entry(&mut self, view: &View<'_>, log: &mut Log, key: Slice, bytes: &[u8]) -> Result<(), Trouble> {
        let seq = keys::seq_of(&key).unwrap_or_default();
        if seq < log.expected {
            let told = format!("{} seq {}: lies before the log's beginning (repair: it is removed)", log.id, seq.0);
            self.fault(told, &[(Space::Messages, key, None)]);
            return Ok(());
        }
        if seq > log.expected {
            let (from, to) = (log.expected, seq.previous());
            let told = format!("{} seq {} to {}: missing", log.id, from.0, to.0);
            self.fill(log, from, to, &told, false)?;
        }
        log.expected = seq.next();
        match codec::decode_message(&key, bytes, &log.id, seq, view.keyring()) {
            Ok(message) if codec::is_lost(&message) => {}
            Ok(message) => self.message(view, log, &message)?,
            Err(Unreadable::NoKey(missing)) => {
                let told = format!("{} seq {}: sealed with key {}, which is not at hand", log.id, seq.0, missing.id);
                self.fault(told, &NO_MEND);
            }
            Err(Unreadable::Damaged) if codec::decode_outline(&key, bytes, &log.id, seq).is_ok() => {
                let told =
                    format!("{} seq {}: its seal is broken: the record was changed or moved by something else", log.id, seq.0);
                self.fault(told, &NO_MEND);
            }
            Err(Unreadable::Damaged) => {
                let mend = self.lost(log, seq);
                self.lost_of(&log.id, seq, seq);
                self.fault(format!("{} seq {}: damaged (repair: it becomes a lost message)", log.id, seq.0), &[mend]);
            }
        }
        Ok(())
    }

    /// A message that can be read: its time and its entries in the indexes.
    fn message(&mut self, view: &View<'_>, log: &mut Log, message: &Message) -> Result<(), Trouble> {
        let (number, seq, created_at) = (log.record.number, message.seq, message.created_at);
        if created_at < log.newest {
            log.slack = (log.slack.0.max(log.newest.0 - created_at.0), log.newest);
        }
        log.newest = log.newest.max(created_at);
        let key = keys::message_id(message.id);
        let place = match view.get(Space::Ids, &key)? {
            Some(bytes) => codec::decode_numbers(&key, &bytes).ok(),
            None => None,
        };
        if place != Some([number, seq.0]) {
            let value = codec::encode_numbers([number, seq.0], &key);
            let told = format!("{} seq {}: not found by its id {} (repair: it will be)", log.id, seq.0, message.id);
            self.fault(told, &[(Space::Ids, key, Some(value))]);
        }
        if let Some(key) = keys::first_use(message, self.bench.seed)
            && match view.get(Space::FirstUses, &key)? {
                Some(bytes) => FirstUse::decode(&key, &bytes).is_err(),
                None => self.bench.uses_lost,
            }
        {
            let first = FirstUse { number, seq, message_id: message.id, created_at };
            let value = first.encode(&key);
            if self.told_uses.insert(key.clone()) {
                let told = format!("{} seq {}: its record in the duplicate index is damaged (repair: rebuilt)", log.id, seq.0);
                self.fault(told, &[(Space::FirstUses, key, Some(value))]);
            }
        }
        Ok(())
    }

    /// The record of a log, against what was seen of it.
    fn end_of_log(&mut self, log: Log, rebuilt: bool) {
        let Log { id, record, slack: (slack_ms, newest), .. } = log;
        let key = keys::conversation(&id);
        let value = ConversationRecord { slack_ms: slack_ms.max(record.slack_ms), newest: newest.max(record.newest), ..record };
        let mend = [(Space::Conversations, key.clone(), Some(value.encode(&key)))];
        if rebuilt {
            self.fault(format!("conversation {id}: its record is damaged or missing (repair: rebuilt from its log)"), &mend);
        } else if slack_ms > record.slack_ms {
            self.fault(format!("conversation {id}: times step back further than its record says (repair: it will say)"), &mend);
        }
    }

    fn lost(&self, log: &Log, seq: Seq) -> Mend {
        let key = keys::message(log.record.number, seq);
        let message = codec::lost_message(&log.id, seq, log.newest);
        let value = codec::encode_message(&message, &key, self.bench.tables.keyring());
        (Space::Messages, key, Some(value))
    }

    /// The furthest `seq` that the conversation's users are known to have had: what an empty log ended with, at least.
    fn furthest(&self, view: &View<'_>, id: &ConversationId) -> Result<Seq, Trouble> {
        let users: Vec<UserId> = match id.kind() {
            ConversationKind::Private(one, other) => vec![one, other],
            ConversationKind::System(user) => vec![user],
            ConversationKind::Group(group) => self.members(view, &group)?.into_iter().map(|(_, member)| member.user).collect(),
        };
        let mut furthest = Seq::NONE;
        for user in users {
            if let Some(row) = self.row(view, &user, id)? {
                let delivered = row.delivered.iter().map(|(_, seq)| *seq).max().unwrap_or_default();
                furthest = furthest.max(row.start_seq).max(row.read_seq).max(delivered);
            }
        }
        Ok(furthest)
    }
}

/// A gap of more messages is not filled: about a gigabyte.
const GAP_MAX: u64 = 10_000_000;
