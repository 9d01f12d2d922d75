//! Owns the table of routes and what every request passes on its way to one: access, size, time. Never answers itself unless it
//! refuses. Lives on the control thread.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::access::API_KEY;
use super::answer::RestFault;
use super::listen::Peer;
use super::{State as Shared, announcements, backups, groups, lookups, messages, operation, sessions, tokens};
use crate::types::ErrorName;

/// Every route with what all requests pass.
pub(super) fn router(state: Arc<Shared>) -> Router {
    Router::new()
        .route("/health", get(operation::health))
        .route("/ready", get(operation::ready))
        .route("/metrics", get(operation::metrics))
        .route("/stats", get(operation::stats))
        .route("/openapi.json", get(operation::openapi))
        .route("/v1/stats", get(operation::stats))
        .route("/v1/online", get(sessions::online))
        .route("/v1/connections", get(sessions::list))
        .route("/v1/connections/{id}", delete(sessions::close))
        .route("/v1/users/{id}/kick", post(sessions::kick))
        .route("/v1/messages", post(messages::post))
        .route("/v1/announcements", get(announcements::list))
        .route("/v1/tokens/revoke", post(tokens::revoke))
        .route("/v1/users/{id}/presence", get(lookups::presence))
        .route("/v1/users/{id}/unread", get(lookups::unread))
        .route("/v1/users/{id}/offline", get(lookups::offline))
        .route("/v1/users/{id}/conversations", get(lookups::conversations))
        .route("/v1/conversations/{id}/messages", get(lookups::messages))
        .route("/v1/groups", get(groups::list).post(groups::create))
        .route("/v1/groups/{id}", get(groups::show).delete(groups::delete))
        .route("/v1/groups/{id}/members", get(groups::members).post(groups::add).delete(groups::remove))
        .route("/v1/groups/{id}/members/{user}", put(groups::put).delete(groups::remove_one))
        .route("/v1/store/backup", get(backups::show).post(backups::begin))
        .fallback(|| async { RestFault::no_such_path() })
        .method_not_allowed_fallback(|| async { RestFault::wrong_method() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(state.clone(), guard))
        .layer(cors(state.clone()))
        .with_state(state)
}

/// What needs no key: what load balancers and scrapers ask for, and the sums that the client port shows to everyone too.
fn open(path: &str) -> bool {
    !(path == "/v1" || path.starts_with("/v1/") || path == "/openapi.json")
}

async fn guard(State(state): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = match admit(&state, &request) {
        Ok(()) => match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => RestFault::timeout().into_response(),
        },
        Err(fault) => fault.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn admit(state: &Shared, request: &Request) -> Result<(), RestFault> {
    if !open(request.uri().path()) {
        let peer = request.extensions().get::<Peer>().expect("the listener names the peer of every request");
        state.access.check(request.headers(), peer.0)?;
    }
    if claimed_bytes(request.headers()) > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    Ok(())
}

/// The length that a request announces; hyper has refused what is no number.
fn claimed_bytes(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.map_or(0, |text| text.parse().unwrap_or(u64::MAX))
}

pub(super) fn too_large() -> RestFault {
    RestFault::new(ErrorName::TooLarge, "the body is larger than 1 MiB")
}

fn cors(state: Arc<Shared>) -> CorsLayer {
    let allowed = move |origin: &HeaderValue, _: &axum::http::request::Parts| {
        origin.to_str().is_ok_and(|origin| state.access.origin_allowed(origin))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([API_KEY, header::AUTHORIZATION, header::CONTENT_TYPE])
        .max_age(Duration::from_secs(600))
}

const BODY_BYTES_MAX: usize = 1 << 20;
/// For reading the body and answering; the header has its own limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
