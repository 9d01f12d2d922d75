//! Owns one process: what is built in which order, how it starts, drains and stops.
//!
//! Never touches a message. Lives on the main thread.

mod descriptors;
mod echo;
mod resolve;
mod serve;
mod signals;
mod topology;

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::auth::AuthFault;
use crate::config::{Config, ConfigErrors};
use crate::control::{ControlFault, KeyFault};
use crate::shard::{ListenFault, ShardFault};
use crate::store::StoreOpenFault;

pub use echo::{EchoServer, echo};
pub use serve::serve;

/// How a run ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// Drained.
    Done,
    /// A second signal stopped it at once.
    Stopped,
}

/// What the command line adds to a configuration.
pub struct ServeOptions {
    pub dev: bool,
    /// Called once, when clients and operators can connect, with the addresses in use.
    pub on_ready: Box<dyn FnOnce(Ready) + Send>,
    /// Reads all sources again (SIGHUP). The log level is in force on return; `Config::changes` tells the rest.
    pub reload: Box<dyn Fn() -> Result<Config, ConfigErrors> + Send>,
}

/// Addresses in use.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub client: SocketAddr,
    pub admin: SocketAddr,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Listen(#[from] ListenFault),
    #[error(transparent)]
    Shard(#[from] ShardFault),
    #[error("{what}: {source}")]
    System { what: &'static str, source: std::io::Error },
    #[error(transparent)]
    Auth(#[from] AuthFault),
    #[error("auth.public_key_file {path}: {source}", path = path.display())]
    PublicKey { path: PathBuf, source: std::io::Error },
    #[error("cannot listen on {address} for operators: {source} (listen.admin)")]
    Admin { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Control(#[from] ControlFault),
    #[error(transparent)]
    Keys(#[from] KeyFault),
    #[error("{0}")]
    Store(&'static str),
    #[error(transparent)]
    StoreOpen(#[from] StoreOpenFault),
}
