//! Owns a plain TCP connection to the clients' port, for what no well-behaved client would send.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::handshake::derive_accept_key;

use super::frames;
use super::http::{self, Response};
use super::{PATIENCE, Server, token};

/// The key of RFC 6455's own example; any 16 bytes would do.
pub const HANDSHAKE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub struct RawConnection {
    pub stream: TcpStream,
    /// Received and not yet looked at.
    pub received: Vec<u8>,
}

/// What a raw connection got.
#[derive(Debug, PartialEq)]
pub enum Received {
    Frame {
        first: u8,
        payload: Vec<u8>,
    },
    /// The connection ended, in order or by a reset.
    End,
    /// Nothing came in time.
    Nothing,
}

impl RawConnection {
    /// Connects and sends nothing.
    pub fn open(server: &Server) -> RawConnection {
        let stream = TcpStream::connect(server.client_address()).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket has that option");
        RawConnection { stream, received: Vec::new() }
    }

    /// Upgrades without a token.
    pub fn upgraded(server: &Server) -> RawConnection {
        let mut connection = RawConnection::open(server);
        let response = connection.upgrade("/ws", &[]);
        assert_eq!(response.status, 101, "{}", response.text());
        connection
    }

    /// Upgrades with a good token and reads until the server has nothing more to tell a new connection.
    pub fn authenticated(server: &Server, user: &str) -> RawConnection {
        let mut connection = RawConnection::open(server);
        let bearer = format!("Bearer {}", token::for_user(user));
        let response = connection.upgrade("/ws", &[("Authorization", &bearer)]);
        assert_eq!(response.status, 101, "{}", response.text());
        connection.read_until("sync_done");
        connection
    }

    /// Sends a good upgrade request with further headers and reads the answer.
    pub fn upgrade(&mut self, target: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {HANDSHAKE_KEY}\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.send(request.as_bytes()).expect("the server takes a request");
        let response = self.response().expect("the server answers an upgrade");
        if response.status == 101 {
            assert_eq!(response.header("sec-websocket-accept"), Some(derive_accept_key(HANDSHAKE_KEY.as_bytes()).as_str()));
        }
        response
    }

    /// Reads one HTTP response; None when the connection ends without one.
    pub fn response(&mut self) -> Option<Response> {
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        http::read_response(&mut self.stream, &mut self.received).expect("the server answers or closes in time")
    }

    /// The same; None also when it was reset.
    pub fn try_response(&mut self) -> Option<Response> {
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        http::read_response(&mut self.stream, &mut self.received).ok().flatten()
    }

    /// Sends bytes. An error means that the server has closed already.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
        self.stream.write_all(bytes)
    }

    /// Sends one text message.
    pub fn send_text(&mut self, text: &str) {
        self.send(&frames::text(text)).expect("the connection is open");
    }

    /// Reads one frame, at most for `patience`.
    pub fn receive(&mut self, patience: Duration) -> Received {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((first, payload)) = frames::parse(&self.received) {
                let end = payload.end;
                let frame = Received::Frame { first, payload: self.received[payload].to_vec() };
                self.received.drain(..end);
                return frame;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Received::Nothing;
            }
            self.stream.set_read_timeout(Some(left)).expect("a timeout above zero");
            let mut part = [0; 64 * 1024];
            match self.stream.read(&mut part) {
                Ok(0) => return Received::End,
                Ok(count) => self.received.extend_from_slice(&part[..count]),
                Err(fault) if matches!(fault.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Received::End,
            }
        }
    }

    /// Reads the next text message, over control frames.
    pub fn receive_json(&mut self) -> Value {
        loop {
            match self.receive(PATIENCE) {
                Received::Frame { first, payload } if first & 0xf == frames::TEXT => {
                    return serde_json::from_slice(&payload).expect("the server sends JSON");
                }
                Received::Frame { first, .. } if matches!(first & 0xf, frames::PING | frames::PONG) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// Reads messages until one of this type; its envelope.
    pub fn read_until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.receive_json();
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Reads until the connection ends: the code of the close frame, if there was one. Fails when it stays open.
    pub fn close_code(&mut self) -> Option<u16> {
        let deadline = Instant::now() + PATIENCE;
        let mut code = None;
        loop {
            match self.receive(deadline.saturating_duration_since(Instant::now())) {
                Received::Frame { first, payload } if first & 0xf == frames::CLOSE => {
                    code = Some(payload.get(..2).map_or(1005, |bytes| u16::from_be_bytes([bytes[0], bytes[1]])));
                    // The answer to the close; whether it still arrives is of no matter.
                    let _ = self.send(&frames::masked(frames::FIN | frames::CLOSE, &payload));
                }
                Received::Frame { .. } => {}
                Received::End => return code,
                Received::Nothing => panic!("the connection stays open (close frame so far: {code:?})"),
            }
        }
    }

    /// Shows that the connection works: a `ping` message comes back as `pong`.
    pub fn assert_alive(&mut self) {
        self.send_text(r#"{"type":"ping","message_id":"still-there"}"#);
        while self.read_until("pong")["message_id"] != "still-there" {}
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket has that option");
    }
}
