//! Owns noticing that a disk is nearly full, while there is still room for what has been acknowledged to reach the tables: then
//! nothing more is accepted, and everything else goes on. Lives on the writer's thread.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The room on the disk of a data folder, as it was a moment ago.
#[derive(Debug)]
pub struct Room {
    folder: PathBuf,
    looked_at: Option<Instant>,
    refusal: Option<String>,
}

impl Room {
    pub fn new(folder: &Path) -> Room {
        Room { folder: folder.to_owned(), looked_at: None, refusal: None }
    }

    /// Why nothing is to be written now; None when there is room.
    pub fn refusal(&mut self) -> Option<&str> {
        if self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.looked_at = Some(Instant::now());
            self.refusal = self.look();
        }
        self.refusal.as_deref()
    }

    fn look(&self) -> Option<String> {
        // Where it cannot be told, the disk itself says so when it is full.
        let disk = rustix::fs::statvfs(&self.folder).ok()?;
        let (free, all) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
        let needed = (all / RESERVED_SHARE).min(RESERVED_BYTES_MAX);
        let folder = self.folder.display();
        (free < needed).then(|| {
            format!("the disk of {folder} has {free} bytes free, of which the store keeps {needed} to itself: make room")
        })
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What is written in some tenths of a second at most, tables and index included; of a small disk a part.
const RESERVED_BYTES_MAX: u64 = 32 << 20;
const RESERVED_SHARE: u64 = 8;
