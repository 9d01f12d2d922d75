//! Owns the virtual clients: what each device has said and heard, over all its connections, and what it may hold the server to
//! on the spot (order, repeats, replies). Never looks into the node.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::ledger::Ledger;
use super::node::Node;
use super::oracle;
use super::pass::Pass;
use super::socket::{Heard, LineId, Server};
use crate::types::{CloseCode, ConversationId, ConversationKind};

/// One log entry as a device heard of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub conversation: String,
    pub seq: u64,
    pub message_id: String,
    pub content: String,
    pub recalled: bool,
    /// The connection it was heard on.
    pub line: LineId,
}

/// A message that a device wants stored.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub id: String,
    pub data: Value,
    /// Server's id, conversation and seq, once acknowledged.
    pub ack: Option<(String, String, u64)>,
    /// It can never be stored as it is (no member, no such group).
    pub refused: bool,
}

/// Requests that wait for their reply.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    /// Which, and how many requests of this connection came before it.
    Draft(usize, u64),
    /// A message is recalled or hidden.
    Erase(Erasure),
    /// History, after so many erasures.
    History(usize),
    /// A token in place of the present one.
    Refresh(Pass),
    /// Who is online, where only the device's own user can be.
    Alone,
    /// What is unread, where nothing can be.
    NothingUnread,
    Other,
}

/// A message that was recalled for all, or hidden for one user.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Erasure {
    pub message_id: String,
    pub hidden: bool,
    /// Connections from this one on were opened after its ack.
    pub from_line: usize,
}

/// A connection as its device sees it.
#[derive(Debug)]
struct Link {
    line: LineId,
    pass: Pass,
    /// Things heard that were looked at.
    seen: usize,
    ready: bool,
    synced: bool,
    /// It asked for repeats.
    asked_sync: bool,
    /// Per conversation: the last first-time entry.
    last: BTreeMap<String, u64>,
    asked: BTreeMap<String, Asked>,
    /// Entries not yet confirmed.
    unconfirmed: BTreeMap<String, u64>,
    /// How often each entry was repeated.
    repeats: BTreeMap<(String, u64), u32>,
    /// How often something was confirmed or asked for, each of which explains some more repeats.
    resets: u32,
    /// What others had written before it was opened: all of it comes before the first `sync_done`.
    owed: Vec<(String, u64)>,
    /// When it was opened the server had not noticed the end of each one before it, which may be told of what has aged.
    shadowed: bool,
    /// Ends of the logs when `sync_done` was heard: what lies beyond comes without another word.
    floor: Option<BTreeMap<String, u64>>,
    /// Per conversation: place among this connection's requests, and `seq`, of the last ack.
    acked: BTreeMap<String, (u64, u64)>,
    /// Connections that anybody had opened when it was last listened to.
    lines: usize,
}

/// One device of a user and whoever holds it.
#[derive(Debug)]
pub(super) struct Device {
    pub user: String,
    pub name: String,
    pub acks: bool,
    /// Confirms at once what it hears.
    pub diligent: bool,
    /// Confirms nothing, unless it is diligent.
    pub forgetful: bool,
    /// Wants to know who of its contacts is online.
    pub curious: bool,
    /// Conversations its user may be in.
    pub conversations: Vec<ConversationId>,
    /// Per conversation: it has confirmed up to here without having heard all of it.
    pub forfeited: BTreeMap<String, u64>,
    pub erasures: Vec<Erasure>,
    /// What it has asked to be hidden, whatever the answer: user and message.
    pub erasing: Vec<(String, String)>,
    /// Who is online, as far as it was told.
    pub online: BTreeMap<String, bool>,
    pub entries: Vec<Entry>,
    /// What it need not hear of any more, per conversation: heard, skipped with reason, or its own.
    pub had: BTreeMap<String, BTreeSet<u64>>,
    /// Stretches that were skipped, with their reasons.
    pub skipped: Vec<(String, u64, u64, String)>,
    pub drafts: Vec<Draft>,
    link: Option<Link>,
    /// Its connections until now, but for those that the server knew to have ended when the latest was opened.
    former: Vec<LineId>,
    asked: u64,
}

impl Device {
    pub fn new(user: String, name: String, acks: bool, diligent: bool) -> Device {
        Device {
            user,
            name,
            acks,
            diligent,
            forgetful: false,
            curious: false,
            conversations: Vec::new(),
            forfeited: BTreeMap::new(),
            erasures: Vec::new(),
            erasing: Vec::new(),
            online: BTreeMap::new(),
            entries: Vec::new(),
            had: BTreeMap::new(),
            skipped: Vec::new(),
            drafts: Vec::new(),
            link: None,
            former: Vec::new(),
            asked: 0,
        }
    }

    pub fn line(&self) -> Option<LineId> {
        self.link.as_ref().map(|link| link.line)
    }

    pub fn is_ready(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.ready)
    }

    /// Connected, told everything, and owed no reply.
    pub fn is_settled(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.ready && link.synced && link.asked.is_empty())
    }

    /// Connects unless it is connected, with a token that is good for so long, or for ever.
    pub fn connect(&mut self, node: &mut Node, shard: usize, good_ms: Option<u64>) {
        if self.link.is_some() {
            return;
        }
        let owed = self.owed(node);
        self.former.retain(|former| node.line(*former).server != Server::Closed);
        let shadowed = !self.former.is_empty();
        let line = node.connect(shard);
        self.former.push(line);
        let (token, pass) = Pass::new(node, &self.user, good_ms);
        let data = json!({"token": token, "device_id": self.name, "acks": self.acks, "presence": self.curious});
        node.say(line, &json!({"type": "auth", "message_id": "auth", "data": data}));
        self.link = Some(Link {
            line,
            pass,
            seen: 0,
            ready: false,
            synced: false,
            asked_sync: false,
            last: BTreeMap::new(),
            asked: BTreeMap::from([("auth".to_owned(), Asked::Other)]),
            unconfirmed: BTreeMap::new(),
            repeats: BTreeMap::new(),
            resets: 0,
            owed,
            shadowed,
            floor: None,
            acked: BTreeMap::new(),
            lines: 0,
        });
    }

    /// Asks anything that is answered.
    pub fn ask(&mut self, node: &mut Node, kind: &str, data: Value) {
        self.ask_for(node, kind, data, Asked::Other);
    }

    /// What others have written into private and system conversations until now.
    fn owed(&self, node: &mut Node) -> Vec<(String, u64)> {
        let own = format!("{}/{}/", self.user, self.name);
        let mut owed = Vec::new();
        for conversation in self.conversations.iter().filter(|conversation| !conversation.is_group()) {
            for message in oracle::log(node, conversation.clone(), Some(oracle::user(&self.user))) {
                // What may be dropped is passed over with a word that nobody confirms.
                let fleeting = message.loss_time_ms().is_some() || message.recalled_by().is_some();
                if !fleeting && !message.client_id.as_ref().is_some_and(|id| id.as_str().starts_with(&own)) {
                    owed.push((conversation.to_string(), message.seq.0));
                }
            }
        }
        owed
    }

    /// Has a message recalled, or hidden from its user.
    pub fn erase(&mut self, node: &mut Node, message_id: String, hidden: bool) {
        let kind = if hidden { "delete_message" } else { "recall_message" };
        let data = json!({"message_id": message_id});
        if hidden {
            self.erasing.push((self.user.clone(), message_id.clone()));
        }
        self.ask_for(node, kind, data, Asked::Erase(Erasure { message_id, hidden, from_line: usize::MAX }));
    }

    /// Shows a new token.
    pub fn refresh(&mut self, node: &mut Node, good_ms: Option<u64>) {
        let (token, pass) = Pass::new(node, &self.user, good_ms);
        self.ask_for(node, "refresh", json!({"token": token}), Asked::Refresh(pass));
    }

    /// The token by which it is connected.
    pub fn pass(&self) -> Option<Pass> {
        self.link.as_ref().filter(|link| link.ready).map(|link| link.pass)
    }

    pub fn read_history(&mut self, node: &mut Node, data: Value) {
        self.ask_for(node, "get_history", data, Asked::History(self.erasures.len()));
    }

    /// Confirms more than it has heard.
    pub fn confirm_beyond(&mut self, node: &mut Node, which: usize, by: u64) {
        let Some(link) = self.link.as_mut().filter(|link| self.acks && !link.last.is_empty()) else { return };
        let (conversation, last) = link.last.iter().nth(which % link.last.len()).expect("the place is below the length");
        let upto = last + by;
        let forfeited = self.forfeited.entry(conversation.clone()).or_default();
        *forfeited = upto.max(*forfeited);
        link.resets += 1;
        link.unconfirmed.remove(conversation);
        node.say(link.line, &json!({"type": "recv_ack", "data": {"conversation_id": conversation, "seq": upto}}));
    }

    /// Makes sure that of `users` only its own is online.
    pub fn expect_alone(&mut self, node: &mut Node, users: &[String]) {
        self.ask_for(node, "get_presence", json!({"user_ids": users}), Asked::Alone);
    }

    /// Makes sure that nothing is unread.
    pub fn expect_nothing_unread(&mut self, node: &mut Node) {
        self.ask_for(node, "get_unread", json!({}), Asked::NothingUnread);
    }

    fn ask_for(&mut self, node: &mut Node, kind: &str, data: Value, asked: Asked) {
        self.asked += 1;
        let id = format!("{}-{}-{}", self.user, self.name, self.asked);
        let Some(link) = self.link.as_mut() else { return };
        if kind == "sync" {
            link.asked_sync = true;
            link.resets += 1;
        }
        link.asked.insert(id.clone(), asked);
        node.say(link.line, &json!({"type": kind, "message_id": id, "data": data}));
    }

    /// Writes a message; its content is its id.
    pub fn write(&mut self, node: &mut Node, mut data: Value) {
        let id = format!("{}/{}/{}", self.user, self.name, self.drafts.len());
        data["content"] = json!(id);
        self.drafts.push(Draft { id, data, ack: None, refused: false });
        self.write_again(node, self.drafts.len() - 1);
    }

    pub fn write_again(&mut self, node: &mut Node, which: usize) {
        let (Some(link), Some(draft)) = (self.link.as_mut(), self.drafts.get(which)) else { return };
        // One at a time under one id, so that every reply belongs to one question.
        if link.asked.contains_key(&draft.id) {
            return;
        }
        self.asked += 1;
        link.asked.insert(draft.id.clone(), Asked::Draft(which, self.asked));
        node.say(link.line, &json!({"type": "send_message", "message_id": draft.id, "data": draft.data}));
    }

    /// Looks at what has come since the last time.
    pub fn listen(&mut self, node: &mut Node, confirm: bool) {
        let Some(mut link) = self.link.take() else { return };
        let heard: Vec<Heard> = node.line(link.line).heard[link.seen..].to_vec();
        link.seen += heard.len();
        link.lines = node.lines().len();
        if link.shadowed {
            link.owed.retain(|(conversation, seq)| {
                let id = ConversationId::parse(conversation).expect("it was made from one");
                node.forgotten(&id).len() < *seq as usize
            });
        }
        let mut lost = false;
        for heard in heard {
            match heard {
                Heard::Push(push) => self.take(&mut link, &push),
                Heard::Lost => lost = true,
                Heard::Close(code, _) => self.judge_close(node, &link, code),
                Heard::Ping | Heard::Pong(_) => {}
            }
        }
        if lost {
            return;
        }
        if link.synced && link.floor.is_none() {
            link.floor = Some(self.conversations.iter().map(|id| (id.to_string(), oracle::head(node, id))).collect());
        }
        let confirms = self.diligent || confirm && !self.forgetful;
        if self.acks && confirms && !link.unconfirmed.is_empty() {
            link.resets += 1;
            let acks: Vec<Value> = std::mem::take(&mut link.unconfirmed)
                .into_iter()
                .map(|(conversation, seq)| json!({"conversation_id": conversation, "seq": seq}))
                .collect();
            node.say(link.line, &json!({"type": "recv_ack", "data": {"acks": acks}}));
        }
        self.link = Some(link);
    }

    fn take(&mut self, link: &mut Link, push: &Value) {
        let data = &push["data"];
        match text(&push["type"]) {
            "new_message" | "notification" => self.take_entry(link, data),
            "messages_skipped" => self.take_skip(link, data),
            "sync_done" => {
                if !std::mem::replace(&mut link.synced, true) {
                    self.judge_owed(link);
                }
                if let Some(id) = push["message_id"].as_str() {
                    link.asked.remove(id);
                }
            }
            "auth_success" => {
                assert_eq!(text(&data["user_id"]), self.user);
                if push["message_id"] != "auth" {
                    return self.take_reply(link, push);
                }
                link.ready = true;
                link.asked.remove("auth");
            }
            "presence" => {
                self.note_presence(data);
                self.take_reply(link, push);
            }
            _ => self.take_reply(link, push),
        }
    }

    /// Who is sent away because of its token has had one that was revoked or has run out.
    fn judge_close(&self, node: &Node, link: &Link, code: u16) {
        let revoked = node.generation(&oracle::user(&self.user)) > link.pass.generation;
        let refreshing = link.asked.values().filter_map(|asked| if let Asked::Refresh(pass) = asked { Some(pass) } else { None });
        let expired = refreshing.chain([&link.pass]).any(|pass| pass.may_be_over(node));
        assert!(code != CloseCode::TokenRevoked as u16 || revoked, "{} is told of a revocation that was none", self.name());
        assert!(code != CloseCode::TokenExpired as u16 || expired, "{} is told that its token has run out", self.name());
    }

    fn note_presence(&mut self, data: &Value) {
        for entry in data["users"].as_array().into_iter().flatten() {
            self.online.insert(text(&entry["user_id"]).to_owned(), entry["status"] == "online");
        }
    }

    /// The server says that all has been pushed: whoever confirms has had all that was there when it came.
    fn judge_owed(&self, link: &Link) {
        for (conversation, seq) in link.owed.iter().filter(|_| self.acks) {
            let forfeited = self.forfeited.get(conversation).is_some_and(|upto| seq <= upto);
            let had = self.had.get(conversation).is_some_and(|had| had.contains(seq));
            assert!(had || forfeited, "{}: sync_done before {conversation} {seq}", self.name());
        }
    }

    /// It has heard something that it should have confirmed. With a membership ends what was owed for it, and what it has
    /// confirmed too early counts.
    pub fn owes_confirmation(&self, ledger: &Ledger) -> bool {
        let Some(link) = self.link.as_ref().filter(|link| self.acks && link.ready) else { return false };
        let confirmed = |conversation: &str, seq: u64| self.forfeited.get(conversation).is_some_and(|upto| seq <= *upto);
        link.unconfirmed.iter().filter(|(conversation, seq)| !confirmed(conversation, **seq)).any(|(conversation, seq)| {
            let id = ConversationId::parse(conversation).expect("a server names conversations well");
            match id.kind() {
                ConversationKind::Group(group) => {
                    ledger.present(&group, &oracle::user(&self.user)).is_some_and(|stay| stay.after < *seq)
                }
                _ => true,
            }
        })
    }

    /// Ends of the logs when its present connection was told that it has had all; None while it was not.
    pub fn floor(&self) -> Option<&BTreeMap<String, u64>> {
        self.link.as_ref()?.floor.as_ref()
    }

    fn take_entry(&mut self, link: &mut Link, data: &Value) {
        let conversation = text(&data["conversation_id"]).to_owned();
        let seq = data["seq"].as_u64().expect("every entry has its seq");
        let last = link.last.get(&conversation).copied().unwrap_or(0);
        if data["redelivered"] == true {
            assert!(self.acks || link.asked_sync, "{}: {conversation} {seq} is repeated, but nobody wanted that", self.name());
            let repeats = link.repeats.entry((conversation.clone(), seq)).or_default();
            *repeats += 1;
            let endless = *repeats > REPEATS_MAX * (1 + link.resets);
            assert!(!endless, "{}: {conversation} {seq} is repeated again and again", self.name());
        } else {
            assert!(seq > last, "{}: {conversation} {seq} after {last}, without being marked as a repeat", self.name());
            self.judge_gap(link, &conversation, last, seq);
            link.last.insert(conversation.clone(), seq);
        }
        self.had.entry(conversation.clone()).or_default().insert(seq);
        let confirmed = link.unconfirmed.entry(conversation.clone()).or_default();
        *confirmed = seq.max(*confirmed);
        let content = data["content"].as_str().map_or_else(|| data["content"].to_string(), str::to_owned);
        let message_id = text(&data["message_id"]).to_owned();
        let recalled = data["recalled"] == true;
        self.entries.push(Entry { conversation, seq, message_id, content, recalled, line: link.line });
    }

    /// Within a connection nothing is left out, save what the device wrote itself or (in groups) what was written while its
    /// user was no member; both are judged at the end.
    fn judge_gap(&mut self, link: &Link, conversation: &str, last: u64, seq: u64) {
        if last == 0 || seq == last + 1 || conversation.starts_with("g:") || link.asked_sync {
            return;
        }
        let had = self.had.entry(conversation.to_owned()).or_default();
        let own = self.drafts.iter().any(|draft| draft.ack.is_none() && !draft.refused);
        let missing: Vec<u64> = (last + 1..seq).filter(|seq| !had.contains(seq)).collect();
        assert!(missing.is_empty() || own, "{}: {conversation} {missing:?} left out before {seq}", self.name());
    }

    fn take_skip(&mut self, link: &mut Link, data: &Value) {
        let conversation = text(&data["conversation_id"]).to_owned();
        let (from, to) = (
            data["from_seq"].as_u64().expect("a skip names its ends by numbers"),
            data["to_seq"].as_u64().expect("a skip names its ends by numbers"),
        );
        assert!(from <= to, "{}: an empty skip", self.name());
        // What was hidden before it was confirmed is owed no more.
        if link.unconfirmed.get(&conversation).is_some_and(|seq| (from..=to).contains(seq)) {
            link.unconfirmed.remove(&conversation);
        }
        self.had.entry(conversation.clone()).or_default().extend(from..=to);
        let last = link.last.entry(conversation.clone()).or_default();
        *last = to.max(*last);
        self.skipped.push((conversation, from, to, text(&data["reason"]).to_owned()));
    }

    fn take_reply(&mut self, link: &mut Link, push: &Value) {
        let Some(id) = push["message_id"].as_str() else { return };
        let Some(asked) = link.asked.remove(id) else {
            panic!("{}: an answer to nothing: {push}", self.name());
        };
        let data = &push["data"];
        let (which, order) = match asked {
            Asked::Draft(which, order) => (which, order),
            Asked::Erase(erasure) => {
                if push["type"] == "ack" {
                    self.erasures.push(Erasure { from_line: link.lines, ..erasure });
                }
                return;
            }
            Asked::Refresh(pass) => {
                if push["type"] == "auth_success" {
                    link.pass = pass;
                }
                return;
            }
            Asked::History(erasures) => return self.judge_history(data, erasures),
            Asked::Alone => return self.judge_presence(data),
            Asked::NothingUnread => {
                return assert_eq!(data["total"], 0, "{}: unread after everything was read: {push}", self.name());
            }
            Asked::Other => return,
        };
        let draft = &mut self.drafts[which];
        if push["type"] == "error" {
            draft.refused |= data["temporary"] != true;
            return;
        }
        assert!(push["type"] == "ack" && data["success"] == true, "{push}");
        let conversation = text(&data["conversation_id"]).to_owned();
        let seq = data["seq"].as_u64().expect("an ack of a message has its seq");
        let ack = (text(&data["message_id"]).to_owned(), conversation.clone(), seq);
        if data["duplicate"] == false
            && let Some((earlier, last)) = link.acked.insert(conversation.clone(), (order, seq))
        {
            assert_eq!(order > earlier, seq > last, "{conversation}: what was said first is written first: {push}");
        }
        if let Some(before) = &draft.ack {
            assert_eq!((before, &data["duplicate"]), (&ack, &json!(true)), "a repeat gets the same ack");
        }
        draft.ack = Some(ack);
        self.had.entry(conversation).or_default().insert(seq);
    }

    fn judge_history(&self, data: &Value, erasures: usize) {
        for message in data["messages"].as_array().into_iter().flatten() {
            let same = |erasure: &&Erasure| message["message_id"] == erasure.message_id.as_str();
            for erasure in self.erasures[..erasures].iter().filter(same) {
                assert!(!erasure.hidden, "{}: history shows what was hidden: {message}", self.name());
                assert!(message["recalled"] == true, "{}: history shows what was recalled: {message}", self.name());
            }
        }
    }

    fn judge_presence(&self, data: &Value) {
        for entry in data["users"].as_array().expect("a list of users") {
            let online = entry["status"] == "online";
            let devices = u64::from(entry["user_id"] == self.user.as_str());
            assert_eq!((online, entry["devices"].as_u64()), (devices == 1, Some(devices)), "{}: {entry}", self.name());
        }
    }

    /// What it has of a conversation after `after`, without a gap.
    pub fn contiguous(&self, conversation: &str, after: u64) -> u64 {
        let mut at = after;
        while self.had.get(conversation).is_some_and(|had| had.contains(&(at + 1))) {
            at += 1;
        }
        at
    }

    pub fn name(&self) -> String {
        format!("{}'s {}", self.user, self.name)
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text was expected: {value}"))
}

/// Repeats of one entry on one connection while nothing is confirmed: two after the first time, and one that was under way.
const REPEATS_MAX: u32 = 3;
