//! Owns looking after a data folder while no server has it: checking, repairing, counting, copying it out and in. Never runs on a
//! server's threads, but for the copying that a backup shares.

mod check;
mod export;
mod gaps;
mod groups;
mod import;
mod lines;
mod log;
mod salvage;
mod stats;

#[cfg(test)]
mod export_tests;
#[cfg(test)]
mod salvage_tests;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fjall::{OwnedWriteBatch, PersistMode};

use super::codec::Damaged;
use super::commit_log::CommitLog;
use super::journal::{MARK, Mark};
use super::keyring::Keyring;
use super::open::Folder;
use super::tables::{Look, Space, Tables, Trouble};
use super::{EmbeddedSettings, Opened, StoreOpenFault, files, know_users, open_store, seed};

pub use check::CheckReport;
pub use export::ExportFault;
pub use import::{ImportFault, import};
pub use stats::{FolderStats, TableStats};

/// A data folder that is being looked after. No other process has it meanwhile.
pub struct Workbench {
    pub(super) path: PathBuf,
    pub(super) tables: Tables,
    log: CommitLog,
    /// Of the hashes that name first uses.
    seed: u64,
    /// Files whose content is not what was written.
    damaged_files: Vec<String>,
    /// First uses may be missing: those of all messages that are left are to be noted again.
    uses_lost: bool,
    /// Dropped last.
    folder: Folder,
}

impl Workbench {
    /// Opens a folder that exists. Like the start of a server this brings what the commit log has to the tables; nothing else
    /// changes.
    ///
    /// # Errors
    /// As when a server starts, and when there is no data folder.
    pub fn open(settings: &EmbeddedSettings) -> Result<Workbench, StoreOpenFault> {
        if !Folder::exists(&settings.path) {
            return Err(StoreOpenFault::Missing { path: settings.path.clone() });
        }
        let keyring = Arc::new(Keyring::of(settings)?);
        Workbench::take(Folder::open(&settings.path)?, settings, &keyring)
    }

    /// As [`Workbench::open`], after a look at every file.
    ///
    /// # Errors
    /// As [`Workbench::open`].
    pub fn open_to_check(settings: &EmbeddedSettings) -> Result<Workbench, StoreOpenFault> {
        if !Folder::exists(&settings.path) {
            return Err(StoreOpenFault::Missing { path: settings.path.clone() });
        }
        let keyring = Arc::new(Keyring::of(settings)?);
        let folder = Folder::open(&settings.path)?;
        let damaged = files::damaged_tables(&folder.database()).map_err(|fault| StoreOpenFault::File { fault })?;
        let mut bench = Workbench::take(folder, settings, &keyring)?;
        bench.damaged_files = damaged.iter().map(ToString::to_string).collect();
        Ok(bench)
    }

    pub(super) fn take(folder: Folder, settings: &EmbeddedSettings, keyring: &Arc<Keyring>) -> Result<Workbench, StoreOpenFault> {
        let first_uses_since = Arc::new(AtomicU64::new(0));
        let acknowledged = folder.acknowledged()?.commit();
        let opened = open_store(&folder, settings, keyring, &first_uses_since, acknowledged, None)?;
        let Opened { tables, log, .. } = opened;
        let trouble = |trouble: Trouble| StoreOpenFault::trouble(&folder.database(), &trouble);
        let seed = seed(&tables).map_err(trouble)?;
        know_users(&tables).map_err(trouble)?;
        Ok(Workbench { path: settings.path.clone(), tables, log, seed, damaged_files: Vec::new(), uses_lost: false, folder })
    }

    /// Closes a folder that was filled, and says so: from now on a server may open it. A last commit leaves its mark, so that no
    /// damage at the end of a journal can be taken for something unfinished.
    pub(super) fn finish(self) -> std::io::Result<()> {
        let number = self.mark().map_err(std::io::Error::other)?;
        let Workbench { tables, folder, mut log, .. } = self;
        drop(tables);
        log.skip_to(number)?;
        folder.acknowledged().map_err(std::io::Error::other)?.raise(number);
        folder.finish()
    }

    /// Writes one more commit and makes sure that everything before it is on disk; returns its number.
    fn mark(&self) -> Result<u64, Trouble> {
        let database = self.tables.database();
        database.persist(PersistMode::SyncAll)?;
        let last = match self.tables.get(Space::Meta, MARK)? {
            Some(bytes) => Mark::decode(&bytes).ok_or(Damaged).map_err(Trouble::at(Space::Meta, "commit"))?.number,
            None => 0,
        };
        let mark = Mark { number: last + 1, previous: last, synced: last };
        let mut batch = self.batch();
        batch.insert(self.tables.keyspace(Space::Meta), MARK, mark.encode());
        self.commit(batch)?;
        database.persist(PersistMode::SyncAll)?;
        Ok(mark.number)
    }

    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.tables.database().batch().durability(Some(PersistMode::Buffer))
    }

    pub(super) fn commit(&self, batch: OwnedWriteBatch) -> Result<(), Trouble> {
        self.tables.wait_for_room(super::WRITE_BUFFER_BYTES);
        Ok(batch.commit()?)
    }
}

/// The database may meet a damaged table with a panic; that is to be told like any other damage.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let damaged = |_| Trouble::Engine(fjall::Error::Io(std::io::Error::other("a file of the database is damaged")));
    catch_unwind(AssertUnwindSafe(work)).map_err(damaged)?
}
