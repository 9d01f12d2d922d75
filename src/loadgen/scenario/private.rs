//! `bench private`: messages between pairs of clients. A message is one receive, one ack and one delivery of the server. The
//! ceiling is a bare io_uring loop that echoes as many bytes on as many connections.

use super::super::codec::masked_length;
use super::super::envelope::{Names, Stamp, Target};
use super::super::error::{BenchError, BenchResult};
use super::super::options::PrivateOptions;
use super::super::plan::{Layout, Pattern};
use super::super::report::{Report, median, ratios};
use super::super::stage::{Setup, Stage, Window};
use super::{doubts, latency_figures, load_figures};

/// Runs it.
pub fn run(options: &PrivateOptions) -> BenchResult<Report> {
    if options.connections < 2 || !options.connections.is_multiple_of(2) {
        return Err(BenchError::Usage("--connections must be even: clients write to each other in pairs".to_owned()));
    }
    let layout = Layout::Pairs { count: options.connections / 2 };
    let spare = if options.timing.with_ceiling { options.connections } else { 0 };
    let setup = Setup { layout, spare, settings: Vec::new(), store: "memory", small_buffer: None };
    let mut stage = Stage::build(&options.common, setup)?;
    stage.open(options.connections)?;
    stage.rest(1.0, "settling");
    let mut bare = options.timing.with_ceiling.then(|| stage.bare("ceiling-echo", layout)).transpose()?;
    let (mut windows, mut ceilings) = (Vec::new(), Vec::new());
    let (warmup, seconds) = (options.timing.warmup, options.timing.seconds);
    for round in 0..options.timing.rounds.max(1) {
        let what = format!("round {} of {}", round + 1, options.timing.rounds);
        windows.push(stage.window(pattern(options, options.size), warmup, seconds, None, &what)?);
        if let Some(bare) = &mut bare {
            ceilings.push(bare.window(pattern(options, wire_bytes(options.size)), warmup, seconds, None)?.0);
        }
    }
    stage.finish();
    let mut report = Report::new("private", setting(options));
    figures(&mut report, &stage, &windows, options);
    let saturated = doubts(&mut report, &windows, "server");
    if saturated && options.rate.is_none() {
        report.warn(
            "in a closed loop the generator may set the pace: read the latencies as its own; processor time per message stands, \
             since server and bare loop are paced alike",
        );
    }
    ceiling_figures(&mut report, &windows, &ceilings, options, saturated);
    stage.audit(&mut report)?;
    Ok(report)
}

fn pattern(options: &PrivateOptions, bytes: usize) -> Pattern {
    match options.rate {
        Some(per_second) => Pattern::Open { per_second, bytes },
        None => Pattern::Closed { outstanding: options.outstanding as usize, bytes },
    }
}

/// What one message of a client takes on the wire: what the bare loop gets and gives back.
fn wire_bytes(content_bytes: usize) -> usize {
    let mut message = Vec::new();
    Names::fresh().send(&mut message, Target::User(0), Stamp { due_ns: 0, number: 0 }, content_bytes);
    masked_length(message.len())
}

fn setting(options: &PrivateOptions) -> String {
    let pace = match options.rate {
        Some(rate) => format!("open loop, {rate} messages/s"),
        None => format!("closed loop, {} outstanding each", options.outstanding),
    };
    format!(
        "{} connections in pairs, {pace}, {} bytes, {} rounds of {} s",
        options.connections, options.size, options.timing.rounds, options.timing.seconds
    )
}

/// Closed loop: both halves have arrived. Open loop: delivered; the audit proves the acks.
fn messages(window: &Window, options: &PrivateOptions) -> u64 {
    if options.rate.is_some() { window.tally.deliveries } else { window.tally.completed }
}

fn figures(report: &mut Report, stage: &Stage, windows: &[Window], options: &PrivateOptions) {
    let each = |value: &dyn Fn(&Window) -> f64| windows.iter().map(value).collect::<Vec<f64>>();
    report.figure(
        "messages_per_second",
        "messages, acked and delivered",
        "1/s",
        each(&|window| window.per_second(messages(window, options))),
    );
    if stage.process.is_some() {
        let rate = each(&|window| window.per_cpu_second(messages(window, options)));
        report.figure("messages_per_cpu_second", "messages per second of server processor time", "1/s", rate);
        let cost = each(&|window| window.cpu_us_per(messages(window, options)));
        report.figure("cpu_us_per_message", "server processor time per message", "µs", cost);
    }
    latency_figures(report, windows, true);
    load_figures(report, stage, windows);
}

fn ceiling_figures(report: &mut Report, windows: &[Window], ceilings: &[Window], options: &PrivateOptions, saturated: bool) {
    if ceilings.is_empty() {
        return;
    }
    let own: Vec<f64> = windows.iter().map(|window| window.cpu_us_per(messages(window, options))).collect();
    let bare: Vec<f64> = ceilings.iter().map(|window| window.cpu_us_per(window.tally.completed)).collect();
    let factors = ratios(&own, &bare);
    let factor = median(&factors);
    report.figure("ceiling_cpu_us_per_echo", "bare io_uring echo, processor time per echo", "µs", bare);
    let rate = ceilings.iter().map(|window| window.per_cpu_second(window.tally.completed)).collect();
    report.figure("ceiling_echoes_per_cpu_second", "bare io_uring echo, echoes per second of its processor time", "1/s", rate);
    report.figure("ceiling_ratio", "server per message, in bare echoes", "", factors);
    let closed = options.rate.is_none();
    let ceiling_saturated = !closed && doubts(report, ceilings, "bare loop");
    report.at_most("server per message, in bare echoes", factor, ECHO_RATIO_MAX, !closed && (saturated || ceiling_saturated));
}

const ECHO_RATIO_MAX: f64 = 2.5;
