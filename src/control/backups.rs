//! Owns beginning a backup of the running store and telling how far it is. Never copies anything itself: the store has a thread
//! for it. Lives on the control thread, but for the wait until a backup has begun.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::State as Shared;
use super::answer::RestFault;
use super::body::{self, Body};
use crate::store::{BackupFault, BackupReport, Backups};
use crate::types::ErrorName;

/// What a backup is asked for with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    to: PathBuf,
    bytes_per_second: Option<u64>,
}

/// `POST /v1/store/backup`: 202 when it has begun.
pub(super) async fn begin(State(state): State<Arc<Shared>>, body: Body) -> Result<(StatusCode, Json<Value>), RestFault> {
    let bytes = body::bytes(body)?;
    let wanted: Wanted = body::object(&bytes)?;
    let backups = backups(&state)?;
    let bytes_per_second = wanted.bytes_per_second.unwrap_or(BYTES_PER_SECOND);
    if bytes_per_second < BYTES_PER_SECOND_MIN {
        return Err(RestFault::bad_request(format!("bytes_per_second must be at least {BYTES_PER_SECOND_MIN}")));
    }
    // It waits for the disk that the folder is on; this thread has others to serve.
    let asked = backups.clone();
    let begun = tokio::task::spawn_blocking(move || asked.begin(wanted.to, bytes_per_second)).await;
    begun.unwrap_or(Err(BackupFault::Closed)).map_err(|fault| match fault {
        BackupFault::Busy { .. } => RestFault::new(ErrorName::AlreadyExists, fault.to_string()),
        BackupFault::Closed | BackupFault::Source(_) => RestFault::new(ErrorName::StoreUnavailable, fault.to_string()),
        _ => RestFault::bad_request(fault.to_string()),
    })?;
    Ok((StatusCode::ACCEPTED, Json(told(backups.report()))))
}

/// `GET /v1/store/backup`: the last one since the start.
pub(super) async fn show(State(state): State<Arc<Shared>>) -> Result<Json<Value>, RestFault> {
    Ok(Json(told(backups(&state)?.report())))
}

fn backups(state: &Shared) -> Result<&Backups, RestFault> {
    state
        .backups
        .as_ref()
        .ok_or_else(|| RestFault::bad_request("this server keeps nothing on disk (store.kind): nothing to copy"))
}

fn told(report: Option<BackupReport>) -> Value {
    let Some(BackupReport { to, begun_at, ended, copied }) = report else { return json!({"state": "none"}) };
    let mut told = json!({
        "state": "running", "to": to.display().to_string(), "begun_at": begun_at.0, "records": copied.records,
        "bytes": copied.bytes,
    });
    if let Some((at, result)) = ended {
        told["ended_at"] = at.0.into();
        told["state"] = if result.is_ok() { "done" } else { "failed" }.into();
        if let Err(reason) = result {
            told["reason"] = reason.into();
        }
    }
    told
}

/// Little enough to leave the disk to the server: a gigabyte a minute.
const BYTES_PER_SECOND: u64 = 16 << 20;
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;
