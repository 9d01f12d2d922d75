//! `bench fanout`: group messages at a fixed rate, and what each delivery costs the server. The ceiling is a loop that does
//! nothing but write the same frame to as many sockets with send(2).

use super::super::error::{BenchError, BenchResult};
use super::super::options::FanoutOptions;
use super::super::plan::{Layout, Pattern};
use super::super::report::{Report, median, ratios};
use super::super::stage::{Bare, Setup, Stage, Window};
use super::{doubts, latency_figures, load_figures};

/// Runs it.
pub fn run(options: &FanoutOptions) -> BenchResult<Report> {
    if options.groups == 0 || options.group_size < 2 || options.rate <= 0.0 {
        return Err(BenchError::Usage("--groups must be at least 1, --group-size 2, --rate above 0".to_owned()));
    }
    let layout = Layout::Groups { count: options.groups, size: options.group_size };
    let receivers = layout.clients();
    let spare = if options.timing.with_ceiling { receivers } else { 0 };
    let setup = Setup { layout, spare, settings: Vec::new(), store: "memory", small_buffer: None };
    let mut stage = Stage::build(&options.common, setup)?;
    stage.open(receivers)?;
    stage.enter(0, receivers)?;
    stage.rest(1.0, "settling");
    let mut bare = options.timing.with_ceiling.then(|| stage.bare("ceiling-send", bare_layout(layout))).transpose()?;
    let (mut windows, mut ceilings) = (Vec::new(), Vec::new());
    let pattern = Pattern::Open { per_second: options.rate, bytes: options.size };
    for round in 0..options.timing.rounds.max(1) {
        let what = format!("round {} of {}", round + 1, options.timing.rounds);
        let window = stage.window(pattern, options.timing.warmup, options.timing.seconds, None, &what)?;
        if let Some(bare) = &mut bare {
            ceilings.push(ceiling(bare, options, &window)?);
        }
        windows.push(window);
    }
    stage.finish();
    let mut report = Report::new("fanout", setting(options));
    figures(&mut report, &stage, &windows);
    let saturated = doubts(&mut report, &windows, "server");
    ceiling_figures(&mut report, &windows, &ceilings, saturated, options.groups == 1);
    report.at_most(
        "deliveries of the asked rate that were not in time, percent",
        late(options, &windows),
        LATE_PERCENT_MAX,
        saturated,
    );
    stage.audit(&mut report)?;
    Ok(report)
}

fn setting(options: &FanoutOptions) -> String {
    format!(
        "{} groups of {}, {} messages/s of {} bytes, {} rounds of {} s",
        options.groups, options.group_size, options.rate, options.size, options.timing.rounds, options.timing.seconds
    )
}

/// As many sockets as deliveries of one pass over all groups.
fn bare_layout(layout: Layout) -> Layout {
    match layout {
        Layout::Groups { count, size } => Layout::Groups { count: 1, size: count * (size - 1) },
        pairs @ Layout::Pairs { .. } => pairs,
    }
}

fn ceiling(bare: &mut Bare, options: &FanoutOptions, window: &Window) -> BenchResult<Window> {
    if window.tally.frames == 0 {
        return Err(BenchError::Server("no message arrived, so there is no frame to compare with".to_owned()));
    }
    let frame_bytes = (window.tally.bytes as f64 / window.tally.frames as f64).round() as usize;
    let (warmup, seconds) = (options.timing.warmup, options.timing.seconds);
    // One message reaches one group; a pass of the bare loop reaches the sockets of one group, then of the next.
    let order = format!("run {} {} {} {frame_bytes}", options.rate, options.group_size - 1, warmup + seconds);
    let (window, said) = bare.window(Pattern::Listen { frame_bytes }, warmup, seconds, Some(&order))?;
    match said.as_deref() {
        Some("done 0") => Ok(window),
        said => Err(BenchError::Server(format!("the bare loop could not hold the pace: {}", said.unwrap_or_default()))),
    }
}

fn figures(report: &mut Report, stage: &Stage, windows: &[Window]) {
    let each = |value: &dyn Fn(&Window) -> f64| windows.iter().map(value).collect::<Vec<f64>>();
    report.figure("deliveries_per_second", "deliveries", "1/s", each(&|window| window.per_second(window.tally.deliveries)));
    if stage.process.is_some() {
        let rate = each(&|window| window.per_cpu_second(window.tally.deliveries));
        report.figure("deliveries_per_cpu_second", "deliveries per second of server processor time", "1/s", rate);
        let cost = each(&|window| window.cpu_us_per(window.tally.deliveries));
        report.figure("cpu_us_per_delivery", "server processor time per delivery", "µs", cost);
    }
    latency_figures(report, windows, true);
    load_figures(report, stage, windows);
}

fn ceiling_figures(report: &mut Report, windows: &[Window], ceilings: &[Window], saturated: bool, one_group: bool) {
    if ceilings.is_empty() {
        return;
    }
    let cost = |windows: &[Window]| windows.iter().map(|window| window.cpu_us_per(window.tally.deliveries)).collect::<Vec<f64>>();
    let (own, bare) = (cost(windows), cost(ceilings));
    let factors = ratios(&own, &bare);
    report.figure("ceiling_cpu_us_per_send", "bare send(2) loop, processor time per send", "µs", bare);
    let rate = ceilings.iter().map(|window| window.per_cpu_second(window.tally.deliveries)).collect();
    report.figure("ceiling_sends_per_cpu_second", "bare send(2) loop, sends per second of its processor time", "1/s", rate);
    let reads = ceilings.iter().map(|window| window.tally.deliveries as f64 / window.tally.reads as f64).collect();
    report.figure("ceiling_frames_per_read", "bare send(2) loop, frames per read of a client", "", reads);
    let ceiling_saturated = doubts(report, ceilings, "bare loop");
    let factor = median(&factors);
    report.figure("ceiling_ratio", "server per delivery, in bare sends", "", factors);
    // In small groups a good part of the cost is receiving and acknowledging, which the bare loop does not do at all.
    if one_group {
        report.at_most("server per delivery, in bare sends", factor, SEND_RATIO_MAX, saturated || ceiling_saturated);
    }
}

/// Percent of the deliveries due in the windows that did not arrive in them: nothing when the server keeps up.
fn late(options: &FanoutOptions, windows: &[Window]) -> f64 {
    let due = options.rate * (options.group_size - 1) as f64;
    let worst = windows.iter().map(|window| window.per_second(window.tally.deliveries) / due);
    (1.0 - worst.fold(f64::INFINITY, f64::min)).max(0.0) * 100.0
}

const SEND_RATIO_MAX: f64 = 1.15;
const LATE_PERCENT_MAX: f64 = 2.0;
