//! `refresh`: a new token for the same user, without a new connection. A refresh that fails changes nothing.

use crate::engine::outbox::Lane;
use crate::engine::shard::{Shard, Turn};
use crate::types::command::Secret;
use crate::types::outcome::Fault;
use crate::types::push::Push;
use crate::types::{ErrorName, RequestId, SessionKey};

impl Shard {
    pub(super) fn refresh(&mut self, key: SessionKey, token: &Secret, request: Option<RequestId>, turn: &mut Turn<'_>) {
        let identity = match self.verify(&token.0, turn.now.wall) {
            Ok(identity) => identity,
            Err(fault) => {
                let fault = Fault::new(fault.name(), fault.to_string());
                return self.refuse(key, request.as_ref(), fault, turn);
            }
        };
        let mark = self.revocations.mark(&identity);
        let Some(session) = self.ready(key) else { return };
        let account = session.account.as_mut().expect("a ready session has an account");
        if identity.user != account.user {
            let fault = Fault::new(ErrorName::Forbidden, "the token is another user's");
            return self.refuse(key, request.as_ref(), fault, turn);
        }
        account.expires_at = identity.expires_at;
        account.token = mark;
        account.expiry_told = false;
        session.follow_wall(turn.now);
        let success = self.auth_success(key, turn);
        self.say(key, Lane::Reply, &Push::AuthSuccess(success), request.as_ref(), turn);
        self.arm(key);
    }
}
