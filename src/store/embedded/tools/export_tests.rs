//! Proves that what is exported and imported is the same again, and that a bad export says which line is.

use std::path::Path;

use proptest::prelude::*;

use super::super::tests::{everything, populate};
use super::super::{EmbeddedBackend, EmbeddedSettings};
use super::*;
use crate::store::Backend;
use crate::store::conformance::{device, group, message, private, user};
use crate::types::record::{Delivery, Group, Member, Mentions, MessageExtra, MessageKind, RawJson, Role};
use crate::types::storage::{Append, GroupChange, Write};
use crate::types::{ConversationId, MessageId, Millis, Seq};

fn open(path: &Path) -> EmbeddedBackend {
    EmbeddedBackend::open(EmbeddedSettings::new(path)).unwrap()
}

fn export(path: &Path) -> String {
    let mut out = Vec::new();
    Workbench::open(&EmbeddedSettings::new(path)).unwrap().export(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn import_text(path: &Path, text: &str) -> Result<u64, ImportFault> {
    import(&EmbeddedSettings::new(path), &mut text.as_bytes())
}

#[test]
fn everything_comes_back_equal() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut backend = open(folder.path());
    populate(&mut backend);
    let before = everything(&mut backend);
    drop(backend);
    let text = export(folder.path());
    assert_eq!(text.lines().next(), Some("{\"corehub_export\":1}"));
    let to = other.path().join("data");
    assert_eq!(import_text(&to, &text).unwrap(), text.lines().count() as u64);
    assert_eq!(export(&to), text);
    let mut backend = open(&to);
    assert_eq!(everything(&mut backend), before);
    // Duplicates are known, and logs go on where they were.
    let mut again = message(&private("a", "b"), Some("a"), Some("40"), 2_000);
    again.id = MessageId(5_000);
    let mut outcomes = Vec::new();
    let append = Append { message: again, head: None, dedupe_since: Millis(0), repeat_only: false };
    backend.commit(&mut vec![Write::Append(Box::new(append))], &mut outcomes);
    assert!(format!("{outcomes:?}").contains("Duplicate"), "{outcomes:?}");
}

#[test]
fn a_folder_that_is_not_empty_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "mine").unwrap();
    let told = import_text(folder.path(), "{\"corehub_export\":1}\n{\"end\":1}\n").unwrap_err().to_string();
    assert!(told.contains("not empty"), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_bad_line_is_named_and_its_folder_is_no_data_folder() {
    let source = tempfile::tempdir().unwrap();
    populate(&mut open(source.path()));
    let good = export(source.path());
    let lines: Vec<&str> = good.lines().collect();
    let row = lines.iter().position(|line| line.starts_with("{\"row\":{\"user\":\"a\",\"conversation\":\"p:a:b\"")).unwrap();
    let with = |at: usize, line: &str| {
        let mut changed = lines.clone();
        changed[at] = line;
        changed.join("\n")
    };
    let doubled = format!("{}\n{}", lines[..3].join("\n"), lines[2..].join("\n"));
    for (text, expected) in [
        (String::new(), "line 1: it is missing: the export is cut off".to_owned()),
        (lines[..5].join("\n"), "line 6: it is missing".to_owned()),
        (lines[..lines.len() - 1].join("\n"), format!("line {}: it is missing", lines.len())),
        (lines[1..].join("\n"), "line 1: an export begins with".to_owned()),
        (with(0, "{\"corehub_export\":2}"), "line 1: export version 2 is not known".to_owned()),
        (with(4, "no json"), "line 5: ".to_owned()),
        (with(4, "{\"message\":{\"seq\":7}}"), "line 5: missing field".to_owned()),
        (with(4, "{\"nothing\":{}}"), "line 5: unknown variant".to_owned()),
        (with(4, lines[5]), "line 5: p:a:b: seq 5 is expected here, not 6".to_owned()),
        (doubled, "line 4: the same is there twice (table conversations)".to_owned()),
        (with(row, &lines[row].replace("p:a:b", "p:a:z")), format!("line {}: conversation p:a:z is not in this", row + 1)),
        (with(row + 1, lines[row]), format!("line {}: the same is there twice", row + 2)),
        (with(row, lines[2]), format!("line {}: it stands behind", row + 1)),
        (format!("{good}{{\"end\":3}}"), format!("line {}: nothing may follow", lines.len() + 1)),
        (good.replace("{\"end\":", "{\"end\":1"), format!("line {}: 1", lines.len())),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let told = import_text(folder.path(), &text).expect_err(&expected).to_string();
        assert!(told.starts_with(&expected), "{told}, not {expected}");
        let refused = EmbeddedBackend::open(EmbeddedSettings::new(folder.path())).err().unwrap().to_string();
        assert!(refused.contains("did not finish"), "{refused}");
    }
}

#[test]
fn lines_that_do_not_fit_each_other_are_found() {
    let source = tempfile::tempdir().unwrap();
    populate(&mut open(source.path()));
    let text = export(source.path()).replace("{\"row\":{\"user\":\"b\"", "{\"row\":{\"user\":\"x\"");
    let folder = tempfile::tempdir().unwrap();
    let told = import_text(folder.path(), &text).unwrap_err().to_string();
    assert!(told.contains("does not hold together: row of"), "{told}");
}

#[test]
fn content_keeps_its_spelling() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bodies =
        ["\"\\u0041\\/\"", "{\"b\":1.00,\"a\":1e3,\"b\":2}", "{ \"a\" :\n1 }", "\"\\ud800\"", "[[[]]]", "1e999", "\"\u{2028}é\""];
    let mut backend = open(folder.path());
    for (at, body) in bodies.iter().enumerate() {
        let mut draft = message(&private("a", "b"), Some("a"), None, at as u64);
        draft.id = MessageId(at as u128 + 1);
        draft.content = RawJson::from_validated(body);
        let append = Append { message: draft, head: None, dedupe_since: Millis(0), repeat_only: false };
        backend.commit(&mut vec![Write::Append(Box::new(append))], &mut Vec::new());
    }
    let before = everything(&mut backend);
    drop(backend);
    let text = export(folder.path());
    assert_eq!(text.lines().count(), bodies.len() + 7, "one line each: {text}");
    let to = other.path().join("data");
    import_text(&to, &text).unwrap();
    assert_eq!((export(&to), everything(&mut open(&to))), (text, before));
}

/// Any write of a small world.
fn any_write() -> impl Strategy<Value = Write> {
    let people = || (0..4_usize).prop_map(|at| user(["ada", "bob", "cy", "a"][at]));
    let conversation = || {
        (0..6_usize).prop_map(|at| match at {
            0 => private("ada", "bob"),
            1 => private("a", "cy"),
            2 => ConversationId::system(&user("cy")),
            _ => ConversationId::group(&group(["g", "h", "group-2"][at - 3])),
        })
    };
    let append = (conversation(), people(), 0..5_u64, any::<u128>(), 0..3_u8, 1_000..1_050_u64, ".{0,9}").prop_map(
        |(conversation, sender, client_id, id, shape, at, text)| {
            let client_id = (client_id > 0).then(|| client_id.to_string());
            let mut message = message(&conversation, Some(sender.as_str()), client_id.as_deref(), at);
            message.id = MessageId(id);
            message.content = RawJson::string(&text);
            match shape {
                0 => {
                    message.kind = MessageKind::Notification("custom".into());
                    message.sender = None;
                }
                1 => {
                    let mentions = Some(if at % 2 == 0 { Mentions::All } else { Mentions::Users(vec![sender]) });
                    let ext = Some(RawJson::string(&text));
                    let extra = MessageExtra { mentions, ext, reply_to: Some(MessageId(id ^ 1)), ..MessageExtra::default() };
                    message.extra = Some(Box::new(extra));
                }
                _ => {}
            }
            Write::Append(Box::new(Append { message, head: None, dedupe_since: Millis(1_020), repeat_only: false }))
        },
    );
    let change =
        (0..3_usize, prop::collection::vec((people(), 0..3_usize), 0..3), people(), 0..12_u8).prop_map(|(at, put, out, what)| {
            let id = group(["g", "h", "group-2"][at]);
            let role = |at: usize| [Role::Member, Role::Admin, Role::Owner][at];
            let member =
                |(user, at): (_, usize)| Member { user, role: role(at), joined_seq: Seq(0), joined_at: Millis(at as u64) };
            let record = Group { id: id.clone(), name: "title \"1\"".into(), open: what % 2 == 0, created_at: Millis(7) };
            let members_put = put.into_iter().map(member).collect();
            let members_removed = if what > 8 { vec![out] } else { Vec::new() };
            let delete = what == 1;
            Write::Group(Box::new(GroupChange { group: id, record: Some(record), members_put, members_removed, delete }))
        });
    let other = (people(), conversation(), 1..8_u64, 0..5_u8).prop_map(|(user, conversation, number, what)| {
        let (seq, at) = (Seq(number), Millis(number));
        match what {
            0 => Write::MarkRead { user, conversation, seq },
            1 => Write::Recall { conversation, seq, by: user },
            2 => Write::Hide { user, conversation, seq },
            3 => Write::LastSeen { user, at },
            _ => {
                let device = device(["d", "e"][number as usize % 2]);
                let deliveries = vec![Delivery { user: user.clone(), device: device.clone(), conversation, seq }];
                Write::Device { user, device, at, deliveries }
            }
        }
    });
    prop_oneof![5 => append, 2 => change, 4 => other]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_store_comes_back_equal(
        writes in prop::collection::vec(any_write(), 0..80),
        prune in prop::option::of(1_000..1_050_u64),
    ) {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut backend = open(folder.path());
        for write in writes {
            let mut outcomes = Vec::new();
            backend.commit(&mut vec![write], &mut outcomes);
            prop_assert!(outcomes[0].is_ok(), "{:?}", outcomes);
        }
        if let Some(before) = prune {
            backend.shared.backlog.wait().unwrap();
            backend.prune(Millis(before), 1_000).unwrap();
        }
        drop(backend);
        let sound = Workbench::open(&EmbeddedSettings::new(folder.path())).unwrap().check(false);
        prop_assert_eq!(sound.faults, Vec::<String>::new(), "a check finds nothing wrong in what was written");
        let text = export(folder.path());
        let to = other.path().join("data");
        import_text(&to, &text).unwrap();
        prop_assert_eq!(export(&to), text);
    }
}
