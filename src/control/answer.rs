//! Owns the form of answers: errors as `{"error": {"code", "name", "message"}}`, lists by pages. Never decides what is said.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::types::ErrorName;
use crate::types::outcome::Fault;

/// A refusal. Names are those of the protocol, and a few that only HTTP needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RestFault {
    status: StatusCode,
    name: &'static str,
    message: Cow<'static, str>,
    retry_after_s: u64,
}

impl RestFault {
    pub(super) fn new(name: ErrorName, message: impl Into<Cow<'static, str>>) -> RestFault {
        let status = StatusCode::from_u16(name.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        RestFault { status, name: name.name(), message: message.into(), retry_after_s: 1 }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> RestFault {
        RestFault::new(ErrorName::BadRequest, message)
    }

    pub(super) fn no_such_connection(message: &'static str) -> RestFault {
        RestFault { status: StatusCode::NOT_FOUND, name: "NO_SUCH_CONNECTION", message: message.into(), retry_after_s: 1 }
    }

    pub(super) fn no_such_path() -> RestFault {
        let message = "there is nothing at this path; /openapi.json lists what there is".into();
        RestFault { status: StatusCode::NOT_FOUND, name: "NOT_FOUND", message, retry_after_s: 1 }
    }

    pub(super) fn wrong_method() -> RestFault {
        let message = "this path does not know this method; Allow names those it knows".into();
        RestFault { status: StatusCode::METHOD_NOT_ALLOWED, name: "METHOD_NOT_ALLOWED", message, retry_after_s: 1 }
    }

    pub(super) fn timeout() -> RestFault {
        let message = "the request was not complete in time".into();
        RestFault { status: StatusCode::REQUEST_TIMEOUT, name: "REQUEST_TIMEOUT", message, retry_after_s: 1 }
    }

    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

/// One page of a list.
pub(super) fn page(name: &str, items: Vec<Value>, next: Option<String>) -> Value {
    let mut page = json!({"has_more": next.is_some()});
    page[name] = Value::Array(items);
    if let Some(next) = next {
        page["next"] = Value::String(next);
    }
    page
}

impl From<ErrorName> for RestFault {
    fn from(name: ErrorName) -> RestFault {
        RestFault::new(name, name.text())
    }
}

impl From<Fault> for RestFault {
    fn from(fault: Fault) -> RestFault {
        let retry_after_s = fault.retry_after_ms.map_or(1, |after_ms| after_ms.div_ceil(1_000).max(1));
        let message = if fault.message.is_empty() { fault.name.text().into() } else { fault.message };
        RestFault { retry_after_s, ..RestFault::new(fault.name, message) }
    }
}

impl IntoResponse for RestFault {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.status.as_u16(), "name": self.name, "message": self.message}});
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_s));
        }
        response
    }
}
