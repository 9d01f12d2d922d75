//! Shows that the checker sees what it is there for: a run that is in order, and one fault of each kind in it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::facts::{Ack, Conversations, Facts, Sent, Session, Stored};
use super::verdict::{Evidence, Verdict, judge};

/// Two people, three messages of one of them, all of them received by the other.
struct World {
    conversations: Conversations,
    facts: Vec<Facts>,
    log: Vec<Stored>,
}

impl World {
    fn in_order() -> World {
        let log: Vec<Stored> = (1..=3).map(stored).collect();
        let begun = Instant::now();
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        let sends = (1..=3).map(|seq| Sent {
            client_id: format!("a-{seq}"),
            conversation: "p:a:b".into(),
            attempts: 1,
            first_sent: at(seq * 10),
            acks: vec![ack(seq, at(seq * 10 + 5), false)],
        });
        let sender = Facts { user: "a".into(), sends: sends.collect(), settled: true, ..Facts::default() };
        let session = Session { device: "d".into(), pushes: log.clone(), ..Session::default() };
        let reader = Facts { user: "b".into(), sessions: vec![session], settled: true, ..Facts::default() };
        let conversations = [("p:a:b".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into();
        World { conversations, facts: vec![sender, reader], log }
    }

    fn judge(&self) -> Verdict {
        let facts: Vec<&Facts> = self.facts.iter().collect();
        let histories = HashMap::from([("p:a:b".to_owned(), self.log.clone())]);
        judge(&Evidence { conversations: &self.conversations, facts: &facts, histories, acks_min: 3 })
    }

    fn pushes(&mut self) -> &mut Vec<Stored> {
        &mut self.facts[1].sessions[0].pushes
    }
}

fn stored(seq: u64) -> Stored {
    Stored {
        conversation: "p:a:b".into(),
        seq,
        message_id: format!("id-{seq}"),
        sender: "a".into(),
        client_id: format!("a-{seq}"),
        intact: true,
        redelivered: false,
    }
}

fn ack(seq: u64, at: Instant, duplicate: bool) -> Ack {
    Ack { at, message_id: format!("id-{seq}"), conversation: "p:a:b".into(), seq, duplicate }
}

#[track_caller]
fn sees(expected: &str, harm: impl FnOnce(&mut World)) -> Verdict {
    let mut world = World::in_order();
    harm(&mut world);
    let verdict = world.judge();
    let seen = verdict.violations.iter().any(|violation| violation.contains(expected));
    assert!(seen, "{expected:?} is not among {:?}", verdict.violations);
    verdict
}

#[test]
fn a_run_in_order_passes() {
    let verdict = World::in_order().judge();
    assert_eq!(verdict.violations, [""; 0]);
    assert_eq!((verdict.counts.acks, verdict.counts.lost, verdict.counts.pushes), (3, 0, 3));
}

#[test]
fn too_little_traffic_is_no_verdict() {
    sees("no verdict without traffic", |world| world.facts[0].sends[0].acks.clear());
}

#[test]
fn a_lost_message_is_seen() {
    let verdict = sees("a-3 was acknowledged as p:a:b seq 3, the log has None", |world| drop(world.log.pop()));
    assert_eq!(verdict.counts.lost, 1);
}

#[test]
fn a_gap_in_a_log_is_seen() {
    sees("has seq 3 in the place of 2", |world| drop(world.log.remove(1)));
}

#[test]
fn a_message_stored_twice_is_seen() {
    let again = |world: &mut World| world.log.push(Stored { seq: 4, message_id: "id-4".into(), ..stored(1) });
    assert_eq!(sees("a-1 of a is stored twice", again).counts.duplicates, 1);
}

#[test]
fn a_message_of_nobody_and_a_changed_one_are_seen() {
    sees("holds x, which nobody sent there", |world| world.log.push(Stored { client_id: "x".into(), ..stored(4) }));
    sees("the content of a-2", |world| world.log[1].intact = false);
}

#[test]
fn acks_that_contradict_each_other_are_seen() {
    let now = Instant::now();
    sees("acknowledged in two places", |world| world.facts[0].sends[0].acks.push(ack(2, now, true)));
    sees("2 acks without `duplicate`", |world| world.facts[0].sends[0].acks.push(ack(1, now, false)));
    sees("0 acks without `duplicate`", |world| world.facts[0].sends[0].acks[0].duplicate = true);
}

#[test]
fn a_later_message_with_a_smaller_seq_is_seen() {
    sees("a-1 has seq 1 in p:a:b, sent after 3", |world| {
        world.facts[0].sends[0].first_sent += Duration::from_millis(100);
        world.facts[0].sends[0].acks[0].at += Duration::from_millis(100);
    });
}

#[test]
fn a_message_that_never_arrived_is_seen() {
    let verdict = sees("b never got id-3", |world| drop(world.pushes().pop()));
    assert_eq!(verdict.counts.lost, 1);
}

#[test]
fn repeats_and_disorder_within_a_connection_are_seen() {
    sees("seq 3 again after 3", |world| world.pushes().push(stored(3)));
    sees("seq 2 again after 3", |world| world.pushes().swap(1, 2));
    let mut world = World::in_order();
    world.pushes().push(Stored { redelivered: true, ..stored(3) });
    assert_eq!(world.judge().violations, [""; 0]);
}

#[test]
fn a_gap_within_a_connection_is_seen() {
    sees("seq 3 after 1, without 2", |world| {
        let pushes = world.pushes().clone();
        let earlier = Session { device: "c".into(), pushes: vec![pushes[1].clone()], ..Session::default() };
        world.pushes().remove(1);
        world.facts[1].sessions.insert(0, earlier);
    });
    let mut world = World::in_order();
    let all = world.pushes().clone();
    world.pushes().remove(1);
    let earlier = Session { device: "c".into(), pushes: all, ..Session::default() };
    world.facts[1].sessions.insert(0, earlier);
    world.facts[1].sessions[1].cursors.insert("p:a:b".into(), 2);
    assert_eq!(world.judge().violations, [""; 0], "the client had said that it has it");
}

#[test]
fn a_push_that_differs_from_the_log_is_seen() {
    sees("the log has", |world| world.pushes()[1].message_id = "id-other".into());
}
