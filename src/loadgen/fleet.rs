//! Owns the client connections of one generator thread and the poll that drives them.
//!
//! Never knows what the load is: what arrives goes to a [`Handler`], which answers by calling back. One read buffer serves all
//! connections; a connection owns memory only while a frame of its is incomplete or the server takes no more bytes.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::codec::{self, Opcode};
use super::dial::{Dial, upgrade_accepted};
use super::envelope::{Scanner, Seen};
use super::error::{BenchError, BenchResult};

/// What a load does with arrivals.
pub trait Handler {
    /// A message of the server arrived on connection `local`; `now_ns` is when its bytes were read.
    fn message(&mut self, fleet: &mut Fleet, local: usize, seen: Seen, text: &[u8], now_ns: u64);
    /// `length` bytes arrived on a raw connection.
    fn bytes(&mut self, fleet: &mut Fleet, local: usize, length: usize, now_ns: u64);
    /// The connection is open for load.
    fn opened(&mut self, local: usize);
    /// An open connection ended without being asked to.
    fn closed(&mut self, local: usize, reason: String);
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct FleetCounts {
    pub reads: u64,
    pub frames: u64,
    pub bytes: u64,
    pub opened: u64,
    pub failed: u64,
    /// Messages the generator could not hand to its kernel because the server took none for too long.
    pub blocked: u64,
}

/// The connections of one thread.
pub struct Fleet {
    pub counts: FleetCounts,
    /// Why the first connection that failed to open did.
    pub first_failure: Option<String>,
    thread: usize,
    dial: Arc<Dial>,
    poll: Poll,
    timer: OwnedFd,
    timer_set_ns: u64,
    epoch: Instant,
    connections: Vec<Connection>,
    open_until: usize,
    opening: usize,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    scanner: Scanner,
    random: fastrand::Rng,
}

struct Connection {
    stream: Option<TcpStream>,
    phase: Phase,
    reading: bool,
    partial: Vec<u8>,
    outgoing: Vec<u8>,
}

enum Phase {
    Connecting,
    Upgrading { accept: Box<str> },
    Authenticating,
    Syncing,
    Open,
    Closed,
}

impl Fleet {
    /// An empty fleet and the waker that interrupts its poll from another thread.
    pub fn new(thread: usize, dial: Arc<Dial>, epoch: Instant) -> BenchResult<(Fleet, Waker)> {
        let poll = Poll::new().map_err(BenchError::io("make a poll"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(BenchError::io("make a waker"))?;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .map_err(|fault| BenchError::io("make a timer")(fault.into()))?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)
            .map_err(BenchError::io("watch the timer"))?;
        let fleet = Fleet {
            counts: FleetCounts::default(),
            first_failure: None,
            thread,
            dial,
            poll,
            timer,
            timer_set_ns: 0,
            epoch,
            connections: Vec::new(),
            open_until: 0,
            opening: 0,
            buffer: vec![0; READ_BYTES],
            scratch: Vec::new(),
            scanner: Scanner::default(),
            random: fastrand::Rng::new(),
        };
        Ok((fleet, waker))
    }

    /// Nanoseconds since the run's epoch.
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Global index of a connection.
    pub fn global(&self, local: usize) -> usize {
        self.dial.partition.global(self.thread, local)
    }

    /// How to call the target.
    pub fn dial(&self) -> &Arc<Dial> {
        &self.dial
    }

    /// Number of this generator thread.
    pub fn thread(&self) -> usize {
        self.thread
    }

    /// Connections begun so far.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// True for a connection that has ended.
    pub fn is_closed(&self, local: usize) -> bool {
        matches!(self.connections[local].phase, Phase::Closed)
    }

    /// From now on opens connections until this thread's share of `total` exists.
    pub fn open_until(&mut self, total: usize) {
        self.open_until = self.dial.partition.share(self.thread, total);
    }

    /// Opens a closed connection again, as the same user.
    pub fn reopen(&mut self, local: usize) -> BenchResult<()> {
        let connection = self.connect(local)?;
        self.connections[local] = connection;
        self.opening += 1;
        Ok(())
    }

    /// Stops or resumes reading from a connection; what arrives meanwhile stays in the kernel, then in the server.
    pub fn set_reading(&mut self, local: usize, reading: bool, handler: &mut impl Handler) {
        self.connections[local].reading = reading;
        if reading {
            self.read(local, handler);
        }
    }

    /// Waits for arrivals until `wake_ns` at most and handles them.
    pub fn poll(&mut self, events: &mut Events, wake_ns: u64, handler: &mut impl Handler) -> BenchResult<()> {
        while self.connections.len() < self.open_until && self.opening < OPENING_MAX {
            let connection = self.connect(self.connections.len())?;
            self.connections.push(connection);
            self.opening += 1;
        }
        let now = self.now_ns();
        let timeout = if wake_ns <= now {
            Some(std::time::Duration::ZERO)
        } else {
            self.set_timer(wake_ns, now)?;
            None
        };
        match self.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(fault) if fault.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(fault) => return Err(BenchError::io("poll")(fault)),
        }
        for event in events.iter() {
            match event.token() {
                WAKER => {}
                TIMER => self.clear_timer(),
                Token(local) => {
                    if event.is_writable() || event.is_error() {
                        self.writable(local, handler);
                    }
                    if event.is_readable() || event.is_read_closed() {
                        self.read(local, handler);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends one text message; false when the connection is gone or has taken nothing for too long.
    pub fn send(&mut self, local: usize, payload: &[u8]) -> bool {
        self.send_frame(local, Opcode::Text, payload)
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, local: usize, bytes: &[u8]) -> bool {
        let connection = &mut self.connections[local];
        let sent = connection.write(bytes);
        self.counts.blocked += u64::from(!sent);
        sent
    }

    fn send_frame(&mut self, local: usize, opcode: Opcode, payload: &[u8]) -> bool {
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        codec::put_masked(&mut frame, opcode, self.random.u32(..), payload);
        let sent = self.send_raw(local, &frame);
        self.scratch = frame;
        sent
    }

    fn connect(&self, local: usize) -> BenchResult<Connection> {
        let mut stream = self.dial.connect(self.global(local)).map_err(|fault| {
            let hint =
                if fault.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) { " (raise `ulimit -n`)" } else { "" };
            BenchError::io(format!("open connection {} to {}{hint}", self.global(local), self.dial.address))(fault)
        })?;
        self.poll
            .registry()
            .register(&mut stream, Token(local), Interest::READABLE | Interest::WRITABLE)
            .map_err(BenchError::io("watch a connection"))?;
        Ok(Connection {
            stream: Some(stream),
            phase: Phase::Connecting,
            reading: true,
            partial: Vec::new(),
            outgoing: Vec::new(),
        })
    }

    fn writable(&mut self, local: usize, handler: &mut impl Handler) {
        if !matches!(self.connections[local].phase, Phase::Connecting) {
            self.connections[local].flush();
            return;
        }
        let Some(stream) = &self.connections[local].stream else { return };
        if let Ok(Some(fault)) | Err(fault) = stream.take_error() {
            return self.end(local, format!("connect: {fault}"), handler);
        }
        match self.dial.greeting(self.global(local)) {
            Ok(Some(greeting)) => {
                let connection = &mut self.connections[local];
                connection.phase = Phase::Upgrading { accept: greeting.accept.into() };
                connection.write(greeting.request.as_bytes());
            }
            Ok(None) => self.now_open(local, handler),
            Err(fault) => self.end(local, fault.to_string(), handler),
        }
    }

    fn now_open(&mut self, local: usize, handler: &mut impl Handler) {
        self.connections[local].phase = Phase::Open;
        self.opening -= 1;
        self.counts.opened += 1;
        handler.opened(local);
    }

    fn read(&mut self, local: usize, handler: &mut impl Handler) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let connection = &mut self.connections[local];
            let Some(stream) = connection.stream.as_mut().filter(|_| connection.reading) else { break };
            let held = connection.partial.len();
            if buffer.len() < held + READ_BYTES / 2 {
                buffer.resize(held + READ_BYTES, 0);
            }
            buffer[..held].copy_from_slice(&connection.partial);
            let room = buffer.len() - held;
            let read = match stream.read(&mut buffer[held..]) {
                Ok(0) => {
                    self.end(local, "the server closed the socket".to_owned(), handler);
                    break;
                }
                Ok(read) => read,
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => break,
                Err(fault) if fault.kind() == ErrorKind::Interrupted => continue,
                Err(fault) => {
                    self.end(local, format!("read: {fault}"), handler);
                    break;
                }
            };
            self.counts.reads += 1;
            self.counts.bytes += read as u64;
            let now_ns = self.now_ns();
            let used = self.take_in(local, &buffer[..held + read], read, now_ns, handler);
            let partial = &mut self.connections[local].partial;
            partial.clear();
            partial.extend_from_slice(&buffer[used..held + read]);
            if partial.is_empty() && partial.capacity() > PARTIAL_BYTES_KEPT {
                *partial = Vec::new();
            }
            if read < room {
                break; // A short read has emptied the socket.
            }
        }
        self.buffer = buffer;
    }

    /// Handles all that is complete in `bytes` and says how much that was.
    fn take_in(&mut self, local: usize, bytes: &[u8], fresh: usize, now_ns: u64, handler: &mut impl Handler) -> usize {
        let mut used = 0;
        match &self.connections[local].phase {
            Phase::Connecting | Phase::Closed => return bytes.len(),
            Phase::Upgrading { accept } => match upgrade_accepted(bytes, accept) {
                Ok(Some(length)) => {
                    used = length;
                    self.connections[local].phase = Phase::Authenticating;
                }
                Ok(None) => return 0,
                Err(reason) => {
                    self.end(local, reason, handler);
                    return bytes.len();
                }
            },
            _ if matches!(self.dial.speech, super::dial::Speech::Raw) => {
                handler.bytes(self, local, fresh, now_ns);
                return bytes.len();
            }
            _ => {}
        }
        loop {
            match codec::parse(&bytes[used..]) {
                Ok(Some(frame)) => {
                    let payload = &bytes[used + frame.payload.start..used + frame.payload.end];
                    used += frame.length;
                    self.frame(local, frame.opcode, payload, now_ns, handler);
                }
                Ok(None) => return used,
                Err(fault) => {
                    self.end(local, fault.to_string(), handler);
                    return bytes.len();
                }
            }
            if matches!(self.connections[local].phase, Phase::Closed) {
                return bytes.len();
            }
        }
    }

    fn frame(&mut self, local: usize, opcode: Opcode, payload: &[u8], now_ns: u64, handler: &mut impl Handler) {
        match opcode {
            Opcode::Ping => {
                self.send_frame(local, Opcode::Pong, payload);
            }
            Opcode::Pong => {}
            Opcode::Close => {
                let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                self.end(local, format!("closed with {code} {reason}"), handler);
            }
            Opcode::Text | Opcode::Binary => {
                self.counts.frames += 1;
                let seen = self.scanner.scan(payload);
                match (&self.connections[local].phase, &seen) {
                    (Phase::Authenticating, Seen::Authenticated) => self.connections[local].phase = Phase::Syncing,
                    (Phase::Authenticating | Phase::Syncing, Seen::Refused(_)) => {
                        self.end(local, format!("refused: {}", String::from_utf8_lossy(payload)), handler);
                    }
                    (Phase::Syncing, Seen::Synced) => self.now_open(local, handler),
                    _ => handler.message(self, local, seen, payload, now_ns),
                }
            }
        }
    }

    fn end(&mut self, local: usize, reason: String, handler: &mut impl Handler) {
        let connection = &mut self.connections[local];
        if let Some(mut stream) = connection.stream.take() {
            // The descriptor is about to be closed, which removes it from the poll in any case.
            let _ = self.poll.registry().deregister(&mut stream);
        }
        let before = std::mem::replace(&mut connection.phase, Phase::Closed);
        connection.partial = Vec::new();
        connection.outgoing = Vec::new();
        match before {
            Phase::Open => handler.closed(local, reason),
            Phase::Closed => {}
            _ => {
                self.opening -= 1;
                self.counts.failed += 1;
                self.first_failure.get_or_insert(reason);
            }
        }
    }

    fn set_timer(&mut self, wake_ns: u64, now_ns: u64) -> BenchResult<()> {
        if wake_ns == self.timer_set_ns || wake_ns == u64::MAX {
            return Ok(());
        }
        let after = wake_ns - now_ns;
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: (after / 1_000_000_000) as i64, tv_nsec: (after % 1_000_000_000) as i64 },
        };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)
            .map_err(|fault| BenchError::io("set the timer")(fault.into()))?;
        self.timer_set_ns = wake_ns;
        Ok(())
    }

    fn clear_timer(&mut self) {
        let mut expirations = [0u8; 8];
        // Nothing to read means that it was set anew since; either way the caller looks at the clock.
        let _ = rustix::io::read(&self.timer, &mut expirations);
        self.timer_set_ns = 0;
    }
}

impl Connection {
    /// Writes now what the kernel takes and keeps the rest; false when too much is kept already.
    fn write(&mut self, bytes: &[u8]) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        if self.outgoing.len() + bytes.len() > OUTGOING_BYTES_MAX {
            return false;
        }
        let written = if self.outgoing.is_empty() { stream.write(bytes).unwrap_or(0) } else { 0 };
        self.outgoing.extend_from_slice(&bytes[written..]);
        true
    }

    /// Writes kept bytes. A broken socket is noticed by reading it.
    fn flush(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        while !self.outgoing.is_empty() {
            match stream.write(&self.outgoing) {
                Ok(written) if written > 0 => drop(self.outgoing.drain(..written)),
                _ => return,
            }
        }
    }
}

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
const READ_BYTES: usize = 256 << 10;
const PARTIAL_BYTES_KEPT: usize = 4 << 10;
/// Full: the message is not sent and counts as blocked.
const OUTGOING_BYTES_MAX: usize = 1 << 20;
/// Handshakes of one thread at a time; the accept queue of the server is usually several times that.
const OPENING_MAX: usize = 256;
