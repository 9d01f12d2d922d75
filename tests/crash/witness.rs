//! Owns looking at a server whose files were harmed: everything that it shows is compared with what is known, and a refusal is
//! taken for what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::facts::{Stored, content};
use super::link::{Heard, Link};
use super::specimen::{READER, Specimen, WRITER, target};
use crate::support::Server;

/// What came of looking, where nothing was wrong.
#[derive(Debug)]
pub struct Sight {
    /// Conversations of which something was refused.
    pub refused: BTreeSet<String>,
    /// Conversations that were read as a whole.
    pub readable: usize,
}

/// Looks at everything; the first thing that is not as it was ends it.
pub fn look(server: &Server, specimen: &Specimen) -> Result<Sight, String> {
    let mut sight = Sight { refused: BTreeSet::new(), readable: 0 };
    let mut witness = Witness::enter(server, WRITER, "witness")?;
    for (conversation, log) in &specimen.logs {
        let whole = witness.read(conversation, log)? & witness.repeat(conversation, log)?;
        // What is new must be taken where the old can be read, and never in its place.
        let taken = witness.send(conversation, &format!("new-{conversation}"), log.len() as u64 + 1, false)?;
        match whole && taken {
            true => sight.readable += 1,
            false => drop(sight.refused.insert(conversation.clone())),
        }
    }
    witness.list(specimen, &mut sight)?;
    receive(server, specimen, &mut sight)?;
    Ok(sight)
}

/// The groups as a member sees them who has missed everything.
fn receive(server: &Server, specimen: &Specimen, sight: &mut Sight) -> Result<(), String> {
    let mut reader = Witness::enter(server, READER, "witness")?;
    let (begun, mut heard_at) = (Instant::now(), Instant::now());
    let mut heard: BTreeMap<String, u64> = BTreeMap::new();
    let (mut done, mut left_out) = (false, false);
    // A silence of some seconds is the end as well.
    while begun.elapsed() < RECEIVE_MAX && heard_at.elapsed() < SILENCE_MAX && !done {
        let Some(envelope) = reader.hear()? else { continue };
        heard_at = Instant::now();
        match envelope["type"].as_str().unwrap_or_default() {
            "sync_done" => done = true,
            "error" => left_out |= REFUSALS.contains(&envelope["data"]["name"].as_str().unwrap_or_default()),
            "new_message" => {
                let push = Stored::read(&envelope["data"]);
                if push.client_id.starts_with("new-") {
                    continue;
                }
                let known = specimen.logs.get(&push.conversation).and_then(|log| log.get(push.seq as usize - 1));
                if known != Some(&push) {
                    return Err(format!("{READER} was sent {push:?}, known is {known:?}"));
                }
                let last = heard.insert(push.conversation.clone(), push.seq).unwrap_or(0);
                if push.seq != last + 1 {
                    return Err(format!("{READER} was sent {} seq {} after {last}", push.conversation, push.seq));
                }
            }
            _ => {}
        }
    }
    for (conversation, log) in specimen.logs.iter().filter(|(conversation, _)| conversation.starts_with("g:")) {
        let last = heard.get(conversation).copied().unwrap_or(0);
        if last < log.len() as u64 && !sight.refused.contains(conversation) {
            if done && !left_out {
                return Err(format!("{READER} was told that {last} of {} are all of {conversation}", log.len()));
            }
            sight.refused.insert(conversation.clone());
        }
    }
    Ok(())
}

struct Witness {
    link: Link,
    requests: u64,
}

impl Witness {
    fn enter(server: &Server, user: &str, device: &str) -> Result<Witness, String> {
        let link = Link::open(server.client_address(), user, device, false).ok_or("the server lets nobody in")?;
        let mut witness = Witness { link, requests: 0 };
        let begun = Instant::now();
        while begun.elapsed() < ANSWER_MAX {
            match witness.hear()? {
                Some(envelope) if envelope["type"] == "auth_success" => return Ok(witness),
                Some(envelope) if envelope["type"] == "auth_failed" => return Err(format!("{user} is refused: {envelope}")),
                _ => {}
            }
        }
        Err(format!("{user} hears nothing"))
    }

    /// The whole log; false where it is refused.
    fn read(&mut self, conversation: &str, log: &[Stored]) -> Result<bool, String> {
        let mut found = Vec::new();
        let mut query = json!({"conversation_id": conversation, "after_seq": 0, "limit": 200});
        loop {
            let Some(page) = self.ask("get_history", query.clone())? else { return Ok(false) };
            let messages = page["messages"].as_array().ok_or_else(|| format!("no history: {page}"))?;
            found.extend(messages.iter().map(|entry| Stored { conversation: conversation.to_owned(), ..Stored::read(entry) }));
            if page["has_more"] != true {
                break;
            }
            query["cursor"] = page["next"].clone();
        }
        let wrong = (0..log.len().max(found.len())).find(|at| found.get(*at) != log.get(*at));
        match wrong {
            Some(at) => Err(format!("{conversation} shows {:?} in the place of {:?}", found.get(at), log.get(at))),
            None => Ok(true),
        }
    }

    /// Sends some of it again: it must be known.
    fn repeat(&mut self, conversation: &str, log: &[Stored]) -> Result<bool, String> {
        let mut known = true;
        for at in [0, log.len() / 2, log.len() - 1] {
            known &= self.send(conversation, &log[at].client_id, log[at].seq, true)?;
        }
        Ok(known)
    }

    fn send(&mut self, conversation: &str, client_id: &str, seq: u64, duplicate: bool) -> Result<bool, String> {
        let mut data = target(conversation);
        data["content"] = json!(content(client_id));
        let Some(ack) = self.ask_as(client_id, "send_message", data)? else { return Ok(false) };
        match ack["seq"] == seq && ack["duplicate"] == duplicate {
            true => Ok(true),
            false => Err(format!("{client_id} in {conversation} is seq {seq}, duplicate {duplicate}, but acknowledged as {ack}")),
        }
    }

    /// The list of conversations names them all, with their last message.
    fn list(&mut self, specimen: &Specimen, sight: &mut Sight) -> Result<(), String> {
        let Some(answer) = self.ask("get_conversations", json!({"limit": 200}))? else {
            // Whoever cannot be told of all is told of none.
            return Ok(());
        };
        let list = answer["conversations"].as_array().ok_or_else(|| format!("no list: {answer}"))?;
        for (conversation, log) in &specimen.logs {
            let entry = list.iter().find(|entry| entry["conversation_id"] == *conversation);
            let last_seq = entry.and_then(|entry| entry["last_seq"].as_u64());
            let expected = log.len() as u64 + u64::from(!sight.refused.contains(conversation));
            if last_seq.is_none_or(|found| found < expected) {
                return Err(format!("the list says {last_seq:?} of {conversation}, which has {expected}"));
            }
        }
        Ok(())
    }

    fn ask(&mut self, kind: &str, data: Value) -> Result<Option<Value>, String> {
        self.requests += 1;
        let id = format!("ask-{}", self.requests);
        self.ask_as(&id, kind, data)
    }

    /// The data of the answer; None where the store cannot give one.
    fn ask_as(&mut self, id: &str, kind: &str, data: Value) -> Result<Option<Value>, String> {
        self.link.say(&json!({"type": kind, "message_id": id, "data": data}));
        let begun = Instant::now();
        while begun.elapsed() < ANSWER_MAX {
            match self.hear()? {
                Some(envelope) if envelope["message_id"] == id && envelope["type"] == "error" => {
                    let name = envelope["data"]["name"].as_str().unwrap_or_default();
                    return if REFUSALS.contains(&name) { Ok(None) } else { Err(format!("{kind} is refused: {envelope}")) };
                }
                Some(envelope) if envelope["message_id"] == id => return Ok(Some(envelope["data"].clone())),
                _ => {}
            }
        }
        Err(format!("{kind} is not answered"))
    }

    fn hear(&mut self) -> Result<Option<Value>, String> {
        match self.link.hear() {
            Heard::Envelope(envelope) => Ok(Some(envelope)),
            Heard::Nothing => Ok(None),
            Heard::Ended(code) => Err(format!("the connection ended with {code:?}")),
        }
    }
}

const REFUSALS: [&str; 2] = ["STORE_UNAVAILABLE", "INTERNAL"];
const ANSWER_MAX: Duration = Duration::from_secs(30);
const RECEIVE_MAX: Duration = Duration::from_secs(120);
const SILENCE_MAX: Duration = Duration::from_secs(10);
