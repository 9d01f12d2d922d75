//! Owns every decision of a shard: sessions, users, groups, conversations, cursors, rates, timers.
//!
//! Never performs I/O, reads a clock or draws randomness it was not given: `Shard::handle(event, now, &mut effects)`.
//! Lives on its shard's thread; in tests and in the simulator on any thread.

mod attach;
mod conversations;
pub mod counters;
pub mod cursor;
mod delivery;
pub mod effects;
pub mod event;
mod handlers;
mod leave;
mod lifecycle;
pub mod outbox;
mod pending;
mod rate;
mod refill;
mod revocations;
mod room;
mod session;
pub mod settings;
pub mod shard;
mod users;
mod wheel;

pub use counters::Counters;
pub use effects::Effects;
pub use event::Event;
pub use settings::Settings;
pub use shard::Shard;

/// How the engine's tables hash: fast, and the same in every run with the same seed, so that a simulation can be replayed.
/// The server draws the seed from the operating system.
type Hasher = foldhash::quality::FixedState;
