//! Owns retention: a bounded piece of work whenever it is asked for. Hidden marks of messages that are gone stay; they are few
//! and harm nobody. Lives on the writer's thread.

use std::sync::PoisonError;

use fjall::Slice;

use super::EmbeddedBackend;
use super::codec::{ConversationRecord, decode_conversation_id, decode_head, decode_outline};
use super::draft::Draft;
use super::keys;
use super::tables::{Look, Space, Trouble};
use crate::types::{ConversationId, Millis};

impl EmbeddedBackend {
    /// Puts the removal of up to `messages_max` messages older than `before` into the ledger, from where it stopped the last
    /// time.
    pub(super) fn draft_prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, Trouble> {
        let tables = self.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tables) = &*tables else { return Ok(0) };
        let mut pruned = 0;
        for _ in 0..CONVERSATIONS_AT_ONCE {
            let from = keys::number(self.prune_at);
            let Some(guard) = tables.range(Space::Numbers, from, keys::after_prefix(&keys::numbers())).next() else {
                self.prune_at = 0;
                break;
            };
            let (key, bytes) = guard.into_inner()?;
            let number = keys::seq_of(&key).map_or(self.prune_at, |number| number.0);
            // Also when this one fails: the others are to have their turn.
            self.prune_at = number + 1;
            let id = decode_conversation_id(&key, &bytes).map_err(Trouble::at(Space::Numbers, number.to_string()))?;
            pruned += self.ledger.draft(tables).prune(&id, before, messages_max - pruned)?;
            if pruned >= messages_max {
                self.prune_at = number;
                break;
            }
        }
        Ok(pruned)
    }
}

impl Draft<'_> {
    fn prune(&mut self, id: &ConversationId, before: Millis, messages_max: usize) -> Result<usize, Trouble> {
        let Some(record) = self.conversation_record(id)? else { return Ok(0) };
        let mut kept = record.first_kept;
        let mut pruned = 0;
        for guard in self.log(record.number, record.first_kept, crate::types::Seq(u64::MAX)).take(messages_max) {
            let (key, bytes) = guard.into_inner()?;
            let seq = keys::seq_of(&key).unwrap_or_default();
            let place = || Trouble::at(Space::Messages, format!("{id} seq {}", seq.0));
            if decode_head(&key, &bytes).map_err(place())?.created_at >= before {
                break;
            }
            let message = decode_outline(&key, &bytes, id, seq).map_err(place())?;
            self.delete(Space::Messages, Slice::from(&key[..]));
            self.delete(Space::Ids, keys::message_id(message.id));
            kept = seq.next();
            pruned += 1;
        }
        if pruned > 0 {
            let key = keys::conversation(id);
            let value = ConversationRecord { first_kept: kept, ..record }.encode(&key);
            self.put(Space::Conversations, key, value);
            self.ledger.forget(id);
        }
        Ok(pruned)
    }
}

const CONVERSATIONS_AT_ONCE: usize = 64;
