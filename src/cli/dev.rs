//! Owns the secret that `--dev` makes: a file in the data folder, readable by its owner only, made once and then kept.
//!
//! Never shows the secret and never overwrites a file.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::config::Secret;

/// The secret of a data folder; made on the first call.
pub fn secret(data: &Path) -> anyhow::Result<Secret> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .with_context(|| format!("cannot make the data folder {}", data.display()))?;
    if let Some(secret) = existing_secret(data)? {
        return Ok(secret);
    }
    make(data)?;
    existing_secret(data)?.with_context(|| format!("{} vanished while it was made", path(data).display()))
}

/// The secret of a data folder; None when none was made.
pub fn existing_secret(data: &Path) -> anyhow::Result<Option<Secret>> {
    let path = path(data);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let facts = file.metadata().with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(facts.is_file(), "{} is not a file: remove it", path.display());
    let open_to_others = facts.permissions().mode() & 0o077 != 0;
    ensure!(!open_to_others, "others may read {0}: chmod 600 {0}", path.display());
    let own = rustix::process::geteuid();
    ensure!(facts.uid() == own.as_raw() || own.is_root(), "{} belongs to another user: remove it", path.display());
    let mut text = String::new();
    file.take(SECRET_FILE_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    let text = text.trim();
    if text.len() < crate::config::SECRET_BYTES_MIN {
        bail!("{} is too short to be a secret: remove it and a new one is made", path.display());
    }
    Ok(Some(Secret::new(text)))
}

/// Writes aside and then links, so that a second process sees the whole secret or none and the first one to link wins.
fn make(data: &Path) -> anyhow::Result<()> {
    let mut random = [0u8; SECRET_RANDOM_BYTES];
    getrandom::fill(&mut random).context("the system gives no random numbers")?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = path(data);
    let aside = data.join(format!("{SECRET_FILE}.{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        match std::fs::hard_link(&aside, &path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    let written = write();
    // Whether it was written or not, nothing of it is left aside.
    let _ = std::fs::remove_file(&aside);
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn path(data: &Path) -> PathBuf {
    data.join(SECRET_FILE)
}

const SECRET_FILE: &str = "dev-secret";
const SECRET_RANDOM_BYTES: usize = 32;
const SECRET_FILE_BYTES_MAX: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_made_once_and_for_its_owner() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("deep/data");
        assert_eq!(existing_secret(folder.path()).expect("no fault"), None);
        let first = secret(&data).expect("made");
        assert_eq!(first.expose().len(), 64);
        assert_eq!(secret(&data).expect("kept"), first);
        let facts = std::fs::metadata(path(&data)).expect("there");
        assert_eq!(facts.permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&data).expect("there").count(), 1, "nothing is left aside");
        assert_ne!(secret(folder.path()).expect("made"), first);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        secret(folder.path()).expect("made");
        std::fs::set_permissions(path(folder.path()), std::fs::Permissions::from_mode(0o644)).expect("changed");
        let error = secret(folder.path()).expect_err("open to others").to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_torn_secret_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path(folder.path()));
        file.expect("made").write_all(b"abc").expect("written");
        assert!(secret(folder.path()).expect_err("short").to_string().contains("too short"));
    }
}
