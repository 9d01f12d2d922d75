//! Owns one connection's side of the conversation: who it is, how far it has got in each log, what waits to leave, and when it
//! must be looked at again.
//!
//! Never decides for a user or a group: their owners do. Lives on its home shard.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::types::command::Wishes;
use crate::types::planted::{Planted, Reached, planted, reached};
use crate::types::{ConversationId, DeviceId, Millis, Now, Request, Seq, SessionAddress, SessionId, SessionKey, ShardId, UserId};

use super::Hasher;
use super::cursor::{Cursor, CursorState};
use super::outbox::{LogMark, Outbox};
use super::rate::Bucket;
use super::revocations::TokenMark;

/// One connection. Small while idle: what only some phases need is behind a pointer.
#[derive(Debug)]
pub struct Session {
    pub key: SessionKey,
    pub id: SessionId,
    pub remote: IpAddr,
    pub phase: Phase,
    /// Set from the moment a token was accepted.
    pub account: Option<Account>,
    pub outbox: Outbox,
    pub cursors: SmallVec<[Cursor; 1]>,
    /// Places of the cursors once there are many.
    pub index: Option<Box<CursorIndex>>,
    pub requests: Bucket,
    pub errors: Bucket,
    /// Sessions that share the user's rate.
    pub sharers: u32,
    pub timers: Timers,
    /// A read of the log is under way for this connection; at most one is.
    pub refilling: bool,
    /// Where the search for the next lagging cursor begins, so that they take turns.
    pub refill_turn: u32,
    /// Cursors in [`CursorState::Lagging`].
    pub lagging: u32,
    /// Reading from the socket is held back until the outbox has drained and lists are answered.
    pub reading_held: bool,
    /// Lists asked for and not answered.
    pub lists_owed: u16,
    /// Echo mode.
    pub echo: bool,
    /// Verbs refused before authentication.
    pub refused_early: u8,
    /// What only opening, syncing and watching connections have.
    pub opening: Option<Box<Opening>>,
    pub sync: Option<Box<Sync>>,
    pub watches: Option<Box<indexmap::IndexSet<UserId>>>,
}

/// Finds a cursor by its conversation.
pub type CursorIndex = indexmap::IndexMap<ConversationId, u32, Hasher>;

/// Where a connection is in its life; only `Ready` sends and receives messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for `auth`.
    Opening,
    /// A token was accepted; the user's owner is asked.
    Authenticating,
    Ready,
    /// A close frame is on its way; nothing else is said or heard.
    Closing {
        /// The peer has sent its own: the socket may be closed as soon as ours has left.
        answered: bool,
    },
}

/// Who a connection is.
#[derive(Debug)]
pub struct Account {
    pub user: UserId,
    pub device: DeviceId,
    pub acks: bool,
    /// When its token ends by the wall clock, which alone decides; None = never.
    pub expires_at: Option<Millis>,
    /// For revocation.
    pub token: TokenMark,
    /// The client was told that its token has expired.
    pub expiry_told: bool,
}

/// Deadlines in monotonic milliseconds; `NEVER` when not set.
#[derive(Debug)]
pub struct Timers {
    /// When the wheel looks at this session next.
    pub armed: u64,
    /// End of the present phase: authentication, or closing.
    pub phase: u64,
    /// Next heartbeat, or the reaping when a ping is unanswered.
    pub beat: u64,
    /// Last sign of life.
    pub heard: u64,
    /// When the ping was sent that is unanswered; NEVER when none is.
    pub pinged: u64,
    /// The token's end as the wall clock stood when the session was last looked at; once that was told, the end of the grace.
    pub expiry: u64,
    pub ack: u64,
    /// Delivery state goes to the store.
    pub persist: u64,
    /// A read of the log that failed is tried again.
    pub refill: u64,
    /// Drain closes this connection.
    pub drain: u64,
}

pub const NEVER: u64 = u64::MAX;

/// State between token and `auth_success`.
#[derive(Debug, Default)]
pub struct Opening {
    /// Requests that came before the answer, in order.
    pub early: Vec<Request>,
    /// Conversations delivered to before the snapshot arrived, with their last `seq`.
    pub noted: Vec<(ConversationId, Seq)>,
    pub wishes: Wishes,
    /// `message_id` of the `auth` request.
    pub request: Option<crate::types::RequestId>,
}

/// A `sync_done` that is owed.
#[derive(Debug, Default)]
pub struct Sync {
    /// `message_id` of each request that is owed one; None for the one after authentication.
    pub requests: SmallVec<[Option<crate::types::RequestId>; 1]>,
    /// Groups whose owner has not confirmed yet.
    pub attaching: u32,
    /// Cursors that were behind when the sync began and still are.
    pub behind: u32,
    /// Those whose `sync_done` may still wait in the outbox, in order.
    pub said: SmallVec<[Option<crate::types::RequestId>; 1]>,
}

impl Session {
    /// Whether its requests should be held back: too much of what it asked for waits already, or is still to come.
    pub fn has_enough(&self, bytes_max: usize) -> bool {
        self.outbox.answer_bytes() > bytes_max || self.lists_owed >= LISTS_OWED_MAX
    }

    /// True while requests are taken.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    pub fn address(&self, shard: ShardId) -> SessionAddress {
        SessionAddress { shard, key: self.key }
    }

    /// The account of a session past `Opening`.
    pub fn account(&self) -> &Account {
        self.account.as_ref().expect("an authenticated session has an account")
    }

    pub fn acks(&self) -> bool {
        self.account.as_ref().is_some_and(|account| account.acks)
    }

    /// The cursor of a conversation.
    pub fn cursor_of(&self, conversation: &ConversationId) -> Option<u32> {
        if let Some(index) = &self.index {
            return index.get(conversation).copied();
        }
        self.cursors
            .iter()
            .position(|cursor| cursor.state != CursorState::Free && cursor.conversation == *conversation)
            .map(|at| at as u32)
    }

    pub fn cursor(&mut self, index: u32) -> &mut Cursor {
        &mut self.cursors[index as usize]
    }

    /// Whether no further `sync_done` can be owed before one that is has left.
    pub fn owes_enough_syncs(&self) -> bool {
        self.sync.as_ref().is_some_and(|sync| sync.requests.len() + sync.said.len() >= SYNCS_OWED_MAX)
    }

    /// A `sync_done` is owed once all that is behind now has been put on its way.
    pub fn owe_sync(&mut self, request: Option<crate::types::RequestId>) {
        debug_assert!(!self.owes_enough_syncs(), "what is owed is bounded");
        let mut sync = self.sync.take().unwrap_or_default();
        (sync.attaching, sync.behind) = (0, 0);
        sync.requests.push(request);
        for cursor in &mut self.cursors {
            cursor.counted = cursor.state == CursorState::Lagging;
            sync.attaching += u32::from(cursor.state == CursorState::Attaching);
            sync.behind += u32::from(cursor.counted);
        }
        self.sync = Some(sync);
    }

    /// Adds a cursor, in a free place when there is one.
    pub fn add_cursor(&mut self, cursor: Cursor) -> u32 {
        debug_assert!(self.cursor_of(&cursor.conversation).is_none(), "one cursor a conversation");
        if cursor.state == CursorState::Lagging {
            self.lagging += 1;
        }
        // A full list is searched for a free place before it grows.
        if self.cursors.len() == self.cursors.capacity()
            && let Some(free) = self.cursors.iter().position(|cursor| cursor.state == CursorState::Free)
        {
            if let Some(index) = self.index.as_mut() {
                index.insert(cursor.conversation.clone(), free as u32);
            }
            self.cursors[free] = cursor;
            return free as u32;
        }
        let place = self.cursors.len() as u32;
        if let Some(index) = self.index.as_mut() {
            index.insert(cursor.conversation.clone(), place);
        }
        self.cursors.push(cursor);
        if self.index.is_none() && self.cursors.len() > CURSORS_SEARCHED_MAX {
            let taken = self.cursors.iter().enumerate().filter(|(_, cursor)| cursor.state != CursorState::Free);
            self.index = Some(Box::new(taken.map(|(at, cursor)| (cursor.conversation.clone(), at as u32)).collect()));
        }
        place
    }

    /// Forgets a cursor; what it has in the outbox still leaves.
    pub fn remove_cursor(&mut self, index: u32) {
        if let Some(places) = self.index.as_mut() {
            places.swap_remove(&self.cursors[index as usize].conversation);
        }
        self.set_state(index, CursorState::Free);
        self.outbox.forget_cursor(index);
    }

    /// Changes a cursor's state and keeps count of the lagging ones.
    pub fn set_state(&mut self, index: u32, state: CursorState) {
        let cursor = &mut self.cursors[index as usize];
        self.lagging += u32::from(state == CursorState::Lagging);
        self.lagging -= u32::from(cursor.state == CursorState::Lagging);
        cursor.state = state;
    }

    /// Makes a cursor read the log after `sent`, at least up to `head`.
    pub fn lag(&mut self, index: u32, sent: Seq, head: Seq) {
        self.set_state(index, CursorState::Lagging);
        self.cursors[index as usize].lag(sent, head);
    }

    /// Drops the log entries that wait (not those in flight) and moves their cursors back before them. A `sync_done` among them
    /// is owed again.
    pub fn shed(&mut self) {
        let mut dropped: SmallVec<[(u32, Seq); 8]> = SmallVec::new();
        let mut unsaid = 0;
        self.outbox.shed_messages(|mark| {
            if mark == LogMark::SYNC_DONE {
                unsaid += 1;
            } else if !dropped.iter().any(|(cursor, _)| *cursor == mark.cursor) {
                dropped.push((mark.cursor, mark.seq));
            }
        });
        if unsaid > 0 {
            reached(Reached::SyncDoneShed);
        }
        // Also one that was not said yet speaks of what has waited here already.
        let owed = unsaid > 0 || self.sync.as_ref().is_some_and(|sync| !sync.requests.is_empty());
        for (index, first) in dropped {
            if planted(Planted::ShedForgetsMarks) {
                continue;
            }
            self.lag(index, first.previous(), Seq::NONE);
            if owed
                && let Some(sync) = self.sync.as_mut()
                && !std::mem::replace(&mut self.cursors[index as usize].counted, true)
            {
                sync.behind += 1;
            }
        }
        if unsaid > 0
            && let Some(sync) = self.sync.as_mut()
        {
            let again = sync.said.len() - unsaid;
            sync.requests.insert_many(0, sync.said.drain(again..));
        }
    }

    /// So many ends of syncs were in the flight that has left, the oldest.
    pub fn syncs_have_left(&mut self, count: usize) {
        if let Some(sync) = self.sync.as_mut() {
            sync.said.drain(..count.min(sync.said.len()));
            if sync.requests.is_empty() && sync.said.is_empty() {
                self.sync = None;
            }
        }
    }

    /// Last `seq` of a cursor that has surely left to the socket, or that the client has confirmed.
    pub fn delivered(&self, index: u32) -> Seq {
        let cursor = &self.cursors[index as usize];
        if self.acks() && !planted(Planted::DeliveredUnconfirmed) {
            return cursor.acked;
        }
        match self.outbox.first_waiting(index) {
            Some(first) => first.previous().min(cursor.sent),
            None => cursor.sent,
        }
    }

    /// Has delivery state written at `at_ms` at the latest. Returns whether the wheel has to be told.
    #[inline]
    pub fn persist_by(&mut self, at_ms: u64) -> bool {
        self.timers.persist = self.timers.persist.min(at_ms);
        self.timers.persist < self.timers.armed
    }

    /// Reckons the deadline of its token anew, since the wall clock may have been set since the last time. Called whenever the
    /// session is looked at, and beats see to that: a step of the clock is followed within `heartbeat_interval_ms` and a tick
    /// of the wheel, without a timer or a byte of its own. A token told to have ended that is good again is as if never told.
    pub fn follow_wall(&mut self, now: Now) {
        let Some(account) = self.account.as_mut() else { return };
        match account.expires_at {
            Some(at) if at > now.wall => {
                account.expiry_told = false;
                self.timers.expiry = now.mono_ms().saturating_add(at.0 - now.wall.0);
            }
            // The grace was counted from when it was told, by the clock that is never set.
            Some(_) if account.expiry_told => {}
            Some(_) => self.timers.expiry = now.mono_ms(),
            None => self.timers.expiry = NEVER,
        }
    }

    /// The earliest of the session's deadlines.
    pub fn next_deadline(&self) -> u64 {
        let timers = &self.timers;
        timers.phase.min(timers.beat).min(timers.expiry).min(timers.ack).min(timers.persist).min(timers.refill).min(timers.drain)
    }
}

/// Answers of `sync` that one connection can be owed; a client that asks more often is told to wait.
const SYNCS_OWED_MAX: usize = 16;

/// Cursors that are searched one after the other; more are indexed.
const CURSORS_SEARCHED_MAX: usize = 16;
/// Lists under way for one connection before its next requests wait in the socket.
const LISTS_OWED_MAX: u16 = 4;
