//! Proves the store's threads and clients: nothing lost, order kept, bounds held, faults answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::conformance::{self, device, group, message, private, user};
use super::*;
use crate::types::record::{Group, Member, Role};
use crate::types::storage::{Answer, Append, GroupChange, Operation, Read, StoreFault, StoreReply, StoreRequest, Ticket, Write};
use crate::types::{ConversationId, MessageId, Millis, Seq};

#[test]
fn memory_conforms() {
    conformance::suite(|| Box::new(MemoryBackend::new(1)));
}

#[test]
fn faulty_conforms_without_faults() {
    conformance::suite(|| Box::new(FaultyBackend::new(MemoryBackend::new(2), Faults::default())));
}

fn append(ticket: u64, conversation: &ConversationId) -> StoreRequest {
    let mut draft = message(conversation, Some("a"), None, ticket);
    draft.id = MessageId(u128::from(ticket));
    let append = Append { message: draft, head: None, dedupe_since: Millis(0), repeat_only: false };
    StoreRequest { ticket: Ticket(ticket), operation: Operation::Write(Write::Append(Box::new(append))) }
}

fn head(ticket: u64, conversation: &ConversationId) -> StoreRequest {
    let read = Read::Head { conversation: conversation.clone() };
    StoreRequest { ticket: Ticket(ticket), operation: Operation::Read(read) }
}

/// A store for this thread as its only client; wakes are counted.
fn start(backend: impl Backend + 'static, settings: StoreSettings) -> (StoreClient, StoreThreads, Arc<AtomicUsize>) {
    let wakes = Arc::new(AtomicUsize::new(0));
    let (counted, thread) = (wakes.clone(), std::thread::current());
    let wake: Wake = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        thread.unpark();
    });
    let parts = StoreParts { backend: Box::new(backend), wakes: vec![wake], settings, observer: None };
    let mut store = spawn(parts).unwrap();
    (store.clients.remove(0), store.threads, wakes)
}

/// Waits for `count` replies.
fn receive(client: &mut StoreClient, count: usize) -> Vec<StoreReply> {
    let mut replies = Vec::new();
    while replies.len() < count {
        if client.drain(usize::MAX, &mut |reply| replies.push(reply)) == 0 {
            assert!(!client.is_abandoned(), "the store died");
            std::thread::park();
        }
    }
    assert_eq!(replies.len(), count);
    replies
}

#[test]
fn every_request_is_answered_once_and_writes_keep_their_order() {
    let (mut client, threads, wakes) = start(MemoryBackend::new(1), StoreSettings::default());
    let conversation = private("a", "b");
    let mut next = 0;
    for round in 1..=100 {
        let mut requests: Vec<StoreRequest> = (0..round % 7 + 1).map(|at| append(next + at, &conversation)).collect();
        let count = requests.len();
        requests.push(head(1_000_000, &conversation));
        client.submit(&mut requests).unwrap();
        assert!(requests.is_empty());
        let replies = receive(&mut client, count + 1);
        for (at, reply) in replies[..count].iter().enumerate() {
            let ticket = next + at as u64;
            assert_eq!(reply.ticket, Ticket(ticket));
            assert!(matches!(&reply.result, Ok(Answer::Appended(stored)) if stored.seq == Seq(ticket + 1)));
        }
        next += count as u64;
        assert!(matches!(replies[count].result, Ok(Answer::Head(head)) if head == Seq(next)));
    }
    assert_eq!(client.under_way(), 0);
    drop(client);
    assert!(threads.join());
    assert_eq!(wakes.load(Ordering::SeqCst), 100, "one wake a batch");
}

#[test]
fn a_stalled_store_refuses_beyond_its_bounds_and_loses_nothing() {
    let faults = Faults::default();
    faults.stall();
    let settings = StoreSettings { client_requests_max: 10, client_submissions_max: 2, ..StoreSettings::default() };
    let (mut client, threads, _) = start(FaultyBackend::new(MemoryBackend::new(1), faults.clone()), settings);
    let conversation = private("a", "b");
    for ticket in 0..9 {
        client.submit(&mut vec![append(ticket, &conversation)]).unwrap();
    }
    let mut rest: Vec<StoreRequest> = (9..13).map(|ticket| append(ticket, &conversation)).collect();
    assert_eq!(client.submit(&mut rest), Err(Refused { retry_after_ms: 100 }));
    assert_eq!(rest.iter().map(|request| request.ticket.0).collect::<Vec<_>>(), [10, 11, 12], "as many as fit are taken");
    assert_eq!(client.under_way(), 10);
    faults.release();
    let replies = receive(&mut client, 10);
    assert_eq!(replies.iter().map(|reply| reply.ticket.0).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    client.submit(&mut rest).unwrap();
    let replies = receive(&mut client, 3);
    assert!(matches!(&replies[2].result, Ok(Answer::Appended(stored)) if stored.seq == Seq(13)));
    drop(client);
    assert!(threads.join());
}

#[test]
fn what_gathers_during_a_commit_is_committed_together() {
    let faults = Faults::default();
    faults.stall();
    let (mut client, threads, wakes) = start(FaultyBackend::new(MemoryBackend::new(1), faults.clone()), StoreSettings::default());
    let conversation = private("a", "b");
    client.submit(&mut vec![append(0, &conversation)]).unwrap();
    while faults.commits() == 0 {
        std::thread::yield_now();
    }
    for ticket in 1..40 {
        client.submit(&mut vec![append(ticket, &conversation)]).unwrap();
    }
    faults.release();
    receive(&mut client, 40);
    drop(client);
    assert!(threads.join());
    assert_eq!((faults.commits(), wakes.load(Ordering::SeqCst)), (2, 2));
}

#[test]
fn a_failed_commit_writes_nothing_and_answers_all() {
    let faults = Faults::default();
    faults.fail_commits(1);
    faults.fail_reads(1);
    let (mut client, threads, _) = start(FaultyBackend::new(MemoryBackend::new(1), faults), StoreSettings::default());
    let conversation = private("a", "b");
    client.submit(&mut vec![append(0, &conversation), append(1, &conversation), head(2, &conversation)]).unwrap();
    for reply in receive(&mut client, 3) {
        assert!(matches!(reply.result, Err(StoreFault::Unavailable(_))), "{reply:?}");
    }
    client.submit(&mut vec![head(3, &conversation), append(4, &conversation)]).unwrap();
    let replies = receive(&mut client, 2);
    assert!(matches!(&replies[0].result, Ok(Answer::Appended(stored)) if stored.seq == Seq(1)), "no seq was used up");
    assert!(matches!(replies[1].result, Ok(Answer::Head(Seq(1)))), "a read sees the writes of its batch");
    drop(client);
    assert!(threads.join());
}

#[test]
fn a_client_that_goes_away_holds_nobody_up() {
    let parked: Wake = Arc::new(|| {});
    let parts = StoreParts {
        backend: Box::new(MemoryBackend::new(1)),
        wakes: vec![parked.clone(), parked],
        settings: StoreSettings::default(),
        observer: None,
    };
    let mut store = spawn(parts).unwrap();
    let mut left = store.clients.remove(1);
    let mut stays = store.clients.remove(0);
    left.submit(&mut (0..50).map(|ticket| append(ticket, &private("a", "b"))).collect()).unwrap();
    drop(left);
    stays.submit(&mut vec![append(1, &private("a", "c"))]).unwrap();
    while stays.drain(1, &mut |_| {}) == 0 {
        std::thread::yield_now();
    }
    drop(stays);
    assert!(store.threads.join());
}

/// A backend that can be read beside its writer: both sides share one memory store behind a lock.
struct Readable(Arc<std::sync::Mutex<MemoryBackend>>);

struct Beside(Arc<std::sync::Mutex<MemoryBackend>>);

impl Backend for Readable {
    fn commit(&mut self, writes: &mut Vec<Write>, outcomes: &mut Vec<Outcome>) {
        self.0.lock().unwrap().commit(writes, outcomes);
    }
    fn read(&mut self, _: &Read) -> Outcome {
        panic!("reads go to the readers");
    }
    fn read_side(&self) -> Option<Arc<dyn ReadSide>> {
        Some(Arc::new(Beside(self.0.clone())))
    }
    fn prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, StoreFault> {
        self.0.lock().unwrap().prune(before, messages_max)
    }
}

impl ReadSide for Beside {
    fn read(&self, read: &Read) -> Outcome {
        self.0.lock().unwrap().read(read)
    }
}

#[test]
fn readers_answer_beside_the_writer_and_see_what_was_answered() {
    let backend = Readable(Arc::new(std::sync::Mutex::new(MemoryBackend::new(1))));
    let (mut client, threads, _) = start(backend, StoreSettings { client_submissions_max: 3, ..StoreSettings::default() });
    let conversation = private("a", "b");
    for round in 1..=50 {
        client.submit(&mut vec![append(round, &conversation)]).unwrap();
        receive(&mut client, 1);
        client.submit(&mut (0..40).map(|ticket| head(ticket, &conversation)).collect()).unwrap();
        let mut tickets: Vec<u64> = Vec::new();
        for reply in receive(&mut client, 40) {
            assert!(matches!(reply.result, Ok(Answer::Head(head)) if head == Seq(round)));
            tickets.push(reply.ticket.0);
        }
        tickets.sort_unstable();
        assert_eq!(tickets, (0..40).collect::<Vec<_>>());
    }
    drop(client);
    assert!(threads.join());
}

/// Not a judgement, a number: run with `--ignored --nocapture`. Processor time, since the machine has other work.
#[test]
#[ignore = "prints a measurement"]
fn measure_appends() {
    const BATCH: usize = 30;
    const TOTAL: u64 = 900_000;
    const USERS: u64 = 20_000;
    let cpu_ns = |clock| {
        let time = rustix::time::clock_gettime(clock);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    let conversations: Vec<ConversationId> =
        (0..USERS).map(|number| private(&format!("user-{number}"), &format!("user-{}", number + 1))).collect();
    let make = |ticket: u64| {
        let conversation = &conversations[(ticket.wrapping_mul(7_919) % USERS) as usize];
        let mut draft = message(conversation, Some("user-1"), Some(&ticket.to_string()), ticket);
        draft.id = MessageId(u128::from(ticket));
        let append =
            Append { message: draft, head: None, dedupe_since: Millis(ticket.saturating_sub(100_000)), repeat_only: false };
        StoreRequest { ticket: Ticket(ticket), operation: Operation::Write(Write::Append(Box::new(append))) }
    };

    let (mut backend, mut desk, mut submissions, mut spent) =
        (MemoryBackend::new(1), Desk::default(), [Submission::default()], 0);
    for first in (0..TOTAL).step_by(BATCH) {
        submissions[0].requests.extend((first..first + BATCH as u64).map(make));
        let begun = cpu_ns(rustix::time::ClockId::ThreadCPUTime);
        desk.serve(&mut backend, &mut submissions);
        submissions[0].replies.clear();
        spent += cpu_ns(rustix::time::ClockId::ThreadCPUTime) - begun;
    }
    eprintln!("{} ns an append in place", spent / TOTAL);

    let mut all: Vec<StoreRequest> = (0..TOTAL).rev().map(make).collect();
    let (mut client, threads, _) = start(MemoryBackend::new(1), StoreSettings::default());
    let clocks = [rustix::time::ClockId::ThreadCPUTime, rustix::time::ClockId::ProcessCPUTime];
    let begun = clocks.map(cpu_ns);
    let (mut requests, mut waits) = (Vec::new(), 0);
    while !all.is_empty() || client.under_way() > 0 {
        requests.extend(all.drain(all.len().saturating_sub(BATCH)..).rev());
        client.submit(&mut requests).unwrap();
        client.drain(256, &mut |_| {});
        while client.under_way() > 2_000 || all.is_empty() && client.under_way() > 0 {
            if client.drain(256, &mut |_| {}) == 0 {
                std::thread::park();
                waits += 1;
            }
        }
    }
    let spent = [cpu_ns(clocks[0]) - begun[0], cpu_ns(clocks[1]) - begun[1]].map(|spent| spent / TOTAL);
    eprintln!("{} ns on the shard, {} ns on both threads, {waits} waits", spent[0], spent[1]);
    drop(client);
    threads.join();
}

/// Not a judgement, a number: memory of memberships.
#[test]
#[ignore = "prints a measurement"]
fn measure_memberships() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
    };
    const USERS: usize = 200_000;
    let mut backend = MemoryBackend::new(1);
    let mut outcomes = Vec::new();
    let mut commit = |backend: &mut MemoryBackend, write| {
        backend.commit(&mut vec![write], &mut outcomes);
        outcomes.clear();
    };
    for number in 0..USERS {
        let (user, device) = (user(&format!("user-{number}")), device("default"));
        commit(&mut backend, Write::Device { user, device, at: Millis(1), deliveries: vec![] });
    }
    let before = resident();
    for number in 0..USERS / 10 {
        let name = format!("group-{number}");
        let members = (0..10).map(|at| Member {
            user: user(&format!("user-{}", number * 10 + at)),
            role: Role::Member,
            joined_seq: Seq(0),
            joined_at: Millis(1),
        });
        let change = GroupChange {
            group: group(&name),
            record: Some(Group { id: group(&name), name: "g".into(), open: true, created_at: Millis(1) }),
            members_put: members.collect(),
            members_removed: vec![],
            delete: false,
        };
        commit(&mut backend, Write::Group(Box::new(change)));
    }
    eprintln!("{} bytes a membership, group included (groups of 10)", (resident() - before) / USERS);
}
