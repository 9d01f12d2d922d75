//! Owns the vocabulary that every layer shares: identifiers, times, commands, pushes, records, outcomes and envelopes.
//!
//! Never performs I/O, never reads a clock and never decides anything. Lives on whichever thread holds the value;
//! everything here except [`frame::Frame`] may cross threads.

pub mod call;
pub mod command;
pub mod envelope;
pub mod frame;
pub mod id;
pub mod outcome;
pub mod push;
pub mod record;
pub mod revocation;
pub mod storage;
pub mod time;

pub use call::Call;
pub use command::{Command, Request};
pub use frame::{Encode, Frame, SharedFrame};
pub use id::{
    ConversationId, ConversationKind, DeviceId, GroupId, MessageId, RequestId, Seq, SessionAddress, SessionId, SessionKey,
    ShardId, UserId,
};
pub use outcome::{CloseCode, ErrorName};
pub use push::Push;
pub use record::{Message, MessageKind, RawJson};
pub use time::{Millis, Now};
