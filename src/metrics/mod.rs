//! Owns what is counted: the catalogue of metrics, the plain counters of a shard and of the store, and the place where they meet.
//!
//! Never makes the counting side wait: a shard counts in its own memory and leaves a copy about twice a second, unless
//! somebody is reading the last one. Counters live on their owner's thread; [`Registry`] is shared and read by control.

pub mod catalog;
mod histogram;
mod registry;
mod render;
mod shard;

pub use histogram::Histogram;
pub use registry::{ProcessSample, Registry, ShardSummary, StoreMetrics, Summary};
pub use shard::{CloseReason, ShardMetrics};
