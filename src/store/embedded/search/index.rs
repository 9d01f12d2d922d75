//! Owns the index on disk: which message has which term, by conversation. Never holds a text and never decides what a user may
//! find: every hit is read from the log again. Written by the indexer's thread, looked into by the readers.
//!
//! A term is one of a conversation and of a block of [`BLOCK_MESSAGES`] of its `seq`s. So a search costs what its own
//! conversations hold, not what the server holds, and it walks a log from its newest block on and stops when it has enough.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tantivy::columnar::ColumnValues;
use tantivy::directory::MmapDirectory;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::postings::SegmentPostings;
use tantivy::query::{BooleanQuery, Query, RangeQuery, TermQuery};
use tantivy::schema::{BytesOptions, FAST, Field, INDEXED, IndexRecordOption, NumericOptions, Schema};
use tantivy::{
    Directory, DocSet, IndexReader, IndexWriter, InvertedIndexReader, ReloadPolicy, TERMINATED, TantivyDocument, Term,
};

use crate::types::{Millis, Seq};

/// The index cannot be used: it is damaged, or its disk fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IndexFault(pub String);

impl From<tantivy::TantivyError> for IndexFault {
    fn from(error: tantivy::TantivyError) -> IndexFault {
        IndexFault(error.to_string())
    }
}

impl From<std::io::Error> for IndexFault {
    fn from(error: std::io::Error) -> IndexFault {
        IndexFault(error.to_string())
    }
}

/// How far an index has come. It is part of each of its commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub format: u32,
    /// Which store it was made from.
    pub store: u64,
    /// Everything up to this commit of the store is in it, but for what `rebuild` has still to come to.
    pub commit: u64,
    pub rebuild: Option<Rebuild>,
    /// Messages of days before this one were removed.
    pub pruned_days: u64,
}

/// Where reading all logs from the beginning has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// Conversations with smaller numbers are done.
    pub number: u64,
    /// Of this one, what lies before this `seq` is.
    pub seq: u64,
    /// Conversations with greater numbers began later.
    pub last: u64,
}

impl Cursor {
    /// Of an empty index that is to hold everything a store has, which is at `commit` and has `last` conversations.
    pub fn fresh(store: u64, commit: u64, last: u64) -> Cursor {
        let rebuild = (last > 0).then_some(Rebuild { number: 1, seq: 1, last });
        Cursor { format: FORMAT, store, commit, rebuild, pruned_days: 0 }
    }
}

/// An open index with its only writer.
pub struct Index {
    index: tantivy::Index,
    fields: Fields,
    writer: IndexWriter,
    reader: Lookup,
}

#[derive(Clone, Copy)]
struct Fields {
    terms: Field,
    seq: Field,
    day: Field,
}

/// The library panics at a file that is too short for its own end, four to seven bytes.
fn check_lengths(folder: &Path) -> Result<(), IndexFault> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // What has no such end is a lock or a list.
        let name = entry.file_name();
        let is_part = Path::new(&name).extension().is_some_and(|kind| kind != "json" && kind != "lock");
        if is_part && entry.metadata().is_ok_and(|file| file.is_file() && file.len() < FILE_END_BYTES) {
            return Err(IndexFault(format!("{} has lost its content", name.display())));
        }
    }
    Ok(())
}

impl Index {
    /// Opens what is in `folder`. None: there is none, or one of another format.
    ///
    /// # Errors
    /// When it is damaged or the disk fails; also for what is no index at all.
    pub fn open(folder: &Path, memory_bytes: usize) -> Result<Option<(Index, Cursor)>, IndexFault> {
        if !folder.join(META).is_file() {
            return Ok(None);
        }
        check_lengths(folder)?;
        let index = tantivy::Index::open_in_dir(folder)?;
        let cursor = index.load_metas()?.payload.and_then(|payload| serde_json::from_str::<Cursor>(&payload).ok());
        let (schema, fields) = schema();
        match cursor {
            Some(cursor) if cursor.format == FORMAT && index.schema() == schema => {
                Ok(Some((Index::start(index, fields, memory_bytes)?, cursor)))
            }
            _ => Ok(None),
        }
    }

    /// Makes an empty one in `folder`, whatever was there.
    pub fn create(folder: &Path, memory_bytes: usize, cursor: &Cursor) -> Result<Index, IndexFault> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::fs::create_dir(folder)?,
        }
        let (schema, fields) = schema();
        let directory = MmapDirectory::open(folder).map_err(tantivy::TantivyError::from)?;
        let mut index = Index::start(tantivy::Index::create(directory, schema, Default::default())?, fields, memory_bytes)?;
        index.commit(cursor)?;
        Ok(index)
    }

    fn start(index: tantivy::Index, fields: Fields, memory_bytes: usize) -> Result<Index, IndexFault> {
        let options = IndexWriterOptions::builder();
        let options = options.num_worker_threads(1).num_merge_threads(1).memory_budget_per_thread(memory_bytes).build();
        let writer: IndexWriter = index.writer_with_options(options)?;
        let mut merges = LogMergePolicy::default();
        merges.set_max_docs_before_merge(MERGED_MESSAGES_MAX);
        merges.set_del_docs_ratio_before_merge(DELETED_RATIO_MAX);
        writer.set_merge_policy(Box::new(merges));
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).doc_store_cache_num_blocks(0).try_into()?;
        let reader = Lookup { reader, fields };
        Ok(Index { index, fields, writer, reader })
    }

    pub fn lookup(&self) -> Lookup {
        self.reader.clone()
    }

    /// Takes a message that retention keeps at least as long as one of the time `at`. To take one twice does no harm.
    pub fn add(&self, number: u64, seq: Seq, at: Millis, terms: &[String]) -> Result<(), IndexFault> {
        let mut document = TantivyDocument::new();
        let mut key = block_key(number, seq.0 >> BLOCK_BITS);
        let begin = key.len();
        document.add_bytes(self.fields.terms, &key);
        for term in terms {
            key.truncate(begin);
            key.extend_from_slice(term.as_bytes());
            document.add_bytes(self.fields.terms, &key);
        }
        document.add_u64(self.fields.seq, seq.0);
        document.add_u64(self.fields.day, at.0 / DAY_MS);
        self.writer.add_document(document)?;
        Ok(())
    }

    /// Lets go of a message that was taken.
    pub fn remove(&self, number: u64, seq: Seq) -> Result<(), IndexFault> {
        let block = Term::from_field_bytes(self.fields.terms, &block_key(number, seq.0 >> BLOCK_BITS));
        let seq = Term::from_field_u64(self.fields.seq, seq.0);
        let range = RangeQuery::new(std::ops::Bound::Included(seq.clone()), std::ops::Bound::Included(seq));
        let parts: Vec<Box<dyn Query>> = vec![Box::new(TermQuery::new(block, IndexRecordOption::Basic)), Box::new(range)];
        self.writer.delete_query(Box::new(BooleanQuery::intersection(parts)))?;
        Ok(())
    }

    /// Lets go of all messages from before a day, counted from 1970 on.
    pub fn remove_days_before(&self, day: u64) -> Result<(), IndexFault> {
        let end = std::ops::Bound::Excluded(Term::from_field_u64(self.fields.day, day));
        self.writer.delete_query(Box::new(RangeQuery::new(std::ops::Bound::Unbounded, end)))?;
        Ok(())
    }

    /// Puts on disk what was taken and let go, and lets it be found.
    pub fn commit(&mut self, cursor: &Cursor) -> Result<(), IndexFault> {
        let payload = serde_json::to_string(cursor).map_err(|error| IndexFault(error.to_string()))?;
        let mut commit = self.writer.prepare_commit()?;
        commit.set_payload(&payload);
        commit.commit()?;
        self.reader.reader.reload()?;
        Ok(())
    }

    /// The files of its parts, as they are now.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = self.index.directory().list_managed_files();
        files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension != "json")).collect()
    }

    /// False when one of the [`files`](Index::files) is not as it was written. Reads all of it. One that has gone since is of no
    /// interest.
    pub fn is_whole(&self, file: &Path) -> bool {
        let directory = self.index.directory();
        directory.validate_checksum(file).unwrap_or_else(|_| !directory.exists(file).unwrap_or(true))
    }
}

/// Looking into the index; cheap to copy.
#[derive(Clone)]
pub struct Lookup {
    reader: IndexReader,
    fields: Fields,
}

impl Lookup {
    #[cfg(test)]
    pub fn documents(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// What the index holds now, for a search of these terms.
    pub fn look(&self, terms: &[String]) -> Result<Glance, IndexFault> {
        let searcher = self.reader.searcher();
        let part = |segment: &tantivy::SegmentReader| -> Result<Part, IndexFault> {
            let terms = segment.inverted_index(self.fields.terms)?;
            let seqs = segment.fast_fields().u64(SEQ)?.first_or_default_col(0);
            Ok(Part { terms, seqs })
        };
        let parts = searcher.segment_readers().iter().map(part).collect::<Result<_, _>>()?;
        Ok(Glance { parts, terms: terms.to_vec() })
    }
}

/// The index at one moment, for one search.
pub struct Glance {
    parts: Vec<Part>,
    terms: Vec<String>,
}

struct Part {
    terms: Arc<InvertedIndexReader>,
    seqs: Arc<dyn ColumnValues<u64>>,
}

impl Glance {
    /// The messages of a block that have all terms, or [`TERMS_MAX`] of them when there are more. None: there are none.
    pub fn block(&self, number: u64, block: u64) -> Result<Option<Hits>, IndexFault> {
        let mut key = block_key(number, block);
        let begin = key.len();
        let mut found = Vec::with_capacity(self.terms.len());
        for term in &self.terms {
            key.truncate(begin);
            key.extend_from_slice(term.as_bytes());
            let (mut places, mut messages) = (Vec::new(), 0_u64);
            for part in &self.parts {
                if let Some(info) = part.terms.terms().get(&key)? {
                    messages += u64::from(info.doc_freq);
                    places.push((part, info));
                }
            }
            if places.is_empty() {
                return Ok(None);
            }
            found.push((messages, places));
        }
        // What is rare leaves little to compare with; all else is compared with the message itself.
        found.sort_unstable_by_key(|(messages, _)| *messages);
        let mut hits: Option<Hits> = None;
        for (_, places) in found.into_iter().take(TERMS_MAX) {
            let mut these = Hits::new(block);
            for (part, info) in places {
                these.add(part.terms.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?, &*part.seqs);
            }
            let both = match hits.take() {
                Some(hits) => hits.and(&these),
                None => these,
            };
            if both.is_empty() {
                return Ok(None);
            }
            hits = Some(both);
        }
        Ok(hits)
    }
}

/// Messages of one block.
pub struct Hits {
    block: u64,
    bits: Box<[u64; BLOCK_MESSAGES / 64]>,
}

impl Hits {
    fn new(block: u64) -> Hits {
        Hits { block, bits: Box::new([0; BLOCK_MESSAGES / 64]) }
    }

    /// Which block they lie in.
    pub fn block(&self) -> u64 {
        self.block
    }

    fn add(&mut self, mut postings: SegmentPostings, seqs: &dyn ColumnValues<u64>) {
        let mut document = postings.doc();
        while document != TERMINATED {
            let seq = seqs.get_val(document);
            if seq >> BLOCK_BITS == self.block {
                let place = seq as usize % BLOCK_MESSAGES;
                self.bits[place / 64] |= 1 << (place % 64);
            }
            document = postings.advance();
        }
    }

    fn and(mut self, other: &Hits) -> Hits {
        self.bits.iter_mut().zip(other.bits.iter()).for_each(|(bits, other)| *bits &= other);
        self
    }

    fn is_empty(&self) -> bool {
        self.bits.iter().all(|bits| *bits == 0)
    }

    /// The newest one up to `high`.
    pub fn newest(&self, high: Seq) -> Option<Seq> {
        if high.0 >> BLOCK_BITS < self.block {
            return None;
        }
        let last = if high.0 >> BLOCK_BITS > self.block { BLOCK_MESSAGES - 1 } else { high.0 as usize % BLOCK_MESSAGES };
        let (word, bit) = (last / 64, last % 64);
        let mut bits = self.bits[word] & (u64::MAX >> (63 - bit));
        for at in (0..=word).rev() {
            if bits != 0 {
                let place = at * 64 + 63 - bits.leading_zeros() as usize;
                return Some(Seq((self.block << BLOCK_BITS) + place as u64));
            }
            bits = if at > 0 { self.bits[at - 1] } else { 0 };
        }
        None
    }
}

/// Begins every term of a block; alone it is the term that all messages of the block have.
fn block_key(number: u64, block: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    for mut value in [number, block] {
        while value >= 0x80 {
            key.push(value as u8 | 0x80);
            value >>= 7;
        }
        key.push(value as u8);
    }
    key
}

fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let fields = Fields {
        terms: builder.add_bytes_field(TERMS, BytesOptions::default().set_indexed()),
        seq: builder.add_u64_field(SEQ, FAST),
        day: builder.add_u64_field(DAY, NumericOptions::from(INDEXED)),
    };
    (builder.build(), fields)
}

/// The block of a `seq`, and the first of a block.
pub fn block_of(seq: Seq) -> u64 {
    seq.0 >> BLOCK_BITS
}

pub fn block_begin(block: u64) -> Seq {
    Seq(block << BLOCK_BITS)
}

/// Another number makes a new index of every older one.
const FORMAT: u32 = 1;
pub const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const BLOCK_BITS: u32 = 16;
const BLOCK_MESSAGES: usize = 1 << BLOCK_BITS;
/// Terms at most by which a search asks the index.
const TERMS_MAX: usize = 8;
/// Parts with more messages are not merged any more.
const MERGED_MESSAGES_MAX: usize = 5_000_000;
/// A part with more than this share of removed messages is written anew.
const DELETED_RATIO_MAX: f32 = 0.2;
/// Of every file of the index: the length of what stands before it, and a magic number.
const FILE_END_BYTES: u64 = 8;
const META: &str = "meta.json";
const TERMS: &str = "terms";
const SEQ: &str = "seq";
const DAY: &str = "day";
