//! Owns what a shard means to do once the store has answered: one entry per ticket.

use compact_str::CompactString;

use crate::types::RawJson;
use crate::types::command::{Command, HistoryQuery};
use crate::types::envelope::Asker;
use crate::types::push::GroupEvent;
use crate::types::record::Member;
use crate::types::storage::Ticket;
use crate::types::{ConversationId, ErrorName, GroupId, RequestId, Seq, SessionId, SessionKey, UserId};
use indexmap::IndexMap;

/// Requests the store has not answered.
#[derive(Debug, Default)]
pub struct PendingTable {
    entries: slab::Slab<Pending>,
}

/// What an answer is for.
#[derive(Debug)]
pub enum Pending {
    LoadConversation(ConversationId),
    /// `notification` is kept to be tried again when nobody waits for an answer; `refusal` answers what is no repeat of
    /// something written before.
    Append {
        conversation: ConversationId,
        asker: Option<Box<Asker>>,
        notification: Option<Box<(CompactString, RawJson)>>,
        refusal: Option<ErrorName>,
    },
    ChangeGroup(Box<GroupPlan>),
    LoadUser {
        asker: Box<Asker>,
    },
    Refill(Box<Page>),
    /// `sync`: the user's rows, and what the client says it has.
    SyncRows {
        key: SessionKey,
        session: SessionId,
        request: Option<RequestId>,
        cursors: Box<IndexMap<ConversationId, Seq>>,
    },
    History {
        asker: Box<Asker>,
        query: Box<HistoryQuery>,
        conversation: ConversationId,
    },
    /// Where the message of a request is.
    Locate {
        asker: Box<Asker>,
        command: Box<Command>,
    },
    MarkRead {
        asker: Box<Asker>,
        conversation: ConversationId,
    },
    Recall {
        asker: Box<Asker>,
        conversation: ConversationId,
        message_id: crate::types::MessageId,
        seq: Seq,
    },
    /// A list for a client.
    List {
        asker: Box<Asker>,
    },
    /// A write whose success is all there is to say.
    AckWhenDone {
        asker: Box<Asker>,
    },
    /// Whose presence a client may see.
    Contacts {
        asker: Box<Asker>,
        users: Vec<UserId>,
        watch: bool,
    },
    PresenceLastSeen {
        asker: Box<Asker>,
        gather: u64,
        entries: Vec<crate::types::push::PresenceEntry>,
    },
    /// Something of a user's own. A failure loses nothing: what is not known to be delivered is delivered again.
    UserWrite(UserId),
}

/// A page of a log on its way to a cursor.
#[derive(Debug)]
pub struct Page {
    pub key: SessionKey,
    pub session: SessionId,
    pub cursor: u32,
    pub conversation: ConversationId,
    pub after: Seq,
    /// Last `seq` asked for.
    pub head: Seq,
}

/// A change of a group that takes effect when the store has it.
#[derive(Debug)]
pub struct GroupPlan {
    pub group: GroupId,
    pub asker: Option<Box<Asker>>,
    /// Whom members are told; None: an operator.
    pub by: Option<UserId>,
    pub record: Option<crate::types::record::Group>,
    pub put: Vec<Member>,
    pub removed: Vec<UserId>,
    pub delete: bool,
    /// What members are told, in order.
    pub events: Vec<(GroupEvent, Vec<UserId>)>,
    /// Users who get a `group_invite`.
    pub invited: Vec<UserId>,
    /// The reply names the group.
    pub name_group: bool,
}

impl GroupPlan {
    /// A plan that nobody asked for and that changes nothing yet.
    pub fn nobody() -> GroupPlan {
        GroupPlan {
            group: GroupId::new("-").expect("a dash is an identifier"),
            asker: None,
            by: None,
            record: None,
            put: Vec::new(),
            removed: Vec::new(),
            delete: false,
            events: Vec::new(),
            invited: Vec::new(),
            name_group: false,
        }
    }
}

impl PendingTable {
    pub fn insert(&mut self, pending: Pending) -> Ticket {
        Ticket(self.entries.insert(pending) as u64)
    }

    pub fn take(&mut self, ticket: Ticket) -> Option<Pending> {
        self.entries.try_remove(usize::try_from(ticket.0).ok()?)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
