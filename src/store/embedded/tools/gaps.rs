//! Owns telling where records may be missing after a repair of files, in words: which kind of record, and between whom. Pure but
//! for looking up which conversation a number is of.

use fjall::Slice;

use super::super::keys;
use super::super::tables::{Look, Space, Tables};
use super::guarded;
use crate::types::MessageId;

/// A stretch of a table that could not be read: from the last key before it, or the first that the file is known to have had, to
/// the first key behind it, or the file's last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Any of those that share the table.
    pub space: Space,
    pub from: Slice,
    pub to: Slice,
}

/// One line for each kind of record in each gap, up to a bound.
pub fn tell(gaps: &[Gap], tables: &Tables) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut more = 0;
    for gap in gaps {
        for line in Space::ALL.into_iter().filter_map(|space| gap.tell(space, tables)) {
            // Of uses of client ids every gap says the same.
            if told.contains(&line) {
                continue;
            }
            if told.len() < TOLD_MAX { told.push(line) } else { more += 1 }
        }
    }
    if more > 0 {
        told.push(format!("and {more} more stretches of tables cannot be read"));
    }
    told
}

impl Gap {
    /// What may be missing of one kind of record; None when it is not concerned.
    fn tell(&self, space: Space, tables: &Tables) -> Option<String> {
        if !space.shares_table_with(self.space) || space == Space::Changes {
            return None;
        }
        let (from, to) = (self.from.as_ref(), self.to.as_ref());
        let begins = Slice::from(space.prefix());
        let ends = keys::after_prefix(&begins);
        if to < begins.as_ref() || ends.is_some_and(|ends| from >= ends.as_ref()) {
            return None;
        }
        let of = |key: &[u8]| key.starts_with(&begins).then(|| spelled(space, key, tables)).flatten();
        let place = match (of(from), of(to)) {
            (Some(from), Some(to)) if from == to => format!(" of {from}"),
            (Some(from), Some(to)) => format!(" from {from} to {to}"),
            (Some(from), None) => format!(" from {from} on"),
            (None, Some(to)) => format!(" up to {to}"),
            (None, None) => String::new(),
        };
        Some(format!("table {}: a part cannot be read; records{place} may be missing{}", space.name(), advice(space)))
    }
}

/// Whose a record is, where its key says so.
fn spelled(space: Space, key: &[u8], tables: &Tables) -> Option<String> {
    let conversation = |number: u64| match guarded(|| tables.conversation_id(number)) {
        Ok(id) => id.to_string(),
        Err(_) => format!("conversation number {number}"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', " ");
    match space {
        Space::Messages => keys::place_of(key).map(|(number, seq)| format!("{} seq {}", conversation(number), seq.0)),
        Space::Conversations => Some(text(&key[1..])),
        Space::Numbers => keys::seq_of(key).map(|number| conversation(number.0)),
        Space::Ids => key.first_chunk::<16>().map(|bytes| MessageId(u128::from_be_bytes(*bytes)).to_string()),
        Space::Rows => keys::row_parts(key).map(|(user, id)| format!("{user} in {id}")),
        Space::Hidden => {
            keys::hidden_parts(key).map(|(user, number, seq)| format!("{user} in {} seq {}", conversation(number), seq.0))
        }
        Space::Groups => keys::group_parts(key).map(|(group, kind, rest)| match kind {
            b'u' => format!("{group} ({})", text(rest)),
            _ => group.to_string(),
        }),
        Space::Devices | Space::LastSeen | Space::Users | Space::Notes => Some(text(&key[1..])),
        Space::FirstUses | Space::Meta | Space::Changes => None,
    }
}

/// What nothing that is left makes up for.
fn advice(space: Space) -> &'static str {
    match space {
        Space::Notes => " (if they revoked tokens, revoke them again)",
        Space::Hidden => " (what users had deleted for themselves is shown to them again)",
        Space::Devices | Space::Rows => " (devices get messages again, nothing counts as read)",
        Space::FirstUses => " (they are taken from the messages)",
        _ => "",
    }
}

const TOLD_MAX: usize = 100;
