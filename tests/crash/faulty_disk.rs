//! A disk that fails without the power going: one sync that does not succeed, and no room.

use std::time::{Duration, Instant};

use super::disk::LossyDisk;
use super::histories;
use super::run::{Ending, Run};
use crate::support::PATIENCE;

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

fn tell(run: &Run, order: &str) {
    run.disk.as_ref().expect("this run has one").tell(order);
}

/// Operations that the disk has failed so far.
fn failures(run: &Run) -> u64 {
    let counters = run.disk.as_ref().expect("this run has one").tell("count");
    counters["failed"].as_u64().expect("the disk counts failures")
}

const REFUSAL: &str = "STORE_UNAVAILABLE";
