//! Owns keeping: logs, groups, rows, devices. Shards ask through a [`StoreClient`] and never wait; the store's own threads
//! are the only ones that may wait for a disk.
//!
//! Never decides who may do what and never reads the engine's state. Never loses a reply: a client has at most as much under
//! way as its reply ring holds, and refuses the rest.

mod backend;
mod calendar;
mod client;
pub(crate) mod embedded;
mod faults;
mod listing;
mod memory;
mod submission;
mod text;
mod threads;
mod upkeep;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

pub use backend::{Backend, Outcome, ReadSide};
pub use client::{Refused, StoreClient};
pub use embedded::{
    BackupFault, BackupReport, Backups, CheckReport, Copied, Durability, EmbeddedBackend, EmbeddedSettings, ExportFault,
    FolderStats, ImportFault, KeyFileFault, StoreOpenFault, TableStats, Workbench, import, new_key_line,
};
pub use embedded::{SearchLag, SearchSettings};
pub use faults::{Faults, FaultyBackend};
pub use memory::MemoryBackend;
pub use submission::{Desk, Served, Submission};
pub use threads::{CommitSample, Observer, Store, StoreParts, StoreSettings, StoreThreads, Wake, spawn};
pub use upkeep::Retention;
