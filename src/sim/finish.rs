//! Owns the end of a run: the workload stops and what is connected must come to have all it is owed; everybody comes back one
//! after the other; watchers must be told the truth; and when all have gone nothing may be left. Never injects a fault.

use serde_json::json;

use super::oracle;
use super::people::Draft;
use super::run::Run;
use super::tally::Tally;
use crate::engine::shard::Leftovers;
#[cfg(any(test, feature = "planted-faults"))]
use crate::types::planted::take_reached;
use crate::types::storage::{Answer, Read};

impl Run {
    /// Everybody is there, writes to everybody, and some go in the midst of it: after this there is no next message that would
    /// repair what went wrong with one.
    pub(super) fn stampede(&mut self) {
        self.node.heal_store();
        for at in 0..self.devices.len() {
            self.connect(at);
        }
        self.pass(2_000);
        for group in self.groups.clone() {
            for _ in 0..STAMPEDE_MESSAGES {
                let at = self.random.usize(..self.devices.len());
                let data = json!({"group_id": group.as_str()});
                self.with(at, |device, node| device.write(node, data));
            }
        }
        for _ in 0..self.devices.len() / 2 {
            let ms = self.random.u64(..3);
            self.pass(ms);
            let at = self.random.usize(..self.devices.len());
            if let Some(line) = self.devices[at].line() {
                self.node.tear(line);
            }
        }
    }

    /// The disk is well, everybody reads, and who ever confirms does so at once: who is still connected misses nothing before
    /// long.
    pub(super) fn calm(&mut self) {
        self.node.heal_store();
        for device in &mut self.devices {
            device.diligent |= !device.forgetful;
            if let Some(line) = device.line() {
                self.node.set_reading(line, true);
            }
        }
        // Those who did not read until now are told first that they were closed.
        self.pass_and(CALM_MS, |run, left_ms| {
            if left_ms + CATCH_UP_MS <= CALM_MS {
                oracle::judge_tokens(&run.node, &run.devices);
            }
        });
        oracle::judge_live(&mut self.node, &self.devices);
        for device in &mut self.devices {
            assert!(!device.owes_confirmation(self.node.ledger()), "{} confirms nothing and is left in peace", device.name());
            device.diligent = true;
        }
    }

    /// Somebody watches everybody come and go, and is told so.
    pub(super) fn watch(&mut self) {
        self.connect(0);
        self.settle(0);
        let users = self.users.clone();
        self.with(0, |device, node| device.ask(node, "subscribe_presence", json!({"user_ids": users})));
        self.settle(0);
        for at in 0..self.devices.len() {
            let user = self.devices[at].user.clone();
            if user == self.devices[0].user {
                continue;
            }
            self.connect(at);
            self.settle(at);
            let known = self.is_contact(&user);
            self.judge_watched(&user, known);
            let line = self.devices[at].line().expect("a settled device is connected");
            self.node.close(line);
            self.pass(8_000);
            self.judge_watched(&user, false);
        }
        let line = self.devices[0].line().expect("who watches answers pings and stays");
        self.node.close(line);
        self.pass(8_000);
    }

    /// Whether the first device's user may know when this one is online.
    fn is_contact(&mut self, name: &str) -> bool {
        let (user, other) = (oracle::user(&self.devices[0].user), oracle::user(name));
        match self.node.inspect(&Read::Contacts { user, others: vec![other] }) {
            Ok(Answer::Contacts(contacts)) => !self.node.has_contacts_only() || !contacts.is_empty(),
            other => panic!("contacts were asked for: {other:?}"),
        }
    }

    fn judge_watched(&self, user: &str, online: bool) {
        assert_eq!(self.devices[0].online.get(user), Some(&online), "{} watches {user}", self.devices[0].name());
    }

    /// All is well again: everybody comes back, one after the other where only few may, says again what was not acknowledged,
    /// and is told everything.
    pub(super) fn heal(&mut self) {
        self.node.heal_store();
        for device in &mut self.devices {
            if let Some(line) = device.line() {
                self.node.tear(line);
            }
        }
        self.pass(20_000);
        // What was not acknowledged is settled first, so that the rest hears of it.
        for round in ["write", "hear"] {
            for at in 0..self.devices.len() {
                self.visit(at, round == "hear");
            }
        }
    }

    fn visit(&mut self, at: usize, lacking: bool) {
        self.connect(at);
        self.settle(at);
        // A busy server refuses some for the moment.
        for _ in 0..WRITE_ROUNDS_MAX {
            let unsaid = |draft: &Draft| draft.ack.is_none() && !draft.refused;
            let open: Vec<usize> =
                (0..self.devices[at].drafts.len()).filter(|which| unsaid(&self.devices[at].drafts[*which])).collect();
            if open.is_empty() {
                break;
            }
            for which in open {
                self.with(at, |device, node| device.write_again(node, which));
            }
            self.settle(at);
        }
        // What broke with a connection has to be asked for by those who do not confirm.
        if lacking && !self.devices[at].acks {
            let named = self.conversations_of(at);
            self.with(at, |device, node| device.sync(node, &named));
        }
        self.settle(at);
        if lacking {
            self.judge_lists(at);
        }
        let line = self.devices[at].line().expect("a settled device is connected");
        self.node.close(line);
        self.pass(8_000);
        assert!(self.devices[at].line().is_none(), "{} said goodbye and was not let go", self.devices[at].name());
    }

    /// Alone on the node, with everything read.
    fn judge_lists(&mut self, at: usize) {
        let (users, conversations) = (self.users.clone(), self.conversations_of(at));
        self.with(at, |device, node| {
            for conversation in conversations {
                device.ask(node, "mark_read", json!({"conversation_id": conversation.as_str(), "seq": 1_000_000}));
            }
            device.expect_alone(node, &users);
        });
        self.settle(at);
        self.with(at, |device, node| device.expect_nothing_unread(node));
        self.settle(at);
    }

    fn settle(&mut self, at: usize) {
        for _ in 0..SETTLE_ROUNDS_MAX {
            self.pass(500);
            if self.devices[at].line().is_none() {
                self.connect(at);
            }
            if self.devices[at].is_settled() {
                // What was pushed last is confirmed, too.
                return self.pass(200);
            }
        }
        panic!("{} does not come to rest: {:?}", self.devices[at].name(), self.devices[at].line());
    }

    /// Everybody goes, of themselves or because the node is drained: nothing of them may be left.
    pub(super) fn leave(mut self) -> Tally {
        if self.random.bool() {
            (0..self.devices.len()).for_each(|at| self.connect(at));
            let ms = self.random.u64(..200);
            self.pass(ms);
            self.node.drain(2_000);
            self.pass(8_000);
            assert!(self.devices.iter().all(|device| device.line().is_none()), "a drained node holds connections");
        }
        self.pass(15_000);
        for (shard, left) in self.node.leftovers().into_iter().enumerate() {
            assert_eq!(left, Leftovers::default(), "left behind on shard {shard}");
            let counters = self.node.counters(shard);
            let counts = (counters.sessions, counters.ready, counters.lagging, counters.online_users);
            assert_eq!(counts, (0, 0, 0, 0), "counted on shard {shard}: sessions, ready, lagging, users");
        }
        assert_eq!(self.node.directory_len(), 0, "sessions are left in the directory");
        assert_eq!(self.node.calls_open(), 0, "calls are left without an answer");
        self.node.run_ms(200_000);
        assert_eq!(self.node.timers_waiting(), 0, "timers are left");
        self.count()
    }

    fn count(self) -> Tally {
        let mut tally = self.node.tally.clone();
        tally.seeds = 1;
        tally.virtual_ms = self.node.now_ms();
        tally.connections = self.node.lines().len() as u64;
        tally.messages = self.devices.iter().map(|device| device.drafts.len() as u64).sum();
        tally.heard = self.devices.iter().map(|device| device.entries.len() as u64).sum();
        #[cfg(any(test, feature = "planted-faults"))]
        tally.reached.extend(take_reached());
        tally
    }
}

/// Long enough for what is not confirmed to be sent again, and for reads that failed to be tried again.
const CALM_MS: u64 = 12_000;
/// For what waits for a reader that has stopped.
const CATCH_UP_MS: u64 = 3_000;
const STAMPEDE_MESSAGES: usize = 2;
const WRITE_ROUNDS_MAX: usize = 100;
const SETTLE_ROUNDS_MAX: usize = 200;
