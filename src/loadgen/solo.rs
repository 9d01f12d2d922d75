//! Owns one client that waits for its answers: for what needs a single connection rather than thousands, such as a page of
//! history or a reader at the pace of a bad network. Lives on the thread that calls it.
//!
//! Never shares code with the server: frames are tungstenite's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, Utf8Bytes, WebSocket};

use super::envelope::{Scanner, Seen};
use super::error::{BenchError, BenchResult};
use super::token::TokenMaker;

/// How to call a server.
pub struct Caller {
    pub address: SocketAddr,
    pub path: String,
    pub tokens: TokenMaker,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// It confirms what it gets (`recv_ack`).
    pub acks: bool,
    pub bytes_per_second: Option<f64>,
    /// Receive buffer of its socket.
    pub buffer_bytes: Option<usize>,
}

/// A connected, authenticated client.
pub struct Solo {
    socket: WebSocket<Paced>,
    scanner: Scanner,
}

impl Solo {
    /// Connects as `user` and waits for `auth_success`.
    pub fn connect(caller: &Caller, user: &str, manner: Manner) -> BenchResult<Solo> {
        let refused = |fault: &dyn std::fmt::Display| BenchError::Server(format!("{user} cannot connect: {fault}"));
        let stream = Paced::dial(caller.address, manner).map_err(BenchError::io(format!("connect to {}", caller.address)))?;
        let query = if manner.acks { "?acks=1" } else { "" };
        let url = format!("ws://{}{}{query}", caller.address, caller.path);
        let mut request = url.into_client_request().map_err(|fault| refused(&fault))?;
        let bearer = format!("Bearer {}", caller.tokens.token(user)?);
        request.headers_mut().insert("authorization", HeaderValue::from_str(&bearer).map_err(|fault| refused(&fault))?);
        let (socket, _) = tungstenite::client(request, stream).map_err(|fault| refused(&fault))?;
        let mut solo = Solo { socket, scanner: Scanner::default() };
        match solo.next(PATIENCE)? {
            Some((Seen::Authenticated, _)) => Ok(solo),
            Some((_, text)) => Err(refused(&text)),
            None => Err(refused(&"no answer")),
        }
    }

    /// Puts a message behind those that leave with the next [`Solo::flush`], and leaves at once when many wait.
    pub fn queue(&mut self, text: &str) -> BenchResult<()> {
        self.socket.write(Message::text(text)).map_err(lost)
    }

    pub fn flush(&mut self) -> BenchResult<()> {
        self.socket.flush().map_err(lost)
    }

    /// The next text message; None when none comes within `patience`.
    pub fn next(&mut self, patience: Duration) -> BenchResult<Option<(Seen, Utf8Bytes)>> {
        let stream = &self.socket.get_ref().stream;
        stream.set_read_timeout(Some(patience)).map_err(BenchError::io("set a timeout"))?;
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(Some((self.scanner.scan(text.as_bytes()), text))),
                Ok(_) => {}
                Err(tungstenite::Error::Io(fault)) if matches!(fault.kind(), io::ErrorKind::WouldBlock) => return Ok(None),
                Err(fault) => return Err(lost(fault)),
            }
        }
    }

    /// Waits for a message that `wanted` takes; others are passed over.
    pub fn wait(&mut self, what: &str, mut wanted: impl FnMut(&Seen, &str) -> bool) -> BenchResult<Utf8Bytes> {
        loop {
            match self.next(PATIENCE)? {
                Some((Seen::Refused(_), text)) => return Err(BenchError::Server(format!("instead of {what}: {text}"))),
                Some((seen, text)) if wanted(&seen, &text) => return Ok(text),
                Some(_) => {}
                None => return Err(BenchError::Server(format!("no {what} within {} s", PATIENCE.as_secs()))),
            }
        }
    }

    /// Sends one request and waits for the message of type `reply`; says how long that took.
    pub fn ask(&mut self, request: &str, reply: &str) -> BenchResult<(Utf8Bytes, Duration)> {
        let begun = Instant::now();
        self.queue(request)?;
        self.flush()?;
        let name = format!("\"type\":\"{reply}\"");
        let text = self.wait(reply, |_, text| text.get(..HEAD_BYTES.min(text.len())).unwrap_or(text).contains(&name))?;
        Ok((text, begun.elapsed()))
    }

    /// Sends all `messages`, up to `together` on their way at a time, and waits for every ack.
    pub fn send_all(&mut self, messages: impl Iterator<Item = String>, together: usize) -> BenchResult<u64> {
        let (mut acks, mut messages) = (0, messages.peekable());
        while messages.peek().is_some() {
            let mut waiting = 0;
            for message in messages.by_ref().take(together) {
                self.queue(&message)?;
                waiting += 1;
            }
            self.flush()?;
            for _ in 0..waiting {
                self.wait("ack", |seen, _| matches!(seen, Seen::Acked(_)))?;
                acks += 1;
            }
        }
        Ok(acks)
    }
}

fn lost(fault: tungstenite::Error) -> BenchError {
    BenchError::Server(format!("a connection broke: {fault}"))
}

/// A stream whose reader takes no more than so many bytes a second.
struct Paced {
    stream: TcpStream,
    bytes_per_second: Option<f64>,
    /// Nothing is read before.
    free_at: Instant,
}

impl Paced {
    fn dial(address: SocketAddr, manner: Manner) -> io::Result<Paced> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = manner.buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect(&address.into())?;
        Ok(Paced { stream: socket.into(), bytes_per_second: manner.bytes_per_second, free_at: Instant::now() })
    }
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(bytes_per_second) = self.bytes_per_second else { return self.stream.read(buffer) };
        let most = buffer.len().min(((bytes_per_second * PIECE_SECONDS) as usize).max(1));
        std::thread::sleep(self.free_at.saturating_duration_since(Instant::now()));
        let read = self.stream.read(&mut buffer[..most])?;
        self.free_at = self.free_at.max(Instant::now() - PIECE_SLACK) + Duration::from_secs_f64(read as f64 / bytes_per_second);
        Ok(read)
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
/// Within it the type of a message stands.
const HEAD_BYTES: usize = 64;
/// What a paced reader takes at once.
const PIECE_SECONDS: f64 = 0.02;
/// A sleep that was too long is made up for, up to this.
const PIECE_SLACK: Duration = Duration::from_millis(50);
