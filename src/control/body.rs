//! Owns reading what requests carry: bodies, and identifiers in paths and queries. Never decides what they mean.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use serde::Deserialize;

use super::answer::RestFault;
use super::routes;
use crate::types::UserId;
use crate::types::id::IdFault;
use crate::wire::frame::cut;

/// A body as it arrived, or why it did not.
pub(super) type Body = Result<Bytes, BytesRejection>;
/// The one identifier of a path.
pub(super) type PathId = Result<Path<String>, PathRejection>;

/// What a query asks with, or why it cannot be read.
pub(super) type QueryOf<T> = Result<Query<T>, QueryRejection>;

/// The members of a query; those that are not known are ignored.
pub(super) fn query<T>(query: QueryOf<T>) -> Result<T, RestFault> {
    let Query(query) = query.map_err(|_| RestFault::bad_request("the query is broken, or names something twice"))?;
    Ok(query)
}

/// The bytes of a body.
pub(super) fn bytes(body: Body) -> Result<Bytes, RestFault> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => routes::too_large(),
        _ => RestFault::bad_request("the body did not arrive whole"),
    })
}

/// Reads a JSON object whose members are all known.
pub(super) fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RestFault> {
    serde_json::from_slice(bytes).map_err(|fault| {
        let text = fault.to_string();
        RestFault::bad_request(format!("the body is not as described in /openapi.json: {}", cut(&text, REASON_BYTES_MAX)))
    })
}

/// The identifier in a path.
pub(super) fn path_id<T>(id: PathId, what: &str, read: impl FnOnce(&str) -> Result<T, IdFault>) -> Result<T, RestFault> {
    let Path(id) = id.map_err(|_| bad_path())?;
    named(&id, what, read)
}

/// An identifier that is called `what` where it was given.
pub(super) fn named<T>(text: &str, what: &str, read: impl FnOnce(&str) -> Result<T, IdFault>) -> Result<T, RestFault> {
    read(text).map_err(|fault| RestFault::bad_request(format!("{what} {fault}")))
}

/// The users of a list, at most [`USERS_MAX`].
pub(super) fn users(ids: &[String], what: &str) -> Result<Vec<UserId>, RestFault> {
    if ids.len() > USERS_MAX {
        return Err(RestFault::bad_request(format!("{what} names more than {USERS_MAX} users")));
    }
    ids.iter().map(|id| named(id, what, UserId::new)).collect()
}

pub(super) fn bad_path() -> RestFault {
    RestFault::bad_request("the id in the path is not percent-encoded UTF-8")
}

/// As many as the clients' verbs take.
const USERS_MAX: usize = 10_000;
const REASON_BYTES_MAX: usize = 200;
