//! Owns what every backend must do with its logs: numbers without gaps, client ids that count once, ranges. Never looks inside a
//! backend.

use super::{Probe, group, message, private, range, seqs, shape, user};
use crate::types::record::{Mentions, MessageExtra, MessageKind, MessageType, RawJson, UserConversation};
use crate::types::storage::{Answer, RangeQuery, Write};
use crate::types::{ConversationId, MessageId, Millis, Seq};

pub fn seq_without_gaps(mut probe: Probe) {
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

pub fn batch_in_order(mut probe: Probe) {
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

pub fn duplicates(mut probe: Probe) {
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

pub fn system_duplicates(mut probe: Probe) {
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

pub fn duplicate_window(mut probe: Probe) {
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

pub fn rows_of_first_message(mut probe: Probe) {
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

pub fn range_bounds(mut probe: Probe) {
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

pub fn range_times(mut probe: Probe) {
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

pub fn range_times_unordered(mut probe: Probe) {
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

pub fn range_bytes(mut probe: Probe) {
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

pub fn content(mut probe: Probe) {
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
