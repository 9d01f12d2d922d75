//! Owns every identifier: what clients name (users, devices, groups, conversations, requests) and what the server names
//! (shards, sessions, messages, sequence numbers).
//!
//! Never holds an invalid value: client identifiers are checked where they are made. All are cheap to clone: text of up to
//! 24 bytes is stored inline.

use std::fmt;

use compact_str::CompactString;

/// Longest identifier a client may choose, in bytes of UTF-8.
pub const ID_BYTES_MAX: usize = 128;

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdFault {
    #[error("must not be empty")]
    Empty,
    #[error("must be at most 128 bytes of UTF-8")]
    TooLong,
    #[error("must not contain control characters")]
    Control,
    #[error("must be p:<user>:<user>, g:<group> or s:<user>, with : and % percent-encoded inside ids and users in byte order")]
    Conversation,
}

/// Checks what every client identifier must satisfy: 1 to 128 bytes of UTF-8 without control characters.
pub fn check_id(text: &str) -> Result<(), IdFault> {
    if text.is_empty() {
        return Err(IdFault::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdFault::TooLong);
    }
    // Controls are below 0x20, 0x7f, and U+0080 to U+009F, which begin with 0xC2.
    let suspect = text.bytes().any(|byte| byte < 0x20 || byte == 0x7f || byte == 0xc2);
    if suspect && text.chars().any(char::is_control) {
        return Err(IdFault::Control);
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(CompactString);

        impl $name {
            /// Checks and takes an identifier.
            pub fn new(text: &str) -> Result<$name, IdFault> {
                check_id(text)?;
                Ok($name(CompactString::new(text)))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.0.as_str(), out)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// A user, as the token's `sub` names it.
    UserId
);
text_id!(
    /// One device of a user; `default` when the client names none.
    DeviceId
);
text_id!(
    /// A group, as its creator or the server named it.
    GroupId
);
text_id!(
    /// The client's own id of a request (`message_id` in the envelope): echoed in the reply, and the key of de-duplication.
    RequestId
);

impl DeviceId {
    /// The device of a client that names none.
    pub fn unnamed() -> DeviceId {
        DeviceId(CompactString::const_new("default"))
    }
}

/// A conversation in its wire form: `p:<userA>:<userB>` (raw ids in byte order), `g:<group>` or `s:<user>`,
/// with `:` and `%` inside ids percent-encoded (PROTOCOL, "Envelope").
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId(CompactString);

/// What a conversation identifier names, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConversationKind {
    /// Two users in byte order; both the same for a conversation with oneself.
    Private(UserId, UserId),
    Group(GroupId),
    /// System messages to one user.
    System(UserId),
}

impl ConversationId {
    /// The private conversation of two users, whichever is named first.
    pub fn private(one: &UserId, other: &UserId) -> ConversationId {
        let (low, high) = if one.as_str().as_bytes() <= other.as_str().as_bytes() { (one, other) } else { (other, one) };
        let mut text = CompactString::with_capacity(3 + low.as_str().len() + high.as_str().len());
        text.push_str("p:");
        escape_into(&mut text, low.as_str());
        text.push(':');
        escape_into(&mut text, high.as_str());
        ConversationId(text)
    }

    /// The conversation of a group.
    pub fn group(group: &GroupId) -> ConversationId {
        let mut text = CompactString::const_new("g:");
        escape_into(&mut text, group.as_str());
        ConversationId(text)
    }

    /// The system conversation of one user.
    pub fn system(user: &UserId) -> ConversationId {
        let mut text = CompactString::const_new("s:");
        escape_into(&mut text, user.as_str());
        ConversationId(text)
    }

    /// Reads the wire form; refuses every spelling but the canonical one, so that equal conversations have equal ids.
    pub fn parse(text: &str) -> Result<ConversationId, IdFault> {
        let id = match decode(text).ok_or(IdFault::Conversation)? {
            ConversationKind::Private(one, other) => ConversationId::private(&one, &other),
            ConversationKind::Group(group) => ConversationId::group(&group),
            ConversationKind::System(user) => ConversationId::system(&user),
        };
        if id.as_str() == text { Ok(id) } else { Err(IdFault::Conversation) }
    }

    /// Decodes the identifier. Cheap enough for verbs, too slow for a fan-out loop.
    pub fn kind(&self) -> ConversationKind {
        // Plain ids, which nearly all are, were checked when this one was made.
        let (kind, rest) = (self.0.as_bytes()[0], &self.0[2..]);
        if rest.bytes().all(|byte| byte != b'%') {
            match (kind, rest.split_once(':')) {
                (b'p', Some((low, high))) => return ConversationKind::Private(UserId(low.into()), UserId(high.into())),
                (b'g', None) => return ConversationKind::Group(GroupId(rest.into())),
                (b's', None) => return ConversationKind::System(UserId(rest.into())),
                _ => {}
            }
        }
        decode(&self.0).expect("a conversation id is canonical from its construction on")
    }

    pub fn is_group(&self) -> bool {
        self.0.as_bytes()[0] == b'g'
    }

    pub fn is_private(&self) -> bool {
        self.0.as_bytes()[0] == b'p'
    }

    pub fn is_system(&self) -> bool {
        self.0.as_bytes()[0] == b's'
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

fn escape_into(target: &mut CompactString, id: &str) {
    if !id.bytes().any(|byte| byte == b':' || byte == b'%') {
        return target.push_str(id);
    }
    for character in id.chars() {
        match character {
            ':' => target.push_str("%3A"),
            '%' => target.push_str("%25"),
            other => target.push(other),
        }
    }
}

fn unescape(text: &str) -> Option<CompactString> {
    let mut plain = CompactString::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        match rest.get(at..at + 3)? {
            "%3A" => plain.push(':'),
            "%25" => plain.push('%'),
            _ => return None,
        }
        rest = &rest[at + 3..];
    }
    plain.push_str(rest);
    Some(plain)
}

fn decode(text: &str) -> Option<ConversationKind> {
    let (kind, rest) = text.split_once(':')?;
    match kind {
        "p" => {
            let (low, high) = rest.split_once(':')?;
            Some(ConversationKind::Private(UserId::new(&unescape(low)?).ok()?, UserId::new(&unescape(high)?).ok()?))
        }
        "g" => Some(ConversationKind::Group(GroupId::new(&unescape(rest)?).ok()?)),
        "s" => Some(ConversationKind::System(UserId::new(&unescape(rest)?).ok()?)),
        _ => None,
    }
}

/// Position in a conversation's log: 1 for the first message, without gaps. 0 means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    pub const NONE: Seq = Seq(0);

    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }

    pub fn previous(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }
}

/// The server's id of a message: a UUIDv7 (RFC 9562 section 5.7), so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u128);

impl MessageId {
    /// Builds a version 7 UUID from Unix milliseconds and 74 random bits (the upper bits of `random` are ignored).
    pub fn from_parts(unix_ms: u64, random: u128) -> MessageId {
        let bytes = random.to_be_bytes();
        let mut tail = [0u8; 10];
        tail.copy_from_slice(&bytes[6..]);
        MessageId(uuid::Builder::from_unix_timestamp_millis(unix_ms, &tail).into_uuid().as_u128())
    }

    /// Reads the hyphenated form.
    pub fn parse(text: &str) -> Option<MessageId> {
        if text.len() != 36 {
            return None;
        }
        uuid::Uuid::try_parse(text).ok().map(|uuid| MessageId(uuid.as_u128()))
    }

    /// Writes the hyphenated lower-case form, 36 bytes of ASCII.
    pub fn write_hyphenated(self, buffer: &mut [u8; 36]) -> &str {
        uuid::Uuid::from_u128(self.0).hyphenated().encode_lower(buffer)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.write_hyphenated(&mut [0; 36]))
    }
}

/// One core's thread, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A connection's place in its home shard's table; `generation` tells two users of one slot apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    pub slot: u32,
    pub generation: u32,
}

/// A session as other shards address it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionAddress {
    pub shard: ShardId,
    pub key: SessionKey,
}

/// A session's name, never used again, also not after a restart: milliseconds of opening, shard and counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// No session: what the server itself or an operator wrote.
    pub const NONE: SessionId = SessionId(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        UserId::new(text).unwrap()
    }

    #[test]
    fn private_ids_are_ordered_and_escaped() {
        let id = ConversationId::private(&user("b"), &user("a:c%"));
        assert_eq!(id.as_str(), "p:a%3Ac%25:b");
        assert_eq!(id.kind(), ConversationKind::Private(user("a:c%"), user("b")));
        assert_eq!(ConversationId::parse(id.as_str()), Ok(id));
    }

    #[test]
    fn only_the_canonical_spelling_parses() {
        for text in ["p:b:a", "p:a", "x:a", "g:", "g:a%41", "g:a:b", "", "p:a:b:c", "s:%3a"] {
            assert!(ConversationId::parse(text).is_err(), "{text}");
        }
        assert!(ConversationId::parse("s:u").unwrap().is_system());
    }

    #[test]
    fn ids_refuse_empty_long_and_control() {
        assert_eq!(UserId::new(""), Err(IdFault::Empty));
        assert_eq!(UserId::new(&"x".repeat(129)), Err(IdFault::TooLong));
        assert_eq!(UserId::new("a\u{7f}"), Err(IdFault::Control));
        assert!(UserId::new(&"é".repeat(64)).is_ok());
    }

    #[test]
    fn message_ids_carry_version_seven_and_round_trip() {
        let id = MessageId::from_parts(1_734_567_890_123, 0x1234_5678_9abc_def0_1122_3344_5566_7788);
        let text = id.to_string();
        assert_eq!(&text[14..15], "7");
        assert_eq!(MessageId::parse(&text), Some(id));
        assert!(MessageId::from_parts(2, 0) > MessageId::from_parts(1, u128::MAX));
    }
}
