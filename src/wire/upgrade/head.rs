//! Owns the form of a request head: where it ends, what may not stand in it, and access to its headers. Stricter than
//! httparse, which reads the fields: whatever two parsers might read differently is refused (RFC 9112 section 11).

use httparse::{Error, Header, Request, Status};

use super::{HEAD_BYTES_MAX, Refusal};

/// A well-formed head.
pub struct Head<'h, 'b> {
    pub method: &'b str,
    /// Path and query, in origin form.
    pub target: &'b str,
    headers: &'h [Header<'b>],
}

/// Finds the empty line that ends the head. None while it has not come and nothing is wrong yet.
pub fn find_end(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    match bytes.first() {
        None => return Ok(None),
        Some(first) if !first.is_ascii_uppercase() => return Err(Refusal::bad_request("this is no HTTP request")),
        Some(_) => {}
    }
    if bytes.starts_with(b"PRI * HTTP/2") {
        return Err(Refusal::bad_request("HTTP/2 is not spoken here; use HTTP/1.1"));
    }
    let mut line = 0;
    let mut before = 0u8;
    for (at, &byte) in bytes.iter().enumerate().take(HEAD_BYTES_MAX) {
        judge_byte(before, byte, at == line && line > 0)?;
        if byte == b'\n' {
            if at == line + 1 {
                return Ok(Some(at + 1));
            }
            line = at + 1;
        }
        if line == 0 && at >= TARGET_BYTES_MAX + METHOD_BYTES_USUAL {
            return Err(too_long());
        }
        before = byte;
    }
    if bytes.len() >= HEAD_BYTES_MAX {
        return Err(Refusal::new(431, "HEADERS_TOO_LARGE", "the request head is larger than 16 KiB"));
    }
    Ok(None)
}

/// Refuses line ends that are not CR LF, other control characters, and lines that continue the one before.
fn judge_byte(before: u8, byte: u8, line_start: bool) -> Result<(), Refusal> {
    let good = match byte {
        b'\n' => before == b'\r',
        _ if before == b'\r' => false,
        b' ' | b'\t' => !line_start,
        b'\r' => true,
        _ => byte >= b' ' && byte != 0x7f,
    };
    if good { Ok(()) } else { Err(Refusal::bad_request("the request head has a character or line end that HTTP forbids")) }
}

impl<'h, 'b> Head<'h, 'b> {
    /// Reads a complete head.
    pub fn parse(bytes: &'b [u8], headers: &'h mut [Header<'b>]) -> Result<Head<'h, 'b>, Refusal> {
        let mut request = Request::new(headers);
        match request.parse(bytes) {
            Ok(Status::Complete(_)) => {}
            Err(Error::TooManyHeaders) => return Err(Refusal::new(431, "HEADERS_TOO_LARGE", "more than 124 header lines")),
            Err(Error::Version) => return Err(Refusal::bad_request("the version must be HTTP/1.1")),
            Ok(Status::Partial) | Err(_) => return Err(Refusal::bad_request("the request head is malformed")),
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(Refusal::bad_request("the request line is malformed"));
        };
        if version != 1 {
            return Err(Refusal::bad_request("the version must be HTTP/1.1"));
        }
        if target.len() > TARGET_BYTES_MAX {
            return Err(too_long());
        }
        let head = Head { method, target: origin_form(target)?, headers: request.headers };
        match head.single("host")? {
            Some(_) => Ok(head),
            None => Err(Refusal::bad_request("`Host` is missing")),
        }
    }

    /// Values of every header line of this name.
    pub fn values(&self, name: &'static str) -> impl Iterator<Item = Result<&'b str, Refusal>> {
        self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(move |header| {
            std::str::from_utf8(header.value)
                .map(str::trim_ascii)
                .map_err(|_| Refusal::bad_request(format!("`{name}` is not UTF-8")))
        })
    }

    /// The value of a header that must not come twice.
    pub fn single(&self, name: &'static str) -> Result<Option<&'b str>, Refusal> {
        let mut values = self.values(name);
        let first = values.next().transpose()?;
        if values.next().is_some() {
            return Err(Refusal::bad_request(format!("`{name}` is given twice")));
        }
        Ok(first)
    }

    /// True when a comma-separated header has this entry, in whatever case.
    pub fn lists(&self, name: &'static str, entry: &str) -> bool {
        self.values(name).flatten().flat_map(|value| value.split(',')).any(|found| found.trim_ascii().eq_ignore_ascii_case(entry))
    }

    pub fn only_methods(&self, methods: &[&str]) -> Result<(), Refusal> {
        if methods.contains(&self.method) {
            return Ok(());
        }
        Err(Refusal::new(405, "METHOD_NOT_ALLOWED", "this path takes GET").header("Allow", methods.join(", ")))
    }

    /// Refuses requests with a body: what follows the head must not be read in two ways.
    pub fn no_body(&self) -> Result<(), Refusal> {
        if self.values("transfer-encoding").next().is_some() {
            return Err(Refusal::bad_request("a request with `Transfer-Encoding` is not accepted here"));
        }
        match self.values("content-length").find(|length| !matches!(length, Ok("0"))) {
            Some(_) => Err(Refusal::bad_request("a request with a body is not accepted here")),
            None => Ok(()),
        }
    }
}

/// Path and query of a target, also when it is a whole URI (RFC 9112 section 3.2.2).
fn origin_form(target: &str) -> Result<&str, Refusal> {
    if target.starts_with('/') {
        return Ok(target);
    }
    let rest = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    match rest.and_then(|rest| rest.find('/').map(|slash| &rest[slash..])) {
        Some(path) => Ok(path),
        None => Err(Refusal::bad_request("the request target must be a path")),
    }
}

fn too_long() -> Refusal {
    Refusal::new(414, "URI_TOO_LONG", "the request target is longer than 8,191 bytes")
}

/// Header lines of one request.
pub const HEADERS_MAX: usize = 124;
const TARGET_BYTES_MAX: usize = (8 << 10) - 1;
/// Method, spaces and version around the target.
const METHOD_BYTES_USUAL: usize = 32;
