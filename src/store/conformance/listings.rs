//! Owns what every backend must do for operators: lists of users and groups, and notes. Never looks inside a backend.

use super::{Probe, device, group, message, private, user};
use crate::types::record::Role;
use crate::types::storage::{Answer, NoteName, Read, Write};
use crate::types::{ConversationId, Millis};

impl Probe {
    /// All users, by pages of `limit`.
    fn everyone(&mut self, limit: u32) -> Vec<String> {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let Answer::Users(page) = self.read(Read::Users { after, limit }) else { panic!("no users") };
            assert!(page.len() <= limit as usize);
            names.extend(page.iter().map(|user| user.as_str().to_owned()));
            let Some(last) = page.last() else { return names };
            after = Some(last.clone());
        }
    }
}

pub fn users_listed(mut probe: Probe) {
    assert!(probe.everyone(10).is_empty());
    probe.append(message(&private("b", "a"), Some("a"), None, 1));
    probe.append(message(&private("b", "ab"), Some("b"), None, 2));
    probe.append(message(&ConversationId::system(&user("é:%")), None, None, 3));
    probe.done(Write::Device { user: user("only device"), device: device("d"), at: Millis(1), deliveries: Vec::new() });
    probe.done(Write::LastSeen { user: user("only seen"), at: Millis(1) });
    probe.done(Write::LastSeen { user: user("a"), at: Millis(2) });
    probe.done(Write::Know(vec![user("only named"), user("a"), user("only named")]));
    probe.make_group("g", &[("member", 0), ("a", 0)]);
    probe.change("g", |change| change.delete = true);
    for limit in [1, 2, 7, 100] {
        let mut names = probe.everyone(limit);
        names.sort();
        assert_eq!(
            names,
            ["a", "ab", "b", "member", "only device", "only named", "only seen", "é:%"],
            "each once, whatever they did; {limit}"
        );
    }
    assert!(matches!(probe.read(Read::UserCount), Answer::Count(8)));
}

pub fn groups_listed(mut probe: Probe) {
    for name in ["b", "a", "ab", "a:b"] {
        probe.make_group(name, &[("u", 0), ("v", 0)]);
        probe.change(name, |change| change.members_put = vec![super::member("w", Role::Member, 0)]);
    }
    probe.change("ab", |change| change.delete = true);
    let mut ids = |after: Option<&str>, limit| match probe.read(Read::Groups { after: after.map(group), limit }) {
        Answer::Groups(groups) => groups.into_iter().map(|group| group.id.as_str().to_owned()).collect::<Vec<_>>(),
        other => panic!("no groups: {other:?}"),
    };
    assert_eq!(ids(None, 10), ["a", "a:b", "b"]);
    assert_eq!(ids(None, 2), ["a", "a:b"]);
    assert_eq!(ids(Some("a:b"), 2), ["b"]);
    assert_eq!(ids(Some("aa"), 1), ["b"], "the one behind may be gone");
}

pub fn notes(mut probe: Probe) {
    let name = |kind, id: &str| NoteName { kind, id: id.to_owned() };
    for (kind, id, text) in [("x", "2", "two"), ("x", "1", "one"), ("xy", "1", "other"), ("x", "2", "zwei"), ("x", "3", "")] {
        probe.done(Write::Note { name: name(kind, id), text: Some(text.to_owned()) });
    }
    probe.done(Write::Note { name: name("x", "3"), text: None });
    probe.done(Write::Note { name: name("x", "never"), text: None });
    let Answer::Notes(notes) = probe.read(Read::Notes { kind: "x" }) else { panic!("no notes") };
    assert_eq!(notes, [("1".to_owned(), "one".to_owned()), ("2".to_owned(), "zwei".to_owned())]);
}
