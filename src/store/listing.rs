//! Owns what every backend's lists have in common: where a page goes on. Never reads the store. Lives
//! wherever a backend reads.

use crate::types::Millis;
use crate::types::record::SharedMessage;

/// A message's place among all: by time, then by conversation and `seq`.
pub fn position(message: &SharedMessage) -> (Millis, String) {
    (message.created_at, format!("{}:{:020}", message.conversation, message.seq.0))
}

/// Reads a place back from a cursor; None when the client made it up.
pub fn parse_cursor(cursor: &str) -> Option<(Millis, String)> {
    let (at, id) = cursor.split_once(':')?;
    Some((Millis(at.parse().ok()?), id.to_owned()))
}
