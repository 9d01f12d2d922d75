//! Owns the keys that message bodies are sealed with: reading their file, sealing, opening, numbers that are used once, and which
//! keys a data folder needs. Never prints a key and never writes one. Read once at the start, then shared by all of the store's
//! threads.
//!
//! AES-256-GCM (NIST SP 800-38D). A nonce is 64 random bits, drawn when the keys are read, and a counter of 32 bits; when the
//! counter is used up new bits are drawn. So nothing repeats when a message is written anew, when a commit fails, or when a
//! backup is put back and written to: every opening counts under bits of its own.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use compact_str::CompactString;
use fjall::{PersistMode, Slice};
use zeroize::Zeroizing;

use super::open::StoreOpenFault;
use super::tables::{Look, Space, Tables, Trouble};
use super::{EmbeddedSettings, codec};

/// The keys at hand; none when bodies are kept as they are.
#[derive(Default)]
pub struct Keyring {
    file: Option<PathBuf>,
    /// The first one seals; all of them open.
    keys: Vec<Key>,
    nonces: Mutex<Nonces>,
}

struct Key {
    id: CompactString,
    cipher: Aes256Gcm,
}

#[derive(Default)]
struct Nonces {
    prefix: [u8; 8],
    counter: u32,
}

/// What was sealed and with what.
#[derive(Debug)]
pub struct Sealed {
    pub nonce: [u8; NONCE_BYTES],
    pub bytes: Vec<u8>,
}

/// A body is sealed with a key that is not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoKey {
    pub id: String,
    pub file: Option<PathBuf>,
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileFault {
    #[error("cannot read the key file {}: {source}; set store.encryption_key_file to a readable file", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("others may read or write the key file {} (mode {mode:03o}): chmod 600 it", path.display())]
    Permissions { path: PathBuf, mode: u32 },
    #[error("key file {}, line {line}: {what}; a line is `ID KEY`, made by `corehub store key`", path.display())]
    Line { path: PathBuf, line: usize, what: &'static str },
    #[error("key file {} holds no key: put in a line made by `corehub store key`", path.display())]
    Empty { path: PathBuf },
    #[error("{0:?} is no key id: it has {ID_RULE}")]
    Id(String),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Keyring {
    /// Reads a key file: lines of `ID KEY`, the key as 64 hexadecimal digits or in Base64; the first one is written with. Empty
    /// lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// When it cannot be read, when others than its owner may touch it, or when a line is no key.
    pub fn load(path: &Path) -> Result<Keyring, KeyFileFault> {
        let unreadable = |source| KeyFileFault::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileFault::Permissions { path: path.to_owned(), mode });
        }
        // Room from the start, so that no copy of a key is left behind when it grows.
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
        file.take(FILE_BYTES_MAX as u64).read_to_string(&mut text).map_err(unreadable)?;
        let keys = parse(&text).map_err(|(line, what)| KeyFileFault::Line { path: path.to_owned(), line, what })?;
        if keys.is_empty() {
            return Err(KeyFileFault::Empty { path: path.to_owned() });
        }
        let nonces = Mutex::new(Nonces { prefix: random().map_err(KeyFileFault::Random)?, counter: 0 });
        Ok(Keyring { file: Some(path.to_owned()), keys, nonces })
    }

    /// The keys that the settings name.
    ///
    /// # Errors
    /// As [`Keyring::load`].
    pub fn of(settings: &EmbeddedSettings) -> Result<Keyring, KeyFileFault> {
        Ok(settings.encryption_key_file.as_deref().map(Keyring::load).transpose()?.unwrap_or_default())
    }

    /// The id of the key to seal with.
    pub fn writing_id(&self) -> Option<&str> {
        self.keys.first().map(|key| key.id.as_str())
    }

    /// Seals with the first key; None without one. `associated` is not sealed, but must be the same to open again.
    pub fn seal(&self, body: &[u8], associated: &[u8]) -> Option<Sealed> {
        let key = self.keys.first()?;
        let nonce = self.nonces.lock().unwrap_or_else(PoisonError::into_inner).next();
        let payload = Payload { msg: body, aad: associated };
        let bytes = key.cipher.encrypt(&Nonce::from(nonce), payload).expect("a message is far below the cipher's 64 GiB");
        Some(Sealed { nonce, bytes })
    }

    /// What was sealed; None when it or `associated` is not what it was.
    ///
    /// # Errors
    /// When the key is not at hand.
    pub fn open(
        &self,
        id: &str,
        nonce: [u8; NONCE_BYTES],
        sealed: &[u8],
        associated: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, NoKey> {
        let Some(key) = self.key(id) else { return Err(NoKey { id: id.to_owned(), file: self.file.clone() }) };
        let payload = Payload { msg: sealed, aad: associated };
        Ok(key.cipher.decrypt(&Nonce::from(nonce), payload).ok().map(Zeroizing::new))
    }

    /// Compares the keys at hand with those that the data of `tables` were sealed with, and writes down the one that is used from
    /// now on before anything is sealed with it.
    ///
    /// # Errors
    /// When data are sealed and no key for any of them is at hand, when a key is not the one that had its id, or when the tables
    /// cannot be read or written.
    pub(super) fn admit(&self, tables: &Tables, path: &Path) -> Result<(), StoreOpenFault> {
        let trouble = |trouble: Trouble| StoreOpenFault::trouble(path, &trouble);
        let (mut missing, mut known) = (Vec::new(), Vec::new());
        for guard in tables.prefix(Space::Meta, Slice::from(USED)) {
            let (key, bytes) = guard.into_inner().map_err(Trouble::from).map_err(trouble)?;
            let used = codec::decode_used_key(&key, &bytes).map_err(Trouble::at(Space::Meta, "keys")).map_err(trouble)?;
            match self.open(&used.id, used.nonce, &used.proof, &key) {
                Ok(Some(_)) => known.push(used.id),
                Ok(None) => {
                    let file = self.file.clone().unwrap_or_default();
                    return Err(StoreOpenFault::WrongKey { path: path.to_owned(), id: used.id, file });
                }
                Err(NoKey { id, .. }) => missing.push(id),
            }
        }
        let ids = missing.join(", ");
        match &self.file {
            None if !missing.is_empty() => return Err(StoreOpenFault::Sealed { path: path.to_owned(), ids }),
            Some(file) if !missing.is_empty() && known.is_empty() => {
                return Err(StoreOpenFault::NoneOfTheKeys { path: path.to_owned(), ids, file: file.clone() });
            }
            Some(file) if !missing.is_empty() => {
                tracing::error!(keys = %ids, file = %file.display(), "keys are missing: what they sealed cannot be read");
            }
            _ => {}
        }
        match self.writing_id() {
            Some(id) if !known.iter().any(|known| known == id) => self.note_use(tables, id).map_err(trouble),
            _ => Ok(()),
        }
    }

    fn note_use(&self, tables: &Tables, id: &str) -> Result<(), Trouble> {
        let key = [USED, id.as_bytes()].concat();
        let Some(proof) = self.seal(&[], &key) else { return Ok(()) };
        tracing::info!(key = id, "messages are sealed with this key from now on; those written before stay as they are");
        let value = codec::encode_used_key(id, &proof, &key);
        tables.keyspace(Space::Meta).insert(key, value)?;
        tables.database().persist(PersistMode::SyncAll)?;
        Ok(())
    }

    /// One key of 32 equal bytes.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn fixed(id: &str, byte: u8) -> Keyring {
        let keys = vec![Key { id: CompactString::new(id), cipher: Aes256Gcm::new(&[byte; KEY_BYTES].into()) }];
        Keyring { file: Some(PathBuf::from("fixed")), keys, nonces: Mutex::default() }
    }

    fn key(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| key.id.as_str());
        out.debug_struct("Keyring").field("file", &self.file).field("ids", &ids.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Nonces {
    fn next(&mut self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..8].copy_from_slice(&self.prefix);
        nonce[8..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        if self.counter == 0 {
            self.prefix = random().expect("the system gave random numbers at the start");
        }
        nonce
    }
}

/// A line for a key file with a new key.
///
/// # Errors
/// When `id` cannot be one, or the system gives no random numbers.
pub fn new_key_line(id: &str) -> Result<Zeroizing<String>, KeyFileFault> {
    if !is_id(id) {
        return Err(KeyFileFault::Id(id.to_owned()));
    }
    let key = Zeroizing::new(random::<KEY_BYTES>().map_err(KeyFileFault::Random)?);
    Ok(Zeroizing::new(format!("{id} {}", Zeroizing::new(STANDARD.encode(*key)).as_str())))
}

fn parse(text: &str) -> Result<Vec<Key>, (usize, &'static str)> {
    let mut keys: Vec<Key> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |what| (at + 1, what);
        let (id, key) = line.split_once(char::is_whitespace).ok_or_else(|| fault("a key is missing"))?;
        if !is_id(id) {
            return Err(fault("its id does not have 1 to 16 letters, digits, dots, dashes or underscores"));
        }
        if keys.iter().any(|known| known.id == id) {
            return Err(fault("its id is that of a line before it"));
        }
        let key = parse_key(key.trim()).ok_or_else(|| fault("the key is not 32 bytes as 64 hexadecimal digits or in Base64"))?;
        keys.push(Key { id: CompactString::new(id), cipher: Aes256Gcm::new((&*key).into()) });
    }
    Ok(keys)
}

fn parse_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if text.len() == KEY_BYTES * 2 {
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        return Some(key);
    }
    let bytes = Zeroizing::new(STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?);
    key.copy_from_slice(bytes.get(..KEY_BYTES).filter(|_| bytes.len() == KEY_BYTES)?);
    Some(key)
}

fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

pub const NONCE_BYTES: usize = 12;
/// Begins the keys of `meta` under which the ids of used keys lie.
pub const USED: &[u8] = b"m\x01key\x00";
const KEY_BYTES: usize = 32;
const ID_BYTES_MAX: usize = 16;
const ID_RULE: &str = "1 to 16 letters, digits, dots, dashes or underscores";
const FILE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    fn file(folder: &Path, mode: u32, text: &str) -> PathBuf {
        let path = folder.join("keys");
        let _ = std::fs::remove_file(&path);
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn refusal(folder: &Path, mode: u32, text: &str) -> String {
        Keyring::load(&file(folder, mode, text)).expect_err("no good key file").to_string()
    }

    #[test]
    fn a_file_holds_several_keys_and_the_first_one_seals() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (new_key_line("old").unwrap(), format!("new {}", "0f".repeat(32)));
        let before = Keyring::load(&file(folder.path(), 0o600, &old)).unwrap();
        let both = Keyring::load(&file(folder.path(), 0o400, &format!("# keys\n\n  {new}\n{}\n", *old))).unwrap();
        assert_eq!((before.writing_id(), both.writing_id()), (Some("old"), Some("new")));
        let sealed = before.seal(b"body", b"place").unwrap();
        assert_eq!(both.open("old", sealed.nonce, &sealed.bytes, b"place").unwrap().unwrap().as_slice(), b"body");
        assert_eq!(both.open("old", sealed.nonce, &sealed.bytes, b"elsewhere"), Ok(None));
        assert_eq!(both.open("new", sealed.nonce, &sealed.bytes, b"place"), Ok(None));
        let fault = both.open("older", sealed.nonce, &sealed.bytes, b"place").unwrap_err();
        assert_eq!((fault.id.as_str(), fault.file.as_deref()), ("older", Some(folder.path().join("keys").as_path())));
        let shown = format!("{both:?}");
        assert!(
            shown.contains("new") && shown.contains("old") && !shown.contains("0f0f") && !shown.contains("15, 15"),
            "{shown}"
        );
    }

    #[test]
    fn no_number_is_used_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), 0o600, &new_key_line("k").unwrap());
        let mut seen = std::collections::HashSet::new();
        for _ in 0..20 {
            let keyring = Keyring::load(&path).unwrap();
            let place = if seen.len() % 2 == 0 { 0 } else { u32::MAX - 20 };
            keyring.nonces.lock().unwrap().counter = place;
            for _ in 0..101 {
                assert!(seen.insert(keyring.seal(b"", b"").unwrap().nonce));
            }
        }
    }

    #[test]
    fn a_bad_file_is_refused_and_no_key_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let line = new_key_line("k").unwrap();
        let secret = line.split_once(' ').unwrap().1;
        let twice = format!("{}\n{}\n", *line, *line);
        let short = format!("k {}", &secret[..40]);
        for (mode, text, expected) in [
            (0o640, line.as_str(), "mode 640"),
            (0o604, line.as_str(), "chmod 600"),
            (0o600, "", "holds no key"),
            (0o600, "# nothing", "corehub store key"),
            (0o600, secret, "line 1: a key is missing"),
            (0o600, &twice, "line 2: its id is that of a line before it"),
            (0o600, &short, "line 1: the key is not 32 bytes"),
            (0o600, "k \u{e9}0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f", "not 32 bytes"),
            (0o600, "a/b 00", "line 1: its id"),
        ] {
            let told = refusal(folder.path(), mode, text);
            assert!(told.contains(expected) && told.contains("keys"), "{text}: {told}");
            assert!(!told.contains(&secret[..20]), "{told}");
        }
        let missing = Keyring::load(&folder.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("store.encryption_key_file"), "{missing}");
        assert!(new_key_line("").is_err() && new_key_line("seventeen-letters").is_err());
    }
}
