//! Owns what users would find, as operators see it: presence, unread counts, conversations, messages, what is undelivered. The
//! objects are those of the clients' own answers. Lives on the control thread.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::answer::RestFault;
use super::body::{PathId, QueryOf, named, path_id, query};
use super::calls::{as_data, as_entry, unexpected};
use super::{State as Shared, calls, clock};
use crate::types::command::{ConversationRef, HistoryQuery};
use crate::types::push::HistoryNext;
use crate::types::record::{SharedMessage, UserConversation};
use crate::types::storage::{Answer, RangePage, RangeQuery, Read};
use crate::types::{Call, ConversationId, DeviceId, Millis, Push, Seq, UserId};
use crate::wire::json::continue_history;

/// `GET /v1/users/{id}/presence`.
pub(super) async fn presence(State(state): State<Arc<Shared>>, id: PathId) -> Result<Response, RestFault> {
    let user = path_id(id, "the user id", UserId::new)?;
    match calls::call(&state, Call::Presence { user }).await? {
        Push::PresenceUsers(entries) => entries.first().map(as_entry).ok_or_else(unexpected),
        _ => Err(unexpected()),
    }
}

/// `GET /v1/users/{id}/unread`.
pub(super) async fn unread(State(state): State<Arc<Shared>>, id: PathId) -> Result<Response, RestFault> {
    let user = path_id(id, "the user id", UserId::new)?;
    match state.archive.read(Read::Unread { user }).await? {
        Answer::Unread(conversations) => {
            let total = conversations.iter().map(|entry| entry.unread).sum();
            Ok(as_data(&Push::Unread { total, conversations }))
        }
        _ => Err(unexpected()),
    }
}

/// What pages may be asked with.
#[derive(Debug, Deserialize)]
pub(super) struct Paging {
    limit: Option<String>,
    cursor: Option<String>,
    device_id: Option<String>,
}

/// `GET /v1/users/{id}/conversations?limit=&cursor=`: newest first.
pub(super) async fn conversations(
    State(state): State<Arc<Shared>>,
    id: PathId,
    paging: QueryOf<Paging>,
) -> Result<Response, RestFault> {
    let user = path_id(id, "the user id", UserId::new)?;
    let paging = query(paging)?;
    let read = Read::Summaries { user, limit: limit(paging.limit.as_deref())?, cursor: paging.cursor };
    match state.archive.read(read).await? {
        Answer::Summaries { conversations, next } => {
            Ok(as_data(&Push::Conversations { conversations, has_more: next.is_some(), next }))
        }
        _ => Err(unexpected()),
    }
}

/// `GET /v1/users/{id}/offline?limit=&cursor=&device_id=`: what `sync` would push to a device, or, without one, what no device
/// of the user has had. Notifications first, then one conversation after the other, each from its oldest on.
pub(super) async fn offline(
    State(state): State<Arc<Shared>>,
    id: PathId,
    paging: QueryOf<Paging>,
) -> Result<Response, RestFault> {
    let user = path_id(id, "the user id", UserId::new)?;
    let paging = query(paging)?;
    let limit = limit(paging.limit.as_deref())? as usize;
    let named_device = paging.device_id.as_deref().map(|id| named(id, "device_id", DeviceId::new)).transpose()?;
    let device = named_device.clone().unwrap_or_else(DeviceId::unnamed);
    let known = match state.archive.read(Read::User { user: user.clone(), device, recent_since: None }).await? {
        Answer::User(known) => known,
        _ => return Err(unexpected()),
    };
    let as_device = named_device.is_some() && known.device_known;
    let had = |row: &UserConversation| match row.delivered_device {
        Some(seq) if as_device => seq.max(row.start_seq),
        None if as_device => row.start_seq,
        _ => row.delivered_any.max(row.start_seq),
    };
    let mut rows: Vec<(ConversationId, Seq)> =
        known.conversations.iter().filter(|row| had(row) < row.head).map(|row| (row.conversation.clone(), had(row))).collect();
    rows.sort_by(|one, other| other.0.is_system().cmp(&one.0.is_system()).then_with(|| one.0.cmp(&other.0)));
    if let Some(cursor) = &paging.cursor {
        skip_to(&mut rows, cursor)?;
    }
    let (messages, next) = undelivered(&state, &user, rows, limit).await?;
    Ok(as_data(&Push::SearchResult { messages, has_more: next.is_some(), next }))
}

/// Reads row after row until the page is full; the second is where the next one begins.
async fn undelivered(
    state: &Shared,
    user: &UserId,
    rows: Vec<(ConversationId, Seq)>,
    limit: usize,
) -> Result<(Vec<SharedMessage>, Option<String>), RestFault> {
    let now = clock();
    let mut messages: Vec<SharedMessage> = Vec::new();
    for (conversation, from) in rows {
        let mut after = from;
        loop {
            if messages.len() >= limit {
                return Ok((messages, Some(cursor_at(&conversation, after))));
            }
            let range = RangeQuery {
                viewer: Some(user.clone()),
                after: Some(after),
                limit: (limit - messages.len()) as u32,
                ..whole(conversation.clone())
            };
            let page = range_page(state, range).await?;
            after = page.messages.last().map_or(after, |message| message.seq);
            let more = page.has_more;
            messages.extend(page.messages.into_iter().filter(|message| !message.expired(now)));
            if !more {
                break;
            }
        }
    }
    Ok((messages, None))
}

/// Leaves out the rows before the one in which a page ended, and of that one what the page had.
fn skip_to(rows: &mut Vec<(ConversationId, Seq)>, cursor: &str) -> Result<(), RestFault> {
    let bad = || RestFault::bad_request("cursor must be what next was in the page before");
    let text = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad)?;
    let (seq, id) = text.split_once(':').ok_or_else(bad)?;
    let seq = Seq(seq.parse().map_err(|_| bad())?);
    let id = ConversationId::parse(id).map_err(|_| bad())?;
    let place = |id: &ConversationId| (!id.is_system(), id.clone());
    rows.retain(|(conversation, _)| place(conversation) >= place(&id));
    if let Some((_, had)) = rows.first_mut().filter(|(conversation, _)| *conversation == id) {
        *had = seq.max(*had);
    }
    Ok(())
}

fn cursor_at(conversation: &ConversationId, seq: Seq) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{conversation}", seq.0))
}

/// The bounds of a stretch, as in `get_history`.
#[derive(Debug, Deserialize)]
pub(super) struct Bounds {
    before_seq: Option<String>,
    after_seq: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// `GET /v1/conversations/{id}/messages`: pages as those of `get_history`, of the whole log.
pub(super) async fn messages(
    State(state): State<Arc<Shared>>,
    id: PathId,
    bounds: QueryOf<Bounds>,
) -> Result<Response, RestFault> {
    let conversation = path_id(id, "the conversation id", ConversationId::parse)?;
    let bounds = query(bounds)?;
    let mut asked = HistoryQuery {
        conversation: ConversationRef::Id(conversation.clone()),
        before: number(bounds.before_seq.as_deref(), "before_seq", 1)?.map(Seq),
        after: number(bounds.after_seq.as_deref(), "after_seq", 0)?.map(Seq),
        since: number(bounds.since.as_deref(), "since", 0)?.map(Millis),
        until: number(bounds.until.as_deref(), "until", 0)?.map(Millis),
        limit: limit(bounds.limit.as_deref())?,
    };
    if let Some(cursor) = &bounds.cursor {
        let fault = || RestFault::bad_request("cursor must be what next was in the page before, with the same bounds");
        continue_history(&mut asked, cursor).ok_or_else(fault)?;
    }
    let newest = asked.after.is_none();
    let range = RangeQuery {
        after: asked.after,
        before: asked.before,
        since: asked.since,
        until: asked.until,
        newest,
        limit: asked.limit,
        ..whole(conversation.clone())
    };
    let page = range_page(&state, range).await?;
    let next = match (page.has_more, newest) {
        (false, _) => None,
        (true, true) => page.messages.first().map(|first| HistoryNext::Before(first.seq)),
        (true, false) => page.messages.last().map(|last| HistoryNext::After(last.seq)),
    };
    Ok(as_data(&Push::History { conversation, messages: page.messages, has_more: next.is_some(), next }))
}

fn whole(conversation: ConversationId) -> RangeQuery {
    RangeQuery {
        conversation,
        viewer: None,
        after: None,
        before: None,
        since: None,
        until: None,
        newest: false,
        limit: 1,
        bytes_max: PAGE_BYTES_MAX,
    }
}

async fn range_page(state: &Shared, range: RangeQuery) -> Result<RangePage, RestFault> {
    match state.archive.read(Read::Range(range)).await? {
        Answer::Range(page) => Ok(page),
        _ => Err(unexpected()),
    }
}

fn number(text: Option<&str>, name: &str, least: u64) -> Result<Option<u64>, RestFault> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<u64>() {
        Ok(number) if (least..=NUMBER_MAX).contains(&number) => Ok(Some(number)),
        _ => Err(RestFault::bad_request(format!("{name} must be a whole number from {least} to 2^63"))),
    }
}

fn limit(text: Option<&str>) -> Result<u32, RestFault> {
    match text.map(str::parse::<u64>) {
        None => Ok(LIMIT_DEFAULT),
        Some(Ok(limit)) if limit > 0 => Ok(limit.min(u64::from(LIMIT_MAX)) as u32),
        Some(_) => Err(RestFault::bad_request("limit must be a whole number from 1 on")),
    }
}

/// As of the clients' lists.
const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;
const PAGE_BYTES_MAX: usize = 1 << 20;
const NUMBER_MAX: u64 = 1 << 63;
