//! Owns what every backend must do with where people stand: hiding and recall, groups, read and delivery state, devices. Never
//! looks inside a backend.

use std::sync::Arc;

use super::{Probe, delivery, device, group, member, message, private, range, record, seqs, shape, user};
use crate::types::record::{Delivery, Group, Member, MessageExtra, RawJson, Role};
use crate::types::storage::{Answer, GroupChange, RangeQuery, Read, Write};
use crate::types::{ConversationId, Millis, Seq, UserId};

pub fn hide(mut probe: Probe) {
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

pub fn recall(mut probe: Probe) {
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

pub fn membership(mut probe: Probe) {
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

pub fn group_deleted(mut probe: Probe) {
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

pub fn mark_read(mut probe: Probe) {
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

pub fn deliveries(mut probe: Probe) {
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

pub fn devices(mut probe: Probe) {
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

pub fn recent(mut probe: Probe) {
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

pub fn contacts(mut probe: Probe) {
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

pub fn last_seen(mut probe: Probe) {
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
