//! Owns the form of HTTP responses on the client port. Every one but the 101 ends the connection.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{PlainRequest, UpgradeRequest};
use crate::types::outcome::Fault;
use crate::wire::json::write_string;

/// An answer instead of the upgrade: a status and the error body of the REST interface. The connection closes after it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {name}: {message}")]
pub struct Refusal {
    pub status: u16,
    /// Stable name, as in the protocol's errors.
    pub name: &'static str,
    pub message: Cow<'static, str>,
    headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl Refusal {
    pub fn new(status: u16, name: &'static str, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, name, message: message.into(), headers: Vec::new() }
    }

    /// 400 `BAD_REQUEST`.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(400, "BAD_REQUEST", message)
    }

    /// 401: no good token.
    pub fn unauthorized(name: &'static str, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(401, name, message).header("WWW-Authenticate", "Bearer")
    }

    /// 503 `OVERLOADED`: the node has no room; `Retry-After` in whole seconds, at least 1.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, retry_after_ms: u64) -> Refusal {
        Refusal::new(503, "OVERLOADED", message).retry_after(retry_after_ms)
    }

    /// 503 `DRAINING`: the node is not ready yet or about to stop; `Retry-After` in whole seconds, at least 1.
    pub fn draining(message: impl Into<Cow<'static, str>>, retry_after_ms: u64) -> Refusal {
        Refusal::new(503, "DRAINING", message).retry_after(retry_after_ms)
    }

    /// 429 `RATE_LIMITED`: this address has had its share; `Retry-After` in whole seconds, at least 1.
    pub fn too_many(message: impl Into<Cow<'static, str>>, retry_after_ms: u64) -> Refusal {
        Refusal::new(429, "RATE_LIMITED", message).retry_after(retry_after_ms)
    }

    /// Adds a header line; `value` must not come from a client.
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Refusal {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds `Retry-After`.
    pub fn retry_after(self, after_ms: u64) -> Refusal {
        self.header("Retry-After", after_ms.div_ceil(1_000).max(1).to_string())
    }

    /// The whole response.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = format!("{{\"error\":{{\"code\":{},\"name\":\"{}\",\"message\":", self.status, self.name).into_bytes();
        write_string(&mut body, &self.message);
        body.extend_from_slice(b"}}");
        let mut headers: SmallVec<[(&str, &str); 4]> = SmallVec::new();
        headers.push(("Content-Type", "application/json"));
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_ref())));
        response(self.status, &headers, &body, true)
    }
}

/// The error of a verified-and-refused token, or of any other outcome of the protocol, under its own code.
impl From<&Fault> for Refusal {
    fn from(fault: &Fault) -> Refusal {
        let message = if fault.message.is_empty() { Cow::Borrowed(fault.name.text()) } else { fault.message.clone() };
        let refusal = match fault.name.code() {
            401 => Refusal::unauthorized(fault.name.name(), message),
            status => Refusal::new(status, fault.name.name(), message),
        };
        match fault.retry_after_ms {
            Some(after_ms) => refusal.retry_after(after_ms),
            None => refusal,
        }
    }
}

/// The 101 response; frames may follow it at once.
pub fn accept(request: &UpgradeRequest) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    write_header_line(&mut out, "Sec-WebSocket-Accept", &request.accept_key);
    if let Some(subprotocol) = request.subprotocol {
        write_header_line(&mut out, "Sec-WebSocket-Protocol", subprotocol);
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A plain response that ends the connection; `Content-Length` and `Connection` are added.
pub fn plain(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    response(status, headers, body, true)
}

impl PlainRequest {
    /// The response to this request: [`plain`], without the body when it was a `HEAD`.
    pub fn respond(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        response(status, headers, body, !self.head_only)
    }
}

fn response(status: u16, headers: &[(&str, &str)], body: &[u8], with_body: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + body.len());
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(digits.format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        write_header_line(&mut out, name, value);
    }
    write_header_line(&mut out, "Content-Length", digits.format(body.len()));
    // A header of one hop must be named in `Connection` (RFC 9110 section 7.8).
    let upgrades = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    write_header_line(&mut out, "Connection", if upgrades { "close, Upgrade" } else { "close" });
    out.extend_from_slice(b"\r\n");
    if with_body {
        out.extend_from_slice(body);
    }
    out
}

fn write_header_line(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}
