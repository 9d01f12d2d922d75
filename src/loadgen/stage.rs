//! Owns what all scenarios do alike: find or start the server, bring clients into their conversations, measure windows of load.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::child::{BareLoop, ServerOrder, SpawnedServer};
use super::crew::{Crew, CrewReport};
use super::dial::{Dial, Partition, Speech};
use super::envelope::Names;
use super::error::{BenchError, BenchResult};
use super::options::Common;
use super::plan::{Layout, Pattern, Plan};
use super::process::{Cpus, Process, Times, descriptors};
use super::report::Report;
use super::solo::Caller;
use super::tally::{Tally, audit, quantile};
use super::token::TokenMaker;

/// A server under test with the clients that load it.
pub struct Stage {
    pub crew: Crew,
    /// None when a foreign server's process is not known: then there are no figures about it.
    pub process: Option<Process>,
    pub server_cpu: Cpus,
    pub client_cpu: Cpus,
    epoch: Instant,
    progress: ProgressBar,
    /// How clients of other kinds than the crew's call the same server.
    pub caller: Caller,
    pub server: Option<SpawnedServer>,
}

/// What a scenario wants of its stage.
pub struct Setup {
    pub layout: Layout,
    /// Descriptors that the generator needs besides its clients.
    pub spare: usize,
    /// Configuration of a spawned server beyond the raised limits.
    pub settings: Vec<(&'static str, String)>,
    pub store: &'static str,
    pub small_buffer: Option<(usize, usize)>,
}

/// One measured stretch.
#[derive(Clone)]
pub struct Window {
    pub tally: Tally,
    pub wall: Duration,
    pub server: Times,
    /// Everything acknowledged had arrived soon after the end.
    pub drained: bool,
}

impl Stage {
    /// Finds or starts the server and starts the generator's threads. No client is connected yet.
    pub fn build(common: &Common, setup: Setup) -> BenchResult<Stage> {
        let clients = setup.layout.clients();
        descriptors((clients + setup.spare) as u64)?;
        let one = common.shards == 1 && common.spawn;
        let server_cpu = common.server_cpu.clone().unwrap_or_else(|| if one { Cpus::one(0) } else { Cpus::default() });
        let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        let client_cpu = common.client_cpu.clone().unwrap_or_else(|| if one { Cpus::one(last) } else { Cpus::default() });
        let order = Spawning { clients, settings: setup.settings, store: setup.store, data: common.data.as_deref() };
        let server = common.spawn.then(|| spawn(common, order, &server_cpu)).transpose()?;
        let (address, process, secret) = match &server {
            Some(server) => (server.address, Some(server.process.clone()), server.secret.clone()),
            None => (common.server, common.pid.map(Process::new).transpose()?, secret(common)?),
        };
        let caller = Caller { address, path: common.path.clone(), tokens: TokenMaker::new(secret.clone()) };
        let dial = Dial {
            address,
            speech: Speech::Corehub { path: common.path.clone(), names: Names::fresh(), tokens: TokenMaker::new(secret) },
            partition: Partition { threads: common.threads.max(1), unit: setup.layout.unit(common.threads) },
            total: clients,
            small_buffer: setup.small_buffer,
        };
        // The measuring thread is part of the generator.
        client_cpu.pin_this_thread()?;
        let epoch = Instant::now();
        let crew = Crew::start(dial, setup.layout, &client_cpu, epoch)?;
        let progress = progress(common);
        Ok(Stage { crew, process, server_cpu, client_cpu, epoch, progress, caller, server })
    }

    /// Opens connections until `total` exist.
    pub fn open(&mut self, total: usize) -> BenchResult<()> {
        let progress = self.progress.clone();
        self.crew.open(total, |opened| progress.set_message(format!("{opened} of {total} connections")))
    }

    /// Brings the clients `from..until` into their groups.
    pub fn enter(&mut self, from: usize, until: usize) -> BenchResult<()> {
        let progress = self.progress.clone();
        self.crew.enter(from, until, |left| progress.set_message(format!("{left} clients still to join")))
    }

    /// Sleeps, showing why.
    pub fn rest(&self, seconds: f64, what: &str) {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.progress.set_message(format!("{what}, {} s left", left.as_secs()));
            std::thread::sleep(left.min(Duration::from_millis(500)));
        }
    }

    /// Processor time of the server so far; zero when its process is not known.
    pub fn server_times(&self) -> BenchResult<Times> {
        self.process.as_ref().map_or(Ok(Times::default()), Process::times)
    }

    /// Runs one plan and measures it.
    pub fn window(
        &mut self,
        pattern: Pattern,
        warmup: f64,
        seconds: f64,
        unmeasured: Option<usize>,
        what: &str,
    ) -> BenchResult<Window> {
        let plan = plan(self.epoch, pattern, warmup, seconds, unmeasured);
        self.crew.begin(plan)?;
        self.rest_until(plan.from_ns, what);
        let (before, begun) = (self.server_times()?, Instant::now());
        self.rest_until(plan.to_ns, what);
        let (after, wall) = (self.server_times()?, begun.elapsed());
        let drained = self.crew.drain(DRAIN_PATIENCE)?;
        Ok(Window { tally: self.crew.collect()?, wall, server: after.since(before), drained })
    }

    /// Holds the whole run against the promises: everything acknowledged arrived everywhere, once, in order.
    pub fn audit(&mut self, report: &mut Report) -> BenchResult<CrewReport> {
        let accounts = self.crew.accounts()?;
        let sums = self.crew.report()?;
        let audit = audit(&accounts, self.crew.layout().size());
        let progress = &sums.progress;
        report.at_most("missing deliveries", audit.missing as f64, 0.0, false);
        report.at_most("repeated, excess or disordered deliveries", (audit.disordered + audit.excess) as f64, 0.0, false);
        let unanswered = progress.sent.saturating_sub(progress.acks);
        report.at_most("messages without a good ack", unanswered as f64, 0.0, false);
        report.at_most("messages the server says are gone", progress.skipped as f64, 0.0, false);
        if audit.repeated > 0 {
            report.warn(format!("{} messages came again after a connection was opened anew, which is allowed", audit.repeated));
        }
        if sums.counts.blocked > 0 {
            report.warn(format!("{} messages were not sent: the server took no bytes for too long", sums.counts.blocked));
        }
        if let Some(trouble) = &progress.first_trouble {
            report.warn(format!(
                "{} refusals, {} connections closed by the server; the first: {trouble}",
                progress.refused, progress.closed
            ));
        }
        Ok(sums)
    }

    /// Removes the progress line.
    pub fn finish(&self) {
        self.progress.finish_and_clear();
    }

    /// A bare loop on the server's processors, with raw clients of it on the generator's.
    pub fn bare(&self, name: &str, layout: Layout) -> BenchResult<Bare> {
        let clients = layout.clients();
        let child = BareLoop::start(name, clients, &self.server_cpu)?;
        let dial = Dial {
            address: child.address,
            speech: Speech::Raw,
            partition: Partition { threads: 1, unit: 1 },
            total: clients,
            small_buffer: None,
        };
        let mut crew = Crew::start(dial, layout, &self.client_cpu, self.epoch)?;
        crew.open(clients, |_| ())?;
        Ok(Bare { child, crew, epoch: self.epoch })
    }

    fn rest_until(&self, at_ns: u64, what: &str) {
        rest_until(self.epoch, at_ns, || self.progress.set_message(what.to_owned()));
    }
}

/// A bare loop and its clients.
pub struct Bare {
    child: BareLoop,
    crew: Crew,
    epoch: Instant,
}

impl Bare {
    /// As [`Stage::window`]; `order` goes to the loop when load begins, and its answer is waited for at the end.
    pub fn window(
        &mut self,
        pattern: Pattern,
        warmup: f64,
        seconds: f64,
        order: Option<&str>,
    ) -> BenchResult<(Window, Option<String>)> {
        let plan = plan(self.epoch, pattern, warmup, seconds, None);
        self.crew.begin(plan)?;
        rest_until(self.epoch, plan.start_ns, || ());
        if let Some(order) = order {
            self.child.order(order)?;
        }
        rest_until(self.epoch, plan.from_ns, || ());
        let (before, begun) = (self.child.process.times()?, Instant::now());
        rest_until(self.epoch, plan.to_ns, || ());
        let (after, wall) = (self.child.process.times()?, begun.elapsed());
        let said = order.map(|_| self.child.line()).transpose()?;
        std::thread::sleep(BARE_DRAIN);
        let report = self.crew.report()?;
        if report.progress.closed > 0 {
            return Err(BenchError::Server(format!("bare loop: {}", report.progress.first_trouble.unwrap_or_default())));
        }
        Ok((Window { tally: self.crew.collect()?, wall, server: after.since(before), drained: true }, said))
    }
}

impl Window {
    /// Why the generator, not the server, may have set the pace of an open loop; `None` when it did not.
    pub fn saturated(&self) -> Option<String> {
        let wall = self.wall.as_nanos() as f64;
        let (busy, waiting) =
            (self.tally.thread_busy_ns as f64 / wall * 100.0, self.tally.thread_waiting_ns as f64 / wall * 100.0);
        let lag = quantile(&self.tally.lag_us, 0.99) / 1_000.0;
        let full = busy + waiting > BUSY_PERCENT_MAX || lag > LAG_MS_MAX;
        full.then(|| {
            format!(
                "the generator was at its limit: its busiest thread ran {busy:.0} % and waited {waiting:.0} % of the time, \
                 p99 of its own lateness {lag:.1} ms"
            )
        })
    }

    /// Processor time of the server per `events`, in microseconds.
    pub fn cpu_us_per(&self, events: u64) -> f64 {
        self.server.busy_ns as f64 / 1_000.0 / events as f64
    }

    /// `events` per second of the server's processor time.
    pub fn per_cpu_second(&self, events: u64) -> f64 {
        events as f64 * 1e9 / self.server.busy_ns as f64
    }

    /// `events` per second of wall time.
    pub fn per_second(&self, events: u64) -> f64 {
        events as f64 / self.wall.as_secs_f64()
    }

    /// Server's processor use in percent of one processor.
    pub fn server_percent(&self) -> f64 {
        super::process::percent(self.server.busy_ns, self.wall)
    }

    /// Percent of the time in which a thread of the server could run and another job had its processor.
    pub fn server_waiting_percent(&self) -> f64 {
        super::process::percent(self.server.waiting_ns, self.wall)
    }
}

fn plan(epoch: Instant, pattern: Pattern, warmup: f64, seconds: f64, unmeasured: Option<usize>) -> Plan {
    let start_ns = epoch.elapsed().as_nanos() as u64 + LEAD_NS;
    let from_ns = start_ns + (warmup * 1e9) as u64;
    Plan { pattern, start_ns, from_ns, to_ns: from_ns + (seconds * 1e9) as u64, unmeasured }
}

fn rest_until(epoch: Instant, at_ns: u64, tell: impl FnOnce()) {
    tell();
    std::thread::sleep((epoch + Duration::from_nanos(at_ns)).saturating_duration_since(Instant::now()));
}

/// A line on standard error that says what is being done.
pub fn progress(common: &Common) -> ProgressBar {
    let progress = if common.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
        progress.set_style(style);
    }
    progress
}

/// What a scenario wants of a server of its own.
pub struct Spawning<'a> {
    pub clients: usize,
    pub settings: Vec<(&'static str, String)>,
    pub store: &'a str,
    /// None: a temporary folder.
    pub data: Option<&'a Path>,
}

/// Starts a server with raised limits and waits until it is ready.
pub fn spawn(common: &Common, order: Spawning<'_>, cpus: &Cpus) -> BenchResult<SpawnedServer> {
    let connections = (order.clients + 1_000).to_string();
    let unlimited = || "0".to_owned();
    let mut settings = vec![
        ("COREHUB_LIMITS__CONNECTIONS", connections.clone()),
        ("COREHUB_LIMITS__UNAUTHENTICATED_CONNECTIONS", connections),
        ("COREHUB_LIMITS__CONNECTIONS_PER_IP", unlimited()),
        ("COREHUB_LIMITS__CONNECTS_PER_SECOND", unlimited()),
        ("COREHUB_LIMITS__MESSAGES_PER_SECOND", unlimited()),
        ("COREHUB_LIMITS__USER_MESSAGES_PER_SECOND", unlimited()),
        ("COREHUB_STORE__KIND", common.store.clone().unwrap_or_else(|| order.store.to_owned())),
    ];
    settings.extend(order.settings);
    SpawnedServer::start(&ServerOrder { data: order.data, shards: common.shards, arguments: &common.server_args, cpus, settings })
}

fn secret(common: &Common) -> BenchResult<String> {
    if let Some(secret) = &common.secret {
        return Ok(secret.clone());
    }
    let Some(folder) = &common.data else {
        return Err(BenchError::Usage(
            "say which server to load: --spawn starts one; a running one needs --secret, or --data with its data folder"
                .to_owned(),
        ));
    };
    let path = folder.join("dev-secret");
    let text = std::fs::read_to_string(&path).map_err(BenchError::io(format!("read {}", path.display())))?;
    Ok(text.trim_end().to_owned())
}

const LEAD_NS: u64 = 20_000_000;
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
const BARE_DRAIN: Duration = Duration::from_millis(300);
const BUSY_PERCENT_MAX: f64 = 95.0;
const LAG_MS_MAX: f64 = 5.0;
