//! Owns forgetting: messages past their retention with their places by id, first uses of client ids that no longer count, hidden
//! marks on messages that are gone. A bounded piece of work whenever it is asked for. Never moves the end of a log and never
//! commits. Lives on the writer's thread.

use std::time::{Duration, Instant};

use fjall::Slice;

use super::codec::{ConversationRecord, FirstUse, decode_conversation_id, decode_head, decode_outline};
use super::draft::{Draft, Ledger};
use super::keys;
use super::tables::{Look, Space, Tables, Trouble};
use crate::types::{ConversationId, Millis, Seq};

/// Where forgetting goes on.
#[derive(Debug, Default)]
pub struct Sweep {
    /// The number of the next conversation.
    conversation: u64,
    /// The earliest time that this round over all conversations was asked for, and whether it has passed one over.
    round: Option<Millis>,
    passed_over: bool,
    /// What the last whole round has left nothing older than.
    gone_before: Option<Millis>,
    first_use: Option<Slice>,
    hidden: Option<Slice>,
    /// When it was last told that a conversation cannot be pruned.
    told_at: Option<Instant>,
}

impl Sweep {
    /// No log holds anything older; what was never swept whole is not known.
    pub fn gone_before(&self) -> Option<Millis> {
        self.gone_before
    }

    /// Puts the removal of up to `messages_max` messages older than `before` into the ledger, from where it stopped the last
    /// time. A conversation with a damaged record is passed over, so that the others have their turn.
    pub fn messages(
        &mut self,
        ledger: &mut Ledger,
        tables: &Tables,
        before: Millis,
        messages_max: usize,
    ) -> Result<usize, Trouble> {
        let mut pruned = 0;
        self.round = Some(self.round.map_or(before, |earliest| earliest.min(before)));
        for _ in 0..CONVERSATIONS_AT_ONCE {
            let from = keys::number(self.conversation);
            let Some(guard) = tables.range(Space::Numbers, from, keys::after_prefix(&keys::numbers())).next() else {
                self.conversation = 0;
                let round = self.round.take();
                if !std::mem::take(&mut self.passed_over) {
                    self.gone_before = round;
                }
                break;
            };
            let (key, bytes) = guard.into_inner()?;
            let number = keys::seq_of(&key).map_or(self.conversation, |number| number.0);
            let mut draft = ledger.draft(tables);
            let done = decode_conversation_id(&key, &bytes)
                .map_err(Trouble::at(Space::Numbers, number.to_string()))
                .and_then(|id| draft.prune(&id, before, messages_max - pruned));
            match done {
                Ok(count) => pruned += count,
                Err(trouble) => {
                    ledger.take_back();
                    self.passed_over = true;
                    if self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                        self.told_at = Some(Instant::now());
                        tracing::warn!(%trouble, "a conversation cannot be pruned: restore it from a backup");
                    }
                }
            }
            if pruned >= messages_max {
                self.conversation = number;
                break;
            }
            self.conversation = number + 1;
        }
        Ok(pruned)
    }

    /// The same for first uses from before `before`, of `entries_max` that are looked at.
    pub fn first_uses(
        &mut self,
        ledger: &mut Ledger,
        tables: &Tables,
        before: Millis,
        entries_max: usize,
    ) -> Result<usize, Trouble> {
        let from = self.first_use.take().unwrap_or_else(|| Slice::from([]));
        let mut draft = ledger.draft(tables);
        let mut expired = 0;
        for (place, guard) in tables.range(Space::FirstUses, from, None).enumerate() {
            let (key, bytes) = guard.into_inner()?;
            if place == entries_max {
                self.first_use = Some(key);
                break;
            }
            // What is damaged stays: whoever needs it is to be told.
            if FirstUse::decode(&key, &bytes).is_ok_and(|first| first.created_at < before)
                && draft.get(Space::FirstUses, &key)?.is_some_and(|now| now == bytes)
            {
                draft.delete(Space::FirstUses, key);
                expired += 1;
            }
        }
        Ok(expired)
    }

    /// The same for hidden marks on messages that are gone.
    pub fn hidden(&mut self, ledger: &mut Ledger, tables: &Tables, entries_max: usize) -> Result<usize, Trouble> {
        let marks = keys::all_hidden();
        let from = self.hidden.take().unwrap_or_else(|| marks.clone());
        let mut draft = ledger.draft(tables);
        let (mut orphans, mut known) = (0, None);
        for (place, guard) in tables.range(Space::Hidden, from, keys::after_prefix(&marks)).enumerate() {
            let key = guard.key()?;
            if place == entries_max {
                self.hidden = Some(key);
                break;
            }
            let Some((number, seq)) = keys::hidden_place(&key) else { continue };
            let first_kept = match known {
                Some((at, first_kept)) if at == number => first_kept,
                _ => tables
                    .conversation_record(&tables.conversation_id(number)?)?
                    .map_or(Seq(u64::MAX), |record| record.first_kept),
            };
            known = Some((number, first_kept));
            if seq < first_kept {
                draft.delete(Space::Hidden, key);
                orphans += 1;
            }
        }
        Ok(orphans)
    }
}

impl Draft<'_> {
    /// Removes the oldest messages of one conversation as far as they are older than `before`. None goes before all that came
    /// before it, so a clock that stepped back makes nothing go early.
    fn prune(&mut self, id: &ConversationId, before: Millis, messages_max: usize) -> Result<usize, Trouble> {
        let Some(record) = self.conversation_record(id)? else { return Ok(0) };
        let mut kept = record.first_kept;
        let mut pruned = 0;
        for guard in self.log(record.number, record.first_kept, Seq(u64::MAX)).take(messages_max) {
            let (key, bytes) = guard.into_inner()?;
            let seq = keys::seq_of(&key).unwrap_or_default();
            let place = || Trouble::at(Space::Messages, format!("{id} seq {}", seq.0));
            if decode_head(&key, &bytes).map_err(place())?.created_at >= before {
                break;
            }
            let message = decode_outline(&key, &bytes, id, seq).map_err(place())?;
            self.delete(Space::Messages, key);
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

const CONVERSATIONS_AT_ONCE: usize = 256;
const TELL_EVERY: Duration = Duration::from_secs(600);
