//! Owns the description of the admin API (OpenAPI 3.1). Says only what exists: tests ask for every path in it, and look for every
//! route in it. Constant.

use serde_json::{Map, Value, json};

/// The document of `/openapi.json`.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for part in [process(), sessions(), messages(), lookups(), groups(), store()] {
        if let Value::Object(part) = part {
            paths.extend(part);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "corehub admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Lists answer `has_more`; `next` goes back in as `cursor`. Times are Unix milliseconds. Identifiers \
                are 1 to 128 bytes of UTF-8 without control characters, percent-encoded in paths. Bodies are at most 1 MiB; \
                unknown members in them are refused. What is refused with 503 carries `Retry-After`.",
        },
        "security": [{"key": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": {
                "Error": object(json!({"error": object(json!({
                    "code": integer(), "name": text(), "message": text(),
                }))})),
                "Message": object(json!({
                    "message_id": text(), "conversation_id": text(), "seq": integer(), "sender_id": text(), "to_user_id": text(),
                    "group_id": text(), "msg_type": text(), "kind": text(), "content": content(), "mentions": {},
                    "reply_to": text(),
                    "loss_time": integer(), "ext": {"type": "object"}, "recalled": {"type": "boolean"}, "created_at": integer(),
                    "client_message_id": text(),
                })),
            },
        },
    })
}

fn process() -> Value {
    json!({
        "/health": {"get": open("The process answers", json!({"status": text()}))},
        "/ready": {"get": open(
            "200 when clients may come, else 503",
            json!({"phase": {"enum": ["starting", "ready", "draining"]}})
        )},
        "/metrics": {"get": {
            "summary": "OpenMetrics text", "security": [],
            "responses": {"200": {"description": "metrics", "content": {"application/openmetrics-text": {}}}},
        }},
        "/stats": {"get": open("Sums since the start", stats())},
        "/openapi.json": {"get": operation("This document", json!({"openapi": text()}), &[], "200")},
        "/v1/stats": {"get": operation("Sums since the start", stats(), &[], "200")},
    })
}

fn sessions() -> Value {
    json!({
        "/v1/online": {"get": operation("Users with a live session, by id", list("users", object(json!({
            "user_id": text(),
            "devices": {"type": "integer", "description": "number of different devices"},
            "since": {"type": "integer", "description": "authentication of the oldest session"},
        }))), &paged(&[]), "200")},
        "/v1/connections": {"get": operation("Live sessions", list("connections", object(json!({
            "connection_id": {"type": "string", "description": "opaque"},
            "user_id": text(),
            "device_id": text(),
            "session_id": text(),
            "shard": integer(),
            "since": {"type": "integer", "description": "authentication"},
            "remote": {"type": "string", "description": "address of the peer"},
        }))), &paged(&[query("user")]), "200")},
        "/v1/connections/{id}": {"delete": operation("Close one connection (4011)", told(), &[path("id")], "202")},
        "/v1/users/{id}/kick": {"post": with_body(
            operation("Close a user's connections (4011), all or those of one device", told(), &[path("id")], "202"),
            json!({"device_id": text()}), &[],
        )},
        "/v1/tokens/revoke": {"post": with_body(
            operation(
                "Revoke one token, or a user's earlier ones: their connections close (4009), now and after a restart",
                json!({"until": {"type": "integer", "description": "when it is forgotten (auth.token_life)"}}), &[], "200",
            ),
            json!({
                "jti": text(), "user_id": text(), "issued_before": {"type": "integer", "description": "now when left out"},
            }),
            &[],
        )},
    })
}

fn messages() -> Value {
    json!({
        "/v1/messages": {"post": with_body(
            operation(
                "Send as a user, notify one user as the system, or announce to everybody; answered when it is durable",
                json!({
                    "message_id": text(), "conversation_id": text(), "seq": integer(), "created_at": integer(),
                    "duplicate": {"type": "boolean", "description": "this message_id was used before: the first message counts"},
                    "recipients": {"type": "integer", "description": "of an announcement, instead of conversation_id and seq"},
                }),
                &[], "200",
            ),
            json!({
                "sender_id": {"type": "string", "description": "none: a notification"},
                "to_user_id": text(), "group_id": text(), "announcement": {"type": "boolean"},
                "msg_type": {"description": "of a user's message: text, image, file, audio, video, location, custom, or 1 to 7"},
                "kind": {"type": "string", "description": "of a notification; custom when left out"},
                "content": content(), "message_id": {"type": "string", "description": "makes a repeat the same message"},
                "mentions": {}, "reply_to": text(), "loss_time": integer(), "ext": {"type": "object"},
            }),
            &["content"],
        )},
        "/v1/announcements": {"get": operation("How far announcements have got", list("announcements", object(json!({
            "message_id": text(), "created_at": integer(), "recipients": integer(),
            "told": {"type": "integer", "description": "users it has been written to"},
            "done": {"type": "boolean"},
        }))), &[], "200")},
        "/v1/conversations/{id}/messages": {"get": operation(
            "A page of a log, as `get_history` gives it: the newest, or the oldest after `after_seq`",
            list("messages", json!({"$ref": "#/components/schemas/Message"})),
            &paged(&[path("id"), query("before_seq"), query("after_seq"), query("since"), query("until")]), "200",
        )},
    })
}

fn lookups() -> Value {
    json!({
        "/v1/users/{id}/presence": {"get": operation("Whether a user is online", json!({
            "user_id": text(), "status": {"enum": ["online", "offline"]}, "last_seen": {"type": ["integer", "null"]},
            "devices": integer(),
        }), &[path("id")], "200")},
        "/v1/users/{id}/unread": {"get": operation("What a user has not read", json!({
            "total": integer(),
            "conversations": {"type": "array", "items": object(json!({
                "conversation_id": text(), "unread": integer(), "mentioned": {"type": "boolean"},
            }))},
        }), &[path("id")], "200")},
        "/v1/users/{id}/offline": {"get": operation(
            "What `sync` would push to a device, or to one that no device of the user's is ahead of",
            list("messages", json!({"$ref": "#/components/schemas/Message"})),
            &paged(&[path("id"), query("device_id")]), "200",
        )},
        "/v1/users/{id}/conversations": {"get": operation(
            "A user's conversations, the one with the newest message first",
            list("conversations", object(json!({
                "conversation_id": text(), "last_message": {"$ref": "#/components/schemas/Message"}, "last_seq": integer(),
                "read_seq": integer(), "unread": integer(),
            }))),
            &paged(&[path("id")]), "200",
        )},
    })
}

fn groups() -> Value {
    let named = || json!({"group_id": text()});
    let group = || json!({"group_id": text(), "name": text(), "open": {"type": "boolean"}, "created_at": integer()});
    let mut whole = group();
    whole["owner_id"] = text();
    whole["members"] = json!({"type": "integer", "description": "how many"});
    whole["last_seq"] = integer();
    let users = || json!({"user_ids": {"type": "array", "items": text()}});
    json!({
        "/v1/groups": {
            "get": operation("Groups, by id", list("groups", object(group())), &paged(&[]), "200"),
            "post": with_body(operation("Create a group", named(), &[], "200"), json!({
                "group_id": {"type": "string", "description": "made when left out"},
                "name": text(), "owner_id": text(), "members": {"type": "array", "items": text()},
                "open": {"type": "boolean", "description": "anyone may join; the default"},
            }), &["owner_id"]),
        },
        "/v1/groups/{id}": {
            "get": operation("One group", whole, &[path("id")], "200"),
            "delete": operation("Delete a group with its members list", named(), &[path("id")], "200"),
        },
        "/v1/groups/{id}/members": {
            "get": operation("Members, by user id", list("members", object(json!({
                "user_id": text(), "role": {"enum": ["member", "admin", "owner"]}, "joined_at": integer(),
            }))), &paged(&[path("id")]), "200"),
            "post": with_body(
                operation("Add members; who is one stays as they are", named(), &[path("id")], "200"),
                users(), &["user_ids"],
            ),
            "delete": with_body(
                operation("Remove members; with the last one goes the group", named(), &[path("id")], "200"),
                users(), &["user_ids"],
            ),
        },
        "/v1/groups/{id}/members/{user}": {
            "put": with_body(
                operation("Make somebody a member, or change their role", named(), &[path("id"), path("user")], "200"),
                json!({
                    "role": {"enum": ["member", "admin", "owner"], "description": "owner: the former one becomes an admin"},
                }),
                &[],
            ),
            "delete": operation("Remove one member", named(), &[path("id"), path("user")], "200"),
        },
    })
}

fn store() -> Value {
    let backup = || {
        json!({
            "state": {"enum": ["none", "running", "done", "failed"]},
            "to": text(), "begun_at": integer(), "ended_at": integer(), "records": integer(), "bytes": integer(),
            "reason": {"type": "string", "description": "why it failed"},
        })
    };
    json!({
        "/v1/store/backup": {
            "get": operation("The last backup since the start", backup(), &[], "200"),
            "post": with_body(
                operation("Begin to copy the store to a folder of this machine", backup(), &[], "202"),
                json!({
                    "to": {"type": "string", "description": "absolute; empty or not there yet"},
                    "bytes_per_second": {"type": "integer", "description": "16 MiB when left out, at least 64 KiB"},
                }),
                &["to"],
            ),
        },
    })
}

fn stats() -> Value {
    json!({
        "online_users": integer(),
        "connections": integer(),
        "sessions": integer(),
        "messages_received": integer(),
        "messages_delivered": integer(),
        "ack_seconds": object(json!({"p50": {"type": "number"}, "p99": {"type": "number"}})),
        "shards": {"type": "array", "items": {"type": "object"}},
        "durability": text(),
        "node_id": text(),
        "phase": text(),
        "version": text(),
        "uptime_seconds": integer(),
    })
}

fn told() -> Value {
    json!({"connections": {"type": "integer", "description": "how many are told to close"}})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn integer() -> Value {
    json!({"type": "integer"})
}

fn content() -> Value {
    json!({"type": ["string", "object"]})
}

fn list(name: &str, item: Value) -> Value {
    let mut members = json!({"has_more": {"type": "boolean"}, "next": {"type": ["string", "null"]}});
    members[name] = json!({"type": "array", "items": item});
    members
}

fn object(members: Value) -> Value {
    json!({"type": "object", "properties": members})
}

fn query(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": text()})
}

fn path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": text()})
}

/// The parameters of a list.
fn paged(others: &[Value]) -> Vec<Value> {
    [others, &[query("limit"), query("cursor")]].concat()
}

fn operation(summary: &str, members: Value, parameters: &[Value], status: &str) -> Value {
    let error =
        json!({"description": "refused", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}});
    let mut responses = json!({"default": error});
    responses[status] = json!({"description": summary, "content": {"application/json": {"schema": object(members)}}});
    json!({"summary": summary, "parameters": parameters, "responses": responses})
}

fn with_body(mut operation: Value, members: Value, required: &[&str]) -> Value {
    let mut schema = object(members);
    schema["required"] = json!(required);
    schema["additionalProperties"] = json!(false);
    operation["requestBody"] = json!({"required": !required.is_empty(), "content": {"application/json": {"schema": schema}}});
    operation
}

fn open(summary: &str, members: Value) -> Value {
    let mut operation = operation(summary, members, &[], "200");
    operation["security"] = json!([]);
    operation
}
