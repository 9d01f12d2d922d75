//! Owns typed access to a parsed text: members of objects by name, values with their type and range checked, and the exact
//! bytes a value was sent as.
//!
//! Never allocates except for what it returns. The tape is simd-json's: values in document order, each object and array
//! knowing how many nodes it spans.

use simd_json::{Node, StaticNode};

use super::decode::{bad_request, given_twice};
use crate::types::id::IdFault;
use crate::types::outcome::Fault;
use crate::types::{RawJson, Seq};

/// A parsed text.
pub struct Doc<'t, 'i> {
    nodes: &'t [Node<'i>],
    /// The text as it was sent.
    sent: &'t [u8],
    /// Address of the first byte of the parsed copy; strings of the tape lie in it at the offsets they have in `sent`.
    base: usize,
    /// Offsets of what structures the text: brackets, colons, commas, and the first byte of every value.
    structurals: &'t [u32],
}

impl<'t, 'i> Doc<'t, 'i> {
    pub fn new(nodes: &'t [Node<'i>], sent: &'t [u8], base: usize, structurals: &'t [u32]) -> Doc<'t, 'i> {
        Doc { nodes, sent, base, structurals }
    }

    pub fn root(&self) -> Field<'_, 'i> {
        Field { doc: self, name: "envelope", at: Some(0) }
    }

    /// Nodes that the value at `at` spans.
    fn span(&self, at: usize) -> usize {
        match self.nodes[at] {
            Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
            Node::String(_) | Node::Static(_) => 1,
        }
    }

    /// The bytes between a key and the end of its value, located by the structure of the text: key, colon, value.
    fn raw(&self, value: usize) -> Option<&str> {
        let Node::String(key) = self.nodes[value - 1] else { return None };
        let quote = (key.as_ptr() as usize).checked_sub(self.base + 1)? as u32;
        let first = self.structurals.binary_search(&quote).ok()? + 2;
        let rest = self.structurals.get(first..)?;
        let start = *rest.first()? as usize;
        let end = match self.nodes[value] {
            Node::Object { .. } | Node::Array { .. } => self.closing(rest)? + 1,
            Node::String(_) | Node::Static(_) => *rest.get(1)? as usize,
        };
        simdutf8::basic::from_utf8(self.sent.get(start..end)?).ok().map(str::trim_ascii_end)
    }

    /// Offset of the bracket that closes the one which `rest` begins with.
    fn closing(&self, rest: &[u32]) -> Option<usize> {
        let mut depth = 0usize;
        for &offset in rest {
            match self.sent.get(offset as usize)? {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(offset as usize);
            }
        }
        None
    }
}

/// A member that may be absent. `null` counts as absent: clients write it for what they do not have.
#[derive(Clone, Copy)]
pub struct Field<'d, 'i> {
    doc: &'d Doc<'d, 'i>,
    name: &'static str,
    at: Option<usize>,
}

/// Members of one object, in the order in which they were asked for.
pub struct Members<'d, 'i, const N: usize> {
    pub fields: [Field<'d, 'i>; N],
    /// One of them that the object has twice.
    pub twice: Option<&'static str>,
}

impl<'d, 'i> Field<'d, 'i> {
    /// The member's name, for faults.
    pub fn name(self) -> &'static str {
        self.name
    }

    pub fn node(self) -> Option<Node<'i>> {
        match self.doc.nodes[self.at?] {
            Node::Static(StaticNode::Null) => None,
            node => Some(node),
        }
    }

    pub fn is_given(self) -> bool {
        self.node().is_some()
    }

    /// Finds members by name in one walk over the object; others are ignored. None when this is no object.
    pub fn members<const N: usize>(self, names: [&'static str; N]) -> Option<Members<'d, 'i, N>> {
        let mut found = Members { fields: names.map(|name| Field { doc: self.doc, name, at: None }), twice: None };
        let Some(Node::Object { len, .. }) = self.node() else {
            return None;
        };
        let mut at = self.at? + 1;
        for _ in 0..len {
            if let Node::String(key) = self.doc.nodes[at]
                && let Some(slot) = names.iter().position(|name| *name == key)
            {
                found.twice = if found.fields[slot].at.is_some() { Some(names[slot]) } else { found.twice };
                found.fields[slot].at = Some(at + 1);
            }
            at += 1 + self.doc.span(at + 1);
        }
        Some(found)
    }

    /// Members of a request's `data`, or of an entry of a list; all absent when it is absent itself.
    pub fn data<const N: usize>(self, names: [&'static str; N]) -> Result<[Field<'d, 'i>; N], Fault> {
        if !self.is_given() {
            return Ok(names.map(|name| Field { doc: self.doc, name, at: None }));
        }
        match self.members(names) {
            Some(Members { fields, twice: None }) => Ok(fields),
            Some(Members { twice: Some(name), .. }) => Err(given_twice(name)),
            None => Err(self.wrong("an object")),
        }
    }

    pub fn text(self) -> Result<Option<&'i str>, Fault> {
        match self.node() {
            None => Ok(None),
            Some(Node::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong("a string")),
        }
    }

    /// A string that `read` accepts.
    pub fn parsed<T>(self, read: impl FnOnce(&str) -> Result<T, IdFault>) -> Result<Option<T>, Fault> {
        let Some(text) = self.text()? else { return Ok(None) };
        read(text).map(Some).map_err(|fault| bad_request(format!("`{}` {fault}", self.name)))
    }

    pub fn flag(self) -> Result<Option<bool>, Fault> {
        match self.node() {
            None => Ok(None),
            Some(Node::Static(StaticNode::Bool(flag))) => Ok(Some(flag)),
            Some(_) => Err(self.wrong("true or false")),
        }
    }

    /// An integer from 0; `7.0` is one too.
    pub fn number(self) -> Result<Option<u64>, Fault> {
        match self.node() {
            None => Ok(None),
            Some(node) => match integer(node) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong("an integer from 0")),
            },
        }
    }

    /// A position in a log, from `least` to 2^63.
    pub fn seq(self, least: u64) -> Result<Option<Seq>, Fault> {
        match self.node() {
            None => Ok(None),
            Some(node) => match integer(node) {
                Some(number) if (least..=SEQ_MAX).contains(&number) => Ok(Some(Seq(number))),
                _ if least == 0 => Err(self.wrong("an integer from 0 to 2^63")),
                _ => Err(self.wrong("an integer from 1 to 2^63")),
            },
        }
    }

    /// Entries of a list of at most `entries_max`.
    pub fn list(self, entries_max: usize) -> Result<Option<List<'d, 'i>>, Fault> {
        match (self.node(), self.at) {
            (Some(Node::Array { len, .. }), Some(at)) if len <= entries_max => {
                Ok(Some(List { doc: self.doc, name: self.name, at: at + 1, left: len }))
            }
            (Some(Node::Array { .. }), _) => Err(bad_request(format!("`{}` has more than {entries_max} entries", self.name))),
            (Some(_), _) => Err(self.wrong("a list")),
            (None, _) => Ok(None),
        }
    }

    /// Keys and values of an object of at most `entries_max` members.
    pub fn entries(self, entries_max: usize) -> Result<Option<Entries<'d, 'i>>, Fault> {
        match (self.node(), self.at) {
            (Some(Node::Object { len, .. }), Some(at)) if len <= entries_max => {
                Ok(Some(Entries { doc: self.doc, name: self.name, at: at + 1, left: len }))
            }
            (Some(Node::Object { .. }), _) => Err(bad_request(format!("`{}` has more than {entries_max} members", self.name))),
            (Some(_), _) => Err(self.wrong("an object")),
            (None, _) => Ok(None),
        }
    }

    /// The value's own bytes, as they were sent.
    pub fn raw(self) -> Option<RawJson> {
        self.doc.raw(self.at?).map(RawJson::from_validated)
    }

    /// The fault of a value that is not `what`.
    #[cold]
    pub fn wrong(self, what: &str) -> Fault {
        bad_request(format!("`{}` must be {what}", self.name))
    }
}

/// Entries of an array; each is a [`Field`] under the array's name.
pub struct List<'d, 'i> {
    doc: &'d Doc<'d, 'i>,
    name: &'static str,
    at: usize,
    left: usize,
}

impl List<'_, '_> {
    pub fn len(&self) -> usize {
        self.left
    }
}

impl<'d, 'i> Iterator for List<'d, 'i> {
    type Item = Field<'d, 'i>;

    fn next(&mut self) -> Option<Field<'d, 'i>> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        self.at += self.doc.span(at);
        Some(Field { doc: self.doc, name: self.name, at: Some(at) })
    }
}

/// Keys and values of an object whose keys are data.
pub struct Entries<'d, 'i> {
    doc: &'d Doc<'d, 'i>,
    name: &'static str,
    at: usize,
    left: usize,
}

impl<'d, 'i> Iterator for Entries<'d, 'i> {
    type Item = (&'i str, Field<'d, 'i>);

    fn next(&mut self) -> Option<(&'i str, Field<'d, 'i>)> {
        self.left = self.left.checked_sub(1)?;
        let Node::String(key) = self.doc.nodes[self.at] else { return None };
        let at = self.at + 1;
        self.at = at + self.doc.span(at);
        Some((key, Field { doc: self.doc, name: self.name, at: Some(at) }))
    }
}

fn integer(node: Node<'_>) -> Option<u64> {
    match node {
        Node::Static(StaticNode::U64(number)) => Some(number),
        Node::Static(StaticNode::I64(number)) => u64::try_from(number).ok(),
        Node::Static(StaticNode::F64(number)) if number.fract() == 0.0 && (0.0..=FLOAT_INTEGER_MAX).contains(&number) => {
            Some(number as u64)
        }
        _ => None,
    }
}

const SEQ_MAX: u64 = 1 << 63;
/// Beyond 2^53 a float no longer tells neighbouring integers apart.
const FLOAT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;
