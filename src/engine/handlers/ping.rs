//! `ping`: the message, not the frame.

use crate::engine::outbox::Lane;
use crate::engine::shard::{Shard, Turn};
use crate::types::push::Push;
use crate::types::{RequestId, SessionKey};

impl Shard {
    pub(super) fn ping(&mut self, key: SessionKey, request: Option<&RequestId>, turn: &mut Turn<'_>) {
        let push = Push::Pong { server_time: turn.now.wall };
        self.say(key, Lane::Control, &push, request, turn);
    }
}
