//! Owns what happens when a run is interrupted: spawned servers end and their temporary folders go. Without it a server that a
//! timeout orphaned would keep its port and processor.
//!
//! Lives on its own thread from the first spawned server on. Bare loops need no care: the end of their input ends them.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::{BenchError, BenchResult};

/// Starts listening to signals; once per process.
pub fn install() -> BenchResult<()> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    if INSTALLED.set(()).is_err() {
        return Ok(());
    }
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(BenchError::io("listen to signals"))?;
    std::thread::Builder::new()
        .name("bench-signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                clean();
                std::process::exit(128 + signal);
            }
        })
        .map_err(BenchError::io("start the thread for signals"))?;
    Ok(())
}

/// This server, and this folder, must not outlive an interrupted run.
pub fn remember(server: u32, folder: Option<PathBuf>) {
    kept().push((server, folder));
}

/// The server is about to be waited for: its number may soon be another process's.
pub fn forget(server: u32) {
    kept().retain(|(known, _)| *known != server);
}

fn clean() {
    for (server, folder) in kept().drain(..) {
        if let Some(pid) = i32::try_from(server).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Some(folder) = folder {
            // What cannot be removed lies in the temporary folder, where the system tidies.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn kept() -> std::sync::MutexGuard<'static, Vec<(u32, Option<PathBuf>)>> {
    static KEPT: Mutex<Vec<(u32, Option<PathBuf>)>> = Mutex::new(Vec::new());
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}
