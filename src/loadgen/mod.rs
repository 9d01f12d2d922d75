//! Load generator: an honest client side for measuring a corehub server, and the bare loops it is measured against.
//!
//! Owns thousands of WebSocket connections per plain thread (mio, no async runtime), the scenarios that load them, and the
//! readings of the server's processor time and memory. Latency counts from when a message was *due*, so a stall of the server
//! is felt by every message it delays; costs are the server's processor time, so that they hold on any number of cores; and
//! when the generator itself was at its limit there is no verdict. Never imports the server's codec or engine: it judges bytes
//! from outside.
//!
//! Threads: `bench-<n>` hold connections, the calling thread gives orders and reads /proc, the server and the bare loops are
//! other processes.

pub mod ceiling;
pub mod ceiling_send;
pub mod options;
pub mod report;
pub mod scenario;

mod child;
mod codec;
mod crew;
mod dial;
mod disk;
mod envelope;
mod error;
mod fill;
mod fleet;
mod interrupt;
mod plan;
mod process;
mod solo;
mod stage;
mod tally;
mod token;
mod traffic;

pub use error::{BenchError, BenchResult};
pub use process::Cpus;

#[cfg(test)]
mod tests;
