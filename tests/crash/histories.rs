//! Reads every conversation's log to its end, as any client may: pages from the oldest on, and again from the newest back.

use serde_json::{Value, json};

use super::facts::Stored;
use crate::support::{Client, Server};

/// The whole log of a conversation as one of its members sees it.
pub fn read(server: &Server, user: &str, conversation: &str) -> Vec<Stored> {
    let mut client = Client::connect_on(server, user, "checker");
    let mut forward = pages(&mut client, conversation, json!({"after_seq": 0}));
    let forward: Vec<Stored> = forward.drain(..).flatten().collect();
    let mut backward = pages(&mut client, conversation, json!({}));
    backward.reverse();
    let backward: Vec<Stored> = backward.into_iter().flatten().collect();
    assert!(forward == backward, "{conversation} reads differently from its end: {} and {}", forward.len(), backward.len());
    client.leave();
    forward
}

fn pages(client: &mut Client, conversation: &str, bounds: Value) -> Vec<Vec<Stored>> {
    let mut pages = Vec::new();
    let mut query = bounds;
    query["conversation_id"] = json!(conversation);
    query["limit"] = json!(200);
    loop {
        let page = client.ask("get_history", query.clone());
        let messages = page["messages"].as_array().expect("a history carries messages");
        let read = |entry: &Value| Stored { conversation: conversation.to_owned(), ..Stored::read(entry) };
        pages.push(messages.iter().map(read).collect());
        if page["has_more"] != true {
            return pages;
        }
        query["cursor"] = page["next"].clone();
    }
}
