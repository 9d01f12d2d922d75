//! Owns where one connection stands in one conversation's log. Never moves back except to read again what was shed or not
//! acknowledged. Lives in its session.

use crate::types::planted::{Planted, planted};
use crate::types::{ConversationId, Seq};

/// A connection's place in a log. `acked <= sent`, and `sent <= head` while lagging.
#[derive(Debug)]
pub struct Cursor {
    pub conversation: ConversationId,
    /// Last `seq` put into the outbox (or skipped with reason).
    pub sent: Seq,
    /// Last `seq` the client has confirmed; follows `sent` for clients that do not confirm.
    pub acked: Seq,
    /// Last `seq` pushed that the client did not write itself: what it is expected to confirm.
    pub foreign: Seq,
    /// Delivery state last given to the store.
    pub persisted: Seq,
    /// While lagging: the last `seq` known to be for this connection. Reading stops there, because what lies beyond may be
    /// written after a membership ended.
    pub head: Seq,
    /// Everything up to here was put into the outbox of this connection before.
    pub repeat_until: Seq,
    /// The client said that it lacks its own messages up to here, too.
    pub own_until: Seq,
    /// Where it stood when it was made: what lies before was not pushed by this connection.
    pub began: Seq,
    /// Monotonic milliseconds since when something is unacknowledged.
    pub unacked_since_ms: u64,
    /// The home's room of this group and the place in its list; `NO_ROOM` for other conversations.
    pub room: u32,
    pub room_position: u32,
    /// Times the oldest unacknowledged message was sent.
    pub attempts: u8,
    pub state: CursorState,
    /// A `sync_done` waits for this cursor.
    pub counted: bool,
    /// The client knows that what comes next in the log is damaged.
    pub damaged: bool,
    /// The user became a member again before the end of the former membership arrived here: attach again after it.
    pub reattach: bool,
}

/// How a cursor gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorState {
    /// Not in use; its place in the list may be taken.
    Free,
    /// Waits for the group's owner to confirm membership; nothing is pushed.
    Attaching,
    /// Has everything up to the last delivery: the next one is pushed at once.
    Live,
    /// Behind: reads the log up to `head`.
    Lagging,
}

pub const NO_ROOM: u32 = u32::MAX;

impl Cursor {
    /// A cursor that stands at `at`.
    pub fn new(conversation: ConversationId, at: Seq, state: CursorState) -> Cursor {
        Cursor {
            conversation,
            sent: at,
            acked: at,
            foreign: at,
            persisted: at,
            head: at,
            repeat_until: Seq::NONE,
            own_until: Seq::NONE,
            began: at,
            unacked_since_ms: 0,
            room: NO_ROOM,
            room_position: 0,
            attempts: 0,
            state,
            counted: false,
            damaged: false,
            reattach: false,
        }
    }

    /// Falls back to reading the log after `sent`, at least up to `head`.
    pub fn lag(&mut self, sent: Seq, head: Seq) {
        self.head = self.head.max(self.sent).max(head);
        self.sent = sent;
        self.foreign = self.foreign.min(sent);
        self.acked = self.acked.min(sent);
        self.state = CursorState::Lagging;
        self.invariants();
    }

    /// Moves past `seq`, which was `pushed` or (the client's own, or skipped) not. A client that confirms does so for pushed
    /// ones only.
    pub fn passed(&mut self, seq: Seq, acks: bool, pushed: bool) {
        let settled = !acks || (!pushed && !self.outstanding());
        self.sent = seq;
        if pushed {
            self.foreign = seq;
        }
        if settled {
            self.acked = seq;
            self.foreign = seq;
        }
    }

    /// True when the client owes a confirmation.
    pub fn outstanding(&self) -> bool {
        self.acked < self.foreign
    }

    /// Takes a cumulative confirmation. Returns whether it moved.
    pub fn confirm(&mut self, seq: Seq) -> bool {
        let known = self.sent.max(self.repeat_until);
        let seq = if planted(Planted::AckBeyondSent) { seq } else { seq.min(known) };
        if seq <= self.acked {
            return false;
        }
        // A confirmation that arrives while its messages are being repeated spares the rest of the repeat.
        self.sent = self.sent.max(seq);
        self.head = self.head.max(self.sent);
        self.acked = if seq >= self.foreign { self.sent } else { seq };
        self.attempts = u8::from(self.outstanding());
        self.invariants();
        true
    }

    /// True when it has read all it knows of and may be pushed to again.
    pub fn caught_up(&self) -> bool {
        self.sent >= self.head
    }

    pub fn invariants(&self) {
        assert!(self.acked <= self.sent, "acknowledged beyond what was sent");
        assert!(self.foreign <= self.sent, "pushed beyond what was sent");
        assert!(self.state != CursorState::Lagging || self.sent <= self.head, "lagging beyond the head");
    }
}
