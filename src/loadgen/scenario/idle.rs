//! `bench idle`: what a silent, authenticated connection costs. Memory is the slope between two counts, since what a server
//! needs to exist at all says nothing about a million connections.

use std::time::Instant;

use super::super::error::{BenchError, BenchResult};
use super::super::options::IdleOptions;
use super::super::plan::Layout;
use super::super::process::{Memory, Process, percent, slab_bytes};
use super::super::report::Report;
use super::super::stage::{Setup, Stage};

/// Runs it.
pub fn run(options: &IdleOptions) -> BenchResult<Report> {
    let size = options.group_size.max(1);
    if options.baseline >= options.connections
        || !options.baseline.is_multiple_of(size)
        || !options.connections.is_multiple_of(size)
    {
        return Err(BenchError::Usage(format!(
            "--baseline {} must be below --connections {}, and both multiples of --group-size {size}",
            options.baseline, options.connections
        )));
    }
    let layout = Layout::Groups { count: options.connections / size, size };
    let setup = Setup { layout, spare: 0, settings: Vec::new(), store: "memory", small_buffer: None };
    let mut stage = Stage::build(&options.common, setup)?;
    let mut report = Report::new(
        "idle",
        format!("{} connections (baseline {}), groups of {}", options.connections, options.baseline, options.group_size),
    );
    let first = step(&mut stage, options, 0, options.baseline)?;
    let second = step(&mut stage, options, options.baseline, options.connections)?;
    opening_figures(&mut report, &stage, &second, options);
    memory_figures(&mut report, &stage, &first, &second, options);
    silence(&mut report, &mut stage, options)?;
    let sums = stage.crew.report()?;
    report.at_most("connections the server closed", sums.progress.closed as f64, 0.0, false);
    stage.finish();
    Ok(report)
}

/// One batch of connections, opened, grouped and settled.
struct Step {
    open_seconds: f64,
    open_cpu_ns: u64,
    enter_cpu_ns: u64,
    memory: Memory,
    slab: u64,
}

fn step(stage: &mut Stage, options: &IdleOptions, from: usize, until: usize) -> BenchResult<Step> {
    let (start, begun) = (stage.server_times()?, Instant::now());
    stage.open(until)?;
    let (opened, open_seconds) = (stage.server_times()?, begun.elapsed().as_secs_f64());
    if options.group_size > 0 {
        stage.enter(from, until)?;
    }
    let entered = stage.server_times()?;
    stage.rest(options.settle, "settling");
    Ok(Step {
        open_seconds,
        open_cpu_ns: opened.since(start).busy_ns,
        enter_cpu_ns: entered.since(opened).busy_ns,
        memory: stage.process.as_ref().map_or(Ok(Memory::default()), Process::memory)?,
        slab: slab_bytes(),
    })
}

fn opening_figures(report: &mut Report, stage: &Stage, step: &Step, options: &IdleOptions) {
    let count = (options.connections - options.baseline) as f64;
    report.figure("opened_per_second", "connections opened and authenticated", "1/s", vec![count / step.open_seconds]);
    if stage.process.is_none() {
        return;
    }
    report.figure("open_cpu_us", "server processor time to open one", "µs", vec![step.open_cpu_ns as f64 / 1_000.0 / count]);
    if options.group_size > 0 {
        let each = step.enter_cpu_ns as f64 / 1_000.0 / count;
        report.figure("join_cpu_us", "server processor time to create or join its group", "µs", vec![each]);
    }
}

fn memory_figures(report: &mut Report, stage: &Stage, first: &Step, second: &Step, options: &IdleOptions) {
    let count = (options.connections - options.baseline) as f64;
    let slope = |first: u64, second: u64| (second as f64 - first as f64) / count;
    if stage.process.is_some() {
        let user = slope(first.memory.anonymous, second.memory.anonymous);
        report.figure("user_bytes", "user memory per connection (slope)", "bytes", vec![user]);
        let resident = slope(first.memory.resident, second.memory.resident);
        report.figure("resident_bytes", "resident memory per connection (slope)", "bytes", vec![resident]);
        report.figure(
            "resident_total_bytes",
            "resident memory with all connections",
            "bytes",
            vec![second.memory.resident as f64],
        );
        report.at_most("user memory per connection, bytes", user, USER_BYTES_MAX, false);
    }
    let slab = slope(first.slab, second.slab);
    report.figure("slab_bytes", "kernel slab per connection, both ends (slope, whole machine)", "bytes", vec![slab]);
}

fn silence(report: &mut Report, stage: &mut Stage, options: &IdleOptions) -> BenchResult<()> {
    let (before, begun) = (stage.server_times()?, Instant::now());
    stage.rest(options.seconds, "silence");
    let (after, wall) = (stage.server_times()?, begun.elapsed());
    if stage.process.is_some() {
        let idle = percent(after.since(before).busy_ns, wall);
        report.figure("idle_cpu_percent", "idle server, of one processor", "%", vec![idle]);
        report.at_most("idle processor use, percent of one", idle, IDLE_PERCENT_MAX, false);
    }
    Ok(())
}

const USER_BYTES_MAX: f64 = 1_200.0;
const IDLE_PERCENT_MAX: f64 = 1.0;
