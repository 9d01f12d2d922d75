//! Owns the JSON spelling of the protocol: text frames to [`crate::types::Request`], [`crate::types::Push`] to frames.
//!
//! Never decides anything beyond form (right types, ranges, exclusive choices) and never re-encodes what clients wrote:
//! `content` and `ext` are kept and sent byte for byte. Lives on shard threads, one [`Scratch`] and one [`JsonEncoder`] each.

mod command;
mod decode;
mod encode;
mod encode_message;
mod send;
mod tape;
mod text;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod encode_tests;

pub use command::continue_history;
pub use decode::{DecodeFault, Scratch, decode};
pub use encode::JsonEncoder;
pub use text::write_string;

/// Deepest nesting of a client's JSON, the envelope counted; deeper is `BAD_JSON`.
pub const DEPTH_MAX: usize = 64;
