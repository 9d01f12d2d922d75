//! Owns the description of the admin API (OpenAPI 3.1). Says only what exists: a test asks for every path in it. Constant.

use serde_json::{Value, json};

/// The document of `/openapi.json`.
pub(super) fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "corehub admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Lists answer `has_more`; `next` goes back in as `cursor`. Times are Unix milliseconds.",
        },
        "security": [{"key": []}, {"bearer": []}],
        "paths": {
            "/health": {"get": open("The process answers", json!({"status": {"type": "string"}}))},
            "/ready": {"get": open(
                "200 when clients may come, else 503",
                json!({"phase": {"enum": ["starting", "ready", "draining"]}})
            )},
            "/metrics": {"get": {
                "summary": "OpenMetrics text", "security": [],
                "responses": {"200": {"description": "metrics", "content": {"application/openmetrics-text": {}}}},
            }},
            "/stats": {"get": open("Sums since the start", stats())},
            "/openapi.json": {"get": operation("This document", json!({"openapi": {"type": "string"}}), &[], "200")},
            "/v1/stats": {"get": operation("Sums since the start", stats(), &[], "200")},
            "/v1/online": {"get": operation("Users with a live session, by id", list("users", json!({
                "user_id": {"type": "string"},
                "devices": {"type": "integer", "description": "number of different devices"},
                "since": {"type": "integer", "description": "authentication of the oldest session"},
            })), &[query("limit"), query("cursor")], "200")},
            "/v1/connections": {"get": operation("Live sessions", list("connections", json!({
                "connection_id": {"type": "string", "description": "opaque"},
                "user_id": {"type": "string"},
                "device_id": {"type": "string"},
                "session_id": {"type": "string"},
                "shard": {"type": "integer"},
                "since": {"type": "integer", "description": "authentication"},
                "remote": {"type": "string", "description": "address of the peer"},
            })), &[query("user"), query("limit"), query("cursor")], "200")},
            "/v1/connections/{id}": {"delete": operation("Close one connection (4011)", told(), &[path_id()], "202")},
            "/v1/users/{id}/kick": {"post": with_body(
                operation("Close a user's connections (4011), all or those of one device", told(), &[path_id()], "202"),
                json!({"device_id": {"type": "string"}}),
            )},
        },
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": {"Error": object(json!({"error": object(json!({
                "code": {"type": "integer"}, "name": {"type": "string"}, "message": {"type": "string"},
            }))}))},
        },
    })
}

fn stats() -> Value {
    json!({
        "online_users": {"type": "integer"},
        "connections": {"type": "integer"},
        "sessions": {"type": "integer"},
        "messages_received": {"type": "integer"},
        "messages_delivered": {"type": "integer"},
        "ack_seconds": object(json!({"p50": {"type": "number"}, "p99": {"type": "number"}})),
        "shards": {"type": "array", "items": {"type": "object"}},
        "durability": {"type": "string"},
        "node_id": {"type": "string"},
        "phase": {"type": "string"},
        "version": {"type": "string"},
        "uptime_seconds": {"type": "integer"},
    })
}

fn told() -> Value {
    json!({"connections": {"type": "integer", "description": "how many are told to close"}})
}

fn list(name: &str, item: Value) -> Value {
    let mut members = json!({"has_more": {"type": "boolean"}, "next": {"type": "string"}});
    members[name] = json!({"type": "array", "items": object(item)});
    members
}

fn object(members: Value) -> Value {
    json!({"type": "object", "properties": members})
}

fn query(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string"}})
}

fn path_id() -> Value {
    json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}})
}

fn operation(summary: &str, members: Value, parameters: &[Value], status: &str) -> Value {
    let error =
        json!({"description": "refused", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}});
    let mut responses = json!({"default": error});
    responses[status] = json!({"description": summary, "content": {"application/json": {"schema": object(members)}}});
    json!({"summary": summary, "parameters": parameters, "responses": responses})
}

fn with_body(mut operation: Value, members: Value) -> Value {
    operation["requestBody"] = json!({"required": false, "content": {"application/json": {"schema": object(members)}}});
    operation
}

fn open(summary: &str, members: Value) -> Value {
    let mut operation = operation(summary, members, &[], "200");
    operation["security"] = json!([]);
    operation
}
