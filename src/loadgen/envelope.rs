//! Owns the JSON a bench client writes and the few members it reads back.
//!
//! Never parses whole documents: a generator that did would be the slower side. All names and contents of a run are made
//! here, contain no quote or backslash, and therefore cannot be mistaken for a member when bytes are searched.

use std::io::Write;

/// What a message carries of its origin: `q`, 14 hexadecimal digits of due time, 8 of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since the run's epoch at which the message was due; 0 in requests that prepare the load.
    pub due_ns: u64,
    /// Counts the messages of one sender.
    pub number: u32,
}

impl Stamp {
    /// Length in bytes as written; the smallest payload of a measured message.
    pub const LENGTH: usize = 23;

    fn put(self, out: &mut Vec<u8>) {
        put(out, format_args!("q{:014x}{:08x}", self.due_ns & 0x00ff_ffff_ffff_ffff, self.number));
    }

    fn read(bytes: &[u8]) -> Option<Stamp> {
        let due_ns = hexadecimal(bytes.get(1..15)?)?;
        let number = hexadecimal(bytes.get(15..23)?)?;
        Some(Stamp { due_ns, number: number as u32 })
    }
}

/// What a server message means to a bench client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Authenticated,
    Synced,
    /// Reply to a request, `None` when it echoes no id of ours.
    Acked(Option<Stamp>),
    /// A chat message with its `seq`.
    Delivered {
        stamp: Stamp,
        seq: u64,
    },
    /// `error` or `auth_failed`.
    Refused(Option<Stamp>),
    /// `messages_skipped`: the server says that something is gone.
    Skipped,
    /// Group events, presence, pongs and the like.
    Other,
}

/// Reads server messages, remembering where members were last time.
#[derive(Debug, Default)]
pub struct Scanner {
    kind_at: usize,
    id_at: usize,
    seq_at: usize,
    content_at: usize,
}

impl Scanner {
    /// Classifies one text message.
    pub fn scan(&mut self, text: &[u8]) -> Seen {
        let Some(kind_at) = find(text, b"\"type\":\"", &mut self.kind_at) else { return Seen::Other };
        let kind = &text[kind_at..];
        if kind.starts_with(b"new_message\"") {
            self.delivered(text)
        } else if kind.starts_with(b"ack\"") {
            Seen::Acked(self.own_id(text))
        } else if kind.starts_with(b"error\"") || kind.starts_with(b"auth_failed\"") {
            Seen::Refused(self.own_id(text))
        } else if kind.starts_with(b"auth_success\"") {
            Seen::Authenticated
        } else if kind.starts_with(b"sync_done\"") {
            Seen::Synced
        } else if kind.starts_with(b"messages_skipped\"") {
            Seen::Skipped
        } else {
            Seen::Other
        }
    }

    fn own_id(&mut self, text: &[u8]) -> Option<Stamp> {
        let at = find(text, b"\"message_id\":\"q", &mut self.id_at)?;
        Stamp::read(&text[at - 1..])
    }

    fn delivered(&mut self, text: &[u8]) -> Seen {
        let stamp = find(text, b"\"content\":\"q", &mut self.content_at).and_then(|at| Stamp::read(&text[at - 1..]));
        let seq = find(text, b"\"seq\":", &mut self.seq_at).map(|at| {
            let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
            digits.fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
        });
        match (stamp, seq) {
            (Some(stamp), Some(seq)) => Seen::Delivered { stamp, seq },
            _ => Seen::Other,
        }
    }
}

/// Names of one run. Fixed width, so that every message of a run has the same length; fresh per run, so that a run never
/// meets what an earlier one left on the same server.
#[derive(Clone, Debug)]
pub struct Names {
    run: String,
}

impl Names {
    /// Names that no other run uses, but for a chance of 1 in 16 million.
    pub fn fresh() -> Names {
        Names { run: format!("{:06x}", fastrand::u32(..0x100_0000)) }
    }

    pub fn user(&self, index: usize) -> String {
        format!("{}-u{index:07}", self.run)
    }

    pub fn group(&self, index: usize) -> String {
        format!("{}-g{index:06}", self.run)
    }

    /// `create_group` of an open group, or `join_group`.
    pub fn enter(&self, out: &mut Vec<u8>, group: usize, create: bool, number: u32) {
        let kind = if create { "create_group" } else { "join_group" };
        put(out, format_args!(r#"{{"type":"{kind}","message_id":""#));
        Stamp { due_ns: 0, number }.put(out);
        put(out, format_args!(r#"","data":{{"group_id":"{}"}}}}"#, self.group(group)));
    }

    /// `send_message` with a content of `content_bytes` bytes, at least [`Stamp::LENGTH`].
    pub fn send(&self, out: &mut Vec<u8>, target: Target, stamp: Stamp, content_bytes: usize) {
        out.extend_from_slice(br#"{"type":"send_message","message_id":""#);
        stamp.put(out);
        match target {
            Target::User(index) => put(out, format_args!(r#"","data":{{"to_user_id":"{}-u{index:07}""#, self.run)),
            Target::Group(index) => put(out, format_args!(r#"","data":{{"group_id":"{}-g{index:06}""#, self.run)),
        }
        out.extend_from_slice(br#","content":""#);
        stamp.put(out);
        out.resize(out.len() + content_bytes.saturating_sub(Stamp::LENGTH), b'x');
        out.extend_from_slice(br#""}}"#);
    }
}

/// The text behind `name`, which stands as `"member":"` does, up to the next quote.
pub fn text_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_once(name)?.1.split('"').next()
}

/// Where a measured message goes, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    User(usize),
    Group(usize),
}

/// Appends without an allocation in between.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every write");
}

/// Position behind `needle`. Server messages of one kind are alike, so the last position is tried before searching.
fn find(text: &[u8], needle: &[u8], hint: &mut usize) -> Option<usize> {
    if !text.get(*hint..).is_some_and(|rest| rest.starts_with(needle)) {
        *hint = text.windows(needle.len()).position(|window| window == needle)?;
    }
    Some(*hint + needle.len())
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_json_and_carry_the_asked_content_length() {
        let names = Names::fresh();
        for bytes in [Stamp::LENGTH, 64, 1_024] {
            let mut out = Vec::new();
            let stamp = Stamp { due_ns: 123_456_789_012, number: 77 };
            names.send(&mut out, Target::Group(3), stamp, bytes);
            let json: serde_json::Value = serde_json::from_slice(&out).expect("valid JSON");
            assert_eq!(json["data"]["content"].as_str().map(str::len), Some(bytes));
            assert_eq!(json["data"]["group_id"], names.group(3));
            let id = json["message_id"].as_str().expect("a string");
            assert_eq!(Stamp::read(id.as_bytes()), Some(stamp));
        }
        let mut out = Vec::new();
        names.enter(&mut out, 5, true, 9);
        let json: serde_json::Value = serde_json::from_slice(&out).expect("valid JSON");
        assert_eq!((json["type"].as_str(), json["data"]["group_id"].as_str()), (Some("create_group"), Some(&*names.group(5))));
    }

    #[test]
    fn server_messages_are_classified_wherever_their_members_stand() {
        let mut scanner = Scanner::default();
        let id = "q0000000000002a00000007";
        let stamp = Stamp { due_ns: 42, number: 7 };
        let first = format!(
            r#"{{"type":"new_message","data":{{"message_id":"0192","seq":15,"content":"{id}xx","client_message_id":"{id}"}}}}"#
        );
        let moved =
            format!(r#"{{"data":{{"content":"{id}","msg_type":"text","message_id":"0192","seq":160}},"type":"new_message"}}"#);
        assert_eq!(scanner.scan(first.as_bytes()), Seen::Delivered { stamp, seq: 15 });
        assert_eq!(scanner.scan(moved.as_bytes()), Seen::Delivered { stamp, seq: 160 });
        assert_eq!(scanner.scan(first.as_bytes()), Seen::Delivered { stamp, seq: 15 });
        let ack = format!(r#"{{"type":"ack","data":{{"message_id":"0192-b","seq":3}},"message_id":"{id}"}}"#);
        assert_eq!(scanner.scan(ack.as_bytes()), Seen::Acked(Some(stamp)));
        assert_eq!(scanner.scan(br#"{"type":"error","data":{"name":"RATE_LIMITED"}}"#), Seen::Refused(None));
        assert_eq!(scanner.scan(br#"{"type":"auth_success","data":{}}"#), Seen::Authenticated);
        assert_eq!(scanner.scan(br#"{"type":"sync_done"}"#), Seen::Synced);
        assert_eq!(scanner.scan(br#"{"type":"presence","data":{}}"#), Seen::Other);
        assert_eq!(scanner.scan(b"{}"), Seen::Other);
    }
}
