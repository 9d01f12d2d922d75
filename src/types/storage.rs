//! Owns what a shard asks of the store and what the store answers. Never says how it is kept: `store/` does.
//!
//! A request carries a ticket which its reply repeats; replies may come in any order between tickets. Requests of one shard
//! that write are applied in the order in which they were made. A write is answered only when it is as durable as
//! `store.durability` promises.

use super::id::{ConversationId, DeviceId, GroupId, MessageId, Seq, UserId};
use super::push::{ConversationSummary, UnreadEntry};
use super::record::{Delivery, Group, Member, Message, SharedMessage, UserConversation};
use super::time::Millis;

/// Names a request towards its reply; chosen by the shard, opaque to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// One request of a shard.
#[derive(Debug)]
pub struct StoreRequest {
    pub ticket: Ticket,
    pub operation: Operation,
}

/// What may be asked.
#[derive(Debug)]
pub enum Operation {
    Write(Write),
    Read(Read),
}

/// Everything that changes the store. Each is atomic.
#[derive(Debug)]
pub enum Write {
    /// Appends to a conversation's log under the next `seq`, unless the sender's `client_id` is known already.
    /// The first message of a private or system conversation also makes its users' rows.
    Append(Box<Append>),
    /// Creates, changes or deletes a group and its members in one step.
    Group(Box<GroupChange>),
    /// A device is known from now on; `deliveries` is where it starts.
    Device { user: UserId, device: DeviceId, at: Millis, deliveries: Vec<Delivery> },
    /// Moves delivery state forward (never back).
    Deliveries(Vec<Delivery>),
    /// Moves read state forward (never back); answers with what it is now.
    MarkRead { user: UserId, conversation: ConversationId, seq: Seq },
    /// Replaces a message by its tombstone.
    Recall { conversation: ConversationId, seq: Seq, by: UserId },
    /// Hides a message from one user on all devices.
    Hide { user: UserId, conversation: ConversationId, seq: Seq },
    /// When a user was last connected.
    LastSeen { user: UserId, at: Millis },
    /// There are such users, whatever else is known of them.
    Know(Vec<UserId>),
    /// Keeps, replaces or (None) forgets a note: a small record of operators' business, which the store does not look into.
    Note { name: NoteName, text: Option<String> },
}

/// An append.
#[derive(Debug)]
pub struct Append {
    /// Complete but for its `seq`, which the store gives: it alone sees both the log's end and the duplicate window.
    pub message: Message,
    /// The log's last `seq` when the owner has nothing in flight for this conversation; None while it has, since the store
    /// then still knows the end itself. Spares the writer a look-up.
    pub head: Option<Seq>,
    /// Client ids first used before this time no longer count as duplicates.
    pub dedupe_since: Millis,
    /// Writes nothing: the sender may not write here any more, and is only told of what was written before. `Done` when the
    /// `client_id` is new.
    pub repeat_only: bool,
}

/// A change to a group. `members_put` is inserted or replaced, `members_removed` deleted, each with the user's own row.
#[derive(Debug)]
pub struct GroupChange {
    pub group: GroupId,
    /// Some: create or replace. None: leave as it is.
    pub record: Option<Group>,
    pub members_put: Vec<Member>,
    pub members_removed: Vec<UserId>,
    /// The group and its member list are deleted; its log stays by retention.
    pub delete: bool,
}

/// Everything that only looks.
#[derive(Debug)]
pub enum Read {
    /// The end of a conversation's log.
    Head { conversation: ConversationId },
    /// A group with its members and the end of its log.
    Group { group: GroupId },
    /// All of a user's conversations as `device` sees them; `recent_since`: as it is to see them when it is new, see
    /// [`UserConversation::recent_from`].
    User { user: UserId, device: DeviceId, recent_since: Option<Millis> },
    /// One user's row of one conversation.
    Row { user: UserId, device: DeviceId, conversation: ConversationId },
    /// A stretch of a log.
    Range(RangeQuery),
    /// Where a message is.
    Locate { message_id: MessageId },
    /// When users were last connected.
    LastSeen { users: Vec<UserId> },
    /// Who of `others` shares a conversation with `user`: has written to or been written to by them, or is in a group of theirs.
    Contacts { user: UserId, others: Vec<UserId> },
    /// A user's conversations, the one with the newest message first. `cursor` is the `next` of an earlier answer.
    Summaries { user: UserId, limit: u32, cursor: Option<String> },
    /// A user's conversations with unread messages: own, recalled and hidden ones never count, notifications do.
    Unread { user: UserId },
    /// Messages whose text matches, newest first, in the conversations the user has a row of, from each row's `start_seq` on;
    /// with `whole_groups` also what was said in groups before.
    Search {
        user: UserId,
        query: String,
        conversation: Option<ConversationId>,
        whole_groups: bool,
        limit: u32,
        cursor: Option<String>,
    },
    /// Everyone known, in an order that stays: whoever has or had a conversation, a device or a time of being seen, or was named
    /// by [`Write::Know`]. After `after`,
    /// at most `limit`.
    Users { after: Option<UserId>, limit: u32 },
    /// How many [`Read::Users`] would name in all.
    UserCount,
    /// Groups by id, after `after`, at most `limit`.
    Groups { after: Option<GroupId>, limit: u32 },
    /// All notes of a kind, by id.
    Notes { kind: &'static str },
}

/// The name of a note: its kind, which notes are listed by, and an id within the kind. Neither holds control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoteName {
    pub kind: &'static str,
    pub id: String,
}

/// A stretch of a log, ascending by `seq` in the answer. Bounds are exclusive; `since` is inclusive, `until` exclusive.
#[derive(Clone, Debug)]
pub struct RangeQuery {
    pub conversation: ConversationId,
    /// Whose hidden messages are left out; None = nobody's.
    pub viewer: Option<UserId>,
    pub after: Option<Seq>,
    pub before: Option<Seq>,
    pub since: Option<Millis>,
    pub until: Option<Millis>,
    /// True: the newest messages within the bounds; false: the oldest.
    pub newest: bool,
    /// At most this many messages, at least 1.
    pub limit: u32,
    /// Stops after the message that passes this sum of [`Message::weight_bytes`], so one is always answered.
    pub bytes_max: usize,
}

/// The answer to a request.
#[derive(Debug)]
pub struct StoreReply {
    pub ticket: Ticket,
    pub result: Result<Answer, StoreFault>,
}

/// What may be answered.
#[derive(Debug)]
pub enum Answer {
    /// The append is durable.
    Appended(SharedMessage),
    /// The sender used this `client_id` before; nothing was written.
    Duplicate {
        message_id: MessageId,
        conversation: ConversationId,
        seq: Seq,
        created_at: Millis,
    },
    /// A write without more to say is durable.
    Done,
    /// `MarkRead`: where read state is now, whether it moved, and who wrote (up to 64 distinct) what has become read.
    ReadAt {
        seq: Seq,
        moved: bool,
        senders: Vec<UserId>,
    },
    Head(Seq),
    Group(Option<Box<GroupState>>),
    User(Box<UserState>),
    Row(Option<Box<UserConversation>>),
    Range(RangePage),
    Located(Option<SharedMessage>),
    LastSeen(Vec<(UserId, Option<Millis>)>),
    Contacts(Vec<UserId>),
    Summaries {
        conversations: Vec<ConversationSummary>,
        next: Option<String>,
    },
    Unread(Vec<UnreadEntry>),
    Found {
        messages: Vec<SharedMessage>,
        next: Option<String>,
    },
    Users(Vec<UserId>),
    Count(u64),
    Groups(Vec<Group>),
    /// Id and text of each.
    Notes(Vec<(String, String)>),
}

/// A group as its owner loads it.
#[derive(Debug)]
pub struct GroupState {
    pub group: Group,
    /// In order of joining.
    pub members: Vec<Member>,
    pub head: Seq,
}

/// A user as a connecting device finds itself.
#[derive(Debug)]
pub struct UserState {
    /// The device has connected before.
    pub device_known: bool,
    pub conversations: Vec<UserConversation>,
    pub last_seen: Option<Millis>,
    /// What is known to be missing here because it is damaged on disk: mostly conversations.
    pub damaged: u32,
}

/// A page of a log.
#[derive(Debug)]
pub struct RangePage {
    /// Ascending by `seq`. Hidden messages are missing; so are those that retention has removed.
    pub messages: Vec<SharedMessage>,
    /// More lie beyond the end of the page that was not reached, within the bounds.
    pub has_more: bool,
    /// The part of the log this page speaks for, both ends inclusive: what is in it but not in `messages` is gone or hidden.
    /// (1, 0) when nothing was looked at.
    pub covered: (Seq, Seq),
    /// First `seq` that retention has left.
    pub first_kept: Seq,
}

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// Full disk, I/O error, lost database: nothing was written, nothing was acknowledged.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// What is asked for, or what it depends on, is damaged on disk: asking again does not help, an operator has to repair it.
    /// Nothing was written.
    #[error("damaged in the store: {0}")]
    Damaged(String),
    /// Its queue is full.
    #[error("store queue full")]
    Overloaded { retry_after_ms: u64 },
}
