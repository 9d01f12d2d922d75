//! Owns how a session leaves groups: a membership that ends, a session that departs, and what the next cursor of the same group
//! has to know of the last one.
//!
//! Never decides who is a member: the group's owner does. Lives on the home shard.

use smallvec::SmallVec;

use crate::types::envelope::Body;
use crate::types::planted::{Planted, Reached, planted, reached};
use crate::types::{ConversationId, ConversationKind, GroupId, Seq, SessionKey, UserId};

use super::cursor::{Cursor, CursorState, NO_ROOM};
use super::shard::{Shard, Turn};

impl Shard {
    /// A user's membership has ended where the log stood at `last`: their sessions here leave the room.
    pub(super) fn group_detached(&mut self, group: &GroupId, user: &UserId, last: Seq, turn: &mut Turn<'_>) {
        let conversation = ConversationId::group(group);
        let keys: Vec<SessionKey> = match self.rooms.find(group).and_then(|room| self.rooms.get_mut(room)) {
            Some(room) => room.members.iter().map(|member| member.slot).collect::<Vec<_>>(),
            None => Vec::new(),
        }
        .into_iter()
        .filter_map(|slot| self.sessions[slot as usize].as_ref())
        .filter(|session| session.account.as_ref().is_some_and(|account| account.user == *user))
        .map(|session| session.key)
        .collect();
        for key in keys {
            let dropped = self.drop_cursor(key, &conversation, turn);
            self.detach_from(&conversation, group.clone(), user.clone(), turn);
            // What lies beyond the end was found by a `sync` that knew of the next membership before this shard did.
            if let Some(dropped) = dropped.filter(|dropped| dropped.reattach || dropped.known > last) {
                let repeat_until = if dropped.pushed > last { dropped.pushed } else { Seq::NONE };
                self.request_group_again(key, group, repeat_until, turn);
            }
            self.sync_progress(key, turn);
        }
    }

    /// Asks for a group of which the user has become a member again. What was pushed since then is marked when it is repeated.
    pub(super) fn request_group_again(&mut self, key: SessionKey, group: &GroupId, repeat_until: Seq, turn: &mut Turn<'_>) {
        self.request_group(key, group.clone(), Seq::NONE, None, turn);
        let Some(session) = self.ready(key) else { return };
        if let Some(index) = session.cursor_of(&ConversationId::group(group)) {
            session.cursor(index).repeat_until = repeat_until;
        }
    }

    pub(super) fn detach_from(&mut self, conversation: &ConversationId, group: GroupId, user: UserId, turn: &mut Turn<'_>) {
        let owner = self.owner_of(conversation);
        self.route_anew(owner, Body::DetachGroup { group, user, shard: self.id }, turn);
    }

    /// A session leaves a group. Returns what its next cursor there has to know; None when it had none. A `sync_done` may be due
    /// once that is asked for.
    pub(super) fn drop_cursor(&mut self, key: SessionKey, conversation: &ConversationId, turn: &mut Turn<'_>) -> Option<Dropped> {
        let session = self.session(key)?;
        let index = session.cursor_of(conversation)?;
        let was_lagging = session.lagging > 0;
        let cursor = session.cursor(index);
        let (room, position) = (cursor.room, cursor.room_position);
        let attaching = cursor.state == CursorState::Attaching;
        let counted = cursor.counted;
        let sent = if attaching || cursor.sent <= cursor.began { Seq::NONE } else { cursor.sent };
        let pushed = cursor.repeat_until.max(sent);
        let dropped = Dropped { reattach: cursor.reattach, pushed, known: pushed.max(cursor.head) };
        session.remove_cursor(index);
        if let Some(sync) = session.sync.as_mut() {
            sync.attaching = sync.attaching.saturating_sub(u32::from(attaching));
            sync.behind = sync.behind.saturating_sub(u32::from(counted));
        }
        if was_lagging && session.lagging == 0 {
            self.counters.lagging -= 1;
        }
        self.leave_room(room, position, turn);
        Some(dropped)
    }

    /// Takes one member out of a room's list; whoever moves into its place is told.
    fn leave_room(&mut self, room: u32, position: u32, turn: &mut Turn<'_>) {
        if room == NO_ROOM {
            return;
        }
        let Some(found) = self.rooms.get_mut(room).filter(|_| !planted(Planted::LeaveKeepsPlace)) else { return };
        let from = found.members.len() - 1;
        found.members.swap_remove(position as usize);
        let (head, walked) = (found.head, found.position);
        let moved = found.members.get(position as usize).copied();
        let under_way = !found.backlog.is_empty();
        if let Some(moved) = moved
            && let Some(session) = self.sessions[moved.slot as usize].as_deref_mut()
        {
            let key = session.key;
            let was_lagging = session.lagging > 0;
            session.cursor(moved.cursor).room_position = position;
            // A walk that has passed the place it moved to will not come by again.
            let passed = under_way && (position as usize) < walked && from >= walked;
            let missed = passed && !planted(Planted::WalkMissesMoved);
            if passed {
                reached(Reached::WalkMissedMoved);
            }
            if missed && session.cursor(moved.cursor).state == CursorState::Lagging {
                let cursor = session.cursor(moved.cursor);
                cursor.head = cursor.head.max(head);
            } else if missed && session.cursor(moved.cursor).state == CursorState::Live {
                let sent = session.cursor(moved.cursor).sent;
                if sent < head {
                    session.lag(moved.cursor, sent, head);
                    self.counters.lagging += u64::from(!was_lagging);
                    self.refill(key, turn);
                }
            }
        }
        self.rooms.leave_if_empty(room);
    }

    /// A departing session leaves all its rooms.
    pub(super) fn leave_rooms(&mut self, user: &UserId, cursors: SmallVec<[Cursor; 1]>, turn: &mut Turn<'_>) {
        for cursor in cursors {
            // One that still waits for the owner's answer tells it when the answer comes.
            if matches!(cursor.state, CursorState::Free | CursorState::Attaching) || cursor.room == NO_ROOM {
                continue;
            }
            self.leave_room(cursor.room, cursor.room_position, turn);
            let ConversationKind::Group(group) = cursor.conversation.kind() else { continue };
            if planted(Planted::DetachForgotten) {
                continue;
            }
            self.detach_from(&cursor.conversation, group, user.clone(), turn);
        }
    }
}

/// What a cursor that is dropped leaves behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropped {
    /// Its user has become a member again since.
    pub reattach: bool,
    /// This connection was pushed everything up to here, as far as it was to be.
    pub pushed: Seq,
    /// What it was to read up to, or was pushed.
    known: Seq,
}
