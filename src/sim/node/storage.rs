//! Owns how requests reach the disk and answers come back, in time. Never reorders two writes of one shard or their answers.

use super::super::agenda::Happening;
use super::{Delay, Node};
use crate::engine::Event;
use crate::types::planted::{Planted, planted};
use crate::types::storage::{Operation, StoreFault, StoreReply, StoreRequest};

impl Node {
    pub(super) fn ask_store(&mut self, shard: usize, request: StoreRequest) {
        if self.disk.under_way >= self.disk.requests_max {
            self.tally.fault("refused by a full store");
            let ticket = request.ticket;
            return self.step(shard, Event::StoreRefused { ticket, retry_after_ms: 100 });
        }
        self.disk.under_way += 1;
        if let Some(request) = self.disk.gather(shard, request) {
            let at_us = self.now_us + self.draw(Delay::Read);
            self.agenda.put(at_us, Happening::Look { shard, request: Box::new(request) });
        } else if !self.disk.gathering {
            self.disk.gathering = true;
            let at_us = self.disk.stalled_until_us.max(self.now_us) + self.draw(Delay::Commit);
            self.agenda.put(at_us, Happening::Commit);
        }
    }

    pub(super) fn commit(&mut self) {
        if self.disk.stalled_until_us > self.now_us {
            return self.agenda.put(self.disk.stalled_until_us, Happening::Commit);
        }
        let writes = self.disk.describe();
        self.remark(|| format!("commit {writes}"));
        if self.disk.commits_to_fail > 0 {
            self.tally.fault("failed commit");
        }
        for (shard, ticket, result) in self.disk.commit() {
            let at_us = (self.now_us + self.draw(Delay::Read)).max(self.disk.answered_us[shard]);
            self.disk.answered_us[shard] = at_us;
            if planted(Planted::CompletionTwice) {
                let again = Err(StoreFault::Unavailable("again".to_owned()));
                self.disk.under_way += 1;
                self.agenda.put(at_us + 1, Happening::Answer { shard, reply: Box::new(StoreReply { ticket, result: again }) });
            }
            self.agenda.put(at_us, Happening::Answer { shard, reply: Box::new(StoreReply { ticket, result }) });
        }
    }

    pub(super) fn look(&mut self, shard: usize, request: StoreRequest) {
        let Operation::Read(read) = &request.operation else { unreachable!("writes gather") };
        if self.disk.reads_to_fail > 0 {
            self.tally.fault("failed read");
        }
        let result = self.disk.read(read);
        let at_us = self.now_us + self.draw(Delay::Read);
        let reply = Box::new(StoreReply { ticket: request.ticket, result });
        self.agenda.put(at_us, Happening::Answer { shard, reply });
    }
}
