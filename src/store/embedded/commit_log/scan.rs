//! Owns reading the log before the store is opened: which commits it holds that the tables may lack, and whether any is missing
//! that somebody was told of. Never writes, but for a salvage that copies damaged files aside. Nobody writes meanwhile.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::frame::{self, FRAME_ALIGN, FRAME_HEAD_BYTES, FRAMES_AT, FrameHead, Kind, Record, SPARE, SegmentHead};
use super::{EXTENSION, path};

/// Why the log is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum CommitLogFault {
    #[error("commit log {} is damaged at byte {at}, among messages that had been acknowledged", path.display())]
    Damaged { path: PathBuf, at: usize },
    #[error("commit log {} ends with commit {last} of {acknowledged} acknowledged ones: its end is missing", path.display())]
    EndsEarly { path: PathBuf, last: u64, acknowledged: u64 },
    #[error("cannot read commit log {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// What lies in the log.
#[derive(Debug)]
pub struct Found {
    segments: Vec<Segment>,
    /// Files that no segment was begun in.
    spares: Vec<u64>,
    /// All files, by number.
    files: Vec<u64>,
    /// Those without anything that is needed.
    free: Vec<u64>,
    /// Up to this commit everything is in the tables and on disk there.
    pub checkpoint: u64,
    /// The last commit that is to be in the tables.
    pub end: u64,
    /// The last commit that is missing or damaged; 0 when all is whole.
    pub gap_end: u64,
    steps: Vec<Step>,
    /// Files of which nothing is known.
    unreadable: Vec<PathBuf>,
}

/// A commit, or what is left of one.
#[derive(Clone, Debug)]
struct Step {
    number: u64,
    /// Of `segments`.
    segment: usize,
    records: Range<usize>,
    /// Its frame is damaged: any byte of what can be told apart may be wrong.
    loose: bool,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    head: SegmentHead,
    /// Later commits in it do not count.
    limit: u64,
    /// From the beginning without a break, then those behind it.
    frames: Vec<At>,
    frames_behind: Vec<At>,
    /// Where the first thing stands that is no frame of this segment.
    broken_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct At {
    at: usize,
    head: FrameHead,
}

impl At {
    fn records(&self) -> Range<usize> {
        self.at + FRAME_HEAD_BYTES..self.at + FRAME_HEAD_BYTES + self.head.bytes
    }
}

impl Found {
    pub fn files(&self) -> &[u64] {
        &self.files
    }

    pub fn free(&self) -> &[u64] {
        &self.free
    }

    /// Of the newest segment.
    pub fn sequence(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.head.sequence)
    }

    /// Gives files whose head cannot be read another name: nobody would open a log again that has such. To be called when what
    /// can be read of the store is safe elsewhere.
    pub fn put_aside(&self, folder: &Path) -> io::Result<()> {
        for path in &self.unreadable {
            std::fs::rename(path, path.with_extension("log.damaged"))?;
        }
        if self.unreadable.is_empty() { Ok(()) } else { std::fs::File::open(folder)?.sync_all() }
    }

    /// True when there is a log; a folder of an older format has none.
    pub fn exists(&self) -> bool {
        !self.segments.is_empty()
    }

    /// True when the tables may lack something.
    pub fn has_commits(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The last commit of which something is here; 0 without any.
    pub fn last(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.number)
    }

    /// Commits whose frames are damaged: what is left of them is to be believed only as far as it proves itself.
    pub fn loose(&self) -> BTreeSet<u64> {
        self.steps.iter().filter(|step| step.loose).map(|step| step.number).collect()
    }

    /// Hands over what the tables may lack, commit by commit in their order, each with its number.
    pub fn replay<E: From<CommitLogFault>>(&self, mut take: impl FnMut(u64, Vec<Record>) -> Result<(), E>) -> Result<(), E> {
        let mut open: Option<(usize, Vec<u8>)> = None;
        for step in &self.steps {
            if open.as_ref().is_none_or(|(segment, _)| *segment != step.segment) {
                open = Some((step.segment, read(&self.segments[step.segment].path)?));
            }
            let bytes = open.as_ref().and_then(|(_, bytes)| bytes.get(step.records.clone())).unwrap_or_default();
            take(step.number, frame::records(bytes).0)?;
        }
        Ok(())
    }
}

/// Of a segment: which one it is, and where its frames end.
#[cfg(test)]
pub fn extent(path: &Path) -> (u64, usize) {
    let bytes = std::fs::read(path).unwrap();
    let head = SegmentHead::decode(&bytes).unwrap();
    (head.sequence, Segment::look(0, path.to_owned(), head, &bytes).broken_at)
}

/// Looks through the log. `acknowledged` is a commit that is known to have been: one that the log must not lack. What it holds
/// beyond `kept_max`, which is None where nothing failed, does not count.
///
/// # Errors
/// When a commit is missing of which somebody was told, or the log cannot be read.
pub fn find(folder: &Path, acknowledged: u64, kept_max: Option<u64>) -> Result<Found, CommitLogFault> {
    let mut found = look(folder, acknowledged, kept_max)?;
    // A segment has its name only when its head is on disk, and of two copies no power cut takes both.
    if let Some(path) = found.unreadable.first() {
        return Err(CommitLogFault::Damaged { path: path.clone(), at: 0 });
    }
    let mut reached = found.checkpoint;
    for (place, segment) in found.segments.iter().enumerate() {
        let counts = segment.frames.iter().filter(|it| it.head.kind == Kind::Commit && it.head.number <= segment.limit);
        for it in counts.filter(|it| it.head.number > found.checkpoint) {
            if it.head.number != reached + 1 {
                break;
            }
            reached = it.head.number;
            found.steps.push(Step { number: reached, segment: place, records: it.records(), loose: false });
        }
    }
    let needed = found.needed(acknowledged);
    if reached < needed {
        return Err(found.blame(folder, reached, needed));
    }
    found.end = reached;
    found.free = found.unneeded();
    Ok(found)
}

/// What can be read of a log that [`find`] refuses, commit by commit, and what is to be told about it. The files as they
/// were stay beside it as `.log.damaged`.
///
/// # Errors
/// When the log cannot be read.
pub fn salvage(folder: &Path, acknowledged: u64) -> Result<(Found, Vec<String>), CommitLogFault> {
    let mut found = look(folder, acknowledged, None)?;
    let mut told = Vec::new();
    for path in &found.unreadable {
        told.push(format!("commit log {}: it cannot be told which commits it held", path.display()));
    }
    let mut reached = found.checkpoint;
    for (place, segment) in found.segments.iter().enumerate() {
        let name = segment.path.display();
        let mut last_end = FRAMES_AT;
        let mut all: Vec<At> = segment.frames.iter().chain(&segment.frames_behind).copied().collect();
        all.sort_unstable_by_key(|it| it.at);
        for it in all.iter().filter(|it| it.head.kind == Kind::Commit && it.head.number <= segment.limit) {
            if it.head.number > reached + 1 && it.head.number > found.checkpoint {
                let (from, to) = (reached + 1, it.head.number - 1);
                found.gap_end = to;
                let loose = loose(segment, last_end..it.at)?;
                let count = loose.as_ref().map_or(0, |(count, _)| *count);
                found.steps.extend(loose.map(|(_, records)| Step { number: from, segment: place, records, loose: true }));
                told.push(format!(
                    "commit log {name}: commits {from} to {to} are damaged; {count} records of them can be told apart, others \
                     are lost"
                ));
            }
            if it.head.number > reached {
                reached = it.head.number;
                found.steps.push(Step { number: reached, segment: place, records: it.records(), loose: false });
            }
            last_end = it.at + frame::frame_bytes(it.head.bytes);
        }
        let after = found.segments.get(place + 1).map_or(acknowledged, |next| next.head.base.max(acknowledged));
        if reached < after.min(segment.limit)
            && let Some((count, records)) = loose(segment, last_end..usize::MAX)?
        {
            told.push(format!(
                "commit log {name}: damaged at byte {last_end}, in commit {}; {count} records of it can be told apart, others \
                 are lost",
                reached + 1
            ));
            reached += 1;
            found.gap_end = reached;
            found.steps.push(Step { number: reached, segment: place, records, loose: true });
        }
    }
    found.end = found.needed(acknowledged).max(reached);
    if found.end > reached || !found.unreadable.is_empty() {
        found.gap_end = found.end;
    }
    for segment in &found.segments {
        let aside = segment.path.with_extension("log.damaged");
        std::fs::copy(&segment.path, aside).map_err(|source| CommitLogFault::Io { path: segment.path.clone(), source })?;
    }
    found.free = found.unneeded();
    Ok((found, told))
}

/// The records behind a place that is no frame, as far as they look like some.
fn loose(segment: &Segment, range: Range<usize>) -> Result<Option<(usize, Range<usize>)>, CommitLogFault> {
    let bytes = read(&segment.path)?;
    let from = range.start + FRAME_HEAD_BYTES;
    let Some(body) = bytes.get(from..range.end.min(bytes.len())) else { return Ok(None) };
    let (records, _) = frame::records(body);
    if records.is_empty() {
        return Ok(None);
    }
    let length = records.iter().map(frame::record_bytes).sum::<usize>();
    Ok(Some((records.len(), from..from + length)))
}

/// All segments in their order.
fn look(folder: &Path, acknowledged: u64, kept_max: Option<u64>) -> Result<Found, CommitLogFault> {
    let files = files(folder).map_err(|source| CommitLogFault::Io { path: folder.to_owned(), source })?;
    let (mut segments, mut spares, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for number in &files {
        let path = path(folder, *number);
        let bytes = read(&path)?;
        match SegmentHead::decode(&bytes) {
            Some(head) if head.sequence == SPARE => spares.push(*number),
            Some(head) => segments.push(Segment::look(*number, path, head, &bytes)),
            None => unreadable.push(path),
        }
    }
    segments.sort_unstable_by_key(|segment| segment.head.sequence);
    let mut limit = kept_max.unwrap_or(u64::MAX);
    for segment in segments.iter_mut().rev() {
        segment.limit = limit;
        limit = limit.min(segment.head.base);
    }
    let checkpoint = segments.iter().flat_map(Segment::checkpoints).max().unwrap_or(acknowledged);
    let (free, steps) = (Vec::new(), Vec::new());
    Ok(Found { segments, spares, files, free, checkpoint, end: checkpoint, gap_end: 0, steps, unreadable })
}

impl Found {
    /// The last commit that somebody may have been told of, or that later ones were built on.
    fn needed(&self, acknowledged: u64) -> u64 {
        let heads = self.segments.iter().map(|segment| segment.head.base);
        let frames = self.segments.iter().flat_map(Segment::all).map(|it| it.head.synced);
        heads.chain(frames).max().unwrap_or(0).max(acknowledged)
    }

    /// Files whose commits are all in the tables.
    fn unneeded(&self) -> Vec<u64> {
        let needed = |place: usize| self.steps.iter().any(|step| step.segment == place);
        // The newest one says up to where.
        let older = self.segments.split_last().map_or(&[][..], |(_, older)| older);
        let unneeded = older.iter().enumerate().filter(|(place, _)| !needed(*place)).map(|(_, segment)| segment.number);
        self.spares.iter().copied().chain(unneeded).collect()
    }

    fn blame(&self, folder: &Path, last: u64, acknowledged: u64) -> CommitLogFault {
        let lacks = |segment: &&Segment| {
            let own = segment
                .frames
                .iter()
                .rev()
                .find(|it| it.head.kind == Kind::Commit)
                .map_or(segment.head.base, |it| it.head.number);
            own < segment.limit.min(acknowledged) && segment.has_more()
        };
        if let Some(segment) = self.segments.iter().find(lacks) {
            return CommitLogFault::Damaged { path: segment.path.clone(), at: segment.broken_at };
        }
        let newest = self.segments.last().map_or_else(|| folder.to_owned(), |segment| segment.path.clone());
        CommitLogFault::EndsEarly { path: newest, last, acknowledged }
    }
}

impl Segment {
    fn look(number: u64, path: PathBuf, head: SegmentHead, bytes: &[u8]) -> Segment {
        let (mut frames, mut frames_behind) = (Vec::new(), Vec::new());
        let mut at = FRAMES_AT;
        while let Some((frame, _)) = bytes.get(at..).and_then(|rest| frame::read_frame(rest, head.salt)) {
            frames.push(At { at, head: frame });
            at += frame::frame_bytes(frame.bytes);
        }
        let broken_at = at;
        while at < bytes.len() {
            match frame::read_frame(&bytes[at..], head.salt) {
                Some((frame, _)) => {
                    frames_behind.push(At { at, head: frame });
                    at += frame::frame_bytes(frame.bytes);
                }
                None => at += FRAME_ALIGN,
            }
        }
        Segment { number, path, head, limit: u64::MAX, frames, frames_behind, broken_at }
    }

    /// A break is not just the end of what was written, as far as that can be seen.
    fn has_more(&self) -> bool {
        !self.frames_behind.is_empty() || std::fs::metadata(&self.path).is_ok_and(|file| file.len() > self.broken_at as u64)
    }

    fn all(&self) -> impl Iterator<Item = &At> {
        self.frames.iter().chain(&self.frames_behind)
    }

    fn checkpoints(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.head.checkpoint).chain(self.all().map(|it| it.head.checkpoint))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CommitLogFault> {
    std::fs::read(path).map_err(|source| CommitLogFault::Io { path: path.to_owned(), source })
}

/// The numbers of the files in the folder, which need not be there.
fn files(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            found.extend(path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
