//! Owns the way from sources to a `Config`: file, then environment, then flags, each over the one before. Never stops at the
//! first error and never looks at the process environment itself. Lives on the main thread.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check;
use super::fault::{ConfigErrors, Fault, Finding, Origin};
use super::options::{Config, OPTIONS, SECTIONS};
use super::spec::{Spec, VARIABLE_PREFIX};
use super::value::Raw;

/// Where a configuration comes from; later fields win.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file, which must exist.
    pub file: Option<PathBuf>,
    /// The environment; only `COREHUB_*` is looked at.
    pub environment: Vec<(OsString, OsString)>,
    pub flags: Vec<Flag>,
    /// Relaxes the rules about secrets.
    pub dev: bool,
}

/// An option given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the user wrote it, without the value: `--listen`.
    pub name: String,
    /// `section.key`; empty when the user wrote none, which is an error.
    pub path: String,
    pub value: String,
}

impl Flag {
    /// `--set section.key=value`. A text without `=` is not kept: it could be a secret.
    pub fn set(text: &str) -> Flag {
        let (path, value) = text.split_once('=').unwrap_or_default();
        Flag { name: "--set".to_owned(), path: path.trim().to_owned(), value: value.to_owned() }
    }
}

impl Config {
    /// Reads, checks and merges all sources. The error tells everything that is wrong, in the order of the sources; a value
    /// that a later source overrides is checked all the same.
    pub fn load(sources: &Sources) -> Result<Config, ConfigErrors> {
        let mut reader = Reader::new(sources.dev);
        if let Some(path) = &sources.file {
            let name = path.display().to_string();
            match std::fs::read_to_string(path) {
                Ok(text) => reader.read_file(&name, &text),
                Err(error) => reader.complain(Origin::File { name, line: 0 }, "", Fault::Unreadable(error.to_string())),
            }
        }
        for (name, value) in &sources.environment {
            reader.read_variable(name, value);
        }
        for flag in &sources.flags {
            reader.read_flag(flag);
        }
        reader.finish()
    }

    /// As [`Config::load`] with the text of a file as the only source; `name` stands for the file in errors.
    pub fn parse(name: &str, text: &str, dev: bool) -> Result<Config, ConfigErrors> {
        let mut reader = Reader::new(dev);
        reader.read_file(name, text);
        reader.finish()
    }
}

/// A configuration in the making.
pub(super) struct Reader {
    pub(super) config: Config,
    /// Where each option that is not a default was written last.
    origins: BTreeMap<&'static str, Origin>,
    /// Options that had an error, about which relations say nothing more.
    failed: BTreeSet<String>,
    findings: Vec<Finding>,
}

impl Reader {
    fn new(dev: bool) -> Reader {
        let config = Config { dev, ..Config::default() };
        Reader { config, origins: BTreeMap::new(), failed: BTreeSet::new(), findings: Vec::new() }
    }

    fn finish(mut self) -> Result<Config, ConfigErrors> {
        check::relations(&mut self);
        if self.findings.is_empty() { Ok(self.config) } else { Err(ConfigErrors(self.findings)) }
    }

    fn complain(&mut self, origin: Origin, key: &str, fault: Fault) {
        self.failed.insert(key.to_owned());
        self.findings.push(Finding { origin, key: key.to_owned(), fault });
    }

    /// Tells that a relation does not hold, unless one of its keys is known to be wrong anyway.
    pub(super) fn conflict(&mut self, keys: &[&str], message: impl Into<String>) {
        if keys.iter().any(|key| self.failed.contains(*key)) {
            return;
        }
        let origin = keys.iter().find_map(|key| self.origins.get(key)).cloned().unwrap_or(Origin::Default);
        let fault = Fault::Conflict(message.into());
        self.findings.push(Finding { origin, key: keys[0].to_owned(), fault });
    }

    /// Someone wrote this option, rightly or wrongly.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key) || self.failed.contains(key)
    }

    fn read_file(&mut self, name: &str, text: &str) {
        let origin = |offset: usize| Origin::File { name: name.to_owned(), line: line_of(text, offset) };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(Origin::File { name: name.to_owned(), line: 0 }, |span| origin(span.start));
            // Not the error's own display, which quotes the line.
            self.complain(at, "", Fault::Syntax(error.message().to_owned()));
        }
        for (section, content) in sorted(table.get_ref()) {
            let at = origin(section.span().start);
            let Some(&(section, _)) = SECTIONS.iter().find(|(known, _)| *known == section.get_ref()) else {
                self.complain(at, section.get_ref(), unknown_section(section.get_ref()));
                continue;
            };
            let DeValue::Table(keys) = content.get_ref() else {
                let found = raw_of(content.get_ref()).describe(true);
                self.complain(at, section, Fault::Unsuitable { found, allowed: format!("a section: [{section}]") });
                continue;
            };
            for (key, value) in sorted(keys) {
                let path = format!("{section}.{}", key.get_ref());
                self.put(origin(key.span().start), &path, &raw_of(value.get_ref()));
            }
        }
    }

    fn read_variable(&mut self, name: &OsString, value: &OsString) {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { return };
        if is_service_link(rest) {
            return;
        }
        let origin = Origin::Environment(name.clone().into_owned());
        let path = rest.to_lowercase().replacen("__", ".", 1);
        match value.to_str() {
            Some(value) => self.put(origin, &path, &Raw::Word(value.to_owned())),
            None => self.complain(origin, &path, Fault::Unreadable("it is not UTF-8".to_owned())),
        }
    }

    fn read_flag(&mut self, flag: &Flag) {
        let origin = Origin::Flag(flag.name.clone());
        if flag.path.is_empty() {
            return self.complain(origin, "", Fault::Unreadable("write it as section.key=value".to_owned()));
        }
        self.put(origin, &flag.path, &Raw::Word(flag.value.clone()));
    }

    fn put(&mut self, origin: Origin, path: &str, raw: &Raw) {
        let Some(spec) = OPTIONS.iter().find(|spec| spec.path == path) else {
            return self.complain(origin, path, Fault::UnknownKey(nearest(path)));
        };
        match self.config.assign(spec, raw) {
            Ok(()) => {
                self.origins.insert(spec.path, origin);
            }
            Err(fault) => self.complain(origin, path, fault),
        }
    }
}

/// A table's members in the order of the file.
fn sorted<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut members: Vec<_> = table.iter().collect();
    members.sort_by_key(|(key, _)| key.span().start);
    members
}

fn raw_of(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Integer(integer) => {
            i128::from_str_radix(integer.as_str(), integer.radix()).map_or(Raw::Other("a number out of range"), Raw::Integer)
        }
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw_of(item.get_ref())).collect()),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// Counts from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn unknown_section(name: &str) -> Fault {
    // A key without its section, such as `hmac_secret` at the top of the file.
    match OPTIONS.iter().find(|spec| spec.key == name) {
        Some(spec) => Fault::UnknownKey(Some(spec.path)),
        None => Fault::UnknownSection(SECTIONS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")),
    }
}

/// Kubernetes puts `COREHUB_PORT` and `COREHUB_SERVICE_HOST` into every container when a service is called corehub.
fn is_service_link(rest: &str) -> bool {
    !rest.contains("__") && ["PORT", "SERVICE"].iter().any(|name| rest == *name || rest.starts_with(&format!("{name}_")))
}

/// The option that was probably meant.
fn nearest(path: &str) -> Option<&'static str> {
    let distance = |spec: &&Spec| {
        let name = path.rsplit('.').next().unwrap_or(path);
        edits(path, spec.path).min(if name == spec.key { 1 } else { usize::MAX })
    };
    OPTIONS.iter().min_by_key(distance).filter(|spec| distance(spec) <= EDITS_MAX).map(|spec| spec.path)
}

/// Levenshtein distance in bytes.
fn edits(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, left) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, right) in other.bytes().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// More differences than this are another word, not a slip.
const EDITS_MAX: usize = 3;
