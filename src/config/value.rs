//! Owns the types an option may have: how each is read from TOML, an environment variable or a flag, and written back.
//!
//! Never knows a particular option. A value that does not fit is `None` here; the caller says what was allowed.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::spec::{Bounds, Start};

/// What was written, before its meaning is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// An environment variable or flag, where everything is text.
    Word(String),
    Text(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Raw>),
    /// Something no option takes, by its name.
    Other(&'static str),
}

/// The kinds of option, for documents and messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Duration,
    Size,
    Integer,
    Boolean,
    Text,
    Secret,
    Address,
    Path,
    /// A count, or `auto`.
    Count,
    Choice(&'static [&'static str]),
    List(&'static Kind),
}

/// A type that an option may have.
pub trait Value: Sized {
    const KIND: Kind;

    /// None: not of this type.
    fn read(raw: &Raw) -> Option<Self>;

    /// As it is written in TOML.
    fn write(&self) -> String;

    /// What bounds apply to: microseconds, bytes or a count.
    fn magnitude(&self) -> Option<u64> {
        None
    }

    /// The value nobody set.
    fn initial(start: &Start) -> Self {
        match start {
            Start::Default(text) => Self::read(&Raw::Word((*text).to_owned())).expect("a test reads every default of the table"),
            Start::Unset(_) => unreachable!("only optional options start unset"),
        }
    }
}

impl Raw {
    /// What was found, in words. A secret is never shown, only what kind of thing it is.
    pub fn describe(&self, secret: bool) -> String {
        match self {
            Raw::Word(text) | Raw::Text(text) if text.is_empty() => "empty".to_owned(),
            Raw::Word(_) | Raw::Text(_) if secret => "a text".to_owned(),
            Raw::Integer(_) if secret => "an integer".to_owned(),
            Raw::Word(text) | Raw::Text(text) => {
                let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                let more = if shown.len() < text.len() { ".." } else { "" };
                format!("{shown:?}{more}")
            }
            Raw::Integer(value) => value.to_string(),
            Raw::Boolean(_) if secret => "a boolean".to_owned(),
            Raw::Boolean(value) => value.to_string(),
            Raw::List(_) => "a list".to_owned(),
            Raw::Other(name) => (*name).to_owned(),
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Raw::Word(text) | Raw::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A whole number, given as such or as a word.
    fn as_integer(&self) -> Option<u64> {
        match self {
            Raw::Word(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Raw::Integer(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }
}

impl Kind {
    /// What may be written, in words that follow "must be".
    pub fn allowed(&self, bounds: Option<Bounds>) -> String {
        let within = |write: fn(u64) -> String| match bounds {
            None => String::new(),
            Some(Bounds { least, most: u64::MAX }) => format!(", at least {}", write(least)),
            Some(Bounds { least, most }) => format!(", from {} to {}", write(least), write(most)),
        };
        match self {
            Kind::Duration => format!("a duration like 10s, 250ms or 1h (bare integers: seconds){}", within(write_duration)),
            Kind::Size => format!("a size like 512KiB or 4MiB (bare integers: bytes){}", within(write_size)),
            Kind::Integer => format!("a whole number{}", within(|value| value.to_string())),
            Kind::Boolean => "true or false".to_owned(),
            Kind::Text => "a text, not empty, without control characters".to_owned(),
            Kind::Secret => "a text of at least 32 bytes".to_owned(),
            Kind::Address => "an address and port like 127.0.0.1:8080 or [::1]:8080".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Count => format!("auto or a whole number{}", within(|value| value.to_string())),
            Kind::Choice(names) => format!("one of {}", names.join(", ")),
            Kind::List(Kind::Choice(names)) => format!("a list of any of {}", names.join(", ")),
            Kind::List(_) => "a list of texts (in the environment and in flags: separated by commas)".to_owned(),
        }
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Duration;

    fn read(raw: &Raw) -> Option<Duration> {
        if let Some(seconds) = raw.as_integer() {
            return seconds.checked_mul(1_000_000).map(Duration::from_micros);
        }
        read_units(raw.as_text()?, DURATION_UNITS).map(Duration::from_micros)
    }

    fn write(&self) -> String {
        format!("{:?}", write_duration(micros(*self)))
    }

    fn magnitude(&self) -> Option<u64> {
        Some(micros(*self))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Value for ByteSize {
    const KIND: Kind = Kind::Size;

    fn read(raw: &Raw) -> Option<ByteSize> {
        raw.as_integer().or_else(|| read_units(raw.as_text()?, SIZE_UNITS)).map(ByteSize)
    }

    fn write(&self) -> String {
        format!("{:?}", write_size(self.0))
    }

    fn magnitude(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&write_size(self.0))
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const KIND: Kind = Kind::Integer;

            fn read(raw: &Raw) -> Option<$type> {
                raw.as_integer()?.try_into().ok()
            }

            fn write(&self) -> String {
                self.to_string()
            }

            fn magnitude(&self) -> Option<u64> {
                Some((*self).into())
            }
        }
    )*};
}

whole_number!(u32, u64);

impl Value for bool {
    const KIND: Kind = Kind::Boolean;

    fn read(raw: &Raw) -> Option<bool> {
        match raw {
            Raw::Boolean(value) => Some(*value),
            Raw::Word(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: Kind = Kind::Text;

    fn read(raw: &Raw) -> Option<String> {
        let text = raw.as_text()?;
        (!text.chars().any(char::is_control)).then(|| text.to_owned())
    }

    fn write(&self) -> String {
        format!("{self:?}")
    }
}

/// A text that no debug output and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The raw bytes of the text, which are the key.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

impl Value for Secret {
    const KIND: Kind = Kind::Secret;

    fn read(raw: &Raw) -> Option<Secret> {
        raw.as_text().map(Secret::new)
    }

    fn write(&self) -> String {
        "\"..\"".to_owned()
    }
}

impl Value for SocketAddr {
    const KIND: Kind = Kind::Address;

    fn read(raw: &Raw) -> Option<SocketAddr> {
        let text = raw.as_text()?;
        match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
            None => text.parse().ok(),
        }
    }

    fn write(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Path;

    fn read(raw: &Raw) -> Option<PathBuf> {
        raw.as_text().map(PathBuf::from)
    }

    fn write(&self) -> String {
        format!("{:?}", self.display().to_string())
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(raw: &Raw) -> Option<Option<T>> {
        T::read(raw).map(Some)
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(String::new, T::write)
    }

    fn magnitude(&self) -> Option<u64> {
        self.as_ref()?.magnitude()
    }

    fn initial(start: &Start) -> Option<T> {
        match start {
            Start::Default(_) => Some(T::initial(start)),
            Start::Unset(_) => None,
        }
    }
}

impl<T: Value> Value for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);

    fn read(raw: &Raw) -> Option<Vec<T>> {
        match raw {
            Raw::List(items) => items.iter().map(T::read).collect(),
            Raw::Word(text) if text.is_empty() => Some(Vec::new()),
            Raw::Word(text) => text.split(',').map(|item| T::read(&Raw::Word(item.trim().to_owned()))).collect(),
            _ => None,
        }
    }

    fn write(&self) -> String {
        format!("[{}]", self.iter().map(T::write).collect::<Vec<_>>().join(", "))
    }
}

/// How many shards there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardCount {
    /// One a core.
    Auto,
    Exactly(u32),
}

impl Value for ShardCount {
    const KIND: Kind = Kind::Count;

    fn read(raw: &Raw) -> Option<ShardCount> {
        match raw.as_text() {
            Some("auto") => Some(ShardCount::Auto),
            _ => u32::read(raw).map(ShardCount::Exactly),
        }
    }

    fn write(&self) -> String {
        match self {
            ShardCount::Auto => "\"auto\"".to_owned(),
            ShardCount::Exactly(count) => count.to_string(),
        }
    }

    fn magnitude(&self) -> Option<u64> {
        match self {
            ShardCount::Auto => None,
            ShardCount::Exactly(count) => Some(u64::from(*count)),
        }
    }
}

/// Reads a duration as it is written in flags: `1h30m`, or seconds. None for anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    Duration::read(&Raw::Word(text.to_owned()))
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

/// Reads numbers with units, summed: `1h30m`. None for anything else, an overflow or a missing unit.
fn read_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (mut rest, mut sum) = (text, 0u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = tail;
    }
    Some(sum)
}

/// The shortest exact form with one unit.
fn write_units(value: u64, units: &[(&str, u64)]) -> String {
    let exact = units.iter().rev().find(|(_, factor)| value.is_multiple_of(*factor)).expect("the smallest unit is 1");
    format!("{}{}", value / exact.1, exact.0)
}

fn write_duration(micros: u64) -> String {
    if micros == 0 { "0s".to_owned() } else { write_units(micros, DURATION_UNITS) }
}

/// Writes bytes with the largest unit that divides them.
pub fn write_size(bytes: u64) -> String {
    if bytes == 0 { "0B".to_owned() } else { write_units(bytes, SIZE_UNITS) }
}

/// Ascending.
const DURATION_UNITS: &[(&str, u64)] =
    &[("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// Ascending.
const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// How much of a wrong value a message shows.
const SHOWN_CHARS_MAX: usize = 64;
