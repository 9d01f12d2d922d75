//! Owns who shares a conversation with whom. Never writes. Lives where reads are answered.

use std::collections::HashSet;

use super::keys;
use super::tables::{Look, Space, Trouble, View};
use crate::types::{ConversationId, UserId};

impl View<'_> {
    /// Who of `others` has a row of a conversation that `user` has one of as well.
    pub(super) fn contacts(&self, user: &UserId, others: &[UserId]) -> Result<Vec<UserId>, Trouble> {
        let mine: HashSet<Vec<u8>> = self.groups_of(user)?.collect::<Result<_, _>>()?;
        let mut contacts = Vec::new();
        for other in others {
            let private = keys::row(user, &ConversationId::private(user, other));
            if self.get(Space::Rows, &private)?.is_some() || self.shares_group(other, &mine)? {
                contacts.push(other.clone());
            }
        }
        Ok(contacts)
    }

    fn shares_group(&self, user: &UserId, groups: &HashSet<Vec<u8>>) -> Result<bool, Trouble> {
        for group in self.groups_of(user)? {
            if groups.contains(&group?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The groups of a user, as their ids lie in the keys of rows.
    fn groups_of(&self, user: &UserId) -> Result<impl Iterator<Item = Result<Vec<u8>, Trouble>>, Trouble> {
        let prefix = keys::group_rows(user);
        let length = prefix.len();
        Ok(self.prefix(Space::Rows, prefix).map(move |guard| Ok(guard.key()?[length..].to_vec())))
    }
}
