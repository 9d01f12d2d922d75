//! Owns data folders that are filled before a server gets them: through the store itself, in large commits, since what is
//! measured is what a server does with a long log, not how it grew. Lives on the measuring thread.
//!
//! A filled folder bears a mark that says with what, so that a kept one (`--data`) is filled once.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::store::{Backend, Durability, EmbeddedBackend, EmbeddedSettings};
use crate::types::record::MessageType;
use crate::types::storage::{Append, Write};
use crate::types::{ConversationId, Message, MessageId, MessageKind, Millis, RawJson, RequestId, Seq, SessionId, UserId};

use super::child::TemporaryFolder;
use super::error::{BenchError, BenchResult};
use super::options::Common;

/// A data folder with something in it.
pub struct FilledFolder {
    pub path: PathBuf,
    /// How long filling took; None when it had been filled before.
    pub seconds: Option<f64>,
    _folder: Option<TemporaryFolder>,
}

impl FilledFolder {
    /// Where its messages come from, in words.
    pub fn origin(&self) -> String {
        match self.seconds {
            Some(seconds) => format!("written through the store in {seconds:.1} s"),
            None => "in the folder from an earlier run".to_owned(),
        }
    }

    /// Has `fill` fill the folder that `common` names, or a temporary one. `mark` says in one line with what.
    pub fn make(common: &Common, mark: &str, fill: impl FnOnce(&mut Filler) -> BenchResult<()>) -> BenchResult<FilledFolder> {
        if !common.spawn {
            return Err(BenchError::Usage("this scenario fills a data folder for a server of its own: add --spawn".to_owned()));
        }
        let folder = if common.data.is_none() { Some(TemporaryFolder::new()?) } else { None };
        let path = match (&folder, &common.data) {
            (None, Some(path)) => path.clone(),
            (Some(folder), _) => folder.0.clone(),
            (None, None) => unreachable!("a folder was made because none was named"),
        };
        let begun = std::time::Instant::now();
        let marked = path.join(MARK);
        let known = std::fs::read_to_string(&marked).unwrap_or_default();
        if known == mark {
            return Ok(FilledFolder { path, seconds: None, _folder: folder });
        }
        if !known.is_empty() {
            let path = path.display();
            return Err(BenchError::Usage(format!("{path} was filled for another run ({known}): name another --data folder")));
        }
        let mut filler = Filler::open(&path)?;
        fill(&mut filler)?;
        filler.flush()?;
        drop(filler);
        std::fs::write(&marked, mark).map_err(BenchError::io(format!("write {}", marked.display())))?;
        Ok(FilledFolder { path, seconds: Some(begun.elapsed().as_secs_f64()), _folder: folder })
    }
}

/// Writes into a store that no server has yet.
pub struct Filler {
    backend: EmbeddedBackend,
    writes: Vec<Write>,
    at: u64,
    made: u64,
}

impl Filler {
    fn open(path: &Path) -> BenchResult<Filler> {
        let mut settings = EmbeddedSettings::new(path);
        settings.durability = Durability::Memory;
        let backend = EmbeddedBackend::open(settings).map_err(|fault| BenchError::Usage(fault.to_string()))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Ok(Filler { backend, writes: Vec::new(), at: now - PAST_MS, made: 0 })
    }

    /// Appends one text message; messages are 10 ms apart.
    pub fn message(&mut self, sender: &UserId, conversation: &ConversationId, content: &str) -> BenchResult<()> {
        self.at += 10;
        self.made += 1;
        let client_id = RequestId::new(&format!("fill-{:012x}", self.made)).ok();
        let message = Message {
            conversation: conversation.clone(),
            seq: Seq::NONE,
            id: MessageId::from_parts(self.at, u128::from(self.made).wrapping_mul(GOLDEN)),
            sender: Some(sender.clone()),
            origin: SessionId(1),
            client_id,
            kind: MessageKind::Chat(MessageType::Text),
            content: RawJson::string(content),
            created_at: Millis(self.at),
            extra: None,
        };
        self.write(Write::Append(Box::new(Append { message, head: None, dedupe_since: Millis(self.at - 1), repeat_only: false })))
    }

    /// The time of the last message.
    pub fn now(&self) -> Millis {
        Millis(self.at)
    }

    /// Anything else.
    pub fn write(&mut self, write: Write) -> BenchResult<()> {
        self.writes.push(write);
        if self.writes.len() >= WRITES_TOGETHER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> BenchResult<()> {
        let mut outcomes = Vec::new();
        self.backend.commit(&mut self.writes, &mut outcomes);
        match outcomes.into_iter().find_map(Result::err) {
            Some(fault) => Err(BenchError::Server(format!("the store took no more while it was filled: {fault}"))),
            None => Ok(()),
        }
    }
}

/// A user's id, from a text made here.
pub fn user(text: &str) -> BenchResult<UserId> {
    UserId::new(text).map_err(|fault| BenchError::Usage(fault.to_string()))
}

/// So far back the first message lies.
const PAST_MS: u64 = 12 * 3_600 * 1_000;
const MARK: &str = "bench-filled";
const WRITES_TOGETHER: usize = 4_096;
/// Spreads a counter over all bits.
const GOLDEN: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
