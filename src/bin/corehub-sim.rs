//! Owns the command line of the simulator: runs seeds, reports progress, prints a shrunken script when one fails, and proves
//! with planted faults that it finds what is wrong. Lives on as many threads as it is told; every run stays on one.
//!
//! Exit code 0: all held. 1: a seed failed, or a planted fault was not found. 2: it was called wrongly.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use corehub::sim::run::{Failure, run, run_once};
use corehub::sim::tally::Tally;

/// Runs whole nodes on a virtual clock, with faults, and judges what clients saw.
#[derive(Parser)]
#[command(name = "corehub-sim")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds to run; 1 when neither this nor --minutes is given. With --planted: until a fault must be found (400).
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
    /// Goes on after a seed has failed, and looks for no shorter scripts: to see how many fail, and how.
    #[arg(long)]
    keep_going: bool,
    /// Plants a fault, or `all` one after the other, and tells how many seeds it takes to find each. Needs a build with
    /// `--features planted-faults`.
    #[arg(long)]
    planted: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.planted {
        Some(name) => prove(name, &arguments),
        None => hold(&arguments),
    }
}

/// Runs seeds that must hold.
fn hold(arguments: &Arguments) -> ExitCode {
    let seeds = arguments.seeds.unwrap_or(if arguments.minutes.is_some() { u64::MAX } else { 1 });
    let begun = Instant::now();
    let deadline = arguments.minutes.map(|minutes| begun + Duration::from_secs(minutes * 60));
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Tally::default());
    println!("seeds from {} on, {} ms of work and faults each", arguments.seed, arguments.virtual_ms);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    let enough = failed.load(Ordering::Relaxed) && !arguments.keep_going;
                    if at >= seeds || late || enough {
                        return;
                    }
                    match one(arguments.seed.wrapping_add(at), arguments) {
                        Some(tally) => progress(arguments.seed.wrapping_add(at), &tally, &sum, begun),
                        None => failed.store(true, Ordering::Relaxed),
                    }
                }
            });
        }
    });
    print!("{}", sum.lock().unwrap_or_else(|held| held.into_inner()));
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs a seed; tells when it fails.
fn one(seed: u64, arguments: &Arguments) -> Option<Tally> {
    if arguments.keep_going {
        run_once(seed, arguments.virtual_ms).map_err(|why| println!("seed {seed} failed: {why}")).ok()
    } else {
        run(seed, arguments.virtual_ms).map_err(|failure| tell(&failure, arguments.virtual_ms)).ok()
    }
}

fn progress(seed: u64, tally: &Tally, sum: &Mutex<Tally>, begun: Instant) {
    let mut sum = sum.lock().unwrap_or_else(|held| held.into_inner());
    sum.add(tally);
    if sum.seeds.is_multiple_of(SEEDS_PER_LINE) {
        eprintln!(
            "{} seeds held, the last is {seed}: {:.1} simulated hours, {} events, {} s",
            sum.seeds,
            sum.virtual_ms as f64 / 3_600_000.0,
            sum.events,
            begun.elapsed().as_secs()
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

#[cfg(feature = "planted-faults")]
fn prove(name: &str, arguments: &Arguments) -> ExitCode {
    use corehub::sim::prove::hunt;
    use corehub::types::planted::Planted;

    let wanted: Vec<Planted> = Planted::ALL.into_iter().filter(|fault| name == "all" || format!("{fault:?}") == name).collect();
    if wanted.is_empty() {
        eprintln!("no fault is called {name}; there are: {:?}", Planted::ALL);
        return ExitCode::from(2);
    }
    let seeds = arguments.seeds.unwrap_or(400);
    println!("fault                  seeds  what was found first (of {seeds} seeds from {} on)", arguments.seed);
    let mut missed = 0;
    for fault in wanted {
        let verdict = hunt(fault, arguments.seed, seeds, arguments.virtual_ms);
        println!("{verdict}");
        missed += u32::from(verdict.found.is_none());
    }
    println!("{missed} planted faults were not found");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(feature = "planted-faults"))]
fn prove(_: &str, _: &Arguments) -> ExitCode {
    eprintln!("this build has no faults to plant: cargo run --features planted-faults --bin corehub-sim -- --planted all");
    ExitCode::from(2)
}

/// The end of a trace says most.
const TRACE_LINES_MAX: usize = 4_000;
const SEEDS_PER_LINE: u64 = 50;
