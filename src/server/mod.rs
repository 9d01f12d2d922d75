//! Owns one process: what is built in which order, how it starts, drains and stops.
//!
//! Never touches a message. Lives on the main thread.

mod echo;
mod signals;

pub use echo::{EchoServer, echo};

use crate::shard::{ListenFault, ShardFault};

/// Why a server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerFault {
    #[error(transparent)]
    Listen(#[from] ListenFault),
    #[error(transparent)]
    Shard(#[from] ShardFault),
    #[error("{what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Asked to, and drained: exit code 0.
    Done,
    /// A second signal cut the drain short: exit code 130.
    Interrupted,
}
