//! Owns how a record lies on disk: a version byte, fields as variable-length numbers and counted text, a checksum of record and
//! key. Never panics on any bytes: what it cannot read is damaged. Pure.

use compact_str::CompactString;
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::types::record::{Group, Member, Mentions, Message, MessageExtra, MessageKind, MessageType, RawJson, Role};
use crate::types::{ConversationId, GroupId, MessageId, Millis, RequestId, Seq, SessionId, UserId};

/// The bytes are no record of ours: a bit has flipped, or something else wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

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
        let mut writer = Writer::new(24);
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
        let mut writer = Writer::new(32);
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
        let mut writer = Writer::new(40);
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
        let mut writer = Writer::new(64);
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
    let mut writer = Writer::new(48);
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
    let mut writer = Writer::new(8 + 5 * N);
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
    let mut writer = Writer::new(id.as_str().len() + 8);
    writer.text(id.as_str());
    writer.seal(key)
}

pub fn decode_conversation_id(key: &[u8], bytes: &[u8]) -> Result<ConversationId, Damaged> {
    ConversationId::parse(Reader::unseal(key, bytes)?.text()?).map_err(|_| Damaged)
}

/// A message without its conversation and `seq`, which its key says.
pub fn encode_message(message: &Message, key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(96 + message.content.as_str().len());
    let extra = message.extra.as_deref();
    let recalled_by = extra.and_then(|extra| extra.recalled_by.as_ref());
    let mentions = extra.and_then(|extra| extra.mentions.as_ref());
    let reply_to = extra.and_then(|extra| extra.reply_to);
    let loss_time_ms = extra.and_then(|extra| extra.loss_time_ms);
    let ext = extra.and_then(|extra| extra.ext.as_ref());
    let flag = |present: bool, bit: u64| if present { bit } else { 0 };
    let flags = flag(message.sender.is_some(), SENDER)
        | flag(message.client_id.is_some(), CLIENT_ID)
        | flag(extra.is_some(), EXTRA)
        | flag(recalled_by.is_some(), RECALLED)
        | flag(mentions.is_some(), MENTIONS)
        | flag(reply_to.is_some(), REPLY_TO)
        | flag(loss_time_ms.is_some(), LOSS_TIME)
        | flag(ext.is_some(), EXT);
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
    writer.bytes(&message.id.0.to_be_bytes()).number(message.origin.0);
    message.client_id.iter().for_each(|client_id| writer.text(client_id.as_str()).nothing());
    match &message.kind {
        MessageKind::Notification(kind) => writer.number(0).text(kind),
        MessageKind::Chat(kind) => writer.number(*kind as u64),
    };
    writer.text(message.content.as_str());
    recalled_by.iter().for_each(|user| writer.text(user.as_str()).nothing());
    reply_to.iter().for_each(|id| writer.bytes(&id.0.to_be_bytes()).nothing());
    loss_time_ms.iter().for_each(|after| writer.number(*after).nothing());
    ext.iter().for_each(|ext| writer.text(ext.as_str()).nothing());
    writer.seal(key)
}

/// The members that counting needs; the checksum is looked at all the same.
pub fn decode_head<'a>(key: &[u8], bytes: &'a [u8]) -> Result<MessageHead<'a>, Damaged> {
    let mut reader = Reader::unseal(key, bytes)?;
    read_head(&mut reader).map(|(_, head)| head)
}

pub fn decode_message(key: &[u8], bytes: &[u8], conversation: &ConversationId, seq: Seq) -> Result<Message, Damaged> {
    let mut reader = Reader::unseal(key, bytes)?;
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
    let content = RawJson::from_validated(reader.text()?);
    let recalled_by = reader.optional(flags & RECALLED, Reader::user)?;
    let reply_to = reader.optional(flags & REPLY_TO, |reader| Ok(MessageId(u128::from_be_bytes(reader.array()?))))?;
    let loss_time_ms = reader.optional(flags & LOSS_TIME, Reader::number)?;
    let ext = reader.optional(flags & EXT, |reader| Ok(RawJson::from_validated(reader.text()?)))?;
    let extra = (flags & EXTRA != 0).then(|| Box::new(MessageExtra { mentions, reply_to, loss_time_ms, ext, recalled_by }));
    let conversation = conversation.clone();
    let created_at = head.created_at;
    Ok(Message { conversation, seq, id, sender, origin, client_id, kind, content, created_at, extra })
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
    fn new(capacity: usize) -> Writer {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(VERSION);
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

/// Any bytes as a record with a right checksum.
#[cfg(any(test, feature = "fuzzing"))]
pub fn sealed(bytes: &[u8], key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(bytes.len() + 4);
    writer.bytes(bytes);
    writer.seal(key)
}

/// Of the record and of the key it lies under, so that a record in a wrong place is found as well.
fn checksum(key: &[u8], record: &[u8]) -> [u8; 4] {
    (xxh3_64_with_seed(record, xxh3_64(key)) as u32).to_le_bytes()
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn unseal(key: &[u8], bytes: &'a [u8]) -> Result<Reader<'a>, Damaged> {
        let (record, sum) = bytes.split_last_chunk::<4>().ok_or(Damaged)?;
        if checksum(key, record) != *sum {
            return Err(Damaged);
        }
        match record.split_first() {
            Some((&VERSION, bytes)) => Ok(Reader { bytes }),
            _ => Err(Damaged),
        }
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

/// Version of every record.
const VERSION: u8 = 1;

const SENDER: u64 = 1;
const CLIENT_ID: u64 = 2;
const EXTRA: u64 = 4;
const RECALLED: u64 = 8;
const MENTIONS: u64 = 16;
const REPLY_TO: u64 = 32;
const LOSS_TIME: u64 = 64;
const EXT: u64 = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::conformance::{message, private, user};

    /// As many shapes of a message as the record has.
    fn any_message() -> impl Strategy<Value = Message> {
        let extra = (any::<Option<u8>>(), any::<Option<u128>>(), any::<Option<u64>>(), any::<Option<String>>(), any::<bool>());
        (any::<u128>(), any::<u64>(), any::<bool>(), any::<Option<u16>>(), 0_u64..8, ".*", proptest::option::of(extra)).prop_map(
            |(id, at, sent, client_id, kind, content, extra)| {
                let client_id = client_id.map(|id| id.to_string());
                let mut message = message(&private("a", "b"), sent.then_some("a"), client_id.as_deref(), at);
                message.id = MessageId(id);
                message.kind = MessageType::from_number(kind).map_or(MessageKind::Notification("kind".into()), MessageKind::Chat);
                message.content = RawJson::string(&content);
                message.extra = extra.map(|(mentions, reply_to, loss_time_ms, ext, recalled)| {
                    let users = |count: u8| Mentions::Users((1..count).map(|number| user(&number.to_string())).collect());
                    let mentions = mentions.map(|count| if count == 0 { Mentions::All } else { users(count) });
                    let ext = ext.map(|ext| RawJson::string(&ext));
                    let reply_to = reply_to.map(MessageId);
                    Box::new(MessageExtra { mentions, reply_to, loss_time_ms, ext, recalled_by: recalled.then(|| user("r")) })
                });
                message
            },
        )
    }

    proptest! {
        #[test]
        fn a_message_comes_back(message in any_message()) {
            let bytes = encode_message(&message, b"key");
            prop_assert_eq!(decode_message(b"key", &bytes, &message.conversation, message.seq), Ok(message.clone()));
            let head = decode_head(b"key", &bytes).unwrap();
            prop_assert_eq!((head.sender, head.created_at), (message.sender.as_ref().map(UserId::as_str), message.created_at));
            prop_assert_eq!(head.recalled, message.recalled_by().is_some());
            let mentioned = match message.extra.as_ref().and_then(|extra| extra.mentions.as_ref()) {
                Some(Mentions::All) => true,
                Some(Mentions::Users(users)) => users.contains(&user("7")),
                None => false,
            };
            prop_assert_eq!(head.mentions("7"), mentioned);
        }

        #[test]
        fn a_flipped_bit_is_found(message in any_message(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = encode_message(&message, b"key");
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(decode_message(b"key", &bytes, &message.conversation, message.seq), Err(Damaged));
            prop_assert!(decode_head(b"key", &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), sealed in any::<bool>()) {
            // With a right checksum, so that the fields are reached as well.
            let mut writer = Writer::new(0);
            writer.bytes(&bytes);
            let bytes = if sealed { writer.seal(b"key") } else { bytes };
            let _ = decode_message(b"key", &bytes, &private("a", "b"), Seq(1));
            let _ = decode_head(b"key", &bytes).map(|head| head.mentions("a"));
            let _ = ConversationRecord::decode(b"key", &bytes);
            let _ = RowRecord::decode(b"key", &bytes);
            let _ = FirstUse::decode(b"key", &bytes);
            let _ = GroupRecord::decode(b"key", &bytes);
            let _ = decode_member(b"key", &bytes);
            let _ = decode_numbers::<3>(b"key", &bytes);
            let _ = decode_conversation_id(b"key", &bytes);
        }

        #[test]
        fn rows_come_back(number: u64, start: u64, read: u64, delivered in prop::collection::vec(any::<(u64, u64)>(), 0..5)) {
            let delivered = delivered.into_iter().map(|(device, seq)| (device, Seq(seq))).collect();
            let row = RowRecord { number, start_seq: Seq(start), read_seq: Seq(read), delivered };
            prop_assert_eq!(RowRecord::decode(b"k", &row.encode(b"k")), Ok(row.clone()));
            prop_assert_eq!(RowRecord::decode(b"other", &row.encode(b"k")), Err(Damaged), "not under another key");
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_ends_with_them() {
        let mut mentions = Writer { bytes: Vec::new() };
        mentions.number(u64::MAX).text("a");
        let head = MessageHead { created_at: Millis(0), sender: None, recalled: false, mentions: Some(&mentions.bytes) };
        assert!(head.mentions("a") && !head.mentions("b"));
    }

    #[test]
    fn the_format_stays() {
        // Written by version 1: whatever changes, this is to be read.
        let bytes = encode_message(&message(&private("a", "b"), Some("a"), Some("x"), 1_000), b"key");
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, FIRST_FORMAT);
    }

    const FIRST_FORMAT: &str = "0103e80701610000000000000000000000000000000007017801072268656c6c6f2200b9c915";
}
