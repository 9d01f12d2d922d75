//! Owns writing JSON by hand: members, strings with their escapes (RFC 8259 section 7), numbers. Never validates: callers
//! write members in a fixed order.

use std::fmt::Display;
use std::io::Write as _;

/// Appends `text` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| must_escape(*byte)) {
        out.extend_from_slice(&rest[..at]);
        write_escape(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn must_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cold]
fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            write!(out, "\\u{byte:04x}").expect("writing to memory cannot fail");
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// An object being written; [`Object::end`] closes it.
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    separator: u8,
}

impl<'o> Object<'o> {
    pub fn begin(out: &'o mut Vec<u8>) -> Object<'o> {
        Object { out, separator: b'{' }
    }

    /// Writes a member's name; its value is to be written to the result.
    pub fn key(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.push(self.separator);
        self.separator = b',';
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        write_string(self.key(name), value);
        self
    }

    /// A string that is known to need no escapes.
    pub fn plain(&mut self, name: &str, value: &str) -> &mut Self {
        let out = self.key(name);
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
        self
    }

    /// A short value's text form, known to need no escapes.
    pub fn shown(&mut self, name: &str, value: impl Display) -> &mut Self {
        write!(self.key(name), "\"{value}\"").expect("writing to memory cannot fail");
        self
    }

    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        let mut digits = itoa::Buffer::new();
        self.key(name).extend_from_slice(digits.format(value).as_bytes());
        self
    }

    /// A number, or `null` when there is none.
    pub fn number_or_null(&mut self, name: &str, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.number(name, value),
            None => self.raw(name, "null"),
        }
    }

    pub fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, name: &str, json: &str) -> &mut Self {
        self.key(name).extend_from_slice(json.as_bytes());
        self
    }

    /// A list whose entries `each` writes.
    pub fn list<T>(
        &mut self,
        name: &str,
        entries: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Vec<u8>, T),
    ) -> &mut Self {
        let out = self.key(name);
        out.push(b'[');
        for (at, entry) in entries.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            each(out, entry);
        }
        out.push(b']');
        self
    }

    pub fn end(self) {
        if self.separator == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }
}
