//! Owns noticing that a disk is nearly full, while there is still room for what has been acknowledged to reach the tables: then
//! nothing more is accepted, and everything else goes on. Lives on the writer's thread; whoever asks may look at the disk.

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
        let disk = Disk::of(&self.folder)?;
        let (free, needed, folder) = (disk.free_bytes, disk.reserved_bytes(), self.folder.display());
        disk.is_nearly_full().then(|| {
            format!("the disk of {folder} has {free} bytes free, of which the store keeps {needed} to itself: make room")
        })
    }
}

/// A disk at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    pub free_bytes: u64,
    pub all_bytes: u64,
}

impl Disk {
    /// The one that a folder lies on; None where it cannot be told.
    pub fn of(folder: &Path) -> Option<Disk> {
        let disk = rustix::fs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some(Disk { free_bytes: bytes(disk.f_bavail), all_bytes: bytes(disk.f_blocks) })
    }

    /// True when nothing more is accepted.
    pub fn is_nearly_full(self) -> bool {
        self.free_bytes < self.reserved_bytes()
    }

    /// What is free beyond what the store keeps to itself.
    pub fn spare_bytes(self) -> u64 {
        self.free_bytes.saturating_sub(self.reserved_bytes())
    }

    fn reserved_bytes(self) -> u64 {
        (self.all_bytes / RESERVED_SHARE).min(RESERVED_BYTES_MAX)
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What is written in some tenths of a second at most, tables and index included; of a small disk a part.
const RESERVED_BYTES_MAX: u64 = 32 << 20;
const RESERVED_SHARE: u64 = 8;
