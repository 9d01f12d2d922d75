//! Checks the decoder of envelopes against serde_json: what is accepted, serde_json accepts with the same values and no known
//! member twice; what serde_json reads is never called bad JSON.

use std::cell::RefCell;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::types::command::{Command, ConversationRef, Draft, HistoryQuery, PresenceTarget, ReadUpTo, Target, Wishes};
use crate::types::record::{Mentions, MessageType};
use crate::types::{ErrorName, Request, UserId};
use crate::wire::json::{DEPTH_MAX, DecodeFault, Scratch, decode};

thread_local! {
    /// Used again and again, as a shard does: what one text leaves behind must not change the next.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// A text message as it was received.
pub fn check(input: &[u8]) {
    let decoded = SCRATCH.with_borrow_mut(|scratch| decode(input, scratch));
    assert_eq!(decoded, decode(input, &mut Scratch::new()), "a fresh scratch says the same");
    let tree = serde_json::from_slice::<Tree>(input);
    match (decoded, tree) {
        (Ok(request), Ok(tree)) => equal(&request, &tree),
        (Ok(request), Err(fault)) => panic!("{request:?}, but serde_json: {fault}"),
        (Err(fault), tree) => refused(&fault, tree.ok().as_ref()),
    }
}

fn refused(fault: &DecodeFault, tree: Option<&Tree>) {
    assert!(fault.fault.message.len() <= 512, "a fault repeats little of the text: {}", fault.fault.message);
    let Some(tree) = tree else { return };
    if fault.fault.name == ErrorName::BadJson {
        assert!(tree.depth() > DEPTH_MAX, "serde_json reads it: {fault}");
    }
    if let Some(id) = &fault.request {
        assert!(tree.members("message_id").any(|found| found.text() == Some(id.as_str())), "{id:?} was not asked under");
    }
}

fn equal(request: &Request, tree: &Tree) {
    assert!(tree.depth() <= DEPTH_MAX);
    for name in ["type", "message_id", "data"] {
        assert!(tree.members(name).count() <= 1, "`{name}` is given twice");
    }
    assert_eq!(tree.get("message_id").and_then(Tree::text), request.id.as_ref().map(|id| id.as_str()));
    let kind = tree.get("type").and_then(Tree::text).expect("a request has a type");
    let same = match kind {
        "send_group_message" => "send_message",
        "get_group_history" => "get_history",
        kind => kind,
    };
    assert_eq!(same, request.command.name());
    let nothing = Tree::Object(Vec::new());
    let data = tree.get("data").unwrap_or(&nothing);
    let known = members_of(&request.command);
    for name in known {
        assert!(data.members(name).count() <= 1, "`{name}` is given twice");
    }
    command(&request.command, &Data(data));
}

/// The members that the verb knows; all others are ignored.
fn members_of(command: &Command) -> &'static [&'static str] {
    match command {
        Command::Auth(_) => &["token", "device_id", "acks", "presence"],
        Command::Refresh { .. } => &["token"],
        Command::Ping | Command::GetUnread => &[],
        Command::Send(_) => &["to_user_id", "group_id", "msg_type", "content", "mentions", "reply_to", "loss_time", "ext"],
        Command::RecvAck(_) => &["conversation_id", "seq", "acks"],
        Command::MarkRead { .. } => &["conversation_id", "group_id", "user_id", "seq", "message_id"],
        Command::JoinGroup(_) | Command::LeaveGroup(_) => &["group_id"],
        Command::CreateGroup(_) => &["group_id", "name", "members", "open"],
        Command::Invite { .. } | Command::Remove { .. } => &["group_id", "user_ids"],
        Command::Typing { .. } => &["to_user_id", "group_id", "state"],
        Command::Recall(_) | Command::Delete(_) => &["message_id"],
        Command::GetHistory(_) => {
            &["conversation_id", "group_id", "user_id", "before_seq", "after_seq", "since", "until", "limit", "cursor"]
        }
        Command::GetConversations { .. } => &["limit", "cursor"],
        Command::Sync { .. } => &["cursors"],
        Command::GetPresence(_) | Command::SubscribePresence(_) | Command::UnsubscribePresence(_) => &["user_ids", "group_id"],
        Command::Search { .. } => &["query", "conversation_id", "group_id", "user_id", "limit", "cursor"],
    }
}

fn command(command: &Command, data: &Data<'_>) {
    match command {
        Command::Auth(auth) => {
            assert_eq!(data.text("token"), Some(&*auth.token.0));
            wishes(&auth.wishes, data);
        }
        Command::Refresh { token } => assert_eq!(data.text("token"), Some(&*token.0)),
        Command::Ping | Command::GetUnread => {}
        Command::Send(draft) => send(draft, data),
        Command::RecvAck(receipts) => acks(receipts, data),
        Command::MarkRead { conversation, upto } => {
            where_(Some(conversation), data);
            match upto {
                ReadUpTo::Seq(seq) => assert_eq!((data.number("seq"), data.given("message_id")), (Some(seq.0), false)),
                ReadUpTo::Message(id) => {
                    assert_eq!((data.message("message_id"), data.given("seq")), (Some(id.to_string()), false));
                }
            }
        }
        Command::JoinGroup(group) | Command::LeaveGroup(group) => assert_eq!(data.text("group_id"), Some(group.as_str())),
        Command::CreateGroup(new) => {
            assert_eq!(data.text("group_id"), new.group.as_ref().map(|group| group.as_str()));
            assert_eq!(data.text("name").unwrap_or_default(), new.name);
            assert_eq!(data.texts("members"), new.members.iter().map(UserId::as_str).collect::<Vec<_>>());
            assert_eq!(data.flag("open").unwrap_or(true), new.open);
        }
        Command::Invite { group, users } | Command::Remove { group, users } => {
            assert_eq!(data.text("group_id"), Some(group.as_str()));
            assert_eq!(data.texts("user_ids"), users.iter().map(UserId::as_str).collect::<Vec<_>>());
        }
        Command::Typing { target, active } => {
            to(target, data);
            assert_eq!(data.text("state"), Some(if *active { "start" } else { "stop" }));
        }
        Command::Recall(id) | Command::Delete(id) => assert_eq!(data.message("message_id"), Some(id.to_string())),
        Command::GetHistory(query) => history(query, data),
        Command::GetConversations { limit, cursor } => {
            assert_eq!(data.limit(), *limit);
            assert_eq!(data.text("cursor"), cursor.as_deref());
        }
        Command::Sync { cursors } => {
            let entries = data.0.get("cursors").map(Tree::entries).unwrap_or_default();
            for (conversation, seq) in cursors {
                let given = entries.iter().filter(|(name, _)| name == conversation.as_str());
                assert_eq!(given.filter_map(|(_, seq)| seq.number()).min(), Some(seq.0));
            }
            assert!(entries.iter().all(|(name, _)| cursors.keys().any(|conversation| conversation.as_str() == name)));
        }
        Command::GetPresence(whose) | Command::SubscribePresence(whose) | Command::UnsubscribePresence(whose) => match whose {
            PresenceTarget::Group(group) => {
                assert_eq!((data.text("group_id"), data.given("user_ids")), (Some(group.as_str()), false));
            }
            PresenceTarget::Users(users) => {
                assert!(!data.given("group_id"));
                assert_eq!(data.texts("user_ids"), users.iter().map(UserId::as_str).collect::<Vec<_>>());
            }
        },
        Command::Search { query, conversation, limit, cursor } => {
            assert_eq!(data.text("query"), Some(&**query));
            where_(conversation.as_ref(), data);
            assert_eq!((data.limit(), data.text("cursor")), (*limit, cursor.as_deref()));
        }
    }
}

fn wishes(wishes: &Wishes, data: &Data<'_>) {
    assert_eq!(data.text("device_id"), wishes.device.as_ref().map(|device| device.as_str()));
    assert_eq!(data.flag("acks").unwrap_or(false), wishes.acks);
    assert_eq!(data.flag("presence").unwrap_or(false), wishes.presence);
}

fn acks(receipts: &[(crate::types::ConversationId, crate::types::Seq)], data: &Data<'_>) {
    let single = [data.0.clone()];
    let given = match data.0.get("acks") {
        Some(Tree::Array(list)) => &list[..],
        _ => &single[..],
    };
    assert_eq!(given.len(), receipts.len());
    for (given, (conversation, seq)) in given.iter().zip(receipts) {
        let given = Data(given);
        assert_eq!((given.text("conversation_id"), given.number("seq")), (Some(conversation.as_str()), Some(seq.0)));
        assert!(given.0.members("seq").count() == 1 && given.0.members("conversation_id").count() == 1);
    }
}

fn send(draft: &Draft, data: &Data<'_>) {
    to(&draft.target, data);
    let content = data.0.get("content").expect("a message has content");
    assert_eq!(&raw(draft.content.as_str()), content);
    let bytes = match content {
        Tree::Text(text) => text.len(),
        _ => draft.content.as_str().len(),
    };
    assert_eq!(draft.content_bytes as usize, bytes);
    assert_eq!(draft.ext.as_ref().map(|ext| raw(ext.as_str())).as_ref(), data.0.get("ext"));
    let kind = match data.0.get("msg_type") {
        None => Some(MessageType::Text),
        Some(Tree::Text(name)) => MessageType::from_name(name),
        Some(other) => other.number().and_then(MessageType::from_number),
    };
    assert_eq!(kind, Some(draft.kind));
    match &draft.mentions {
        None => assert!(data.texts("mentions").is_empty()),
        Some(Mentions::All) => assert_eq!(data.text("mentions"), Some("all")),
        Some(Mentions::Users(users)) => assert_eq!(data.texts("mentions"), users.iter().map(UserId::as_str).collect::<Vec<_>>()),
    }
    assert_eq!(data.message("reply_to"), draft.reply_to.map(|id| id.to_string()));
    assert_eq!(data.number("loss_time").filter(|after| *after > 0), draft.loss_time_ms);
}

fn history(query: &HistoryQuery, data: &Data<'_>) {
    where_(Some(&query.conversation), data);
    assert_eq!(data.number("since"), query.since.map(|at| at.0));
    assert_eq!(data.number("until"), query.until.map(|at| at.0));
    assert_eq!(data.limit(), query.limit);
    if !data.given("cursor") {
        assert_eq!(data.number("before_seq"), query.before.map(|seq| seq.0));
        assert_eq!(data.number("after_seq"), query.after.map(|seq| seq.0));
    }
}

fn to(target: &Target, data: &Data<'_>) {
    let (user, group) = match target {
        Target::User(user) => (Some(user.as_str()), None),
        Target::Group(group) => (None, Some(group.as_str())),
    };
    assert_eq!((data.text("to_user_id"), data.text("group_id")), (user, group));
}

fn where_(conversation: Option<&ConversationRef>, data: &Data<'_>) {
    let expected = match conversation {
        None => (None, None, None),
        Some(ConversationRef::Id(id)) => (Some(id.as_str()), None, None),
        Some(ConversationRef::Group(group)) => (None, Some(group.as_str()), None),
        Some(ConversationRef::User(user)) => (None, None, Some(user.as_str())),
    };
    assert_eq!((data.text("conversation_id"), data.text("group_id"), data.text("user_id")), expected);
}

fn raw(json: &str) -> Tree {
    serde_json::from_str(json).expect("what is kept verbatim is JSON")
}

/// Members of `data` by serde_json's reading.
struct Data<'t>(&'t Tree);

impl<'t> Data<'t> {
    fn given(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    fn text(&self, name: &str) -> Option<&'t str> {
        self.0.get(name).map(|value| value.text().expect("it was taken for a text"))
    }

    /// The server's ids are read in either case.
    fn message(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_ascii_lowercase)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).map(|value| match value {
            Tree::Flag(flag) => *flag,
            other => panic!("{other:?} was taken for true or false"),
        })
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|value| value.number().expect("it was taken for a number"))
    }

    fn limit(&self) -> u32 {
        match self.0.get("limit") {
            None => 50,
            Some(Tree::Number(number)) => number.as_f64().expect("serde_json's numbers are finite").min(200.0) as u32,
            Some(other) => panic!("{other:?} was taken for a number"),
        }
    }

    fn texts(&self, name: &str) -> Vec<&'t str> {
        match self.0.get(name) {
            None => Vec::new(),
            Some(Tree::Array(list)) => list.iter().map(|value| value.text().expect("it was taken for a text")).collect(),
            Some(other) => panic!("{other:?} was taken for a list"),
        }
    }
}

/// JSON as serde_json reads it, with every member of an object, also those given twice.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    fn members<'t>(&'t self, name: &'t str) -> impl Iterator<Item = &'t Tree> {
        let entries: &[(String, Tree)] = match self {
            Tree::Object(entries) => entries,
            _ => &[],
        };
        entries.iter().filter(move |(known, _)| known == name).map(|(_, value)| value)
    }

    /// `null` counts as absent.
    fn get(&self, name: &str) -> Option<&Tree> {
        let Tree::Object(entries) = self else { return None };
        entries.iter().find(|(known, _)| known == name).map(|(_, value)| value).filter(|value| **value != Tree::Null)
    }

    fn text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self) -> Option<u64> {
        let Tree::Number(number) = self else { return None };
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(float));
        number.as_u64().or(float.map(|float| float as u64))
    }

    fn entries(&self) -> Vec<(String, Tree)> {
        match self {
            Tree::Object(entries) => entries.clone(),
            _ => Vec::new(),
        }
    }

    fn depth(&self) -> usize {
        match self {
            Tree::Array(values) => 1 + values.iter().map(Tree::depth).max().unwrap_or(0),
            Tree::Object(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Tree, D::Error> {
        input.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Tree, E> {
        Number::from_f64(number).map(Tree::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Tree::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Object(entries))
    }
}
