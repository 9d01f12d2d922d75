//! Owns the file that says how far acknowledgements have come. It lies beside the commit log: a log that lost its end looks
//! like one that never went further, and only this tells them apart.
//!
//! Written after commits are on disk and never synced itself: it may say too little, never too much. Lives on the writer's
//! thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The open file.
#[derive(Debug)]
pub struct Acknowledged {
    file: File,
    commit: u64,
}

impl Acknowledged {
    /// Opens or makes the file. One that cannot be read is worth nothing, and is written anew.
    pub fn open(path: &Path) -> io::Result<Acknowledged> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        (&mut file).take(BYTES as u64 + 1).read_to_end(&mut bytes)?;
        let commit = decode(&bytes);
        if commit.is_none() && !bytes.is_empty() {
            tracing::warn!(path = %path.display(), "damaged, written anew: a log without its end goes unnoticed this once");
        }
        Ok(Acknowledged { file, commit: commit.unwrap_or(0) })
    }

    /// The last commit known to have been on disk; 0 when nothing is known.
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// Notes that everything up to `commit` is on disk.
    pub fn raise(&mut self, commit: u64) {
        if commit <= self.commit {
            return;
        }
        // A disk that does not take it has other ways to be heard; this is tried again with the next commit.
        if self.file.write_all_at(&encode(commit), 0).is_ok() {
            self.commit = commit;
        }
    }
}

fn encode(commit: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let (number, checksum) = bytes.split_at_mut(8);
    number.copy_from_slice(&commit.to_le_bytes());
    checksum.copy_from_slice(&xxh3_64_with_seed(number, SEED).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let number: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    let commit = u64::from_le_bytes(number);
    (bytes == encode(commit)).then_some(commit)
}

const BYTES: usize = 16;
/// Zeros have to be no number of ours.
const SEED: u64 = 0x636f_7265_6875_6221;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_highest_and_believes_nothing_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = Acknowledged::open(&path).unwrap();
        assert_eq!(file.commit(), 0);
        file.raise(700);
        file.raise(3);
        assert_eq!(Acknowledged::open(&path).unwrap().commit(), 700);
        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length]), None, "{length} bytes");
        }
        assert_eq!(decode(&[0; BYTES]), None);
        std::fs::write(&path, &good[..7]).unwrap();
        let mut file = Acknowledged::open(&path).unwrap();
        assert_eq!(file.commit(), 0);
        file.raise(1);
        assert_eq!(Acknowledged::open(&path).unwrap().commit(), 1);
    }
}
