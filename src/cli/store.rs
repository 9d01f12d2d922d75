//! Owns `corehub store`: what operators do with a data folder. Never decides what is right about its content: the store does.
//! Lives on the main thread.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::{Config, ConfigErrors};
use crate::store::{self, CheckReport, EmbeddedSettings, FolderStats, Workbench};

use super::arguments::ConfigArguments;
use super::backup::{Wish, backup};
use super::{Environment, Exit, print, serve};

/// `corehub store ...`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Look at every record of a data folder that no server uses; exit code 1 when something is wrong.
    Check {
        #[command(flatten)]
        folder: FolderArguments,
        /// Mend what can be derived from what is left. Copy the folder first.
        #[arg(long)]
        repair: bool,
    },
    /// Copy a data folder to another one, which must be empty or not there yet; a server that has it copies while it runs.
    Backup {
        #[command(flatten)]
        folder: FolderArguments,
        /// The new folder, on the server's machine.
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
        /// Ask the server with this admin address (`listen.admin`), whatever its data folder.
        #[arg(long, value_name = "ADDR")]
        admin: Option<String>,
        /// MiB to copy per second; without it a server copies 16, and a folder without a server is copied at once.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
        mib_per_second: Option<u64>,
    },
    /// Count what a data folder holds that no server uses.
    Stats {
        #[command(flatten)]
        folder: FolderArguments,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write everything as JSON lines, unsealed.
    Export {
        #[command(flatten)]
        folder: FolderArguments,
        /// A new file, instead of standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Make a data folder, which must be empty or not there yet, of an export.
    Import {
        #[command(flatten)]
        folder: FolderArguments,
        /// The export, instead of standard input.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Print a line with a new key for `store.encryption_key_file`.
    Key {
        /// Names the key: up to 16 letters, digits, dots, dashes or underscores.
        #[arg(long, value_name = "ID", default_value = "1")]
        id: String,
    },
}

/// Which data folder.
#[derive(Clone, Debug, Default, Args)]
pub struct FolderArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Data folder (`store.path`).
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
}

impl FolderArguments {
    fn load(&self, environment: Environment, admin: Option<&str>) -> Result<Config, ConfigErrors> {
        let named = [("--data", "store.path", self.data.as_deref()), ("--admin", "listen.admin", admin)];
        // As with --dev, because nothing here needs a secret.
        Config::load(&self.config.sources(environment, &named, true))
    }
}

/// Runs one of them.
pub fn store(command: &StoreCommand, environment: Environment) -> anyhow::Result<Exit> {
    let folder = match command {
        StoreCommand::Key { id } => return key(id),
        StoreCommand::Check { folder, .. }
        | StoreCommand::Backup { folder, .. }
        | StoreCommand::Stats { folder, .. }
        | StoreCommand::Export { folder, .. }
        | StoreCommand::Import { folder, .. } => folder,
    };
    let admin = match command {
        StoreCommand::Backup { admin, .. } => admin.as_deref(),
        _ => None,
    };
    let config = match folder.load(environment, admin) {
        Ok(config) => config,
        Err(errors) => return Ok(serve::refuse(&errors)),
    };
    let encryption_key_file = config.store.encryption_key_file.clone();
    let settings = EmbeddedSettings { encryption_key_file, ..EmbeddedSettings::new(&config.store.path) };
    match command {
        StoreCommand::Backup { to, mib_per_second, .. } => {
            let wish = Wish { to, mib_per_second: *mib_per_second, of_server: admin.is_some() };
            backup(&config, &settings, &wish)
        }
        StoreCommand::Check { repair, .. } => check(&settings, *repair),
        StoreCommand::Stats { json, .. } => stats(&settings, *json),
        StoreCommand::Export { to, .. } => export(&settings, to.as_deref()),
        StoreCommand::Import { from, .. } => import(&settings, from.as_deref()),
        StoreCommand::Key { .. } => unreachable!("answered above"),
    }
}

fn check(settings: &EmbeddedSettings, repair: bool) -> anyhow::Result<Exit> {
    let (bench, done) = match repair {
        true => Workbench::open_to_repair(settings)?,
        false => (Workbench::open_to_check(settings)?, Vec::new()),
    };
    let mut report = bench.check(repair);
    let mut text: String = done.iter().map(|done| format!("- {done}\n")).collect();
    if repair && (report.mendable > 0 || !done.is_empty()) {
        // A repair may bring other faults to light, such as an index entry of a message that is lost now.
        text.push_str(&told(&settings.path, &report));
        text.push_str(&lost(&report));
        let mended = report.mendable;
        for _ in 0..REPAIRS_MAX {
            report = bench.check(true);
            if report.mendable == 0 {
                break;
            }
        }
        let _ = writeln!(text, "repaired {mended}; looking again:");
        text.push_str(&told(&settings.path, &report));
        print(&text)?;
    } else {
        print(&told(&settings.path, &report))?;
    }
    Ok(if report.faults_total == 0 { Exit::Done } else { Exit::Failed })
}

fn told(path: &Path, report: &CheckReport) -> String {
    let counts = &report.counts;
    let mut text = format!(
        "{}: {} conversations, {} messages, {} message ids, {} first uses, {} groups, {} members, {} rows, {} devices, \
         {} hidden, {} last seen, {} users, {} notes\n",
        path.display(),
        counts.conversations,
        counts.messages,
        counts.message_ids,
        counts.first_uses,
        counts.groups,
        counts.members,
        counts.rows,
        counts.devices,
        counts.hidden,
        counts.last_seen,
        counts.users,
        counts.notes,
    );
    for fault in &report.faults {
        let _ = writeln!(text, "- {fault}");
    }
    let more = report.faults_total - report.faults.len() as u64;
    if more > 0 {
        let _ = writeln!(text, "- and {more} more");
    }
    match (report.faults_total, report.mendable) {
        (0, _) => text.push_str("no fault found\n"),
        (total, 0) => {
            let _ = writeln!(text, "{total} faults, none of which can be repaired: restore a backup, or a missing key");
        }
        (total, mendable) => {
            let _ =
                writeln!(text, "{total} faults, of which `corehub store check --repair` mends {mendable}; copy the folder first");
        }
    }
    text
}

/// What no repair brings back, all of it: whoever had sent it is to know.
fn lost(report: &CheckReport) -> String {
    let mut text = String::new();
    for (conversation, stretches) in &report.lost {
        let stretches = stretches.iter().map(|(from, to)| match from == to {
            true => from.0.to_string(),
            false => format!("{} to {}", from.0, to.0),
        });
        let _ = writeln!(text, "lost, unless a backup has it: {conversation} seq {}", stretches.collect::<Vec<_>>().join(", "));
    }
    text
}

fn stats(settings: &EmbeddedSettings, as_json: bool) -> anyhow::Result<Exit> {
    let stats = Workbench::open(settings)?.stats()?;
    if as_json { print(&format!("{}\n", stats_json(&stats))) } else { print(&stats_text(&stats)) }
}

fn stats_json(stats: &FolderStats) -> serde_json::Value {
    let tables = stats.tables.iter().map(|table| json!({"name": table.name, "records": table.records, "bytes": table.bytes}));
    json!({
        "conversations": stats.conversations,
        "messages": stats.messages,
        "groups": stats.groups,
        "members": stats.members,
        "users": stats.users,
        "oldest_message": stats.oldest.map(|at| at.0),
        "newest_message": stats.newest.map(|at| at.0),
        "disk_bytes": stats.disk_bytes,
        "tables": tables.collect::<Vec<_>>(),
    })
}

fn stats_text(stats: &FolderStats) -> String {
    let time = |at: Option<crate::types::Millis>| at.map_or_else(|| "none".to_owned(), |at| at.0.to_string());
    let mut text = format!(
        "conversations   {}\nmessages        {}\ngroups          {}\nmembers         {}\nusers           {}\n\
         oldest message  {}\nnewest message  {}\ndisk bytes      {}\n\n",
        stats.conversations,
        stats.messages,
        stats.groups,
        stats.members,
        stats.users,
        time(stats.oldest),
        time(stats.newest),
        stats.disk_bytes,
    );
    let _ = writeln!(text, "{:<16} {:>14} {:>16}", "table", "records", "bytes");
    for table in &stats.tables {
        let _ = writeln!(text, "{:<16} {:>14} {:>16}", table.name, table.records, table.bytes);
    }
    text
}

fn export(settings: &EmbeddedSettings, to: Option<&Path>) -> anyhow::Result<Exit> {
    let bench = Workbench::open(settings)?;
    let lines = match to {
        Some(path) => {
            // What is sealed in the folder is not sealed here.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
            let lines = bench.export(&mut file)?;
            file.sync_all().with_context(|| format!("cannot write {}", path.display()))?;
            lines
        }
        None => match bench.export(&mut std::io::stdout().lock()) {
            // A reader that has gone away, as in `| head`, is content.
            Err(store::ExportFault::Out(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
            lines => lines?,
        },
    };
    eprintln!("exported {lines} lines");
    Ok(Exit::Done)
}

fn import(settings: &EmbeddedSettings, from: Option<&Path>) -> anyhow::Result<Exit> {
    let lines = match from {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            store::import(settings, &mut BufReader::new(file))?
        }
        None => store::import(settings, &mut std::io::stdin().lock())?,
    };
    eprintln!("imported {lines} lines into {}", settings.path.display());
    Ok(Exit::Done)
}

fn key(id: &str) -> anyhow::Result<Exit> {
    match store::new_key_line(id) {
        Ok(line) => print(&format!("{}\n", *line)),
        Err(fault @ store::KeyFileFault::Id(_)) => {
            eprintln!("corehub: --id: {fault}");
            Ok(Exit::Refused)
        }
        Err(fault) => Err(fault.into()),
    }
}

/// A repair may uncover more; each time it is less.
const REPAIRS_MAX: usize = 4;
