//! Owns getting out of damaged files what can still be read: every whole part of the journals, every record outside of damaged
//! blocks. It goes to a new database that takes the place of the old one, which stays beside it. What is missing then is found,
//! and told, by the check of all records.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fjall::{PersistMode, Slice};

use super::super::journal::{self, Keep, MARK, Mark};
use super::super::keyring::Keyring;
use super::super::open::Folder;
use super::super::tables::{Look, Space, Tables, Trouble, Tuning, View};
use super::super::{EmbeddedSettings, SEED, StoreOpenFault, files, keys, open_tables};
use super::{Workbench, guarded};
use crate::types::Seq;

impl Workbench {
    /// Opens a folder whatever of its journals and tables is damaged, as long as their lists are not; returns what was found and
    /// done. Without damage it is as [`Workbench::open`].
    ///
    /// # Errors
    /// When the database cannot be opened even so.
    pub fn open_to_repair(settings: &EmbeddedSettings) -> Result<(Workbench, Vec<String>), StoreOpenFault> {
        if !Folder::exists(&settings.path) {
            return Err(StoreOpenFault::Missing { path: settings.path.clone() });
        }
        let keyring = Arc::new(Keyring::of(settings)?);
        let folder = Folder::open(&settings.path)?;
        let database = folder.database();
        let damaged = files::damaged_tables(&database).map_err(|fault| StoreOpenFault::File { fault })?;
        let mut told: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        let acknowledged = folder.acknowledged()?.commit();
        if let Err(fault) = journal::mend(&database, Keep::All { acknowledged }) {
            told.push(fault.to_string());
            told.extend(journal::salvage(&database, acknowledged).map_err(|fault| StoreOpenFault::Journal { fault })?);
        }
        let since = Arc::new(AtomicU64::new(0));
        let (tables, mark) = open_tables(&folder, settings, &keyring, &since, Keep::Salvaged)?;
        if mark.number < acknowledged {
            let (from, to) = (mark.number + 1, acknowledged);
            told.push(format!(
                "commits {from} to {to} had been acknowledged and are lost as a whole: what they held is below as far as others \
                 speak of it"
            ));
        }
        if told.is_empty() {
            drop(tables);
            return Ok((Workbench::take(folder, settings, &keyring)?, told));
        }
        let trouble = |trouble: Trouble| StoreOpenFault::trouble(&database, &trouble);
        let number = mark.number.max(acknowledged) + 1;
        let fresh = settings.path.join(FRESH);
        let io = |source| StoreOpenFault::Unusable { path: fresh.clone(), source };
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).map_err(io)?;
        }
        let tuning = Tuning {
            cache_bytes: settings.cache_bytes,
            write_buffer_bytes: settings.write_buffer_bytes,
            keyring: keyring.clone(),
        };
        let target = Tables::open(&fresh, &tuning, &since).map_err(|error| trouble(error.into()))?;
        let mut salvage = Salvage { from: &tables, target: &target, buffer_bytes: settings.write_buffer_bytes, told: &mut told };
        let uses_lost = salvage.everything().and_then(|lost| salvage.end(number).map(|()| lost)).map_err(trouble)?;
        drop((tables, target));
        // The index speaks of commits by their old numbers; the server makes another one.
        let search = folder.search();
        if search.exists() {
            std::fs::remove_dir_all(&search).map_err(io)?;
        }
        let aside = folder.exchange(&fresh).map_err(io)?;
        folder.acknowledged()?.raise(number);
        told.push(format!(
            "what could be read is in a new database; the old one is kept in {}: delete it when all is well",
            aside.display()
        ));
        let mut bench = Workbench::take(folder, settings, &keyring)?;
        bench.uses_lost = uses_lost;
        Ok((bench, told))
    }
}

struct Salvage<'a> {
    from: &'a Tables,
    target: &'a Tables,
    buffer_bytes: u64,
    told: &'a mut Vec<String>,
}

type Record = (Slice, Slice);

impl Salvage<'_> {
    /// Returns whether records of first uses may be missing.
    fn everything(&mut self) -> Result<bool, Trouble> {
        let mut uses_lost = false;
        for space in Space::TABLES {
            let whole = self.table(space)?;
            uses_lost |= !whole && space == Space::FirstUses;
        }
        if self.target.get(Space::Meta, SEED)?.is_none() {
            self.told.push("the seed that client ids are known by is lost: they are taken from the messages".to_owned());
            uses_lost = true;
        }
        Ok(uses_lost)
    }

    /// From both ends to the first damage, and what lies between, where it is known what to look for.
    fn table(&mut self, space: Space) -> Result<bool, Trouble> {
        let view = self.from.view();
        let mut low = Slice::from(b"");
        loop {
            let (piece, broken) = stretch(&view, space, &low, None, true);
            let end = piece.last().map(|(key, _)| after(key));
            self.put(space, piece)?;
            match (end, broken) {
                (end, Some(_)) => {
                    low = end.unwrap_or(low);
                    break;
                }
                (Some(end), None) => low = end,
                (None, None) => return Ok(true),
            }
        }
        let mut high: Option<Slice> = None;
        loop {
            let (piece, broken) = stretch(&view, space, &low, high.clone(), false);
            let end = piece.last().map(|(key, _)| key.clone());
            let ended = broken.is_some() || end.is_none();
            self.put(space, piece)?;
            high = end.or(high);
            if ended {
                break;
            }
        }
        if space == Space::Messages {
            self.messages_between(&view, &low, high.as_ref())?;
        }
        let name = if space == Space::Meta { "state" } else { space.name() };
        self.told.push(format!("table {name}: a part cannot be read"));
        Ok(false)
    }

    /// Messages are numbered, so that each can be asked for.
    fn messages_between(&mut self, view: &View<'_>, low: &Slice, high: Option<&Slice>) -> Result<(), Trouble> {
        let begin = keys::place_of(low).unwrap_or((1, Seq(1)));
        let numbers = guarded(|| {
            let last = view.prefix(Space::Numbers, keys::numbers()).next_back();
            last.map(|guard| Ok(keys::seq_of(&guard.key()?).map_or(0, |number| number.0))).transpose()
        });
        let last = high.and_then(|key| keys::place_of(key)).map(|(number, _)| number);
        let last = last.unwrap_or_else(|| numbers.ok().flatten().unwrap_or(begin.0));
        for number in begin.0..=last {
            let kept = guarded(|| match view.conversation_id(number) {
                Ok(id) => view.conversation_record(&id),
                Err(trouble) => Err(trouble),
            });
            let first = kept.ok().flatten().map_or(Seq(1), |record| record.first_kept);
            let (mut seq, mut misses) = (if number == begin.0 { begin.1.max(first) } else { first }, 0);
            while misses < MISSES_MAX {
                let key = keys::message(number, seq);
                if high.is_some_and(|high| key >= *high) {
                    break;
                }
                match guarded(|| view.get(Space::Messages, &key)) {
                    Ok(Some(value)) => {
                        misses = 0;
                        self.put(Space::Messages, vec![(key, value)])?;
                    }
                    Ok(None) => break,
                    Err(_) => misses += 1,
                }
                seq = seq.next();
            }
        }
        Ok(())
    }

    fn put(&self, space: Space, piece: Vec<Record>) -> Result<(), Trouble> {
        if piece.is_empty() {
            return Ok(());
        }
        self.target.wait_for_room(self.buffer_bytes);
        let mut batch = self.target.database().batch().durability(Some(PersistMode::Buffer));
        let keyspace = self.target.keyspace(space);
        for (key, value) in piece {
            // Commits are numbered anew, and a journal with a leap in its numbers looks as if a part were missing.
            if space != Space::Meta || key != MARK {
                batch.insert(keyspace, key, value);
            }
        }
        Ok(batch.commit()?)
    }

    /// Numbers the next commit behind all that were ever acknowledged.
    fn end(&self, number: u64) -> Result<(), Trouble> {
        self.target.database().persist(PersistMode::SyncAll)?;
        let mark = Mark { number, synced: number - 1 };
        self.target.keyspace(Space::Meta).insert(MARK, mark.encode())?;
        self.target.database().persist(PersistMode::SyncAll)?;
        Ok(())
    }
}

/// Some records, in the order in which they were met, and what ended them early.
fn stretch(view: &View<'_>, space: Space, low: &Slice, high: Option<Slice>, forward: bool) -> (Vec<Record>, Option<Trouble>) {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let walk = guarded(|| {
        let mut guards = view.range(space, low.clone(), high);
        while let Some(guard) = if forward { guards.next() } else { guards.next_back() } {
            let (key, value) = guard.into_inner()?;
            bytes += key.len() + value.len();
            found.push((key, value));
            if bytes >= STRETCH_BYTES {
                break;
            }
        }
        Ok(())
    });
    (found, walk.err())
}

fn after(key: &Slice) -> Slice {
    Slice::from([key.as_ref(), &[0]].concat())
}

const FRESH: &str = "store.repaired";
const STRETCH_BYTES: usize = 1 << 20;
/// More messages than a block holds.
const MISSES_MAX: u64 = 20_000;
