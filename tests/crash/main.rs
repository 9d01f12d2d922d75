//! Kills the real program at random moments while clients talk, starts it again on the same data, and lets an outside checker
//! decide from what the clients saw whether anything that was acknowledged was lost, doubled, or moved.
//!
//! `COREHUB_CRASH_KILLS` sets the kills per run, `COREHUB_CRASH_SEED` repeats the random choices of a run. What needs a disk that
//! loses what was not synced is started by `scripts/powercut`.

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod support;

mod disk;
mod facts;
mod faulty_disk;
mod histories;
mod link;
mod participant;
mod run;
mod verdict;
mod verdict_tests;

use disk::LossyDisk;
use run::{Ending, Run};

/// Kills of a run when nothing else is said: enough to be stopped by a fault, few enough for every change.
const KILLS_DEFAULT: u64 = 4;

fn kills() -> u64 {
    number("COREHUB_CRASH_KILLS").unwrap_or(KILLS_DEFAULT)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, not {text:?}")))
}

#[test]
fn kills_lose_nothing_with_1_shard() {
    Run::start("kills", 1, None).through(kills(), &[Ending::Kill]).settle().judge();
}

#[test]
fn kills_lose_nothing_with_4_shards() {
    Run::start("kills", 4, None).through(kills(), &[Ending::Kill]).settle().judge();
}

#[test]
#[ignore = "needs a disk that forgets: run scripts/powercut"]
fn power_cuts_lose_nothing_with_1_shard() {
    Run::start("power cuts", 1, Some(LossyDisk::given())).through(kills(), &Ending::CUTS).settle().judge();
}

#[test]
#[ignore = "needs a disk that forgets: run scripts/powercut"]
fn power_cuts_lose_nothing_with_4_shards() {
    Run::start("power cuts", 4, Some(LossyDisk::given())).through(kills(), &Ending::CUTS).settle().judge();
}

#[test]
#[ignore = "needs a disk that forgets: run scripts/powercut"]
fn a_server_that_does_not_sync_is_found_out() {
    let run = Run::start_with("memory", "no sync", 1, Some(LossyDisk::given()));
    let verdict = run.through(6, &[Ending::CutAll]).verdict();
    assert!(verdict.counts.lost > 0, "the disk forgets nothing, so it proves nothing");
}
