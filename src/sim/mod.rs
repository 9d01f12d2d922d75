//! Owns the simulator: whole nodes of real shards, real codec and the store in memory, with sockets, rings, disk and clock
//! replaced by virtual ones, so that any failure is replayed from its seed.
//!
//! Never names a runtime, a thread, a file or a clock. Lives on the one thread that runs it.

mod agenda;
mod disk;
mod finish;
mod ledger;
pub mod node;
mod oracle;
mod orders;
mod pass;
mod people;
#[cfg(any(test, feature = "planted-faults"))]
pub mod prove;
pub mod run;
mod script;
mod seat;
mod socket;
pub mod tally;

#[cfg(test)]
mod tests;

pub use node::{Node, Plan};
pub use socket::{Heard, Line, LineId};
