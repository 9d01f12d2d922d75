//! `corehub bench`: load generator scenarios on the command line. Owns arguments and output; `loadgen` measures.

use crate::loadgen::options::{FanoutOptions, IdleOptions, PrivateOptions, StalledOptions};
use crate::loadgen::report::Report;
use crate::loadgen::{BenchError, BenchResult, ceiling, ceiling_send, scenario};

use super::{Exit, print};

/// Measure a corehub server: open loop, latency from the time a message was due, costs in the server's processor time.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "A first look, on this machine, with nothing else running:\n  corehub bench private --spawn\n  \
                        corehub bench fanout --spawn --with-ceiling\nWhat the figures mean: perf/README.md")]
pub struct BenchArguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Scenario {
    /// Silent authenticated connections: accept rate, memory per connection, idle processor time
    Idle(IdleOptions),
    /// Group messages at a fixed rate: processor time per delivery, latency, order and completeness
    Fanout(FanoutOptions),
    /// Messages in pairs: processor time per message (receive, ack, deliver), latency
    Private(PrivateOptions),
    /// A member of a busy group stops reading: memory, latency of the others, catching up
    Stalled(StalledOptions),
    /// The bare loop behind `fanout --with-ceiling`
    #[command(hide = true)]
    CeilingSend(CeilingOptions),
    /// The bare loop behind `private --with-ceiling`
    #[command(hide = true)]
    CeilingEcho(CeilingOptions),
}

#[derive(Clone, Debug, clap::Args)]
struct CeilingOptions {
    #[arg(long)]
    connections: usize,
}

/// Runs the scenario and prints its result on standard output. With `--assert` anything but good checks is a failure.
pub fn bench(arguments: &BenchArguments) -> anyhow::Result<Exit> {
    let (report, common) = match &arguments.scenario {
        Scenario::Idle(options) => (scenario::idle::run(options), &options.common),
        Scenario::Fanout(options) => (scenario::fanout::run(options), &options.common),
        Scenario::Private(options) => (scenario::private::run(options), &options.common),
        Scenario::Stalled(options) => (scenario::stalled::run(options), &options.common),
        Scenario::CeilingSend(options) => return bare(ceiling_send::run(options.connections)),
        Scenario::CeilingEcho(options) => return bare(ceiling::run(options.connections)),
    };
    match report {
        Ok(report) => {
            print(&text(&report, common.json)?)?;
            Ok(if common.assert && !report.good() { Exit::Failed } else { Exit::Done })
        }
        Err(fault @ BenchError::Usage(_)) => {
            eprintln!("corehub bench: {fault}");
            Ok(Exit::Refused)
        }
        Err(fault) => Err(fault.into()),
    }
}

fn bare(result: BenchResult<()>) -> anyhow::Result<Exit> {
    result?;
    Ok(Exit::Done)
}

fn text(report: &Report, json: bool) -> anyhow::Result<String> {
    Ok(if json { serde_json::to_string_pretty(&report.json())? + "\n" } else { report.table() })
}
