//! Owns what each write does to the tables. Never commits. Lives on the writer's thread.

use std::sync::Arc;

use fjall::Slice;

use super::codec::{self, FirstUse, GroupRecord, RowRecord, device_hash};
use super::draft::Draft;
use super::keys;
use super::search::LogChange;
use super::tables::{Look, Space, Trouble};
use crate::types::record::{Delivery, Member};
use crate::types::storage::{Answer, Append, GroupChange, Write};
use crate::types::{ConversationId, ConversationKind, GroupId, Seq, UserId};

impl Draft<'_> {
    pub fn write(&mut self, write: Write) -> Result<Answer, Trouble> {
        match write {
            Write::Append(append) => return self.append(*append),
            Write::Group(change) => self.change_group(*change)?,
            Write::Device { user, device, at, deliveries } => {
                let key = keys::device(&user, &device);
                let value = codec::encode_numbers([at.0], &key);
                self.put(Space::Devices, key, value);
                self.know(&user)?;
                self.deliver_all(&deliveries)?;
            }
            Write::Deliveries(deliveries) => self.deliver_all(&deliveries)?,
            Write::MarkRead { user, conversation, seq } => return self.mark_read(&user, &conversation, seq),
            Write::Recall { conversation, seq, by } => self.recall(&conversation, seq, &by)?,
            Write::Hide { user, conversation, seq } => self.hide(&user, &conversation, seq)?,
            Write::LastSeen { user, at } => {
                let key = keys::last_seen(&user);
                let value = codec::encode_numbers([at.0], &key);
                self.put(Space::LastSeen, key, value);
                self.know(&user)?;
            }
            Write::Know(users) => users.iter().try_for_each(|user| self.know(user))?,
            Write::Note { name, text } => {
                let key = keys::note(name.kind, &name.id);
                match text {
                    Some(text) => {
                        let value = codec::encode_text(&text, &key);
                        self.put(Space::Notes, key, value);
                    }
                    None => self.delete(Space::Notes, key),
                }
            }
        }
        Ok(Answer::Done)
    }

    /// Lists a user who is new.
    fn know(&mut self, user: &UserId) -> Result<(), Trouble> {
        let key = keys::user(user);
        if self.get(Space::Users, &key)?.is_none() {
            self.put(Space::Users, key, Vec::new());
        }
        Ok(())
    }

    fn append(&mut self, append: Append) -> Result<Answer, Trouble> {
        let Append { mut message, head, dedupe_since, repeat_only } = append;
        let first_use = keys::first_use(&message, self.ledger.seed);
        if let Some(key) = &first_use
            && let Some(bytes) = self.get(Space::FirstUses, key)?
        {
            let first = FirstUse::decode(key, &bytes).map_err(Trouble::at(Space::FirstUses, message.conversation.as_str()))?;
            if first.created_at >= dedupe_since {
                let FirstUse { number, seq, message_id, created_at } = first;
                return Ok(Answer::Duplicate { message_id, conversation: self.conversation_id(number)?, seq, created_at });
            }
        }
        if repeat_only {
            return Ok(Answer::Done);
        }
        let conversation = self.conversation_or_new(&message.conversation, head)?;
        message.seq = conversation.head.next();
        let number = conversation.record.number;
        self.push(conversation, &message);
        let key = keys::message_id(message.id);
        let value = codec::encode_numbers([number, message.seq.0], &key);
        self.put(Space::Ids, key, value);
        if let Some(key) = first_use {
            let first = FirstUse { number, seq: message.seq, message_id: message.id, created_at: message.created_at };
            let value = first.encode(&key);
            self.put(Space::FirstUses, key, value);
        }
        if message.seq == Seq(1) {
            self.make_rows(number, &message.conversation)?;
        }
        Ok(Answer::Appended(Arc::new(message)))
    }

    /// Rows of the first message's readers; those of a group come with its members.
    fn make_rows(&mut self, number: u64, conversation: &ConversationId) -> Result<(), Trouble> {
        match conversation.kind() {
            ConversationKind::Private(one, other) => {
                self.make_row(&one, conversation, number, Seq::NONE)?;
                self.make_row(&other, conversation, number, Seq::NONE)
            }
            ConversationKind::System(user) => self.make_row(&user, conversation, number, Seq::NONE),
            ConversationKind::Group(_) => Ok(()),
        }
    }

    /// Makes the row; one that exists keeps what was read and delivered and begins at `start_seq` from now on.
    fn make_row(&mut self, user: &UserId, conversation: &ConversationId, number: u64, start_seq: Seq) -> Result<(), Trouble> {
        let row = match self.row(user, conversation)? {
            Some(row) => RowRecord { start_seq, ..row },
            None => {
                self.know(user)?;
                RowRecord { number, start_seq, read_seq: start_seq, delivered: Default::default() }
            }
        };
        self.set_row(user, conversation, Some(row));
        Ok(())
    }

    fn change_group(&mut self, change: GroupChange) -> Result<(), Trouble> {
        let id = ConversationId::group(&change.group);
        if change.delete {
            return self.delete_group(&change.group, &id);
        }
        let key = keys::group(&change.group);
        let place = || Trouble::at(Space::Groups, change.group.as_str());
        let known = match self.get(Space::Groups, &key)? {
            Some(bytes) => Some(GroupRecord::decode(&key, &bytes).map_err(place())?),
            None => None,
        };
        let joins = known.as_ref().map_or(0, |known| known.joins);
        let Some(group) = change.record.or(known.map(|known| known.group)) else { return Ok(()) };
        let mut record = GroupRecord { group, joins };
        for user in &change.members_removed {
            let order_key = keys::member_order(&change.group, user);
            if let Some(order) = self.member_order(&order_key, &change.group)? {
                self.delete(Space::Groups, order_key);
                self.delete(Space::Groups, keys::member(&change.group, order));
                self.set_row(user, &id, None);
            }
        }
        if !change.members_put.is_empty() {
            let number = self.conversation_or_new(&id, None)?.record.number;
            for member in &change.members_put {
                self.put_member(&mut record, member)?;
                self.make_row(&member.user, &id, number, member.joined_seq)?;
            }
        }
        let value = record.encode(&key);
        self.put(Space::Groups, key, value);
        Ok(())
    }

    /// Inserts a member at the end, or replaces one in their place.
    fn put_member(&mut self, record: &mut GroupRecord, member: &Member) -> Result<(), Trouble> {
        let group = record.group.id.clone();
        let order_key = keys::member_order(&group, &member.user);
        let order = match self.member_order(&order_key, &group)? {
            Some(order) => order,
            None => {
                record.joins += 1;
                let value = codec::encode_numbers([record.joins], &order_key);
                self.put(Space::Groups, order_key, value);
                record.joins
            }
        };
        let key = keys::member(&group, order);
        let value = codec::encode_member(member, &key);
        self.put(Space::Groups, key, value);
        Ok(())
    }

    fn member_order(&self, key: &Slice, group: &GroupId) -> Result<Option<u64>, Trouble> {
        let Some(bytes) = self.get(Space::Groups, key)? else { return Ok(None) };
        let [order] = codec::decode_numbers(key, &bytes).map_err(Trouble::at(Space::Groups, group.as_str()))?;
        Ok(Some(order))
    }

    fn delete_group(&mut self, group: &GroupId, id: &ConversationId) -> Result<(), Trouble> {
        for (key, bytes) in self.listed(Space::Groups, keys::members(group))? {
            let member = codec::decode_member(&key, &bytes).map_err(Trouble::at(Space::Groups, group.as_str()))?;
            self.set_row(&member.user, id, None);
            self.delete(Space::Groups, keys::member_order(group, &member.user));
            self.delete(Space::Groups, key);
        }
        self.delete(Space::Groups, keys::group(group));
        Ok(())
    }

    fn deliver_all(&mut self, deliveries: &[Delivery]) -> Result<(), Trouble> {
        deliveries.iter().try_for_each(|delivery| self.deliver(delivery))
    }

    /// Moves what a device has had forward, where there is a row.
    fn deliver(&mut self, delivery: &Delivery) -> Result<(), Trouble> {
        let Delivery { user, device, conversation, seq } = delivery;
        let Some(known) = self.conversation(conversation, None)? else { return Ok(()) };
        let Some(mut row) = self.row(user, conversation)? else { return Ok(()) };
        let (seq, device) = ((*seq).min(known.head), device_hash(device.as_str()));
        match row.delivered.iter_mut().find(|(known, _)| *known == device) {
            Some((_, delivered)) if *delivered >= seq => return Ok(()),
            Some((_, delivered)) => *delivered = seq,
            None => {
                if row.delivered.len() >= DEVICES_PER_ROW_MAX {
                    // The one that is furthest behind counts as new when it comes back.
                    let behind = row.delivered.iter().enumerate().min_by_key(|(_, (_, seq))| *seq).map(|(place, _)| place);
                    behind.into_iter().for_each(|place| {
                        row.delivered.swap_remove(place);
                    });
                }
                row.delivered.push((device, seq));
            }
        }
        self.set_row(user, conversation, Some(row));
        Ok(())
    }

    fn mark_read(&mut self, user: &UserId, conversation: &ConversationId, seq: Seq) -> Result<Answer, Trouble> {
        let nothing = Answer::ReadAt { seq: Seq::NONE, moved: false, senders: Vec::new() };
        let Some(known) = self.conversation(conversation, None)? else { return Ok(nothing) };
        let Some(mut row) = self.row(user, conversation)? else { return Ok(nothing) };
        let (before, seq) = (row.read_seq, seq.min(known.head));
        if seq <= before {
            return Ok(Answer::ReadAt { seq: before, moved: false, senders: Vec::new() });
        }
        row.read_seq = seq;
        let senders = self.senders(known.record.number, before, seq, conversation)?;
        self.set_row(user, conversation, Some(row));
        Ok(Answer::ReadAt { seq, moved: true, senders })
    }

    /// Up to [`SENDERS_MAX`] distinct senders of what has become read.
    fn senders(&self, number: u64, from: Seq, to: Seq, id: &ConversationId) -> Result<Vec<UserId>, Trouble> {
        let mut senders: Vec<UserId> = Vec::new();
        let mut look = |key: &Slice, bytes: &Slice| -> Result<(), Trouble> {
            let head = codec::decode_head(key, bytes).map_err(Trouble::at(Space::Messages, id.as_str()))?;
            if let Some(sender) = head.sender
                && senders.len() < SENDERS_MAX
                && !senders.iter().any(|known| known.as_str() == sender)
            {
                senders.extend(UserId::new(sender));
            }
            Ok(())
        };
        let to = to.min(Seq(from.0.saturating_add(SENDERS_LOOKED_AT_MAX)));
        if to.0 - from.0 <= LOOK_UPS_MAX {
            for seq in from.0 + 1..=to.0 {
                let key = keys::message(number, Seq(seq));
                if let Some(bytes) = self.get(Space::Messages, &key)? {
                    look(&key, &bytes)?;
                }
            }
        } else {
            let (first, end) = (keys::message(number, from.next()), keys::message(number, to.next()));
            for (key, bytes) in &self.stretch(Space::Messages, first, Some(end))? {
                look(key, bytes)?;
            }
        }
        Ok(senders)
    }

    fn recall(&mut self, id: &ConversationId, seq: Seq, by: &UserId) -> Result<(), Trouble> {
        let Some(known) = self.conversation(id, None)? else { return Ok(()) };
        let key = keys::message(known.record.number, seq);
        let Some(bytes) = self.get(Space::Messages, &key)? else { return Ok(()) };
        let place = Trouble::at(Space::Messages, format!("{id} seq {}", seq.0));
        // Nothing of the body stays, so no key is needed.
        let message = codec::decode_outline(&key, &bytes, id, seq).map_err(place)?;
        if message.recalled_by().is_none() {
            let value = codec::encode_message(&message.recalled(by), &key, self.keyring());
            self.put(Space::Messages, key, value);
            self.changed(LogChange::recalled(known.record.number, seq));
        }
        Ok(())
    }

    fn hide(&mut self, user: &UserId, id: &ConversationId, seq: Seq) -> Result<(), Trouble> {
        let Some(known) = self.conversation(id, None)? else { return Ok(()) };
        if self.get(Space::Messages, &keys::message(known.record.number, seq))?.is_some() {
            self.put(Space::Hidden, keys::hidden(user, known.record.number, seq), Vec::new());
        }
        Ok(())
    }
}

/// More devices than a user has; one more replaces the one that is furthest behind.
const DEVICES_PER_ROW_MAX: usize = 64;
const SENDERS_MAX: usize = 64;
const SENDERS_LOOKED_AT_MAX: u64 = 1_000;
/// Up to so many messages are looked up one by one.
const LOOK_UPS_MAX: u64 = 16;
