//! Owns which local connections want a group's messages, and how far this shard has got in delivering each group.
//!
//! Never knows who is a member: the group's owner confirmed it before a connection entered. Lives on the home shard.

use std::collections::VecDeque;

use indexmap::IndexMap;

use crate::types::{Frame, GroupId, Seq, SessionId};

use super::Hasher;

/// All groups with connections at home here.
#[derive(Debug)]
pub struct Rooms {
    places: slab::Slab<Room>,
    index: IndexMap<GroupId, u32, Hasher>,
}

/// One group's local connections.
#[derive(Debug)]
pub struct Room {
    pub group: GroupId,
    /// Last `seq` the owner delivered to this shard.
    pub head: Seq,
    pub members: Vec<RoomMember>,
    /// Messages whose walk over the members is not finished; the first is under way at `position`.
    pub backlog: VecDeque<Walk>,
    pub position: usize,
}

/// A connection and its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomMember {
    pub slot: u32,
    pub cursor: u32,
}

/// One message on its way through a room.
#[derive(Clone, Debug)]
pub struct Walk {
    pub seq: Seq,
    pub origin: SessionId,
    pub frame: Frame,
    pub received_us: u64,
}

impl Rooms {
    pub fn new(hasher: Hasher) -> Rooms {
        Rooms { places: slab::Slab::new(), index: IndexMap::with_hasher(hasher) }
    }

    pub fn find(&self, group: &GroupId) -> Option<u32> {
        self.index.get(group).copied()
    }

    pub fn get_mut(&mut self, room: u32) -> Option<&mut Room> {
        self.places.get_mut(room as usize)
    }

    /// The room of a group, made with the owner's `head` when there is none.
    pub fn enter(&mut self, group: &GroupId, head: Seq) -> u32 {
        if let Some(room) = self.find(group) {
            return room;
        }
        let room = Room { group: group.clone(), head, members: Vec::new(), backlog: VecDeque::new(), position: 0 };
        let place = self.places.insert(room) as u32;
        self.index.insert(group.clone(), place);
        place
    }

    /// Frees a room that nobody is in.
    pub fn leave_if_empty(&mut self, room: u32) {
        if self.places.get(room as usize).is_some_and(|room| room.members.is_empty()) {
            let gone = self.places.remove(room as usize);
            self.index.swap_remove(&gone.group);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Room> {
        self.places.iter().map(|(_, room)| room)
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }
}
