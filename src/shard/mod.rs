//! shard: work in progress.
pub mod ring;
