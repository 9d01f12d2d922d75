//! Owns the keys of every table: what lies beside what, so that every question is one look-up or one stretch. Identifiers hold
//! no control characters, so a zero byte ends them. Pure.

use fjall::Slice;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::types::record::Message;
use crate::types::{ConversationId, DeviceId, GroupId, MessageId, Seq, UserId};

/// `messages`: conversation number, then `seq`, both big-endian: a log is one stretch in its order.
pub fn message(number: u64, seq: Seq) -> Slice {
    Slice::from(pair(number, seq))
}

/// The `seq` in a key of `messages` or `hidden`.
pub fn seq_of(key: &[u8]) -> Option<Seq> {
    key.last_chunk::<8>().map(|bytes| Seq(u64::from_be_bytes(*bytes)))
}

/// The place that a key of `messages` begins with, whatever follows.
pub fn place_of(key: &[u8]) -> Option<(u64, Seq)> {
    let (number, rest) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), Seq(u64::from_be_bytes(*rest.first_chunk()?))))
}

/// `conversations`: by id.
pub fn conversation(id: &ConversationId) -> Slice {
    tagged(b'c', &[id.as_str().as_bytes()])
}

/// `numbers`: conversation number to id.
pub fn number(number: u64) -> Slice {
    tagged(b'n', &[&number.to_be_bytes()])
}

/// All of `numbers`.
pub fn numbers() -> Slice {
    tagged(b'n', &[])
}

/// `ids`: message id to its place.
pub fn message_id(id: MessageId) -> Slice {
    Slice::from(id.0.to_be_bytes())
}

/// `first_uses`: a hash of sender and client id; of what the system writes, of conversation and client id. None without one.
pub fn first_use(message: &Message, seed: u64) -> Option<Slice> {
    let client_id = message.client_id.as_ref()?;
    let mut text = SmallVec::<[u8; 160]>::new();
    match &message.sender {
        Some(sender) => {
            text.push(b'u');
            text.extend_from_slice(sender.as_str().as_bytes());
        }
        None => {
            text.push(b'c');
            text.extend_from_slice(message.conversation.as_str().as_bytes());
        }
    }
    text.push(0);
    text.extend_from_slice(client_id.as_str().as_bytes());
    Some(Slice::from(xxh3_128_with_seed(&text, seed).to_be_bytes()))
}

/// `rows`: user, then conversation id.
pub fn row(user: &UserId, conversation: &ConversationId) -> Slice {
    joined(&[user.as_str().as_bytes(), &[0], conversation.as_str().as_bytes()])
}

/// All rows of a user.
pub fn rows(user: &UserId) -> Slice {
    joined(&[user.as_str().as_bytes(), &[0]])
}

/// All rows of a user that are of groups.
pub fn group_rows(user: &UserId) -> Slice {
    joined(&[user.as_str().as_bytes(), &[0], b"g:"])
}

/// The conversation's id in the key of a row.
pub fn row_conversation<'a>(key: &'a [u8], user: &UserId) -> &'a [u8] {
    key.get(user.as_str().len() + 1..).unwrap_or_default()
}

/// `devices`: user, then device.
pub fn device(user: &UserId, device: &DeviceId) -> Slice {
    tagged(b'd', &[user.as_str().as_bytes(), &[0], device.as_str().as_bytes()])
}

/// `hidden`: user, then conversation number, then `seq`.
pub fn hidden(user: &UserId, number: u64, seq: Seq) -> Slice {
    tagged(b'h', &[user.as_str().as_bytes(), &[0], &pair(number, seq)])
}

/// All of `hidden`.
pub fn all_hidden() -> Slice {
    tagged(b'h', &[])
}

/// The conversation number and `seq` in a key of `hidden`.
pub fn hidden_place(key: &[u8]) -> Option<(u64, Seq)> {
    let place = u128::from_be_bytes(*key.last_chunk::<16>()?);
    Some(((place >> 64) as u64, Seq(place as u64)))
}

/// `last_seen`: by user.
pub fn last_seen(user: &UserId) -> Slice {
    tagged(b'l', &[user.as_str().as_bytes()])
}

/// `groups`: the group's own record.
pub fn group(group: &GroupId) -> Slice {
    tagged(b'g', &[group.as_str().as_bytes(), &[0, b'r']])
}

/// `groups`: all members in order of joining.
pub fn members(group: &GroupId) -> Slice {
    tagged(b'g', &[group.as_str().as_bytes(), &[0, b'm']])
}

/// `groups`: one member by order of joining.
pub fn member(group: &GroupId, order: u64) -> Slice {
    tagged(b'g', &[group.as_str().as_bytes(), &[0, b'm'], &order.to_be_bytes()])
}

/// `groups`: a user's order of joining.
pub fn member_order(group: &GroupId, user: &UserId) -> Slice {
    tagged(b'g', &[group.as_str().as_bytes(), &[0, b'u'], user.as_str().as_bytes()])
}

/// `groups`: the group of a key, which of its records it is of (`r`, `m` or `u`), and the rest of the key.
pub fn group_parts(key: &[u8]) -> Option<(GroupId, u8, &[u8])> {
    let (id, rest) = until_zero(key.strip_prefix(b"g")?)?;
    let (kind, rest) = rest.split_first()?;
    Some((GroupId::new(id).ok()?, *kind, rest))
}

/// `hidden`: user, conversation number, `seq`.
pub fn hidden_parts(key: &[u8]) -> Option<(UserId, u64, Seq)> {
    let (user, place) = until_zero(key.strip_prefix(b"h")?)?;
    let (number, seq) = (place.first_chunk::<8>()?, seq_of(place)?);
    Some((UserId::new(user).ok()?, u64::from_be_bytes(*number), seq))
}

/// `rows`: user and conversation.
pub fn row_parts(key: &[u8]) -> Option<(UserId, ConversationId)> {
    let (user, rest) = until_zero(key)?;
    Some((UserId::new(user).ok()?, ConversationId::parse(std::str::from_utf8(rest).ok()?).ok()?))
}

/// Text before the first zero byte, and what follows it.
fn until_zero(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    Some((std::str::from_utf8(&bytes[..at]).ok()?, &bytes[at + 1..]))
}

/// `users`: by id; nothing is kept but that there is such a user.
pub fn user(user: &UserId) -> Slice {
    tagged(b'u', &[user.as_str().as_bytes()])
}

/// All of a table whose keys begin with a letter.
pub fn tag(letter: u8) -> Slice {
    tagged(letter, &[])
}

/// All of `users`.
pub fn users() -> Slice {
    tagged(b'u', &[])
}

/// The first key of `users` that may follow `user`.
pub fn users_after(user: &UserId) -> Slice {
    tagged(b'u', &[user.as_str().as_bytes(), &[0]])
}

/// The identifier at the beginning of a key, behind the letter of its table when it has one; a zero byte or the key ends it.
pub fn first_id(key: &[u8], tagged: bool) -> Option<&str> {
    let rest = key.get(usize::from(tagged)..)?;
    std::str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()
}

/// All of `groups`.
pub fn groups() -> Slice {
    tagged(b'g', &[])
}

/// The first key of `groups` behind all those of `group`.
pub fn groups_after(group: &str) -> Slice {
    tagged(b'g', &[group.as_bytes(), &[1]])
}

/// `notes`: by kind and id.
pub fn note(kind: &str, id: &str) -> Slice {
    tagged(b't', &[kind.as_bytes(), &[0], id.as_bytes()])
}

/// All notes of a kind.
pub fn notes(kind: &str) -> Slice {
    tagged(b't', &[kind.as_bytes(), &[0]])
}

/// First key after all that begin with `prefix`; None when there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Slice> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(Slice::from(end));
        }
    }
    None
}

fn pair(number: u64, seq: Seq) -> [u8; 16] {
    ((u128::from(number) << 64) | u128::from(seq.0)).to_be_bytes()
}

fn tagged(tag: u8, parts: &[&[u8]]) -> Slice {
    key(Some(tag), parts)
}

fn joined(parts: &[&[u8]]) -> Slice {
    key(None, parts)
}

fn key(tag: Option<u8>, parts: &[&[u8]]) -> Slice {
    let mut bytes = SmallVec::<[u8; 96]>::new();
    bytes.extend(tag);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Slice::from(&bytes[..])
}
