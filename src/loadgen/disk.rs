//! Owns what the disk under a data folder can do on its own: the time of a lone synced write, what a folder takes, and how a
//! folder's files are made to be read from the disk again. Lives on the measuring thread.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;
use rustix::fs::{Advice, fadvise, fdatasync};

use super::error::{BenchError, BenchResult};
use super::tally::{latencies, record};

/// Time of appending 4 KiB to a file in `folder` and waiting for the disk, in microseconds, `rounds` times in a row.
pub fn lone_syncs(folder: &Path, rounds: usize) -> BenchResult<Histogram<u64>> {
    let path = folder.join("bench-lone-sync");
    let measure = || -> std::io::Result<Histogram<u64>> {
        let mut file = File::create(&path)?;
        let mut times = latencies();
        for _ in 0..rounds {
            let begun = Instant::now();
            file.write_all(&[b'x'; WRITE_BYTES])?;
            fdatasync(&file)?;
            record(&mut times, 0, begun.elapsed().as_nanos() as u64);
        }
        Ok(times)
    };
    let measured = measure().map_err(BenchError::io(format!("write {}", path.display())));
    // A file left behind lies in the run's own folder.
    let _ = fs::remove_file(&path);
    measured
}

/// Bytes of disk that everything below `folder` takes.
pub fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    each_file(folder, &mut |path| bytes += fs::metadata(path).map_or(0, |data| data.blocks() * 512));
    bytes
}

/// Has the kernel forget what it keeps of the files below `folder` (`posix_fadvise`): the next reader waits for the disk. It may
/// keep what is mapped or not written back, so everything is synced first.
pub fn chill(folder: &Path) {
    rustix::fs::sync();
    each_file(folder, &mut |path| {
        // A file that cannot be opened or advised stays warm, as the scenario's words allow.
        if let Ok(file) = File::open(path) {
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    });
}

fn each_file(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => each_file(&entry.path(), visit),
            Ok(_) => visit(&entry.path()),
            Err(_) => {}
        }
    }
}

const WRITE_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_with_what_lies_deeper() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("deep")).expect("made");
        fs::write(folder.path().join("deep/file"), vec![1; 100_000]).expect("written");
        chill(folder.path());
        assert!(folder_bytes(folder.path()) >= 100_000);
        assert_eq!(lone_syncs(folder.path(), 3).expect("measured").len(), 3);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }
}
