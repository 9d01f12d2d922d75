//! A disk that fails without the power going: a sync that does not succeed or takes long, no room, reads that fail.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::disk::LossyDisk;
use super::histories;
use super::run::{Ending, Run};
use crate::support::{Client, PATIENCE};

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
