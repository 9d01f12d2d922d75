//! Owns how a record lies on disk: a version byte, fields as variable-length numbers and counted text, a checksum of record and
//! key. Never panics on any bytes: what it cannot read is damaged. Pure.
//!
//! Version 1 is every record but a message whose body is sealed, which is version 2: `content` and `ext` are missing from their
//! places, and at the end stand the key's id, the nonce, and both of them sealed. Conversation, table key and all that stands
//! before are associated with it, so that a body belongs to its place, its sender and its time.

use compact_str::CompactString;
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::keyring::{Keyring, NONCE_BYTES, NoKey, Sealed};
use crate::types::record::{Group, Member, Mentions, Message, MessageExtra, MessageKind, MessageType, RawJson, Role};
use crate::types::{ConversationId, GroupId, MessageId, Millis, RequestId, Seq, SessionId, UserId};

/// The bytes are no record of ours: a bit has flipped, or something else wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Why a message cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    Damaged,
    NoKey(NoKey),
}

impl From<Damaged> for Unreadable {
    fn from(Damaged: Damaged) -> Unreadable {
        Unreadable::Damaged
    }
}

/// What the store knows of a conversation besides its messages; it changes rarely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConversationRecord {
    /// Names it in the keys of its messages.
    pub number: u64,
    /// First `seq` that retention has left.
    pub first_kept: Seq,
    /// How far a message's time has ever been behind an earlier one's, in milliseconds.
    pub slack_ms: u64,
    /// The newest time when that last happened.
    pub newest: Millis,
}

/// Where a user stands in one conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowRecord {
    pub number: u64,
    pub start_seq: Seq,
    pub read_seq: Seq,
    /// By [`device_hash`].
    pub delivered: SmallVec<[(u64, Seq); 1]>,
}

/// The first use of a client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstUse {
    pub number: u64,
    pub seq: Seq,
    pub message_id: MessageId,
    pub created_at: Millis,
}

/// A group and how many have ever joined it, which numbers the order of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    pub group: Group,
    pub joins: u64,
}

/// What counting needs of a message, without copying it.
#[derive(Debug)]
pub struct MessageHead<'a> {
    pub created_at: Millis,
    pub sender: Option<&'a str>,
    pub recalled: bool,
    mentions: Option<&'a [u8]>,
}

impl MessageHead<'_> {
    /// True when everyone or `user` is mentioned.
    pub fn mentions(&self, user: &str) -> bool {
        let Some(bytes) = self.mentions else { return false };
        let mut reader = Reader { bytes };
        match reader.number() {
            Ok(0) => true,
            // The count is not to be trusted: what cannot be read ends the list.
            Ok(count) => (1..count).map_while(|_| reader.text().ok()).any(|text| text == user),
            Err(Damaged) => false,
        }
    }
}

/// A device's place in [`RowRecord::delivered`].
pub fn device_hash(device: &str) -> u64 {
    xxh3_64(device.as_bytes())
}

impl ConversationRecord {
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(VERSION, 24);
        writer.number(self.number).number(self.first_kept.0).number(self.slack_ms).number(self.newest.0);
        writer.seal(key)
    }

    pub fn decode(key: &[u8], bytes: &[u8]) -> Result<ConversationRecord, Damaged> {
        let mut reader = Reader::unseal(key, bytes)?;
        Ok(ConversationRecord {
            number: reader.number()?,
            first_kept: Seq(reader.number()?),
            slack_ms: reader.number()?,
            newest: Millis(reader.number()?),
        })
    }
}

impl RowRecord {
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(VERSION, 32);
        writer.number(self.number).number(self.start_seq.0).number(self.read_seq.0).number(self.delivered.len() as u64);
        for (device, seq) in &self.delivered {
            writer.bytes(&device.to_le_bytes()).number(seq.0);
        }
        writer.seal(key)
    }

    pub fn decode(key: &[u8], bytes: &[u8]) -> Result<RowRecord, Damaged> {
        let mut reader = Reader::unseal(key, bytes)?;
        let (number, start_seq, read_seq) = (reader.number()?, Seq(reader.number()?), Seq(reader.number()?));
        let mut delivered = SmallVec::new();
        for _ in 0..reader.number()? {
            delivered.push((u64::from_le_bytes(reader.array()?), Seq(reader.number()?)));
        }
        Ok(RowRecord { number, start_seq, read_seq, delivered })
    }
}

impl FirstUse {
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(VERSION, 40);
        writer.number(self.number).number(self.seq.0).number(self.created_at.0).bytes(&self.message_id.0.to_be_bytes());
        writer.seal(key)
    }

    pub fn decode(key: &[u8], bytes: &[u8]) -> Result<FirstUse, Damaged> {
        let mut reader = Reader::unseal(key, bytes)?;
        Ok(FirstUse {
            number: reader.number()?,
            seq: Seq(reader.number()?),
            created_at: Millis(reader.number()?),
            message_id: MessageId(u128::from_be_bytes(reader.array()?)),
        })
    }
}

impl GroupRecord {
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(VERSION, 64);
        let Group { id, name, open, created_at } = &self.group;
        writer.text(id.as_str()).text(name).number(u64::from(*open)).number(created_at.0).number(self.joins);
        writer.seal(key)
    }

    pub fn decode(key: &[u8], bytes: &[u8]) -> Result<GroupRecord, Damaged> {
        let mut reader = Reader::unseal(key, bytes)?;
        let id = GroupId::new(reader.text()?).map_err(|_| Damaged)?;
        let name = CompactString::new(reader.text()?);
        let (open, created_at) = (reader.number()? != 0, Millis(reader.number()?));
        Ok(GroupRecord { group: Group { id, name, open, created_at }, joins: reader.number()? })
    }
}

pub fn encode_member(member: &Member, key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(VERSION, 48);
    let Member { user, role, joined_seq, joined_at } = member;
    writer.text(user.as_str()).number(*role as u64).number(joined_seq.0).number(joined_at.0);
    writer.seal(key)
}

pub fn decode_member(key: &[u8], bytes: &[u8]) -> Result<Member, Damaged> {
    let mut reader = Reader::unseal(key, bytes)?;
    let user = reader.user()?;
    let role = match reader.number()? {
        0 => Role::Member,
        1 => Role::Admin,
        2 => Role::Owner,
        _ => return Err(Damaged),
    };
    Ok(Member { user, role, joined_seq: Seq(reader.number()?), joined_at: Millis(reader.number()?) })
}

/// Numbers: times, positions, counters.
pub fn encode_numbers<const N: usize>(numbers: [u64; N], key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(VERSION, 8 + 5 * N);
    numbers.into_iter().for_each(|number| {
        writer.number(number);
    });
    writer.seal(key)
}

pub fn decode_numbers<const N: usize>(key: &[u8], bytes: &[u8]) -> Result<[u64; N], Damaged> {
    let mut reader = Reader::unseal(key, bytes)?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = reader.number()?;
    }
    Ok(numbers)
}

pub fn encode_conversation_id(id: &ConversationId, key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(VERSION, id.as_str().len() + 8);
    writer.text(id.as_str());
    writer.seal(key)
}

pub fn decode_conversation_id(key: &[u8], bytes: &[u8]) -> Result<ConversationId, Damaged> {
    ConversationId::parse(Reader::unseal(key, bytes)?.text()?).map_err(|_| Damaged)
}

pub fn encode_text(text: &str, key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(VERSION, text.len() + 8);
    writer.text(text);
    writer.seal(key)
}

pub fn decode_text(key: &[u8], bytes: &[u8]) -> Result<String, Damaged> {
    Ok(Reader::unseal(key, bytes)?.text()?.to_owned())
}

/// A message without its conversation and `seq`, which its key says; its body sealed when there is a key to do so.
pub fn encode_message(message: &Message, key: &[u8], keyring: &Keyring) -> Vec<u8> {
    let extra = message.extra.as_deref();
    let recalled_by = extra.and_then(|extra| extra.recalled_by.as_ref());
    let reply_to = extra.and_then(|extra| extra.reply_to);
    let loss_time_ms = extra.and_then(|extra| extra.loss_time_ms);
    let ext = extra.and_then(|extra| extra.ext.as_ref());
    // What was recalled has no body left to seal.
    let empty = recalled_by.is_some() && ext.is_none() && message.content == RawJson::empty();
    let sealing = keyring.writing_id().filter(|_| !empty);
    let mut writer = Writer::new(if sealing.is_some() { SEALED } else { VERSION }, 128 + message.content.as_str().len());
    write_head(&mut writer, message);
    writer.bytes(&message.id.0.to_be_bytes()).number(message.origin.0);
    message.client_id.iter().for_each(|client_id| writer.text(client_id.as_str()).nothing());
    match &message.kind {
        MessageKind::Notification(kind) => writer.number(0).text(kind),
        MessageKind::Chat(kind) => writer.number(*kind as u64),
    };
    if sealing.is_none() {
        writer.text(message.content.as_str());
    }
    recalled_by.iter().for_each(|user| writer.text(user.as_str()).nothing());
    reply_to.iter().for_each(|id| writer.bytes(&id.0.to_be_bytes()).nothing());
    loss_time_ms.iter().for_each(|after| writer.number(*after).nothing());
    match sealing {
        None => ext.iter().for_each(|ext| writer.text(ext.as_str()).nothing()),
        Some(id) => {
            writer.text(id);
            let mut body = Writer { bytes: Vec::with_capacity(16 + message.content.as_str().len()) };
            body.text(message.content.as_str());
            ext.iter().for_each(|ext| body.text(ext.as_str()).nothing());
            let associated = associated(&message.conversation, key, &writer.bytes);
            let sealed = keyring.seal(&body.bytes, &associated).expect("a keyring that names a key can seal");
            writer.bytes(&sealed.nonce).number(sealed.bytes.len() as u64).bytes(&sealed.bytes);
        }
    }
    writer.seal(key)
}

fn write_head(writer: &mut Writer, message: &Message) {
    let extra = message.extra.as_deref();
    let mentions = extra.and_then(|extra| extra.mentions.as_ref());
    let flag = |present: bool, bit: u64| if present { bit } else { 0 };
    let has = |member: fn(&MessageExtra) -> bool| extra.is_some_and(member);
    let flags = flag(message.sender.is_some(), SENDER)
        | flag(message.client_id.is_some(), CLIENT_ID)
        | flag(extra.is_some(), EXTRA)
        | flag(has(|extra| extra.recalled_by.is_some()), RECALLED)
        | flag(mentions.is_some(), MENTIONS)
        | flag(has(|extra| extra.reply_to.is_some()), REPLY_TO)
        | flag(has(|extra| extra.loss_time_ms.is_some()), LOSS_TIME)
        | flag(has(|extra| extra.ext.is_some()), EXT);
    writer.number(flags).number(message.created_at.0);
    message.sender.iter().for_each(|sender| writer.text(sender.as_str()).nothing());
    if let Some(mentions) = mentions {
        writer.counted(|writer| match mentions {
            Mentions::All => writer.number(0).nothing(),
            Mentions::Users(users) => {
                writer.number(users.len() as u64 + 1);
                users.iter().for_each(|user| writer.text(user.as_str()).nothing());
            }
        });
    }
}

/// The members that counting needs; the checksum is looked at all the same.
pub fn decode_head<'a>(key: &[u8], bytes: &'a [u8]) -> Result<MessageHead<'a>, Damaged> {
    let (_, mut reader) = Reader::unseal_message(key, bytes)?;
    read_head(&mut reader).map(|(_, head)| head)
}

pub fn decode_message(
    key: &[u8],
    bytes: &[u8],
    conversation: &ConversationId,
    seq: Seq,
    keyring: &Keyring,
) -> Result<Message, Unreadable> {
    let (mut message, seal) = read_message(key, bytes, conversation, seq)?;
    let Some(seal) = seal else { return Ok(message) };
    let associated = associated(conversation, key, seal.before);
    let body = keyring.open(seal.key_id, seal.nonce, seal.bytes, &associated).map_err(Unreadable::NoKey)?.ok_or(Damaged)?;
    let mut reader = Reader { bytes: &body };
    message.content = RawJson::from_validated(reader.text()?);
    if seal.has_ext {
        let ext = RawJson::from_validated(reader.text()?);
        message.extra.get_or_insert_default().ext = Some(ext);
    }
    Ok(message)
}

/// All of a message but its body when that is sealed: `content` is empty and `ext` is missing then. Needs no key.
pub fn decode_outline(key: &[u8], bytes: &[u8], conversation: &ConversationId, seq: Seq) -> Result<Message, Damaged> {
    read_message(key, bytes, conversation, seq).map(|(message, _)| message)
}

/// A sealed body and what it takes to open it.
struct Seal<'a> {
    /// The record before `nonce`.
    before: &'a [u8],
    key_id: &'a str,
    nonce: [u8; NONCE_BYTES],
    bytes: &'a [u8],
    has_ext: bool,
}

fn read_message<'a>(
    key: &[u8],
    bytes: &'a [u8],
    conversation: &ConversationId,
    seq: Seq,
) -> Result<(Message, Option<Seal<'a>>), Damaged> {
    let (version, mut reader) = Reader::unseal_message(key, bytes)?;
    let plain = version == VERSION;
    let (flags, head) = read_head(&mut reader)?;
    let sender = head.sender.map(UserId::new).transpose().map_err(|_| Damaged)?;
    let mentions = head.mentions.map(read_mentions).transpose()?;
    let id = MessageId(u128::from_be_bytes(reader.array()?));
    let origin = SessionId(reader.number()?);
    let client_id = reader.optional(flags & CLIENT_ID, |reader| RequestId::new(reader.text()?).map_err(|_| Damaged))?;
    let kind = match reader.number()? {
        0 => MessageKind::Notification(CompactString::new(reader.text()?)),
        kind => MessageKind::Chat(MessageType::from_number(kind).ok_or(Damaged)?),
    };
    let content = if plain { RawJson::from_validated(reader.text()?) } else { RawJson::empty() };
    let recalled_by = reader.optional(flags & RECALLED, Reader::user)?;
    let reply_to = reader.optional(flags & REPLY_TO, |reader| Ok(MessageId(u128::from_be_bytes(reader.array()?))))?;
    let loss_time_ms = reader.optional(flags & LOSS_TIME, Reader::number)?;
    let plain_ext = if plain { flags & EXT } else { 0 };
    let ext = reader.optional(plain_ext, |reader| Ok(RawJson::from_validated(reader.text()?)))?;
    let seal = if plain {
        None
    } else {
        let key_id = reader.text()?;
        let before = &bytes[..bytes.len() - CHECKSUM_BYTES - reader.bytes.len()];
        let (nonce, count) = (reader.array()?, reader.number()?);
        Some(Seal { before, key_id, nonce, bytes: reader.take(count)?, has_ext: flags & EXT != 0 })
    };
    let extra = (flags & EXTRA != 0).then(|| Box::new(MessageExtra { mentions, reply_to, loss_time_ms, ext, recalled_by }));
    let (conversation, created_at) = (conversation.clone(), head.created_at);
    Ok((Message { conversation, seq, id, sender, origin, client_id, kind, content, created_at, extra }, seal))
}

/// What stands for a message that damage has taken: its `seq` stays, and nobody is shown it.
pub fn lost_message(conversation: &ConversationId, seq: Seq, created_at: Millis) -> Message {
    let nobody = UserId::new("lost").expect("a plain word is an id");
    Message {
        conversation: conversation.clone(),
        seq,
        id: MessageId(0),
        sender: None,
        origin: SessionId(0),
        client_id: None,
        kind: MessageKind::Chat(MessageType::Text),
        content: RawJson::empty(),
        created_at,
        extra: Some(Box::new(MessageExtra { recalled_by: Some(nobody), ..MessageExtra::default() })),
    }
}

/// True for [`lost_message`]. Every other chat message has a sender.
pub fn is_lost(message: &Message) -> bool {
    message.sender.is_none() && matches!(message.kind, MessageKind::Chat(_)) && message.recalled_by().is_some()
}

/// What a sealed body belongs to. No identifier holds a zero byte, so no two places read alike.
fn associated(conversation: &ConversationId, key: &[u8], before: &[u8]) -> SmallVec<[u8; 256]> {
    let mut bytes = SmallVec::from_slice(conversation.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(before);
    bytes
}

/// A key that bodies were sealed with, and a proof of which one it was.
#[derive(Debug)]
pub struct UsedKey {
    pub id: String,
    pub nonce: [u8; NONCE_BYTES],
    /// Nothing, sealed.
    pub proof: Vec<u8>,
}

pub fn encode_used_key(id: &str, proof: &Sealed, key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(VERSION, 64);
    writer.text(id).bytes(&proof.nonce).number(proof.bytes.len() as u64).bytes(&proof.bytes);
    writer.seal(key)
}

pub fn decode_used_key(key: &[u8], bytes: &[u8]) -> Result<UsedKey, Damaged> {
    let mut reader = Reader::unseal(key, bytes)?;
    let (id, nonce, count) = (reader.text()?.to_owned(), reader.array()?, reader.number()?);
    Ok(UsedKey { id, nonce, proof: reader.take(count)?.to_vec() })
}

fn read_head<'a>(reader: &mut Reader<'a>) -> Result<(u64, MessageHead<'a>), Damaged> {
    let flags = reader.number()?;
    let created_at = Millis(reader.number()?);
    let sender = reader.optional(flags & SENDER, Reader::text)?;
    let mentions = reader.optional(flags & MENTIONS, |reader| {
        let count = reader.number()?;
        reader.take(count)
    })?;
    Ok((flags, MessageHead { created_at, sender, recalled: flags & RECALLED != 0, mentions }))
}

fn read_mentions(bytes: &[u8]) -> Result<Mentions, Damaged> {
    let mut reader = Reader { bytes };
    match reader.number()? {
        0 => Ok(Mentions::All),
        count => (1..count).map(|_| reader.user()).collect::<Result<Vec<_>, _>>().map(Mentions::Users),
    }
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn new(version: u8, capacity: usize) -> Writer {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(version);
        Writer { bytes }
    }

    fn number(&mut self, mut number: u64) -> &mut Writer {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Writer {
        self.number(text.len() as u64).bytes(text.as_bytes())
    }

    /// What `write` writes, after its length.
    fn counted(&mut self, write: impl FnOnce(&mut Writer)) {
        let mut inner = Writer { bytes: Vec::new() };
        write(&mut inner);
        self.number(inner.bytes.len() as u64).bytes(&inner.bytes);
    }

    /// Ends a chain where a closure must return nothing.
    fn nothing(&mut self) {}

    fn seal(mut self, key: &[u8]) -> Vec<u8> {
        let checksum = checksum(key, &self.bytes);
        self.bytes.extend_from_slice(&checksum);
        self.bytes
    }
}

/// True when these are the bytes that were sealed under this key.
pub fn is_sealed(key: &[u8], bytes: &[u8]) -> bool {
    Reader::unseal(key, bytes).is_ok()
}

/// Any bytes as a record with a right checksum.
#[cfg(any(test, feature = "fuzzing"))]
pub fn sealed(version: u8, bytes: &[u8], key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(version, bytes.len() + 4);
    writer.bytes(bytes);
    writer.seal(key)
}

/// Of the record and of the key it lies under, so that a record in a wrong place is found as well.
fn checksum(key: &[u8], record: &[u8]) -> [u8; CHECKSUM_BYTES] {
    (xxh3_64_with_seed(record, xxh3_64(key)) as u32).to_le_bytes()
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn unseal(key: &[u8], bytes: &'a [u8]) -> Result<Reader<'a>, Damaged> {
        match Reader::open(key, bytes)? {
            (VERSION, reader) => Ok(reader),
            _ => Err(Damaged),
        }
    }

    /// With the version.
    fn unseal_message(key: &[u8], bytes: &'a [u8]) -> Result<(u8, Reader<'a>), Damaged> {
        Reader::open(key, bytes)
            .and_then(|opened| if opened.0 == VERSION || opened.0 == SEALED { Ok(opened) } else { Err(Damaged) })
    }

    fn open(key: &[u8], bytes: &'a [u8]) -> Result<(u8, Reader<'a>), Damaged> {
        let (record, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Damaged)?;
        if checksum(key, record) != *sum {
            return Err(Damaged);
        }
        let (&version, bytes) = record.split_first().ok_or(Damaged)?;
        Ok((version, Reader { bytes }))
    }

    fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or(Damaged)?;
            self.bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Damaged)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Damaged> {
        let count = usize::try_from(count).map_err(|_| Damaged)?;
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Damaged)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(Damaged)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn text(&mut self) -> Result<&'a str, Damaged> {
        let count = self.number()?;
        simdutf8::basic::from_utf8(self.take(count)?).map_err(|_| Damaged)
    }

    fn user(&mut self) -> Result<UserId, Damaged> {
        UserId::new(self.text()?).map_err(|_| Damaged)
    }

    fn optional<T>(&mut self, present: u64, read: impl FnOnce(&mut Self) -> Result<T, Damaged>) -> Result<Option<T>, Damaged> {
        if present == 0 { Ok(None) } else { read(self).map(Some) }
    }
}

/// Version of every record but those of sealed messages.
pub const VERSION: u8 = 1;
/// Version of a message with a sealed body.
pub const SEALED: u8 = 2;
const CHECKSUM_BYTES: usize = 4;

const SENDER: u64 = 1;
const CLIENT_ID: u64 = 2;
const EXTRA: u64 = 4;
const RECALLED: u64 = 8;
const MENTIONS: u64 = 16;
const REPLY_TO: u64 = 32;
const LOSS_TIME: u64 = 64;
const EXT: u64 = 128;

#[cfg(test)]
mod tests;
