//! Owns what is checked of people: groups and their members both ways, and everyone's rows.

use std::collections::BTreeMap;

use fjall::Slice;

use super::super::codec::{self, GroupRecord, RowRecord};
use super::super::keys;
use super::super::tables::{Look, Space, Trouble, View};
use super::check::{Check, Mend, NO_MEND};
use crate::types::record::{Group, Member, Role};
use crate::types::{ConversationId, ConversationKind, GroupId, Millis, Seq, UserId};

/// What lies under one group's id.
#[derive(Default)]
struct Found {
    record: Option<Option<GroupRecord>>,
    /// By order of joining; None: damaged.
    members: BTreeMap<u64, Option<Member>>,
    /// By user; None: damaged.
    orders: BTreeMap<UserId, Option<u64>>,
}

impl Check<'_> {
    /// Every group has a record, and members and their order lead to each other.
    pub fn groups(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        let mut found: Option<(GroupId, Found)> = None;
        for guard in view.prefix(Space::Groups, Slice::from(b"g")) {
            let (key, bytes) = guard.into_inner()?;
            let Some((id, kind, rest)) = keys::group_parts(&key) else {
                self.fault("a group's key is no id (repair: removed)".to_owned(), &[(Space::Groups, key.clone(), None)]);
                continue;
            };
            if found.as_ref().is_none_or(|(group, _)| *group != id) {
                if let Some((group, whole)) = found.take() {
                    self.group(view, &group, whole)?;
                }
                found = Some((id.clone(), Found::default()));
            }
            let Some((_, group)) = &mut found else { continue };
            match kind {
                b'r' => group.record = Some(GroupRecord::decode(&key, &bytes).ok()),
                b'm' => {
                    let order = rest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                    group.members.insert(order, codec::decode_member(&key, &bytes).ok());
                }
                _ => {
                    let user = std::str::from_utf8(rest).ok().and_then(|user| UserId::new(user).ok());
                    let order = codec::decode_numbers(&key, &bytes).ok().map(|[order]| order);
                    group.orders.extend(user.map(|user| (user, order)));
                }
            }
        }
        match found {
            Some((group, whole)) => self.group(view, &group, whole),
            None => Ok(()),
        }
    }

    fn group(&mut self, view: &View<'_>, group: &GroupId, found: Found) -> Result<(), Trouble> {
        self.report.counts.groups += 1;
        self.report.counts.members += found.members.len() as u64;
        let joins = found.members.keys().next_back().copied().unwrap_or(0);
        let record = found.record.flatten();
        if record.as_ref().is_none_or(|record| record.joins < joins || record.group.id != *group) {
            let plain = Group { id: group.clone(), name: group.as_str().into(), open: false, created_at: Millis(0) };
            let known = record.map_or(plain, |record| Group { id: group.clone(), ..record.group });
            let key = keys::group(group);
            let value = GroupRecord { group: known, joins }.encode(&key);
            let told =
                format!("group {group}: its record is damaged or missing (repair: rebuilt, named by its id when that was lost)");
            self.fault(told, &[(Space::Groups, key, Some(value))]);
        }
        for (user, order) in &found.orders {
            let leads = order.and_then(|order| found.members.get(&order)).and_then(Option::as_ref);
            let known = leads.is_some_and(|member| member.user == *user)
                || found.members.values().flatten().any(|member| member.user == *user);
            if !known {
                let mend = self.lost_member(view, group, user, *order, &found.members)?;
                self.fault(
                    format!("group {group}: {user} has a place but is no member (repair: see docs/OPERATING.md)"),
                    &[mend],
                );
            }
        }
        for (order, member) in &found.members {
            match member {
                Some(member) if found.orders.get(&member.user) != Some(&Some(*order)) => {
                    let key = keys::member_order(group, &member.user);
                    let value = codec::encode_numbers([*order], &key);
                    let told = format!("group {group}: member {} has no place (repair: rebuilt)", member.user);
                    self.fault(told, &[(Space::Groups, key, Some(value))]);
                }
                Some(member) => self.member_row(view, group, member)?,
                None if !found.orders.values().any(|known| known == &Some(*order)) => {
                    let told = format!("group {group}: a member's record is damaged (repair: removed)");
                    self.fault(told, &[(Space::Groups, keys::member(group, *order), None)]);
                }
                None => {}
            }
        }
        self.mend_some()
    }

    /// A member whose record is damaged becomes a plain one again; a place without any record is removed.
    fn lost_member(
        &self,
        view: &View<'_>,
        group: &GroupId,
        user: &UserId,
        order: Option<u64>,
        members: &BTreeMap<u64, Option<Member>>,
    ) -> Result<Mend, Trouble> {
        match order.filter(|order| members.get(order).is_some_and(Option::is_none)) {
            Some(order) => {
                let row = self.row(view, user, &ConversationId::group(group))?;
                let joined_seq = row.map_or(Seq::NONE, |row| row.start_seq);
                let member = Member { user: user.clone(), role: Role::Member, joined_seq, joined_at: Millis(0) };
                let key = keys::member(group, order);
                Ok((Space::Groups, key.clone(), Some(codec::encode_member(&member, &key))))
            }
            None => Ok((Space::Groups, keys::member_order(group, user), None)),
        }
    }

    fn member_row(&mut self, view: &View<'_>, group: &GroupId, member: &Member) -> Result<(), Trouble> {
        let id = ConversationId::group(group);
        if view.get(Space::Rows, &keys::row(&member.user, &id))?.is_none() {
            let mends = self.new_row(view, &member.user, &id, member.joined_seq);
            self.fault(format!("group {group}: member {} has no row (repair: made)", member.user), &mends);
        }
        Ok(())
    }

    /// Every row is of a conversation that exists, of somebody who belongs to it, and not ahead of it.
    pub fn rows(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        for guard in view.range(Space::Rows, Slice::from(b""), None) {
            let (key, bytes) = guard.into_inner()?;
            self.report.counts.rows += 1;
            let Some((user, id)) = keys::row_parts(&key) else {
                self.fault(
                    "a row's key is no user and conversation (repair: removed)".to_owned(),
                    &[(Space::Rows, key.clone(), None)],
                );
                continue;
            };
            if view.get(Space::Users, &keys::user(&user))?.is_none() {
                let mend = (Space::Users, keys::user(&user), Some(Vec::new()));
                self.fault(format!("user {user} is not listed (repair: listed)"), &[mend]);
            }
            let (told, row) = (format!("row of {user} in {id}"), RowRecord::decode(&key, &bytes).ok());
            let start = match id.kind() {
                ConversationKind::Private(one, other) => (user == one || user == other).then_some(Seq::NONE),
                ConversationKind::System(owner) => (user == owner).then_some(Seq::NONE),
                ConversationKind::Group(group) => self.joined(view, &group, &user)?,
            };
            let number = view.conversation_record(&id).ok().flatten().map(|record| (record.number, view.head(&record)));
            match (start, number) {
                (None, _) | (_, None) => self.fault(format!("{told}: not theirs (repair: removed)"), &[(Space::Rows, key, None)]),
                (Some(start), Some((number, head))) => self.own_row(&told, &key, row, start, number, head?),
            }
            self.mend_some()?;
        }
        Ok(())
    }

    fn own_row(&mut self, told: &str, key: &Slice, row: Option<RowRecord>, start: Seq, number: u64, head: Seq) {
        let Some(row) = row else {
            let behind = RowRecord { number, start_seq: start, read_seq: start, delivered: Default::default() };
            let told = format!("{told}: damaged (repair: rebuilt, nothing read or delivered)");
            return self.fault(told, &[(Space::Rows, key.clone(), Some(behind.encode(key)))]);
        };
        let mut mended = row.clone();
        mended.number = number;
        mended.start_seq = row.start_seq.min(head);
        mended.read_seq = row.read_seq.min(head);
        mended.delivered.iter_mut().for_each(|(_, seq)| *seq = (*seq).min(head));
        if mended != row {
            let told = format!("{told}: ahead of the log or of another number (repair: set back)");
            self.fault(told, &[(Space::Rows, key.clone(), Some(mended.encode(key)))]);
        }
    }

    /// A row that stands at the beginning.
    pub fn new_row(&self, view: &View<'_>, user: &UserId, id: &ConversationId, start_seq: Seq) -> Vec<Mend> {
        let Ok(Some(record)) = view.conversation_record(id) else { return NO_MEND.to_vec() };
        let key = keys::row(user, id);
        let row = RowRecord { number: record.number, start_seq, read_seq: start_seq, delivered: Default::default() };
        vec![(Space::Rows, key.clone(), Some(row.encode(&key)))]
    }

    /// A user's row that can be read.
    pub fn row(&self, view: &View<'_>, user: &UserId, id: &ConversationId) -> Result<Option<RowRecord>, Trouble> {
        let key = keys::row(user, id);
        Ok(view.get(Space::Rows, &key)?.and_then(|bytes| RowRecord::decode(&key, &bytes).ok()))
    }

    /// The members of a group that can be read, by order of joining.
    pub fn members(&self, view: &View<'_>, group: &GroupId) -> Result<Vec<(Slice, Member)>, Trouble> {
        let mut members = Vec::new();
        for guard in view.prefix(Space::Groups, keys::members(group)) {
            let (key, bytes) = guard.into_inner()?;
            members.extend(codec::decode_member(&key, &bytes).ok().map(|member| (key, member)));
        }
        Ok(members)
    }

    /// Where a member's row begins; None when the user is no member.
    fn joined(&self, view: &View<'_>, group: &GroupId, user: &UserId) -> Result<Option<Seq>, Trouble> {
        let key = keys::member_order(group, user);
        let Some(bytes) = view.get(Space::Groups, &key)? else { return Ok(None) };
        let Ok([order]) = codec::decode_numbers(&key, &bytes) else { return Ok(None) };
        let key = keys::member(group, order);
        let Some(bytes) = view.get(Space::Groups, &key)? else { return Ok(None) };
        Ok(codec::decode_member(&key, &bytes).ok().filter(|member| member.user == *user).map(|member| member.joined_seq))
    }
}
