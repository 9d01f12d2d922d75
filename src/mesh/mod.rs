//! Owns how threads hand values to shards: rings between every pair of shards, doorbells that wake a parked shard exactly when
//! it must be woken, and inboxes for what operators ask.
//!
//! Never waits and never drops: what does not fit stays with whoever gave it, visible as overflow. [`Port`] and [`Inbox`] live
//! on their shard's thread; [`Waker`] and [`InboxSender`] on any.
//!
//! The one rule behind every doorbell: *whoever gives publishes first and looks at the doorbell after a full fence; whoever
//! parks announces it first and looks at its inputs after a full fence*. Of two threads doing so at once at least one sees the
//! other, so no value is left behind with its receiver asleep.

pub mod directory;
mod doorbell;
mod inbox;
mod port;
mod primitive;
mod waker;

pub use doorbell::Doorbell;
pub use inbox::{Inbox, InboxSender};
pub use port::{Port, build};
pub use waker::Waker;

#[cfg(test)]
mod tests;
