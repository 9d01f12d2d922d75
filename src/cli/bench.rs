//! `corehub bench`: load generator scenarios on the command line. Owns arguments and output; `loadgen` measures.

use crate::loadgen::options::{
    BehindOptions, DurableOptions, FanoutOptions, GroupsOptions, HistoryOptions, IdleOptions, PrivateOptions, StalledOptions,
    StartupOptions,
};
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
    /// Messages that are on disk before their ack leaves: how many a second, and how long an ack takes at half of that
    Durable(DurableOptions),
    /// A device many messages behind reads slowly: order, the server's memory, the others' latency
    Behind(BehindOptions),
    /// Pages of a very long conversation, and search in it
    History(HistoryOptions),
    /// Start with much in the data folder: time until ready, memory
    Startup(StartupOptions),
    /// Messages to groups of all sizes whose members are away: processor time and disk per message
    Groups(GroupsOptions),
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
        Scenario::Durable(options) => (scenario::durable::run(options), &options.common),
        Scenario::Behind(options) => (scenario::behind::run(options), &options.common),
        Scenario::History(options) => (scenario::history::run(options), &options.common),
        Scenario::Startup(options) => (scenario::startup::run(options), &options.common),
        Scenario::Groups(options) => (scenario::groups::run(options), &options.common),
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
