//! Owns how a micro-benchmark is timed and told: nanoseconds per operation, best and median of several batches.
//!
//! Without `--bench` among the arguments (as `cargo test` starts it) every case runs once, so that benches do not rot. A word
//! among the arguments runs only the cases whose name contains it. Wall time depends on the machine; counts of instructions do
//! not: `--calls=N` runs each case exactly N times, so that the difference between two counts is the cost of the calls
//! (`perf/instructions.sh`).

use std::time::{Duration, Instant};

/// The cases of one bench program.
pub struct Bench {
    filter: Option<String>,
    /// Only the case with exactly this name.
    only: Option<String>,
    /// Exactly so many calls instead of timing.
    calls: Option<u64>,
}

impl Bench {
    /// Reads the process's arguments.
    pub fn from_arguments() -> Bench {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let asked = arguments.iter().find_map(|argument| argument.strip_prefix("--calls=")?.parse().ok());
        let only = arguments.iter().find_map(|argument| Some(argument.strip_prefix("--case=")?.to_owned()));
        let timed = arguments.iter().any(|argument| argument == "--bench");
        Bench {
            calls: asked.or((!timed).then_some(1)),
            only,
            filter: arguments.into_iter().find(|argument| !argument.starts_with('-')),
        }
    }

    /// Times `run`, which does `operations` operations each time it is called.
    pub fn case(&self, name: &str, operations: u64, mut run: impl FnMut()) {
        let filtered = self.filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str()));
        if filtered || self.only.as_ref().is_some_and(|only| only != name) {
            return;
        }
        if let Some(calls) = self.calls {
            (0..calls).for_each(|_| run());
            println!("{name}: {calls} calls of {operations} operations");
            return;
        }
        run();
        let mut batches: Vec<f64> = (0..BATCHES).map(|_| batch(operations, &mut run)).collect();
        batches.sort_by(f64::total_cmp);
        println!("{name:<44} {:>9.1} ns/op  (median {:.1})", batches[0], batches[BATCHES / 2]);
    }
}

/// Nanoseconds per operation over one batch.
fn batch(operations: u64, run: &mut impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < BATCH_DURATION {
        run();
        done += operations;
    }
    begun.elapsed().as_nanos() as f64 / done as f64
}

const BATCHES: usize = 9;
const BATCH_DURATION: Duration = Duration::from_millis(100);
