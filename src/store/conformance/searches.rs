//! Owns what every backend must do when it searches. Never looks inside a backend.

use super::{Probe, group, member, message, private, user};
use crate::types::record::{RawJson, Role};
use crate::types::storage::{Answer, Read, Write};
use crate::types::{ConversationId, Millis, Seq};

impl Probe {
    /// Contents found on all pages, in order.
    fn found(&mut self, name: &str, query: &str, only: Option<&ConversationId>, limit: u32) -> Vec<String> {
        self.found_in(name, query, only, false, limit)
    }

    fn found_in(
        &mut self,
        name: &str,
        query: &str,
        only: Option<&ConversationId>,
        whole_groups: bool,
        limit: u32,
    ) -> Vec<String> {
        let (mut contents, mut cursor) = (Vec::new(), None);
        for _ in 0..100 {
            let read = Read::Search {
                user: user(name),
                query: query.to_owned(),
                conversation: only.cloned(),
                whole_groups,
                limit,
                cursor,
            };
            match self.read(read) {
                Answer::Found { messages, next } => {
                    assert!(messages.len() <= limit as usize);
                    contents.extend(messages.iter().map(|message| message.content.as_str().to_owned()));
                    cursor = next;
                }
                other => panic!("nothing searched: {other:?}"),
            }
            if cursor.is_none() {
                return contents;
            }
        }
        panic!("pages without end");
    }
}

pub fn words(mut probe: Probe) {
    probe.make_group("g", &[("b", 0)]);
    let (one, room) = (private("a", "b"), ConversationId::group(&group("g")));
    assert!(probe.found("a", "hello", None, 10).is_empty());
    probe.say(&one, "b", "Hello World", 1_000);
    probe.say(&one, "a", "the world says: \"HELLO\"", 2_000);
    probe.say(&one, "b", "\u{4eca}\u{5929}\u{5929}\u{6c14}\u{5f88}\u{597d}", 3_000);
    probe.say(&room, "b", "hello, early", 1_500);
    probe.change("g", |change| change.members_put = vec![member("a", Role::Member, 1)]);
    probe.say(&room, "b", "hello, world", 2_500);
    probe.say(&private("b", "c"), "b", "hello world of others", 2_600);
    let found = probe.found("a", "hello world", None, 10);
    assert_eq!(found, ["\"hello, world\"", "\"the world says: \\\"HELLO\\\"\"", "\"Hello World\""], "newest first");
    assert_eq!(probe.found("a", "WORLD hello", Some(&one), 10).len(), 2);
    assert_eq!(probe.found("a", "\u{5929}\u{6c14}", None, 10).len(), 1, "words need no blanks around them");
    assert!(probe.found("a", "early", None, 10).is_empty(), "from before they joined");
    assert_eq!(probe.found_in("a", "early", None, true, 10), ["\"hello, early\""], "where groups are open to the beginning");
    assert!(probe.found_in("c", "early", None, true, 10).is_empty(), "never to those who are not in");
    assert_eq!(probe.found("b", "early", None, 10).len(), 1);
    assert!(probe.found("a", "others", None, 10).is_empty() && probe.found("a", "hello moon", None, 10).is_empty());
    probe.done(Write::Hide { user: user("a"), conversation: one.clone(), seq: Seq(1) });
    probe.done(Write::Recall { conversation: one.clone(), seq: Seq(2), by: user("a") });
    assert_eq!(probe.found("a", "hello", None, 10), ["\"hello, world\""]);
    assert_eq!(probe.found("b", "hello", Some(&one), 10), ["\"Hello World\""]);
}

pub fn scripts(mut probe: Probe) {
    let one = private("a", "b");
    let said = [
        "明天开会议吗？",
        "发版 v2.3 release，请大家看",
        "개발자 회의에서 만나요",
        "これは東京タワーのテストです",
        "Grüße aus der STRASSE",
        "a+b (c) AND \"quoted\" OR -d *",
        "ok 👍🏽",
    ];
    for (number, content) in said.iter().enumerate() {
        probe.say(&one, "b", content, 1_000 + number as u64);
    }
    probe.say(&one, "b", "开会，议程", 2_000);
    for (query, place) in [
        ("会议", 0),
        ("明天 会议", 0),
        ("吗", 0),
        ("发版 v2.3", 1),
        ("发版V2.3 RELEASE", 1),
        ("회의", 2),
        ("東京タワー", 3),
        ("ﾃｽﾄ", 3),
        ("straße GRÜSSE", 4),
        ("\"a+b\" c", 5),
        ("OR and", 5),
        ("👍", 6),
    ] {
        assert_eq!(probe.found("a", query, None, 10), [RawJson::string(said[place]).as_str()], "{query}");
    }
    for query in ["议会", "v2.4", "hell*", "*", "a OR z", "content:ok", "!?", "\u{0}"] {
        assert!(probe.found("a", query, None, 10).is_empty(), "{query}");
    }
    let mut object = message(&one, Some("b"), None, 3_000);
    let content = r#"{"title":"Q3 \u8ba1\u5212","rows":[["net",{"x":"gross"}],7]}"#;
    object.content = RawJson::from_validated(content);
    probe.append(object);
    for (query, found) in [("计划", 1), ("q3 gross", 1), ("title", 0), ("7", 0)] {
        assert_eq!(probe.found("a", query, None, 10).len(), found, "{query}");
    }
}

pub fn pruned(mut probe: Probe) {
    let one = private("a", "b");
    for number in 0..30 {
        probe.say(&one, "b", "needle", 1_000 + number);
    }
    assert_eq!(probe.found("a", "needle", None, 7).len(), 30);
    assert_eq!(probe.backend.prune(Millis(1_010), 100), Ok(10));
    assert_eq!(probe.found("a", "needle", None, 7).len(), 20);
}

pub fn pages(mut probe: Probe) {
    let mut expected = Vec::new();
    for number in 0..40 {
        let partner = ["b", "c", "d"][number % 3];
        let content = format!("needle {number}");
        probe.say(&private("a", partner), "a", &content, 1_000 + number as u64 / 2);
        probe.say(&private("a", partner), partner, "hay", 1_000 + number as u64 / 2);
        expected.push(format!("\"{content}\""));
    }
    expected.sort();
    for limit in [1, 3, 7, 100] {
        let mut found = probe.found("a", "needle", None, limit);
        let time = |content: &String| content.trim_matches(|other: char| !other.is_ascii_digit()).parse::<u64>().unwrap() / 2;
        assert!(found.is_sorted_by_key(|content| std::cmp::Reverse(time(content))), "{found:?}");
        found.sort();
        assert_eq!(found, expected, "each once, in pages of {limit}");
    }
}
