//! Owns `corehub config`: errors, the worst-case memory, the sample and the reference. Never changes a file.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use crate::config::memory::{MemoryLine, MemorySum, Taken};
use crate::config::{Config, Limits, reference, sample, write_size};

use super::arguments::ConfigCommand;
use super::{Environment, Exit, cores, doctor, print, serve};

/// `corehub config ..`.
pub fn config(command: &ConfigCommand, environment: Environment) -> anyhow::Result<Exit> {
    match command {
        ConfigCommand::Sample => print(&sample()),
        ConfigCommand::Reference => print(&reference()),
        ConfigCommand::Check { serve: arguments } => match arguments.load(environment) {
            Ok(config) => print(&report(&config)),
            Err(errors) => Ok(serve::refuse(&errors)),
        },
    }
}

/// What a good configuration means on this machine.
fn report(config: &Config) -> String {
    let limits = Limits::derive(config, cores());
    let sum = MemorySum::of(&limits);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["memory", "taken", "each", "count", "per shard", "in all"]);
    for line in &sum.lines {
        table.add_row(row(&sum, line));
    }
    for column in 2..6 {
        table.column_mut(column).expect("the header has six columns").set_cell_alignment(CellAlignment::Right);
    }
    let pinned = if limits.pin { ", each on its own core" } else { "" };
    let mut out = format!("The configuration is good: {} shards on {} cores{pinned}.\n\n", limits.shards, limits.cores);
    let _ = write!(out, "{}\n\n", trimmed(&table));
    let (start, connected) = (sum.bytes(Taken::Start), sum.bytes(Taken::Connected));
    let _ = writeln!(out, "At the start:                    {:>10}", short(start));
    let _ = writeln!(out, "With {:>9} idle connections: {:>10}", limits.connections_max, short(start.saturating_add(connected)));
    let _ = writeln!(out, "Everything at its limit at once: {:>10}", short(sum.total_bytes()));
    if let Some(machine) = doctor::memory_bytes() {
        let _ = writeln!(out, "This machine has:                {:>10}", short(machine));
        if start.saturating_add(connected) > machine {
            out.push_str("\nIdle connections alone do not fit: lower limits.connections.\n");
        } else if sum.total_bytes() > machine {
            out.push_str(
                "\nThe last sum is a bound, not a forecast: it counts a largest message in every place.\n\
                 To bring it down, lower limits.outbox_bytes, limits.message_bytes or limits.connections.\n",
            );
        }
    }
    out
}

fn row(sum: &MemorySum, line: &MemoryLine) -> [String; 6] {
    let taken = match line.taken {
        Taken::Start => "at the start",
        Taken::Connected => "connected",
        Taken::Full => "at the limit",
    };
    let per_shard = if line.shared { "-".to_owned() } else { short(line.shard_bytes()) };
    let each = write_size(line.each_bytes);
    [line.what.to_owned(), taken.to_owned(), each, line.count.to_string(), per_shard, short(sum.line_bytes(line))]
}

/// A size with three digits.
pub fn short(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1_000.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A table without the blanks at the ends of its lines.
pub fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let told: Vec<_> = [0, 999, 1_024, 4_194_304, 106_954_752, u64::MAX].map(short).into();
        assert_eq!(told, ["0 B", "999 B", "1.00 KiB", "4.00 MiB", "102 MiB", "16384 PiB"]);
    }

    #[test]
    fn the_report_has_every_line_and_the_sums() {
        let config = Config { dev: true, ..Config::default() };
        let report = report(&config);
        for line in MemorySum::of(&Limits::derive(&config, cores())).lines {
            assert!(report.contains(line.what), "{} is missing in {report}", line.what);
        }
        assert!(report.contains("Everything at its limit at once"));
    }
}
