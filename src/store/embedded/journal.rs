//! Owns looking through the database's journals before it is opened. The database itself would silently cut a journal at the
//! first thing it cannot read; here only a tail is cut that the commit log still has, and any other damage stops the start.
//!
//! Every batch writes [`MARK`] with its commits and the last one that was on disk by then. Of a batch that cannot be read, the
//! marks around it say whether it had been on disk.

mod salvage;

#[cfg(test)]
mod salvage_tests;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use fjall::Slice;
use xxhash_rust::xxh3::xxh3_64;

use super::codec;

pub use salvage::salvage;

/// Key of the mark in `meta`. No other key of any table has this beginning, since identifiers hold no control characters.
pub const MARK: &[u8] = b"m\x01commit";

/// What a mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last commit of this batch: 1 for the first, without gaps.
    pub number: u64,
    /// The last commit before this batch.
    pub previous: u64,
    /// The last commit known to be on disk, in tables or here, when this batch was written.
    pub synced: u64,
}

impl Mark {
    pub fn encode(self) -> Vec<u8> {
        codec::encode_numbers([self.number, self.synced, self.previous], MARK)
    }

    pub fn decode(bytes: &[u8]) -> Option<Mark> {
        if let Ok([number, synced, previous]) = codec::decode_numbers(MARK, bytes) {
            return Some(Mark { number, previous, synced });
        }
        // Of a time when every batch was one commit.
        let [number, synced] = codec::decode_numbers(MARK, bytes).ok()?;
        Some(Mark { number, previous: number.saturating_sub(1), synced })
    }
}

/// What is to be there when the database is opened.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// Everything readable, which has to be everything up to this commit. For folders without a commit log.
    All { synced: u64 },
    /// Everything up to `synced`. The commit log has what follows, up to `end`, and whether that is on disk here nobody knows.
    UpTo { synced: u64, end: u64 },
    /// What a salvage has left.
    Salvaged,
}

/// Why the database must not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalFault {
    #[error("journal {} is damaged at byte {at}, among messages that had been acknowledged", path.display())]
    Damaged { path: PathBuf, at: u64 },
    #[error("journal {} ends with commit {last}, but {synced} had been on disk: its end is missing", path.display())]
    EndsEarly { path: PathBuf, last: u64, synced: u64 },
    #[error("the database has commit {last}, but the commit log ends with {end}: its end is missing")]
    AheadOfLog { last: u64, end: u64 },
    #[error("cannot read journal {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Cuts what must not be replayed from the journals in `folder`; returns how many bytes that were.
pub fn mend(folder: &Path, keep: Keep) -> Result<u64, JournalFault> {
    let (known, logged, log_end) = match keep {
        Keep::All { synced } => (synced, false, u64::MAX),
        Keep::UpTo { synced, end } => (synced, true, end),
        Keep::Salvaged => return Ok(0),
    };
    let (mut last, mut order) = (0, 0);
    let mut cut: Option<Cut> = None;
    // Of batches behind the cut.
    let mut behind: Vec<Mark> = Vec::new();
    let journals = journals(folder).map_err(|source| JournalFault::Io { path: folder.to_owned(), source })?;
    'journals: for (place, path) in journals.iter().enumerate() {
        let io = |source| JournalFault::Io { path: path.clone(), source };
        let mut scan = Scan::open(path, order).map_err(io)?;
        loop {
            let batch = match scan.batch() {
                Err(_) if matches!(cut, Some(Cut { kind: CutKind::Known, .. })) => break 'journals,
                batch => batch.map_err(|source| scan_fault(path, scan.begun, source))?,
            };
            let Some(mark) = batch else { break };
            let Some(mark) = mark else { continue };
            let gap = last > 0 && mark.previous > last;
            let is_behind = matches!(cut, Some(Cut { kind: CutKind::Known, .. }));
            if is_behind || cut.is_none() && logged && mark.number > known && (!gap || last >= known) {
                if mark.number > log_end {
                    return Err(JournalFault::AheadOfLog { last: mark.number, end: log_end });
                }
                // Whatever follows goes, too.
                cut = cut.or(Some(Cut { place, at: scan.begun, kind: CutKind::Known }));
                continue;
            }
            if cut.is_none() && gap {
                // A journal that ends too early between two commits looks whole; the numbers tell.
                let short = if scan.begun == 0 { place.saturating_sub(1) } else { place };
                cut = Some(Cut { place, at: scan.begun, kind: CutKind::Short(short) });
            }
            match cut {
                Some(_) => behind.push(mark),
                None => last = last.max(mark.number),
            }
        }
        order = scan.order;
        if !scan.rest_is_empty().map_err(io)? {
            cut = cut.or(Some(Cut { place, at: scan.begun, kind: CutKind::Broken }));
            behind.extend(scan.marks_in_rest().map_err(io)?);
        }
    }
    let is_known = cut.is_some_and(|cut| matches!(cut.kind, CutKind::Known));
    // What follows the last commit of these is the next one. Without any, those in question may lie in tables, which is seen when
    // they are open.
    let lacks = |mark: &Mark| match logged {
        false => mark.synced > last,
        // Of those behind a break some were known to be on disk, or are just behind some that were.
        true => mark.number <= known || (1..=known).contains(&mark.previous),
    };
    let missing = last > 0 && last < known || !is_known && (last < known || !logged) && behind.iter().any(lacks);
    if missing {
        let synced = behind.iter().map(|mark| mark.synced).filter(|_| !logged).max().unwrap_or(0).max(known);
        return Err(match (cut, journals.last()) {
            (Some(Cut { kind: CutKind::Short(place), .. }), _) => {
                JournalFault::EndsEarly { path: journals[place].clone(), last, synced }
            }
            (Some(cut), _) if !is_known => JournalFault::Damaged { path: journals[cut.place].clone(), at: cut.at },
            (_, newest) => JournalFault::EndsEarly { path: newest.cloned().unwrap_or_else(|| folder.to_owned()), last, synced },
        });
    }
    cut.map_or(Ok(0), |cut| cut_off(&journals, cut))
}

/// Returns how many bytes that were.
fn cut_off(journals: &[PathBuf], Cut { place, at, .. }: Cut) -> Result<u64, JournalFault> {
    let mut bytes = 0;
    for (path, at) in journals[place..].iter().zip([at].into_iter().chain(std::iter::repeat(0))) {
        bytes += truncate(path, at).map_err(|source| JournalFault::Io { path: path.clone(), source })?;
    }
    Ok(bytes)
}

/// Where journals are cut: everything from there on goes.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Of the journal.
    place: usize,
    at: u64,
    kind: CutKind,
}

#[derive(Clone, Copy, Debug)]
enum CutKind {
    /// What follows is in the commit log.
    Known,
    /// Something is missing at the end of this journal.
    Short(usize),
    Broken,
}

/// The keys of all records in whole batches, of whatever table.
pub fn keys(folder: &Path) -> Result<BTreeSet<Slice>, JournalFault> {
    let mut keys = BTreeSet::new();
    for path in journals(folder).map_err(|source| JournalFault::Io { path: folder.to_owned(), source })? {
        let io = |source| JournalFault::Io { path: path.clone(), source };
        let mut scan = Scan::open(&path, 0).map_err(io)?;
        while scan.batch().map_err(|source| scan_fault(&path, scan.begun, source))?.is_some() {
            keys.extend(keys_of(&scan.items));
        }
    }
    Ok(keys)
}

/// The keys in the items of a whole batch.
fn keys_of(mut items: &[u8]) -> Vec<Slice> {
    let mut keys = Vec::new();
    while let Some(tag) = items.first() {
        let bytes = match *tag {
            CLEAR => 1 + 8,
            _ => {
                let Some(head) = items.get(1..1 + ITEM_HEAD_BYTES) else { break };
                let (key_bytes, value_bytes) = lengths(head);
                keys.extend(items.get(1 + ITEM_HEAD_BYTES..1 + ITEM_HEAD_BYTES + key_bytes).map(Slice::from));
                1 + ITEM_HEAD_BYTES + key_bytes + value_bytes
            }
        };
        items = items.get(bytes..).unwrap_or_default();
    }
    keys
}

/// What is wrong with a database that was opened and has too little.
pub fn ends_early(folder: &Path, last: u64, synced: u64) -> JournalFault {
    let newest = journals(folder).ok().and_then(|journals| journals.last().cloned());
    JournalFault::EndsEarly { path: newest.unwrap_or_else(|| folder.to_owned()), last, synced }
}

fn scan_fault(path: &Path, at: u64, source: io::Error) -> JournalFault {
    match source.kind() {
        io::ErrorKind::InvalidData => JournalFault::Damaged { path: path.to_owned(), at },
        _ => JournalFault::Io { path: path.to_owned(), source },
    }
}

fn truncate(path: &Path, at: u64) -> io::Result<u64> {
    let file = OpenOptions::new().write(true).open(path)?;
    let bytes = file.metadata()?.len().saturating_sub(at);
    file.set_len(at)?;
    file.sync_all()?;
    Ok(bytes)
}

/// Oldest first.
fn journals(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
                if path.extension().is_some_and(|extension| extension == "jnl") {
                    found.extend(number.map(|number| (number, path)));
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// One journal, batch by batch.
struct Scan {
    reader: BufReader<File>,
    length: u64,
    /// Where the next batch begins, and where the last one that was asked for began.
    at: u64,
    begun: u64,
    /// The database numbers batches upwards. The number is under no checksum, but replay depends on its order.
    order: u64,
    items: Vec<u8>,
}

/// A whole batch.
struct Batch {
    order: u64,
    mark: Option<Mark>,
    bytes: u64,
}

/// A batch that could not be read to its end.
enum Broken {
    Content,
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Broken::Content,
            _ => Broken::Io(error),
        }
    }
}

impl Scan {
    fn open(path: &Path, order: u64) -> io::Result<Scan> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Scan { reader: BufReader::with_capacity(1 << 18, file), length, at: 0, begun: 0, order, items: Vec::new() })
    }

    /// The next batch's mark, None where it has none; None when there is no whole batch here.
    fn batch(&mut self) -> io::Result<Option<Option<Mark>>> {
        self.begun = self.at;
        self.items.clear();
        match read_batch(&mut self.reader, &mut self.items, self.length) {
            // No unfinished commit looks like this.
            Ok(batch) if batch.order < self.order => Err(io::Error::new(io::ErrorKind::InvalidData, "commits out of order")),
            Ok(batch) => {
                (self.at, self.order) = (self.at + batch.bytes, batch.order.saturating_add(1));
                Ok(Some(batch.mark))
            }
            Err(Broken::Content) => Ok(None),
            Err(Broken::Io(error)) => Err(error),
        }
    }

    /// Only zeros follow: room that was made in advance.
    fn rest_is_empty(&mut self) -> io::Result<bool> {
        self.reader.seek(SeekFrom::Start(self.begun))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.reader.read(&mut buffer)? {
                0 => return Ok(true),
                read if buffer[..read].iter().any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }

    /// The marks of whole batches behind an unreadable place.
    fn marks_in_rest(&mut self) -> io::Result<Vec<Mark>> {
        let mut rest = Vec::new();
        self.reader.seek(SeekFrom::Start(self.begun))?;
        self.reader.read_to_end(&mut rest)?;
        let (mut at, mut marks) = (1, Vec::new());
        while let Some(start) = rest.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == START)) {
            at += start;
            self.items.clear();
            let mut reader = &rest[at..];
            match read_batch(&mut reader, &mut self.items, rest.len() as u64) {
                Ok(batch) => {
                    marks.extend(batch.mark);
                    at += batch.bytes as usize;
                }
                Err(_) => at += 1,
            }
        }
        Ok(marks)
    }
}

/// Reads a batch as the database writes it: a start with a count, items, an end with their checksum.
fn read_batch(reader: &mut impl Read, items: &mut Vec<u8>, bytes_max: u64) -> Result<Batch, Broken> {
    if array::<1>(reader)?[0] != START {
        return Err(Broken::Content);
    }
    let count = u32::from_le_bytes(array(reader)?);
    let order = u64::from_le_bytes(array(reader)?);
    let mut mark = None;
    for _ in 0..count {
        mark = read_item(reader, items, bytes_max)?.or(mark);
    }
    let [tag, checksum @ ..] = array::<9>(reader)?;
    if tag != END || u64::from_le_bytes(checksum) != xxh3_64(items) || array::<4>(reader)? != TRAILER {
        return Err(Broken::Content);
    }
    Ok(Batch { order, mark, bytes: 13 + items.len() as u64 + 13 })
}

fn read_item(reader: &mut impl Read, items: &mut Vec<u8>, bytes_max: u64) -> Result<Option<Mark>, Broken> {
    let [tag] = array::<1>(reader)?;
    items.push(tag);
    if tag == CLEAR {
        items.extend_from_slice(&array::<8>(reader)?);
        return Ok(None);
    }
    if tag != ITEM {
        return Err(Broken::Content);
    }
    let header = array::<ITEM_HEAD_BYTES>(reader)?;
    items.extend_from_slice(&header);
    let (key_bytes, value_bytes) = lengths(&header);
    let (begin, end) = (items.len(), items.len() + key_bytes + value_bytes);
    if end as u64 > bytes_max {
        return Err(Broken::Content);
    }
    items.resize(end, 0);
    reader.read_exact(&mut items[begin..])?;
    let (key, value) = items[begin..].split_at(key_bytes);
    Ok(if key == MARK { Mark::decode(value) } else { None })
}

/// Of an item's key and of its value as it lies in the journal.
fn lengths(head: &[u8]) -> (usize, usize) {
    let value = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    (usize::from(u16::from_le_bytes([head[10], head[11]])), value as usize)
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Of a batch, before its items: a tag, their count, its order.
const BATCH_HEAD_BYTES: usize = 13;
/// Of an item, behind its tag.
const ITEM_HEAD_BYTES: usize = 20;
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";
