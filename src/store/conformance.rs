//! Owns what every backend must do: one suite, run unchanged on each of them. Never looks inside a backend.

mod forgetting;
mod listings;
mod log;
mod searches;
mod standing;

use super::backend::{Backend, Outcome};
use crate::types::push::ConversationSummary;
use crate::types::record::{
    Delivery, Group, Member, Mentions, Message, MessageExtra, MessageKind, MessageType, RawJson, Role, SharedMessage,
    UserConversation,
};
use crate::types::storage::{Answer, Append, GroupChange, GroupState, RangePage, RangeQuery, Read, UserState, Write};
use crate::types::{ConversationId, DeviceId, GroupId, MessageId, Millis, RequestId, Seq, SessionId, UserId};

/// Runs everything, each part on a new, empty backend.
pub fn suite(make: impl Fn() -> Box<dyn Backend>) {
    for (name, part) in PARTS {
        eprintln!("conformance: {name}");
        part(Probe { backend: make(), ids: 0 });
    }
}

type Part = (&'static str, fn(Probe));

const PARTS: &[Part] = &[
    ("seq is given without gaps per conversation", log::seq_without_gaps),
    ("a batch is one commit in order", log::batch_in_order),
    ("a client id counts once", log::duplicates),
    ("system messages repeat per conversation", log::system_duplicates),
    ("the duplicate window passes", log::duplicate_window),
    ("the first message makes rows", log::rows_of_first_message),
    ("a range keeps all bounds", log::range_bounds),
    ("a range keeps time bounds", log::range_times),
    ("a range keeps time bounds when the clock stepped back", log::range_times_unordered),
    ("a range is bounded by bytes", log::range_bytes),
    ("hidden messages are left out for their viewer", standing::hide),
    ("a recalled message is a tombstone everywhere", standing::recall),
    ("members and their rows go together", standing::membership),
    ("a deleted group's log goes on", standing::group_deleted),
    ("read state is monotone and ends at the end", standing::mark_read),
    ("delivery state is monotone per device", standing::deliveries),
    ("a device is known once it was", standing::devices),
    ("a new device is told where recent messages begin", standing::recent),
    ("last seen is kept per user", standing::last_seen),
    ("contacts share a conversation", standing::contacts),
    ("everyone who was ever seen is listed once", listings::users_listed),
    ("groups are listed by id", listings::groups_listed),
    ("notes are kept by name", listings::notes),
    ("retention leaves the end where it is", forgetting::prune),
    ("retention takes what belongs to a message with it", forgetting::prune_leaves_nothing),
    ("the window of client ids is the store's to close", forgetting::expire),
    ("content survives unchanged", log::content),
    ("summaries are paged, newest first", summaries),
    ("unread messages are counted per conversation", unread),
    ("search finds words of what may be read", searches::words),
    ("search is paged, newest first", searches::pages),
    ("search reads every script", searches::scripts),
    ("search finds nothing that retention has removed", searches::pruned),
];

/// A backend and what makes it short to use.
pub struct Probe {
    pub backend: Box<dyn Backend>,
    ids: u128,
}

pub fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub fn group(name: &str) -> GroupId {
    GroupId::new(name).unwrap()
}

pub fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

pub fn private(one: &str, other: &str) -> ConversationId {
    ConversationId::private(&user(one), &user(other))
}

pub fn message(conversation: &ConversationId, sender: Option<&str>, client_id: Option<&str>, at: u64) -> Message {
    Message {
        conversation: conversation.clone(),
        seq: Seq::NONE,
        id: MessageId(0),
        sender: sender.map(user),
        origin: SessionId(7),
        client_id: client_id.map(|id| RequestId::new(id).unwrap()),
        kind: MessageKind::Chat(MessageType::Text),
        content: RawJson::string("hello"),
        created_at: Millis(at),
        extra: None,
    }
}

pub fn range(conversation: &ConversationId) -> RangeQuery {
    RangeQuery {
        conversation: conversation.clone(),
        viewer: None,
        after: None,
        before: None,
        since: None,
        until: None,
        newest: false,
        limit: 1_000,
        bytes_max: usize::MAX,
    }
}

fn seqs(page: &RangePage) -> Vec<u64> {
    page.messages.iter().map(|message| message.seq.0).collect()
}

/// What a page shows: its `seq`s, whether there is more, and what it covers.
fn shape(page: &RangePage) -> (Vec<u64>, bool, (u64, u64)) {
    (seqs(page), page.has_more, (page.covered.0.0, page.covered.1.0))
}

impl Probe {
    fn commit(&mut self, mut writes: Vec<Write>) -> Vec<Outcome> {
        let count = writes.len();
        let mut outcomes = Vec::new();
        self.backend.commit(&mut writes, &mut outcomes);
        assert!(writes.is_empty());
        assert_eq!(outcomes.len(), count, "one outcome per write");
        outcomes
    }

    fn write(&mut self, write: Write) -> Answer {
        self.commit(vec![write]).remove(0).unwrap()
    }

    fn done(&mut self, write: Write) {
        let answer = self.write(write);
        assert!(matches!(answer, Answer::Done), "{answer:?}");
    }

    fn append_write(&mut self, mut message: Message, dedupe_since: u64) -> Write {
        self.ids += 1;
        message.id = MessageId(self.ids);
        Write::Append(Box::new(Append { message, head: None, dedupe_since: Millis(dedupe_since), repeat_only: false }))
    }

    fn append(&mut self, message: Message) -> SharedMessage {
        let write = self.append_write(message, 0);
        match self.write(write) {
            Answer::Appended(message) => message,
            other => panic!("not appended: {other:?}"),
        }
    }

    /// Appends `count` plain messages, one a second from 1,000 ms on.
    fn fill(&mut self, conversation: &ConversationId, count: u64) {
        for number in 1..=count {
            self.append(message(conversation, Some("a"), None, number * 1_000));
        }
    }

    fn read(&mut self, read: Read) -> Answer {
        self.backend.read(&read).unwrap()
    }

    fn page(&mut self, query: RangeQuery) -> RangePage {
        match self.read(Read::Range(query)) {
            Answer::Range(page) => page,
            other => panic!("no page: {other:?}"),
        }
    }

    fn head(&mut self, conversation: &ConversationId) -> u64 {
        match self.read(Read::Head { conversation: conversation.clone() }) {
            Answer::Head(head) => head.0,
            other => panic!("no head: {other:?}"),
        }
    }

    fn group(&mut self, name: &str) -> Option<Box<GroupState>> {
        match self.read(Read::Group { group: group(name) }) {
            Answer::Group(state) => state,
            other => panic!("no group: {other:?}"),
        }
    }

    fn user(&mut self, name: &str, device_name: &str) -> Box<UserState> {
        match self.read(Read::User { user: user(name), device: device(device_name), recent_since: None }) {
            Answer::User(state) => state,
            other => panic!("no user: {other:?}"),
        }
    }

    fn row(&mut self, name: &str, conversation: &ConversationId) -> Option<Box<UserConversation>> {
        let read = Read::Row { user: user(name), device: device("d"), conversation: conversation.clone() };
        match self.read(read) {
            Answer::Row(row) => row,
            other => panic!("no row: {other:?}"),
        }
    }

    fn located(&mut self, message_id: MessageId) -> Option<SharedMessage> {
        match self.read(Read::Locate { message_id }) {
            Answer::Located(message) => message,
            other => panic!("not located: {other:?}"),
        }
    }

    fn mark_read(&mut self, name: &str, conversation: &ConversationId, seq: u64) -> (u64, bool) {
        match self.write(Write::MarkRead { user: user(name), conversation: conversation.clone(), seq: Seq(seq) }) {
            Answer::ReadAt { seq, moved, .. } => (seq.0, moved),
            other => panic!("no read state: {other:?}"),
        }
    }

    fn deliver(&mut self, name: &str, device_name: &str, conversation: &ConversationId, seq: u64) {
        self.done(Write::Deliveries(vec![delivery(name, device_name, conversation, seq)]));
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut GroupChange)) {
        let mut whole =
            GroupChange { group: group(name), record: None, members_put: Vec::new(), members_removed: Vec::new(), delete: false };
        change(&mut whole);
        self.done(Write::Group(Box::new(whole)));
    }

    fn make_group(&mut self, name: &str, members: &[(&str, u64)]) {
        self.change(name, |change| {
            change.record = Some(record(name, "title"));
            change.members_put = members.iter().map(|(user, joined)| member(user, Role::Member, *joined)).collect();
        });
    }
}

fn delivery(name: &str, device_name: &str, conversation: &ConversationId, seq: u64) -> Delivery {
    Delivery { user: user(name), device: device(device_name), conversation: conversation.clone(), seq: Seq(seq) }
}

fn record(name: &str, title: &str) -> Group {
    Group { id: group(name), name: title.into(), open: true, created_at: Millis(5) }
}

fn member(name: &str, role: Role, joined: u64) -> Member {
    Member { user: user(name), role, joined_seq: Seq(joined), joined_at: Millis(joined + 9) }
}

impl Probe {
    /// Conversations of a page of summaries as (id, last `seq`, unread, whether a message is shown), and the next page's cursor.
    fn summaries(&mut self, name: &str, limit: u32, cursor: Option<String>) -> (Vec<SummaryLine>, Option<String>) {
        match self.read(Read::Summaries { user: user(name), limit, cursor }) {
            Answer::Summaries { conversations, next } => {
                let line = |of: &ConversationSummary| {
                    (of.conversation.as_str().to_owned(), of.last_seq.0, of.unread, of.last_message.is_some())
                };
                (conversations.iter().map(line).collect(), next)
            }
            other => panic!("no summaries: {other:?}"),
        }
    }

    fn unread(&mut self, name: &str) -> Vec<(String, u64, bool)> {
        match self.read(Read::Unread { user: user(name) }) {
            Answer::Unread(mut entries) => {
                entries.sort_by(|one, other| one.conversation.cmp(&other.conversation));
                entries.iter().map(|entry| (entry.conversation.as_str().to_owned(), entry.unread, entry.mentioned)).collect()
            }
            other => panic!("no counts: {other:?}"),
        }
    }

    fn say(&mut self, conversation: &ConversationId, sender: &str, content: &str, at: u64) {
        let mut draft = message(conversation, Some(sender), None, at);
        draft.content = RawJson::string(content);
        self.append(draft);
    }
}

type SummaryLine = (String, u64, u64, bool);

fn summaries(mut probe: Probe) {
    assert_eq!(probe.summaries("a", 10, None), (vec![], None));
    probe.make_group("g", &[("a", 0), ("b", 0)]);
    let room = ConversationId::group(&group("g"));
    for (number, name) in ["b", "c", "d", "e"].into_iter().enumerate() {
        for at in 0..3 {
            probe.say(&private("a", name), name, "hello", 1_000 * (number as u64 + 1) + at);
        }
    }
    probe.mark_read("a", &private("a", "c"), 2);
    // What was said before a member came is counted nowhere and shown nowhere.
    for at in 0..2 {
        probe.say(&room, "b", "hello", 2_500 + at);
    }
    probe.change("g", |change| change.members_put = vec![member("z", Role::Member, 2)]);
    assert_eq!(probe.summaries("z", 10, None), (vec![("g:g".to_owned(), 2, 0, false)], None));

    let expected =
        [("p:a:e", 3, 3, true), ("p:a:d", 3, 3, true), ("g:g", 2, 2, true), ("p:a:c", 3, 1, true), ("p:a:b", 3, 3, true)];
    let expected: Vec<_> = expected.map(|(id, last, unread, shown)| (id.to_owned(), last, unread, shown)).into();
    assert_eq!(probe.summaries("a", 10, None), (expected.clone(), None));
    assert_eq!(probe.summaries("a", 5, None), (expected.clone(), None));
    let (mut pages, mut cursor) = (Vec::new(), None);
    for page in 0..3 {
        let (lines, next) = probe.summaries("a", 2, cursor);
        assert_eq!(next.is_some(), page < 2);
        pages.extend(lines);
        cursor = next;
    }
    assert_eq!(pages, expected);
}

fn unread(mut probe: Probe) {
    assert_eq!(probe.unread("a"), vec![]);
    let conversation = private("a", "b");
    for at in 1..=6 {
        probe.say(&conversation, "b", "hello", at);
    }
    probe.say(&conversation, "a", "own", 7);
    let entry = |id: &str, unread: u64, mentioned: bool| (id.to_owned(), unread, mentioned);
    assert_eq!(probe.unread("a"), [entry("p:a:b", 6, false)]);
    assert_eq!(probe.unread("b"), [entry("p:a:b", 1, false)]);
    probe.mark_read("a", &conversation, 2);
    probe.done(Write::Recall { conversation: conversation.clone(), seq: Seq(3), by: user("b") });
    probe.done(Write::Hide { user: user("a"), conversation: conversation.clone(), seq: Seq(4) });
    probe.done(Write::Hide { user: user("a"), conversation: conversation.clone(), seq: Seq(1) });
    assert_eq!(probe.unread("a"), [entry("p:a:b", 2, false)]);
    let mention = |probe: &mut Probe, mentions: Mentions| {
        let mut draft = message(&conversation, Some("b"), None, 8);
        draft.extra = Some(Box::new(MessageExtra { mentions: Some(mentions), ..MessageExtra::default() }));
        probe.append(draft);
    };
    mention(&mut probe, Mentions::Users(vec![user("x")]));
    assert_eq!(probe.unread("a"), [entry("p:a:b", 3, false)]);
    mention(&mut probe, Mentions::Users(vec![user("x"), user("a")]));
    assert_eq!(probe.unread("a"), [entry("p:a:b", 4, true)]);
    probe.mark_read("a", &conversation, 99);
    mention(&mut probe, Mentions::All);
    assert_eq!(probe.unread("a"), [entry("p:a:b", 1, true)]);
    // Notifications count.
    probe.append(message(&ConversationId::system(&user("a")), None, None, 9));
    assert_eq!(probe.unread("a"), [entry("p:a:b", 1, true), entry("s:a", 1, false)]);
}
