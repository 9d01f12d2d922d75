//! Owns the answers about the process itself: health, readiness, sums, metrics and the description of the API. Never asks a
//! shard: it shows the copies that shards have published. Lives on the control thread.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Phase, State as Shared, openapi, process};

/// `GET /health`: 200 as long as this thread answers at all.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /ready`: 200 when clients may come, else 503.
pub(super) async fn ready(State(state): State<Arc<Shared>>) -> Response {
    let phase = state.readiness.phase();
    let status = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"phase": phase.name()}))).into_response()
}

/// `GET /stats` and `GET /v1/stats`.
pub(super) async fn stats(State(state): State<Arc<Shared>>) -> Json<Value> {
    let summary = state.registry.summary();
    let shards = summary.shards.iter().enumerate().map(|(at, shard)| {
        json!({
            "shard": at,
            "connections": shard.connections,
            "sessions": shard.sessions,
            "online_users": shard.online_users,
            "lagging": shard.lagging,
            "outbox_bytes": shard.outbox_bytes,
        })
    });
    Json(json!({
        "online_users": summary.online_users,
        "connections": summary.connections,
        "sessions": summary.sessions,
        "messages_received": summary.messages_received,
        "messages_delivered": summary.messages_delivered,
        "ack_seconds": {"p50": summary.ack_seconds.0, "p99": summary.ack_seconds.1},
        "shards": shards.collect::<Vec<_>>(),
        "durability": state.durability,
        "node_id": state.node_id,
        "phase": state.readiness.phase().name(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": state.started.elapsed().as_secs(),
    }))
}

/// `GET /metrics`.
pub(super) async fn metrics(State(state): State<Arc<Shared>>) -> Response {
    state.registry.set_process(process::sample());
    ([(header::CONTENT_TYPE, OPENMETRICS)], state.registry.render()).into_response()
}

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Json<Value> {
    Json(openapi::document())
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
