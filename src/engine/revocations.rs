//! Owns which tokens are revoked, as one shard knows it, and the walk that finds their sessions. Never reads a token: what a
//! session keeps of its own is enough. Lives on its shard's thread.

use std::hash::BuildHasher;

use indexmap::IndexMap;

use crate::auth::{Identity, TokenFault};
use crate::types::planted::{Planted, planted};
use crate::types::revocation::{Revocation, RevokedTokens};
use crate::types::{CloseCode, Millis, UserId};

use super::Hasher;
use super::shard::{Shard, Turn};

/// What a session keeps of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMark {
    /// Hash of `jti`; 0 = it has none.
    id: u64,
    /// `iat` in seconds; 0 = it has none.
    issued_s: u32,
}

/// The revocations in force, and those that have just run out.
#[derive(Debug)]
pub struct Revocations {
    tokens: IndexMap<u64, Millis, Hasher>,
    /// Issued before when, and until when that holds.
    users: IndexMap<UserId, (Millis, Millis), Hasher>,
    /// Of how many on those that have run out are looked for.
    sweep_at: usize,
    hasher: Hasher,
    /// Slots that are still to be looked at for sessions that may not stay, from `hand` on, wrapping.
    slots_left: usize,
    hand: usize,
    /// Slots that there were when `slots_left` was reckoned.
    slots_known: usize,
}

impl Revocations {
    pub fn new(hasher: Hasher) -> Revocations {
        Revocations {
            tokens: IndexMap::with_hasher(hasher.clone()),
            users: IndexMap::with_hasher(hasher.clone()),
            sweep_at: SWEEP_AT_LEAST,
            hasher,
            slots_left: 0,
            hand: 0,
            slots_known: 0,
        }
    }

    pub fn mark(&self, identity: &Identity) -> TokenMark {
        let issued_s = identity.issued_at.map_or(0, |at| u32::try_from(at.0 / 1_000).unwrap_or(u32::MAX).max(1));
        TokenMark { id: identity.token_id.as_deref().map_or(0, |id| self.hash(id)), issued_s }
    }

    pub fn put(&mut self, revocation: &Revocation, now: Millis) {
        match &revocation.tokens {
            RevokedTokens::One { token_id } => {
                self.tokens.insert(self.hash(token_id), revocation.until);
            }
            RevokedTokens::OfUser { user, issued_before } => {
                let known = self.users.entry(user.clone()).or_insert((*issued_before, revocation.until));
                *known = (known.0.max(*issued_before), known.1.max(revocation.until));
            }
        }
        if self.tokens.len() + self.users.len() >= self.sweep_at {
            self.tokens.retain(|_, until| *until > now);
            self.users.retain(|_, (_, until)| *until > now);
            self.sweep_at = ((self.tokens.len() + self.users.len()) * 2).max(SWEEP_AT_LEAST);
        }
    }

    pub fn covers(&self, user: &UserId, mark: TokenMark, now: Millis) -> bool {
        let token = || mark.id != 0 && self.tokens.get(&mark.id).is_some_and(|until| *until > now);
        let of_user = || {
            let issued = Millis(u64::from(mark.issued_s) * 1_000);
            self.users.get(user).is_some_and(|(before, until)| issued < *before && *until > now)
        };
        !self.is_empty() && (token() || of_user())
    }

    pub fn is_walking(&self) -> bool {
        self.slots_left > 0
    }

    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.users.is_empty()
    }

    fn hash(&self, token_id: &str) -> u64 {
        self.hasher.hash_one(token_id) | 1
    }
}

impl Shard {
    /// Who the bearer of a token is that is good and not revoked.
    pub(super) fn verify(&self, token: &str, now: Millis) -> Result<Identity, TokenFault> {
        let identity = self.verifier.verify(token, now)?;
        self.check_revoked(&identity, now).map(|()| identity)
    }

    /// Refuses an identity whose token was revoked.
    pub fn check_revoked(&self, identity: &Identity, now: Millis) -> Result<(), TokenFault> {
        let revoked = self.revocations.covers(&identity.user, self.revocations.mark(identity), now);
        if revoked { Err(TokenFault::Revoked) } else { Ok(()) }
    }

    /// From now on these tokens open nothing, and what they have opened here is closed in slices: whoever comes later is checked
    /// when they come.
    pub(super) fn revoke(&mut self, revocation: &Revocation, turn: &mut Turn<'_>) {
        self.revocations.put(revocation, turn.now.wall);
        self.revocations.slots_left = self.sessions.len();
        self.revocations.slots_known = self.sessions.len();
    }

    pub(super) fn walk_revoked(&mut self, turn: &mut Turn<'_>) {
        if self.revocations.is_walking() {
            // Slots that have come meanwhile are walked over, too: what they take must not be missing from the way round.
            self.revocations.slots_left += self.sessions.len().saturating_sub(self.revocations.slots_known);
            self.revocations.slots_known = self.sessions.len();
        }
        for _ in 0..self.revocations.slots_left.min(SLOTS_PER_TURN) {
            self.revocations.slots_left -= 1;
            self.revocations.hand += 1;
            if self.revocations.hand >= self.sessions.len() {
                self.revocations.hand = 0;
            }
            let Some(session) = self.sessions.get(self.revocations.hand).and_then(Option::as_deref) else { continue };
            let key = session.key;
            let revoked = session
                .account
                .as_ref()
                .is_some_and(|account| self.revocations.covers(&account.user, account.token, turn.now.wall));
            if revoked && !planted(Planted::RevokedStays) {
                self.close(key, CloseCode::TokenRevoked, "", turn);
            }
        }
    }
}

const SLOTS_PER_TURN: usize = 4_096;
const SWEEP_AT_LEAST: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(user: &str, token_id: Option<&str>, issued_at: Option<u64>) -> Identity {
        Identity {
            user: UserId::new(user).unwrap(),
            device: None,
            expires_at: None,
            issued_at: issued_at.map(Millis),
            token_id: token_id.map(str::to_owned),
        }
    }

    fn covers(revocations: &Revocations, identity: &Identity, now: u64) -> bool {
        revocations.covers(&identity.user, revocations.mark(identity), Millis(now))
    }

    #[test]
    fn one_token_or_all_earlier_ones_of_a_user() {
        let mut revocations = Revocations::new(Hasher::with_seed(3));
        let one = Revocation { tokens: RevokedTokens::One { token_id: "x".to_owned() }, until: Millis(100) };
        revocations.put(&one, Millis(0));
        assert!(covers(&revocations, &identity("a", Some("x"), None), 99));
        assert!(!covers(&revocations, &identity("a", Some("x"), None), 100), "it runs out");
        assert!(
            !covers(&revocations, &identity("a", Some("y"), None), 1) && !covers(&revocations, &identity("a", None, None), 1)
        );
        for before in [5_500, 4_000] {
            let user = UserId::new("a").unwrap();
            let all = RevokedTokens::OfUser { user, issued_before: Millis(before) };
            revocations.put(&Revocation { tokens: all, until: Millis(9_000) }, Millis(0));
        }
        for (issued_at, revoked) in [(None, true), (Some(5_000), true), (Some(6_000), false)] {
            assert_eq!(covers(&revocations, &identity("a", None, issued_at), 1), revoked, "{issued_at:?}");
        }
        assert!(!covers(&revocations, &identity("b", None, None), 1));
    }

    #[test]
    #[cfg_attr(miri, ignore = "revokes 50,000 times")]
    fn what_has_run_out_is_forgotten() {
        let mut revocations = Revocations::new(Hasher::with_seed(3));
        for number in 0..50_000u64 {
            let tokens = RevokedTokens::One { token_id: number.to_string() };
            revocations.put(&Revocation { tokens, until: Millis(number + 100) }, Millis(number));
        }
        assert!(revocations.tokens.len() <= SWEEP_AT_LEAST);
    }
}
