//! Owns every decision of a shard: sessions, users, groups, conversations, cursors, rates, timers.
//!
//! Never performs I/O, reads a clock or draws randomness it was not given: `Shard::handle(event, now, &mut effects)`.
//! Lives on its shard's thread; in tests and in the simulator on any thread.

pub mod effects;
pub mod event;
pub mod outbox;
pub mod settings;
pub mod shard;

pub use effects::Effects;
pub use event::Event;
pub use settings::Settings;
pub use shard::Shard;
