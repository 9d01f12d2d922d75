//! Owns groups and their members over REST. Changes go the way of the clients' verbs; lists are read from the store. Lives on
//! the control thread.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::State as Shared;
use super::answer::{RestFault, page};
use super::body::{self, Body, PathId, QueryOf, named, path_id, query};
use super::calls::{call, unexpected};
use super::sessions::{self, ListQuery};
use crate::types::call::GroupOrder;
use crate::types::command::NewGroup;
use crate::types::record::{Group, Member, Role};
use crate::types::storage::{Answer, GroupState, Read};
use crate::types::{Call, ErrorName, GroupId, Push, UserId};

type Said = Result<Json<Value>, RestFault>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGroupBody {
    group_id: Option<String>,
    #[serde(default)]
    name: String,
    owner_id: String,
    #[serde(default)]
    members: Vec<String>,
    open: Option<bool>,
}

/// `POST /v1/groups {group_id?, name?, owner_id, members?, open?}`.
pub(super) async fn create(State(state): State<Arc<Shared>>, body: Body) -> Said {
    let bytes = body::bytes(body)?;
    let body: NewGroupBody = body::object(&bytes)?;
    if body.name.len() > NAME_BYTES_MAX {
        return Err(RestFault::bad_request("name must be at most 256 bytes"));
    }
    let group = NewGroup {
        group: body.group_id.as_deref().map(|id| named(id, "group_id", GroupId::new)).transpose()?,
        name: body.name,
        members: body::users(&body.members, "members")?,
        open: body.open.unwrap_or(true),
    };
    let owner = named(&body.owner_id, "owner_id", UserId::new)?;
    match call(&state, Call::CreateGroup { owner, group }).await? {
        Push::Ack(ack) => ack.group.map(|group| named_group(&group)).ok_or_else(unexpected),
        _ => Err(unexpected()),
    }
}

/// `GET /v1/groups?limit=&cursor=`: by id.
pub(super) async fn list(State(state): State<Arc<Shared>>, list: QueryOf<ListQuery>) -> Said {
    let asked = query(list)?;
    let limit = sessions::limit(asked.limit.as_deref())?;
    let after = asked.cursor.as_deref().map(|text| read_cursor(text, GroupId::new)).transpose()?;
    let read = Read::Groups { after, limit: limit as u32 + 1 };
    let Answer::Groups(mut groups) = state.archive.read(read).await? else { return Err(unexpected()) };
    let more = groups.len() > limit;
    groups.truncate(limit);
    let next = groups.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(last.id.as_str()));
    Ok(Json(page("groups", groups.iter().map(group_json).collect(), next)))
}

/// `GET /v1/groups/{id}`.
pub(super) async fn show(State(state): State<Arc<Shared>>, id: PathId) -> Said {
    let found = find(&state, &path_id(id, "the group id", GroupId::new)?).await?;
    let mut shown = group_json(&found.group);
    shown["members"] = found.members.len().into();
    shown["last_seq"] = found.head.0.into();
    let owner = found.members.iter().find(|member| member.role == Role::Owner);
    shown["owner_id"] = owner.map_or(Value::Null, |owner| owner.user.as_str().into());
    Ok(Json(shown))
}

/// `DELETE /v1/groups/{id}`: with its members; its log stays by retention.
pub(super) async fn delete(State(state): State<Arc<Shared>>, id: PathId) -> Said {
    let group = path_id(id, "the group id", GroupId::new)?;
    tracing::info!(?group, "an operator deletes a group");
    change(&state, group, GroupOrder::Delete).await
}

/// `GET /v1/groups/{id}/members?limit=&cursor=`: by user id.
pub(super) async fn members(State(state): State<Arc<Shared>>, id: PathId, list: QueryOf<ListQuery>) -> Said {
    let group = path_id(id, "the group id", GroupId::new)?;
    let asked = query(list)?;
    let limit = sessions::limit(asked.limit.as_deref())?;
    let after = asked.cursor.as_deref().map(|text| read_cursor(text, UserId::new)).transpose()?;
    let mut members = find(&state, &group).await?.members;
    members.retain(|member| after.as_ref().is_none_or(|after| member.user > *after));
    if members.len() > limit {
        members.select_nth_unstable_by(limit, |one, other| one.user.cmp(&other.user));
    }
    let more = members.len() > limit;
    members.truncate(limit);
    members.sort_unstable_by(|one, other| one.user.cmp(&other.user));
    let next = members.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(last.user.as_str()));
    Ok(Json(page("members", members.iter().map(member_json).collect(), next)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersBody {
    user_ids: Vec<String>,
}

/// `POST /v1/groups/{id}/members {user_ids}`: they get a `group_invite`.
pub(super) async fn add(State(state): State<Arc<Shared>>, id: PathId, body: Body) -> Said {
    let (group, users) = group_and_users(id, body)?;
    change(&state, group, GroupOrder::Add(users)).await
}

/// `DELETE /v1/groups/{id}/members {user_ids}`.
pub(super) async fn remove(State(state): State<Arc<Shared>>, id: PathId, body: Body) -> Said {
    let (group, users) = group_and_users(id, body)?;
    change(&state, group, GroupOrder::Remove(users)).await
}

/// The group and the member in a path.
pub(super) type PathMember = Result<Path<(String, String)>, PathRejection>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    role: Option<String>,
}

/// `PUT /v1/groups/{id}/members/{user} {role?}`: makes them a member of that role.
pub(super) async fn put(State(state): State<Arc<Shared>>, path: PathMember, body: Body) -> Said {
    let (group, user) = group_and_member(path)?;
    let bytes = body::bytes(body)?;
    let body: RoleBody = if bytes.is_empty() { RoleBody::default() } else { body::object(&bytes)? };
    let role = match body.role.as_deref() {
        None => None,
        Some(name) => {
            let role = Role::from_name(name);
            Some(role.ok_or(RestFault::bad_request("role must be member, admin or owner"))?)
        }
    };
    change(&state, group, GroupOrder::Put { user, role }).await
}

/// `DELETE /v1/groups/{id}/members/{user}`.
pub(super) async fn remove_one(State(state): State<Arc<Shared>>, path: PathMember) -> Said {
    let (group, user) = group_and_member(path)?;
    change(&state, group, GroupOrder::Remove(vec![user])).await
}

async fn change(state: &Shared, group: GroupId, order: GroupOrder) -> Said {
    match call(state, Call::Group { group: group.clone(), order }).await? {
        Push::Ack(_) => Ok(named_group(&group)),
        _ => Err(unexpected()),
    }
}

async fn find(state: &Shared, group: &GroupId) -> Result<Box<GroupState>, RestFault> {
    match state.archive.read(Read::Group { group: group.clone() }).await? {
        Answer::Group(Some(found)) => Ok(found),
        Answer::Group(None) => Err(RestFault::from(ErrorName::NoSuchGroup)),
        _ => Err(unexpected()),
    }
}

fn group_and_users(id: PathId, body: Body) -> Result<(GroupId, Vec<UserId>), RestFault> {
    let group = path_id(id, "the group id", GroupId::new)?;
    let bytes = body::bytes(body)?;
    let body: UsersBody = body::object(&bytes)?;
    Ok((group, body::users(&body.user_ids, "user_ids")?))
}

fn group_and_member(path: PathMember) -> Result<(GroupId, UserId), RestFault> {
    let Path((group, user)) = path.map_err(|_| body::bad_path())?;
    Ok((named(&group, "the group id", GroupId::new)?, named(&user, "the user id", UserId::new)?))
}

fn read_cursor<T>(text: &str, read: impl FnOnce(&str) -> Result<T, crate::types::id::IdFault>) -> Result<T, RestFault> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| sessions::bad_cursor())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| sessions::bad_cursor())?;
    read(text).map_err(|_| sessions::bad_cursor())
}

fn named_group(group: &GroupId) -> Json<Value> {
    Json(json!({"group_id": group.as_str()}))
}

fn group_json(group: &Group) -> Value {
    json!({"group_id": group.id.as_str(), "name": group.name.as_str(), "open": group.open, "created_at": group.created_at.0})
}

fn member_json(member: &Member) -> Value {
    json!({"user_id": member.user.as_str(), "role": member.role.name(), "joined_at": member.joined_at.0})
}

const NAME_BYTES_MAX: usize = 256;
