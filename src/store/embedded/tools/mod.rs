//! Owns looking after a data folder while no server has it: checking, repairing, counting, copying it out and in. Never runs on a
//! server's threads, but for the copying that a backup shares.

mod check;
mod export;
mod groups;
mod import;
mod lines;
mod log;
mod stats;

#[cfg(test)]
mod export_tests;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fjall::{OwnedWriteBatch, PersistMode};

use super::journal::{self, Keep};
use super::keyring::Keyring;
use super::open::Folder;
use super::tables::{Tables, Trouble};
use super::{EmbeddedSettings, StoreOpenFault, know_users, open_tables, seed};

pub use check::CheckReport;
pub use export::ExportFault;
pub use import::{ImportFault, import};
pub use stats::{FolderStats, TableStats};

/// A data folder that is being looked after. No other process has it meanwhile.
pub struct Workbench {
    path: PathBuf,
    tables: Tables,
    /// Of the hashes that name first uses.
    seed: u64,
    /// Dropped last.
    folder: Folder,
}

impl Workbench {
    /// Opens a folder that exists. Like the start of a server this cuts an unfinished commit from the journal; no record changes.
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

    fn take(folder: Folder, settings: &EmbeddedSettings, keyring: &Arc<Keyring>) -> Result<Workbench, StoreOpenFault> {
        let first_uses_since = Arc::new(AtomicU64::new(0));
        let acknowledged = folder.acknowledged()?.commit();
        let (tables, mark) = open_tables(&folder, settings, keyring, &first_uses_since, Keep::All { acknowledged })?;
        if mark.number < acknowledged {
            let fault = journal::ends_early(&folder.database(), mark.number, acknowledged);
            return Err(StoreOpenFault::Journal { fault });
        }
        let trouble = |trouble: Trouble| StoreOpenFault::trouble(&folder.database(), &trouble);
        let seed = seed(&tables).map_err(trouble)?;
        know_users(&tables).map_err(trouble)?;
        Ok(Workbench { path: settings.path.clone(), tables, seed, folder })
    }

    /// Closes a folder that was filled, and says so: from now on a server may open it.
    fn finish(self) -> std::io::Result<()> {
        let Workbench { tables, folder, .. } = self;
        drop(tables);
        folder.finish()
    }

    fn batch(&self) -> OwnedWriteBatch {
        self.tables.database().batch().durability(Some(PersistMode::Buffer))
    }

    fn commit(&self, batch: OwnedWriteBatch) -> Result<(), Trouble> {
        self.tables.wait_for_room(super::WRITE_BUFFER_BYTES);
        Ok(batch.commit()?)
    }
}

/// The database may meet a damaged table with a panic; that is to be told like any other damage.
fn guarded<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let damaged = |_| Trouble::Engine(fjall::Error::Io(std::io::Error::other("a file of the database is damaged")));
    catch_unwind(AssertUnwindSafe(work)).map_err(damaged)?
}
