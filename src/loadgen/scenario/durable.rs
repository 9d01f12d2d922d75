//! `bench durable`: how many messages a second become durable before their ack leaves, and how long an ack takes at half of
//! that. The same load on `store.durability = "memory"` and on the memory store, round by round in the same run, says what
//! durability costs.

use super::super::disk::lone_syncs;
use super::super::error::{BenchError, BenchResult};
use super::super::options::{Common, DurableOptions};
use super::super::plan::{Layout, Pattern};
use super::super::report::{Report, median, ratios};
use super::super::stage::{Setup, Stage, Window};
use super::super::tally::quantile;
use super::{doubts, load_figures};

/// Runs it.
pub fn run(options: &DurableOptions) -> BenchResult<Report> {
    if options.connections < 2 || !options.connections.is_multiple_of(2) {
        return Err(BenchError::Usage("--connections must be even: clients write to each other in pairs".to_owned()));
    }
    let common = &options.common;
    if !common.spawn || common.data.is_some() || common.store.is_some() {
        return Err(BenchError::Usage(
            "durable starts three servers of its own: give --spawn without --data and --store".to_owned(),
        ));
    }
    let mut commit = stage(options, "embedded", "commit")?;
    let mut buffered = stage(options, "embedded", "memory")?;
    let mut memory = stage(options, "memory", "memory")?;
    let path = commit.server.as_ref().map(|server| server.path.clone()).unwrap_or_default();
    let mut rounds = Rounds::default();
    let pattern = Pattern::Closed { outstanding: options.outstanding as usize, bytes: options.size };
    let count = options.rounds.max(1);
    for round in 0..count {
        rounds.syncs(lone_syncs(&path, LONE_SYNCS)?);
        for (stage, windows, name) in [
            (&mut commit, &mut rounds.commit, "durable"),
            (&mut buffered, &mut rounds.buffered, "durability = memory"),
            (&mut memory, &mut rounds.memory, "memory store"),
        ] {
            let what = format!("saturation, round {} of {count}: {name}", round + 1);
            windows.push(stage.window(pattern, options.warmup, options.seconds, None, &what)?);
        }
    }
    let saturation = median(&rounds.commit.iter().map(completed).collect::<Vec<f64>>());
    let rate = options.rate.unwrap_or(saturation / 2.0);
    let pattern = Pattern::Open { per_second: rate, bytes: options.size };
    for round in 0..count {
        rounds.syncs(lone_syncs(&path, LONE_SYNCS)?);
        let what = format!("{rate:.0} messages/s, round {} of {count}", round + 1);
        rounds.half.push(commit.window(pattern, options.warmup, options.seconds, None, &what)?);
        rounds.half_memory.push(memory.window(pattern, options.warmup, options.seconds, None, &what)?);
    }
    commit.finish();
    let setting = format!(
        "{} connections in pairs, {} bytes, {} rounds of {} s; {} outstanding each, then {rate:.0} messages/s",
        options.connections, options.size, options.rounds, options.seconds, options.outstanding
    );
    let mut report = Report::new("durable", setting);
    rounds.figures(&mut report, &commit);
    for stage in [&mut commit, &mut buffered, &mut memory] {
        stage.audit(&mut report)?;
    }
    Ok(report)
}

#[derive(Default)]
struct Rounds {
    commit: Vec<Window>,
    buffered: Vec<Window>,
    memory: Vec<Window>,
    half: Vec<Window>,
    half_memory: Vec<Window>,
    sync_p50_us: Vec<f64>,
    sync_p99_us: Vec<f64>,
}

/// A server on a store of this kind, with its clients. The server is several threads, so nothing is pinned unless asked.
fn stage(options: &DurableOptions, store: &'static str, durability: &str) -> BenchResult<Stage> {
    let common = Common {
        server_cpu: Some(options.common.server_cpu.clone().unwrap_or_default()),
        client_cpu: Some(options.common.client_cpu.clone().unwrap_or_default()),
        ..options.common.clone()
    };
    let setup = Setup {
        layout: Layout::Pairs { count: options.connections / 2 },
        spare: options.connections * 2,
        settings: vec![("COREHUB_STORE__DURABILITY", durability.to_owned())],
        store,
        small_buffer: None,
    };
    let mut stage = Stage::build(&common, setup)?;
    stage.open(options.connections)?;
    Ok(stage)
}

fn completed(window: &Window) -> f64 {
    window.per_second(window.tally.completed)
}

impl Rounds {
    fn syncs(&mut self, times: hdrhistogram::Histogram<u64>) {
        self.sync_p50_us.push(quantile(&times, 0.5));
        self.sync_p99_us.push(quantile(&times, 0.99));
    }

    fn figures(&self, report: &mut Report, stage: &Stage) {
        let rates = |windows: &[Window]| windows.iter().map(completed).collect::<Vec<f64>>();
        let (commit, buffered, memory) = (rates(&self.commit), rates(&self.buffered), rates(&self.memory));
        let saturation = median(&commit);
        let of_memory = ratios(&commit, &memory);
        report.figure("saturation_per_second", "durable messages at saturation, acked and delivered", "1/s", commit);
        report.figure("buffered_per_second", "the same with durability = memory", "1/s", buffered);
        report.figure("memory_per_second", "the same on the memory store", "1/s", memory);
        report.figure("saturation_ratio", "durable, in memory store", "", of_memory);
        let cpu = |windows: &[Window]| windows.iter().map(|window| window.cpu_us_per(window.tally.completed)).collect::<Vec<_>>();
        report.figure("cpu_us_per_message", "server processor time per durable message", "µs", cpu(&self.commit));
        report.figure("memory_cpu_us_per_message", "the same on the memory store", "µs", cpu(&self.memory));
        let acks = |windows: &[Window], at: f64| -> Vec<f64> {
            windows.iter().map(|window| quantile(&window.tally.ack_us, at)).collect()
        };
        report.figure(
            "saturation_ack_p99_us",
            "ack p99 at saturation (what is outstanding queues)",
            "µs",
            acks(&self.commit, 0.99),
        );
        report.figure("half_per_second", "open loop: delivered", "1/s", self.half_rates());
        report.figure("ack_p50_us", "open loop: ack p50, from due time", "µs", acks(&self.half, 0.5));
        let p99 = acks(&self.half, 0.99);
        let p99_ms = median(&p99) / 1_000.0;
        report.figure("ack_p99_us", "open loop: ack p99", "µs", p99);
        report.figure("ack_max_us", "open loop: slowest ack", "µs", acks(&self.half, 1.0));
        report.figure("memory_ack_p50_us", "memory store at the same rate: ack p50", "µs", acks(&self.half_memory, 0.5));
        report.figure("memory_ack_p99_us", "memory store at the same rate: ack p99", "µs", acks(&self.half_memory, 0.99));
        report.figure("sync_p50_us", "lone synced write of 4 KiB on this disk, p50", "µs", self.sync_p50_us.clone());
        report.figure("sync_p99_us", "lone synced write, p99", "µs", self.sync_p99_us.clone());
        load_figures(report, stage, &self.half);
        let saturated = doubts(report, &self.half, "open loop");
        // In the closed loop the generator shares the machine by intent: what comes through is what is asked for.
        report.at_least("durable messages per second", saturation, PER_SECOND_MIN, false);
        report.at_most("open loop: ack p99, ms", p99_ms, ACK_P99_MS_MAX, saturated);
    }

    fn half_rates(&self) -> Vec<f64> {
        self.half.iter().map(|window| window.per_second(window.tally.deliveries)).collect()
    }
}

const LONE_SYNCS: usize = 200;
const PER_SECOND_MIN: f64 = 80_000.0;
const ACK_P99_MS_MAX: f64 = 5.0;
