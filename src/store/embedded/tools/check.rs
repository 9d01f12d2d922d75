//! Owns the order of a check, its report, and the repairs it makes. What is wrong with a log, a row or a group is found by its
//! neighbours. Never repairs what it cannot derive from what is left.

use std::collections::{BTreeMap, HashMap, HashSet};

use fjall::{PersistMode, Slice};

use super::super::codec::{ConversationRecord, FirstUse, decode_numbers, decode_outline, decode_text};
use super::super::keys;
use super::super::tables::{Look, Space, Trouble, View};
use super::{Workbench, guarded};
use crate::types::{ConversationId, MessageId, Seq, UserId};

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub counts: CheckCounts,
    /// The first [`FAULTS_TOLD_MAX`], each with its place and what a repair does about it.
    pub faults: Vec<String>,
    pub faults_total: u64,
    /// How many of them a repair mends, or has mended.
    pub mendable: u64,
    /// Messages that are lost, whatever a repair does: stretches of `seq` by conversation, all of them.
    pub lost: BTreeMap<ConversationId, Vec<(Seq, Seq)>>,
}

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckCounts {
    pub conversations: u64,
    pub messages: u64,
    pub message_ids: u64,
    pub first_uses: u64,
    pub rows: u64,
    pub groups: u64,
    pub members: u64,
    pub devices: u64,
    pub hidden: u64,
    pub last_seen: u64,
    pub users: u64,
    pub notes: u64,
}

impl Workbench {
    /// Looks at every record. With `repair` it also mends what can be derived from what is left; look again afterwards.
    pub fn check(&self, repair: bool) -> CheckReport {
        let mut check = Check {
            bench: self,
            repair,
            report: CheckReport::default(),
            mends: Vec::new(),
            told_uses: HashSet::new(),
            named: HashMap::new(),
            furthest: HashMap::new(),
            rows_say: None,
        };
        for file in &self.damaged_files {
            // Which records that concerns, the passes find; a repair copies the others.
            check.report.mendable += 1;
            check.report.faults_total += 1;
            check.report.faults.push(format!("{file} (repair: what can be read of it is kept)"));
        }
        let passes: [(&str, Pass<'_>); 12] = [
            ("ids", Check::ends),
            ("conversations", Check::conversations),
            ("messages", Check::logs),
            ("ids", Check::message_ids),
            ("first uses", Check::first_uses),
            ("groups", Check::groups),
            ("rows", Check::rows),
            ("devices", Check::devices),
            ("hidden messages", Check::hidden),
            ("last seen", Check::last_seen),
            ("users", Check::users),
            ("notes", Check::notes),
        ];
        for (table, pass) in passes {
            // Each pass sees what the one before has mended.
            if let Err(trouble) = guarded(|| pass(&mut check, &self.tables.view()).and_then(|()| check.mend())) {
                check.fault(format!("table {table} cannot be read any further: {trouble}"), &NO_MEND);
            }
        }
        if repair && let Err(error) = self.tables.database().persist(PersistMode::SyncAll) {
            check.fault(format!("repairs may not have reached the disk: {error}"), &NO_MEND);
        }
        check.report
    }
}

type Pass<'a> = fn(&mut Check<'a>, &View<'_>) -> Result<(), Trouble>;

/// A change that a repair makes: a value to write, or None to delete.
pub type Mend = (Space, Slice, Option<Vec<u8>>);

/// A check under way.
pub struct Check<'a> {
    pub bench: &'a Workbench,
    pub repair: bool,
    pub report: CheckReport,
    mends: Vec<Mend>,
    /// Damaged first uses that their message has spoken for.
    pub told_uses: HashSet<Slice>,
    /// Conversations by number as rows name them; looked up when nothing else does.
    pub rows_say: Option<HashMap<u64, ConversationId>>,
    /// The last `seq` that message ids lead to, by conversation number.
    pub furthest: HashMap<u64, Seq>,
    /// Conversations whose number does not lead to them, until that is mended.
    pub named: HashMap<u64, ConversationId>,
}

impl Check<'_> {
    /// Notes a fault; a repair writes `mends`, without which it cannot be mended.
    pub fn fault(&mut self, text: String, mends: &[Mend]) {
        self.report.faults_total += 1;
        self.report.mendable += u64::from(!mends.is_empty());
        if self.report.faults.len() < FAULTS_TOLD_MAX {
            let end = if mends.is_empty() { " (cannot be repaired)" } else { "" };
            self.report.faults.push(format!("{text}{end}"));
        }
        if self.repair {
            self.mends.extend_from_slice(mends);
        }
    }

    /// One more change, of a fault that was noted before.
    pub fn mend_also(&mut self, mend: Mend) {
        if self.repair {
            self.mends.push(mend);
        }
    }

    /// Notes that messages are gone.
    pub fn lost_of(&mut self, id: &ConversationId, from: Seq, to: Seq) {
        let stretches = self.report.lost.entry(id.clone()).or_default();
        match stretches.last_mut().filter(|(_, end)| end.next() == from) {
            Some((_, end)) => *end = to,
            None => stretches.push((from, to)),
        }
    }

    /// How far logs went, as the ids of their messages say: an end that is lost is not to be written a second time.
    fn ends(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        for guard in view.range(Space::Ids, Slice::from(b""), None) {
            let (key, bytes) = guard.into_inner()?;
            if let Ok([number, seq]) = decode_numbers(&key, &bytes) {
                let furthest = self.furthest.entry(number).or_default();
                *furthest = Seq(seq).max(*furthest);
            }
        }
        Ok(())
    }

    /// Writes what was gathered, when that is much.
    pub fn mend_some(&mut self) -> Result<(), Trouble> {
        if self.mends.len() >= MENDS_TOGETHER { self.mend() } else { Ok(()) }
    }

    fn mend(&mut self) -> Result<(), Trouble> {
        if self.mends.is_empty() {
            return Ok(());
        }
        let mut batch = self.bench.batch();
        for (space, key, value) in self.mends.drain(..) {
            let keyspace = self.bench.tables.keyspace(space);
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        self.bench.commit(batch)
    }

    /// Every conversation's record names a number that names it.
    fn conversations(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        for guard in view.prefix(Space::Conversations, Slice::from(b"c")) {
            let (key, bytes) = guard.into_inner()?;
            let id = std::str::from_utf8(&key[1..]).ok().and_then(|id| ConversationId::parse(id).ok());
            let Some(id) = id else {
                let mend = ConversationRecord::decode(&key, &bytes).is_err().then_some((Space::Conversations, key, None));
                self.fault("a conversation's key is no id (repair: removed)".to_owned(), mend.as_slice());
                continue;
            };
            self.report.counts.conversations += 1;
            // A damaged one is found by its number.
            let Ok(record) = ConversationRecord::decode(&key, &bytes) else { continue };
            if !view.conversation_id(record.number).is_ok_and(|found| found == id) {
                let number_key = keys::number(record.number);
                let value = super::super::codec::encode_conversation_id(&id, &number_key);
                let told = format!("conversation {id}: its number {} does not lead back (repair: it will)", record.number);
                self.fault(told, &[(Space::Numbers, number_key, Some(value))]);
                self.named.insert(record.number, id);
            }
        }
        Ok(())
    }

    /// Every message id leads to its message.
    fn message_ids(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        for guard in view.range(Space::Ids, Slice::from(b""), None) {
            let (key, bytes) = guard.into_inner()?;
            self.report.counts.message_ids += 1;
            let id = key.first_chunk::<16>().map(|bytes| MessageId(u128::from_be_bytes(*bytes)));
            let leads = match (id, decode_numbers(&key, &bytes)) {
                (Some(id), Ok([number, seq])) => self.message_id(view, number, Seq(seq))? == Some(id),
                _ => false,
            };
            if !leads {
                let name = id.map_or_else(|| "of a wrong length".to_owned(), |id| id.to_string());
                let told = format!("message id {name}: leads to no such message (repair: it is removed)");
                self.fault(told, &[(Space::Ids, key, None)]);
                self.mend_some()?;
            }
        }
        Ok(())
    }

    /// Every first use that is not older than its log names a message with that id.
    fn first_uses(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        for guard in view.range(Space::FirstUses, Slice::from(b""), None) {
            let (key, bytes) = guard.into_inner()?;
            self.report.counts.first_uses += 1;
            let told = match FirstUse::decode(&key, &bytes) {
                Ok(first) => self.first_use(view, &key, &first)?,
                Err(_) if self.told_uses.contains(&key) => None,
                Err(_) => Some("a record of the duplicate index is damaged (repair: it is removed)".to_owned()),
            };
            if let Some(told) = told {
                self.fault(told, &[(Space::FirstUses, key, None)]);
                self.mend_some()?;
            }
        }
        Ok(())
    }

    fn first_use(&self, view: &View<'_>, key: &Slice, first: &FirstUse) -> Result<Option<String>, Trouble> {
        let FirstUse { number, seq, message_id, .. } = *first;
        let Some(id) = self.id_of(view, number) else {
            return Ok(Some(format!("duplicate index: {message_id} is in no conversation (repair: it is removed)")));
        };
        // Retention removes messages before their first use is forgotten.
        if view.conversation_record(&id).is_ok_and(|record| record.is_some_and(|record| seq < record.first_kept)) {
            return Ok(None);
        }
        let message_key = keys::message(number, seq);
        let message = match view.get(Space::Messages, &message_key)? {
            Some(bytes) => decode_outline(&message_key, &bytes, &id, seq).ok(),
            None => None,
        };
        let fits = message
            .is_some_and(|message| message.id == message_id && keys::first_use(&message, self.bench.seed).as_ref() == Some(key));
        Ok((!fits).then(|| format!("duplicate index: {id} seq {} is not {message_id} (repair: it is removed)", seq.0)))
    }

    fn id_of(&self, view: &View<'_>, number: u64) -> Option<ConversationId> {
        self.named.get(&number).cloned().or_else(|| view.conversation_id(number).ok())
    }

    /// The id of the message at a place, when there is one.
    fn message_id(&self, view: &View<'_>, number: u64, seq: Seq) -> Result<Option<MessageId>, Trouble> {
        let key = keys::message(number, seq);
        let Some(bytes) = view.get(Space::Messages, &key)? else { return Ok(None) };
        // The id needs no conversation.
        Ok(decode_outline(&key, &bytes, &ConversationId::system(&nobody()), seq).ok().map(|message| message.id))
    }

    fn devices(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        let count = self.times(view, Space::Devices, b"d")?;
        self.report.counts.devices = count;
        Ok(())
    }

    fn last_seen(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        let count = self.times(view, Space::LastSeen, b"l")?;
        self.report.counts.last_seen = count;
        Ok(())
    }

    fn users(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        for guard in view.prefix(Space::Users, keys::users()) {
            let key = guard.key()?;
            self.report.counts.users += 1;
            if keys::first_id(&key, true).is_none_or(|id| UserId::new(id).is_err()) {
                self.fault("a listed user's key is no id (repair: it is removed)".to_owned(), &[(Space::Users, key, None)]);
            }
        }
        Ok(())
    }

    fn notes(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        for guard in view.prefix(Space::Notes, Slice::from(Space::Notes.prefix())) {
            let (key, bytes) = guard.into_inner()?;
            self.report.counts.notes += 1;
            if decode_text(&key, &bytes).is_err() {
                let name = String::from_utf8_lossy(&key[1..]).replace('\0', " ");
                let told = format!("note {name}: damaged (repair: it is removed; if it revoked tokens, revoke them again)");
                self.fault(told, &[(Space::Notes, key, None)]);
            }
        }
        Ok(())
    }

    fn times(&mut self, view: &View<'_>, space: Space, prefix: &[u8]) -> Result<u64, Trouble> {
        let mut count = 0;
        for guard in view.prefix(space, Slice::from(prefix)) {
            let (key, bytes) = guard.into_inner()?;
            count += 1;
            if decode_numbers::<1>(&key, &bytes).is_err() {
                let name = String::from_utf8_lossy(&key[1..]).replace('\0', " ");
                self.fault(
                    format!("{}: the record of {name} is damaged (repair: it is removed)", space.name()),
                    &[(space, key, None)],
                );
            }
        }
        Ok(count)
    }

    /// Hidden marks are of conversations that exist.
    fn hidden(&mut self, view: &View<'_>) -> Result<(), Trouble> {
        for guard in view.prefix(Space::Hidden, Slice::from(b"h")) {
            let (key, _) = guard.into_inner()?;
            self.report.counts.hidden += 1;
            let number =
                key.len().checked_sub(16).and_then(|at| key[at..].first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes));
            if number.is_none_or(|number| self.id_of(view, number).is_none()) {
                let told = "a hidden message is of no conversation (repair: the mark is removed)".to_owned();
                self.fault(told, &[(Space::Hidden, key, None)]);
                self.mend_some()?;
            }
        }
        Ok(())
    }
}

fn nobody() -> UserId {
    UserId::new("-").expect("a dash is an id")
}

pub const NO_MEND: [Mend; 0] = [];
pub const FAULTS_TOLD_MAX: usize = 100;
const MENDS_TOGETHER: usize = 1_000;
