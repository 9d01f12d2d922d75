//! `bench stalled`: one member of a busy group stops reading for a while. The server may neither keep what that member does
//! not read in memory, nor let the others feel it, nor lose any of it.

use std::time::{Duration, Instant};

use super::super::error::{BenchError, BenchResult};
use super::super::options::StalledOptions;
use super::super::plan::{Layout, Pattern};
use super::super::process::Process;
use super::super::report::{Report, median, ratios};
use super::super::stage::{Setup, Stage, Window};
use super::super::tally::quantile;
use super::{doubts, latency_figures, load_figures};

/// Runs it.
pub fn run(options: &StalledOptions) -> BenchResult<Report> {
    if options.members < 3 {
        return Err(BenchError::Usage("--members must be at least 3: one sends, one stalls, one is measured".to_owned()));
    }
    let layout = Layout::Groups { count: 1, size: options.members };
    let stalled = options.members - 1;
    let patience = format!("{}s", (options.stall + options.warmup + 60.0).ceil());
    let setup = Setup {
        layout,
        spare: 8,
        // The member answers no ping while it stalls; how long a server waits for one is not what is measured here.
        settings: vec![("COREHUB_HEARTBEAT__TIMEOUT", patience.clone()), ("COREHUB_HEARTBEAT__WRITE_TIMEOUT", patience)],
        store: "embedded",
        small_buffer: Some((stalled, options.receive_buffer)),
    };
    let mut stage = Stage::build(&options.common, setup)?;
    stage.open(options.members)?;
    stage.enter(0, options.members)?;
    stage.rest(1.0, "settling");
    let mut rounds = Rounds::default();
    for round in 0..options.rounds.max(1) {
        let name = |kind: &str| format!("round {} of {}, {kind}", round + 1, options.rounds);
        rounds.free.push(measured(&mut stage, options, stalled, &name("everybody reads"))?);
        rounds.stalled.push(stall(&mut stage, options, stalled, &name("one member stalls"), &mut rounds.recoveries)?);
    }
    stage.finish();
    let mut report = Report::new(
        "stalled",
        format!(
            "group of {}, {} messages/s of {} bytes, one member stalls for {} s, {} rounds",
            options.members, options.rate, options.size, options.stall, options.rounds
        ),
    );
    rounds.figures(&mut report, &stage);
    stage.audit(&mut report)?;
    Ok(report)
}

#[derive(Default)]
struct Rounds {
    free: Vec<Measured>,
    stalled: Vec<Measured>,
    recoveries: Vec<Recovery>,
}

/// A window and what the server's memory did in it.
struct Measured {
    window: Window,
    growth_bytes: f64,
}

/// How the stalled member came back.
struct Recovery {
    behind: u64,
    seconds: f64,
    closed: bool,
}

fn measured(stage: &mut Stage, options: &StalledOptions, stalled: usize, what: &str) -> BenchResult<Measured> {
    let resident = |stage: &Stage| -> BenchResult<f64> {
        Ok(stage.process.as_ref().map_or(Ok(0), |process: &Process| process.memory().map(|memory| memory.resident))? as f64)
    };
    let before = resident(stage)?;
    let pattern = Pattern::Open { per_second: options.rate, bytes: options.size };
    let window = stage.window(pattern, options.warmup, options.stall, Some(stalled), what)?;
    Ok(Measured { window, growth_bytes: resident(stage)? - before })
}

fn stall(
    stage: &mut Stage,
    options: &StalledOptions,
    stalled: usize,
    what: &str,
    recoveries: &mut Vec<Recovery>,
) -> BenchResult<Measured> {
    stage.crew.set_reading(stalled, false)?;
    stage.crew.absent = Some(stalled);
    let measured = measured(stage, options, stalled, what);
    stage.crew.absent = None;
    let measured = measured?;
    let behind = stage.crew.outstanding()?;
    stage.crew.set_reading(stalled, true)?;
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs_f64(options.catch_up);
    let mut closed = false;
    // The close, when there was one, is only seen once the member reads again, behind what the kernel still held for it.
    while stage.crew.outstanding()? > 0 && Instant::now() < deadline {
        closed |= stage.crew.reopen_if_closed(stalled)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    recoveries.push(Recovery { behind, seconds: begun.elapsed().as_secs_f64(), closed });
    Ok(measured)
}

impl Rounds {
    fn figures(&self, report: &mut Report, stage: &Stage) {
        let p99 = |windows: &[Measured]| -> Vec<f64> {
            windows.iter().map(|measured| quantile(&measured.window.tally.delivery_us, 0.99)).collect()
        };
        let growth = |windows: &[Measured]| windows.iter().map(|measured| measured.growth_bytes / MEBIBYTE).collect::<Vec<f64>>();
        let (free, with) = (p99(&self.free), p99(&self.stalled));
        let factors = ratios(&with, &free);
        let factor = median(&factors);
        let worst_growth = growth(&self.stalled).into_iter().fold(f64::NEG_INFINITY, f64::max);
        report.figure("free_p99_us", "delivery p99 while everybody reads", "µs", free);
        report.figure("stalled_p99_us", "delivery p99 of the others during the stall", "µs", with);
        report.figure("p99_ratio", "p99 with a stall, in p99 without", "", factors);
        if stage.process.is_some() {
            report.figure("free_growth_mib", "resident memory growth while everybody reads", "MiB", growth(&self.free));
            report.figure("stalled_growth_mib", "resident memory growth during the stall", "MiB", growth(&self.stalled));
            report.at_most("memory growth during a stall, MiB", worst_growth, GROWTH_MIB_MAX, false);
        }
        let each = |value: &dyn Fn(&Recovery) -> f64| self.recoveries.iter().map(value).collect::<Vec<f64>>();
        report.figure("behind_messages", "messages the member was behind", "", each(&|recovery| recovery.behind as f64));
        report.figure("catch_up_seconds", "time it took to catch up", "s", each(&|recovery| recovery.seconds));
        report.figure(
            "closed_in_stall",
            "closed by the server in the stall",
            "",
            each(&|recovery| f64::from(u8::from(recovery.closed))),
        );
        let windows = |rounds: &[Measured]| rounds.iter().map(|measured| measured.window.clone()).collect::<Vec<Window>>();
        let (free, with) = (windows(&self.free), windows(&self.stalled));
        latency_figures(report, &with, true);
        load_figures(report, stage, &with);
        let saturated = doubts(report, &with, "with a stall") | doubts(report, &free, "without a stall");
        report.at_most("p99 with a stall, in p99 without", factor, P99_RATIO_MAX, saturated);
    }
}

const MEBIBYTE: f64 = 1_048_576.0;
const GROWTH_MIB_MAX: f64 = 32.0;
const P99_RATIO_MAX: f64 = 1.1;
