//! Owns what every backend's lists have in common: how a text matches, and where a page goes on. Never reads the store. Lives
//! wherever a backend reads.

use crate::types::Millis;
use crate::types::record::SharedMessage;

/// True when every word (in lower case) occurs in the message's text as its reader sees it: escapes resolved.
pub fn matches(message: &SharedMessage, words: &[String]) -> bool {
    let text = match serde_json::from_str::<serde_json::Value>(message.content.as_str()) {
        Ok(serde_json::Value::String(text)) => text.to_lowercase(),
        _ => message.content.as_str().to_lowercase(),
    };
    words.iter().all(|word| text.contains(word.as_str()))
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
