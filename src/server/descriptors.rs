//! Owns the process's limit of open files. Never lowers it. Runs on the main thread before any other is started.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Raises the soft limit of open files to what the configured connections need, as far as the hard limit allows. True when that
/// is not enough: then each shard needs its own table, and what is missing even so is said.
pub(super) fn raise(limits: &Limits) -> bool {
    let others = u64::from(limits.shards) * PER_SHARD + OTHERS;
    let wanted = limits.connections_max as u64 + others;
    let now = getrlimit(Resource::Nofile);
    let (soft, hard) = (now.current.unwrap_or(u64::MAX), now.maximum.unwrap_or(u64::MAX));
    if soft < wanted {
        let raised = Rlimit { current: Some(wanted.min(hard)), maximum: now.maximum };
        if let Err(fault) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%fault, soft, wanted, "cannot raise the limit of open files");
        }
    }
    if hard < wanted {
        let room = hard.saturating_sub(others) * u64::from(limits.shards);
        tracing::info!(hard, wanted, room, "the hard limit of open files is low: every shard has its own table");
        if room < limits.connections_max as u64 {
            let connections = limits.connections_max;
            tracing::warn!(room, connections, "raise the hard limit of open files (ulimit -Hn, LimitNOFILE) or add shards");
        }
    }
    hard < wanted
}

/// Rings, eventfds and listeners of one shard and of its executor.
const PER_SHARD: u64 = 16;
/// Logs, store, control and its connections.
const OTHERS: u64 = 512;
