//! Owns looking at the database's files as files. The database believes its lists of tables without looking at their checksums,
//! deletes tables that they do not name, and does not say which file it failed on.
//!
//! Only reads, and only while the database is closed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

/// Why the database must not be opened, or could not be.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{} cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Checks what the database would believe: its format, and the list of tables of every keyspace.
pub fn check_lists(database: &Path) -> Result<(), FileFault> {
    let marker = database.join(FORMAT);
    match read(&marker)? {
        // Without one it will be made.
        None => return Ok(()),
        Some(bytes) if bytes == FORMAT_CONTENT => {}
        Some(_) => {
            return Err(FileFault::Damaged { path: marker, what: "it is no format of this version's database".to_owned() });
        }
    }
    keyspaces(database)?.iter().try_for_each(|keyspace| list(keyspace).map(drop))
}

/// Reads every table and compares it with the list that names it: the first that differs.
pub fn find_damaged(database: &Path) -> Option<FileFault> {
    damaged_tables(database).map_or_else(Some, |tables| tables.into_iter().next())
}

/// Reads every table and compares it with the list that names it: all that differ.
///
/// # Errors
/// When a list itself is damaged.
pub fn damaged_tables(database: &Path) -> Result<Vec<FileFault>, FileFault> {
    check_lists(database)?;
    let mut found = Vec::new();
    for keyspace in keyspaces(database)? {
        let Some(list) = list(&keyspace)? else { continue };
        for (table, checksum) in tables(&list)? {
            let path = keyspace.join(TABLES).join(table.to_string());
            match checksum_of(&path) {
                Ok(None) => found.push(FileFault::Damaged { path, what: "it is missing".to_owned() }),
                Ok(Some(is)) if is != checksum => {
                    found.push(FileFault::Damaged { path, what: "its content is not what was written".to_owned() });
                }
                Ok(Some(_)) => {}
                Err(fault) => found.push(fault),
            }
        }
    }
    Ok(found)
}

/// The folders of all keyspaces, in the order of their names.
fn keyspaces(database: &Path) -> Result<Vec<PathBuf>, FileFault> {
    let folder = database.join(KEYSPACES);
    let io = |source| FileFault::Io { path: folder.clone(), source };
    let mut found = Vec::new();
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                found.push(entry.map_err(io)?.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    found.sort();
    Ok(found)
}

/// The list in force, after its checksum was compared. None in a keyspace that was never finished.
fn list(keyspace: &Path) -> Result<Option<PathBuf>, FileFault> {
    let pointer = keyspace.join(POINTER);
    let Some(bytes) = read(&pointer)? else { return Ok(None) };
    let known = |bytes: &[u8]| -> Option<(u64, u128)> {
        let (number, rest) = bytes.split_first_chunk()?;
        let (checksum, kind) = rest.split_first_chunk()?;
        (kind == CHECKSUM_KIND).then_some((u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
    };
    let Some((number, checksum)) = known(&bytes) else {
        return Err(FileFault::Damaged { path: pointer, what: "it names no list of tables".to_owned() });
    };
    let path = keyspace.join(format!("v{number}"));
    match checksum_of(&path)? {
        Some(found) if found == checksum => Ok(Some(path)),
        Some(_) => {
            let what = format!("it is not the list of tables that {} names, or that is damaged", pointer.display());
            Err(FileFault::Damaged { path, what })
        }
        None => Err(FileFault::Damaged { path: pointer, what: "it names a list of tables that is not there".to_owned() }),
    }
}

/// Numbers and checksums of the tables that a list names.
fn tables(list: &Path) -> Result<Vec<(u64, u128)>, FileFault> {
    let io = |source| FileFault::Io { path: list.to_owned(), source };
    let odd = || FileFault::Damaged { path: list.to_owned(), what: "it is no list of tables".to_owned() };
    let archive = sfa::Reader::new(list).map_err(|_| odd())?;
    let mut reader = archive.toc().section(b"tables").ok_or_else(odd)?.buf_reader(list).map_err(|_| odd())?;
    let mut found = Vec::new();
    let mut numbers = || -> io::Result<()> {
        for _level in 0..u8::from_le_bytes(array(&mut reader)?) {
            for _run in 0..u8::from_le_bytes(array(&mut reader)?) {
                for _table in 0..u32::from_le_bytes(array(&mut reader)?) {
                    let number = u64::from_le_bytes(array(&mut reader)?);
                    let [_kind] = array(&mut reader)?;
                    let checksum = u128::from_le_bytes(array(&mut reader)?);
                    let _sequence: [u8; 8] = array(&mut reader)?;
                    found.push((number, checksum));
                }
            }
        }
        Ok(())
    };
    numbers().map_err(io)?;
    Ok(found)
}

/// None when there is no such file.
fn checksum_of(path: &Path) -> Result<Option<u128>, FileFault> {
    let io = |source| FileFault::Io { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => return Ok(Some(hasher.digest128())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// A small file; None when it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, FileFault> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileFault::Io { path: path.to_owned(), source }),
    }
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

const FORMAT: &str = "version";
const FORMAT_CONTENT: &[u8] = b"FJL\x03";
const KEYSPACES: &str = "keyspaces";
const POINTER: &str = "current";
const TABLES: &str = "tables";
/// XXH3 with 128 bits, as the database numbers its checksums.
const CHECKSUM_KIND: &[u8] = &[0];
