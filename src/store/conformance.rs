//! Owns what every backend must do: one suite, run unchanged on each of them. Never looks inside a backend.

mod listings;

use std::sync::Arc;

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
    ("seq is given without gaps per conversation", seq_without_gaps),
    ("a batch is one commit in order", batch_in_order),
    ("a client id counts once", duplicates),
    ("system messages repeat per conversation", system_duplicates),
    ("the duplicate window passes", duplicate_window),
    ("the first message makes rows", rows_of_first_message),
    ("a range keeps all bounds", range_bounds),
    ("a range keeps time bounds", range_times),
    ("a range keeps time bounds when the clock stepped back", range_times_unordered),
    ("a range is bounded by bytes", range_bytes),
    ("hidden messages are left out for their viewer", hide),
    ("a recalled message is a tombstone everywhere", recall),
    ("members and their rows go together", membership),
    ("a deleted group's log goes on", group_deleted),
    ("read state is monotone and ends at the end", mark_read),
    ("delivery state is monotone per device", deliveries),
    ("a device is known once it was", devices),
    ("a new device is told where recent messages begin", recent),
    ("last seen is kept per user", last_seen),
    ("contacts share a conversation", contacts),
    ("everyone who was ever seen is listed once", listings::users_listed),
    ("groups are listed by id", listings::groups_listed),
    ("notes are kept by name", listings::notes),
    ("retention leaves the end where it is", prune),
    ("retention takes what belongs to a message with it", prune_leaves_nothing),
    ("the window of client ids is the store's to close", expire),
    ("content survives unchanged", content),
    ("summaries are paged, newest first", summaries),
    ("unread messages are counted per conversation", unread),
    ("search finds words of what may be read", search),
    ("search is paged, newest first", search_pages),
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

fn seq_without_gaps(mut probe: Probe) {
    let (one, other) = (private("a", "b"), private("a", "c"));
    assert_eq!(probe.head(&one), 0);
    for seq in 1..=20 {
        let stored = probe.append(message(&one, Some("a"), None, seq));
        assert_eq!((stored.seq, &stored.conversation), (Seq(seq), &one));
        if seq % 2 == 0 {
            assert_eq!(probe.append(message(&other, Some("c"), None, seq)).seq, Seq(seq / 2));
        }
    }
    assert_eq!((probe.head(&one), probe.head(&other)), (20, 10));
    let page = probe.page(range(&one));
    assert_eq!(shape(&page), ((1..=20).collect(), false, (1, 20)));
    assert_eq!(page.first_kept, Seq(1));
    let id = page.messages[6].id;
    assert_eq!(probe.located(id).unwrap().seq, Seq(7));
    assert!(probe.located(MessageId(99_999)).is_none());
}

fn batch_in_order(mut probe: Probe) {
    let conversation = private("a", "b");
    let mut writes = Vec::new();
    for number in 0..50 {
        // Every fifth repeats the one before it, inside the same commit.
        let client_id = (number - u64::from(number % 5 == 4)).to_string();
        let draft = message(&conversation, Some("a"), Some(&client_id), 1_000);
        writes.push(probe.append_write(draft, 0));
    }
    writes.push(Write::MarkRead { user: user("b"), conversation: conversation.clone(), seq: Seq(50) });
    let outcomes = probe.commit(writes);
    let mut next = 1;
    for (number, outcome) in outcomes[..50].iter().enumerate() {
        match outcome.as_ref().unwrap() {
            Answer::Appended(stored) => {
                assert_ne!(number % 5, 4);
                assert_eq!(stored.seq, Seq(next));
                next += 1;
            }
            Answer::Duplicate { seq, .. } => assert_eq!((number % 5, *seq), (4, Seq(next - 1))),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(outcomes[50], Ok(Answer::ReadAt { seq: Seq(40), moved: true, .. })), "{:?}", outcomes[50]);
    assert_eq!(probe.head(&conversation), 40);
}

fn duplicates(mut probe: Probe) {
    let conversation = private("a", "b");
    let first = probe.append(message(&conversation, Some("a"), Some("x"), 1_000));
    for (target, sender) in [(&conversation, "a"), (&private("a", "c"), "a")] {
        let mut repeat = message(target, Some(sender), Some("x"), 2_000);
        repeat.content = RawJson::string("other");
        let write = probe.append_write(repeat, 1_000);
        match probe.write(write) {
            Answer::Duplicate { message_id, conversation: found, seq, created_at } => {
                assert_eq!((message_id, found, seq, created_at), (first.id, conversation.clone(), Seq(1), Millis(1_000)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((probe.head(&conversation), probe.head(&private("a", "c"))), (1, 0));
    assert!(probe.row("c", &private("a", "c")).is_none(), "a duplicate leaves nothing behind");
    // Another sender, another id, no id: all are new.
    probe.append(message(&conversation, Some("b"), Some("x"), 2_000));
    probe.append(message(&conversation, Some("a"), Some("y"), 2_000));
    probe.append(message(&conversation, Some("a"), None, 2_000));
    probe.append(message(&conversation, Some("a"), None, 2_000));
    assert_eq!(probe.head(&conversation), 5);
}

fn system_duplicates(mut probe: Probe) {
    let (one, other) = (ConversationId::system(&user("a")), ConversationId::system(&user("b")));
    probe.append(message(&one, None, Some("x"), 1_000));
    probe.append(message(&other, None, Some("x"), 1_000));
    let repeat = message(&other, None, Some("x"), 2_000);
    let repeat = probe.append_write(repeat, 0);
    assert!(matches!(probe.write(repeat), Answer::Duplicate { seq: Seq(1), .. }));
    // The system's ids are nobody else's.
    probe.append(message(&one, Some("a"), Some("x"), 1_000));
    // Who may not write any more is told of what they wrote, and writes nothing.
    let head = probe.head(&one);
    let mut only_repeat = |client_id: &str| {
        let mut write = probe.append_write(message(&one, Some("a"), Some(client_id), 2_000), 0);
        let Write::Append(append) = &mut write else { unreachable!("an append was made") };
        append.repeat_only = true;
        probe.write(write)
    };
    assert!(matches!(only_repeat("x"), Answer::Duplicate { .. }));
    assert!(matches!(only_repeat("new"), Answer::Done));
    assert_eq!(probe.head(&one), head);
}

fn duplicate_window(mut probe: Probe) {
    let conversation = private("a", "b");
    let mut append = |client_id: &str, at: u64, since: u64| {
        let draft = message(&conversation, Some("a"), Some(client_id), at);
        let write = probe.append_write(draft, since);
        match probe.write(write) {
            Answer::Appended(stored) => Ok(stored.seq.0),
            Answer::Duplicate { seq, .. } => Err(seq.0),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(append("x", 1_000, 0), Ok(1));
    assert_eq!(append("x", 2_000, 1_000), Err(1), "the window's first millisecond counts");
    assert_eq!(append("x", 2_001, 1_001), Ok(2), "and what was before it does not");
    assert_eq!(append("x", 2_002, 1_002), Err(2), "from now on the second is the first use");
    for number in 0..40 {
        assert_eq!(append(&number.to_string(), 5_000, 4_000), Ok(3 + number));
    }
    assert_eq!(append("7", 6_000, 4_000), Err(10));
}

fn rows_of_first_message(mut probe: Probe) {
    let (both, own, system) = (private("a", "b"), private("c", "c"), ConversationId::system(&user("b")));
    assert!(probe.row("a", &both).is_none());
    probe.append(message(&both, Some("a"), None, 1));
    probe.append(message(&own, Some("c"), None, 1));
    probe.append(message(&system, None, None, 1));
    probe.append(message(&both, Some("b"), None, 1));
    for (name, conversation, head) in [("a", &both, 2), ("b", &both, 2), ("c", &own, 1), ("b", &system, 1)] {
        let row = probe.row(name, conversation).unwrap();
        let expected = UserConversation {
            conversation: conversation.clone(),
            head: Seq(head),
            start_seq: Seq::NONE,
            read_seq: Seq::NONE,
            delivered_device: None,
            delivered_any: Seq::NONE,
            recent_from: None,
        };
        assert_eq!(*row, expected);
    }
    let mut names: Vec<String> = probe.user("b", "d").conversations.iter().map(|row| row.conversation.to_string()).collect();
    names.sort();
    assert_eq!(names, ["p:a:b", "s:b"]);
    assert!(probe.row("c", &both).is_none());
    assert!(probe.user("nobody", "d").conversations.is_empty());
    // A message to a group makes no rows: members have theirs.
    let room = ConversationId::group(&group("g"));
    probe.append(message(&room, Some("a"), None, 1));
    assert!(probe.row("a", &room).is_none());
}

fn range_bounds(mut probe: Probe) {
    let conversation = private("a", "b");
    assert_eq!(shape(&probe.page(range(&conversation))), (vec![], false, (1, 0)));
    probe.fill(&conversation, 10);
    let mut ask = |after: Option<u64>, before: Option<u64>, newest: bool, limit: u32| {
        let query = RangeQuery { after: after.map(Seq), before: before.map(Seq), newest, limit, ..range(&conversation) };
        shape(&probe.page(query))
    };
    assert_eq!(ask(None, None, false, 3), (vec![1, 2, 3], true, (1, 3)));
    assert_eq!(ask(None, None, true, 3), (vec![8, 9, 10], true, (8, 10)));
    assert_eq!(ask(Some(3), None, false, 3), (vec![4, 5, 6], true, (4, 6)));
    assert_eq!(ask(Some(7), None, false, 3), (vec![8, 9, 10], false, (8, 10)));
    assert_eq!(ask(None, Some(4), true, 3), (vec![1, 2, 3], false, (1, 3)));
    assert_eq!(ask(None, Some(8), true, 3), (vec![5, 6, 7], true, (5, 7)));
    assert_eq!(ask(Some(2), Some(6), false, 10), (vec![3, 4, 5], false, (3, 5)));
    assert_eq!(ask(Some(2), Some(6), true, 2), (vec![4, 5], true, (4, 5)));
    assert_eq!(ask(Some(2), Some(6), false, 2), (vec![3, 4], true, (3, 4)));
    assert_eq!(ask(Some(4), Some(5), false, 10), (vec![], false, (1, 0)));
    assert_eq!(ask(Some(10), None, false, 10), (vec![], false, (1, 0)));
    assert_eq!(ask(Some(u64::MAX), None, false, 10), (vec![], false, (1, 0)));
    assert_eq!(ask(None, Some(0), true, 10), (vec![], false, (1, 0)));
    assert_eq!(ask(None, Some(1), true, 10), (vec![], false, (1, 0)));
    assert_eq!(ask(None, Some(99), true, 1), (vec![10], true, (10, 10)));
    assert_eq!(ask(Some(0), Some(99), false, 10), ((1..=10).collect(), false, (1, 10)));
}

fn range_times(mut probe: Probe) {
    let conversation = private("a", "b");
    probe.fill(&conversation, 10);
    let mut ask = |since: Option<u64>, until: Option<u64>, newest: bool, limit: u32| {
        let times = (since.map(Millis), until.map(Millis));
        shape(&probe.page(RangeQuery { since: times.0, until: times.1, newest, limit, ..range(&conversation) }))
    };
    assert_eq!(ask(Some(3_000), Some(6_000), false, 10), (vec![3, 4, 5], false, (3, 5)));
    assert_eq!(ask(Some(3_001), Some(6_001), false, 10), (vec![4, 5, 6], false, (4, 6)));
    assert_eq!(ask(Some(3_000), None, false, 2), (vec![3, 4], true, (3, 4)));
    assert_eq!(ask(None, Some(6_000), true, 2), (vec![4, 5], true, (4, 5)));
    assert_eq!(ask(Some(11_000), None, true, 2), (vec![], false, (1, 0)));
    assert_eq!(ask(None, Some(1_000), true, 2), (vec![], false, (1, 0)));
    assert_eq!(ask(Some(3_100), Some(3_900), true, 2), (vec![], false, (1, 0)));
    let query =
        RangeQuery { after: Some(Seq(4)), since: Some(Millis(3_000)), until: Some(Millis(7_000)), ..range(&conversation) };
    assert_eq!(shape(&probe.page(query)), (vec![5, 6], false, (5, 6)));
}

fn range_times_unordered(mut probe: Probe) {
    let conversation = private("a", "b");
    for at in [1_000, 2_000, 9_000, 3_000, 4_000, 8_000] {
        probe.append(message(&conversation, Some("a"), None, at));
    }
    let mut ask = |since: u64, until: u64, newest: bool, limit: u32| {
        let query = RangeQuery { since: Some(Millis(since)), until: Some(Millis(until)), newest, limit, ..range(&conversation) };
        let page = probe.page(query);
        (seqs(&page), page.has_more)
    };
    assert_eq!(ask(2_000, 5_000, false, 10), (vec![2, 4, 5], false));
    assert_eq!(ask(8_000, 10_000, false, 10), (vec![3, 6], false));
    assert_eq!(ask(8_000, 10_000, true, 1), (vec![6], true));
    assert_eq!(ask(1_000, 4_000, false, 2), (vec![1, 2], true));
    assert_eq!(ask(5_000, 8_000, false, 2), (vec![], false));
}

fn range_bytes(mut probe: Probe) {
    let conversation = private("a", "b");
    for _ in 0..10 {
        let mut big = message(&conversation, Some("a"), None, 1);
        big.content = RawJson::string(&"x".repeat(1_000));
        probe.append(big);
    }
    let one = probe.page(RangeQuery { limit: 1, ..range(&conversation) }).messages[0].weight_bytes();
    let mut ask = |bytes_max: usize, newest: bool| {
        let query = RangeQuery { bytes_max, newest, ..range(&conversation) };
        shape(&probe.page(query))
    };
    assert_eq!(ask(0, false), (vec![1], true, (1, 1)));
    assert_eq!(ask(one, true), (vec![10], true, (10, 10)));
    assert_eq!(ask(one + 1, false), (vec![1, 2], true, (1, 2)));
    assert_eq!(ask(3 * one, true), (vec![8, 9, 10], true, (8, 10)));
    assert_eq!(ask(9 * one + 1, false), ((1..=10).collect(), false, (1, 10)));
}

fn hide(mut probe: Probe) {
    let conversation = private("a", "b");
    probe.fill(&conversation, 6);
    for seq in [3, 5, 6, 6, 77] {
        probe.done(Write::Hide { user: user("a"), conversation: conversation.clone(), seq: Seq(seq) });
    }
    let viewed =
        |name: &str, limit: u32, newest: bool| RangeQuery { viewer: Some(user(name)), limit, newest, ..range(&conversation) };
    assert_eq!(shape(&probe.page(viewed("a", 10, false))), (vec![1, 2, 4], false, (1, 6)));
    assert_eq!(shape(&probe.page(viewed("a", 3, false))), (vec![1, 2, 4], false, (1, 6)), "what is hidden is not more");
    assert_eq!(shape(&probe.page(viewed("a", 2, false))), (vec![1, 2], true, (1, 2)));
    assert_eq!(shape(&probe.page(viewed("a", 1, true))), (vec![4], true, (4, 6)));
    assert_eq!(seqs(&probe.page(viewed("b", 10, false))), [1, 2, 3, 4, 5, 6]);
    assert_eq!(seqs(&probe.page(range(&conversation))), [1, 2, 3, 4, 5, 6]);
    // Something hidden before it exists is not hidden when it comes.
    for number in 7..=77 {
        probe.append(message(&conversation, Some("a"), None, number * 1_000));
    }
    assert_eq!(seqs(&probe.page(viewed("a", 1, true))), [77]);
}

fn recall(mut probe: Probe) {
    let conversation = private("a", "b");
    let mut draft = message(&conversation, Some("a"), Some("x"), 1_000);
    draft.extra = Some(Box::new(MessageExtra { ext: Some(RawJson::from_validated("{\"a\":1}")), ..MessageExtra::default() }));
    let stored = probe.append(draft);
    probe.done(Write::Recall { conversation: conversation.clone(), seq: Seq(1), by: user("m") });
    probe.done(Write::Recall { conversation: conversation.clone(), seq: Seq(1), by: user("n") });
    probe.done(Write::Recall { conversation: conversation.clone(), seq: Seq(2), by: user("n") });
    probe.done(Write::Recall { conversation: private("x", "y"), seq: Seq(1), by: user("n") });
    let expected = stored.recalled(&user("m"));
    assert_eq!(*probe.located(stored.id).unwrap(), expected, "the first recall counts");
    assert_eq!(*probe.page(range(&conversation)).messages[0], expected);
    assert_eq!(probe.head(&conversation), 1);
    let repeat = message(&conversation, Some("a"), Some("x"), 2_000);
    let repeat = probe.append_write(repeat, 0);
    assert!(matches!(probe.write(repeat), Answer::Duplicate { seq: Seq(1), .. }), "its client id still counts");
    assert_eq!(Arc::strong_count(&stored), 1, "the content is kept nowhere");
}

fn membership(mut probe: Probe) {
    let room = ConversationId::group(&group("g"));
    assert!(probe.group("g").is_none());
    probe.change("g", |change| change.members_put = vec![member("early", Role::Member, 0)]);
    assert!(probe.group("g").is_none() && probe.row("early", &room).is_none(), "no group, no members");
    probe.make_group("g", &[("z", 0), ("a", 0)]);
    probe.fill(&room, 3);
    probe.change("g", |change| change.members_put = vec![member("m", Role::Member, 3)]);
    let state = probe.group("g").unwrap();
    assert_eq!(state.group, record("g", "title"));
    assert_eq!(state.head, Seq(3));
    let expected = [member("z", Role::Member, 0), member("a", Role::Member, 0), member("m", Role::Member, 3)];
    assert_eq!(state.members, expected, "in order of joining");
    let row = probe.row("m", &room).unwrap();
    assert_eq!((row.start_seq, row.read_seq, row.delivered_any, row.head), (Seq(3), Seq(3), Seq(3), Seq(3)));

    // A new role keeps the place and the row; a new record keeps the members.
    assert_eq!(probe.mark_read("z", &room, 2), (2, true));
    probe.change("g", |change| {
        change.record = Some(record("g", "new"));
        change.members_put = vec![member("z", Role::Owner, 0)];
        change.members_removed = vec![user("a"), user("stranger")];
    });
    let state = probe.group("g").unwrap();
    assert_eq!((state.group.name.as_str(), state.members), ("new", vec![member("z", Role::Owner, 0), expected[2].clone()]));
    assert_eq!(probe.row("z", &room).unwrap().read_seq, Seq(2));
    assert!(probe.row("a", &room).is_none());
    assert!(probe.user("a", "d").conversations.is_empty());

    // Coming back means starting at the end, behind the others.
    probe.change("g", |change| change.members_put = vec![member("a", Role::Member, 3)]);
    assert_eq!(probe.group("g").unwrap().members.last(), Some(&member("a", Role::Member, 3)));
    assert_eq!(probe.row("a", &room).unwrap().start_seq, Seq(3));
}

fn group_deleted(mut probe: Probe) {
    let room = ConversationId::group(&group("g"));
    probe.make_group("g", &[("a", 0), ("b", 0)]);
    probe.fill(&room, 4);
    probe.change("g", |change| change.delete = true);
    assert!(probe.group("g").is_none());
    assert!(probe.row("a", &room).is_none() && probe.row("b", &room).is_none());
    assert_eq!(probe.head(&room), 4);
    assert_eq!(seqs(&probe.page(range(&room))), [1, 2, 3, 4]);
    probe.change("g", |change| change.delete = true);
    probe.make_group("g", &[("c", 4)]);
    let state = probe.group("g").unwrap();
    assert_eq!((state.head, state.members), (Seq(4), vec![member("c", Role::Member, 4)]));
    assert_eq!(probe.append(message(&room, Some("c"), None, 9_000)).seq, Seq(5));
}

fn mark_read(mut probe: Probe) {
    let conversation = private("a", "b");
    assert_eq!(probe.mark_read("a", &conversation, 5), (0, false), "no row, no state");
    probe.fill(&conversation, 5);
    assert_eq!(probe.mark_read("a", &conversation, 3), (3, true));
    assert_eq!(probe.mark_read("a", &conversation, 2), (3, false));
    assert_eq!(probe.mark_read("a", &conversation, 3), (3, false));
    assert_eq!(probe.mark_read("a", &conversation, 99), (5, true));
    assert_eq!(probe.row("a", &conversation).unwrap().read_seq, Seq(5));
    assert_eq!(probe.row("b", &conversation).unwrap().read_seq, Seq::NONE);
    assert_eq!(probe.mark_read("stranger", &conversation, 5), (0, false));
}

fn deliveries(mut probe: Probe) {
    let conversation = private("a", "b");
    probe.deliver("a", "d", &conversation, 3);
    probe.fill(&conversation, 5);
    assert!(!probe.user("a", "d").device_known, "a device needs a row to have had something");
    probe.deliver("a", "d", &conversation, 3);
    probe.deliver("a", "d", &conversation, 2);
    probe.deliver("a", "e", &conversation, 4);
    probe.deliver("stranger", "d", &conversation, 4);
    let row = probe.row("a", &conversation).unwrap();
    assert_eq!((row.delivered_device, row.delivered_any), (Some(Seq(3)), Seq(4)));
    let of_new_device = &probe.user("a", "new").conversations[0];
    assert_eq!((of_new_device.delivered_device, of_new_device.delivered_any), (None, Seq(4)));
    probe.deliver("a", "d", &conversation, 99);
    assert_eq!(probe.row("a", &conversation).unwrap().delivered_any, Seq(5), "never past the end");
    assert_eq!(probe.row("b", &conversation).unwrap().delivered_any, Seq::NONE);
    assert!(probe.row("stranger", &conversation).is_none());

    // Leaving forgets what was had.
    probe.make_group("g", &[("a", 0)]);
    let room = ConversationId::group(&group("g"));
    probe.fill(&room, 2);
    probe.deliver("a", "d", &room, 2);
    probe.change("g", |change| change.members_removed = vec![user("a")]);
    probe.deliver("a", "d", &room, 2);
    assert!(probe.row("a", &room).is_none());
    probe.change("g", |change| change.members_put = vec![member("a", Role::Member, 2)]);
    assert_eq!(probe.row("a", &room).unwrap().delivered_device, None);
}

fn devices(mut probe: Probe) {
    let (one, other) = (private("a", "b"), private("a", "c"));
    probe.fill(&one, 3);
    probe.fill(&other, 3);
    assert!(!probe.user("a", "d").device_known);
    let deliveries = vec![delivery("a", "d", &one, 3), delivery("a", "d", &private("a", "z"), 3)];
    probe.done(Write::Device { user: user("a"), device: device("d"), at: Millis(5), deliveries });
    let state = probe.user("a", "d");
    assert!(state.device_known);
    let delivered = |conversation: &ConversationId| {
        state.conversations.iter().find(|row| row.conversation == *conversation).unwrap().delivered_device
    };
    assert_eq!((delivered(&one), delivered(&other), state.conversations.len()), (Some(Seq(3)), None, 2));
    assert!(!probe.user("a", "e").device_known);
    assert!(!probe.user("b", "d").device_known, "devices belong to their user");
    probe.done(Write::Device { user: user("fresh"), device: device("d"), at: Millis(5), deliveries: vec![] });
    assert!(probe.user("fresh", "d").device_known, "also of a user without conversations");
}

fn recent(mut probe: Probe) {
    let (one, other, room) = (private("a", "b"), private("b", "c"), ConversationId::group(&group("g")));
    probe.fill(&one, 10);
    probe.append(message(&other, Some("c"), None, 1_000));
    let member = Member { user: user("b"), role: Role::Member, joined_seq: Seq(2), joined_at: Millis(1) };
    for at in [20_000, 12_000, 21_000, 22_000] {
        probe.append(message(&room, Some("z"), None, at));
    }
    let record = Group { id: group("g"), name: "g".into(), open: true, created_at: Millis(1) };
    probe.done(Write::Group(Box::new(GroupChange {
        group: group("g"),
        record: Some(record),
        members_put: vec![member],
        members_removed: vec![],
        delete: false,
    })));
    let ask = |probe: &mut Probe, name: &str, since: Option<u64>| -> Vec<(u64, Option<u64>, u64)> {
        let read = Read::User { user: user("b"), device: device(name), recent_since: since.map(Millis) };
        let Answer::User(state) = probe.read(read) else { panic!("no user") };
        let found =
            [&one, &other, &room].map(|id| state.conversations.iter().find(|row| row.conversation == *id).unwrap().clone());
        found.iter().map(|row| (row.delivered_any.0, row.recent_from.map(|seq| seq.0), row.new_device_from().0)).collect()
    };
    assert_eq!(ask(&mut probe, "new", None), [(0, None, 0), (0, None, 0), (2, None, 2)]);
    assert_eq!(ask(&mut probe, "new", Some(8_000)), [(0, Some(7), 0), (0, Some(1), 0), (2, Some(0), 2)]);
    let delivery = |id: &ConversationId, seq| Delivery { user: user("b"), device: device("old"), conversation: id.clone(), seq };
    probe.done(Write::Device { user: user("b"), device: device("old"), at: Millis(5), deliveries: vec![delivery(&one, Seq(9))] });
    assert_eq!(ask(&mut probe, "new", Some(8_000))[0], (9, Some(7), 7), "what another device has had comes when it is recent");
    assert_eq!(ask(&mut probe, "new", Some(90_000))[0], (9, Some(10), 9), "what nobody has had comes however old it is");
    assert_eq!(ask(&mut probe, "old", Some(8_000))[0].1, None, "a known device goes on where it was");
    // Half of it is pruned; the rest begins where it began.
    probe.backend.prune(Millis(8_500), 1_000).unwrap();
    assert_eq!(ask(&mut probe, "new", Some(2_000))[0], (9, Some(8), 8));
    assert_eq!(ask(&mut probe, "new", Some(10_000))[0], (9, Some(9), 9));
}

fn contacts(mut probe: Probe) {
    probe.append(message(&private("a", "b"), Some("a"), None, 1));
    probe.make_group("g", &[("b", 0), ("c", 0)]);
    probe.append(message(&ConversationId::system(&user("a")), None, None, 1));
    probe.append(message(&ConversationId::system(&user("e")), None, None, 1));
    for (name, expected) in [("a", &["b"][..]), ("b", &["a", "c"]), ("c", &["b"]), ("d", &[]), ("e", &[])] {
        let others = ["a", "b", "c", "d", "e"].into_iter().filter(|other| *other != name).map(user).collect();
        let Answer::Contacts(contacts) = probe.read(Read::Contacts { user: user(name), others }) else { panic!("{name}") };
        assert!(contacts.iter().map(UserId::as_str).eq(expected.iter().copied()), "{name}: {contacts:?}");
    }
}

fn last_seen(mut probe: Probe) {
    probe.done(Write::LastSeen { user: user("a"), at: Millis(5) });
    probe.done(Write::LastSeen { user: user("a"), at: Millis(9) });
    probe.fill(&private("b", "b"), 1);
    match probe.read(Read::LastSeen { users: vec![user("a"), user("nobody"), user("b"), user("a")] }) {
        Answer::LastSeen(seen) => {
            let seen: Vec<(&str, Option<u64>)> = seen.iter().map(|(user, at)| (user.as_str(), at.map(|at| at.0))).collect();
            assert_eq!(seen, [("a", Some(9)), ("nobody", None), ("b", None), ("a", Some(9))], "in the order asked");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(probe.user("a", "d").last_seen, Some(Millis(9)));
}

fn prune(mut probe: Probe) {
    let (one, other) = (private("a", "b"), private("a", "c"));
    probe.fill(&one, 10);
    probe.fill(&other, 4);
    let first = probe.page(range(&one)).messages[0].id;
    let mut pruned = 0;
    for _ in 0..50 {
        pruned += probe.backend.prune(Millis(5_000), 3).unwrap();
    }
    assert_eq!(pruned, 8);
    assert!(probe.located(first).is_none());
    let page = probe.page(range(&one));
    assert_eq!((shape(&page), page.first_kept), (((5..=10).collect(), false, (1, 10)), Seq(5)));
    let page = probe.page(RangeQuery { after: Some(Seq(2)), limit: 2, ..range(&one) });
    assert_eq!(shape(&page), (vec![5, 6], true, (3, 6)));
    let page = probe.page(RangeQuery { before: Some(Seq(4)), newest: true, ..range(&one) });
    assert_eq!(shape(&page), (vec![], false, (1, 3)));
    let page = probe.page(range(&other));
    assert_eq!((shape(&page), page.first_kept), ((vec![], false, (1, 4)), Seq(5)));
    assert_eq!(probe.head(&other), 4);
    assert_eq!(probe.append(message(&other, Some("a"), None, 9_000)).seq, Seq(5));
    assert_eq!(probe.row("c", &other).unwrap().head, Seq(5));
    probe.done(Write::Recall { conversation: one.clone(), seq: Seq(2), by: user("a") });
}

fn prune_leaves_nothing(mut probe: Probe) {
    let (one, room) = (private("a", "b"), ConversationId::group(&group("g")));
    probe.fill(&one, 6);
    let id = probe.page(range(&one)).messages[1].id;
    probe.done(Write::Hide { user: user("b"), conversation: one.clone(), seq: Seq(2) });
    probe.done(Write::Hide { user: user("b"), conversation: one.clone(), seq: Seq(5) });
    assert_eq!(probe.backend.prune(Millis(4_500), 100), Ok(4));
    probe.backend.expire(Millis(0), 100).unwrap();
    assert!(probe.located(id).is_none());
    let seen = RangeQuery { viewer: Some(user("b")), ..range(&one) };
    assert_eq!(seqs(&probe.page(seen.clone())), [6], "a mark on a message that is kept stays");
    // The end is gone as well: unread counts, summaries and marks know of nothing, and the log goes on.
    assert_eq!(probe.backend.prune(Millis(9_000), 100), Ok(2));
    probe.backend.expire(Millis(0), 100).unwrap();
    assert_eq!(seqs(&probe.page(seen)), [0; 0]);
    assert!(matches!(probe.read(Read::Unread { user: user("b") }), Answer::Unread(entries) if entries.is_empty()));
    let mark = Write::MarkRead { user: user("b"), conversation: one.clone(), seq: Seq(3) };
    assert!(matches!(probe.write(mark), Answer::ReadAt { seq: Seq(3), moved: true, senders } if senders.is_empty()));
    let mark = Write::MarkRead { user: user("b"), conversation: one.clone(), seq: Seq(99) };
    assert!(matches!(probe.write(mark), Answer::ReadAt { seq: Seq(6), moved: true, .. }), "it is held to the end of the log");
    match probe.read(Read::Summaries { user: user("b"), limit: 10, cursor: None }) {
        Answer::Summaries { conversations, .. } => {
            assert_eq!((conversations[0].last_seq, conversations[0].unread), (Seq(6), 0));
            assert!(conversations[0].last_message.is_none());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(probe.append(message(&one, Some("a"), None, 10_000)).seq, Seq(7));
    assert!(matches!(probe.read(Read::Unread { user: user("b") }), Answer::Unread(entries) if entries[0].unread == 1));
    // A clock that steps back lets nothing go before what came before it.
    for at in [20_000, 12_000, 21_000] {
        probe.append(message(&room, Some("a"), None, at));
    }
    assert_eq!(probe.backend.prune(Millis(13_000), 100), Ok(1));
    assert_eq!(seqs(&probe.page(range(&room))), [1, 2, 3]);
    assert_eq!(probe.backend.prune(Millis(20_500), 100), Ok(2));
    assert_eq!(seqs(&probe.page(range(&room))), [3]);
}

fn expire(mut probe: Probe) {
    let conversation = private("a", "b");
    let append = |probe: &mut Probe, client_id: &str, at: u64, since: u64| {
        let write = probe.append_write(message(&conversation, Some("a"), Some(client_id), at), since);
        match probe.write(write) {
            Answer::Appended(stored) => Ok(stored.seq.0),
            Answer::Duplicate { seq, .. } => Err(seq.0),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(append(&mut probe, "x", 1_000, 0), Ok(1));
    assert_eq!(append(&mut probe, "y", 3_000, 0), Ok(2));
    // Messages may go before their client ids do.
    for _ in 0..10 {
        probe.backend.prune(Millis(9_000), 100).unwrap();
        probe.backend.expire(Millis(2_000), 1).unwrap();
    }
    assert_eq!(append(&mut probe, "y", 4_000, 900_000), Err(2), "a clock that leapt ahead closes no window");
    assert_eq!(append(&mut probe, "x", 5_000, 2_000), Ok(3));
    assert_eq!(append(&mut probe, "x", 5_001, 2_000), Err(3));
}

fn content(mut probe: Probe) {
    let conversation = private("a:b", "ü%");
    let mut draft = message(&conversation, Some("a:b"), Some("id \u{1F600}"), 1_000);
    draft.content = RawJson::from_validated("{\"n\":1.50e3,\"z\":\"\\u0000\\/\",\"a\":[null]}");
    draft.kind = MessageKind::Notification("friend_request".into());
    draft.extra = Some(Box::new(MessageExtra {
        mentions: Some(Mentions::Users(vec![user("x"), user("y")])),
        reply_to: Some(MessageId(u128::MAX)),
        loss_time_ms: Some(u64::MAX),
        ext: Some(RawJson::from_validated("{\"k\":[]}")),
        recalled_by: None,
    }));
    let stored = probe.append(draft.clone());
    draft.seq = Seq(1);
    draft.id = stored.id;
    assert_eq!(*stored, draft);
    assert_eq!(*probe.located(draft.id).unwrap(), draft);
    assert_eq!(*probe.page(range(&conversation)).messages[0], draft);
    let mut all = message(&conversation, Some("ü%"), None, 1_000);
    all.kind = MessageKind::Chat(MessageType::Custom);
    all.extra = Some(Box::new(MessageExtra { mentions: Some(Mentions::All), ..MessageExtra::default() }));
    let stored = probe.append(all);
    assert_eq!(*probe.page(range(&conversation)).messages[1], *stored);
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

    /// Contents found on all pages, in order.
    fn found(&mut self, name: &str, query: &str, only: Option<&ConversationId>, limit: u32) -> Vec<String> {
        let (mut contents, mut cursor) = (Vec::new(), None);
        for _ in 0..100 {
            let read = Read::Search { user: user(name), query: query.to_owned(), conversation: only.cloned(), limit, cursor };
            match self.read(read) {
                Answer::Found { messages, next } => {
                    assert!(messages.len() <= limit as usize);
                    contents.extend(messages.iter().map(|message| message.content.as_str().to_owned()));
                    cursor = next;
                }
                other => panic!("nothing searched: {other:?}"),
            }
            if cursor.is_none() {
                return contents;
            }
        }
        panic!("pages without end");
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

fn search(mut probe: Probe) {
    probe.make_group("g", &[("b", 0)]);
    let (one, room) = (private("a", "b"), ConversationId::group(&group("g")));
    assert!(probe.found("a", "hello", None, 10).is_empty());
    probe.say(&one, "b", "Hello World", 1_000);
    probe.say(&one, "a", "the world says: \"HELLO\"", 2_000);
    probe.say(&one, "b", "\u{4eca}\u{5929}\u{5929}\u{6c14}\u{5f88}\u{597d}", 3_000);
    probe.say(&room, "b", "hello, early", 1_500);
    probe.change("g", |change| change.members_put = vec![member("a", Role::Member, 1)]);
    probe.say(&room, "b", "hello, world", 2_500);
    probe.say(&private("b", "c"), "b", "hello world of others", 2_600);
    let found = probe.found("a", "hello world", None, 10);
    assert_eq!(found, ["\"hello, world\"", "\"the world says: \\\"HELLO\\\"\"", "\"Hello World\""], "newest first");
    assert_eq!(probe.found("a", "WORLD hello", Some(&one), 10).len(), 2);
    assert_eq!(probe.found("a", "\u{5929}\u{6c14}", None, 10).len(), 1, "words need no blanks around them");
    assert!(probe.found("a", "early", None, 10).is_empty(), "from before they joined");
    assert_eq!(probe.found("b", "early", None, 10).len(), 1);
    assert!(probe.found("a", "others", None, 10).is_empty() && probe.found("a", "hello moon", None, 10).is_empty());
    probe.done(Write::Hide { user: user("a"), conversation: one.clone(), seq: Seq(1) });
    probe.done(Write::Recall { conversation: one.clone(), seq: Seq(2), by: user("a") });
    assert_eq!(probe.found("a", "hello", None, 10), ["\"hello, world\""]);
    assert_eq!(probe.found("b", "hello", Some(&one), 10), ["\"Hello World\""]);
}

fn search_pages(mut probe: Probe) {
    let mut expected = Vec::new();
    for number in 0..40 {
        let partner = ["b", "c", "d"][number % 3];
        let content = format!("needle {number}");
        probe.say(&private("a", partner), "a", &content, 1_000 + number as u64 / 2);
        probe.say(&private("a", partner), partner, "hay", 1_000 + number as u64 / 2);
        expected.push(format!("\"{content}\""));
    }
    expected.sort();
    for limit in [1, 3, 7, 100] {
        let mut found = probe.found("a", "needle", None, limit);
        let time = |content: &String| content.trim_matches(|other: char| !other.is_ascii_digit()).parse::<u64>().unwrap() / 2;
        assert!(found.is_sorted_by_key(|content| std::cmp::Reverse(time(content))), "{found:?}");
        found.sort();
        assert_eq!(found, expected, "each once, in pages of {limit}");
    }
}
