//! Owns the command line of the simulator: runs seeds, reports progress, and prints a shrunken script when one fails. Lives on
//! as many threads as it is told; every run stays on one.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use corehub::sim::run::{Failure, Summary, quiet_panics, run};

/// Runs whole nodes on a virtual clock, with faults, and judges what clients saw.
#[derive(Parser)]
#[command(name = "corehub-sim")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds to run; 1 when neither this nor --minutes is given.
    #[arg(long)]
    seeds: Option<u64>,
    /// How long to run, in minutes of real time.
    #[arg(long)]
    minutes: Option<u64>,
    /// Virtual milliseconds of work and faults per seed.
    #[arg(long, default_value_t = 20_000)]
    virtual_ms: u64,
    #[arg(long, default_value_t = 1)]
    threads: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    quiet_panics();
    let seeds = arguments.seeds.unwrap_or(if arguments.minutes.is_some() { u64::MAX } else { 1 });
    let deadline = arguments.minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    if at >= seeds || late || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = arguments.seed.wrapping_add(at);
                    match run(seed, arguments.virtual_ms) {
                        Ok(summary) => progress(at, seed, &summary, seeds),
                        Err(failure) => {
                            failed.store(true, Ordering::Relaxed);
                            tell(&failure, arguments.virtual_ms);
                        }
                    }
                }
            });
        }
    });
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn progress(at: u64, seed: u64, summary: &Summary, seeds: u64) {
    if seeds <= 20 || at.is_multiple_of(50) {
        let Summary { steps, connections, messages, heard, virtual_ms } = summary;
        eprintln!(
            "seed {seed}: {steps} steps, {connections} connections, {messages} messages, {heard} deliveries, {} s",
            virtual_ms / 1_000
        );
    }
}

fn tell(failure: &Failure, virtual_ms: u64) {
    println!("seed {} failed: {}", failure.seed, failure.why);
    println!("replay: corehub-sim --seed {} --virtual-ms {virtual_ms}", failure.seed);
    println!("what clients said and heard:");
    let left_out = failure.trace.len().saturating_sub(TRACE_LINES_MAX);
    for line in failure.trace.iter().skip(left_out) {
        println!("{line}");
    }
    println!("{} steps are enough:", failure.steps.len());
    for step in &failure.steps {
        println!("  after {} ms: {:?}", step.wait_ms, step.action);
    }
    println!("seed {} failed: {}", failure.seed, failure.why);
}

/// The end of a trace says most.
const TRACE_LINES_MAX: usize = 4_000;
