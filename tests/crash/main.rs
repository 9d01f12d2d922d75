//! Puts the real program through the ends, failures and strangers that a server meets, while clients talk, and lets an outside
//! checker decide from what the clients saw whether anything that was acknowledged was lost, doubled, or moved.
//!
//! `COREHUB_CRASH_KILLS`, `_DRAINS`, `_PAUSES`, `_BREAKS`, `_FLIPS` and `_CHURN` say how often, `_SEED` repeats the random
//! choices of a run. What needs a disk that loses what was not synced is started by `scripts/powercut`.

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod support;

mod churn;
mod disk;
mod facts;
mod faulty_disk;
mod flips;
mod half_open;
mod histories;
mod link;
mod participant;
mod run;
mod specimen;
mod verdict;
mod verdict_tests;
mod witness;

use disk::LossyDisk;
use run::{Ending, Manners, Run};

/// Kills of a run when nothing else is said: enough to be stopped by a fault, few enough for every change.
const KILLS_DEFAULT: u64 = 4;

const TIMES_DEFAULT: u64 = 2;
const BREAKS_DEFAULT: u64 = 40;
const BREAKING: Manners = Manners { durability: "commit", breaking: true };

fn kills() -> u64 {
    number("COREHUB_CRASH_KILLS").unwrap_or(KILLS_DEFAULT)
}

/// How often something is done that takes seconds.
fn times(name: &str) -> u64 {
    number(&format!("COREHUB_CRASH_{name}")).unwrap_or(TIMES_DEFAULT)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, not {text:?}")))
}

fn kills_lose_nothing(shards: u16) {
    Run::start("kills", shards, None).through(kills(), &[Ending::Kill]).settle().judge();
}

#[test]
fn kills_lose_nothing_with_1_shard() {
    kills_lose_nothing(1);
}

#[test]
fn kills_lose_nothing_with_4_shards() {
    kills_lose_nothing(4);
}

fn drains_lose_nothing(shards: u16) {
    Run::start("drains", shards, None).through(times("DRAINS"), &[Ending::Drain]).settle().judge();
}

#[test]
fn drains_lose_nothing_with_1_shard() {
    drains_lose_nothing(1);
}

#[test]
fn drains_lose_nothing_with_4_shards() {
    drains_lose_nothing(4);
}

fn pauses_lose_nothing(shards: u16) {
    Run::start_with(BREAKING, "pauses", shards, None).through_pauses(times("PAUSES")).settle().judge();
}

#[test]
fn pauses_lose_nothing_with_1_shard() {
    pauses_lose_nothing(1);
}

#[test]
fn pauses_lose_nothing_with_4_shards() {
    pauses_lose_nothing(4);
}

fn breaks_lose_nothing(shards: u16) {
    let breaks = number("COREHUB_CRASH_BREAKS").unwrap_or(BREAKS_DEFAULT);
    Run::start_with(BREAKING, "breaks", shards, None).through_breaks(breaks).settle().judge();
}

#[test]
fn breaks_lose_nothing_with_1_shard() {
    breaks_lose_nothing(1);
}

#[test]
fn breaks_lose_nothing_with_4_shards() {
    breaks_lose_nothing(4);
}

#[test]
fn damage_to_any_file_is_told_and_never_shown() {
    flips::run(number("COREHUB_CRASH_FLIPS"));
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
    let run = Run::start_with(Manners { durability: "memory", breaking: false }, "no sync", 1, Some(LossyDisk::given()));
    let verdict = run.through(6, &[Ending::CutAll]).verdict();
    assert!(verdict.counts.lost > 0, "the disk forgets nothing, so it proves nothing");
}
