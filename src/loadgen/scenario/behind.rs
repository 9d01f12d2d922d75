//! `bench behind`: a device that is many messages behind comes back over a bad network, while messages for it and for others go
//! on. It must get everything in order; the server may not keep its backlog in memory; the others may not feel it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::envelope::{Names, Seen, Stamp, Target, text_after};
use super::super::error::{BenchError, BenchResult};
use super::super::options::{BehindOptions, Common};
use super::super::plan::{Layout, Pattern};
use super::super::report::{Report, median};
use super::super::solo::{Caller, Manner, Solo};
use super::super::stage::{Setup, Stage, Window};
use super::super::tally::quantile;
use super::{doubts, load_figures};

/// Runs it.
pub fn run(options: &BehindOptions) -> BenchResult<Report> {
    if options.others < 2 || !options.others.is_multiple_of(2) || options.conversations == 0 {
        return Err(BenchError::Usage("--others must be even and --conversations at least 1".to_owned()));
    }
    let mut stage = build(options)?;
    stage.open(options.others)?;
    let names = Names::fresh();
    let mut senders = fill(&stage, options, &names)?;
    let pattern = Pattern::Open { per_second: options.rate, bytes: options.size };
    let mut run = Run::default();
    let before = resident(&stage)?;
    run.free_windows(&mut stage, pattern, options, "without it")?;
    run.free_growth_mib = (resident(&stage)? - before) / MEBIBYTE;
    let shared = Shared::default();
    let manner =
        Manner { acks: options.acks, bytes_per_second: Some(options.pace / 8.0), buffer_bytes: Some(options.receive_buffer) };
    let caller = caller(&stage, options)?;
    let base = resident(&stage)?;
    let device = thread::scope(|scope| -> BenchResult<Device> {
        let _ended = Ending(&shared);
        let reader = scope.spawn(|| catch_up(&caller, &names.user(DEVICE), manner, &shared));
        let live = scope.spawn(|| send_live(&mut senders, &names, options, &shared));
        let begun = Instant::now();
        while !shared.done(options) && !reader.is_finished() && begun.elapsed().as_secs_f64() < options.catch_up {
            let got = shared.received.load(Ordering::Relaxed);
            let what = format!("{got} of {} messages have arrived", options.messages);
            let end = Instant::now() + Duration::from_secs_f64(options.seconds + 1.0);
            let stage = &mut stage;
            let process = stage.process.clone();
            let sampler = scope.spawn(move || -> BenchResult<f64> {
                let mut most = 0.0;
                while Instant::now() < end {
                    most = process
                        .as_ref()
                        .map_or(Ok(0), |process| process.memory().map(|memory| memory.resident))?
                        .max(most as u64) as f64;
                    thread::sleep(SAMPLE_EVERY);
                }
                Ok(most)
            });
            run.with.push(stage.window(pattern, 1.0, options.seconds, None, &what)?);
            let most = sampler.join().map_err(|_| BenchError::Worker("reading memory panicked".to_owned()))??;
            run.growth_mib.push((most - base) / MEBIBYTE);
            run.outbox_kib
                .extend(stage.server.as_ref().and_then(|server| server.metric("corehub_outbox_bytes")).map(|b| b / 1024.0));
            run.lagging.extend(stage.server.as_ref().and_then(|server| server.metric("corehub_lagging_connections")));
        }
        shared.stop_live.store(true, Ordering::Release);
        let sent = live.join().map_err(|_| BenchError::Worker("the live sender panicked".to_owned()))??;
        shared.due.store(options.messages as u64 + sent, Ordering::Release);
        let mut device = reader.join().map_err(|_| BenchError::Worker("the reader panicked".to_owned()))??;
        device.due = options.messages as u64 + sent;
        Ok(device)
    })?;
    // Tables are written by now that were not when it began: the same must hold for what it is compared with.
    run.free_windows(&mut stage, pattern, options, "without it again")?;
    stage.finish();
    let mut report = Report::new("behind", setting(options));
    run.figures(&mut report, &stage, &device);
    stage.audit(&mut report)?;
    Ok(report)
}

fn setting(options: &BehindOptions) -> String {
    format!(
        "{} messages of {} bytes behind over {} conversations, read at {} Mbit/s{}, {} more per second; {} others write {} \
         per second",
        options.messages,
        options.size,
        options.conversations,
        options.pace / 1e6,
        if options.acks { " and confirmed" } else { "" },
        options.live,
        options.others,
        options.rate
    )
}

fn build(options: &BehindOptions) -> BenchResult<Stage> {
    let common = Common {
        server_cpu: Some(options.common.server_cpu.clone().unwrap_or_default()),
        client_cpu: Some(options.common.client_cpu.clone().unwrap_or_default()),
        ..options.common.clone()
    };
    let setup = Setup {
        layout: Layout::Pairs { count: options.others / 2 },
        spare: options.conversations + 64,
        // What the store gathers and keeps in memory fills up with any traffic: it is not to hide what the device takes.
        settings: vec![
            ("COREHUB_STORE__WRITE_BUFFER_BYTES", STORE_BYTES.to_owned()),
            ("COREHUB_STORE__CACHE_BYTES", STORE_BYTES.to_owned()),
        ],
        store: "embedded",
        small_buffer: None,
    };
    Stage::build(&common, setup)
}

/// The device is known and gone; then everyone writes to it.
fn fill(stage: &Stage, options: &BehindOptions, names: &Names) -> BenchResult<Vec<Solo>> {
    let caller = &stage.caller;
    let mut device = Solo::connect(caller, &names.user(DEVICE), Manner::default())?;
    device.wait("sync_done", |seen, _| matches!(seen, Seen::Synced))?;
    drop(device);
    let mut senders = Vec::new();
    for place in 0..options.conversations {
        let mut sender = Solo::connect(caller, &names.user(place), Manner::default())?;
        let share = options.messages / options.conversations + usize::from(place < options.messages % options.conversations);
        let messages = (0..share).map(|number| message(names, options.size, number as u32));
        sender.send_all(messages, SENT_TOGETHER)?;
        senders.push(sender);
    }
    Ok(senders)
}

fn message(names: &Names, size: usize, number: u32) -> String {
    let mut text = Vec::new();
    // Any time but 0, which marks requests of another kind.
    names.send(&mut text, Target::User(DEVICE), Stamp { due_ns: 1, number }, size);
    String::from_utf8(text).unwrap_or_default()
}

fn caller(stage: &Stage, options: &BehindOptions) -> BenchResult<Caller> {
    Ok(Caller { address: stage.caller.address, path: options.common.path.clone(), tokens: stage.caller.tokens.clone() })
}

fn resident(stage: &Stage) -> BenchResult<f64> {
    Ok(stage.process.as_ref().map_or(Ok(0), |process| process.memory().map(|memory| memory.resident))? as f64)
}

/// What the threads tell each other.
#[derive(Default)]
struct Shared {
    received: AtomicU64,
    stop_live: AtomicBool,
    /// How many messages the device is to get in all; 0 while that is open.
    due: AtomicU64,
    give_up: AtomicBool,
}

impl Shared {
    fn done(&self, options: &BehindOptions) -> bool {
        self.received.load(Ordering::Acquire) >= options.messages as u64
    }
}

/// Ends the other threads however the measuring thread leaves.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.stop_live.store(true, Ordering::Release);
        self.0.give_up.store(true, Ordering::Release);
    }
}

/// What the device got.
#[derive(Default)]
struct Device {
    due: u64,
    received: u64,
    disordered: u64,
    repeated: u64,
    skipped: u64,
    seconds: f64,
    bytes: u64,
}

fn catch_up(caller: &Caller, user: &str, manner: Manner, shared: &Shared) -> BenchResult<Device> {
    let begun = Instant::now();
    let mut solo = Solo::connect(caller, user, manner)?;
    let (mut device, mut lasts): (Device, HashMap<String, u64>) = (Device::default(), HashMap::new());
    let mut quiet_since = Instant::now();
    loop {
        let due = shared.due.load(Ordering::Acquire);
        if shared.give_up.load(Ordering::Acquire) || (due > 0 && (device.received >= due || quiet_since.elapsed() > QUIET_MAX)) {
            return Ok(device);
        }
        let Some((seen, text)) = solo.next(Duration::from_millis(200))? else { continue };
        quiet_since = Instant::now();
        device.bytes += text.len() as u64;
        match seen {
            Seen::Delivered { seq, .. } => {
                let conversation = text_after(&text, "\"conversation_id\":\"").unwrap_or_default();
                let last = match lasts.get_mut(conversation) {
                    Some(last) => last,
                    None => lasts.entry(conversation.to_owned()).or_default(),
                };
                match seq {
                    _ if seq == *last + 1 => {
                        *last = seq;
                        device.received += 1;
                        device.seconds = begun.elapsed().as_secs_f64();
                        shared.received.store(device.received, Ordering::Release);
                    }
                    _ if seq <= *last && text.contains("\"redelivered\":true") => device.repeated += 1,
                    _ => device.disordered += 1,
                }
                if manner.acks {
                    let ack = format!(r#"{{"type":"recv_ack","data":{{"conversation_id":"{conversation}","seq":{seq}}}}}"#);
                    solo.queue(&ack)?;
                    solo.flush()?;
                }
            }
            Seen::Skipped => device.skipped += 1,
            _ => {}
        }
    }
}

/// Everyone in turn writes to the device, at the pace asked for; returns how many messages were acknowledged.
fn send_live(senders: &mut [Solo], names: &Names, options: &BehindOptions, shared: &Shared) -> BenchResult<u64> {
    let mut sent = 0;
    let begun = Instant::now();
    while !shared.stop_live.load(Ordering::Acquire) {
        let due = begun + Duration::from_secs_f64(sent as f64 / options.live.max(0.1));
        thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)));
        if Instant::now() < due {
            continue;
        }
        let sender = &mut senders[sent as usize % options.conversations];
        sent += sender.send_all(std::iter::once(message(names, options.size, LIVE_NUMBERS + sent as u32)), 1)?;
    }
    Ok(sent)
}

#[derive(Default)]
struct Run {
    free: Vec<Window>,
    with: Vec<Window>,
    free_growth_mib: f64,
    growth_mib: Vec<f64>,
    outbox_kib: Vec<f64>,
    lagging: Vec<f64>,
}

impl Run {
    fn free_windows(&mut self, stage: &mut Stage, pattern: Pattern, options: &BehindOptions, when: &str) -> BenchResult<()> {
        for round in 0..FREE_WINDOWS {
            let what = format!("{when}, window {} of {FREE_WINDOWS}", round + 1);
            self.free.push(stage.window(pattern, 1.0, options.seconds, None, &what)?);
        }
        Ok(())
    }

    fn figures(&self, report: &mut Report, stage: &Stage, device: &Device) {
        let p99 =
            |windows: &[Window]| windows.iter().map(|window| quantile(&window.tally.delivery_us, 0.99)).collect::<Vec<f64>>();
        let (free, with) = (p99(&self.free), p99(&self.with));
        let ratio = median(&with) / median(&free);
        report.figure("catch_up_seconds", "time until the device had everything", "s", vec![device.seconds]);
        report.figure("received", "messages it got", "", vec![device.received as f64]);
        report.figure("device_bytes_per_second", "payload it read", "B/s", vec![device.bytes as f64 / device.seconds]);
        report.figure("repeated", "messages it got again, marked so", "", vec![device.repeated as f64]);
        if stage.process.is_some() {
            report.figure("free_growth_mib", "resident memory growth without it", "MiB", vec![self.free_growth_mib]);
            report.figure(
                "growth_mib",
                "resident memory above that before it came, highest in a window",
                "MiB",
                self.growth_mib.clone(),
            );
            let most = self.growth_mib.iter().copied().fold(f64::NAN, f64::max);
            report.at_most("memory growth while it catches up, MiB", most, GROWTH_MIB_MAX, false);
        }
        if !self.outbox_kib.is_empty() {
            let most = self.outbox_kib.iter().copied().fold(f64::NAN, f64::max);
            report.figure("outbox_kib", "corehub_outbox_bytes while it catches up", "KiB", self.outbox_kib.clone());
            report.figure("lagging", "corehub_lagging_connections", "", self.lagging.clone());
            report.at_most("bytes waiting for connections, KiB", most, OUTBOX_KIB_MAX, false);
        }
        report.figure("free_p99_us", "delivery p99 of the others without it", "µs", free);
        report.figure("others_p99_us", "delivery p99 of the others while it catches up", "µs", with);
        report.figure("p99_ratio", "p99 with it, in p99 without", "", vec![ratio]);
        load_figures(report, stage, &self.with);
        let saturated = doubts(report, &self.with, "with it") | doubts(report, &self.free, "without it");
        report.at_most("others' p99 with it, in p99 without", ratio, P99_RATIO_MAX, saturated);
        report.at_most("messages the device never got", device.due as f64 - device.received as f64, 0.0, false);
        report.at_most("messages out of order, or repeated without saying so", device.disordered as f64, 0.0, false);
        report.at_most("messages the server told the device are gone", device.skipped as f64, 0.0, false);
    }
}

/// The device's number among the names; the senders' are below.
const DEVICE: usize = 9_999_999;
const LIVE_NUMBERS: u32 = 1 << 30;
const FREE_WINDOWS: usize = 3;
const SENT_TOGETHER: usize = 64;
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
/// When nothing has come for so long after the end, nothing more will.
const QUIET_MAX: Duration = Duration::from_secs(15);
const STORE_BYTES: &str = "8MiB";
const GROWTH_MIB_MAX: f64 = 64.0;
const OUTBOX_KIB_MAX: f64 = 1_024.0;
const P99_RATIO_MAX: f64 = 1.5;
const MEBIBYTE: f64 = 1_048_576.0;
