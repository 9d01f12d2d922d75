//! Owns the commit log: a commit is acknowledged when its frame is on disk here, whatever the tables are doing. They follow, and
//! what they have on disk is not needed here any more. Segments are used again and again: writing over what is there needs
//! nothing else of the file system. The writer's thread writes; whoever opens the store reads once, before.

mod frame;
mod scan;
mod spare;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::Slice;

use super::tables::Space;
use frame::{FRAME_HEAD_BYTES, FRAMES_AT, FrameHead, FrameWriter, Kind, SegmentHead};

use spare::Spare;

pub use frame::Record;
#[cfg(test)]
pub use scan::extent;
pub use scan::{CommitLogFault, Found, find, salvage};

/// The open log.
#[derive(Debug)]
pub struct CommitLog {
    folder: PathBuf,
    /// What is written to now.
    active: Segment,
    /// Before it, oldest first.
    older: VecDeque<Segment>,
    /// Files that are free, by number, and the number of the next new one.
    free: Vec<u64>,
    /// One more of those, on its way.
    spare: Option<Spare>,
    next_file: u64,
    frame: FrameWriter,
    /// Of the last frame.
    frame_bytes: u64,
    /// The last commit that was written, the last that is on disk.
    written: u64,
    synced: u64,
    /// What the last frame that is on disk says of the tables, and the last frame.
    durable_checkpoint: u64,
    written_checkpoint: u64,
    /// Makes the next write fail as if the disk had.
    #[cfg(test)]
    pub fails: bool,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    head: SegmentHead,
    file: Arc<File>,
    /// Where the next frame goes, and where the file ends.
    at: u64,
    length: u64,
    /// For a file to go on in.
    asked: bool,
    /// Its last commit.
    last: u64,
}

impl CommitLog {
    /// Begins a new segment behind all that were found; everything up to `base` is in the tables and on disk there.
    pub fn begin(folder: &Path, found: &Found, base: u64) -> io::Result<CommitLog> {
        make(folder)?;
        clear_unfinished(folder)?;
        let next_file = found.files().iter().max().map_or(0, |last| last + 1);
        let mut free = found.files().to_vec();
        // What a reader of the log would start with goes last: until the new segment is on disk it is needed.
        let file = found.free().first().copied();
        free.retain(|number| Some(*number) != file);
        let head = SegmentHead { sequence: found.sequence() + 1, base, checkpoint: base, salt: salt()? };
        let number = file.unwrap_or(next_file);
        let active = Segment::begin(folder, number, head)?;
        active.file.sync_all()?;
        File::open(folder)?.sync_all()?;
        let mut log = CommitLog {
            folder: folder.to_owned(),
            active,
            older: VecDeque::new(),
            next_file: next_file + u64::from(file.is_none()),
            free,
            spare: None,
            frame: FrameWriter::default(),
            frame_bytes: 0,
            written: base,
            synced: base,
            durable_checkpoint: base,
            written_checkpoint: base,
            #[cfg(test)]
            fails: false,
        };
        log.tend();
        Ok(log)
    }

    /// The last commit that is on disk.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// The file that is written to now; all before it are on disk.
    pub fn file(&self) -> Arc<File> {
        self.active.file.clone()
    }

    /// Writes the next commit; with `sync` it is on disk when this returns. After an error nothing that was not on disk counts,
    /// and the log is to be begun anew.
    pub fn write<'a>(
        &mut self,
        records: impl Iterator<Item = (Space, &'a Slice, Option<&'a Slice>)>,
        changes: Option<&[u8]>,
        checkpoint: u64,
        sync: bool,
    ) -> io::Result<u64> {
        self.frame.begin();
        records.for_each(|(space, key, value)| self.frame.record(space, key, value.map(AsRef::as_ref)));
        if let Some(changes) = changes {
            self.frame.changes(changes);
        }
        self.put(Kind::Commit, checkpoint)?;
        let begun = self.active.at - self.frame_bytes;
        self.written += 1;
        self.active.last = self.written;
        if sync && let Err(error) = self.sync() {
            // Whoever comes after a kill is not to find what was refused. If not even that can be written, it may come back.
            let _ = self.active.file.write_all_at(&[0; FRAME_HEAD_BYTES], begun);
            return Err(error);
        }
        Ok(self.written)
    }

    /// Says how far the tables are, where no commit does.
    pub fn note(&mut self, checkpoint: u64) -> io::Result<()> {
        if checkpoint <= self.written_checkpoint {
            return Ok(());
        }
        self.frame.begin();
        self.put(Kind::Note, checkpoint)
    }

    /// Says that the tables have everything on disk up to a commit that was never written here.
    pub fn skip_to(&mut self, number: u64) -> io::Result<()> {
        self.written = self.written.max(number);
        self.note(number)?;
        self.sync()
    }

    /// Makes sure that all of it is on disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.active.file.sync_data()?;
        #[cfg(test)]
        if std::mem::take(&mut self.fails) {
            return Err(io::Error::other("injected"));
        }
        self.synced = self.written;
        self.durable_checkpoint = self.written_checkpoint;
        self.release();
        Ok(())
    }

    fn put(&mut self, kind: Kind, checkpoint: u64) -> io::Result<()> {
        if self.active.at >= SEGMENT_BYTES {
            self.rotate()?;
        }
        let number = self.written + u64::from(kind == Kind::Commit);
        let head = FrameHead { kind, number, synced: self.synced, checkpoint, bytes: 0 };
        let bytes = self.frame.end(&head, self.active.head.salt);
        self.active.file.write_all_at(bytes, self.active.at)?;
        self.frame_bytes = bytes.len() as u64;
        self.active.at += self.frame_bytes;
        if self.active.at > self.active.length {
            self.active.length = spare::lengthen(&self.active.file, self.active.at);
        }
        self.written_checkpoint = checkpoint;
        self.look_ahead();
        Ok(())
    }

    /// Sees to it that there is a file to go on in.
    fn look_ahead(&mut self) {
        if self.spare.as_ref().is_some_and(Spare::is_over) {
            self.free.extend(self.spare.take().and_then(Spare::end));
        }
        if self.active.at >= SPARE_FROM_BYTES && !self.active.asked && self.free.is_empty() && self.spare.is_none() {
            // Once: where it cannot be made, another attempt would do no good.
            self.active.asked = true;
            self.spare = Spare::begin(&self.folder, self.next_file);
            self.next_file += 1;
        }
    }

    /// Goes on in another segment.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let number = self.free.pop().unwrap_or_else(|| {
            self.next_file += 1;
            self.next_file - 1
        });
        let before = &self.active.head;
        let head =
            SegmentHead { sequence: before.sequence + 1, base: self.written, checkpoint: self.written_checkpoint, salt: salt()? };
        let fresh = Segment::begin(&self.folder, number, head)?;
        self.older.push_back(std::mem::replace(&mut self.active, fresh));
        Ok(())
    }

    /// Segments whose commits are all in the tables may be written over.
    fn release(&mut self) {
        while self.older.front().is_some_and(|segment| segment.last <= self.durable_checkpoint) {
            self.free.extend(self.older.pop_front().map(|segment| segment.number));
        }
    }

    /// Ends what is done beside it: another log may be begun in the folder, and this one is not to be written to any more.
    pub fn settle(&mut self) {
        self.spare = None;
    }

    /// To be called now and then: a burst may have left more files than are of use.
    pub fn tend(&mut self) {
        while self.free.len() > FREE_FILES_MAX {
            if let Some(number) = self.free.pop() {
                // It is tried again when the store is opened.
                let _ = std::fs::remove_file(path(&self.folder, number));
            }
        }
    }
}

impl Segment {
    fn begin(folder: &Path, number: u64, head: SegmentHead) -> io::Result<Segment> {
        let path = path(folder, number);
        let open = |path: &Path| OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = if path.exists() {
            let file = open(&path)?;
            if file.metadata()?.len() > SEGMENT_BYTES_KEPT_MAX {
                file.set_len(SEGMENT_BYTES)?;
            }
            file.write_all_at(&head.encode(), 0)?;
            file
        } else {
            let file = open(&unfinished(folder, number))?;
            finish(folder, number, &file, &head)?;
            file
        };
        let length = file.metadata()?.len();
        Ok(Segment { number, head, file: Arc::new(file), at: FRAMES_AT as u64, length, asked: false, last: head.base })
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number}.{EXTENSION}"))
}

/// What a segment is called until it has a head.
fn unfinished(folder: &Path, number: u64) -> PathBuf {
    path(folder, number).with_extension(UNFINISHED)
}

/// Gives an unfinished file its head and its name: the name only when the head is on disk, and nothing in it is said to be there
/// before the name is.
fn finish(folder: &Path, number: u64, file: &File, head: &SegmentHead) -> io::Result<()> {
    file.write_all_at(&head.encode(), 0)?;
    file.sync_all()?;
    std::fs::rename(unfinished(folder, number), path(folder, number))?;
    File::open(folder)?.sync_all()
}

fn make(folder: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()),
    }
}

/// Removes files that were no segments yet when their maker was killed.
fn clear_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) && path.is_file() {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn salt() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(bytes))
}

const EXTENSION: &str = "log";
/// Of what has no valid head yet.
const UNFINISHED: &str = "new";
/// A segment that has come so far is the last one to be written to.
const SEGMENT_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 8 << 20 };
/// One large commit may have made it longer.
const SEGMENT_BYTES_KEPT_MAX: u64 = 2 * SEGMENT_BYTES;
/// From there on the next segment's file is made when there is none: whoever writes little never needs it.
const SPARE_FROM_BYTES: u64 = SEGMENT_BYTES / 8;
const FREE_FILES_MAX: usize = 4;
