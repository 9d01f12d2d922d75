//! Checks the records of the store on disk: no bytes make a reader panic or take long, with or without a right checksum, and
//! what can be read is written so that it comes back.

use std::fmt::Debug;

use super::input::Input;
use crate::store::embedded::codec::{
    ConversationRecord, FirstUse, GroupRecord, RowRecord, SEALED, VERSION, decode_conversation_id, decode_head, decode_member,
    decode_message, decode_numbers, encode_conversation_id, encode_member, encode_message, encode_numbers, sealed,
};
use crate::store::embedded::keyring::Keyring;
use crate::types::{ConversationId, Seq, UserId};

/// A byte that chooses the record and whether it is sealed, then its bytes.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let kind = input.byte();
    let own = input.rest();
    let version = if kind & 0x40 == 0 { VERSION } else { SEALED };
    let bytes = if kind & 0x80 == 0 { sealed(version, own, KEY) } else { own.to_vec() };
    match kind & 7 {
        0 => message(&bytes),
        1 => comes_back(&bytes, ConversationRecord::decode, |record| record.encode(KEY)),
        2 => comes_back(&bytes, RowRecord::decode, |record| record.encode(KEY)),
        3 => comes_back(&bytes, FirstUse::decode, |record| record.encode(KEY)),
        4 => comes_back(&bytes, GroupRecord::decode, |record| record.encode(KEY)),
        5 => comes_back(&bytes, decode_member, |member| encode_member(member, KEY)),
        6 => comes_back(&bytes, decode_numbers::<3>, |numbers| encode_numbers(*numbers, KEY)),
        _ => comes_back(&bytes, decode_conversation_id, |id| encode_conversation_id(id, KEY)),
    }
}

fn comes_back<T: PartialEq + Debug, E: PartialEq + Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8], &[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let Ok(value) = decode(KEY, bytes) else { return };
    assert!(decode(b"another key", bytes).is_err(), "no record lies under two keys");
    assert_eq!(decode(KEY, &encode(&value)).as_ref(), Ok(&value));
}

fn message(bytes: &[u8]) {
    let head = decode_head(KEY, bytes);
    if let Ok(head) = &head {
        // Counting looks only at this much, so it must hold for what is damaged further on as well.
        let _ = head.mentions("alice");
    }
    let conversation = ConversationId::private(&user("a"), &user("b"));
    // What was read open is written sealed, so both ways of a body are gone.
    let keyring = Keyring::fixed("key", 7);
    let decode = |key: &[u8], bytes: &[u8]| decode_message(key, bytes, &conversation, Seq(7), &keyring);
    comes_back(bytes, decode, |message| encode_message(message, KEY, &keyring));
    if let (Ok(message), Ok(head)) = (decode(KEY, bytes), &head) {
        assert_eq!(message.created_at, head.created_at);
        assert_eq!(message.sender.as_ref().map(UserId::as_str), head.sender);
        assert_eq!(message.recalled_by().is_some(), head.recalled && message.extra.is_some());
    }
}

fn user(id: &str) -> UserId {
    UserId::new(id).expect("a letter is a user id")
}

const KEY: &[u8] = b"the key of the record";
