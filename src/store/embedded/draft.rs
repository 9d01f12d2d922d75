//! Owns a batch while it is made: what it will write, seen by its own later writes, and how to take one write back. Lives on the
//! writer's thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use fjall::{Iter, Slice};

use super::backlog::{Backlog, Rows, Stretch};
use super::cache::Recent;
use super::codec::{ConversationRecord, Damaged, RowRecord, decode_head};
use super::keyring::Keyring;
use super::keys;
use super::search::LogChange;
use super::tables::{Look, Space, Tables, Trouble};
use crate::types::record::Message;
use crate::types::{ConversationId, Millis, Seq, UserId};

/// A conversation as the writer knows it.
#[derive(Clone, Copy, Debug)]
pub struct Conversation {
    pub record: ConversationRecord,
    pub head: Seq,
    /// The newest time of its messages.
    pub newest: Millis,
}

/// What the writer keeps between batches.
#[derive(Debug)]
pub struct Ledger {
    /// What earlier batches have written and the tables lack.
    backlog: Arc<Backlog>,
    conversations: Recent<ConversationId, Conversation>,
    /// None: known not to exist.
    rows: Recent<Slice, Option<RowRecord>>,
    pending: Rows,
    /// Where logs end once this batch is committed.
    heads: Vec<(u64, Seq)>,
    undo: Vec<Undo>,
    /// What the batch does to logs, and how much of it before the write in the making.
    changes: Vec<LogChange>,
    changes_begun: usize,
    /// The number of the next new conversation.
    next_number: u64,
    /// Of the hashes that name first uses.
    pub seed: u64,
}

#[derive(Debug)]
enum Undo {
    Pending(Space, Slice, Option<Option<Slice>>),
    Conversation(ConversationId, Option<Conversation>),
    Row(Slice, Option<Option<RowRecord>>),
    Head,
}

impl Ledger {
    /// What `tables` hold, which is everything.
    pub fn load(tables: &Tables, backlog: &Arc<Backlog>, seed: u64) -> Result<Ledger, Trouble> {
        let last = tables.last_number()?;
        // A repair may leave messages whose conversation nobody knows: nobody else may get their number.
        let last = match tables.range(Space::Messages, keys::message(last, Seq(0)), None).next_back() {
            Some(guard) => keys::place_of(&guard.key()?).map_or(last, |(number, _)| number.max(last)),
            None => last,
        };
        Ok(Ledger {
            backlog: backlog.clone(),
            conversations: Recent::new(CONVERSATIONS_MAX),
            rows: Recent::new(ROWS_MAX),
            pending: Default::default(),
            heads: Vec::new(),
            undo: Vec::new(),
            changes: Vec::new(),
            changes_begun: 0,
            next_number: last + 1,
            seed,
        })
    }

    pub fn draft<'a>(&'a mut self, tables: &'a Tables) -> Draft<'a> {
        self.undo.clear();
        self.changes_begun = self.changes.len();
        Draft { tables, ledger: self }
    }

    /// Takes back what was done since the last [`draft`](Ledger::draft).
    pub fn take_back(&mut self) {
        self.changes.truncate(self.changes_begun);
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Pending(space, key, Some(value)) => {
                    self.pending[space as usize].insert(key, value);
                }
                Undo::Pending(space, key, None) => {
                    self.pending[space as usize].remove(&key);
                }
                Undo::Conversation(id, Some(conversation)) => {
                    self.conversations.put(&id, conversation);
                }
                Undo::Conversation(id, None) => self.conversations.remove(&id),
                Undo::Row(key, Some(row)) => {
                    self.rows.put(&key, row);
                }
                Undo::Row(key, None) => self.rows.remove(&key),
                Undo::Head => {
                    self.heads.pop();
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.iter().all(BTreeMap::is_empty)
    }

    /// Everything that the batch writes.
    pub fn records(&self) -> impl Iterator<Item = (Space, &Slice, Option<&Slice>)> {
        let of = |space: Space| self.pending[space as usize].iter().map(move |(key, value)| (space, key, value.as_ref()));
        Space::ALL.into_iter().flat_map(of)
    }

    /// What the batch does to logs.
    pub fn changes(&mut self) -> &mut Vec<LogChange> {
        &mut self.changes
    }

    /// Takes the batch out, which is the commit of this number.
    pub fn pour(&mut self, number: u64) -> Stretch {
        self.conversations.trim();
        self.rows.trim();
        let weight = |(key, value): (&Slice, &Option<Slice>)| key.len() + value.as_ref().map_or(0, |value| value.len());
        let bytes = self.pending.iter().flatten().map(weight).sum();
        let changes = std::mem::take(&mut self.changes);
        Stretch {
            number,
            rows: std::mem::take(&mut self.pending),
            heads: std::mem::take(&mut self.heads),
            changes: if changes.is_empty() { Vec::new() } else { vec![(number, changes)] },
            bytes,
        }
    }

    /// Retention has moved the beginning of a log.
    pub fn forget(&mut self, id: &ConversationId) {
        self.conversations.remove(id);
    }
}

/// One write in the making.
pub struct Draft<'a> {
    tables: &'a Tables,
    pub ledger: &'a mut Ledger,
}

impl Draft<'_> {
    pub fn put(&mut self, space: Space, key: Slice, value: Vec<u8>) {
        self.set(space, key, Some(Slice::from(value)));
    }

    pub fn delete(&mut self, space: Space, key: Slice) {
        self.set(space, key, None);
    }

    fn set(&mut self, space: Space, key: Slice, value: Option<Slice>) {
        let before = self.ledger.pending[space as usize].insert(key.clone(), value);
        self.ledger.undo.push(Undo::Pending(space, key, before));
    }

    /// Everything from `from` to before `to`, this batch's own writes and those that the tables lack included.
    pub fn stretch(&self, space: Space, from: Slice, to: Option<Slice>) -> Result<BTreeMap<Slice, Slice>, Trouble> {
        // Before the tables are asked: what leaves the backlog meanwhile is there.
        let mut newer = self.ledger.backlog.range(space, &from, to.as_ref());
        let pending = self.ledger.pending[space as usize].range::<Slice, _>(&from..);
        let pending = pending.take_while(|(key, _)| to.as_ref().is_none_or(|to| *key < to));
        newer.extend(pending.map(|(key, value)| (key.clone(), value.clone())));
        let mut found = BTreeMap::new();
        for guard in self.range(space, from, to) {
            let (key, value) = guard.into_inner()?;
            found.insert(key, value);
        }
        for (key, value) in newer {
            match value {
                Some(value) => found.insert(key, value),
                None => found.remove(&key),
            };
        }
        Ok(found)
    }

    /// The same under a prefix.
    pub fn listed(&self, space: Space, prefix: Slice) -> Result<BTreeMap<Slice, Slice>, Trouble> {
        let end = keys::after_prefix(&prefix);
        self.stretch(space, prefix, end)
    }

    /// The conversation, when there is one. `head` is where its owner believes the log to end.
    pub fn conversation(&mut self, id: &ConversationId, head: Option<Seq>) -> Result<Option<Conversation>, Trouble> {
        if let Some(known) = self.ledger.conversations.get(id) {
            return Ok(Some(*known));
        }
        let Some(record) = self.conversation_record(id)? else { return Ok(None) };
        let (head, newest) = self.end(&record, head, id)?;
        let conversation = Conversation { record, head, newest: newest.max(record.newest) };
        self.ledger.conversations.put(id, conversation);
        Ok(Some(conversation))
    }

    /// The end of a log and its time. What the owner believes is checked: two look-ups are less than a search for the end.
    fn end(&self, record: &ConversationRecord, head: Option<Seq>, id: &ConversationId) -> Result<(Seq, Millis), Trouble> {
        let time = |key: &[u8], bytes: &[u8]| {
            decode_head(key, bytes).map(|head| head.created_at).map_err(Trouble::at(Space::Messages, id.as_str()))
        };
        if let Some(head) = head.filter(|head| *head > Seq::NONE) {
            let key = keys::message(record.number, head);
            let found = self.get(Space::Messages, &key)?;
            if let Some(bytes) = found
                && self.get(Space::Messages, &keys::message(record.number, head.next()))?.is_none()
            {
                return Ok((head, time(&key, &bytes)?));
            }
        }
        match self.newest_message(record.number)? {
            Some((seq, key, bytes)) => Ok((seq, time(&key, &bytes)?)),
            None => Ok((record.first_kept.previous(), Millis(0))),
        }
    }

    /// The newest message of a log that this batch has not touched.
    fn newest_message(&self, number: u64) -> Result<Option<(Seq, Slice, Slice)>, Trouble> {
        let (first, end) = (keys::message(number, Seq(0)), keys::message(number + 1, Seq(0)));
        let newer = self.ledger.backlog.range(Space::Messages, &first, Some(&end));
        if let Some((key, Some(bytes))) = newer.last_key_value() {
            let seq = keys::seq_of(key).ok_or(Damaged).map_err(Trouble::at(Space::Messages, number.to_string()))?;
            return Ok(Some((seq, key.clone(), bytes.clone())));
        }
        let newest = self.tables.last_message(number)?;
        match &newest {
            // Retention has taken it meanwhile, and the tables do not know yet: then everything before it is gone as well.
            Some((_, key, _)) if newer.get(key) == Some(&None) => Ok(None),
            _ => Ok(newest),
        }
    }

    /// The conversation, made when there is none.
    pub fn conversation_or_new(&mut self, id: &ConversationId, head: Option<Seq>) -> Result<Conversation, Trouble> {
        if let Some(known) = self.conversation(id, head)? {
            return Ok(known);
        }
        let number = self.ledger.next_number;
        self.ledger.next_number += 1;
        let record = ConversationRecord { number, first_kept: Seq(1), slack_ms: 0, newest: Millis(0) };
        let key = keys::number(number);
        let value = super::codec::encode_conversation_id(id, &key);
        self.put(Space::Numbers, key, value);
        self.put_record(id, &record);
        let conversation = Conversation { record, head: Seq::NONE, newest: Millis(0) };
        self.set_conversation(id, conversation);
        Ok(conversation)
    }

    /// Puts a message with its `seq` at the end of its log.
    pub fn push(&mut self, mut conversation: Conversation, message: &Message) {
        let key = keys::message(conversation.record.number, message.seq);
        let value = super::codec::encode_message(message, &key, self.tables.keyring());
        self.put(Space::Messages, key, value);
        self.changed(LogChange::appended(conversation.record.number, message.seq));
        conversation.head = message.seq;
        self.ledger.heads.push((conversation.record.number, message.seq));
        self.ledger.undo.push(Undo::Head);
        if message.created_at < conversation.newest {
            let record = &mut conversation.record;
            record.slack_ms = record.slack_ms.max(conversation.newest.0 - message.created_at.0);
            record.newest = conversation.newest;
            let record = *record;
            self.put_record(&message.conversation, &record);
        }
        conversation.newest = conversation.newest.max(message.created_at);
        self.set_conversation(&message.conversation, conversation);
    }

    /// Notes what the write does to a log.
    pub fn changed(&mut self, change: LogChange) {
        self.ledger.changes.push(change);
    }

    fn put_record(&mut self, id: &ConversationId, record: &ConversationRecord) {
        let key = keys::conversation(id);
        let value = record.encode(&key);
        self.put(Space::Conversations, key, value);
    }

    fn set_conversation(&mut self, id: &ConversationId, conversation: Conversation) {
        let before = self.ledger.conversations.put(id, conversation);
        self.ledger.undo.push(Undo::Conversation(id.clone(), before));
    }

    /// A user's row; None when there is none.
    pub fn row(&mut self, user: &UserId, conversation: &ConversationId) -> Result<Option<RowRecord>, Trouble> {
        let key = keys::row(user, conversation);
        if let Some(known) = self.ledger.rows.get(&key) {
            return Ok(known.clone());
        }
        let row = match self.get(Space::Rows, &key)? {
            Some(bytes) => {
                Some(RowRecord::decode(&key, &bytes).map_err(Trouble::at(Space::Rows, format!("{user} in {conversation}")))?)
            }
            None => None,
        };
        self.ledger.rows.put(&key, row.clone());
        Ok(row)
    }

    /// Writes a row, or deletes it.
    pub fn set_row(&mut self, user: &UserId, conversation: &ConversationId, row: Option<RowRecord>) {
        let key = keys::row(user, conversation);
        match &row {
            Some(row) => self.put(Space::Rows, key.clone(), row.encode(&key)),
            None => self.delete(Space::Rows, key.clone()),
        }
        let before = self.ledger.rows.put(&key, row);
        self.ledger.undo.push(Undo::Row(key, before));
    }
}

/// Look-ups see this batch and what the tables lack; ranges see the tables alone.
impl Look for Draft<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, Trouble> {
        let newer = self.ledger.pending[space as usize].get(key).cloned().or_else(|| self.ledger.backlog.get(space, key));
        match newer {
            Some(value) => Ok(value),
            None => self.tables.get(space, key),
        }
    }

    fn range(&self, space: Space, from: Slice, to: Option<Slice>) -> Iter {
        self.tables.range(space, from, to)
    }

    fn keyring(&self) -> &Keyring {
        self.tables.keyring()
    }
}

const CONVERSATIONS_MAX: usize = 32_768;
const ROWS_MAX: usize = 32_768;
