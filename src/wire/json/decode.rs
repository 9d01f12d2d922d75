//! Owns reading one envelope: text to tape, the envelope's members, the choice of the verb, and what a bad text is called.
//!
//! Never builds a map or a tree: the tape is walked once and values go straight into the command. Lives on shard threads.

use simd_json::{Buffers, ErrorType, INPUT_PADDING, Tape};

use super::tape::{Doc, Members};
use super::{DEPTH_MAX, command};
use crate::types::outcome::Fault;
use crate::types::{ErrorName, Request, RequestId};

/// Memory that decoding reuses; one per shard. Bounded: what a large message made it grow by is given back after it.
pub struct Scratch {
    /// The text with padding behind it; strings are unescaped in here, while the received text stays as it was sent.
    copy: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch { copy: Vec::new(), buffers: Buffers::with_max_depth(TEXT_BYTES_USUAL, DEPTH_MAX), tape: Tape(Vec::new()) }
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

/// Why a text is no request, and the `message_id` to answer it under when that could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .fault.name.name(), .fault.message)]
pub struct DecodeFault {
    pub request: Option<RequestId>,
    pub fault: Fault,
}

/// Decodes one envelope (PROTOCOL, "Envelope" and "Client to server"). The payload of one text message; not changed.
pub fn decode(payload: &[u8], scratch: &mut Scratch) -> Result<Request, DecodeFault> {
    let Scratch { copy, buffers, tape } = scratch;
    copy.clear();
    copy.reserve(payload.len() + INPUT_PADDING);
    copy.extend_from_slice(payload);
    copy.resize(payload.len() + INPUT_PADDING, b' ');
    let base = copy.as_ptr() as usize;
    let mut parsed = std::mem::replace(tape, Tape(Vec::new())).reset();
    let result = match simd_json::fill_tape_padded(copy, payload.len(), buffers, &mut parsed) {
        Ok(()) => request(&Doc::new(&parsed.0, payload, base, buffers.structural_indexes())),
        Err(error) => Err(DecodeFault { request: None, fault: not_json(&error, payload) }),
    };
    *tape = parsed.reset();
    if payload.len() > SCRATCH_BYTES_KEPT {
        *scratch = Scratch::new();
    }
    result
}

fn request(doc: &Doc<'_, '_>) -> Result<Request, DecodeFault> {
    let Some(Members { fields: [kind, id, data], twice }) = doc.root().members(["type", "message_id", "data"]) else {
        return Err(DecodeFault { request: None, fault: Fault::new(ErrorName::BadRequest, "the envelope must be an object") });
    };
    let id = id.parsed(RequestId::new).map_err(|fault| DecodeFault { request: None, fault })?;
    let command = match twice {
        Some(name) => Err(given_twice(name)),
        None => kind.text().and_then(|kind| kind.required("type")).and_then(|kind| command::read(kind, data)),
    };
    match command {
        Ok(command) => Ok(Request { id, command }),
        Err(fault) => Err(DecodeFault { request: id, fault }),
    }
}

/// `required` for what a field may hold.
pub trait Required<T> {
    /// The value, or the fault of a missing member called `name`.
    fn required(self, name: &'static str) -> Result<T, Fault>;
}

impl<T> Required<T> for Option<T> {
    fn required(self, name: &'static str) -> Result<T, Fault> {
        self.ok_or_else(|| bad_request(format!("`{name}` is missing")))
    }
}

#[cold]
pub fn bad_request(message: String) -> Fault {
    Fault::new(ErrorName::BadRequest, message)
}

#[cold]
pub fn given_twice(name: &'static str) -> Fault {
    bad_request(format!("`{name}` is given twice"))
}

/// Names the fault of a text that could not be parsed. Numbers that are well formed but too large, and the `NaN` and
/// `Infinity` which some encoders write, are a bad value in an otherwise good text.
#[cold]
fn not_json(error: &simd_json::Error, payload: &[u8]) -> Fault {
    let rest = payload.get(error.index()..).unwrap_or_default();
    match error.error() {
        ErrorType::InvalidNumber if serde_json::from_slice::<serde::de::IgnoredAny>(payload).is_ok() => {
            Fault::new(ErrorName::BadRequest, "a number is too large")
        }
        _ if rest.starts_with(b"NaN") || rest.starts_with(b"Infinity") => {
            Fault::new(ErrorName::BadRequest, "NaN and Infinity are not JSON numbers")
        }
        ErrorType::DepthLimitExceeded => Fault::new(ErrorName::BadJson, "the text is nested deeper than 64"),
        ErrorType::InvalidUnicodeCodepoint | ErrorType::InvalidUtf8 => {
            Fault::new(ErrorName::BadJson, "the text has an escape that is no Unicode character")
        }
        _ => Fault::new(ErrorName::BadJson, "the text is not JSON"),
    }
}

/// Texts up to this size are decoded without allocating in the steady state.
const SCRATCH_BYTES_KEPT: usize = 64 << 10;
const TEXT_BYTES_USUAL: usize = 1 << 10;
