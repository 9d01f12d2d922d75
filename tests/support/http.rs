//! Speaks just enough HTTP/1.1 for the tests: one request per connection, any headers, bodies of both framings.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|fault| panic!("status {}: body is not JSON ({fault}): {}", self.status, self.text()))
    }

    /// `error.name` of the body that every refusal carries, after checking the rest of its form.
    pub fn error_name(&self) -> String {
        let error = &self.json()["error"];
        assert_eq!(error["code"], self.status, "the code in the body is the status: {error}");
        assert!(error["message"].is_string(), "{error}");
        error["name"].as_str().unwrap_or_else(|| panic!("no name in {error}")).to_owned()
    }
}

/// One request on a connection of its own.
pub fn exchange(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Response {
    let body = body.map(Value::to_string);
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = &body {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body.as_deref().unwrap_or(""));
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream.write_all(request.as_bytes()).expect("the server takes a request");
    let mut rest = Vec::new();
    read_response(&mut stream, &mut rest)
        .expect("the server answers in time")
        .unwrap_or_else(|| panic!("{method} {path}: closed without an answer"))
}

/// Reads one response; what follows it stays in `rest`. None when the connection ends before a response has begun.
pub fn read_response(stream: &mut TcpStream, rest: &mut Vec<u8>) -> io::Result<Option<Response>> {
    let head_end = loop {
        if let Some(at) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if fill(stream, rest)? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&rest[..head_end]).into_owned();
    rest.drain(..head_end);
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not a status line: {status_line}"));
    let headers =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let mut response = Response { status, headers, body: Vec::new() };
    if status != 101 {
        response.body = read_body(&response, stream, rest)?;
    }
    Ok(Some(response))
}

fn read_body(response: &Response, stream: &mut TcpStream, rest: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    if let Some(length) = response.header("content-length").and_then(|text| text.parse::<usize>().ok()) {
        while rest.len() < length && fill(stream, rest)? > 0 {}
        return Ok(rest.drain(..length.min(rest.len())).collect());
    }
    while fill(stream, rest)? > 0 {}
    let bytes = std::mem::take(rest);
    let chunked = response.header("transfer-encoding").is_some_and(|text| text.eq_ignore_ascii_case("chunked"));
    Ok(if chunked { join_chunks(&bytes) } else { bytes })
}

fn join_chunks(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..at]).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let Some(size) = size.filter(|size| *size > 0) else { break };
        body.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = &bytes[at + 2 + size + 2..];
    }
    body
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut part = [0; 16 * 1024];
    let count = match stream.read(&mut part) {
        Ok(count) => count,
        // A refusal may be followed by a reset when the server leaves some of the request unread.
        Err(fault) if fault.kind() == io::ErrorKind::ConnectionReset => 0,
        // Whoever held this process let it go on.
        Err(fault) if fault.kind() == io::ErrorKind::Interrupted => return fill(stream, buffer),
        Err(fault) => return Err(fault),
    };
    buffer.extend_from_slice(&part[..count]);
    Ok(count)
}
