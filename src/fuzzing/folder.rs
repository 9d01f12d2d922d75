//! Owns a folder that is gone when an input has been judged; in memory where the system has such a place.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder that is gone when the input has been judged; in memory where the system has such a place.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let name = format!("corehub-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = base.join(name);
        std::fs::create_dir(&path).expect("a temporary folder can be made");
        Folder { path }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind it costs nobody anything.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
