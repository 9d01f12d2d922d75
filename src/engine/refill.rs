//! Owns the slow path, which is the same for everyone who is behind: a stalled reader, a returning device, a message that was
//! not confirmed. The log is read after the cursor, a page at a time, when the outbox has room.
//!
//! Never holds a backlog in memory: at most one page per connection is under way. Lives on the home shard.

use std::collections::HashSet;

use indexmap::IndexMap;
use smallvec::SmallVec;

use crate::types::command::ConversationRef;
use crate::types::envelope::Body;
use crate::types::outcome::Fault;
use crate::types::planted::{Planted, Reached, planted, reached};
use crate::types::push::{Push, SkipReason};
use crate::types::record::{Delivery, MessageKind};
use crate::types::storage::{Answer, Operation, RangePage, RangeQuery, Read, StoreFault, Write};
use crate::types::{CloseCode, Command, ConversationId, ConversationKind, ErrorName, RequestId, Seq, SessionId, SessionKey};

use super::cursor::{Cursor, CursorState};
use super::delivery::PERSIST_SENT_MS;
use super::outbox::{Lane, LogMark};
use super::pending::{Page, Pending};
use super::session::NEVER;
use super::shard::{Shard, Turn};

impl Shard {
    /// Reads the next page for a connection that is behind, if it has room and none is on its way.
    pub(super) fn refill(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let bytes_max = self.settings.outbox_bytes_max;
        let Some(session) = self.ready(key) else { return };
        let waiting = session.outbox.lane_bytes(Lane::Message);
        if session.lagging == 0 || session.refilling || session.timers.refill != NEVER || waiting * 2 > bytes_max {
            return;
        }
        let count = session.cursors.len() as u32;
        let next = (0..count)
            .map(|step| (session.refill_turn + step) % count)
            .find(|index| session.cursors[*index as usize].state == CursorState::Lagging);
        let Some(index) = next else {
            debug_assert!(false, "the count of lagging cursors is right");
            return;
        };
        session.refill_turn = (index + 1) % count;
        session.refilling = true;
        let id = session.id;
        let viewer = session.account().user.clone();
        let cursor = session.cursor(index);
        let (after, head) = (cursor.sent, cursor.head);
        let conversation = cursor.conversation.clone();
        let query = RangeQuery {
            conversation: conversation.clone(),
            viewer: Some(viewer),
            after: Some(if planted(Planted::RefillOffByOne) { after.next() } else { after }),
            before: Some(head.next()),
            since: None,
            until: None,
            newest: false,
            limit: PAGE_MESSAGES,
            bytes_max: (bytes_max - waiting) / 2,
        };
        self.counters.refills += 1;
        let page = Page { key, session: id, cursor: index, conversation, after, head };
        self.store(Operation::Read(Read::Range(query)), Pending::Refill(Box::new(page)), turn);
    }

    /// A page has been read: it goes into the outbox, gaps are explained, and the cursor may be live again.
    pub(super) fn refilled(&mut self, page: Page, result: Result<Answer, StoreFault>, turn: &mut Turn<'_>) {
        let key = page.key;
        let Some(session) = self.session(key).filter(|session| session.id == page.session) else { return };
        session.refilling = false;
        if !session.is_ready() {
            return;
        }
        // Shed or confirmed in the meantime, or gone from the group: the page is for another place.
        let fits = session.cursors.get(page.cursor as usize).is_some_and(|cursor| {
            cursor.state == CursorState::Lagging && cursor.sent == page.after && cursor.conversation == page.conversation
        });
        note_page(&page, fits, &result);
        let progressed = match result {
            Ok(Answer::Range(range)) => !fits || self.take_page(&page, range, turn),
            // Trying again does not help: the others go on. Its next message tries once more.
            Err(StoreFault::Damaged(_)) => {
                if fits {
                    if !std::mem::replace(&mut self.live(key).cursor(page.cursor).damaged, true) {
                        self.leave_out(key, &page.conversation, turn);
                    }
                    self.caught_up(key, page.cursor);
                }
                true
            }
            _ => false,
        };
        if let Some(session) = self.session(key) {
            match progressed {
                true => {
                    session.persist_by(turn.now.mono_ms() + PERSIST_SENT_MS);
                }
                // The store cannot answer, or the log ends before what was announced: try again rather than spin.
                false => session.timers.refill = turn.now.mono_ms() + RETRY_MS,
            }
        }
        self.sync_progress(key, turn);
        self.refill(key, turn);
        self.arm(key);
    }

    /// Returns false when the page did not bring the cursor any further.
    fn take_page(&mut self, page: &Page, range: RangePage, turn: &mut Turn<'_>) -> bool {
        let ack_timeout_ms = self.settings.ack_timeout_ms;
        let (key, index) = (page.key, page.cursor);
        let Some(session) = self.session(key) else { return true };
        let (id, acks) = (session.id, session.acks());
        let cursor = session.cursor(index);
        let (repeat_until, own_until) = (cursor.repeat_until, cursor.own_until);
        let mut at = cursor.sent;
        for message in range.messages {
            if message.seq <= at || message.seq > page.head {
                continue;
            }
            if message.seq > at.next() {
                self.skip_missing(key, index, (at.next(), message.seq.previous()), range.first_kept, turn);
            }
            at = message.seq;
            let redelivered = message.seq <= repeat_until && !planted(Planted::RepeatUnmarked);
            if planted(Planted::RefillSkipsOne) && at.0 % 5 == 0 {
                self.live(key).cursor(index).passed(at, acks, false);
                continue;
            }
            if message.origin == id && at > own_until {
                self.live(key).cursor(index).passed(at, acks, false);
            } else if message.expired(turn.now.wall) {
                self.skip(key, index, at, at, SkipReason::Expired, turn);
            } else {
                self.counters.delivered += 1;
                self.counters.redelivered += u64::from(redelivered);
                let system = matches!(message.kind, MessageKind::Notification(_));
                let frame = self.encoder.push(&Push::Message { message, redelivered }, None);
                let session = self.live(key);
                session.put(index, at, frame, system, ack_timeout_ms, turn);
            }
        }
        let covered = range.covered.1.min(page.head);
        if covered > at {
            self.skip_missing(key, index, (at.next(), covered), range.first_kept, turn);
            at = covered;
        }
        if self.session(key).is_some_and(|session| session.cursor(index).caught_up()) {
            self.caught_up(key, index);
        }
        at > page.after
    }

    /// A lagging cursor has read all there is, or all that can be read: it is live again.
    fn caught_up(&mut self, key: SessionKey, index: u32) {
        let Some(session) = self.session(key) else { return };
        session.set_state(index, CursorState::Live);
        let counted = std::mem::take(&mut session.cursor(index).counted);
        if let Some(sync) = session.sync.as_mut() {
            sync.behind = sync.behind.saturating_sub(u32::from(counted));
        }
        if session.lagging == 0 {
            self.counters.lagging -= 1;
        }
    }

    /// Moves past what a page does not hold: what lies before `first_kept` is gone by age, the rest is hidden.
    fn skip_missing(&mut self, key: SessionKey, index: u32, (from, to): (Seq, Seq), first_kept: Seq, turn: &mut Turn<'_>) {
        let gone = to.min(first_kept.previous());
        if gone >= from && planted(Planted::RetentionUntold) {
            let Some(session) = self.session(key) else { return };
            let acks = session.acks();
            session.cursor(index).passed(gone, acks, false);
        } else if gone >= from {
            self.skip(key, index, from, gone, SkipReason::Retention, turn);
        }
        if to > gone.max(from.previous()) {
            self.skip(key, index, from.max(gone.next()), to, SkipReason::Deleted, turn);
        }
    }

    /// Explains a gap that the cursor moves past, in its place among the messages.
    fn skip(&mut self, key: SessionKey, index: u32, from: Seq, to: Seq, reason: SkipReason, turn: &mut Turn<'_>) {
        self.explain(key, index, from, to, reason, turn);
        let Some(session) = self.session(key) else { return };
        let acks = session.acks();
        session.cursor(index).passed(to, acks, false);
    }

    /// Says that a stretch of a log is not delivered, and why.
    pub(super) fn explain(&mut self, key: SessionKey, index: u32, from: Seq, to: Seq, reason: SkipReason, turn: &mut Turn<'_>) {
        let Some(session) = self.session(key) else { return };
        let conversation = session.cursor(index).conversation.clone();
        let system = conversation.is_system();
        let frame = self.encoder.push(&Push::Skipped { conversation, from, to, reason }, None);
        let session = self.live(key);
        let mark = LogMark { cursor: index, seq: from };
        let dirty = match reason {
            // The log is not read again there when this is shed, so it is not.
            SkipReason::NotAMember => session.outbox.push(Lane::Message, frame, None),
            _ if system => session.outbox.push_system(frame, mark),
            _ => session.outbox.push(Lane::Message, frame, Some(mark)),
        };
        if dirty {
            turn.effects.dirty.push(key);
        }
    }

    /// Sends `sync_done` once everything that was behind has been put on its way.
    pub(super) fn sync_progress(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let Some(session) = self.ready(key) else { return };
        let Some(sync) =
            session.sync.as_mut().filter(|sync| sync.attaching == 0 && (sync.behind == 0 || planted(Planted::SyncDoneEarly)))
        else {
            return;
        };
        let requests = std::mem::take(&mut sync.requests);
        for request in &requests {
            // Behind the messages it speaks of.
            let frame = self.encoder.push(&Push::SyncDone, request.as_ref());
            let Some(session) = self.session(key) else { return };
            if session.outbox.push(Lane::Message, frame, Some(LogMark::SYNC_DONE)) {
                turn.effects.dirty.push(key);
            }
        }
        if let Some(sync) = self.session(key).and_then(|session| session.sync.as_mut()) {
            sync.said.extend(requests);
        }
    }

    /// Something was not confirmed in time: it is read from the log and sent again, or the connection is given up.
    pub(super) fn redeliver(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let now_ms = turn.now.mono_ms();
        let (timeout_ms, attempts_max) = (self.settings.ack_timeout_ms, self.settings.delivery_attempts);
        let Some(session) = self.ready(key) else { return };
        session.timers.ack = NEVER;
        if planted(Planted::RedeliveryNever) {
            return;
        }
        let was_lagging = session.lagging > 0;
        let mut given_up = false;
        for index in 0..session.cursors.len() as u32 {
            let waiting = session.outbox.first_waiting(index);
            let cursor = session.cursor(index);
            if cursor.state == CursorState::Free || !cursor.outstanding() {
                continue;
            }
            // What has not left yet cannot have been confirmed: a slow reader is not an unwilling one.
            if waiting.is_some_and(|first| first <= cursor.acked.next()) {
                cursor.unacked_since_ms = now_ms;
            }
            if now_ms < cursor.unacked_since_ms + timeout_ms {
                let deadline = cursor.unacked_since_ms + timeout_ms;
                session.timers.ack = session.timers.ack.min(deadline);
                continue;
            }
            if u32::from(cursor.attempts) >= attempts_max && !planted(Planted::RedeliveryEndless) {
                given_up = true;
                break;
            }
            reached(Reached::Redelivered);
            // What waits behind it would overtake it.
            session.shed();
            let cursor = session.cursor(index);
            cursor.attempts = cursor.attempts.saturating_add(1);
            cursor.unacked_since_ms = now_ms;
            cursor.repeat_until = cursor.repeat_until.max(cursor.sent);
            let acked = cursor.acked;
            session.lag(index, acked, Seq::NONE);
            session.timers.ack = session.timers.ack.min(now_ms + timeout_ms);
        }
        if !was_lagging && session.lagging > 0 {
            self.counters.lagging += 1;
        }
        if given_up {
            reached(Reached::GivenUp);
            return self.close(key, CloseCode::NoPongOrAck, "no_pong_or_ack", turn);
        }
        self.refill(key, turn);
    }

    /// Gives the store what the session's device has had since it was last told.
    pub(super) fn persist_deliveries(&mut self, key: SessionKey, turn: &mut Turn<'_>) {
        let Some(session) = self.session(key) else { return };
        session.timers.persist = NEVER;
        let Some(account) = session.account.as_ref() else { return };
        let (user, device) = (account.user.clone(), account.device.clone());
        let (mut deliveries, mut on_their_way) = (Vec::new(), false);
        for index in 0..session.cursors.len() as u32 {
            if matches!(session.cursors[index as usize].state, CursorState::Free | CursorState::Attaching) {
                continue;
            }
            let seq = session.delivered(index);
            let cursor = session.cursor(index);
            on_their_way |= seq < cursor.sent;
            if seq > cursor.persisted {
                cursor.persisted = seq;
                let conversation = cursor.conversation.clone();
                deliveries.push(Delivery { user: user.clone(), device: device.clone(), conversation, seq });
            }
        }
        if on_their_way && !session.acks() && session.is_ready() {
            session.persist_by(turn.now.mono_ms() + PERSIST_SENT_MS);
        }
        if !deliveries.is_empty() {
            let owner = self.owner_of_user(&user);
            let write = Box::new(Write::Deliveries(deliveries));
            self.route_anew(owner, Body::PersistUser { user, write }, turn);
        }
    }
}

/// `recv_ack` and `sync`.
impl Shard {
    pub(super) fn recv_ack(&mut self, key: SessionKey, acks: Vec<(ConversationId, Seq)>, turn: &mut Turn<'_>) {
        let now_ms = turn.now.mono_ms();
        let mut done: SmallVec<[u32; 4]> = SmallVec::new();
        let Some(session) = self.ready(key).filter(|session| session.acks()) else { return };
        for (conversation, seq) in acks {
            let Some(index) = session.cursor_of(&conversation) else { continue };
            let cursor = session.cursor(index);
            if !cursor.confirm(seq) {
                continue;
            }
            cursor.unacked_since_ms = now_ms;
            session.timers.persist = session.timers.persist.min(now_ms + PERSIST_ACKS_MS);
            let cursor = session.cursor(index);
            if cursor.state == CursorState::Lagging && cursor.caught_up() {
                done.push(index);
            }
        }
        for index in done {
            self.caught_up(key, index);
        }
        self.sync_progress(key, turn);
        self.arm(key);
    }

    /// `sync`: the client says what it has; its rows say what there is.
    pub(super) fn sync(
        &mut self,
        key: SessionKey,
        request: Option<RequestId>,
        cursors: IndexMap<ConversationId, Seq>,
        turn: &mut Turn<'_>,
    ) {
        if self.store_is_full() {
            return self.refuse(key, request.as_ref(), overloaded(), turn);
        }
        let Some(session) = self.ready(key) else { return };
        if session.owes_enough_syncs() {
            return self.refuse(key, request.as_ref(), too_many_syncs(), turn);
        }
        let (id, account) = (session.id, session.account());
        let read = Read::User { user: account.user.clone(), device: account.device.clone(), recent_since: None };
        let pending = Pending::SyncRows { key, session: id, request, cursors: Box::new(cursors) };
        self.store(Operation::Read(read), pending, turn);
    }

    pub(super) fn sync_rows(
        &mut self,
        key: SessionKey,
        id: SessionId,
        request: Option<RequestId>,
        cursors: IndexMap<ConversationId, Seq>,
        result: Result<Answer, StoreFault>,
        turn: &mut Turn<'_>,
    ) {
        let Some(session) = self.ready(key).filter(|session| session.id == id) else { return };
        if session.owes_enough_syncs() {
            // Several were on their way to the store.
            return self.refuse(key, request.as_ref(), too_many_syncs(), turn);
        }
        let state = match result {
            Ok(Answer::User(state)) => state,
            Ok(_) => return debug_assert!(false, "a user was asked for"),
            Err(fault) => return self.refuse(key, request.as_ref(), store_fault(&fault), turn),
        };
        let rows: HashSet<&ConversationId> = state.conversations.iter().map(|row| &row.conversation).collect();
        let foreign = cursors.keys().filter(|id| !rows.contains(id)).find(|id| {
            // One's own conversation in which nothing was ever said lacks nothing.
            id.is_group() || self.resolve(key, ConversationRef::Id((*id).clone())).is_err()
        });
        if let Some(foreign) = foreign {
            return self.refuse_foreign(key, foreign.clone(), request, turn);
        }
        self.live(key).owe_sync(request);
        for row in &state.conversations {
            let named = cursors.get(&row.conversation).copied();
            if named.is_none() && !cursors.is_empty() {
                continue;
            }
            let from = match named {
                Some(named) => named,
                // What has been confirmed since the state was last written counts.
                None => row.delivered_device.max(self.delivered_here(key, &row.conversation)).unwrap_or(row.start_seq),
            };
            let from = from.max(row.start_seq).min(row.head);
            self.sync_one(key, &row.conversation, from, row.head, turn);
            if named.is_some() {
                self.include_own(key, &row.conversation);
            }
        }
        self.refill(key, turn);
        self.sync_progress(key, turn);
    }

    fn delivered_here(&mut self, key: SessionKey, conversation: &ConversationId) -> Option<Seq> {
        let session = self.session(key)?;
        let index = session.cursor_of(conversation)?;
        (session.cursor(index).state != CursorState::Attaching).then(|| session.delivered(index))
    }

    /// A client that names what it has lacks its own messages after that as well.
    fn include_own(&mut self, key: SessionKey, conversation: &ConversationId) {
        let Some(session) = self.session(key) else { return };
        let Some(index) = session.cursor_of(conversation) else { return };
        let cursor = session.cursor(index);
        if cursor.state == CursorState::Lagging {
            cursor.own_until = cursor.head;
        }
    }

    fn sync_one(&mut self, key: SessionKey, conversation: &ConversationId, from: Seq, head: Seq, turn: &mut Turn<'_>) {
        let Some(session) = self.session(key) else { return };
        let first = session.lagging == 0;
        let index = match session.cursor_of(conversation) {
            Some(index) => index,
            None => match conversation.kind() {
                ConversationKind::Group(group) => return self.request_group(key, group, from, None, turn),
                _ => session.add_cursor(Cursor::new(conversation.clone(), head, CursorState::Live)),
            },
        };
        let cursor = session.cursor(index);
        if cursor.state == CursorState::Attaching {
            cursor.sent = from;
            return;
        }
        let (sent, known) = (cursor.sent, cursor.head.max(cursor.sent).max(head));
        if from >= known {
            return;
        }
        // Below where it began on this connection nothing was ever pushed.
        if sent > cursor.began {
            cursor.repeat_until = cursor.repeat_until.max(sent);
        }
        cursor.began = cursor.began.min(from);
        let repeat_until = cursor.repeat_until;
        session.outbox.forget_cursor(index);
        session.lag(index, from, known);
        let cursor = session.cursor(index);
        cursor.repeat_until = repeat_until;
        if !std::mem::replace(&mut cursor.counted, true)
            && let Some(sync) = session.sync.as_mut()
        {
            sync.behind += 1;
        }
        self.counters.lagging += u64::from(first);
    }

    /// A conversation that is not the client's: its owner knows how strangers are answered.
    fn refuse_foreign(&mut self, key: SessionKey, conversation: ConversationId, request: Option<RequestId>, turn: &mut Turn<'_>) {
        if !conversation.is_group() {
            let fault = Fault::new(ErrorName::Forbidden, "sync names a conversation that is not yours");
            return self.refuse(key, request.as_ref(), fault, turn);
        }
        self.pass_to_owner(key, conversation, Command::Sync { cursors: IndexMap::new() }, request, turn);
    }
}

/// Counts what a page is like.
fn note_page(page: &Page, fits: bool, result: &Result<Answer, StoreFault>) {
    match result {
        Err(_) => reached(Reached::PageFailed),
        Ok(_) if !fits => reached(Reached::PageStale),
        Ok(Answer::Range(range)) => {
            if range.has_more {
                reached(Reached::PageFull);
            }
            if !page.conversation.is_group() && !page.conversation.is_system() {
                reached(Reached::PagePrivate);
            }
        }
        Ok(_) => {}
    }
}

/// What a client is told when the store could not do it.
pub(super) fn store_fault(fault: &StoreFault) -> Fault {
    match fault {
        StoreFault::Damaged(_) => Fault::new(ErrorName::StoreUnavailable, "this is damaged in the store: it has to be repaired"),
        StoreFault::Unavailable(_) => Fault::retry(ErrorName::StoreUnavailable, "the store cannot take this now", 1_000),
        StoreFault::Overloaded { retry_after_ms } => Fault::retry(ErrorName::Overloaded, "the store is busy", *retry_after_ms),
    }
}

fn too_many_syncs() -> Fault {
    Fault::retry(ErrorName::Overloaded, "earlier syncs of this connection are not done: read on first", 100)
}

pub(super) fn overloaded() -> Fault {
    Fault::retry(ErrorName::Overloaded, "the server is busy", 100)
}

/// Messages read in one page.
const PAGE_MESSAGES: u32 = 256;
/// Milliseconds until a read that failed is tried again.
const RETRY_MS: u64 = 500;
/// Milliseconds that confirmations gather before they are written.
const PERSIST_ACKS_MS: u64 = 1_000;
