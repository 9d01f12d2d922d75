//! Owns what operators see of live sessions, and their closing. Never asks a shard for a list: it walks the directory in steps
//! and yields between them, so that other requests are answered meanwhile. Lives on the control thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{RestFault, page};
use super::body::{self, Body, PathId, QueryOf};
use super::{KickTarget, State as Shared};
use crate::mesh::directory::{ConnectionId, Cursor, Directory, Entry};
use crate::types::{CloseCode, DeviceId, ErrorName, Millis, UserId};

type Answer = Result<Json<Value>, RestFault>;

/// What lists may be asked with; other members of the query are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    pub(super) user: Option<String>,
    pub(super) limit: Option<String>,
    pub(super) cursor: Option<String>,
}

/// `GET /v1/connections?user=&limit=&cursor=`, in no promised order.
pub(super) async fn list(State(state): State<Arc<Shared>>, query: QueryOf<ListQuery>) -> Answer {
    let query = body::query(query)?;
    let limit = limit(query.limit.as_deref())?;
    let user = query.user.as_deref().map(|user| body::named(user, "the user id", UserId::new)).transpose()?;
    let from = match &query.cursor {
        None => Cursor::default(),
        Some(text) => u64::from_str_radix(text, 16).map(Cursor).map_err(|_| bad_cursor())?,
    };
    let mut found = Vec::new();
    walk(&state.directory, user.as_ref(), from, |id, entry| {
        found.push((id, entry.clone()));
        found.len() <= limit
    })
    .await;
    // One more than was asked for tells whether there is a next page and where it begins.
    let next = (found.len() > limit).then(|| found.pop()).flatten().map(|(id, _)| format!("{:x}", Cursor::at(id).0));
    let connections: Vec<_> = found.iter().map(|(id, entry)| connection(*id, entry)).collect();
    Ok(Json(page("connections", connections, next)))
}

/// `GET /v1/online?limit=&cursor=`: users in the order of their ids; `devices` is a number, `since` that of the oldest session.
///
/// Each page walks the whole directory and keeps only the users of the page: memory is bounded by `limit`, and nothing is
/// remembered between pages.
pub(super) async fn online(State(state): State<Arc<Shared>>, query: QueryOf<ListQuery>) -> Answer {
    let query = body::query(query)?;
    let limit = limit(query.limit.as_deref())?;
    let after = query.cursor.as_deref().map(read_user_cursor).transpose()?;
    let mut users: BTreeMap<UserId, (BTreeSet<DeviceId>, Millis)> = BTreeMap::new();
    walk(&state.directory, None, Cursor::default(), |_, entry| {
        if after.as_ref().is_some_and(|after| entry.user <= *after) {
            return true;
        }
        if let Some((devices, since)) = users.get_mut(&entry.user) {
            devices.insert(entry.device.clone());
            *since = entry.since.min(*since);
        } else if users.len() <= limit || users.last_key_value().is_some_and(|(last, _)| entry.user < *last) {
            users.insert(entry.user.clone(), (BTreeSet::from([entry.device.clone()]), entry.since));
            if users.len() > limit + 1 {
                users.pop_last();
            }
        }
        true
    })
    .await;
    if users.len() > limit {
        users.pop_last();
        let last = users.last_key_value().expect("a limit is at least 1").0.as_str();
        let next = URL_SAFE_NO_PAD.encode(last);
        return Ok(Json(page("users", online_users(&users), Some(next))));
    }
    Ok(Json(page("users", online_users(&users), None)))
}

/// `DELETE /v1/connections/{id}`: asks the home shard to close it with 4011; answered before it is closed.
pub(super) async fn close(State(state): State<Arc<Shared>>, id: PathId) -> Result<(StatusCode, Json<Value>), RestFault> {
    let Path(id) = id.map_err(|_| body::bad_path())?;
    let entry = ConnectionId::parse(&id).and_then(|id| state.directory.get(id));
    let entry = entry.ok_or(RestFault::no_such_connection("there is no such connection (any more)"))?;
    ask(&state, KickTarget::Session { address: entry.address(), close: CloseCode::Kicked })?;
    tracing::info!(user = ?entry.user, connection = ?id, "an operator closes a connection");
    Ok((StatusCode::ACCEPTED, Json(json!({"connections": 1}))))
}

/// What `kick` may be told.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KickBody {
    device_id: Option<String>,
}

/// `POST /v1/users/{id}/kick {device_id?}`: asks the user's owner to close their sessions with 4011; answered before they are
/// closed, with how many there were.
pub(super) async fn kick(
    State(state): State<Arc<Shared>>,
    id: PathId,
    body: Body,
) -> Result<(StatusCode, Json<Value>), RestFault> {
    let user = body::path_id(id, "the user id", UserId::new)?;
    let body = match body::bytes(body)? {
        empty if empty.is_empty() => KickBody::default(),
        text => serde_json::from_slice(&text).map_err(|_| RestFault::bad_request("the body is not {\"device_id\": \"...\"}"))?,
    };
    let device = match body.device_id {
        None => None,
        Some(text) => Some(DeviceId::new(&text).map_err(|fault| RestFault::bad_request(format!("device_id {fault}")))?),
    };
    let mut connections = 0;
    walk(&state.directory, Some(&user), Cursor::default(), |_, entry| {
        connections += usize::from(device.as_ref().is_none_or(|device| *device == entry.device));
        true
    })
    .await;
    // Asked for even when none is seen: a session may just be on its way into the directory.
    ask(&state, KickTarget::User { user: user.clone(), device, close: CloseCode::Kicked })?;
    tracing::info!(?user, connections, "an operator kicks a user");
    if connections == 0 {
        return Err(RestFault::no_such_connection("this user has no live connection"));
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"connections": connections}))))
}

fn ask(state: &Shared, target: KickTarget) -> Result<(), RestFault> {
    match (state.kick)(target) {
        true => Ok(()),
        false => Err(RestFault::new(ErrorName::Overloaded, "the shards' queue is full; try again")),
    }
}

/// Walks from `from` until `visit` answers false or everything was seen.
pub(super) async fn walk(
    directory: &Directory,
    user: Option<&UserId>,
    from: Cursor,
    mut visit: impl FnMut(ConnectionId, &Entry) -> bool,
) {
    let (mut at, mut on) = (from, true);
    while let Some(next) = directory.walk(user, at, SLOTS_PER_STEP, |id, entry| {
        on = visit(id, entry);
        on
    }) {
        if !on {
            return;
        }
        at = next;
        tokio::task::yield_now().await;
    }
}

fn connection(id: ConnectionId, entry: &Entry) -> Value {
    json!({
        "connection_id": id.to_string(),
        "user_id": entry.user.as_str(),
        "device_id": entry.device.as_str(),
        "session_id": entry.session.to_string(),
        "shard": entry.shard.0,
        "since": entry.since.0,
        "remote": entry.remote,
    })
}

fn online_users(users: &BTreeMap<UserId, (BTreeSet<DeviceId>, Millis)>) -> Vec<Value> {
    users
        .iter()
        .map(|(user, (devices, since))| json!({"user_id": user.as_str(), "devices": devices.len(), "since": since.0}))
        .collect()
}

/// 1 and up; more than the most that is given is taken for that.
pub(super) fn limit(text: Option<&str>) -> Result<usize, RestFault> {
    match text.map(str::parse::<u64>) {
        None => Ok(LIMIT_DEFAULT),
        Some(Ok(limit)) if limit > 0 => Ok(usize::try_from(limit).unwrap_or(LIMIT_MAX).min(LIMIT_MAX)),
        Some(_) => Err(RestFault::bad_request("limit must be a whole number from 1 on")),
    }
}

fn read_user_cursor(text: &str) -> Result<UserId, RestFault> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad_cursor())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad_cursor())?;
    UserId::new(text).map_err(|_| bad_cursor())
}

pub(super) fn bad_cursor() -> RestFault {
    RestFault::bad_request("cursor must be what next was in the page before")
}

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1_000;
/// About a millisecond of walking between two chances for other requests.
const SLOTS_PER_STEP: usize = 16_384;
