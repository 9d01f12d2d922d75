//! Owns reading what an export wrote into an empty folder. Whatever is wrong is told with its line, and leaves a folder that no
//! server opens. Holds one batch at a time.

use std::collections::HashSet;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::sync::Arc;

use fjall::{OwnedWriteBatch, PersistMode, Slice};

use super::super::codec::{self, ConversationRecord, FirstUse, GroupRecord, RowRecord};
use super::super::keyring::Keyring;
use super::super::open::Folder;
use super::super::tables::{Look, Space, Trouble};
use super::super::{EmbeddedSettings, StoreOpenFault, keys, open};
use super::Workbench;
use super::lines::{
    ConversationLine, EXPORT_VERSION, GroupLine, HiddenLine, Line, MemberLine, MessageLine, NoteLine, RowLine, conversation, user,
};
use crate::types::record::{Group, Member, Role};
use crate::types::{ConversationId, DeviceId, GroupId, Millis, Seq};

/// Why an import ended early.
#[derive(Debug, thiserror::Error)]
pub enum ImportFault {
    #[error(transparent)]
    Open(#[from] StoreOpenFault),
    #[error("line {line}: {what}; nothing of it can be used: delete the folder and import again")]
    Line { line: u64, what: String },
    #[error("cannot read: {0}")]
    In(#[from] io::Error),
    #[error("the disk of {} is full: make room, delete this folder, and import again", path.display())]
    Full { path: PathBuf },
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error("what was imported does not hold together: {0}")]
    Unsound(String),
    #[error("cannot finish the folder: {0}")]
    Finish(io::Error),
}

/// Makes a data folder of an export; returns how many lines it had.
///
/// # Errors
/// When the folder is not empty, a line is not what it should be, or the disk fails.
pub fn import(settings: &EmbeddedSettings, source: &mut dyn BufRead) -> Result<u64, ImportFault> {
    import_all(settings, source).map_err(|fault| {
        let full = match &fault {
            ImportFault::Trouble(trouble) => trouble.is_full() || open::has_no_room(&settings.path),
            ImportFault::Finish(error) => open::is_full(error.kind()) || open::has_no_room(&settings.path),
            ImportFault::Open(StoreOpenFault::Unusable { source, .. }) => open::is_full(source.kind()),
            ImportFault::Open(StoreOpenFault::Database { .. }) => open::has_no_room(&settings.path),
            _ => false,
        };
        if full { ImportFault::Full { path: settings.path.clone() } } else { fault }
    })
}

fn import_all(settings: &EmbeddedSettings, source: &mut dyn BufRead) -> Result<u64, ImportFault> {
    let keyring = Arc::new(Keyring::of(settings).map_err(StoreOpenFault::from)?);
    let bench = Workbench::take(Folder::create(&settings.path)?, settings, &keyring)?;
    let mut import = Import {
        batch: bench.batch(),
        bench: &bench,
        pending: HashSet::new(),
        first_uses: Vec::new(),
        bytes: 0,
        line: 0,
        section: 0,
        log: None,
        group: None,
        number: 0,
        ended: false,
    };
    import.read(source)?;
    bench.tables.database().persist(PersistMode::SyncAll).map_err(Trouble::from)?;
    let report = bench.check(false);
    if let Some(fault) = report.faults.first() {
        return Err(ImportFault::Unsound(fault.clone()));
    }
    let lines = import.line;
    drop(import);
    bench.finish().map_err(ImportFault::Finish)?;
    Ok(lines)
}

struct Import<'a> {
    bench: &'a Workbench,
    batch: OwnedWriteBatch,
    /// What the batch writes.
    pending: HashSet<(u8, Slice)>,
    first_uses: Vec<(Slice, FirstUse)>,
    bytes: usize,
    line: u64,
    /// How far the order of [`Line`] has come.
    section: u8,
    log: Option<Log>,
    group: Option<GroupRecord>,
    number: u64,
    ended: bool,
}

/// The conversation whose messages come now.
struct Log {
    id: ConversationId,
    record: ConversationRecord,
    expected: Seq,
    newest: Millis,
    slack_ms: u64,
}

/// What is wrong with a line, or why going on is impossible.
enum Stop {
    What(String),
    Trouble(Trouble),
}

impl From<String> for Stop {
    fn from(what: String) -> Stop {
        Stop::What(what)
    }
}

impl From<&str> for Stop {
    fn from(what: &str) -> Stop {
        Stop::What(what.to_owned())
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Stop {
        Stop::Trouble(trouble)
    }
}

impl Import<'_> {
    fn read(&mut self, source: &mut dyn BufRead) -> Result<(), ImportFault> {
        let mut text = Vec::new();
        loop {
            text.clear();
            let read = source.take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
            if read == 0 {
                break;
            }
            self.line += 1;
            let taken = if read as u64 == LINE_BYTES_MAX && text.last() != Some(&b'\n') {
                Err(Stop::from("it is too long"))
            } else {
                self.take(&text)
            };
            taken.map_err(|stop| match stop {
                Stop::What(what) => ImportFault::Line { line: self.line, what },
                Stop::Trouble(trouble) => ImportFault::Trouble(trouble),
            })?;
        }
        if !self.ended {
            return Err(ImportFault::Line { line: self.line + 1, what: "it is missing: the export is cut off".to_owned() });
        }
        Ok(())
    }

    fn take(&mut self, text: &[u8]) -> Result<(), Stop> {
        let line: Line = serde_json::from_slice(text).map_err(|error| Stop::What(error.to_string()))?;
        if self.ended {
            return Err("nothing may follow the end".into());
        }
        if (self.line == 1) != matches!(line, Line::CorehubExport(_)) {
            return Err("an export begins with {\"corehub_export\": 1}, once".into());
        }
        let section = match &line {
            Line::CorehubExport(_) => 0,
            Line::Conversation(_) | Line::Message(_) => 1,
            Line::Group(_) | Line::Member(_) => 2,
            Line::Row(_) => 3,
            Line::Device(_) | Line::Hidden(_) | Line::LastSeen(_) | Line::User(_) | Line::Note(_) => 4,
            Line::End(_) => 5,
        };
        if section < self.section {
            return Err("it stands behind lines that refer to its kind".into());
        }
        if section > self.section {
            self.end_of_log()?;
            self.flush()?;
            self.section = section;
        }
        match line {
            Line::CorehubExport(EXPORT_VERSION) => Ok(()),
            Line::CorehubExport(version) => {
                Err(format!("export version {version} is not known, only up to {EXPORT_VERSION}: use a newer program").into())
            }
            Line::Conversation(line) => self.conversation(&line),
            Line::Message(line) => self.message(&line),
            Line::Group(line) => self.group(line),
            Line::Member(line) => self.member(&line),
            Line::Row(line) => self.row(&line),
            Line::Device(line) => {
                let device = DeviceId::new(&line.device).map_err(|fault| format!("device {:?} {fault}", line.device))?;
                self.time(Space::Devices, keys::device(&user(&line.user)?, &device), line.since)
            }
            Line::Hidden(line) => self.hidden(&line),
            Line::LastSeen(line) => self.time(Space::LastSeen, keys::last_seen(&user(&line.user)?), line.at),
            Line::User(id) => self.put_new(Space::Users, keys::user(&user(&id)?), Vec::new()),
            Line::Note(NoteLine { kind, id, text }) => {
                if kind.contains('\0') || id.contains('\0') {
                    return Err("a note's names hold no zero byte".into());
                }
                let key = keys::note(&kind, &id);
                let value = codec::encode_text(&text, &key);
                self.put_new(Space::Notes, key, value)
            }
            Line::End(lines) if lines + 1 != self.line => {
                Err(format!("{lines} lines should be before it, but {} are", self.line - 1).into())
            }
            Line::End(_) => {
                self.ended = true;
                Ok(())
            }
        }
    }

    fn conversation(&mut self, line: &ConversationLine) -> Result<(), Stop> {
        self.end_of_log()?;
        let id = conversation(&line.id)?;
        self.number += 1;
        if line.first_kept == 0 {
            return Err("first_kept begins at 1".into());
        }
        let (first_kept, newest) = (Seq(line.first_kept), Millis(line.newest));
        let record = ConversationRecord { number: self.number, first_kept, slack_ms: line.slack_ms, newest };
        let key = keys::number(self.number);
        let value = codec::encode_conversation_id(&id, &key);
        self.put_new(Space::Numbers, key, value)?;
        // Its record follows its messages; that it comes once is to be known at once.
        let key = keys::conversation(&id);
        self.put_new(Space::Conversations, key.clone(), record.encode(&key))?;
        self.log = Some(Log { id, record, expected: first_kept, newest: Millis(0), slack_ms: 0 });
        Ok(())
    }

    fn message(&mut self, line: &MessageLine) -> Result<(), Stop> {
        let mut log = self.log.take().ok_or("a message follows its conversation")?;
        if line.seq != log.expected.0 {
            return Err(format!("{}: seq {} is expected here, not {}", log.id, log.expected.0, line.seq).into());
        }
        let message = line.message(&log.id)?;
        let number = log.record.number;
        let key = keys::message(number, message.seq);
        let value = codec::encode_message(&message, &key, self.bench.tables.keyring());
        self.put_new(Space::Messages, key, value)?;
        if !codec::is_lost(&message) {
            let key = keys::message_id(message.id);
            let value = codec::encode_numbers([number, message.seq.0], &key);
            self.put_new(Space::Ids, key, value)?;
            if let Some(key) = keys::first_use(&message, self.bench.seed) {
                let first = FirstUse { number, seq: message.seq, message_id: message.id, created_at: message.created_at };
                self.first_uses.push((key, first));
            }
            log.slack_ms = log.slack_ms.max(log.newest.0.saturating_sub(message.created_at.0));
            log.newest = log.newest.max(message.created_at);
        }
        log.expected = message.seq.next();
        self.log = Some(log);
        self.flush_some()
    }

    /// Times that step back further than the line said are said in the record.
    fn end_of_log(&mut self) -> Result<(), Stop> {
        let Some(log) = self.log.take() else { return Ok(()) };
        if log.slack_ms > log.record.slack_ms {
            let record = ConversationRecord { slack_ms: log.slack_ms, newest: log.newest.max(log.record.newest), ..log.record };
            let key = keys::conversation(&log.id);
            let value = record.encode(&key);
            self.batch.insert(self.bench.tables.keyspace(Space::Conversations), key, value);
        }
        Ok(())
    }

    fn group(&mut self, line: GroupLine) -> Result<(), Stop> {
        let id = GroupId::new(&line.id).map_err(|fault| format!("group {:?} {fault}", line.id))?;
        let group = Group { id, name: line.name.into(), open: line.open, created_at: Millis(line.created_at) };
        let (key, record) = (keys::group(&group.id), GroupRecord { group, joins: 0 });
        self.put_new(Space::Groups, key.clone(), record.encode(&key))?;
        self.group = Some(record);
        self.flush_some()
    }

    fn member(&mut self, line: &MemberLine) -> Result<(), Stop> {
        let mut record = self.group.take().ok_or("a member follows its group")?;
        let role = Role::from_name(&line.role).ok_or_else(|| format!("role {:?} is none", line.role))?;
        let (joined_seq, joined_at) = (Seq(line.joined_seq), Millis(line.joined_at));
        let member = Member { user: user(&line.user)?, role, joined_seq, joined_at };
        record.joins += 1;
        let group = &record.group.id;
        let key = keys::member_order(group, &member.user);
        let value = codec::encode_numbers([record.joins], &key);
        self.put_new(Space::Groups, key, value)?;
        let key = keys::member(group, record.joins);
        let value = codec::encode_member(&member, &key);
        self.put_new(Space::Groups, key, value)?;
        let key = keys::group(group);
        let value = record.encode(&key);
        self.batch.insert(self.bench.tables.keyspace(Space::Groups), key, value);
        self.group = Some(record);
        self.flush_some()
    }

    fn row(&mut self, line: &RowLine) -> Result<(), Stop> {
        let (user, id) = (user(&line.user)?, conversation(&line.conversation)?);
        let number = self.known(&id)?;
        let delivered = line.delivered.iter().map(|(device, seq)| match u64::from_str_radix(device, 16) {
            Ok(device) => Ok((device, Seq(*seq))),
            Err(_) => Err(format!("device {device:?} is no hash")),
        });
        let delivered = delivered.collect::<Result<_, String>>()?;
        let row = RowRecord { number, start_seq: Seq(line.start_seq), read_seq: Seq(line.read_seq), delivered };
        let key = keys::row(&user, &id);
        self.put_new(Space::Rows, key.clone(), row.encode(&key))
    }

    fn hidden(&mut self, line: &HiddenLine) -> Result<(), Stop> {
        let number = self.known(&conversation(&line.conversation)?)?;
        self.put_new(Space::Hidden, keys::hidden(&user(&line.user)?, number, Seq(line.seq)), Vec::new())
    }

    fn time(&mut self, space: Space, key: Slice, at: u64) -> Result<(), Stop> {
        let value = codec::encode_numbers([at], &key);
        self.put_new(space, key, value)
    }

    /// The number of a conversation that was imported.
    fn known(&self, id: &ConversationId) -> Result<u64, Stop> {
        match self.bench.tables.conversation_record(id)? {
            Some(record) => Ok(record.number),
            None => Err(format!("conversation {id} is not in this export").into()),
        }
    }

    /// Writes what must not be there yet.
    fn put_new(&mut self, space: Space, key: Slice, value: Vec<u8>) -> Result<(), Stop> {
        if self.pending.contains(&(space as u8, key.clone())) || self.bench.tables.get(space, &key)?.is_some() {
            return Err(format!("the same is there twice (table {})", space.name()).into());
        }
        self.bytes += key.len() + value.len();
        self.pending.insert((space as u8, key.clone()));
        self.batch.insert(self.bench.tables.keyspace(space), key, value);
        if space == Space::Messages { Ok(()) } else { self.flush_some() }
    }

    fn flush_some(&mut self) -> Result<(), Stop> {
        if self.pending.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        // Of several uses of a client id the last one counts, which need not be the last one here.
        self.first_uses.sort_by_key(|(_, first)| first.created_at);
        for (key, first) in std::mem::take(&mut self.first_uses) {
            let known = self.bench.tables.get(Space::FirstUses, &key)?;
            let newer =
                known.and_then(|bytes| FirstUse::decode(&key, &bytes).ok()).is_some_and(|it| it.created_at > first.created_at);
            if !newer {
                let value = first.encode(&key);
                self.batch.insert(self.bench.tables.keyspace(Space::FirstUses), key, value);
            }
        }
        self.bench.commit(std::mem::replace(&mut self.batch, self.bench.batch()))?;
        self.pending.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Longer than any message may be, escaped.
const LINE_BYTES_MAX: u64 = 512 << 20;
const BATCH_RECORDS: usize = 20_000;
const BATCH_BYTES: usize = 8 << 20;
