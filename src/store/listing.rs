//! Owns what every backend's lists have in common: what a search asks for, where a page goes on and how much it holds. Never
//! reads the store. Lives wherever a backend reads.

use crate::types::record::SharedMessage;
use crate::types::{ConversationId, Millis, Seq, UserId};

/// What [`Read::Search`](crate::types::storage::Read::Search) asks for.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub user: &'a UserId,
    pub query: &'a str,
    pub only: Option<&'a ConversationId>,
    pub whole_groups: bool,
    pub limit: u32,
    pub cursor: Option<&'a str>,
}

impl Wanted<'_> {
    /// What the user may find begins after it, in a conversation that is theirs from `start` on.
    pub fn after(&self, conversation: &ConversationId, start: Seq) -> Seq {
        if self.whole_groups && conversation.is_group() { Seq::NONE } else { start }
    }
}

/// A message's place among all: by time, then by conversation and `seq`.
pub fn position(message: &SharedMessage) -> (Millis, String) {
    (message.created_at, format!("{}:{:020}", message.conversation, message.seq.0))
}

/// Reads a place back from a cursor; None when the client made it up.
pub fn parse_cursor(cursor: &str) -> Option<(Millis, String)> {
    let (at, id) = cursor.split_once(':')?;
    Some((Millis(at.parse().ok()?), id.to_owned()))
}

/// A page of what was found ends with the message that reaches it, so that one answer never fills an outbox many times over.
pub const FOUND_BYTES_MAX: usize = 1 << 20;
