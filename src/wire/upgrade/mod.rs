//! Owns the HTTP side of a client connection: the WebSocket upgrade (RFC 6455 section 4.2), the few plain requests that the
//! client port answers, and every response before the first frame.
//!
//! Never performs I/O and never verifies a token: it finds the token, the shard's driver has it verified and refuses through
//! [`Refusal`]. Tokens and queries reach no debug output and no message. Lives on shard threads.

mod head;
mod negotiate;
mod query;
mod respond;

#[cfg(test)]
mod tests;

use tungstenite::handshake::derive_accept_key;

use crate::types::command::{Secret, Wishes};
use head::Head;

pub use respond::{Refusal, accept, plain};

/// What an upgrade must satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRules {
    /// The one path that upgrades, `/ws`; None: every path does (echo).
    pub path: Option<String>,
    pub origins: OriginRule,
    /// `?token=` is accepted (`auth.query_token`).
    pub query_token: bool,
}

/// Which pages may connect. Requests without `Origin` come from programs, not pages, and always may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginRule {
    /// Every page: only where nothing is protected (echo).
    Any,
    /// Pages from `exact`, each scheme, host and port as browsers spell it; with `localhost` also pages from this machine.
    Listed { exact: Vec<String>, localhost: bool },
}

/// What the bytes so far are.
#[derive(Debug)]
pub enum Parsed {
    /// The head is incomplete and good so far; at most [`HEAD_BYTES_MAX`] bytes are ever waited for.
    NeedMore,
    Upgrade(UpgradeRequest),
    Plain(PlainRequest),
}

/// An acceptable upgrade, its token not yet verified.
#[derive(Debug)]
pub struct UpgradeRequest {
    /// Bytes of the head; what follows in the buffer are frames.
    pub consumed: usize,
    /// Value of `Sec-WebSocket-Accept`.
    pub accept_key: String,
    /// The subprotocol to name in the answer, if any was agreed.
    pub subprotocol: Option<&'static str>,
    /// From `Authorization`, a `bearer.` subprotocol entry or the query, in this order.
    pub token: Option<Secret>,
    /// `acks`, `presence` and `device_id` of the query.
    pub wishes: Wishes,
    /// As the page's browser sent it; for logs.
    pub origin: Option<String>,
}

/// A plain request that the client port answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainRequest {
    /// Bytes of the head.
    pub consumed: usize,
    pub page: PlainPage,
    /// `HEAD`: the answer has no body.
    pub head_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainPage {
    /// `/health`
    Health,
    /// `/ready`
    Ready,
    /// `/stats`
    Stats,
}

/// Longest request head, in bytes; longer is 431.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// Reads a request head from all bytes received so far on a connection.
pub fn parse(bytes: &[u8], rules: &UpgradeRules) -> Result<Parsed, Refusal> {
    let Some(size) = head::find_end(bytes)? else { return Ok(Parsed::NeedMore) };
    let mut headers = [httparse::EMPTY_HEADER; head::HEADERS_MAX];
    let head = Head::parse(&bytes[..size], &mut headers)?;
    let (path, query) = head.target.split_once('?').unwrap_or((head.target, ""));
    let page = match path {
        "/health" => Some(PlainPage::Health),
        "/ready" => Some(PlainPage::Ready),
        "/stats" => Some(PlainPage::Stats),
        _ => None,
    };
    let wants_upgrade = head.lists("upgrade", "websocket");
    let upgrades = rules.path.as_ref().map_or(page.is_none() || wants_upgrade, |only| only == path);
    match page {
        _ if upgrades => upgrade(&head, wants_upgrade, query, rules).map(|request| Parsed::Upgrade(request.consumed(size))),
        Some(page) => {
            head.only_methods(&["GET", "HEAD"])?;
            head.no_body()?;
            Ok(Parsed::Plain(PlainRequest { consumed: size, page, head_only: head.method == "HEAD" }))
        }
        None => Err(Refusal::new(404, "NOT_FOUND", "there is nothing at this path; the WebSocket endpoint is /ws")),
    }
}

impl UpgradeRequest {
    fn consumed(self, consumed: usize) -> UpgradeRequest {
        UpgradeRequest { consumed, ..self }
    }
}

fn upgrade(head: &Head<'_, '_>, wants_upgrade: bool, query: &str, rules: &UpgradeRules) -> Result<UpgradeRequest, Refusal> {
    head.only_methods(&["GET"])?;
    head.no_body()?;
    if !wants_upgrade {
        let refusal = Refusal::new(426, "UPGRADE_REQUIRED", "this path speaks WebSocket only");
        return Err(refusal.header("Upgrade", "websocket"));
    }
    if !head.lists("connection", "upgrade") {
        return Err(Refusal::bad_request("`Connection` must contain `Upgrade`"));
    }
    if head.single("sec-websocket-version")? != Some("13") {
        let refusal = Refusal::new(426, "UPGRADE_REQUIRED", "`Sec-WebSocket-Version` must be 13");
        return Err(refusal.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13"));
    }
    let key = negotiate::key(head)?;
    let origin = negotiate::origin(head, &rules.origins)?;
    negotiate::judge_extensions(head)?;
    let offer = negotiate::subprotocols(head)?;
    let asked = query::parse(query, rules.query_token)?;
    let token = negotiate::authorization(head)?.or(offer.token).or(asked.token);
    Ok(UpgradeRequest {
        consumed: 0,
        accept_key: derive_accept_key(key.as_bytes()),
        subprotocol: offer.subprotocol,
        token: token.map(Secret),
        wishes: asked.wishes,
        origin: origin.map(str::to_owned),
    })
}
