//! Owns getting out of damaged files what can still be read: every whole part of the journals, every record outside of damaged
//! blocks. It goes to a new database that takes the place of the old one, which stays beside it. Where records may be missing is
//! told; which messages are, the check of all records finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fjall::{AbstractTree, PersistMode, Slice};

use super::super::applier::Replaying;
use super::super::codec;
use super::super::commit_log::{self, CommitLog, Found, Record};
use super::super::journal::{self, Keep, MARK, Mark};
use super::super::keyring::Keyring;
use super::super::open::Folder;
use super::super::tables::{Look, Space, Tables, Trouble, Tuning, View};
use super::super::{EmbeddedSettings, SEED, StoreOpenFault, files, open_tables};
use super::gaps::{self, Gap};
use super::{Workbench, guarded};

/// What has become of a damaged folder.
pub struct Salvaged {
    pub bench: Workbench,
    /// What was found and done.
    pub told: Vec<String>,
    /// Where records may be missing, whatever the check of what is left finds.
    pub gaps: Vec<Gap>,
}

impl Workbench {
    /// Opens a folder whatever of its journals and tables is damaged, as long as their lists are not; returns what was found and
    /// done. Without damage it is as [`Workbench::open`].
    ///
    /// # Errors
    /// When the database cannot be opened even so.
    pub fn open_to_repair(settings: &EmbeddedSettings) -> Result<(Workbench, Vec<String>), StoreOpenFault> {
        let Salvaged { bench, mut told, gaps } = Workbench::salvage(settings)?;
        told.extend(gaps::tell(&gaps, &bench.tables));
        Ok((bench, told))
    }

    /// As [`Workbench::open_to_repair`].
    pub(super) fn salvage(settings: &EmbeddedSettings) -> Result<Salvaged, StoreOpenFault> {
        if !Folder::exists(&settings.path) {
            return Err(StoreOpenFault::Missing { path: settings.path.clone() });
        }
        let keyring = Arc::new(Keyring::of(settings)?);
        let folder = Folder::open(&settings.path)?;
        let database = folder.database();
        let damaged = files::damaged_tables(&database).map_err(|fault| StoreOpenFault::File { fault })?;
        let mut told: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        let acknowledged = folder.acknowledged()?.commit();
        let logs = Logs::mend(&folder, &mut told)?;
        let found = &logs.found;
        let synced = found.checkpoint;
        let journal_fault = |fault| StoreOpenFault::Journal { fault };
        // What is in memory only when the database is open, of a damaged table's records that were written anew.
        let young = if damaged.is_empty() { BTreeSet::new() } else { journal::keys(&database).map_err(journal_fault)? };
        let since = Arc::new(AtomicU64::new(0));
        let (tables, mark) = open_tables(&folder, settings, &keyring, &since, Keep::Salvaged)?;
        for (from, to) in [(mark.number + 1, synced), (mark.number.max(found.last()) + 1, acknowledged)] {
            if from <= to {
                told.push(format!(
                    "commits {from} to {to} had been acknowledged and are lost as a whole: what they held is below as far as \
                     others speak of it"
                ));
            }
        }
        if told.is_empty() {
            drop(tables);
            return Ok(Salvaged { bench: Workbench::take(folder, settings, &keyring)?, told, gaps: Vec::new() });
        }
        let trouble = |trouble: Trouble| StoreOpenFault::trouble(&database, &trouble);
        let number = mark.number.max(found.end).max(acknowledged) + 1;
        let fresh = settings.path.join(FRESH);
        let io = |source| StoreOpenFault::Unusable { path: fresh.clone(), source };
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).map_err(io)?;
        }
        let tuning = Tuning {
            cache_bytes: settings.cache_bytes,
            write_buffer_bytes: settings.write_buffer_bytes,
            keyring: keyring.clone(),
        };
        let target = Tables::open(&fresh, &tuning, &since).map_err(|error| trouble(error.into()))?;
        let buffer_bytes = settings.write_buffer_bytes;
        let mut salvage = Salvage { from: &tables, target: &target, young, buffer_bytes, gaps: Vec::new() };
        let uses_lost = salvage.everything(&mut told).map_err(trouble)?;
        let newest = logs.newest(mark);
        salvage.log(found, newest).and_then(|()| Ok(salvage.end(number)?)).map_err(|fault| match fault {
            Replaying::Log(fault) => StoreOpenFault::CommitLog { fault },
            Replaying::Tables(fault) => trouble(fault),
        })?;
        let gaps = salvage.gaps;
        drop((tables, target));
        // The index speaks of commits by their old numbers; the server makes another one.
        let search = folder.search();
        if search.exists() {
            std::fs::remove_dir_all(&search).map_err(io)?;
        }
        let aside = folder.exchange(&fresh).map_err(io)?;
        found.put_aside(&folder.log()).map_err(io)?;
        CommitLog::begin(&folder.log(), found, number).map_err(io)?;
        folder.acknowledged()?.raise(number);
        told.push(format!(
            "what could be read is in a new database; the old one is kept in {}: delete it when all is well",
            aside.display()
        ));
        let mut bench = Workbench::take(folder, settings, &keyring)?;
        bench.uses_lost = uses_lost;
        Ok(Salvaged { bench, told, gaps })
    }
}

/// What the commit log holds; the database's journals are fit to be opened.
struct Logs {
    found: Found,
    /// Nothing is missing in the commit log.
    is_whole: bool,
}

impl Logs {
    /// Of commits up to this one only what is missing is brought to tables with that mark. Where the log itself has gaps, nothing
    /// newer is replaced by what comes before the last of them, and nothing at all by a log that ends early.
    fn newest(&self, tables: Mark) -> u64 {
        match self.is_whole {
            true if tables.number <= self.found.end => 0,
            true => tables.number,
            false => tables.number.min(self.found.gap_end),
        }
    }

    /// Keeps of both what can be read.
    fn mend(folder: &Folder, told: &mut Vec<String>) -> Result<Logs, StoreOpenFault> {
        let (log, database, acknowledged) = (folder.log(), folder.database(), folder.acknowledged()?.commit());
        let (found, is_whole) = match commit_log::find(&log, acknowledged, None) {
            Ok(found) => (found, true),
            Err(fault) => {
                told.push(fault.to_string());
                let salvaged = commit_log::salvage(&log, acknowledged);
                let (found, more) = salvaged.map_err(|fault| StoreOpenFault::CommitLog { fault })?;
                told.extend(more);
                (found, false)
            }
        };
        let synced = found.checkpoint;
        // Where the log has lost something, the journals may still have it.
        let keep = match is_whole && found.exists() {
            true => Keep::UpTo { synced, end: found.end },
            false => Keep::All { synced },
        };
        if let Err(fault) = journal::mend(&database, keep) {
            told.push(fault.to_string());
            told.extend(journal::salvage(&database, synced).map_err(|fault| StoreOpenFault::Journal { fault })?);
        }
        Ok(Logs { found, is_whole })
    }
}

struct Salvage<'a> {
    from: &'a Tables,
    target: &'a Tables,
    /// Keys of what the journals hold.
    young: BTreeSet<Slice>,
    buffer_bytes: u64,
    gaps: Vec<Gap>,
}

type Row = (Slice, Slice);

impl Salvage<'_> {
    /// Returns whether records of first uses may be missing.
    fn everything(&mut self, told: &mut Vec<String>) -> Result<bool, Trouble> {
        for space in Space::TABLES {
            self.table(space)?;
        }
        let mut uses_lost = self.gaps.iter().any(|gap| gap.space == Space::FirstUses);
        if self.target.get(Space::Meta, SEED)?.is_none() {
            told.push("the seed that client ids are known by is lost: they are taken from the messages".to_owned());
            uses_lost = true;
        }
        Ok(uses_lost)
    }

    /// Brings over what the log holds. Of commits up to `newest`, which the tables had, only what is missing now, as the last of
    /// them left it.
    fn log(&self, found: &Found, newest: u64) -> Result<(), Replaying> {
        let mut older: BTreeMap<(usize, Slice), Option<Slice>> = BTreeMap::new();
        let loose = found.loose();
        found.replay(|number, mut records| -> Result<(), Replaying> {
            if loose.contains(&number) {
                // A wrong key would make a record of something that never was; one without a value proves nothing.
                records.retain(|record| match record {
                    Record::Put(_, key, value) => codec::is_sealed(key, value),
                    Record::Delete(..) | Record::Changes(_) => true,
                });
            }
            let mut newer = self.target.database().batch().durability(Some(PersistMode::Buffer));
            for record in records {
                let (space, key, value) = match record {
                    Record::Put(space, key, value) => (space, key, Some(value)),
                    Record::Delete(space, key) => (space, key, None),
                    Record::Changes(_) => continue,
                };
                match value {
                    value if number <= newest => drop(older.insert((space as usize, key), value)),
                    Some(value) => newer.insert(self.target.keyspace(space), key, value),
                    None => newer.remove(self.target.keyspace(space), key),
                }
            }
            if number > newest {
                self.missing(std::mem::take(&mut older))?;
            }
            self.target.wait_for_room(self.buffer_bytes);
            Ok(newer.commit().map_err(Trouble::from)?)
        })?;
        Ok(self.missing(older)?)
    }

    fn missing(&self, rows: BTreeMap<(usize, Slice), Option<Slice>>) -> Result<(), Trouble> {
        let mut pieces: BTreeMap<usize, Vec<Row>> = BTreeMap::new();
        for ((space, key), value) in rows {
            if let Some(value) = value
                && self.target.get(Space::ALL[space], &key)?.is_none()
            {
                pieces.entry(space).or_default().push((key, value));
            }
        }
        pieces.into_iter().try_for_each(|(space, piece)| self.put(Space::ALL[space], piece))
    }

    /// In one go when all of it can be read, else key by key.
    fn table(&mut self, space: Space) -> Result<(), Trouble> {
        let view = self.from.view();
        let mut low = Slice::from(b"");
        while let Ok(piece) = stretch(&view, space, &low) {
            match piece.last() {
                Some((key, _)) => low = Slice::from([key.as_ref(), &[0]].concat()),
                None => return Ok(()),
            }
            self.put(space, piece)?;
        }
        self.key_by_key(&view, space)
    }

    /// A look at all of a table stops at a damaged block of any of its files. One file alone can be read past such a block: so
    /// every key is taken from where it can be read, and asked for by itself.
    fn key_by_key(&mut self, view: &View<'_>, space: Space) -> Result<(), Trouble> {
        let (mut found, mut unanswered) = (Piece::default(), BTreeMap::<Slice, Entry>::new());
        let version = self.from.keyspace(space).tree.current_version();
        let mut gaps = Vec::new();
        for file in version.iter_tables() {
            let (first, last) = (file.metadata.key_range.min(), file.metadata.key_range.max());
            let blocks = file.metadata.data_block_count;
            let mut take = |entry: InternalEntry| self.ask(view, space, entry, &mut found, &mut unanswered);
            let mut entries = file.iter().map(|it| it.map(|it| met(it.is_tombstone(), it.key.user_key, it.key.seqno, it.value)));
            let walked = walk(&mut entries, blocks, &mut take)?;
            // Without an index it has to be read from the beginning.
            let walked = match (walked, file.scan()) {
                (None, Ok(scanner)) => {
                    let mut entries =
                        scanner.map(|it| it.map(|it| met(it.is_tombstone(), it.key.user_key, it.key.seqno, it.value)));
                    walk(&mut entries, blocks, &mut take)?
                }
                (walked, _) => walked,
            };
            let broken = walked.unwrap_or_else(|| vec![(None, None)]).into_iter();
            gaps.extend(broken.map(|(from, to)| Gap {
                space,
                from: from.unwrap_or_else(|| first.clone()),
                to: to.unwrap_or_else(|| last.clone()),
            }));
        }
        for key in &self.young {
            if let Ok(Some(value)) = guarded(|| view.get(space, key)) {
                self.take(space, key.clone(), value, &mut found)?;
            }
        }
        // Where a newer record may have been, an older one is of no use.
        unanswered.retain(|key, _| !gaps.iter().any(|gap| gap.from <= *key && *key <= gap.to));
        for (key, (_, value)) in unanswered {
            if let Some(value) = value {
                self.take(space, key, value, &mut found)?;
            }
        }
        self.gaps.extend(gaps);
        self.put(space, found.records)
    }

    /// Takes over the newest record with the key of one that was met. When there is none, since a block or index cannot be
    /// read, the newest of those that were met is remembered.
    fn ask(
        &self,
        view: &View<'_>,
        space: Space,
        (key, (order, met)): InternalEntry,
        found: &mut Piece,
        unanswered: &mut BTreeMap<Slice, Entry>,
    ) -> Result<(), Trouble> {
        match guarded(|| view.get(space, &key)) {
            Ok(Some(value)) => self.take(space, key, value, found)?,
            Ok(None) => {}
            Err(_) => {
                let known = unanswered.entry(key).or_insert_with(|| (order, met.clone()));
                if order > known.0 {
                    *known = (order, met);
                }
            }
        }
        Ok(())
    }

    fn take(&self, space: Space, key: Slice, value: Slice, found: &mut Piece) -> Result<(), Trouble> {
        found.bytes += key.len() + value.len();
        found.records.push((key, value));
        if found.bytes < STRETCH_BYTES {
            return Ok(());
        }
        self.put(space, std::mem::take(found).records)
    }

    fn put(&self, space: Space, piece: Vec<Row>) -> Result<(), Trouble> {
        if piece.is_empty() {
            return Ok(());
        }
        self.target.wait_for_room(self.buffer_bytes);
        let mut batch = self.target.database().batch().durability(Some(PersistMode::Buffer));
        let keyspace = self.target.keyspace(space);
        for (key, value) in piece {
            // Commits are numbered anew, and a journal with a leap in its numbers looks as if a part were missing.
            if space != Space::Meta || key != MARK {
                batch.insert(keyspace, key, value);
            }
        }
        Ok(batch.commit()?)
    }

    /// Numbers the next commit behind all that were ever acknowledged.
    fn end(&self, number: u64) -> Result<(), Trouble> {
        self.target.database().persist(PersistMode::SyncAll)?;
        let mark = Mark { number, previous: number - 1, synced: number - 1 };
        self.target.keyspace(Space::Meta).insert(MARK, mark.encode())?;
        self.target.database().persist(PersistMode::SyncAll)?;
        Ok(())
    }
}

#[derive(Default)]
struct Piece {
    records: Vec<Row>,
    bytes: usize,
}

/// How new a record is, and its value; None: it was deleted.
type Entry = (u64, Option<Slice>);
type InternalEntry = (Slice, Entry);

fn met(deleted: bool, key: Slice, order: u64, value: Slice) -> InternalEntry {
    (key, (order, (!deleted).then_some(value)))
}

/// The keys around what cannot be read; None where nothing is on that side.
type Broken = Vec<(Option<Slice>, Option<Slice>)>;

/// Goes through a file that has so many blocks, over those that cannot be read. None: it has no end, for want of an index.
fn walk(
    entries: &mut dyn Iterator<Item = Result<InternalEntry, fjall::LsmError>>,
    blocks: u64,
    take: &mut dyn FnMut(InternalEntry) -> Result<(), Trouble>,
) -> Result<Option<Broken>, Trouble> {
    let (mut broken, mut last, mut in_gap, mut blocks_broken) = (Vec::new(), None, false, 0);
    loop {
        match guarded(|| Ok(entries.next().transpose().map_err(fjall::Error::from)?)) {
            Ok(Some(entry)) => {
                if std::mem::take(&mut in_gap) {
                    broken.push((last, Some(entry.0.clone())));
                }
                last = Some(entry.0.clone());
                take(entry)?;
            }
            Ok(None) => {
                if in_gap {
                    broken.push((last, None));
                }
                return Ok(Some(broken));
            }
            Err(_) if blocks_broken > blocks => return Ok(None),
            Err(_) => (in_gap, blocks_broken) = (true, blocks_broken + 1),
        }
    }
}

/// What follows in a table, some of it; none when nothing does.
fn stretch(view: &View<'_>, space: Space, low: &Slice) -> Result<Vec<Row>, Trouble> {
    guarded(|| {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for guard in view.range(space, low.clone(), None) {
            let (key, value) = guard.into_inner()?;
            bytes += key.len() + value.len();
            found.push((key, value));
            if bytes >= STRETCH_BYTES {
                break;
            }
        }
        Ok(found)
    })
}

const FRESH: &str = "store.repaired";
const STRETCH_BYTES: usize = 1 << 20;
