//! Owns how the commit log looks on disk: what stands at the beginning of a segment, frames, and the records in them. Pure.
//!
//! All numbers are little-endian. A segment begins with two copies of its head, in sectors of their own; frames follow, each at
//! a multiple of [`FRAME_ALIGN`]. A segment is written over when nothing in it is needed any more, so its salt, which is part of
//! every checksum, tells its own frames from those that lay there before.

use fjall::Slice;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::super::tables::Space;

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// 1 for the first segment that was ever begun; the next one has the next number. [`SPARE`]: it was never begun.
    pub sequence: u64,
    /// The last commit before this segment. What earlier segments hold beyond it does not count: it had failed.
    pub base: u64,
    /// Everything up to this commit is in the tables, and on disk there.
    pub checkpoint: u64,
    pub salt: u64,
}

impl SegmentHead {
    /// The bytes before the first frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FRAMES_AT];
        for at in HEADS_AT {
            let head = &mut bytes[at..at + SEGMENT_HEAD_BYTES];
            head[..8].copy_from_slice(&MAGIC);
            for (place, number) in [self.sequence, self.base, self.checkpoint, self.salt].into_iter().enumerate() {
                head[8 + 8 * place..16 + 8 * place].copy_from_slice(&number.to_le_bytes());
            }
            let checksum = xxh3_64(&head[..40]);
            head[40..].copy_from_slice(&checksum.to_le_bytes());
        }
        bytes
    }

    /// The newest copy that can be read. None: there is none.
    pub fn decode(bytes: &[u8]) -> Option<SegmentHead> {
        let copies = HEADS_AT.into_iter().filter_map(|at| {
            let head = bytes.get(at..at + SEGMENT_HEAD_BYTES)?;
            let whole = head[..8] == MAGIC && number(head, 40) == xxh3_64(&head[..40]);
            whole.then(|| SegmentHead {
                sequence: number(head, 8),
                base: number(head, 16),
                checkpoint: number(head, 24),
                salt: number(head, 32),
            })
        });
        copies.max_by_key(|head| head.sequence)
    }
}

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A commit and its records.
    Commit,
    /// Only what a frame's head says.
    Note,
}

/// What stands before a frame's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub kind: Kind,
    /// Of the commit, 1 for the first; of a note, the last one before it.
    pub number: u64,
    /// The last commit known to be on disk, in this log, when the frame was written.
    pub synced: u64,
    /// The same of the tables: nothing up to this commit has to be read from the log any more.
    pub checkpoint: u64,
    /// Of the records.
    pub bytes: usize,
}

/// A frame in the making, in one piece of memory that is used again and again.
#[derive(Debug, Default)]
pub struct FrameWriter {
    bytes: Vec<u8>,
}

impl FrameWriter {
    pub fn begin(&mut self) {
        self.bytes.clear();
        self.bytes.resize(FRAME_HEAD_BYTES, 0);
    }

    /// A record that is put, or with None deleted.
    pub fn record(&mut self, space: Space, key: &[u8], value: Option<&[u8]>) {
        let key_bytes = u16::try_from(key.len()).expect("keys are of a few ids, each of which is short");
        self.bytes.push(if value.is_some() { PUT } else { DELETE });
        self.bytes.push(space as u8);
        self.bytes.extend_from_slice(&key_bytes.to_le_bytes());
        self.bytes.extend_from_slice(&length(value.map_or(0, <[u8]>::len)));
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// What the commit does to logs, for the search index.
    pub fn changes(&mut self, list: &[u8]) {
        self.bytes.extend_from_slice(&[CHANGES, 0, 0, 0]);
        self.bytes.extend_from_slice(&length(list.len()));
        self.bytes.extend_from_slice(list);
    }

    /// The whole frame. `head.bytes` is set here.
    pub fn end(&mut self, head: &FrameHead, salt: u64) -> &[u8] {
        let records = length(self.bytes.len() - FRAME_HEAD_BYTES);
        let kind: u32 = match head.kind {
            Kind::Commit => KIND_COMMIT,
            Kind::Note => KIND_NOTE,
        };
        self.bytes[..4].copy_from_slice(&records);
        self.bytes[4..8].copy_from_slice(&kind.to_le_bytes());
        for (place, number) in [head.number, head.synced, head.checkpoint].into_iter().enumerate() {
            self.bytes[8 + 8 * place..16 + 8 * place].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = checksum(&self.bytes[..CHECKED_HEAD_BYTES], &self.bytes[FRAME_HEAD_BYTES..], salt);
        self.bytes[CHECKED_HEAD_BYTES..FRAME_HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        self.bytes.resize(aligned(self.bytes.len()), 0);
        &self.bytes
    }
}

/// The frame at the beginning of `bytes` and its records. None: there is no whole one.
pub fn read_frame(bytes: &[u8], salt: u64) -> Option<(FrameHead, &[u8])> {
    let head = bytes.get(..FRAME_HEAD_BYTES)?;
    let kind = match u32::from_le_bytes([head[4], head[5], head[6], head[7]]) {
        KIND_COMMIT => Kind::Commit,
        KIND_NOTE => Kind::Note,
        _ => return None,
    };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let records = bytes.get(FRAME_HEAD_BYTES..FRAME_HEAD_BYTES.checked_add(length)?)?;
    if number(head, CHECKED_HEAD_BYTES) != checksum(&head[..CHECKED_HEAD_BYTES], records, salt) {
        return None;
    }
    let head = FrameHead { kind, number: number(head, 8), synced: number(head, 16), checkpoint: number(head, 24), bytes: length };
    Some((head, records))
}

/// What a frame of so many bytes of records takes.
pub fn frame_bytes(records: usize) -> usize {
    aligned(FRAME_HEAD_BYTES + records)
}

/// One of a frame's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Put(Space, Slice, Slice),
    Delete(Space, Slice),
    Changes(Slice),
}

/// The records of a frame until one cannot be told apart; whether that was the end.
pub fn records(mut bytes: &[u8]) -> (Vec<Record>, bool) {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        match record(bytes) {
            Some((record, rest)) => {
                found.push(record);
                bytes = rest;
            }
            None => return (found, false),
        }
    }
    (found, true)
}

/// What a record takes in a frame.
pub fn record_bytes(record: &Record) -> usize {
    RECORD_HEAD_BYTES
        + match record {
            Record::Put(_, key, value) => key.len() + value.len(),
            Record::Delete(_, key) => key.len(),
            Record::Changes(list) => list.len(),
        }
}

fn record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (head, rest) = bytes.split_at_checked(RECORD_HEAD_BYTES)?;
    let key_bytes = usize::from(u16::from_le_bytes([head[2], head[3]]));
    let value_bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let (key, rest) = rest.split_at_checked(key_bytes)?;
    let (value, rest) = rest.split_at_checked(value_bytes)?;
    let space = || Space::ALL.get(usize::from(head[1])).copied();
    let record = match head[0] {
        PUT => Record::Put(space()?, Slice::from(key), Slice::from(value)),
        DELETE if value.is_empty() => Record::Delete(space()?, Slice::from(key)),
        CHANGES if key.is_empty() => Record::Changes(Slice::from(value)),
        _ => return None,
    };
    Some((record, rest))
}

fn checksum(head: &[u8], records: &[u8], salt: u64) -> u64 {
    xxh3_64_with_seed(records, xxh3_64_with_seed(head, salt))
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a commit is far below 4 GiB: requests and their number are bounded").to_le_bytes()
}

fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(FRAME_ALIGN)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// [`SegmentHead::sequence`] of a file that waits to be a segment.
pub const SPARE: u64 = 0;
/// Where a segment's first frame begins.
pub const FRAMES_AT: usize = 4_096;
pub const FRAME_ALIGN: usize = 8;
pub const FRAME_HEAD_BYTES: usize = 40;
/// Of a frame's head, all but its checksum.
const CHECKED_HEAD_BYTES: usize = 32;
/// Magic, four numbers, checksum.
const SEGMENT_HEAD_BYTES: usize = 48;
const HEADS_AT: [usize; 2] = [0, 2_048];
const MAGIC: [u8; 8] = *b"CHLOG\0\0\x01";
const RECORD_HEAD_BYTES: usize = 8;
const KIND_COMMIT: u32 = 0x434f_4d31;
const KIND_NOTE: u32 = 0x4e4f_5431;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const CHANGES: u8 = 3;
