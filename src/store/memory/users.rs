//! Owns what belongs to users: rows, devices, hidden messages, last seen. Never knows a log's end (rows name logs by number).
//! Lives with its backend.

use std::collections::BTreeSet;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use smallvec::SmallVec;

use crate::types::{DeviceId, Millis, Seq, UserId};

/// All users ever named, numbered in order of their first mention.
#[derive(Debug)]
pub struct Users {
    table: IndexMap<UserId, User, FixedState>,
}

impl Users {
    pub fn new(hasher: FixedState) -> Users {
        Users { table: IndexMap::with_hasher(hasher) }
    }

    /// The user's number, given now when they are new.
    pub fn number(&mut self, user: &UserId) -> u32 {
        match self.table.get_index_of(user) {
            Some(index) => index as u32,
            None => self.table.insert_full(user.clone(), User::default()).0 as u32,
        }
    }

    pub fn known(&self, user: &UserId) -> Option<u32> {
        self.table.get_index_of(user).map(|index| index as u32)
    }

    pub fn id(&self, number: u32) -> &UserId {
        self.table.get_index(number as usize).expect("numbers are never taken back").0
    }

    pub fn by_number(&mut self, number: u32) -> &mut User {
        &mut self.table[number as usize]
    }

    pub fn user(&self, user: &UserId) -> Option<&User> {
        self.table.get(user)
    }

    /// Who of `others` has a row of a log that `user` has one of as well.
    pub fn contacts(&self, user: &UserId, others: &[UserId]) -> Vec<UserId> {
        let Some(user) = self.user(user) else { return Vec::new() };
        let shares = |other: &User| other.rows.iter().any(|row| user.place(row.log).is_ok());
        others.iter().filter(|other| self.user(other).is_some_and(shares)).cloned().collect()
    }

    pub fn user_mut(&mut self, user: &UserId) -> Option<&mut User> {
        self.table.get_mut(user)
    }

    /// Users after `after` in the order of their numbers.
    pub fn listed(&self, after: Option<&UserId>, limit: usize) -> Vec<UserId> {
        let from = after.and_then(|after| self.table.get_index_of(after)).map_or(0, |index| index + 1);
        self.table.keys().skip(from).take(limit).cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// The user, made now when they are new.
    pub fn entry(&mut self, user: &UserId) -> &mut User {
        let number = self.number(user);
        self.by_number(number)
    }
}

/// One user.
#[derive(Debug, Default)]
pub struct User {
    /// Ascending by log.
    rows: Vec<Row>,
    devices: Vec<DeviceId>,
    hidden: BTreeSet<(u32, Seq)>,
    pub last_seen: Option<Millis>,
}

/// Where a user stands in one log.
#[derive(Debug)]
pub struct Row {
    /// Number of the log.
    pub log: u32,
    pub start_seq: Seq,
    pub read_seq: Seq,
    /// By number of the device within its user; most have one.
    delivered: SmallVec<[(u32, Seq); 1]>,
}

impl User {
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn row(&self, log: u32) -> Option<&Row> {
        self.place(log).ok().map(|place| &self.rows[place])
    }

    pub fn row_mut(&mut self, log: u32) -> Option<&mut Row> {
        self.place(log).ok().map(|place| &mut self.rows[place])
    }

    /// Makes the row; one that exists keeps what was read and delivered and begins at `start_seq` from now on.
    pub fn put_row(&mut self, log: u32, start_seq: Seq) {
        match self.place(log) {
            Ok(place) => self.rows[place].start_seq = start_seq,
            Err(place) => {
                if self.rows.len() == self.rows.capacity() {
                    // Doubling would cost a user of one conversation the memory of four.
                    self.rows.reserve_exact(1 + self.rows.len() / 4);
                }
                self.rows.insert(place, Row { log, start_seq, read_seq: start_seq, delivered: SmallVec::new() });
            }
        }
    }

    pub fn remove_row(&mut self, log: u32) {
        if let Ok(place) = self.place(log) {
            self.rows.remove(place);
        }
    }

    pub fn device(&self, device: &DeviceId) -> Option<u32> {
        self.devices.iter().position(|known| known == device).map(|place| place as u32)
    }

    /// Makes the device known; returns its number.
    pub fn put_device(&mut self, device: &DeviceId) -> u32 {
        self.device(device).unwrap_or_else(|| {
            self.devices.reserve_exact(1);
            self.devices.push(device.clone());
            self.devices.len() as u32 - 1
        })
    }

    pub fn hide(&mut self, log: u32, seq: Seq) {
        self.hidden.insert((log, seq));
    }

    pub fn hides(&self, log: u32, seq: Seq) -> bool {
        !self.hidden.is_empty() && self.hidden.contains(&(log, seq))
    }

    fn place(&self, log: u32) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&log, |row| row.log)
    }
}

impl Row {
    pub fn delivered(&self, device: u32) -> Option<Seq> {
        self.delivered.iter().find(|(known, _)| *known == device).map(|(_, seq)| *seq)
    }

    /// The furthest that any device has had; the beginning of the row when none has had anything.
    pub fn delivered_any(&self) -> Seq {
        self.delivered.iter().map(|(_, seq)| *seq).max().unwrap_or_default().max(self.start_seq)
    }

    /// Forward only.
    pub fn deliver(&mut self, device: u32, seq: Seq) {
        match self.delivered.iter_mut().find(|(known, _)| *known == device) {
            Some((_, delivered)) => *delivered = seq.max(*delivered),
            None => {
                self.delivered.reserve_exact(1);
                self.delivered.push((device, seq));
            }
        }
    }
}

// A million users are a few hundred megabytes only as long as this stays small.
const _: () = assert!(size_of::<Row>() <= 48 && size_of::<User>() <= 96);
