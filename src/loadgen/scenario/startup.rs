//! `bench startup`: how long a server with much in its data folder takes from the start of its process until it is ready, with
//! files in the kernel's memory and without, after a clean end and after a kill; and how long a user with many conversations
//! takes to connect. The folder is written through the store before.

use std::time::{Duration, Instant};

use super::super::child::SpawnedServer;
use super::super::disk::{chill, folder_bytes};
use super::super::envelope::Seen;
use super::super::error::{BenchError, BenchResult};
use super::super::fill::{FilledFolder, Filler, user};
use super::super::options::StartupOptions;
use super::super::report::{Report, median};
use super::super::solo::{Caller, Manner, Solo};
use super::super::stage::{Spawning, progress, spawn};
use super::super::tally::{latencies, quantile, record};
use super::super::token::TokenMaker;
use crate::types::record::Delivery;
use crate::types::storage::Write;
use crate::types::{ConversationId, DeviceId, Seq, UserId};

/// Runs it.
pub fn run(options: &StartupOptions) -> BenchResult<Report> {
    if options.conversations < options.busy_user || options.messages < options.conversations {
        return Err(BenchError::Usage("--busy-user ≤ --conversations ≤ --messages must hold".to_owned()));
    }
    let common = &options.common;
    let line = progress(common);
    line.set_message(format!("filling a folder with {} messages", options.messages));
    let mark = format!("startup, {} messages, {} conversations, {}", options.messages, options.conversations, options.busy_user);
    let folder = FilledFolder::make(common, &mark, |filler| fill(filler, options))?;
    let mut starts = Starts::default();
    let start = || -> BenchResult<SpawnedServer> {
        let cpus = common.server_cpu.clone().unwrap_or_default();
        let order = Spawning { clients: 16, settings: Vec::new(), store: "embedded", data: Some(&folder.path) };
        spawn(common, order, &cpus)
    };
    // The first start is the first after filling; it is not counted, and leaves the folder as a server leaves it.
    drop(start()?);
    for round in 0..options.rounds.max(1) {
        line.set_message(format!("start {} of {}", round + 1, options.rounds));
        chill(&folder.path);
        let server = start()?;
        starts.cold.push(millis(server.ready_after));
        starts.resident.push(server.process.memory()?.resident as f64 / MEBIBYTE);
        drop(server);
        let server = start()?;
        starts.warm.push(millis(server.ready_after));
        server.kill();
        let server = start()?;
        starts.killed.push(millis(server.ready_after));
    }
    let server = start()?;
    let connects = connect_often(&server, common.path.clone(), options, &line)?;
    line.finish_and_clear();
    let mut report = Report::new("startup", setting(options, &folder));
    starts.figures(&mut report);
    report.figure("folder_mib", "data folder", "MiB", vec![folder_bytes(&folder.path) as f64 / MEBIBYTE]);
    report.figure("connect_p50_us", "connect of the user with many conversations until sync_done, p50", "µs", vec![connects.0]);
    report.figure("connect_p99_us", "connect of that user, p99", "µs", vec![connects.1]);
    report.figure("light_connect_p50_us", "connect of a user with two conversations, p50", "µs", vec![connects.2]);
    Ok(report)
}

fn setting(options: &StartupOptions, folder: &FilledFolder) -> String {
    let filled = folder.origin();
    format!(
        "{} messages over {} conversations ({filled}), one user with {} of them, {} starts of each kind; cold: the files were \
         dropped from the kernel's memory with posix_fadvise",
        options.messages, options.conversations, options.busy_user, options.rounds
    )
}

#[derive(Default)]
struct Starts {
    cold: Vec<f64>,
    warm: Vec<f64>,
    killed: Vec<f64>,
    resident: Vec<f64>,
}

impl Starts {
    fn figures(&self, report: &mut Report) {
        report.at_most("cold start until ready, ms", median(&self.cold), READY_MS_MAX, false);
        report.at_most("start after a kill until ready, ms", median(&self.killed), READY_MS_MAX, false);
        report.figure("cold_ms", "start until ready, files not in memory", "ms", self.cold.clone());
        report.figure("warm_ms", "start until ready, files in memory", "ms", self.warm.clone());
        report.figure("killed_ms", "start until ready after a kill", "ms", self.killed.clone());
        report.figure("resident_mib", "server, resident after the start", "MiB", self.resident.clone());
    }
}

/// Private conversations: the first ones are the busy user's, the others lie along a chain of users.
fn fill(filler: &mut Filler, options: &StartupOptions) -> BenchResult<()> {
    let busy = user(BUSY)?;
    let pairs = (0..options.conversations).map(|place| -> BenchResult<(UserId, UserId)> {
        let one = user(&chain(place))?;
        Ok((one, if place < options.busy_user { busy.clone() } else { user(&chain(place + 1))? }))
    });
    let pairs = pairs.collect::<BenchResult<Vec<_>>>()?;
    let text = "x".repeat(CONTENT_BYTES);
    for number in 0..options.messages {
        // All conversations in turn, in an order that is not theirs in the tables.
        let place = (number.wrapping_mul(2_654_435_761) % options.conversations) as usize;
        let (one, other) = &pairs[place];
        filler.message(one, &ConversationId::private(one, other), &text)?;
    }
    let device = DeviceId::unnamed();
    for (one, other) in &pairs {
        let conversation = ConversationId::private(one, other);
        let delivery = |user: &UserId| Delivery {
            user: user.clone(),
            device: device.clone(),
            conversation: conversation.clone(),
            seq: Seq(u64::MAX),
        };
        filler.write(Write::Deliveries(vec![delivery(one), delivery(other)]))?;
    }
    Ok(())
}

/// p50 and p99 of the busy user, p50 of another, in microseconds, from the first byte until `sync_done`.
fn connect_often(
    server: &SpawnedServer,
    path: String,
    options: &StartupOptions,
    line: &indicatif::ProgressBar,
) -> BenchResult<(f64, f64, f64)> {
    let caller = Caller { address: server.address, path, tokens: TokenMaker::new(server.secret.clone()) };
    let (mut busy, mut light) = (latencies(), latencies());
    for round in 0..CONNECTS {
        line.set_message(format!("connect {} of {CONNECTS}", round + 1));
        let other = chain(options.busy_user + 1 + round);
        for (name, times) in [(BUSY, &mut busy), (other.as_str(), &mut light)] {
            let begun = Instant::now();
            let mut solo = Solo::connect(&caller, name, Manner::default())?;
            solo.wait("sync_done", |seen, _| matches!(seen, Seen::Synced))?;
            record(times, 0, begun.elapsed().as_nanos() as u64);
        }
    }
    Ok((quantile(&busy, 0.5), quantile(&busy, 0.99), quantile(&light, 0.5)))
}

fn chain(place: u64) -> String {
    format!("startup-u{place:07}")
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

const BUSY: &str = "startup-busy";
const CONTENT_BYTES: usize = 100;
const CONNECTS: u64 = 50;
const READY_MS_MAX: f64 = 2_000.0;
const MEBIBYTE: f64 = 1_048_576.0;
