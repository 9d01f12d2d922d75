//! `typing`: ephemeral, the newest per conversation and user kept.

use crate::engine::shard::{Shard, Turn};
use crate::types::command::{Command, Target};
use crate::types::envelope::{Asker, EphemeralLane};
use crate::types::push::Push;
use crate::types::{ConversationId, RequestId, SessionKey};

impl Shard {
    pub(super) fn typing(
        &mut self,
        key: SessionKey,
        target: Target,
        active: bool,
        request: Option<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        let peer = match target {
            Target::Group(ref group) => {
                let conversation = ConversationId::group(group);
                return self.pass_to_owner(key, conversation, Command::Typing { target, active }, request, turn);
            }
            Target::User(peer) => peer,
        };
        let Some(session) = self.ready(key) else { return };
        let (except, user) = (session.id, session.account().user.clone());
        let conversation = ConversationId::private(&user, &peer);
        let key = self.ephemeral_key(conversation.as_str(), user.as_str());
        let push = Push::Typing { conversation, user, active };
        self.tell_user(&peer, except, EphemeralLane::Ephemeral, key, &push, turn);
    }

    pub(super) fn typing_in_group(&mut self, asker: Box<Asker>, conversation: ConversationId, active: bool, turn: &mut Turn<'_>) {
        if let Err(name) = self.role_of(&conversation, &asker.user) {
            return self.fail(&asker, name, turn);
        }
        let key = self.ephemeral_key(conversation.as_str(), asker.user.as_str());
        let push = Push::Typing { conversation: conversation.clone(), user: asker.user, active };
        self.tell_group(&conversation, asker.session, EphemeralLane::Ephemeral, key, &push, turn);
    }
}
