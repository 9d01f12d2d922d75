//! Owns everything an operator can set: the table of options, how they are read, checked and documented, and the capacities
//! derived from them.
//!
//! Never reads a clock or the process environment: sources are handed in. Lives on the main thread; its results are plain
//! values that every thread may read.

mod check;
mod choice;
mod document;
mod fault;
pub mod limits;
pub mod memory;
mod options;
mod source;
mod spec;
#[cfg(test)]
mod tests;
mod value;

pub use check::SECRET_BYTES_MIN;
pub use choice::{Algorithm, Durability, GroupHistory, LogFormat, LogLevel, Pin, PresenceVisible, SessionPolicy, StoreKind};
pub use document::{reference, sample};
pub use fault::{ConfigErrors, Fault, Finding, Origin};
pub use limits::{EngineLimits, Limits, StoreLimits};
pub use options::*;
pub use source::{Flag, Sources};
pub use spec::{Spec, Status};
pub use value::{ByteSize, Secret, ShardCount, parse_duration, write_size};
