//! Owns how logs look and how much of them there is. Always standard error; never standard output.

use std::io::{IsTerminal, stderr};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat, LogLevel};

/// Changes the level of a running process.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<LevelFilter, Registry>);

impl LevelHandle {
    pub fn set(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, that is, when nothing is logged any more.
        let _ = self.0.reload(filter(level));
    }
}

/// Starts logging for the process; what was started before stays.
pub fn start(log: &Log) -> LevelHandle {
    let (level, handle) = reload::Layer::new(filter(log.level));
    let lines = match log.format {
        LogFormat::Text => fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(stderr).boxed(),
    };
    let lines = lines.with_filter(filter_fn(is_wanted));
    let _ = tracing_subscriber::registry().with(level).with(lines).try_init();
    LevelHandle(handle)
}

/// The database tells everyday matters at the level where the server tells what operators are to know.
fn is_wanted(of: &Metadata<'_>) -> bool {
    let everyday = *of.level() > Level::WARN;
    !(everyday && ["fjall", "lsm_tree"].iter().any(|library| of.target().starts_with(library)))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
