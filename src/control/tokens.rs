//! Owns revoking tokens over REST: noted first, then told to every shard. Never answers before both. Lives on the control thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::answer::RestFault;
use super::body::{self, Body, named};
use super::{State as Shared, calls, clock};
use crate::types::id::{IdFault, check_id};
use crate::types::revocation::{Revocation, RevokedTokens};
use crate::types::storage::{Answer, NoteName, Read, Write};
use crate::types::{ErrorName, Millis, UserId};

/// What is noted, by the id of its note; None until it was read.
pub(super) type Noted = tokio::sync::Mutex<Option<BTreeMap<String, Revocation>>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeBody {
    jti: Option<String>,
    user_id: Option<String>,
    issued_before: Option<u64>,
}

/// `POST /v1/tokens/revoke {jti | user_id, issued_before?}`: answered when it is durable and every shard knows it.
pub(super) async fn revoke(State(state): State<Arc<Shared>>, body: Body) -> Result<Json<Value>, RestFault> {
    let bytes = body::bytes(body)?;
    let body: RevokeBody = body::object(&bytes)?;
    let now = clock();
    let (tokens, latest) = match (&body.jti, &body.user_id, body.issued_before) {
        (Some(token_id), None, None) => {
            let token_id = named(token_id, "jti", |text| check_id(text).map(|()| text.to_owned()))?;
            (RevokedTokens::One { token_id }, now)
        }
        (None, Some(user), before) => {
            let user = named(user, "user_id", |text: &str| -> Result<UserId, IdFault> { UserId::new(text) })?;
            let issued_before = Millis(before.unwrap_or(now.0));
            (RevokedTokens::OfUser { user, issued_before }, issued_before.max(now))
        }
        _ => return Err(RestFault::bad_request("give jti, or user_id and perhaps issued_before")),
    };
    let revocation = Revocation { tokens, until: Millis(latest.0.saturating_add(state.token_life_ms)) };
    note(&state, &revocation, now).await?;
    tell(&state, &revocation).await?;
    tracing::info!(tokens = ?revocation.tokens, "an operator revokes tokens");
    Ok(Json(json!({"until": revocation.until.0})))
}

/// Makes it durable, and forgets those that have run out.
async fn note(state: &Shared, revocation: &Revocation, now: Millis) -> Result<(), RestFault> {
    let mut noted = state.revocations.lock().await;
    if noted.is_none() {
        *noted = Some(read(state).await?);
    }
    let known = noted.as_mut().expect("it was just read");
    let old: Vec<String> =
        known.iter().filter(|(_, known)| known.until <= now).map(|(id, _)| id.clone()).take(FORGET_AT_ONCE).collect();
    for id in old {
        state.archive.write(Write::Note { name: NoteName { kind: Revocation::NOTE, id: id.clone() }, text: None }).await?;
        known.remove(&id);
    }
    let id = revocation.note_id();
    if known.len() >= REVOCATIONS_MAX && !known.contains_key(&id) {
        return Err(RestFault::new(ErrorName::Overloaded, "too many revocations are in force: change the signing key instead"));
    }
    let merged = known.get(&id).map_or_else(|| revocation.clone(), |earlier| revocation.with(earlier));
    let name = NoteName { kind: Revocation::NOTE, id: id.clone() };
    state.archive.write(Write::Note { name, text: Some(merged.note_text()) }).await?;
    known.insert(id, merged);
    Ok(())
}

async fn read(state: &Shared) -> Result<BTreeMap<String, Revocation>, RestFault> {
    let Answer::Notes(notes) = state.archive.read(Read::Notes { kind: Revocation::NOTE }).await? else {
        return Err(calls::unexpected());
    };
    let read = notes.into_iter().map(|(id, text)| Some((id, Revocation::from_note(&text)?)));
    let read: Option<BTreeMap<String, Revocation>> = read.collect();
    read.ok_or(RestFault::new(ErrorName::Internal, "a stored revocation cannot be read"))
}

/// A shard whose queue is full is asked again for a while: it empties it every turn.
async fn tell(state: &Shared, revocation: &Revocation) -> Result<(), RestFault> {
    let revocation = Arc::new(revocation.clone());
    for shard in 0..state.shards {
        let mut attempts = 0;
        while !(state.revoke)(shard, revocation.clone()) {
            attempts += 1;
            if attempts > TELL_ATTEMPTS_MAX {
                return Err(RestFault::new(ErrorName::Overloaded, "it is kept, but not every shard knows it yet: repeat it"));
            }
            sleep(TELL_PAUSE).await;
        }
    }
    Ok(())
}

const REVOCATIONS_MAX: usize = 100_000;
const FORGET_AT_ONCE: usize = 64;
const TELL_ATTEMPTS_MAX: u32 = 200;
const TELL_PAUSE: Duration = Duration::from_millis(5);
