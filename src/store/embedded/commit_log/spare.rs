//! Owns making a segment's file before it is needed, on a thread of its own: a write that makes a file longer is on disk only
//! with the file system's own bookkeeping, which may be busy for many milliseconds with what others remove; a write over what is
//! there already needs nothing of it. Never touches a file that the log uses.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::room::Disk;
use super::frame::{SPARE, SegmentHead};
use super::{SEGMENT_BYTES, finish, salt, unfinished};
use crate::scheduling::be_nice;

/// A file that is being made. Dropping it breaks that off and waits until nothing is written any more.
#[derive(Debug)]
pub struct Spare {
    number: u64,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Spare {
    /// Begins to make the file of this number. None: the system refuses a thread.
    pub fn begin(folder: &Path, number: u64) -> Option<Spare> {
        let (folder, stop) = (folder.to_owned(), Arc::new(AtomicBool::new(false)));
        let told = stop.clone();
        let builder = std::thread::Builder::new().name("store-log-spare".to_owned());
        let thread = builder.spawn(move || make(&folder, number, &told)).ok()?;
        Some(Spare { number, stop, thread: Some(thread) })
    }

    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The number of the file when it was made, and waits for that. None: it was not; its name is free again.
    pub fn end(mut self) -> Option<u64> {
        let made = self.thread.take()?.join();
        matches!(made, Ok(Ok(()))).then_some(self.number)
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.store(true, Ordering::Relaxed);
            // Whether it was made is of no interest any more.
            let _ = thread.join();
        }
    }
}

/// A whole segment of nothing, which comes before all others.
fn make(folder: &Path, number: u64, stop: &AtomicBool) -> io::Result<()> {
    be_nice(NICENESS);
    // What is left below that is for bringing acknowledged messages to the tables.
    if Disk::of(folder).is_some_and(|disk| disk.spare_bytes() < SEGMENT_BYTES) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let fresh = unfinished(folder, number);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    let head = SegmentHead { sequence: SPARE, base: 0, checkpoint: 0, salt: salt()? };
    let made = fill(&file, stop).and_then(|()| finish(folder, number, &file, &head));
    if made.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    made
}

fn fill(file: &File, stop: &AtomicBool) -> io::Result<()> {
    for at in (0..SEGMENT_BYTES).step_by(ZEROS.len()) {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        file.write_all_at(&ZEROS, at)?;
        // What the disk gets at once is what the next commit waits for.
        file.sync_data()?;
        std::thread::sleep(BETWEEN_PIECES);
    }
    Ok(())
}

/// Makes a file longer by nothing, up to the next multiple of a piece; returns its length. Where that fails it stays as it is.
pub fn lengthen(file: &File, length: u64) -> u64 {
    let more = length.next_multiple_of(PIECE_BYTES) - length;
    match file.write_all_at(&ZEROS[..more as usize], length) {
        Ok(()) => length + more,
        Err(_) => length,
    }
}

static ZEROS: [u8; PIECE_BYTES as usize] = [0; PIECE_BYTES as usize];
const PIECE_BYTES: u64 = if cfg!(test) { 8 << 10 } else { 512 << 10 };
const BETWEEN_PIECES: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 2 });
const NICENESS: i32 = 10;
