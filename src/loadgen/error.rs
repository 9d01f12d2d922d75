//! Owns what can go wrong with a measurement. Never stands for a server's refusal of one message: those are counted.

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The options contradict each other or the machine.
    #[error("{0}")]
    Usage(String),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// The server under test did not do what the scenario needs before its load begins.
    #[error("{0}")]
    Server(String),
    /// A thread of the generator ended early.
    #[error("a generator thread stopped: {0}")]
    Worker(String),
}

impl BenchError {
    /// For `map_err`: says what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> BenchError {
        let what = what.into();
        move |source| BenchError::Io { what, source }
    }
}

/// Result of everything fallible here.
pub type BenchResult<T> = Result<T, BenchError>;
