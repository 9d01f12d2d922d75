//! Owns what a revocation is, and its spelling in a note. Never says which tokens there are: nobody knows.

use serde::{Deserialize, Serialize};

use super::id::UserId;
use super::time::Millis;

/// Tokens that open nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub tokens: RevokedTokens,
    /// It is forgotten then: all tokens it covers have expired.
    pub until: Millis,
}

/// Which tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokedTokens {
    /// The one with this `jti`.
    One { token_id: String },
    /// A user's with an `iat` before this time, or without one.
    OfUser { user: UserId, issued_before: Millis },
}

/// A revocation as it is noted.
#[derive(Serialize, Deserialize)]
struct Noted {
    jti: Option<String>,
    user_id: Option<String>,
    #[serde(default)]
    issued_before: u64,
    until: u64,
}

impl Revocation {
    /// The kind of notes that revocations are.
    pub const NOTE: &str = "revocation";

    /// Equal for revocations of which the later one replaces the earlier.
    pub fn note_id(&self) -> String {
        match &self.tokens {
            RevokedTokens::One { token_id } => format!("t{token_id}"),
            RevokedTokens::OfUser { user, .. } => format!("u{user}"),
        }
    }

    /// Both this one and an earlier one with the same [`note_id`](Revocation::note_id).
    pub fn with(&self, earlier: &Revocation) -> Revocation {
        let mut both = Revocation { tokens: self.tokens.clone(), until: self.until.max(earlier.until) };
        if let RevokedTokens::OfUser { issued_before, .. } = &mut both.tokens
            && let RevokedTokens::OfUser { issued_before: other, .. } = &earlier.tokens
        {
            *issued_before = (*issued_before).max(*other);
        }
        both
    }

    pub fn note_text(&self) -> String {
        let (jti, user_id, issued_before) = match &self.tokens {
            RevokedTokens::One { token_id } => (Some(token_id.clone()), None, 0),
            RevokedTokens::OfUser { user, issued_before } => (None, Some(user.as_str().to_owned()), issued_before.0),
        };
        let noted = Noted { jti, user_id, issued_before, until: self.until.0 };
        serde_json::to_string(&noted).expect("texts and numbers are always JSON")
    }

    /// None when the text is no revocation.
    pub fn from_note(text: &str) -> Option<Revocation> {
        let noted: Noted = serde_json::from_str(text).ok()?;
        let tokens = match (noted.jti, noted.user_id) {
            (Some(token_id), None) => RevokedTokens::One { token_id },
            (None, Some(user)) => {
                RevokedTokens::OfUser { user: UserId::new(&user).ok()?, issued_before: Millis(noted.issued_before) }
            }
            _ => return None,
        };
        Some(Revocation { tokens, until: Millis(noted.until) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_were_written() {
        let user = UserId::new("a:%").unwrap();
        for tokens in [
            RevokedTokens::One { token_id: "j".to_owned() },
            RevokedTokens::OfUser { user: user.clone(), issued_before: Millis(7) },
        ] {
            let revocation = Revocation { tokens, until: Millis(9) };
            assert_eq!(Revocation::from_note(&revocation.note_text()), Some(revocation));
        }
        for text in ["", "{}", r#"{"until":1}"#, r#"{"jti":"a","user_id":"b","until":1}"#, r#"{"user_id":"","until":1}"#] {
            assert_eq!(Revocation::from_note(text), None, "{text}");
        }
    }
}
