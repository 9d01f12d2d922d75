//! Owns how every backend must forget: retention, and the end of client ids. Never looks inside a backend.

use super::{Probe, group, message, private, range, seqs, shape, user};
use crate::types::storage::{Answer, RangeQuery, Read, Write};
use crate::types::{ConversationId, Millis, Seq};

pub fn prune(mut probe: Probe) {
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

pub fn prune_leaves_nothing(mut probe: Probe) {
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

pub fn expire(mut probe: Probe) {
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
