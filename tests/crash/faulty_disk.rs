//! A disk that fails without the power going: a sync that does not succeed or takes long, no room, reads that fail.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::disk::LossyDisk;
use super::histories;
use super::run::{Ending, Run};
use crate::support::{Client, PATIENCE, Server};

/// Breaks the sync of a commit in the midst of traffic, lets the server get over it, and then takes the power away: what is
/// acknowledged after the failure must not rest on what the failure lost.
fn a_failed_sync(order: &str, shards: u16) {
    let mut run = Run::start(order, shards, Some(LossyDisk::given()));
    for _ in 0..3 {
        run.wait_for_acks(50);
        let (refused, failed) = (run.refused(REFUSAL), failures(&run));
        tell(&run, order);
        let begun = Instant::now();
        while failures(&run) == failed || run.refused(REFUSAL) == refused {
            assert!(begun.elapsed() < PATIENCE, "nobody was told of a failed sync; refused: {:?}", run.refusals());
            std::thread::sleep(Duration::from_millis(5));
        }
        run.wait_for_acks(50);
        println!("{order}: works again {} ms after the failure", begun.elapsed().as_millis());
        run.end(Ending::CutAll);
        run.start_again();
    }
    run.wait_for_acks(50);
    run.settle().judge();
}

#[test]
#[ignore = "needs a disk that forgets: run scripts/powercut"]
fn a_failed_sync_that_keeps_its_pages_in_memory_acknowledges_nothing() {
    a_failed_sync("fail-sync 1 keep", 1);
}

#[test]
#[ignore = "needs a disk that forgets: run scripts/powercut"]
fn a_failed_sync_that_drops_its_pages_acknowledges_nothing() {
    a_failed_sync("fail-sync 1 drop", 4);
}

#[test]
#[ignore = "needs a disk that forgets: run scripts/powercut"]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let mut run = Run::start("full disk", 4, Some(LossyDisk::given()));
    for round in 0..3 {
        run.wait_for_acks(100);
        let refused = run.refused(REFUSAL);
        tell(&run, "full on");
        let begun = Instant::now();
        while run.refused(REFUSAL) < refused + 5 {
            assert!(begun.elapsed() < PATIENCE * 3, "the disk is full and nobody was told; refused: {:?}", run.refusals());
            std::thread::sleep(Duration::from_millis(20));
        }
        // Long enough for attempts to get over it.
        std::thread::sleep(Duration::from_millis(1_500));
        let acks = run.acks();
        let log = histories::read(&run.stage.server, "attentive", "g:all");
        assert!(!log.is_empty() && log.iter().all(|message| message.intact), "reads go on");
        println!("full disk: {} entries read meanwhile, {} acks came", log.len(), run.acks() - acks);
        tell(&run, "full off");
        let begun = Instant::now();
        run.wait_for_acks(20);
        println!("full disk: works again after {} ms", begun.elapsed().as_millis());
        if round == 1 {
            run.end(Ending::CutAll);
            run.start_again();
        }
    }
    run.settle().judge();
}

/// Every sync takes half a second. Whoever writes waits for it or is told to come back; nobody else notices.
fn a_slow_disk(shards: u16) {
    let disk = LossyDisk::given();
    let server = Server::start_in(shards, "[store]\nqueue = 64\n", &disk.folder.join(format!("slow-{shards}")));
    let mut alice = Client::connect(&server, "alice");
    let (mut bob, mut carol) = (Client::connect(&server, "bob"), Client::connect(&server, "carol"));
    alice.tell("bob", "before");
    bob.expect("new_message");
    disk.tell("slow-sync 500");
    for number in 0..SENDS {
        let data = json!({"to_user_id": "bob", "content": number.to_string()});
        alice.send_json(&json!({"type": "send_message", "message_id": format!("m{number}"), "data": data}));
    }
    let syncs = || disk.tell("count")["syncs"].as_u64().expect("the disk counts syncs");
    let before = syncs();
    for number in 0..20 {
        assert_eq!(carol.request("ping", json!({}))["type"], "pong");
        carol.send("typing", json!({"to_user_id": "bob", "state": if number % 2 == 0 { "start" } else { "stop" }}));
        assert_eq!(bob.expect("typing")["user_id"], "carol");
        let page = bob.ask("get_history", json!({"conversation_id": "p:alice:bob", "limit": 1}));
        assert!(!page["messages"].as_array().expect("a list").is_empty());
    }
    let meanwhile = syncs() - before;
    println!("slow disk, {shards} shards: 20 pings, typings and readings took {meanwhile} syncs of 500 ms");
    assert!(meanwhile < 20, "they wait for the disk: {meanwhile} syncs went by");
    let replies: Vec<Value> = (0..SENDS).map(|number| alice.reply_to(&format!("m{number}"))).collect();
    let (acked, refused): (Vec<&Value>, Vec<&Value>) = replies.iter().partition(|reply| reply["type"] == "ack");
    println!("slow disk, {shards} shards: {} sends acknowledged, {} refused", acked.len(), refused.len());
    assert!(!acked.is_empty() && !refused.is_empty(), "the queue has a bound, and what is within it is done");
    for reply in refused {
        let fault = &reply["data"];
        assert!(fault["name"] == "OVERLOADED" && fault["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{reply}");
    }
    disk.tell("slow-sync 0");
    // It has recovered by itself: what was refused is taken now, and everything is there once.
    for number in 0..SENDS {
        let data = json!({"to_user_id": "bob", "content": number.to_string()});
        let reply = alice.request_as(&format!("m{number}"), "send_message", data);
        assert_eq!(reply["type"], "ack", "{reply}");
    }
    bob.ask("ping", json!({}));
    let log = histories::read(&server, "bob", "p:alice:bob");
    assert_eq!(log.len(), SENDS + 1, "each is there once");
}

#[test]
#[ignore = "needs a disk that can be slow: run scripts/powercut"]
fn a_slow_disk_holds_up_only_who_writes_with_1_shard() {
    a_slow_disk(1);
}

#[test]
#[ignore = "needs a disk that can be slow: run scripts/powercut"]
fn a_slow_disk_holds_up_only_who_writes_with_4_shards() {
    a_slow_disk(4);
}

#[test]
#[ignore = "needs a disk that forgets: run scripts/powercut"]
fn a_slow_sync_holds_up_acknowledgements_and_nothing_else() {
    let mut run = Run::start("slow sync", 4, Some(LossyDisk::given()));
    run.wait_for_acks(50);
    let mut client = Client::connect(&run.stage.server, "patient");
    tell(&run, "slow-sync 500");
    for round in 0..5 {
        let (id, begun) = (format!("slow-{round}"), Instant::now());
        let data = json!({"to_user_id": "peer", "content": "x"});
        client.send_json(&json!({"type": "send_message", "message_id": id, "data": data}));
        client.send_json(&json!({"type": "ping", "message_id": format!("ping-{round}")}));
        let first = client.take_where("an answer", |envelope| envelope["message_id"].as_str().is_some());
        assert_eq!(first["type"], "pong", "a ping waits for the disk: {first}");
        assert_eq!(client.reply_to(&id)["type"], "ack");
        assert!(begun.elapsed() > Duration::from_millis(450), "acknowledged before a sync could end");
    }
    let begun = Instant::now();
    run.wait_for_acks(200);
    println!("slow sync: 200 acks in {} ms at 500 ms a sync", begun.elapsed().as_millis());
    run.end(Ending::CutAll);
    run.start_again();
    run.wait_for_acks(50);
    run.settle().judge();
}

#[test]
#[ignore = "needs a disk that forgets: run scripts/powercut"]
fn a_disk_that_fails_to_read_is_told_and_recovers() {
    let mut run = Run::start("failing reads", 4, Some(LossyDisk::given()));
    for round in 0..3 {
        // More than the caches hold.
        run.wait_for_acks(600);
        let failed = failed_reads(&run);
        let mut client = Client::connect(&run.stage.server, "walter");
        tell(&run, "fail-reads on");
        let begun = Instant::now();
        let mut refused = 0;
        while failed_reads(&run) == failed || refused == 0 {
            assert!(begun.elapsed() < PATIENCE, "nobody was told of {} failed reads", failed_reads(&run) - failed);
            forget_pages(&run.disk.as_ref().expect("this run has one").folder);
            let answer = client.request("get_history", json!({"group_id": "all", "after_seq": 0, "limit": 200}));
            refused += usize::from(answer["type"] == "error");
            assert!(answer["type"] == "history" || answer["data"]["name"] == REFUSAL, "{answer}");
        }
        if round == 1 {
            // What cannot be read cannot be started on.
            run.end(Ending::Kill);
            run.stage.server.begin_again();
            assert_eq!(run.stage.server.wait_for_exit().code(), Some(1));
            let log = run.stage.server.log();
            let told = log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            assert!(told.contains("/store/") || told.contains("/corehub."), "names no file: {log}");
            tell(&run, "fail-reads off");
            run.start_again();
        }
        tell(&run, "fail-reads off");
        let begun = Instant::now();
        run.wait_for_acks(20);
        println!("failing reads: works again after {} ms", begun.elapsed().as_millis());
    }
    run.settle().judge();
}

/// Opening a file makes the kernel forget what it has of it.
fn forget_pages(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("the disk lists its files") {
        let path = entry.expect("the disk lists its files").path();
        match path.is_dir() {
            true => forget_pages(&path),
            // It may be gone by now.
            false => drop(File::open(&path)),
        }
    }
}

fn tell(run: &Run, order: &str) {
    run.disk.as_ref().expect("this run has one").tell(order);
}

/// Operations that the disk has failed so far.
fn failures(run: &Run) -> u64 {
    let counters = run.disk.as_ref().expect("this run has one").tell("count");
    counters["failed"].as_u64().expect("the disk counts failures")
}

fn failed_reads(run: &Run) -> u64 {
    let counters = run.disk.as_ref().expect("this run has one").tell("count");
    counters["failed_reads"].as_u64().expect("the disk counts failures")
}

const REFUSAL: &str = "STORE_UNAVAILABLE";
/// More than a queue of the store holds.
const SENDS: usize = 300;
