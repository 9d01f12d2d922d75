//! Owns answering reads from the tables at one moment. Never writes. Lives on the reader threads, and on the writer's for reads
//! that travel with writes.

use std::sync::Arc;

use fjall::Slice;

use super::codec::{self, ConversationRecord, GroupRecord, RowRecord, device_hash};
use super::keys;
use super::search::Search;
use super::tables::{Look, Space, Trouble, View};
use crate::store::listing::Wanted;
use crate::types::record::{Group, SharedMessage, UserConversation};
use crate::types::storage::{Answer, GroupState, RangePage, RangeQuery, Read, UserState};
use crate::types::{ConversationId, DeviceId, GroupId, MessageId, Millis, Seq, UserId};

impl View<'_> {
    /// `search` is the index, when there is one.
    pub fn read(&self, read: &Read, search: Option<&Search>) -> Result<Answer, Trouble> {
        Ok(match read {
            Read::Head { conversation } => Answer::Head(self.head_of(conversation)?),
            Read::Group { group } => Answer::Group(self.group(group)?),
            Read::User { user, device, recent_since } => {
                let mut state = self.user(user, device)?;
                if let Some(since) = recent_since.filter(|_| !state.device_known) {
                    self.find_recent(&mut state, since)?;
                }
                Answer::User(Box::new(state))
            }
            Read::Contacts { user, others } => Answer::Contacts(self.contacts(user, others)?),
            Read::Row { user, device, conversation } => Answer::Row(self.one_row(user, device, conversation)?),
            Read::Range(query) => Answer::Range(self.page(query)?),
            Read::Locate { message_id } => Answer::Located(self.locate(*message_id)?),
            Read::LastSeen { users } => {
                let seen = users.iter().map(|user| Ok((user.clone(), self.last_seen(user)?)));
                Answer::LastSeen(seen.collect::<Result<Vec<_>, Trouble>>()?)
            }
            Read::Summaries { user, limit, cursor } => self.summaries(user, *limit, cursor.as_deref())?,
            Read::Unread { user } => self.unread(user)?,
            Read::Search { user, query, conversation, whole_groups, limit, cursor } => {
                let (only, cursor) = (conversation.as_ref(), cursor.as_deref());
                let wanted = Wanted { user, query, only, whole_groups: *whole_groups, limit: *limit, cursor };
                self.find(&wanted, search)?
            }
            Read::Users { after, limit } => Answer::Users(self.users(after.as_ref(), *limit)?),
            Read::UserCount => Answer::Count(self.prefix(Space::Users, keys::users()).count() as u64),
            Read::Groups { after, limit } => Answer::Groups(self.groups(after.as_ref(), *limit)?),
            Read::Notes { kind } => Answer::Notes(self.notes(kind)?),
        })
    }

    fn head_of(&self, id: &ConversationId) -> Result<Seq, Trouble> {
        match self.conversation_record(id)? {
            Some(record) => Ok(self.head_now(record.number)?.unwrap_or_else(|| record.first_kept.previous())),
            None => Ok(Seq::NONE),
        }
    }

    fn group(&self, group: &GroupId) -> Result<Option<Box<GroupState>>, Trouble> {
        let key = keys::group(group);
        let place = || Trouble::at(Space::Groups, group.as_str());
        let Some(bytes) = self.get(Space::Groups, &key)? else { return Ok(None) };
        let record = GroupRecord::decode(&key, &bytes).map_err(place())?;
        let mut members = Vec::new();
        for guard in self.prefix(Space::Groups, keys::members(group)) {
            let (key, bytes) = guard.into_inner()?;
            members.push(codec::decode_member(&key, &bytes).map_err(place())?);
        }
        let head = self.head_of(&ConversationId::group(group))?;
        Ok(Some(Box::new(GroupState { group: record.group, members, head })))
    }

    fn user(&self, user: &UserId, device: &DeviceId) -> Result<UserState, Trouble> {
        let hash = device_hash(device.as_str());
        let mut damage = Damage { user, count: 0 };
        // Where nobody can tell, a device that is taken for known gets messages again; one that is taken for new would miss some.
        let mut device_known = damage.pass(self.get(Space::Devices, &keys::device(user, device)))?.is_none_or(|it| it.is_some());
        let mut conversations = Vec::new();
        for (id, row) in self.readable_rows(user, &mut damage)? {
            device_known |= row.delivered.iter().any(|(known, _)| *known == hash);
            conversations.push(self.row_as_seen(id.clone(), &row, hash).or_else(|trouble| unreadable(id, &row, hash, trouble))?);
        }
        let last_seen = damage.pass(self.last_seen(user))?.flatten();
        Ok(UserState { device_known, conversations, last_seen, damaged: damage.count })
    }

    /// All rows of a user but those that are damaged. What lies in a block that is, is looked for from both of its ends.
    fn readable_rows(&self, user: &UserId, damage: &mut Damage<'_>) -> Result<Vec<(ConversationId, RowRecord)>, Trouble> {
        let mut rows = Vec::new();
        let mut guards = self.prefix(Space::Rows, keys::rows(user));
        let (mut forward, mut last, mut behind) = (true, Slice::from(b""), Vec::new());
        while let Some(guard) = if forward { guards.next() } else { guards.next_back() } {
            let (key, bytes) = match guard.into_inner() {
                Ok(entry) => entry,
                Err(error) if forward => {
                    damage.pass::<()>(Err(error.into()))?;
                    (guards, forward) = (self.prefix(Space::Rows, keys::rows(user)), false);
                    continue;
                }
                Err(_) => break,
            };
            if !forward && key <= last {
                break;
            }
            let row = damage.pass(row_of(user, &key, &bytes))?;
            match forward {
                true => {
                    last = key;
                    rows.extend(row);
                }
                false => behind.extend(row),
            }
        }
        rows.extend(behind.into_iter().rev());
        Ok(rows)
    }

    fn find_recent(&self, state: &mut UserState, since: Millis) -> Result<(), Trouble> {
        for row in &mut state.conversations {
            let Some(record) = self.conversation_record(&row.conversation)? else { continue };
            // Of what is this far behind, all that is earlier is older, too.
            let since = Millis(since.0.saturating_sub(record.slack_ms));
            // Only what is there at this moment can be looked at; the row's end may be newer.
            let bounds = (record.first_kept, self.head(&record)?);
            let first = self.partition(&record, &row.conversation, bounds, |at| at < since)?;
            row.recent_from = Some(first.previous());
        }
        Ok(())
    }

    fn one_row(&self, user: &UserId, device: &DeviceId, id: &ConversationId) -> Result<Option<Box<UserConversation>>, Trouble> {
        let Some(row) = self.row_of(user, id)? else { return Ok(None) };
        Ok(Some(Box::new(self.row_as_seen(id.clone(), &row, device_hash(device.as_str()))?)))
    }

    /// What a user has of one conversation.
    pub(super) fn row_of(&self, user: &UserId, id: &ConversationId) -> Result<Option<RowRecord>, Trouble> {
        let key = keys::row(user, id);
        let Some(bytes) = self.get(Space::Rows, &key)? else { return Ok(None) };
        RowRecord::decode(&key, &bytes).map(Some).map_err(Trouble::at(Space::Rows, format!("{user} in {id}")))
    }

    fn row_as_seen(&self, id: ConversationId, row: &RowRecord, device: u64) -> Result<UserConversation, Trouble> {
        let head = match self.head_now(row.number)? {
            Some(head) => head,
            None => self.head_of(&id)?,
        };
        Ok(seen(id, row, device, head))
    }

    /// All rows of a user.
    pub(super) fn rows(
        &self,
        user: &UserId,
    ) -> Result<impl Iterator<Item = Result<(ConversationId, RowRecord), Trouble>>, Trouble> {
        let user = user.clone();
        Ok(self.prefix(Space::Rows, keys::rows(&user)).map(move |guard| {
            let (key, bytes) = guard.into_inner()?;
            row_of(&user, &key, &bytes)
        }))
    }

    fn users(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<UserId>, Trouble> {
        let from = after.map_or_else(keys::users, keys::users_after);
        let listed = self.range(Space::Users, from, keys::after_prefix(&keys::users())).take(limit as usize);
        let named = listed.map(|guard| {
            let id = keys::first_id(&guard.key()?, true).and_then(|id| UserId::new(id).ok());
            id.ok_or(codec::Damaged).map_err(Trouble::at(Space::Users, "a key"))
        });
        named.collect()
    }

    /// Members lie between the groups' records and are stepped over.
    fn groups(&self, after: Option<&GroupId>, limit: u32) -> Result<Vec<Group>, Trouble> {
        let end = keys::after_prefix(&keys::groups());
        let mut from = after.map_or_else(keys::groups, |after| keys::groups_after(after.as_str()));
        let mut groups = Vec::new();
        while groups.len() < limit as usize
            && let Some(guard) = self.range(Space::Groups, from, end.clone()).next()
        {
            let found = guard.key()?;
            let id = keys::first_id(&found, true).and_then(|id| GroupId::new(id).ok());
            let id = id.ok_or(codec::Damaged).map_err(Trouble::at(Space::Groups, "a key"))?;
            let key = keys::group(&id);
            if let Some(bytes) = self.get(Space::Groups, &key)? {
                let record = GroupRecord::decode(&key, &bytes).map_err(Trouble::at(Space::Groups, id.as_str()))?;
                groups.push(record.group);
            }
            from = keys::groups_after(id.as_str());
        }
        Ok(groups)
    }

    fn notes(&self, kind: &str) -> Result<Vec<(String, String)>, Trouble> {
        let prefix = keys::notes(kind);
        let listed = self.prefix(Space::Notes, prefix.clone()).map(|guard| {
            let (key, bytes) = guard.into_inner()?;
            let id = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
            let text = codec::decode_text(&key, &bytes).map_err(Trouble::at(Space::Notes, id.as_str()))?;
            Ok((id, text))
        });
        listed.collect()
    }

    fn last_seen(&self, user: &UserId) -> Result<Option<Millis>, Trouble> {
        let key = keys::last_seen(user);
        let Some(bytes) = self.get(Space::LastSeen, &key)? else { return Ok(None) };
        let [at] = codec::decode_numbers(&key, &bytes).map_err(Trouble::at(Space::LastSeen, user.as_str()))?;
        Ok(Some(Millis(at)))
    }

    fn locate(&self, id: MessageId) -> Result<Option<SharedMessage>, Trouble> {
        let key = keys::message_id(id);
        let Some(bytes) = self.get(Space::Ids, &key)? else { return Ok(None) };
        let [number, seq] = codec::decode_numbers(&key, &bytes).map_err(Trouble::at(Space::Ids, id.to_string()))?;
        let key = keys::message(number, Seq(seq));
        let Some(bytes) = self.get(Space::Messages, &key)? else { return Ok(None) };
        let conversation = self.conversation_id(number)?;
        self.decode(&key, &bytes, &conversation, Seq(seq)).map(Some)
    }

    fn page(&self, query: &RangeQuery) -> Result<RangePage, Trouble> {
        let mut page = RangePage { messages: Vec::new(), has_more: false, covered: NOTHING, first_kept: Seq(1) };
        let Some(record) = self.conversation_record(&query.conversation)? else { return Ok(page) };
        page.first_kept = record.first_kept;
        let Some((low, high)) = self.bounds(&record, query)? else { return Ok(page) };
        match self.walk(query, &record, (low, high), &mut page) {
            // What comes before the damage is shown; whoever asks for more meets it.
            Err(trouble) if trouble.is_damage() && !page.messages.is_empty() => page.has_more = true,
            walked => walked?,
        }
        page.covered = covered(&page, query, &record, low, high);
        if query.newest {
            page.messages.reverse();
        }
        Ok(page)
    }

    /// Fills a page in the order in which its messages are found.
    fn walk(
        &self,
        query: &RangeQuery,
        record: &ConversationRecord,
        (low, high): (Seq, Seq),
        page: &mut RangePage,
    ) -> Result<(), Trouble> {
        let mut hidden = Hidden::of(self, query, record.number, low, high);
        let mut expected = if query.newest { high } else { low.max(record.first_kept) };
        let (mut log, mut weight_bytes) = (self.log(record.number, low, high), 0);
        loop {
            let guard = if query.newest { log.next_back() } else { log.next() };
            let Some(guard) = guard else { break };
            let (key, bytes) = guard.into_inner()?;
            let seq = keys::seq_of(&key).unwrap_or_default();
            let place = || format!("{} seq {}", query.conversation, expected.0);
            if seq != expected {
                return Err(Trouble::at(Space::Messages, format!("{} is missing", place()))(codec::Damaged));
            }
            expected = if query.newest { seq.previous() } else { seq.next() };
            if hidden.has(seq)? {
                continue;
            }
            let message = self.decode(&key, &bytes, &query.conversation, seq)?;
            if !within(query, message.created_at) || codec::is_lost(&message) {
                continue;
            }
            page.has_more = page.messages.len() as u32 >= query.limit.max(1) || weight_bytes >= query.bytes_max.max(1);
            if page.has_more {
                break;
            }
            weight_bytes += message.weight_bytes();
            page.messages.push(message);
        }
        Ok(())
    }

    /// First and last `seq` within all bounds, whether kept or pruned; None when there is nothing. Time bounds narrow to what is
    /// kept.
    fn bounds(&self, record: &ConversationRecord, query: &RangeQuery) -> Result<Option<(Seq, Seq)>, Trouble> {
        let head = self.head(record)?;
        let mut low = query.after.map_or(Seq(1), |after| Seq(after.0.saturating_add(1)));
        let mut high = query.before.map_or(head, |before| before.previous().min(head));
        if low <= high && (query.since.is_some() || query.until.is_some()) {
            low = low.max(record.first_kept);
            if let Some(since) = query.since {
                // Of what is this far behind, all that is earlier is out of bounds, too.
                let since = Millis(since.0.saturating_sub(record.slack_ms));
                low = self.partition(record, &query.conversation, (low, high), |at| at < since)?;
            }
            if let Some(until) = query.until {
                let until = Millis(until.0.saturating_add(record.slack_ms));
                high = self.partition(record, &query.conversation, (low, high), |at| at < until)?.previous();
            }
        }
        Ok((low <= high).then_some((low, high)))
    }

    /// The first `seq` within the bounds for which `before` no longer holds; the one after them when it always does.
    pub(super) fn partition(
        &self,
        record: &ConversationRecord,
        id: &ConversationId,
        (low, high): (Seq, Seq),
        before: impl Fn(Millis) -> bool,
    ) -> Result<Seq, Trouble> {
        let (mut low, mut high) = (low.0, high.0.saturating_add(1).max(low.0));
        while low < high {
            let middle = Seq(low + (high - low) / 2);
            let key = keys::message(record.number, middle);
            let place = || Trouble::at(Space::Messages, format!("{id} seq {}", middle.0));
            let bytes = self.get(Space::Messages, &key)?.ok_or(codec::Damaged).map_err(place())?;
            if before(codec::decode_head(&key, &bytes).map_err(place())?.created_at) {
                low = middle.0 + 1;
            } else {
                high = middle.0;
            }
        }
        Ok(Seq(low))
    }

    pub(super) fn decode(&self, key: &Slice, bytes: &Slice, id: &ConversationId, seq: Seq) -> Result<SharedMessage, Trouble> {
        let message = codec::decode_message(key, bytes, id, seq, self.keyring());
        message.map(Arc::new).map_err(Trouble::message(format!("{id} seq {}", seq.0)))
    }
}

fn within(query: &RangeQuery, at: Millis) -> bool {
    query.since.is_none_or(|since| at >= since) && query.until.is_none_or(|until| at < until)
}

/// What a page speaks for; its messages are still in the order in which they were found.
fn covered(page: &RangePage, query: &RangeQuery, record: &ConversationRecord, low: Seq, high: Seq) -> (Seq, Seq) {
    let timed = query.since.is_some() || query.until.is_some();
    let ends = page.messages.first().zip(page.messages.last()).map(|(first, last)| (first.seq, last.seq));
    match ends {
        // Times that stepped back leave messages at both ends that are out of bounds.
        None if timed && record.slack_ms > 0 => NOTHING,
        Some((first, last)) if timed && record.slack_ms > 0 => (first.min(last), first.max(last)),
        Some((_, last)) if page.has_more && query.newest => (last, high),
        Some((_, last)) if page.has_more => (low, last),
        _ => (low, high),
    }
}

/// The hidden messages of a stretch, walked beside it.
pub(super) struct Hidden {
    walk: Option<fjall::Iter>,
    newest: bool,
    next: Option<Seq>,
}

impl Hidden {
    fn of(view: &View<'_>, query: &RangeQuery, number: u64, low: Seq, high: Seq) -> Hidden {
        match &query.viewer {
            Some(viewer) => Hidden::walk(view, viewer, number, (low, high), query.newest),
            None => Hidden { walk: None, newest: query.newest, next: None },
        }
    }

    /// Of `viewer` in the numbered conversation, from either end.
    pub(super) fn walk(view: &View<'_>, viewer: &UserId, number: u64, bounds: (Seq, Seq), newest: bool) -> Hidden {
        let end = keys::hidden(viewer, number, Seq(bounds.1.0.saturating_add(1)));
        let walk = view.range(Space::Hidden, keys::hidden(viewer, number, bounds.0), Some(end));
        Hidden { walk: Some(walk), newest, next: None }
    }

    /// Whether `seq` is hidden; asked in the order of the walk.
    pub(super) fn has(&mut self, seq: Seq) -> Result<bool, Trouble> {
        loop {
            match self.next {
                Some(next) if next == seq => return Ok(true),
                Some(next) if (next > seq) != self.newest => return Ok(false),
                _ => {}
            }
            let Some(walk) = &mut self.walk else { return Ok(false) };
            let guard = if self.newest { walk.next_back() } else { walk.next() };
            match guard {
                Some(guard) => self.next = keys::seq_of(&guard.key()?),
                None => self.walk = None,
            }
        }
    }
}

/// What an operator does about damage.
const MEND: &str = "stop the server and run `corehub store check --repair`";
/// [`RangePage::covered`] when nothing was looked at.
const NOTHING: (Seq, Seq) = (Seq(1), Seq(0));

/// A conversation whose log is damaged at its end, so that nobody can tell how long it is. There is more than was delivered:
/// reading that is refused, while the user's other conversations go on. A disk that fails to read may read the next time: then
/// nothing is said of any.
fn unreadable(id: ConversationId, row: &RowRecord, device: u64, trouble: Trouble) -> Result<UserConversation, Trouble> {
    if !trouble.is_damage() {
        return Err(trouble);
    }
    tracing::error!(conversation = %id, reason = %trouble, "the end of a log cannot be read: {MEND}");
    let mut conversation = seen(id, row, device, Seq::NONE);
    conversation.head = conversation.delivered_device.unwrap_or_default().max(conversation.delivered_any).next();
    Ok(conversation)
}

/// Counts what a connecting user has to do without, so that the rest is not kept from them.
struct Damage<'a> {
    user: &'a UserId,
    count: u32,
}

impl Damage<'_> {
    /// None: it is damaged. An error when it may be read the next time.
    fn pass<T>(&mut self, read: Result<T, Trouble>) -> Result<Option<T>, Trouble> {
        match read {
            Ok(found) => Ok(Some(found)),
            Err(trouble) if trouble.is_damage() => {
                self.count += 1;
                let user = self.user;
                tracing::error!(%user, reason = %trouble, "left out for a user who connects: {MEND}");
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }
}

fn row_of(user: &UserId, key: &Slice, bytes: &Slice) -> Result<(ConversationId, RowRecord), Trouble> {
    let id = std::str::from_utf8(keys::row_conversation(key, user)).ok().and_then(|id| ConversationId::parse(id).ok());
    let id = id.ok_or(codec::Damaged).map_err(Trouble::at(Space::Rows, user.as_str()))?;
    let row = RowRecord::decode(key, bytes).map_err(Trouble::at(Space::Rows, format!("{user} in {id}")))?;
    Ok((id, row))
}

fn seen(id: ConversationId, row: &RowRecord, device: u64, head: Seq) -> UserConversation {
    let delivered_any = row.delivered.iter().map(|(_, seq)| *seq).max().unwrap_or_default();
    UserConversation {
        conversation: id,
        // The row may be of a commit whose end of the log is just being remembered.
        head: head.max(row.read_seq).max(delivered_any).max(row.start_seq),
        start_seq: row.start_seq,
        read_seq: row.read_seq,
        delivered_device: row.delivered.iter().find(|(known, _)| *known == device).map(|(_, seq)| *seq),
        delivered_any: delivered_any.max(row.start_seq),
        recent_from: None,
    }
}
