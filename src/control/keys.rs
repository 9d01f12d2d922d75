//! Owns getting hold of the published keys that tokens are checked with (`auth.jwks`): from a file that is looked at every
//! second, or from a URL. Never decides about a token, and never makes a shard wait: it hands a finished set to the verifier.
//!
//! Lives on the thread `corehub-keys`, which may wait for a slow issuer as long as it likes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use crate::auth::{KeySet, KeySetFault, Verifier};

/// Where published keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    File(PathBuf),
    Url(String),
}

impl KeyPlace {
    /// As `auth.jwks` is written.
    pub fn new(text: &str) -> KeyPlace {
        let url = text.starts_with("https://") || text.starts_with("http://");
        if url { KeyPlace::Url(text.to_owned()) } else { KeyPlace::File(PathBuf::from(text)) }
    }
}

/// Why there is no new set. The one in use stays in use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    #[error("auth.jwks: {0}")]
    Unusable(#[from] KeySetFault),
    #[error("auth.jwks cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("auth.jwks cannot be fetched: {0}")]
    Unreachable(#[from] Box<ureq::Error>),
    #[error("auth.jwks is answered with HTTP status {0}; the URL must be that of the set itself")]
    Status(u16),
}

/// The running look-out. Dropping it ends it, at the latest when its present question has been answered.
#[derive(Debug)]
pub struct KeyWatch {
    _stop: Sender<()>,
}

impl KeyWatch {
    /// Takes the set that is there now, and from now on every newer one.
    ///
    /// # Errors
    /// When a file cannot be used. An issuer that does not answer is asked again later: until then no token of theirs is good.
    pub fn start(place: KeyPlace, verifier: Arc<Verifier>) -> Result<KeyWatch, KeyFault> {
        let mut source = Source::new(place, verifier);
        match source.take_newest() {
            Err(fault) if matches!(source.place, KeyPlace::File(_)) => return Err(fault),
            result => source.tell(result),
        }
        let (stop, stopped) = channel();
        std::thread::Builder::new().name("corehub-keys".to_owned()).spawn(move || watch(source, &stopped))?;
        Ok(KeyWatch { _stop: stop })
    }
}

fn watch(mut source: Source, stopped: &Receiver<()>) {
    while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        if source.is_due() {
            let result = source.take_newest();
            source.tell(result);
        }
    }
}

/// A place and what is known of it.
struct Source {
    place: KeyPlace,
    verifier: Arc<Verifier>,
    /// When and how large a file was when it was read last.
    file: Option<(SystemTime, u64)>,
    asked_at: Instant,
    /// A set has been had.
    had: bool,
    /// A token has named a key that nobody knows.
    wanted: bool,
}

impl Source {
    fn new(place: KeyPlace, verifier: Arc<Verifier>) -> Source {
        Source { place, verifier, file: None, asked_at: Instant::now(), had: false, wanted: false }
    }

    fn is_due(&mut self) -> bool {
        self.wanted |= self.verifier.newer_set_wanted();
        match &self.place {
            KeyPlace::File(path) => stamp(path) != self.file,
            KeyPlace::Url(_) => {
                let pause = match (self.had, self.wanted) {
                    (false, _) => RETRY_AFTER,
                    (true, true) => ASK_AT_MOST_EVERY,
                    (true, false) => ASK_EVERY,
                };
                self.asked_at.elapsed() >= pause
            }
        }
    }

    /// The number of keys in force from now on.
    fn take_newest(&mut self) -> Result<usize, KeyFault> {
        (self.asked_at, self.wanted) = (Instant::now(), false);
        let json = match &self.place {
            KeyPlace::File(path) => {
                self.file = stamp(path);
                read(path)?
            }
            KeyPlace::Url(url) => fetch(url)?,
        };
        let set = KeySet::parse(&json, self.verifier.algorithms())?;
        let keys = set.len();
        self.verifier.publish(set);
        self.had = true;
        Ok(keys)
    }

    fn tell(&self, result: Result<usize, KeyFault>) {
        match result {
            Ok(keys) => tracing::info!(keys, "published keys are in force"),
            Err(fault) if self.had => tracing::warn!(%fault, "published keys stay as they were"),
            Err(fault) => tracing::error!(%fault, "there are no published keys yet"),
        }
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut json = Vec::new();
    File::open(path)?.take(SET_BYTES_MAX).read_to_end(&mut json)?;
    Ok(json)
}

/// Asks exactly this URL: an answer that leads elsewhere is none.
fn fetch(url: &str) -> Result<Vec<u8>, KeyFault> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(FETCH_TIMEOUT))
        .https_only(url.starts_with("https://"))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .into();
    let mut response = agent.get(url).header("Accept", "application/json").call().map_err(Box::new)?;
    if response.status() != 200 {
        return Err(KeyFault::Status(response.status().as_u16()));
    }
    Ok(response.body_mut().with_config().limit(SET_BYTES_MAX).read_to_vec().map_err(Box::new)?)
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
const ASK_EVERY: Duration = Duration::from_secs(600);
/// Tokens with unknown keys must not make us a burden to the issuer.
const ASK_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// While there has never been a set.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const SET_BYTES_MAX: u64 = 1 << 20;
