//! The proof that the simulator finds what is wrong and comes where it matters: planted faults, states reached, and seeds that
//! nobody has seen before.

use super::super::prove::hunt;
use super::super::run::{Failure, run};
use super::super::tally::Tally;
use crate::types::planted::Planted;

/// A bound on how many of the first seeds it takes; docs/SIMULATOR.md has the numbers.
#[test]
fn every_planted_fault_is_found() {
    let half = Planted::ALL.len() / 2;
    let missed: Vec<String> = std::thread::scope(|scope| {
        let hunters = [&Planted::ALL[..half], &Planted::ALL[half..]].map(|faults| {
            scope.spawn(move || {
                let verdicts = faults.iter().map(|fault| hunt(*fault, 0, PLANTED_SEEDS_MAX, MS));
                verdicts.filter(|verdict| verdict.found.is_none()).map(|verdict| verdict.to_string()).collect::<Vec<_>>()
            })
        });
        hunters.into_iter().flat_map(|hunter| hunter.join().expect("a failing run is caught within it")).collect()
    });
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_state_is_reached() {
    let sum = hold(0, FIXED_SEEDS);
    assert!(sum.unreached().is_empty(), "never reached: {:?}\n{sum}", sum.unreached());
    for kind in FAULTS {
        assert!(sum.faults.contains_key(kind), "no run had this fault: {kind}\n{sum}");
    }
}

#[test]
fn fresh_seeds_hold() {
    let first = getrandom::u64().expect("every machine that tests has randomness");
    println!("fresh seeds from {first} on: corehub-sim --seed {first} --seeds {FRESH_SEEDS} --virtual-ms {MS}");
    println!("{}", hold(first, FRESH_SEEDS));
}

fn hold(first: u64, seeds: u64) -> Tally {
    let mut sum = Tally::default();
    for at in 0..seeds {
        let seed = first.wrapping_add(at);
        match run(seed, MS) {
            Ok(tally) => sum.add(&tally),
            Err(failure) => panic!("{}", told(&failure)),
        }
    }
    sum
}

fn told(failure: &Failure) -> String {
    let Failure { seed, why, steps, .. } = failure;
    format!("seed {seed}: {why}\nreplay: corehub-sim --seed {seed} --virtual-ms {MS}\n{steps:#?}")
}

/// Kinds of faults that the fixed seeds must have had.
const FAULTS: [&str; 16] = [
    "clock set back",
    "clock set forward",
    "crash",
    "crash in the midst of a commit",
    "drain",
    "failed commit",
    "failed read",
    "full ring",
    "garbage from a client",
    "half-open connection",
    "reader that stops",
    "refused by a full store",
    "sockets held back by full rings",
    "stalled shard",
    "stalled store",
    "torn connection",
];
const MS: u64 = 3_000;
const PLANTED_SEEDS_MAX: u64 = 120;
const FIXED_SEEDS: u64 = 120;
const FRESH_SEEDS: u64 = 60;
