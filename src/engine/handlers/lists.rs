//! `get_conversations`, `get_unread`, `search`: what a user has, in lists.

use crate::engine::shard::{Shard, Turn};
use crate::types::outcome::Fault;
use crate::types::{ErrorName, RequestId, SessionKey};

impl Shard {
    pub(super) fn get_conversations(
        &mut self,
        key: SessionKey,
        _limit: u32,
        _cursor: Option<String>,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        self.not_here_yet(key, "get_conversations", request, turn);
    }

    pub(super) fn get_unread(&mut self, key: SessionKey, request: Option<RequestId>, turn: &mut Turn<'_>) {
        self.not_here_yet(key, "get_unread", request, turn);
    }

    pub(super) fn search(&mut self, key: SessionKey, request: Option<RequestId>, turn: &mut Turn<'_>) {
        self.not_here_yet(key, "search", request, turn);
    }

    fn not_here_yet(&mut self, key: SessionKey, verb: &str, request: Option<RequestId>, turn: &mut Turn<'_>) {
        let fault = Fault::new(ErrorName::UnknownMessageType, format!("this server does not offer {verb} yet"));
        self.refuse(key, request.as_ref(), fault, turn);
    }
}
