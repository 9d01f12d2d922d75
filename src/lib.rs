//! corehub: a sharded, thread-per-core WebSocket instant-messaging server.
//!
//! ```text
//!         clients                                     operators, other servers
//!    ┌──────┴──────┐  SO_REUSEPORT                            │
//! ┌──▼────┐     ┌──▼────┐   SPSC rings, every pair       ┌────▼────┐
//! │shard 0│◄═══►│shard N│   (lock-free, one wake a turn) │ control │  tokio: REST, metrics
//! └──┬────┘     └──┬────┘                                └────┬────┘
//!    └──────┬──────┴───────────── bounded queues ─────────────┘
//!      ┌────▼────┐
//!      │  store  │  the only threads that wait for a disk
//!      └─────────┘
//! ```
//!
//! The one idea: the conversation's log is the truth, a connection is a set of cursors into logs, and live push is only the
//! fast path of reading the log. `docs/ARCHITECTURE.md` tells the rest.

pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod engine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod loadgen;
pub mod mesh;
pub mod metrics;
mod scheduling;
pub mod server;
pub mod shard;
pub mod sim;
pub mod store;
pub mod types;
pub mod wire;
