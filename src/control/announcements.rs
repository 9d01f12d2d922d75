//! Owns announcements to everybody: recording one, and working it off user by user in the background. Never hurries: a bounded
//! number of users a second, whatever waits, so that nobody else is delayed. Lives on the control thread.
//!
//! An announcement is recorded first, as a note; how far it has got is a second note that follows every batch. Whatever ends the
//! process, the next start goes on behind the last batch that is known to be done, and of the users of an unfinished one those
//! who have it already are found by its name, which is the client id of every one of its notifications.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::{RestFault, page};
use super::sessions::walk;
use super::{State as Shared, calls, clock};
use crate::mesh::directory::Cursor;
use crate::types::storage::{Answer, NoteName, Read, Write};
use crate::types::{Call, ErrorName, MessageId, Millis, RawJson, RequestId, UserId};

/// All announcements that are known: those being worked off, and those whose `message_id` is remembered.
#[derive(Default)]
pub(super) struct Crier {
    /// By id, hence in the order of their making. None until they were read.
    known: Mutex<Option<BTreeMap<String, Announcement>>>,
    /// Held while one is being recorded, so that a repeat finds it.
    recording: tokio::sync::Mutex<()>,
    news: Notify,
}

/// One announcement, and how far it has got.
#[derive(Clone, Debug)]
struct Announcement {
    record: Record,
    progress: Progress,
}

/// What never changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    /// The operator's own id.
    request: Option<String>,
    /// JSON text. Empty in memory once everybody was told.
    content: String,
    created_at: u64,
    /// Users known when it was made.
    recipients: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// The last user who has it.
    last: Option<String>,
    told: u64,
    done: bool,
}

/// Records an announcement, or finds the one that was recorded under the same `request`.
pub(super) async fn announce(state: &Shared, content: RawJson, request: Option<RequestId>) -> Result<Json<Value>, RestFault> {
    let crier = &state.crier;
    let _recording = crier.recording.lock().await;
    load(state).await?;
    forget_old(state).await?;
    let known = crier.with(|known| {
        let same =
            |one: &&Announcement| request.is_some() && one.record.request.as_deref() == request.as_ref().map(RequestId::as_str);
        let unfinished = known.values().filter(|one| !one.progress.done).count();
        let found = known.iter().find(|(_, one)| same(one)).map(|(id, one)| answer(id, &one.record, true));
        (found, unfinished, known.len())
    });
    match known {
        (Some(found), _, _) => return Ok(found),
        (None, unfinished, known) if unfinished >= UNFINISHED_MAX || known >= KNOWN_MAX => {
            let message = "too many announcements are being worked off or remembered; try again later";
            return Err(RestFault::new(ErrorName::Overloaded, message));
        }
        _ => {}
    }
    know_newcomers(state).await?;
    let Answer::Count(recipients) = state.archive.read(Read::UserCount).await? else { return Err(calls::unexpected()) };
    let now = clock();
    let id = MessageId::from_parts(now.0, fastrand::u128(..)).to_string();
    let request = request.map(|request| request.as_str().to_owned());
    let record = Record { request, content: content.as_str().to_owned(), created_at: now.0, recipients };
    put(state, RECORD, &id, &record).await?;
    tracing::info!(%id, recipients, "an announcement is on its way");
    let told = answer(&id, &record, false);
    crier.with(|known| known.insert(id, Announcement { record, progress: Progress::default() }));
    crier.news.notify_one();
    Ok(told)
}

/// Users who have just connected for the first time may be on their way into the store: they are to be told, too.
async fn know_newcomers(state: &Shared) -> Result<(), RestFault> {
    let since = Millis(clock().0.saturating_sub(NEW_MS));
    let mut users = BTreeSet::new();
    walk(&state.directory, None, Cursor::default(), |_, entry| {
        if entry.since >= since {
            users.insert(entry.user.clone());
        }
        users.len() < NEWCOMERS_MAX
    })
    .await;
    if users.is_empty() { Ok(()) } else { state.archive.write(Write::Know(users.into_iter().collect())).await }
}

/// `GET /v1/announcements`: how far each has got, the newest first.
pub(super) async fn list(State(state): State<Arc<Shared>>) -> Result<Json<Value>, RestFault> {
    load(&state).await?;
    let items = state.crier.with(|known| {
        let item = |(id, one): (&String, &Announcement)| {
            json!({
                "message_id": id,
                "created_at": one.record.created_at,
                "recipients": one.record.recipients,
                "told": one.progress.told,
                "done": one.progress.done,
            })
        };
        known.iter().rev().take(LISTED_MAX).map(item).collect()
    });
    Ok(Json(page("announcements", items, None)))
}

/// Works off announcements, one after the other, as long as the process lives.
pub(super) async fn work(state: Arc<Shared>) {
    loop {
        let next = match load(&state).await {
            Ok(()) => state
                .crier
                .with(|known| known.iter().find(|(_, one)| !one.progress.done).map(|(id, one)| (id.clone(), one.clone()))),
            Err(_) => {
                sleep(RETRY_AFTER).await;
                continue;
            }
        };
        match next {
            None => state.crier.news.notified().await,
            Some((id, announcement)) => spread(&state, &id, announcement).await,
        }
    }
}

/// Tells one announcement to everybody behind its cursor.
async fn spread(state: &Arc<Shared>, id: &str, announcement: Announcement) {
    let Announcement { record, mut progress } = announcement;
    let batch = (state.announcements_per_second / BATCHES_PER_SECOND).clamp(1, BATCH_MAX);
    while !progress.done {
        let begun = Instant::now();
        let after = progress.last.as_deref().and_then(|last| UserId::new(last).ok());
        let users = match state.archive.read(Read::Users { after, limit: batch }).await {
            Ok(Answer::Users(users)) => users,
            _ => {
                sleep(RETRY_AFTER).await;
                continue;
            }
        };
        match users.last() {
            None => progress.done = true,
            Some(last) => progress.last = Some(last.as_str().to_owned()),
        }
        progress.told += users.len() as u64;
        tell(state, id, &record.content, users).await;
        while put(state, PROGRESS, id, &progress).await.is_err() {
            sleep(RETRY_AFTER).await;
        }
        state.crier.with(|known| {
            if let Some(known) = known.get_mut(id) {
                known.progress = progress.clone();
                if progress.done {
                    known.record.content = String::new();
                }
            }
        });
        let pause_us = 1_000_000 * u64::from(batch) / u64::from(state.announcements_per_second.max(1));
        sleep_until(begun + Duration::from_micros(pause_us)).await;
    }
    tracing::info!(%id, told = progress.told, "an announcement has been written to everybody");
}

/// Has a notification written for each user, a few at a time. Who was not reached is tried again: twice is once.
async fn tell(state: &Arc<Shared>, id: &str, content: &str, users: Vec<UserId>) {
    let request = RequestId::new(&format!("announcement:{id}")).expect("a prefix and a UUID are an identifier");
    let mut missing = users;
    while !missing.is_empty() {
        let mut failed = Vec::new();
        for some in missing.chunks(AT_ONCE) {
            let mut open = JoinSet::new();
            for user in some.iter().cloned() {
                let (state, request, content) = (state.clone(), request.clone(), RawJson::from_validated(content));
                open.spawn(async move {
                    let call = Call::Notify { user: user.clone(), request: Some(request), kind: KIND.into(), content };
                    calls::send(&state, call).await.map(drop).map_err(|_| user)
                });
            }
            while let Some(told) = open.join_next().await {
                failed.extend(told.ok().and_then(Result::err));
            }
        }
        if !failed.is_empty() {
            sleep(RETRY_AFTER).await;
        }
        missing = failed;
    }
}

/// Reads what is known, once.
async fn load(state: &Shared) -> Result<(), RestFault> {
    if state.crier.lock().is_some() {
        return Ok(());
    }
    let records: BTreeMap<String, Record> = notes(state, RECORD).await?;
    let mut progress: BTreeMap<String, Progress> = notes(state, PROGRESS).await?;
    let known = records.into_iter().map(|(id, mut record)| {
        let progress = progress.remove(&id).unwrap_or_default();
        if progress.done {
            record.content = String::new();
        }
        (id, Announcement { record, progress })
    });
    // Two may read at the same time; the first one counts.
    state.crier.lock().get_or_insert(known.collect());
    Ok(())
}

/// Forgets those that are done and whose `message_id` need not be remembered any more.
async fn forget_old(state: &Shared) -> Result<(), RestFault> {
    let since = clock().0.saturating_sub(state.dedupe_window_ms);
    let old: Vec<String> = state.crier.with(|known| {
        let old = known.iter().filter(|(_, one)| one.progress.done && one.record.created_at < since);
        old.map(|(id, _)| id.clone()).take(FORGET_AT_ONCE).collect()
    });
    for id in old {
        // The record goes first: progress without a record is looked at by nobody, a record without progress would be told again.
        for kind in [RECORD, PROGRESS] {
            state.archive.write(Write::Note { name: NoteName { kind, id: id.clone() }, text: None }).await?;
        }
        state.crier.with(|known| known.remove(&id));
    }
    Ok(())
}

async fn notes<T: for<'a> Deserialize<'a>>(state: &Shared, kind: &'static str) -> Result<BTreeMap<String, T>, RestFault> {
    let Answer::Notes(notes) = state.archive.read(Read::Notes { kind }).await? else { return Err(calls::unexpected()) };
    let read = notes.into_iter().map(|(id, text)| match serde_json::from_str(&text) {
        Ok(note) => Ok((id, note)),
        Err(fault) => {
            tracing::error!(kind, %id, %fault, "a note cannot be read: a newer version may have written it");
            Err(RestFault::new(ErrorName::Internal, "a stored announcement cannot be read"))
        }
    });
    read.collect()
}

async fn put<T: Serialize>(state: &Shared, kind: &'static str, id: &str, note: &T) -> Result<(), RestFault> {
    let text = serde_json::to_string(note).expect("texts and numbers are always JSON");
    state.archive.write(Write::Note { name: NoteName { kind, id: id.to_owned() }, text: Some(text) }).await
}

fn answer(id: &str, record: &Record, duplicate: bool) -> Json<Value> {
    Json(json!({"message_id": id, "recipients": record.recipients, "created_at": record.created_at, "duplicate": duplicate}))
}

impl Crier {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<BTreeMap<String, Announcement>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what is known; nothing is before it was loaded.
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<String, Announcement>) -> T) -> T {
        look(self.lock().get_or_insert_default())
    }
}

pub(super) const KIND: &str = "announcement";
/// Kinds of notes.
const RECORD: &str = "announcement";
const PROGRESS: &str = "announcement-progress";
/// A device is known to the store so long after its connecting, however busy it is.
const NEW_MS: u64 = 60_000;
const NEWCOMERS_MAX: usize = 100_000;
/// Each holds its content in memory until everybody has it.
const UNFINISHED_MAX: usize = 16;
const KNOWN_MAX: usize = 10_000;
const LISTED_MAX: usize = 1_000;
const FORGET_AT_ONCE: usize = 16;
const BATCHES_PER_SECOND: u32 = 10;
const BATCH_MAX: u32 = 1_000;
/// Calls under way at once: few, so that requests of operators always find room.
const AT_ONCE: usize = 64;
const RETRY_AFTER: Duration = Duration::from_millis(500);
