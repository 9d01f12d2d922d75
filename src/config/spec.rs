//! Owns the description of one option: what the table in `options` says about it, in a form that reading, checking and the
//! documents share. Never holds a value that someone configured.

use super::fault::Fault;
use super::value::{Kind, Raw, Value};

/// One row of the table of options.
#[derive(Debug)]
pub struct Spec {
    pub section: &'static str,
    pub key: &'static str,
    /// `section.key`.
    pub path: &'static str,
    pub kind: Kind,
    pub start: Start,
    pub bounds: Option<Bounds>,
    pub status: Status,
    /// Lines of the documentation, each with its leading blank.
    pub doc: &'static [&'static str],
}

/// What an option is before anyone sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Written as in an environment variable.
    Default(&'static str),
    /// Nothing; with an example for the sample file, written as in TOML.
    Unset(&'static str),
}

/// Smallest and largest value, both allowed: microseconds, bytes or a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub least: u64,
    pub most: u64,
}

/// Whether and when a new value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// On SIGHUP.
    Reloadable,
    /// At the next start.
    Restart,
    /// Never: the name is reserved, and any value but the default is refused.
    Unsupported,
}

impl Spec {
    /// The environment variable that sets it: `COREHUB_SECTION__KEY`.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}__{}", self.section.to_uppercase(), self.key.to_uppercase())
    }

    /// What may be written, in words that follow "must be".
    pub fn allowed(&self) -> String {
        self.kind.allowed(self.bounds)
    }

    /// Documentation as one paragraph.
    pub fn text(&self) -> String {
        self.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }

    /// Turns what was written into a value within bounds.
    pub(super) fn read<T: Value + PartialEq>(&self, raw: &Raw) -> Result<T, Fault> {
        let unsuitable = || Fault::Unsuitable { found: raw.describe(matches!(self.kind, Kind::Secret)), allowed: self.allowed() };
        let value = T::read(raw).ok_or_else(unsuitable)?;
        let outside = |bounds: Bounds| value.magnitude().is_some_and(|it| it < bounds.least || it > bounds.most);
        if self.bounds.is_some_and(outside) {
            return Err(unsuitable());
        }
        if self.status == Status::Unsupported && value != T::initial(&self.start) {
            return Err(Fault::Unsupported);
        }
        Ok(value)
    }
}

/// What every variable that configures corehub begins with.
pub const VARIABLE_PREFIX: &str = "COREHUB_";
