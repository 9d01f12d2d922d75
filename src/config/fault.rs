//! Owns what can be wrong with a configuration and how it is told. Never shows the value of a secret, and never quotes a line of
//! the file, which could hold one.

use std::fmt;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `line` counts from 1; 0 = the file as a whole.
    File {
        name: String,
        line: usize,
    },
    Environment(String),
    Flag(String),
    /// Nobody wrote it.
    Default,
}

/// What is wrong with a key, in words that follow its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("is not valid TOML: {0}")]
    Syntax(String),
    #[error("is not a key{}", nearest(.0))]
    UnknownKey(Option<&'static str>),
    #[error("is not a section; sections are {0}")]
    UnknownSection(String),
    #[error("is {found}, but must be {allowed}")]
    Unsuitable { found: String, allowed: String },
    #[error("is not supported by this version: remove it")]
    Unsupported,
    /// A relation between keys does not hold; the text says what to change.
    #[error("{0}")]
    Conflict(String),
}

/// One thing that is wrong, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub origin: Origin,
    /// `section.key`; empty when the source as a whole is at fault.
    pub key: String,
    pub fault: Fault,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Finding>);

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { name, line: 0 } => write!(out, "{name}"),
            Origin::File { name, line } => write!(out, "{name}:{line}"),
            Origin::Environment(name) => write!(out, "environment {name}"),
            Origin::Flag(name) => write!(out, "flag {name}"),
            Origin::Default => write!(out, "default"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(out, "{}: {}", self.origin, self.fault),
            key => write!(out, "{}: {key} {}", self.origin, self.fault),
        }
    }
}

impl fmt::Display for ConfigErrors {
    /// One finding a line.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write!(out, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

fn nearest(name: &Option<&'static str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}
