//! Placeholder of the server layer until it lands: the seam that `cli` is written against.

use std::net::SocketAddr;

use crate::config::{Config, ConfigErrors};

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
    #[error("the server layer is not part of this build")]
    Absent,
}

/// Runs a server until it is told to stop.
pub fn serve(_config: Config, _options: ServeOptions) -> Result<ExitKind, ServeError> {
    Err(ServeError::Absent)
}

/// Answers every message with itself until it is told to stop.
pub fn echo(_listen: SocketAddr) -> Result<ExitKind, ServeError> {
    Err(ServeError::Absent)
}
