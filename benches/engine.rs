//! What deciding costs the processor: one shard, real JSON frames, no kernel, no disk. The store here answers at once from two
//! maps, so that nothing but the engine and its encoder is timed. Run with `cargo bench --bench engine`.

mod measure;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use corehub::auth::{AuthRules, Identity, Verifier};
use corehub::engine::event::Opened;
use corehub::engine::{Effects, Event, Settings, Shard};
use corehub::types::command::{Draft, NewGroup, Target, Wishes};
use corehub::types::record::MessageType;
use corehub::types::storage::{Answer, GroupState, Operation, Read, StoreReply, StoreRequest, UserState, Write};
use corehub::types::{
    Command, ConversationId, Frame, GroupId, Now, RawJson, Request, RequestId, Seq, SessionKey, ShardId, UserId,
};
use corehub::wire::json::JsonEncoder;

fn main() {
    let bench = measure::Bench::from_arguments();
    private(&bench, 200);
    for members in [10, 1_000] {
        group(&bench, members);
    }
}

/// Messages between pairs, everybody in turn: session, permit, seq, store, ack, delivery.
fn private(bench: &measure::Bench, users: u32) {
    let mut hub = Hub::new();
    for slot in 0..users {
        hub.connect(slot);
    }
    bench.case("engine/private message (ack and delivery)", u64::from(users), || {
        for slot in 0..users {
            hub.send(slot, Target::User(user(slot ^ 1)));
        }
    });
    hub.expect_frames_per_message(2);
}

/// One sender, everybody else receives; told per delivery.
fn group(bench: &measure::Bench, members: u32) {
    let mut hub = Hub::new();
    for slot in 0..members {
        hub.connect(slot);
    }
    let group = GroupId::new("group").expect("a valid id");
    let new = NewGroup { group: Some(group.clone()), name: String::new(), members: Vec::new(), open: true };
    hub.request(0, Command::CreateGroup(new));
    for slot in 1..members {
        hub.request(slot, Command::JoinGroup(group.clone()));
    }
    let name = format!("engine/delivery in a group of {members}");
    bench.case(&name, u64::from(members - 1), || hub.send(0, Target::Group(group.clone())));
    hub.expect_frames_per_message(u64::from(members));
}

/// A shard with its driver and store.
struct Hub {
    shard: Shard,
    effects: Effects,
    store: Store,
    frames: Vec<Frame>,
    frames_sent: u64,
    messages: u64,
    requests: u64,
}

impl Hub {
    fn new() -> Hub {
        let settings = Settings { messages_per_second: 0, user_messages_per_second: 0, ..Settings::default() };
        let rules = AuthRules { hmac_secrets: vec![vec![7; 32]], ..AuthRules::default() };
        let verifier = Verifier::new(rules).expect("one long secret is good");
        let encoder = Box::new(JsonEncoder::new());
        Hub {
            shard: Shard::new(ShardId(0), 1, Arc::new(settings), encoder, Arc::new(verifier), 7),
            effects: Effects::default(),
            store: Store::default(),
            frames: Vec::new(),
            frames_sent: 0,
            messages: 0,
            requests: 0,
        }
    }

    fn connect(&mut self, slot: u32) {
        let identity = Identity { user: user(slot), device: None, expires_at: None, issued_at: None, token_id: None };
        let opened = Opened {
            key: key(slot),
            remote: IpAddr::V4(Ipv4Addr::LOCALHOST),
            identity: Some(identity),
            wishes: Wishes::default(),
            echo: false,
        };
        self.handle(Event::Opened(Box::new(opened)));
    }

    fn send(&mut self, slot: u32, target: Target) {
        if self.messages == 0 {
            self.frames_sent = 0;
        }
        self.messages += 1;
        let draft = Draft {
            target,
            kind: MessageType::Text,
            content: RawJson::string(CONTENT),
            content_bytes: CONTENT.len() as u32,
            mentions: None,
            reply_to: None,
            loss_time_ms: None,
            ext: None,
        };
        self.request(slot, Command::Send(Box::new(draft)));
    }

    fn request(&mut self, slot: u32, command: Command) {
        self.requests += 1;
        let id = RequestId::new(&format!("q{:016x}", self.requests)).expect("a valid id");
        self.handle(Event::Request { key: key(slot), request: Request { id: Some(id), command }, bytes: 200 });
    }

    /// One event and everything that follows from it, as a driver would do it.
    fn handle(&mut self, event: Event) {
        let now = Now::new(1_734_567_890_000 + self.requests / 100, self.requests * 10);
        self.shard.handle(event, now, &mut self.effects);
        while !(self.effects.store.is_empty() && self.effects.dirty.is_empty()) || self.shard.next_deadline_ms() == Some(0) {
            for request in std::mem::take(&mut self.effects.store) {
                let reply = self.store.answer(request);
                self.shard.handle(Event::Store(reply), now, &mut self.effects);
            }
            for key in std::mem::take(&mut self.effects.dirty) {
                let bytes = self.shard.outbox(key).map_or(0, |outbox| outbox.take(64, 64 << 10, &mut self.frames));
                self.frames_sent += self.frames.drain(..).count() as u64;
                self.shard.handle(Event::Sent { key, bytes: bytes as u32 }, now, &mut self.effects);
            }
            if self.shard.next_deadline_ms() == Some(0) {
                self.shard.handle(Event::Tick, now, &mut self.effects);
            }
        }
        assert!(self.effects.forward.is_empty() && self.effects.shut.is_empty(), "one shard keeps all its clients");
        self.effects.directory.clear();
        self.effects.reading.clear();
    }

    /// What was timed did happen.
    fn expect_frames_per_message(&self, frames: u64) {
        assert!(self.messages == 0 || self.frames_sent == self.messages * frames, "every receiver and the sender got a frame");
    }
}

/// Knows the ends of logs and the members of groups, forgets messages.
#[derive(Default)]
struct Store {
    heads: HashMap<ConversationId, Seq>,
    groups: HashMap<GroupId, GroupState>,
}

impl Store {
    fn answer(&mut self, request: StoreRequest) -> StoreReply {
        let answer = match request.operation {
            Operation::Write(Write::Append(append)) => {
                let head = self.heads.entry(append.message.conversation.clone()).or_insert(Seq::NONE);
                *head = head.next();
                let mut message = append.message;
                message.seq = *head;
                Answer::Appended(Arc::new(message))
            }
            Operation::Write(Write::Group(change)) => {
                if let Some(record) = change.record {
                    let state = GroupState { group: record, members: Vec::new(), head: Seq::NONE };
                    self.groups.insert(change.group.clone(), state);
                }
                if let Some(state) = self.groups.get_mut(&change.group) {
                    state.members.extend(change.members_put);
                }
                Answer::Done
            }
            Operation::Write(_) => Answer::Done,
            Operation::Read(Read::Head { conversation }) => {
                Answer::Head(self.heads.get(&conversation).copied().unwrap_or(Seq::NONE))
            }
            Operation::Read(Read::Group { .. }) => Answer::Group(None),
            Operation::Read(Read::User { .. }) => {
                Answer::User(Box::new(UserState { device_known: true, conversations: Vec::new(), last_seen: None, damaged: 0 }))
            }
            Operation::Read(Read::Row { .. }) => Answer::Row(None),
            other => panic!("the bench's messages need no {other:?}"),
        };
        StoreReply { ticket: request.ticket, result: Ok(answer) }
    }
}

fn key(slot: u32) -> SessionKey {
    SessionKey { slot, generation: 1 }
}

fn user(slot: u32) -> UserId {
    UserId::new(&format!("user{slot:06}")).expect("a valid id")
}

const CONTENT: &str = "sixty-four bytes of content, which is what most chat messages are";
