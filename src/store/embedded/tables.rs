//! Owns the open database: its tables, how each is tuned, and looking into them. Never decides what is written. Shared by the
//! writer and the readers.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict};
use fjall::{
    AbstractTree, Database, DatabaseBuilder, Iter, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Slice, Snapshot,
};

use super::backlog::Rows;
use super::codec::{self, ConversationRecord, Damaged, FirstUse, Unreadable};
use super::heads::Heads;
use super::keyring::{Keyring, NoKey};
use super::leftovers::Leftovers;
use super::search::IndexFault;
use super::{keys, open, rewrite};
use crate::scheduling::be_nice;
use crate::types::{ConversationId, Millis, Seq};

/// What is kept; `keys` says under which keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Messages,
    Conversations,
    Numbers,
    Ids,
    FirstUses,
    Rows,
    Devices,
    Hidden,
    Groups,
    LastSeen,
    Users,
    Notes,
    Meta,
    Changes,
}

impl Space {
    pub const ALL: [Space; 14] = [
        Space::Messages,
        Space::Conversations,
        Space::Numbers,
        Space::Ids,
        Space::FirstUses,
        Space::Rows,
        Space::Devices,
        Space::Hidden,
        Space::Groups,
        Space::LastSeen,
        Space::Users,
        Space::Notes,
        Space::Meta,
        Space::Changes,
    ];

    /// One of each table of the database but that of changes, which only the search index needs: without it that is made anew.
    pub const TABLES: [Space; 5] = [Space::Messages, Space::Ids, Space::FirstUses, Space::Rows, Space::Meta];

    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Space::Messages => "messages",
            Space::Conversations => "conversations",
            Space::Numbers => "numbers",
            Space::Ids => "ids",
            Space::FirstUses => "first uses",
            Space::Rows => "rows",
            Space::Devices => "devices",
            Space::Hidden => "hidden messages",
            Space::Groups => "groups",
            Space::LastSeen => "last seen",
            Space::Users => "users",
            Space::Notes => "notes",
            Space::Meta => "meta",
            Space::Changes => "changes",
        }
    }

    /// How all its keys begin.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Space::Messages | Space::Ids | Space::FirstUses | Space::Rows | Space::Changes => b"",
            Space::Conversations => b"c",
            Space::Numbers => b"n",
            Space::Devices => b"d",
            Space::Hidden => b"h",
            Space::Groups => b"g",
            Space::LastSeen => b"l",
            Space::Users => b"u",
            Space::Notes => b"t",
            Space::Meta => b"m",
        }
    }

    pub fn shares_table_with(self, other: Space) -> bool {
        self.table() == other.table()
    }

    /// What is seldom written shares a table: its keys begin with a letter of their own.
    fn table(self) -> Table {
        match self {
            Space::Messages => Table::Messages,
            Space::Ids => Table::Ids,
            Space::FirstUses => Table::FirstUses,
            Space::Rows => Table::Rows,
            Space::Changes => Table::Changes,
            _ => Table::State,
        }
    }
}

/// A keyspace of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Messages,
    Ids,
    FirstUses,
    Rows,
    State,
    Changes,
}

impl Table {
    const ALL: [Table; 6] = [Table::Messages, Table::Ids, Table::FirstUses, Table::Rows, Table::State, Table::Changes];

    /// Its name on disk, which never changes.
    fn name(self) -> &'static str {
        match self {
            Table::Messages => "messages",
            Table::Ids => "ids",
            Table::FirstUses => "first_uses",
            Table::Rows => "rows",
            Table::State => "state",
            Table::Changes => "changes",
        }
    }

    fn options(self, write_buffer_bytes: u64) -> KeyspaceCreateOptions {
        let sixteenths = if self == Table::Messages { 8 } else { 2 };
        let options = KeyspaceCreateOptions::default()
            .manual_journal_persist(true)
            .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES)))
            .max_memtable_size((write_buffer_bytes / 16 * sixteenths).max(BUFFER_BYTES_MIN));
        // A filter pays where most look-ups find nothing; these find what they look for.
        options.expect_point_read_hits(matches!(self, Table::Messages | Table::Ids))
    }
}

/// Why looking failed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("damaged record in table {table}, {place}: run `corehub store check --repair`, or restore a backup")]
    Damaged { table: &'static str, place: String },
    #[error("{place} is sealed with key {id}, which {file} does not hold: put that key back into store.encryption_key_file")]
    NoKey { id: String, file: String, place: String },
    #[error("cannot read the database: {0}")]
    Engine(#[from] fjall::Error),
    #[error("cannot read the search index: {0}")]
    Index(#[from] IndexFault),
}

impl Trouble {
    /// What is on disk is not what was written: asking again does not help.
    pub fn is_damage(&self) -> bool {
        // A file that ends early or holds what it should not; anything else is the disk's business of the moment.
        self.io_kind().is_none_or(|kind| matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData))
    }

    /// The disk takes nothing more.
    pub fn is_full(&self) -> bool {
        self.io_kind().is_some_and(open::is_full)
    }

    fn io_kind(&self) -> Option<io::ErrorKind> {
        let mut cause: Option<&dyn std::error::Error> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Some(error.kind());
            }
            cause = error.source();
        }
        None
    }

    /// Says where a damaged record lies.
    pub fn at(space: Space, place: impl Into<String>) -> impl FnOnce(Damaged) -> Trouble {
        move |Damaged| Trouble::Damaged { table: space.name(), place: place.into() }
    }

    /// Says which message cannot be read.
    pub fn message(place: impl Into<String>) -> impl FnOnce(Unreadable) -> Trouble {
        move |unreadable| match unreadable {
            Unreadable::Damaged => Trouble::at(Space::Messages, place)(Damaged),
            Unreadable::NoKey(NoKey { id, file }) => {
                let file = file.map_or_else(|| "no key file".to_owned(), |file| file.display().to_string());
                Trouble::NoKey { id, file, place: place.into() }
            }
        }
    }
}

/// How the database is opened.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub cache_bytes: u64,
    pub write_buffer_bytes: u64,
    pub keyring: Arc<Keyring>,
}

/// The open database.
pub struct Tables {
    /// Ends before the database.
    leftovers: Leftovers,
    database: Database,
    keyring: Arc<Keyring>,
    keyspaces: [Keyspace; Table::ALL.len()],
    heads: Heads,
    opening: u64,
}

impl Tables {
    /// Opens or makes the database in `folder`. First uses from before `first_uses_since` are dropped when they are next touched.
    pub fn open(folder: &Path, tuning: &Tuning, first_uses_since: &Arc<AtomicU64>) -> fjall::Result<Tables> {
        let since = first_uses_since.clone();
        let builder = Database::builder(folder)
            .cache_size(tuning.cache_bytes)
            .manual_journal_persist(true)
            // One does everything in turn; with more, one of them spins while another compacts.
            .worker_threads(1)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .with_compaction_filter_factories(Arc::new(move |name| {
                let since = (name == Table::FirstUses.name()).then(|| since.clone());
                let factory: Arc<dyn Factory> = Arc::new(Expiry { since });
                Some(factory)
            }));
        let database = open_nicely(builder)?;
        let open = |table: Table| database.keyspace(table.name(), || table.options(tuning.write_buffer_bytes));
        let keyspaces = Table::ALL.into_iter().map(open).collect::<fjall::Result<Vec<_>>>()?;
        let keyspaces = keyspaces.try_into().unwrap_or_else(|_| unreachable!("one keyspace for each table"));
        let opening = OPENINGS.fetch_add(1, Ordering::Relaxed);
        let leftovers = Leftovers::new(folder)?;
        Ok(Tables { leftovers, database, keyring: tuning.keyring.clone(), keyspaces, heads: Heads::new(), opening })
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Where logs end, as far as it is remembered.
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// To be called after every commit, with its bytes, and now and then when there is none.
    pub fn hold(&self, brought_bytes: usize) {
        self.leftovers.hold(&self.keyspaces, brought_bytes);
    }

    #[cfg(test)]
    pub fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    pub fn keyspace(&self, space: Space) -> &Keyspace {
        &self.keyspaces[space.table() as usize]
    }

    /// Slows the writer down when tables are written more slowly than memory fills.
    pub fn wait_for_room(&self, write_buffer_bytes: u64) {
        for _ in 0..WAITS_MAX {
            if self.database.write_buffer_size() <= write_buffer_bytes * 3 {
                break;
            }
            std::thread::sleep(WAIT);
        }
    }

    /// Shows records that the database no longer takes, in memory alone: whoever reads until it is opened anew is to find them.
    /// For what the commit log has on disk.
    pub fn show(&self, rows: &Rows) {
        // Just below what a view sees from now on.
        let order = self.database.snapshot().seqno().saturating_sub(1);
        for space in Space::ALL {
            let tree = &self.keyspace(space).tree;
            for (key, value) in &rows[space as usize] {
                match value {
                    Some(value) => tree.insert(key.clone(), value.clone(), order),
                    None => tree.remove(key.clone(), order),
                };
            }
        }
    }

    /// Waits while the database would make a batch wait, which it does without a look at its own end.
    ///
    /// # Errors
    /// When the database has ended: its disk has failed.
    pub fn wait_for_tables(&self) -> fjall::Result<()> {
        let is_held_up =
            |keyspace: &Keyspace| keyspace.tree.sealed_memtable_count() >= SEALED_MAX || keyspace.tree.l0_run_count() >= RUNS_MAX;
        while self.keyspaces.iter().any(is_held_up) {
            self.database.persist(PersistMode::Buffer)?;
            std::thread::sleep(WAIT);
        }
        Ok(())
    }

    /// Tells one opening from another.
    pub fn opening(&self) -> u64 {
        self.opening
    }

    /// Everything as it was when `snapshot` was taken of this opening.
    pub fn view_at(&self, snapshot: Snapshot) -> View<'_> {
        View { tables: self, snapshot }
    }

    /// Everything as it is now, unmoved by what is written meanwhile.
    pub fn view(&self) -> View<'_> {
        View { tables: self, snapshot: self.database.snapshot() }
    }
}

/// Opens the database from a thread that is a little nice, since its workers inherit that from whoever starts them: merging
/// tables is to leave processors to those who are waited for. Only a little: they hold locks at times.
fn open_nicely(builder: DatabaseBuilder<Database>) -> fjall::Result<Database> {
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            be_nice(WORKER_NICENESS);
            builder.open()
        });
        opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Looking into tables.
pub trait Look {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, Trouble>;

    /// From `from` to before `to`, or to the end.
    fn range(&self, space: Space, from: Slice, to: Option<Slice>) -> Iter;

    /// What bodies are sealed with.
    fn keyring(&self) -> &Keyring;

    fn prefix(&self, space: Space, prefix: Slice) -> Iter {
        let end = keys::after_prefix(&prefix);
        self.range(space, prefix, end)
    }

    /// The messages from `low` to `high`, both included.
    fn log(&self, number: u64, low: Seq, high: Seq) -> Iter {
        let end = match high.0.checked_add(1) {
            Some(after) => keys::message(number, Seq(after)),
            None => keys::message(number + 1, Seq(0)),
        };
        self.range(Space::Messages, keys::message(number, low), Some(end))
    }

    fn conversation_record(&self, id: &ConversationId) -> Result<Option<ConversationRecord>, Trouble> {
        let key = keys::conversation(id);
        let Some(bytes) = self.get(Space::Conversations, &key)? else { return Ok(None) };
        ConversationRecord::decode(&key, &bytes).map(Some).map_err(Trouble::at(Space::Conversations, id.as_str()))
    }

    /// The id of a numbered conversation.
    fn conversation_id(&self, number: u64) -> Result<ConversationId, Trouble> {
        let key = keys::number(number);
        let place = || Trouble::at(Space::Numbers, number.to_string());
        let bytes = self.get(Space::Numbers, &key)?.ok_or_else(|| place()(Damaged))?;
        codec::decode_conversation_id(&key, &bytes).map_err(place())
    }

    /// The number of the newest conversation; 0 without any.
    fn last_number(&self) -> Result<u64, Trouble> {
        match self.prefix(Space::Numbers, keys::numbers()).next_back() {
            Some(guard) => Ok(keys::seq_of(&guard.key()?).map_or(0, |number| number.0)),
            None => Ok(0),
        }
    }

    /// The newest message: its `seq` and record.
    fn last_message(&self, number: u64) -> Result<Option<(Seq, Slice, Slice)>, Trouble> {
        let Some(guard) = self.log(number, Seq(0), Seq(u64::MAX)).next_back() else { return Ok(None) };
        let (key, value) = guard.into_inner()?;
        let seq = keys::seq_of(&key).ok_or(Damaged).map_err(Trouble::at(Space::Messages, number.to_string()))?;
        Ok(Some((seq, key, value)))
    }

    /// The end of a log. It outlives its messages.
    fn head(&self, record: &ConversationRecord) -> Result<Seq, Trouble> {
        match self.log(record.number, Seq(0), Seq(u64::MAX)).next_back() {
            Some(guard) => {
                keys::seq_of(&guard.key()?).ok_or(Damaged).map_err(Trouble::at(Space::Messages, record.number.to_string()))
            }
            None => Ok(record.first_kept.previous()),
        }
    }
}

/// The tables at one moment.
pub struct View<'a> {
    tables: &'a Tables,
    snapshot: Snapshot,
}

impl View<'_> {
    /// Where a log ends; may be newer than this moment. None: it holds nothing.
    pub fn head_now(&self, number: u64) -> Result<Option<Seq>, Trouble> {
        if let Some(head) = self.tables.heads.known(number) {
            return Ok(Some(head));
        }
        let head = self.last_message(number)?.map(|(seq, _, _)| seq);
        head.into_iter().for_each(|head| self.tables.heads.found(number, head));
        Ok(head)
    }

    /// The newest message at this moment. Where the end is remembered, that is one look-up.
    pub fn newest_message(&self, number: u64) -> Result<Option<(Seq, Slice, Slice)>, Trouble> {
        if let Some(head) = self.tables.heads.known(number) {
            let key = keys::message(number, head);
            if let Some(value) = self.get(Space::Messages, &key)? {
                return Ok(Some((head, key, value)));
            }
        }
        let newest = self.last_message(number)?;
        newest.iter().for_each(|(seq, _, _)| self.tables.heads.found(number, *seq));
        Ok(newest)
    }
}

impl Look for View<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, Trouble> {
        Ok(self.snapshot.get(self.tables.keyspace(space), key)?)
    }

    fn range(&self, space: Space, from: Slice, to: Option<Slice>) -> Iter {
        let keyspace = self.tables.keyspace(space);
        match to {
            Some(to) => self.snapshot.range(keyspace, from..to),
            None => self.snapshot.range(keyspace, from..),
        }
    }

    fn keyring(&self) -> &Keyring {
        &self.tables.keyring
    }
}

/// The tables as they are whenever they are looked at; enough for the only one who writes.
impl Look for Tables {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, Trouble> {
        Ok(self.keyspace(space).get(key)?)
    }

    fn range(&self, space: Space, from: Slice, to: Option<Slice>) -> Iter {
        match to {
            Some(to) => self.keyspace(space).range(from..to),
            None => self.keyspace(space).range(from..),
        }
    }

    fn keyring(&self) -> &Keyring {
        &self.keyring
    }
}

/// Drops first uses that no longer count, whenever their table is rewritten anyway, and ends a rewriting that is not wanted any
/// more.
#[derive(Clone)]
struct Expiry {
    /// Of the table of first uses.
    since: Option<Arc<AtomicU64>>,
}

impl Factory for Expiry {
    fn name(&self) -> &str {
        "expired first uses"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(self.clone())
    }
}

impl CompactionFilter for Expiry {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        if rewrite::is_stopped() {
            return Err(fjall::LsmError::Io(std::io::ErrorKind::Interrupted.into()));
        }
        let Some(since) = &self.since else { return Ok(Verdict::Keep) };
        let since = Millis(since.load(Ordering::Relaxed));
        // What is damaged stays: whoever needs it is to be told.
        match FirstUse::decode(item.key(), &item.value()?) {
            Ok(first) if first.created_at < since => Ok(Verdict::Remove),
            _ => Ok(Verdict::Keep),
        }
    }
}

static OPENINGS: AtomicU64 = AtomicU64::new(0);

const WAIT: Duration = Duration::from_millis(1);
const WAITS_MAX: usize = 10;
/// From one more memory that is to become a table, and from some more unsorted tables, the database waits by itself.
const SEALED_MAX: usize = 3;
const RUNS_MAX: usize = 28;
const WORKER_NICENESS: i32 = 5;
/// Small enough that a merging takes little time: meanwhile nothing moves from memory to tables.
const TABLE_BYTES: u64 = 16 << 20;
const BUFFER_BYTES_MIN: u64 = 256 << 10;
/// The least the database allows; at start all of it may have to be read.
const JOURNALS_BYTES_MAX: u64 = 64 << 20;
