//! Owns bytes: what clients send becomes typed values, what the server says becomes finished frames.
//!
//! ```text
//! upgrade   HTTP head → UpgradeRequest │ PlainRequest │ Refusal → response bytes
//! frame     receive buffer → messages, pings, pongs, closes, in place │ frame headers
//! json      text → Request │ Push → frame
//! ```
//!
//! Never performs I/O, reads a clock or keeps anything about a session: a driver feeds it and acts on what comes out.
//! Everything a peer may send is bounded here or refused here. Lives on shard threads; nothing in it is shared between them.

pub mod frame;
pub mod json;
pub mod upgrade;

#[cfg(test)]
mod tests;

pub use frame::{Feed, FrameLimits, Item, Reader, Violation};
pub use json::{DecodeFault, JsonEncoder, Scratch, decode};
pub use upgrade::{OriginRule, Parsed, PlainPage, PlainRequest, Refusal, UpgradeRequest, UpgradeRules};
