//! Owns counting what a data folder holds. Looks at every record once.

use std::path::Path;

use fjall::Slice;

use super::super::codec::decode_head;
use super::super::removal::folder_of;
use super::super::tables::{Look, Space, Trouble};
use super::{Workbench, guarded};
use crate::types::Millis;

/// What a data folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderStats {
    /// By table, in a fixed order.
    pub tables: Vec<TableStats>,
    pub conversations: u64,
    pub messages: u64,
    pub groups: u64,
    pub members: u64,
    /// Users with a conversation.
    pub users: u64,
    /// Times of the oldest and the newest message; None without messages.
    pub oldest: Option<Millis>,
    pub newest: Option<Millis>,
    /// Size of all files but those on their way out.
    pub disk_bytes: u64,
}

/// One table. Bytes are those of keys and values, before compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStats {
    pub name: &'static str,
    pub records: u64,
    pub bytes: u64,
}

impl Workbench {
    /// Counts everything.
    ///
    /// # Errors
    /// When a table or a message cannot be read.
    pub fn stats(&self) -> Result<FolderStats, Trouble> {
        let mut stats =
            FolderStats { disk_bytes: disk_bytes(&self.path, &folder_of(&self.folder.database())), ..FolderStats::default() };
        guarded(|| {
            for space in Space::ALL {
                let table = self.count(space, &mut stats)?;
                match space {
                    Space::Messages => stats.messages = table.records,
                    Space::Conversations => stats.conversations = table.records,
                    _ => {}
                }
                stats.tables.push(table);
            }
            Ok(())
        })?;
        Ok(stats)
    }

    fn count(&self, space: Space, stats: &mut FolderStats) -> Result<TableStats, Trouble> {
        let view = self.tables.view();
        let mut table = TableStats { name: space.name(), records: 0, bytes: 0 };
        let mut user: Vec<u8> = Vec::new();
        for guard in view.prefix(space, Slice::from(space.prefix())) {
            let (key, bytes) = guard.into_inner()?;
            table.records += 1;
            table.bytes += (key.len() + bytes.len()) as u64;
            match space {
                Space::Messages => {
                    let at = decode_head(&key, &bytes).map_err(Trouble::at(space, format!("{key:?}")))?.created_at;
                    stats.oldest = Some(stats.oldest.map_or(at, |oldest| oldest.min(at)));
                    stats.newest = Some(stats.newest.map_or(at, |newest| newest.max(at)));
                }
                Space::Rows => {
                    let owner = key.split(|byte| *byte == 0).next().unwrap_or_default();
                    if user != owner {
                        stats.users += 1;
                        user = owner.to_vec();
                    }
                }
                Space::Groups => match super::super::keys::group_parts(&key) {
                    Some((_, b'r', _)) => stats.groups += 1,
                    Some((_, b'm', _)) => stats.members += 1,
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(table)
    }
}

/// Of all files below a folder, without those in another. What vanishes meanwhile does not count.
fn disk_bytes(folder: &Path, without: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() && entry.path() == without => 0,
        Ok(kind) if kind.is_dir() => disk_bytes(&entry.path(), without),
        _ => entry.metadata().map_or(0, |metadata| metadata.len()),
    };
    entries.filter_map(Result::ok).map(size).sum()
}
