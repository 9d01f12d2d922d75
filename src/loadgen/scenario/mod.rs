//! Owns the scenarios: what each brings about, and which figures and bounds come out of it.

pub mod behind;
pub mod durable;
pub mod fanout;
pub mod groups;
pub mod history;
pub mod idle;
pub mod private;
pub mod stalled;
pub mod startup;

use super::report::Report;
use super::stage::{Stage, Window};
use super::tally::quantile;

/// Figures that every scenario with load has.
fn latency_figures(report: &mut Report, windows: &[Window], acks: bool) {
    let each = |value: &dyn Fn(&Window) -> f64| windows.iter().map(value).collect::<Vec<f64>>();
    let delivery = |at: f64| each(&|window| quantile(&window.tally.delivery_us, at));
    report.figure("delivery_p50_us", "delivery p50, from due time", "µs", delivery(0.5));
    report.figure("delivery_p99_us", "delivery p99", "µs", delivery(0.99));
    report.figure("delivery_p999_us", "delivery p99.9", "µs", delivery(0.999));
    if acks {
        report.figure("ack_p50_us", "ack p50, from due time", "µs", each(&|window| quantile(&window.tally.ack_us, 0.5)));
        report.figure("ack_p99_us", "ack p99", "µs", each(&|window| quantile(&window.tally.ack_us, 0.99)));
    }
}

/// How busy both sides were, and how far the client side merged messages.
fn load_figures(report: &mut Report, stage: &Stage, windows: &[Window]) {
    let each = |value: &dyn Fn(&Window) -> f64| windows.iter().map(value).collect::<Vec<f64>>();
    let wall_ns = |window: &Window| window.wall.as_nanos() as f64;
    if stage.process.is_some() {
        report.figure("server_cpu_percent", "server, of one processor", "%", each(&Window::server_percent));
        report.figure(
            "server_waiting_percent",
            "server threads kept waiting by other jobs",
            "%",
            each(&Window::server_waiting_percent),
        );
    }
    report.figure(
        "generator_cpu_percent",
        "busiest generator thread",
        "%",
        each(&|window| window.tally.thread_busy_ns as f64 / wall_ns(window) * 100.0),
    );
    report.figure(
        "frames_per_read",
        "frames per read of a client",
        "",
        each(&|window| window.tally.frames as f64 / window.tally.reads as f64),
    );
    let bytes = |window: &Window| window.tally.bytes as f64 / window.tally.frames as f64;
    report.figure("bytes_per_frame", "bytes per frame a client reads", "bytes", each(&bytes));
}

/// Warnings that make figures of these windows doubtful; true when the generator was at its limit in any.
fn doubts(report: &mut Report, windows: &[Window], name: &str) -> bool {
    let mut saturated = false;
    for window in windows {
        if let Some(reason) = window.saturated() {
            saturated = true;
            report.warn(format!("{name}: {reason}"));
        }
        if !window.drained {
            report.warn(format!("{name}: some messages never arrived after the load had ended"));
        }
        if window.server_waiting_percent() > SERVER_WAITING_PERCENT_MAX {
            report.warn(format!("{name}: other jobs kept the server waiting for a processor; repeat on a quieter machine"));
        }
    }
    saturated
}

/// Above it, somebody else used the server's processor during the measurement.
const SERVER_WAITING_PERCENT_MAX: f64 = 20.0;
