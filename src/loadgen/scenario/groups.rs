//! `bench groups`: many groups of a usual size and a very large one, whose members are all away but for whoever writes. What a
//! message costs may not depend on how many members a group has: nothing is written or computed per absent member.
//!
//! The usual groups are written through the store before the start; the large one is made through the protocol.

use std::time::{Duration, Instant};

use super::super::child::SpawnedServer;
use super::super::disk::folder_bytes;
use super::super::envelope::Seen;
use super::super::error::{BenchError, BenchResult};
use super::super::fill::{FilledFolder, Filler, user};
use super::super::options::GroupsOptions;
use super::super::report::{Report, median, ratios};
use super::super::solo::{Caller, Manner, Solo};
use super::super::stage::{Spawning, progress, spawn};
use super::super::token::TokenMaker;
use crate::types::record::{Group, Member, Role};
use crate::types::storage::{GroupChange, Write};
use crate::types::{GroupId, Seq};

/// Runs it.
pub fn run(options: &GroupsOptions) -> BenchResult<Report> {
    if options.group_size < 2 || options.large < options.group_size || options.groups == 0 {
        return Err(BenchError::Usage("2 ≤ --group-size ≤ --large must hold, and --groups be at least 1".to_owned()));
    }
    let common = &options.common;
    let line = progress(common);
    line.set_message(format!("filling a folder with {} groups of {}", options.groups, options.group_size));
    let mark = format!("groups, {} of {}, {}", options.groups, options.group_size, options.large);
    let folder = FilledFolder::make(common, &mark, |filler| fill(filler, options))?;
    let limit = vec![("COREHUB_LIMITS__GROUP_MEMBERS", (options.large + 1_000).max(200_000).to_string())];
    let order = Spawning { clients: 1_000, settings: limit, store: "embedded", data: Some(&folder.path) };
    let server = spawn(common, order, &common.server_cpu.clone().unwrap_or_default())?;
    let caller = Caller { address: server.address, path: common.path.clone(), tokens: TokenMaker::new(server.secret.clone()) };
    let mut report = Report::new("groups", setting(options, &folder));
    let mib = |server: &SpawnedServer| -> BenchResult<f64> { Ok(server.process.memory()?.resident as f64 / MEBIBYTE) };
    report.figure("resident_empty_mib", "resident, nothing loaded", "MiB", vec![mib(&server)?]);
    line.set_message(format!("loading {} groups", options.groups));
    let mut usual = Writers::connect(&caller, "usual", options.groups)?;
    report.figure("resident_usual_mib", "resident, all usual groups loaded", "MiB", vec![mib(&server)?]);
    let mut small = Writers::connect(&caller, "small", SMALL_GROUPS)?;
    line.set_message(format!("making a group of {}", options.large));
    let disk = folder_bytes(&folder.path);
    let (mut large, seconds) = make_large(&caller, options)?;
    report.figure("large_seconds", "making the large group, by create_group and invite_to_group", "s", vec![seconds]);
    report.figure("resident_large_mib", "resident, large group too", "MiB", vec![mib(&server)?]);
    let grown = folder_bytes(&folder.path) as f64 - disk as f64;
    report.figure("large_disk_mib", "disk for the large group, invitations included", "MiB", vec![grown / MEBIBYTE]);
    line.set_message("waiting until the server has written its tables");
    settle(&server)?;
    let mut costs: [Costs; 3] = Default::default();
    for round in 0..options.rounds.max(1) {
        let kinds = [(&mut small, "2"), (&mut usual, "usual"), (&mut large, "large")];
        for ((writers, name), costs) in kinds.into_iter().zip(&mut costs) {
            line.set_message(format!("round {} of {}, groups of size: {name}", round + 1, options.rounds));
            costs.measure(&server, writers, options)?;
        }
    }
    report.figure("resident_end_mib", "resident at the end", "MiB", vec![mib(&server)?]);
    line.finish_and_clear();
    figures(&mut report, &costs);
    Ok(report)
}

fn setting(options: &GroupsOptions, folder: &FilledFolder) -> String {
    let filled = folder.origin();
    format!(
        "{} groups of {} and {SMALL_GROUPS} of 2 ({filled}), one of {}; members away; {} rounds of {} messages of {} bytes \
         to each kind",
        options.groups, options.group_size, options.large, options.rounds, options.messages, options.size
    )
}

/// Each group has a writer, who owns up to [`GROUPS_PER_WRITER`] groups; the other members come from one large crowd.
fn fill(filler: &mut Filler, options: &GroupsOptions) -> BenchResult<()> {
    for (kind, groups, size) in [("usual", options.groups, options.group_size), ("small", SMALL_GROUPS, 2)] {
        for number in 0..groups {
            let member = |user, role| Member { user, role, joined_seq: Seq::NONE, joined_at: filler.now() };
            let mut members = vec![member(user(&writer(kind, number / GROUPS_PER_WRITER))?, Role::Owner)];
            for place in 0..size - 1 {
                members.push(member(user(&away((number * (size - 1) + place) % options.large))?, Role::Member));
            }
            let group = group_id(&group(kind, number))?;
            let record = Group { id: group.clone(), name: "bench".into(), open: true, created_at: filler.now() };
            filler.write(Write::Group(Box::new(GroupChange {
                group,
                record: Some(record),
                members_put: members,
                members_removed: Vec::new(),
                delete: false,
            })))?;
        }
    }
    Ok(())
}

/// The large group, in requests of as many members as one may name.
fn make_large(caller: &Caller, options: &GroupsOptions) -> BenchResult<(Writers, f64)> {
    let mut solo = Solo::connect(caller, &writer("large", 0), Manner::default())?;
    solo.wait("sync_done", |seen, _| matches!(seen, Seen::Synced))?;
    let id = group("large", std::process::id() as usize);
    let begun = Instant::now();
    let members = (0..options.large - 1).map(away).collect::<Vec<String>>();
    for (place, part) in members.chunks(MEMBERS_PER_REQUEST).enumerate() {
        let (kind, list) = if place == 0 { ("create_group", "members") } else { ("invite_to_group", "user_ids") };
        let names = part.join("\",\"");
        let request = format!(r#"{{"type":"{kind}","message_id":"m{place}","data":{{"group_id":"{id}","{list}":["{names}"]}}}}"#);
        solo.ask(&request, "ack")?;
    }
    Ok((Writers { solos: vec![solo], groups: vec![vec![id]] }, begun.elapsed().as_secs_f64()))
}

/// Waits until nothing of what came before is still being written: it would count as cost of the messages.
fn settle(server: &SpawnedServer) -> BenchResult<()> {
    let begun = Instant::now();
    let mut last = server.process.written_where(|_| true)?;
    while begun.elapsed() < SETTLE_MAX {
        std::thread::sleep(SETTLE_QUIET);
        let written = server.process.written_where(|_| true)?;
        if written.saturating_sub(last) < QUIET_BYTES {
            break;
        }
        last = written;
    }
    Ok(())
}

/// Connections that write, each to groups of its own.
struct Writers {
    solos: Vec<Solo>,
    groups: Vec<Vec<String>>,
}

impl Writers {
    fn connect(caller: &Caller, kind: &str, groups: usize) -> BenchResult<Writers> {
        let mut writers = Writers { solos: Vec::new(), groups: Vec::new() };
        for (place, first) in (0..groups).step_by(GROUPS_PER_WRITER).enumerate() {
            let mut solo = Solo::connect(caller, &writer(kind, place), Manner::default())?;
            solo.wait("sync_done", |seen, _| matches!(seen, Seen::Synced))?;
            writers.solos.push(solo);
            let last = groups.min(first + GROUPS_PER_WRITER);
            writers.groups.push((first..last).map(|number| group(kind, number)).collect());
        }
        Ok(writers)
    }
}

/// What messages to one kind of group cost, per round.
#[derive(Default)]
struct Costs {
    cpu_us: Vec<f64>,
    /// With the writing of tables, which comes when it comes.
    all_cpu_us: Vec<f64>,
    written_bytes: Vec<f64>,
    per_second: Vec<f64>,
}

impl Costs {
    fn measure(&mut self, server: &SpawnedServer, writers: &mut Writers, options: &GroupsOptions) -> BenchResult<()> {
        let (all, begun) = (server.process.times()?, Instant::now());
        let (times, written) = (server.process.times_where(at_once)?, server.process.written_where(at_once)?);
        let content = "x".repeat(options.size);
        let share = options.messages.div_ceil(writers.solos.len());
        let mut sent = 0;
        for (solo, groups) in writers.solos.iter_mut().zip(&writers.groups) {
            let messages = (0..share).map(|number| {
                let (id, group) = (fastrand::u64(..), &groups[number % groups.len()]);
                format!(
                    r#"{{"type":"send_message","message_id":"{id:016x}","data":{{"group_id":"{group}","content":"{content}"}}}}"#
                )
            });
            sent += solo.send_all(messages, SENT_TOGETHER)?;
        }
        let sent = sent as f64;
        self.per_second.push(sent / begun.elapsed().as_secs_f64());
        self.cpu_us.push(server.process.times_where(at_once)?.since(times).busy_ns as f64 / 1_000.0 / sent);
        self.all_cpu_us.push(server.process.times()?.since(all).busy_ns as f64 / 1_000.0 / sent);
        self.written_bytes.push((server.process.written_where(at_once)? - written) as f64 / sent);
        Ok(())
    }
}

/// Threads whose work is done while a message is on its way. The others write tables of what has gathered before, for whichever
/// kind of group happens to have its turn.
fn at_once(thread: &str) -> bool {
    !thread.starts_with(TABLES_THREAD)
}

fn figures(report: &mut Report, costs: &[Costs; 3]) {
    type Told = (&'static str, &'static str, &'static str, fn(&Costs) -> &Vec<f64>);
    let told: [Told; 12] = [
        ("small_cpu_us", "processor time per message, groups of 2", "µs", |costs| &costs.cpu_us),
        ("usual_cpu_us", "processor time per message, usual groups", "µs", |costs| &costs.cpu_us),
        ("large_cpu_us", "processor time per message, large group", "µs", |costs| &costs.cpu_us),
        ("small_all_cpu_us", "the same and writing tables, groups of 2", "µs", |costs| &costs.all_cpu_us),
        ("usual_all_cpu_us", "the same and writing tables, usual groups", "µs", |costs| &costs.all_cpu_us),
        ("large_all_cpu_us", "the same and writing tables, large group", "µs", |costs| &costs.all_cpu_us),
        ("small_written_bytes", "log and journal per message, groups of 2", "bytes", |costs| &costs.written_bytes),
        ("usual_written_bytes", "log and journal per message, usual groups", "bytes", |costs| &costs.written_bytes),
        ("large_written_bytes", "log and journal per message, large group", "bytes", |costs| &costs.written_bytes),
        ("small_per_second", "messages, 64 at a time, groups of 2", "1/s", |costs| &costs.per_second),
        ("usual_per_second", "messages, 64 at a time, usual groups", "1/s", |costs| &costs.per_second),
        ("large_per_second", "messages, 64 at a time, large group", "1/s", |costs| &costs.per_second),
    ];
    for (place, (key, label, unit, values)) in told.into_iter().enumerate() {
        report.figure(key, label, unit, values(&costs[place % costs.len()]).clone());
    }
    let [small, usual, large] = costs;
    for (label, values, base) in [
        ("processor time, usual group in group of 2", &usual.cpu_us, &small.cpu_us),
        ("processor time, large group in group of 2", &large.cpu_us, &small.cpu_us),
        ("log and journal, usual group in group of 2", &usual.written_bytes, &small.written_bytes),
        ("log and journal, large group in group of 2", &large.written_bytes, &small.written_bytes),
    ] {
        report.at_most(label, median(&ratios(values, base)), SIZE_RATIO_MAX, false);
    }
}

fn writer(kind: &str, number: usize) -> String {
    format!("groups-{kind}-{number:05}")
}

fn away(number: usize) -> String {
    format!("groups-u{number:07}")
}

fn group(kind: &str, number: usize) -> String {
    format!("bench-{kind}-{number:07}")
}

fn group_id(text: &str) -> BenchResult<GroupId> {
    GroupId::new(text).map_err(|fault| BenchError::Usage(fault.to_string()))
}

const GROUPS_PER_WRITER: usize = 100;
const SMALL_GROUPS: usize = 100;
/// The store's thread that writes and merges tables.
const TABLES_THREAD: &str = "fjall";
/// As many as one request may name.
const MEMBERS_PER_REQUEST: usize = 10_000;
const SENT_TOGETHER: usize = 64;
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Threads wake each other by writes too.
const QUIET_BYTES: u64 = 64 << 10;
const SETTLE_QUIET: Duration = Duration::from_secs(2);
const SIZE_RATIO_MAX: f64 = 1.5;
const MEBIBYTE: f64 = 1_048_576.0;
