//! Proves that records come back, that damage is found, that bodies are sealed, and that what the first version wrote is read.

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
    fn a_message_comes_back(message in any_message(), sealed: bool) {
        let keyring = keyring(sealed);
        let bytes = encode_message(&message, b"key", &keyring);
        prop_assert_eq!(decode_message(b"key", &bytes, &message.conversation, message.seq, &keyring), Ok(message.clone()));
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
    fn a_flipped_bit_is_found(
        message in any_message(),
        sealed: bool,
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let keyring = keyring(sealed);
        let mut bytes = encode_message(&message, b"key", &keyring);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert_eq!(decode_message(b"key", &bytes, &message.conversation, message.seq, &keyring), Err(Unreadable::Damaged));
        prop_assert!(decode_head(b"key", &bytes).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        sealed: bool,
        version in 0_u8..4,
    ) {
        // With a right checksum, so that the fields are reached as well.
        let mut writer = Writer::new(version, 0);
        writer.bytes(&bytes);
        let bytes = if sealed { writer.seal(b"key") } else { bytes };
        let _ = decode_message(b"key", &bytes, &private("a", "b"), Seq(1), &keyring(true));
        let _ = decode_outline(b"key", &bytes, &private("a", "b"), Seq(1));
        let _ = decode_used_key(b"key", &bytes);
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
    let message = message(&private("a", "b"), Some("a"), Some("x"), 1_000);
    assert_eq!(hex(&encode_message(&message, b"key", &Keyring::default())), FIRST_FORMAT);
    for keyring in [Keyring::default(), keyring(true)] {
        assert_eq!(decode_message(b"key", &bytes(FIRST_FORMAT), &message.conversation, Seq::NONE, &keyring), Ok(message.clone()));
    }
    // A counter that begins at 0 under fixed bits makes the nonce the same in every run.
    assert_eq!(hex(&encode_message(&message, b"key", &keyring(true))), SEALED_FORMAT);
    assert_eq!(decode_message(b"key", &bytes(SEALED_FORMAT), &message.conversation, Seq::NONE, &keyring(true)), Ok(message));
}

#[test]
fn a_sealed_body_belongs_to_its_place_and_its_members() {
    let keyring = keyring(true);
    let mut message = message(&private("a", "b"), Some("a"), None, 1_000);
    message.content = RawJson::string("the body that nobody may read");
    let ext = Some(RawJson::string("the ext that nobody may read"));
    message.extra = Some(Box::new(MessageExtra { ext, ..MessageExtra::default() }));
    let sealed = encode_message(&message, b"key", &keyring);
    assert!(!sealed.windows(6).any(|window| window == b"nobody"));
    assert_ne!(sealed, encode_message(&message, b"key", &keyring), "sealed twice, it looks different");
    let outline = decode_outline(b"key", &sealed, &message.conversation, Seq(1)).unwrap();
    assert_eq!((outline.sender.as_ref(), outline.content.as_str()), (message.sender.as_ref(), "\"\""));

    // Whoever can write to the disk can also mend a checksum.
    let forged = |change: &dyn Fn(&mut Vec<u8>), key: &[u8]| {
        let mut writer = Writer { bytes: sealed[..sealed.len() - CHECKSUM_BYTES].to_vec() };
        change(&mut writer.bytes);
        writer.seal(key)
    };
    let read =
        |bytes: &[u8], key: &[u8], conversation: &ConversationId| decode_message(key, bytes, conversation, Seq(1), &keyring);
    assert!(read(&forged(&|_| {}, b"key"), b"key", &message.conversation).is_ok());
    assert_eq!(read(&forged(&|_| {}, b"other"), b"other", &message.conversation), Err(Unreadable::Damaged), "another place");
    assert_eq!(read(&sealed, b"key", &private("a", "c")), Err(Unreadable::Damaged), "another conversation");
    let sender = sealed.iter().position(|byte| *byte == b'a').unwrap();
    let another = forged(&|bytes| bytes[sender] = b'b', b"key");
    assert_eq!(decode_head(b"key", &another).unwrap().sender, Some("b"));
    assert_eq!(read(&another, b"key", &message.conversation), Err(Unreadable::Damaged), "another sender");

    match decode_message(b"key", &sealed, &message.conversation, Seq(1), &Keyring::fixed("k2", 7)) {
        Err(Unreadable::NoKey(fault)) => assert_eq!(fault.id, "k1"),
        other => panic!("{other:?}"),
    }
    let wrong = decode_message(b"key", &sealed, &message.conversation, Seq(1), &Keyring::fixed("k1", 8));
    assert_eq!(wrong, Err(Unreadable::Damaged));
}

#[test]
fn what_was_recalled_needs_no_key() {
    let message = message(&private("a", "b"), Some("a"), None, 1_000).recalled(&user("a"));
    let bytes = encode_message(&message, b"key", &keyring(true));
    assert_eq!(decode_message(b"key", &bytes, &message.conversation, message.seq, &Keyring::default()), Ok(message));
}

fn keyring(sealed: bool) -> Keyring {
    if sealed { Keyring::fixed("k1", 7) } else { Keyring::default() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

const FIRST_FORMAT: &str = "0103e80701610000000000000000000000000000000007017801072268656c6c6f2200b9c915";
const SEALED_FORMAT: &str = "0203e80701610000000000000000000000000000000007017801026b31000000000000000000000000\
    1866faccd797fe64ca6c7168b5697f4c72226dddb8138bbed6078f7ae1";
