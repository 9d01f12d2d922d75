//! Owns what must be true at the end of a run, judged from outside: from what is on the disk, what clients were told, and who
//! was a member when. Never asks the engine.

use std::collections::{BTreeMap, BTreeSet};

use super::node::Node;
use super::people::{Device, Draft};
use crate::types::record::SharedMessage;
use crate::types::storage::{Answer, RangeQuery, Read};
use crate::types::{ConversationId, ConversationKind, GroupId, MessageKind, UserId};

/// Judges a run whose devices are all connected, healthy and have been told everything.
pub(super) fn judge(node: &mut Node, devices: &[Device], groups: &[GroupId], ordered: &[Draft]) {
    let logs = logs(node, devices, groups);
    judge_acks("an operator", ordered, &logs);
    for (conversation, log) in &logs {
        judge_log(conversation, log);
    }
    let fleeting = fleeting(devices);
    judge_erased(node, devices, &logs);
    for device in devices {
        judge_acks(&device.name(), &device.drafts, &logs);
        judge_heard(node, device, devices, &logs);
        judge_complete(node, device, &logs, &fleeting);
    }
}

/// The end of a log.
pub(super) fn head(node: &mut Node, conversation: &ConversationId) -> u64 {
    match node.inspect(&Read::Head { conversation: conversation.clone() }) {
        Ok(Answer::Head(head)) => head.0,
        other => panic!("a log always has an end: {other:?}"),
    }
}

/// Whoever is connected, healthy and synced has had everything since, without having to come back.
pub(super) fn judge_live(node: &mut Node, devices: &[Device]) {
    let fleeting = fleeting(devices);
    for device in devices {
        let Some(floor) = device.floor() else { continue };
        for (conversation, floor) in floor {
            // Who stays connected is told also of what has aged.
            let aged = node.forgotten(&ConversationId::parse(conversation).expect("it was made from one")).to_vec();
            judge_had(node, device, conversation, (aged, *floor), &fleeting);
        }
    }
}

/// Nobody stays whose token was revoked or has run out.
pub(super) fn judge_tokens(node: &Node, devices: &[Device]) {
    for device in devices {
        let Some(pass) = device.pass() else { continue };
        assert_eq!(pass.generation, node.generation(&user(&device.user)), "{} stays with a revoked token", device.name());
        assert!(!pass.is_over(node, SLACK_MS), "{} stays with a token that has run out", device.name());
    }
}

/// A recalled message does not tell any more that it could be dropped.
fn fleeting(devices: &[Device]) -> BTreeSet<&str> {
    let drafts = devices.iter().flat_map(|device| &device.drafts);
    drafts.filter(|draft| draft.data["loss_time"].as_u64() > Some(0)).map(|draft| draft.id.as_str()).collect()
}

/// What was recalled or hidden is so in the log, and nobody who came afterwards has heard of it.
fn judge_erased(node: &Node, devices: &[Device], logs: &Logs) {
    for device in devices {
        for erasure in &device.erasures {
            let message = logs.values().flatten().find(|message| message.id.to_string() == erasure.message_id);
            // What retention has removed meanwhile is as good as recalled.
            let gone = |message: &SharedMessage| node.forgotten(&message.conversation).len() as u64 >= message.seq.0;
            let recalled = message.is_some_and(|message| message.recalled_by().is_some() || gone(message));
            assert!(erasure.hidden || recalled, "{}: {} is recalled in name only", device.name(), erasure.message_id);
            for other in devices.iter().filter(|other| !erasure.hidden || other.user == device.user) {
                let shown = other.entries.iter().find(|entry| {
                    let later = entry.message_id == erasure.message_id && entry.line.0 >= erasure.from_line;
                    later && (erasure.hidden || !entry.recalled)
                });
                assert!(shown.is_none(), "{} hears of what {} had erased: {shown:?}", other.name(), device.name());
            }
        }
    }
}

type Logs = BTreeMap<String, Vec<SharedMessage>>;

fn logs(node: &mut Node, devices: &[Device], groups: &[GroupId]) -> Logs {
    let users: BTreeSet<UserId> = devices.iter().map(|device| user(&device.user)).collect();
    let mut conversations: BTreeSet<ConversationId> = groups.iter().map(ConversationId::group).collect();
    conversations.extend(users.iter().map(ConversationId::system));
    for one in &users {
        conversations.extend(users.iter().map(|other| ConversationId::private(one, other)));
    }
    let whole = |conversation: ConversationId| {
        let gone = node.forgotten(&conversation).to_vec();
        (conversation.to_string(), gone.into_iter().chain(log(node, conversation, None)).collect())
    };
    conversations.into_iter().map(whole).collect()
}

/// A log as `viewer` sees it.
pub(super) fn log(node: &mut Node, conversation: ConversationId, viewer: Option<UserId>) -> Vec<SharedMessage> {
    let query = RangeQuery {
        conversation,
        viewer,
        after: None,
        before: None,
        since: None,
        until: None,
        newest: false,
        limit: u32::MAX,
        bytes_max: usize::MAX,
    };
    match node.inspect(&Read::Range(query)) {
        Ok(Answer::Range(page)) => page.messages,
        other => panic!("a log is always there: {other:?}"),
    }
}

/// `seq` without gaps, every client id once.
fn judge_log(conversation: &str, log: &[SharedMessage]) {
    let mut ids = BTreeSet::new();
    for (at, message) in log.iter().enumerate() {
        assert_eq!(message.seq.0, at as u64 + 1, "{conversation} has a gap");
        if let Some(id) = &message.client_id {
            assert!(ids.insert(id.as_str().to_owned()), "{conversation} has {id} twice");
        }
    }
}

/// What was acknowledged is in the log, as it was written.
fn judge_acks(name: &str, drafts: &[Draft], logs: &Logs) {
    for draft in drafts {
        let Some((message_id, conversation, seq)) = &draft.ack else { continue };
        let message = logs[conversation].get(*seq as usize - 1);
        let Some(message) = message else { panic!("{name}: {} was acked and is not in the log", draft.id) };
        assert_eq!(message.id.to_string(), *message_id, "{name}: {}", draft.id);
        assert_eq!(message.client_id.as_ref().map(|id| id.as_str()), Some(draft.id.as_str()));
    }
}

/// What was heard is what the log says, and was for this user.
fn judge_heard(node: &Node, device: &Device, devices: &[Device], logs: &Logs) {
    for entry in &device.entries {
        let name = device.name();
        let Some(message) = logs.get(&entry.conversation).and_then(|log| log.get(entry.seq as usize - 1)) else {
            panic!("{name} heard of {} {}, which is in no log", entry.conversation, entry.seq);
        };
        assert_eq!(message.id.to_string(), entry.message_id, "{name}: {} {}", entry.conversation, entry.seq);
        if let (MessageKind::Chat(_), Some(id), false) = (&message.kind, &message.client_id, entry.recalled) {
            assert_eq!(entry.content, id.as_str(), "{name}: {} {}", entry.conversation, entry.seq);
        }
        let entitled = entitled(node, &device.user, &message.conversation, entry.seq);
        let stays = match message.conversation.kind() {
            ConversationKind::Group(group) => node.ledger().stays(&group, &user(&device.user)),
            _ => &[],
        };
        assert!(entitled, "{name} heard of {} {}, which is none of theirs: {stays:?}", entry.conversation, entry.seq);
    }
    let hidden =
        |id: &str| devices.iter().flat_map(|other| &other.erasing).any(|(user, message)| user == &device.user && message == id);
    for (conversation, from, to, reason) in &device.skipped {
        let log = &logs[conversation];
        let id = ConversationId::parse(conversation).expect("it was made from one");
        for seq in *from..=*to {
            let message = log.get(seq as usize - 1);
            let reasonable = match reason.as_str() {
                "expired" => message.is_some_and(|message| message.loss_time_ms().is_some() || message.recalled_by().is_some()),
                "deleted" => message.is_some_and(|message| hidden(&message.id.to_string())),
                "retention" => node.forgotten(&id).len() as u64 >= seq,
                "not_a_member" => conversation.starts_with("g:"),
                _ => false,
            };
            assert!(reasonable, "{}: {conversation} {seq} was skipped as {reason}", device.name());
        }
    }
}

/// Everything that is for this device has reached it, save what its user has hidden and what may be dropped by now.
fn judge_complete(node: &mut Node, device: &Device, logs: &Logs, fleeting: &BTreeSet<&str>) {
    for conversation in logs.keys() {
        let forfeited = device.forfeited.get(conversation).copied().unwrap_or(0);
        judge_had(node, device, conversation, (Vec::new(), forfeited), fleeting);
    }
}

/// The same of one conversation after `floor`, and of what has aged.
fn judge_had(
    node: &mut Node,
    device: &Device,
    conversation: &str,
    (aged, floor): (Vec<SharedMessage>, u64),
    fleeting: &BTreeSet<&str>,
) {
    let nothing = BTreeSet::new();
    let had = device.had.get(conversation).unwrap_or(&nothing);
    let id = ConversationId::parse(conversation).expect("it was made from one");
    for message in aged.into_iter().chain(log(node, id, Some(user(&device.user)))) {
        let seq = message.seq.0;
        // A membership that has ended takes what was not delivered with it.
        let lasting = match message.conversation.kind() {
            ConversationKind::Group(group) => {
                node.ledger().present(&group, &user(&device.user)).is_some_and(|stay| stay.after < seq)
            }
            _ => entitled(node, &device.user, &message.conversation, seq),
        };
        let id = message.client_id.as_ref().map_or("", |id| id.as_str());
        let own = device.drafts.iter().any(|draft| draft.id == id);
        let needed = lasting && seq > floor && !own && !fleeting.contains(id);
        assert!(!needed || had.contains(&seq), "{} never heard of {conversation} {seq}", device.name());
    }
}

fn entitled(node: &Node, name: &str, conversation: &ConversationId, seq: u64) -> bool {
    let user = user(name);
    match conversation.kind() {
        ConversationKind::Private(one, other) => one == user || other == user,
        ConversationKind::System(owner) => owner == user,
        ConversationKind::Group(group) => node.ledger().entitled(&group, &user, seq),
    }
}

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).expect("the workload names users well")
}

/// The server may take so long, beside the grace it gives, to let somebody go whose token has run out.
const SLACK_MS: u64 = 3_000;
