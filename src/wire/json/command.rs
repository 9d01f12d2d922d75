//! Owns reading every verb's `data` (PROTOCOL, "Client to server"): which members it has, of which type and in which range.
//!
//! Never looks at who asks or whether they may; a command that leaves here is well formed and nothing more.

use indexmap::IndexMap;
use simd_json::{Node, StaticNode};

use super::decode::{Required, bad_request};
use super::send;
use super::tape::Field;
use crate::types::command::{
    Auth, Command, ConversationRef, HistoryQuery, NewGroup, PresenceTarget, ReadUpTo, Secret, Target, Wishes,
};
use crate::types::outcome::Fault;
use crate::types::{ConversationId, DeviceId, ErrorName, GroupId, MessageId, Millis, Seq, UserId};
use crate::wire::frame::cut;

/// Reads the verb called `kind`.
pub fn read(kind: &str, data: Field<'_, '_>) -> Result<Command, Fault> {
    match kind {
        "send_message" => send::read(data, false),
        "send_group_message" => send::read(data, true),
        "recv_ack" => recv_ack(data),
        "ping" => Ok(Command::Ping),
        "mark_read" => mark_read(data),
        "typing" => typing(data),
        "auth" => auth(data),
        "refresh" => refresh(data),
        "join_group" => group(data).map(Command::JoinGroup),
        "leave_group" => group(data).map(Command::LeaveGroup),
        "create_group" => create_group(data),
        "invite_to_group" => group_and_users(data).map(|(group, users)| Command::Invite { group, users }),
        "remove_from_group" => group_and_users(data).map(|(group, users)| Command::Remove { group, users }),
        "recall_message" => message(data).map(Command::Recall),
        "delete_message" => message(data).map(Command::Delete),
        "get_history" | "get_group_history" => history(data),
        "get_conversations" => conversations(data),
        "get_unread" => Ok(Command::GetUnread),
        "sync" => sync(data),
        "get_presence" => presence(data).map(Command::GetPresence),
        "subscribe_presence" => presence(data).map(Command::SubscribePresence),
        "unsubscribe_presence" => presence(data).map(Command::UnsubscribePresence),
        "search" => search(data),
        unknown => Err(unknown_type(unknown)),
    }
}

#[cold]
fn unknown_type(kind: &str) -> Fault {
    Fault::new(ErrorName::UnknownMessageType, format!("there is no type `{}`", cut(kind, TYPE_ECHO_BYTES_MAX)))
}

fn auth(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [token, device, acks, presence] = data.data(["token", "device_id", "acks", "presence"])?;
    let token = Secret(token.text()?.required("token")?.to_owned());
    let wishes = Wishes {
        device: device.parsed(DeviceId::new)?,
        acks: acks.flag()?.unwrap_or(false),
        presence: presence.flag()?.unwrap_or(false),
    };
    Ok(Command::Auth(Auth { token, wishes }))
}

fn refresh(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [token] = data.data(["token"])?;
    Ok(Command::Refresh { token: Secret(token.text()?.required("token")?.to_owned()) })
}

fn recv_ack(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [conversation, seq, acks] = data.data(["conversation_id", "seq", "acks"])?;
    let Some(list) = acks.list(ACKS_MAX)? else {
        return Ok(Command::RecvAck(vec![receipt(conversation, seq)?]));
    };
    if conversation.is_given() || seq.is_given() {
        return Err(Fault::new(ErrorName::BadRequest, "give either `acks` or `conversation_id` with `seq`"));
    }
    let receipts = list.map(|entry| {
        let [conversation, seq] = entry.data(["conversation_id", "seq"])?;
        receipt(conversation, seq)
    });
    receipts.collect::<Result<_, Fault>>().map(Command::RecvAck)
}

fn receipt(conversation: Field<'_, '_>, seq: Field<'_, '_>) -> Result<(ConversationId, Seq), Fault> {
    let conversation = conversation.parsed(ConversationId::parse)?.required("conversation_id")?;
    Ok((conversation, seq.seq(1)?.required("seq")?))
}

fn mark_read(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [conversation, group, user, seq, message] = data.data(["conversation_id", "group_id", "user_id", "seq", "message_id"])?;
    let conversation = one_conversation(conversation, group, user)?.required(CONVERSATION_CHOICE)?;
    let upto = match (seq.seq(1)?, message_id(message)?) {
        (Some(seq), None) => ReadUpTo::Seq(seq),
        (None, Some(message)) => ReadUpTo::Message(message),
        _ => return Err(Fault::new(ErrorName::BadRequest, "give one of `seq` and `message_id`")),
    };
    Ok(Command::MarkRead { conversation, upto })
}

fn typing(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [user, group, state] = data.data(["to_user_id", "group_id", "state"])?;
    let target = one_target(user, group)?;
    match state.text()?.required("state")? {
        "start" => Ok(Command::Typing { target, active: true }),
        "stop" => Ok(Command::Typing { target, active: false }),
        _ => Err(state.wrong("start or stop")),
    }
}

fn group(data: Field<'_, '_>) -> Result<GroupId, Fault> {
    let [group] = data.data(["group_id"])?;
    group.parsed(GroupId::new)?.required("group_id")
}

fn group_and_users(data: Field<'_, '_>) -> Result<(GroupId, Vec<UserId>), Fault> {
    let [group, users] = data.data(["group_id", "user_ids"])?;
    Ok((group.parsed(GroupId::new)?.required("group_id")?, user_ids(users, MEMBERS_MAX)?.required("user_ids")?))
}

fn create_group(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [group, name, members, open] = data.data(["group_id", "name", "members", "open"])?;
    let title = name.text()?.unwrap_or_default();
    if title.len() > NAME_BYTES_MAX {
        return Err(name.wrong("at most 256 bytes"));
    }
    Ok(Command::CreateGroup(NewGroup {
        group: group.parsed(GroupId::new)?,
        name: title.to_owned(),
        members: user_ids(members, MEMBERS_MAX)?.unwrap_or_default(),
        open: open.flag()?.unwrap_or(true),
    }))
}

fn message(data: Field<'_, '_>) -> Result<MessageId, Fault> {
    let [message] = data.data(["message_id"])?;
    message_id(message)?.required("message_id")
}

fn history(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [conversation, group, user, before, after, since, until, count, cursor] =
        data.data(["conversation_id", "group_id", "user_id", "before_seq", "after_seq", "since", "until", "limit", "cursor"])?;
    let mut query = HistoryQuery {
        conversation: one_conversation(conversation, group, user)?.required(CONVERSATION_CHOICE)?,
        before: before.seq(1)?,
        after: after.seq(0)?,
        since: since.number()?.map(Millis),
        until: until.number()?.map(Millis),
        limit: limit(count)?,
    };
    if let Some(text) = cursor_text(cursor)? {
        continue_history(&mut query, text).ok_or_else(|| cursor.wrong("the `next` of the page before, with the same bounds"))?;
    }
    Ok(Command::GetHistory(query))
}

/// Moves the bound that the walk is approaching: `b<seq>` leads to older messages, `a<seq>` to newer ones.
pub fn continue_history(query: &mut HistoryQuery, cursor: &str) -> Option<()> {
    let (direction, digits) = cursor.split_at_checked(1)?;
    if digits.is_empty() || digits.len() > 19 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seq = Seq(digits.parse().ok()?);
    match direction {
        "a" => query.after = Some(seq.max(query.after.unwrap_or(seq))),
        "b" if query.after.is_none() => query.before = Some(seq.min(query.before.unwrap_or(seq))),
        _ => return None,
    }
    Some(())
}

fn conversations(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [count, cursor] = data.data(["limit", "cursor"])?;
    Ok(Command::GetConversations { limit: limit(count)?, cursor: cursor_text(cursor)?.map(str::to_owned) })
}

fn sync(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [cursors] = data.data(["cursors"])?;
    let mut positions = IndexMap::new();
    for (key, seq) in cursors.entries(SYNC_CURSORS_MAX)?.into_iter().flatten() {
        let conversation = ConversationId::parse(key).map_err(|fault| bad_request(format!("a key of `cursors` {fault}")))?;
        let seq = seq.seq(0)?.required("cursors")?;
        // The lower of two positions costs repeats at most, never a loss.
        positions.entry(conversation).and_modify(|known: &mut Seq| *known = seq.min(*known)).or_insert(seq);
    }
    Ok(Command::Sync { cursors: positions })
}

fn presence(data: Field<'_, '_>) -> Result<PresenceTarget, Fault> {
    let [users, group] = data.data(["user_ids", "group_id"])?;
    match (user_ids(users, USERS_MAX)?, group.parsed(GroupId::new)?) {
        (Some(users), None) => Ok(PresenceTarget::Users(users)),
        (None, Some(group)) => Ok(PresenceTarget::Group(group)),
        _ => Err(Fault::new(ErrorName::BadRequest, "give one of `user_ids` and `group_id`")),
    }
}

fn search(data: Field<'_, '_>) -> Result<Command, Fault> {
    let [query, conversation, group, user, count, cursor] =
        data.data(["query", "conversation_id", "group_id", "user_id", "limit", "cursor"])?;
    let text = query.text()?.required("query")?;
    if text.len() > QUERY_BYTES_MAX {
        return Err(query.wrong("at most 1,024 bytes"));
    }
    match text.split_whitespace().take(QUERY_TERMS_MAX + 1).count() {
        0 => return Err(query.wrong("at least one word")),
        terms if terms > QUERY_TERMS_MAX => return Err(query.wrong("at most 32 words")),
        _ => {}
    }
    Ok(Command::Search {
        query: text.to_owned(),
        conversation: one_conversation(conversation, group, user)?,
        limit: limit(count)?,
        cursor: cursor_text(cursor)?.map(str::to_owned),
    })
}

/// Exactly one of two targets.
pub fn one_target(user: Field<'_, '_>, group: Field<'_, '_>) -> Result<Target, Fault> {
    match (user.parsed(UserId::new)?, group.parsed(GroupId::new)?) {
        (Some(user), None) => Ok(Target::User(user)),
        (None, Some(group)) => Ok(Target::Group(group)),
        _ => Err(Fault::new(ErrorName::BadRequest, "give one of `to_user_id` and `group_id`")),
    }
}

/// At most one of three ways to name a conversation.
fn one_conversation(
    conversation: Field<'_, '_>,
    group: Field<'_, '_>,
    user: Field<'_, '_>,
) -> Result<Option<ConversationRef>, Fault> {
    match (conversation.parsed(ConversationId::parse)?, group.parsed(GroupId::new)?, user.parsed(UserId::new)?) {
        (None, None, None) => Ok(None),
        (Some(conversation), None, None) => Ok(Some(ConversationRef::Id(conversation))),
        (None, Some(group), None) => Ok(Some(ConversationRef::Group(group))),
        (None, None, Some(user)) => Ok(Some(ConversationRef::User(user))),
        _ => Err(Fault::new(ErrorName::BadRequest, "give only one of `conversation_id`, `group_id` and `user_id`")),
    }
}

/// A list of users of at most `users_max`.
pub fn user_ids(field: Field<'_, '_>, users_max: usize) -> Result<Option<Vec<UserId>>, Fault> {
    let Some(list) = field.list(users_max)? else { return Ok(None) };
    let mut users = Vec::with_capacity(list.len());
    for entry in list {
        users.push(entry.parsed(UserId::new)?.ok_or_else(|| field.wrong("a list of user ids"))?);
    }
    Ok(Some(users))
}

/// A server's message id in its hyphenated form.
pub fn message_id(field: Field<'_, '_>) -> Result<Option<MessageId>, Fault> {
    let Some(text) = field.text()? else { return Ok(None) };
    MessageId::parse(text).map(Some).ok_or_else(|| field.wrong("the id of a message as the server gave it"))
}

/// Entries of a page: from 1, clamped to [`PAGE_MAX`].
fn limit(field: Field<'_, '_>) -> Result<u32, Fault> {
    match field.node() {
        Some(Node::Static(StaticNode::F64(number))) if number > f64::from(PAGE_MAX) => return Ok(PAGE_MAX),
        _ => {}
    }
    match field.number() {
        Ok(None) => Ok(PAGE_DEFAULT),
        Ok(Some(number)) if number > 0 => Ok(number.min(u64::from(PAGE_MAX)) as u32),
        _ => Err(field.wrong("an integer from 1")),
    }
}

fn cursor_text<'i>(field: Field<'_, 'i>) -> Result<Option<&'i str>, Fault> {
    match field.text()? {
        Some(text) if text.len() > CURSOR_BYTES_MAX => Err(field.wrong("the `next` of the page before")),
        text => Ok(text),
    }
}

const CONVERSATION_CHOICE: &str = "conversation_id";
/// Users in one list: `user_ids`, `members`, `mentions`.
const USERS_MAX: usize = 1_000;
const MEMBERS_MAX: usize = 10_000;
const ACKS_MAX: usize = 1_000;
const SYNC_CURSORS_MAX: usize = 10_000;
const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 200;
const NAME_BYTES_MAX: usize = 256;
const QUERY_BYTES_MAX: usize = 1 << 10;
const QUERY_TERMS_MAX: usize = 32;
const CURSOR_BYTES_MAX: usize = 1 << 10;
const TYPE_ECHO_BYTES_MAX: usize = 128;
