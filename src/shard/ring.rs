//! Owns a shard's io_uring: the sockets of its connections, the buffers the kernel receives into and the frames it sends.
//!
//! Never decides anything and never lets memory go that the kernel may still use: a flight is kept until its request has
//! ended, a buffer is lent out only between its completion and its return, and dropping the ring cancels and awaits
//! everything first. Together with `ring/` and `descriptors.rs` the only place with `unsafe`. Lives on its shard's thread.
#![allow(unsafe_code)]

mod buffers;
mod flight;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use rustix::io::Errno;

use crate::types::Frame;
use buffers::Buffers;
use flight::{Flight, Pool};

/// Sizes of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSettings {
    /// Requests queued between two system calls; when it is full the ring submits by itself.
    pub submissions: u32,
    /// Completions that fit before the kernel queues them in its own memory; also sizes its table of armed requests.
    pub completions: u32,
    /// Receive buffers, a power of two.
    pub buffers: u16,
    pub buffer_bytes: u32,
}

impl Default for RingSettings {
    fn default() -> RingSettings {
        RingSettings { submissions: 1024, completions: 16_384, buffers: 1024, buffer_bytes: 4096 }
    }
}

/// What the kernel has done.
#[derive(Debug)]
pub enum Completion {
    /// A connection came in on `listener`; with `ended` the listener has to be armed again.
    Accepted { listener: u32, result: Result<OwnedFd, Errno>, ended: bool },
    /// Bytes arrived: see [`Ring::filled`], then [`Ring::give_back`]. With `ended` receiving has to be armed again.
    Received { slot: u32, buffer: u16, ended: bool },
    /// Receiving has ended without bytes.
    ReceiveEnded { slot: u32, end: ReceiveEnd },
    /// The whole flight has left to the kernel.
    Sent { slot: u32, bytes: u32 },
    /// The flight did not leave; the connection is of no use any more.
    SendFailed { slot: u32, errno: Errno },
    /// Nothing is in flight any more and the descriptor is closed: the slot is free.
    Closed { slot: u32 },
    /// Somebody rang: another shard or, through the eventfd, another thread.
    Rung,
}

/// Why receiving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer has closed its side.
    Closed,
    /// All buffers were out: arm again in a later turn.
    NoBuffers,
    /// [`Ring::pause`] asked for it.
    Paused,
    Failed(Errno),
}

/// A shard's io_uring. See the module's head for what it guarantees.
pub struct Ring {
    kernel: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<Buffers>,
    sockets: Vec<Socket>,
    listeners: Vec<Listener>,
    bell: Option<OwnedFd>,
    neighbours: Vec<OwnedFd>,
    pool: Pool,
    /// Requests for which the submission queue had no room although it was submitted (the kernel was out of memory). Bounded
    /// by four requests a connection.
    backlog: VecDeque<Entry>,
    /// Requests that the kernel has and will complete.
    held: usize,
    /// Completions of the last entry that are still to be looked at.
    ahead: usize,
    /// No connection is accepted any more.
    deaf: bool,
}

#[derive(Debug)]
struct Socket {
    fd: RawFd,
    state: u8,
    /// Bytes of the flight that have left.
    sent: u32,
    flight: Flight,
}

#[derive(Debug)]
struct Listener {
    socket: Option<OwnedFd>,
    armed: bool,
}

impl Ring {
    /// Makes the ring. The calling thread is the only one that may use it from now on.
    pub fn new(settings: &RingSettings) -> io::Result<Ring> {
        let kernel = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .dontfork()
            .setup_cqsize(settings.completions)
            .build(settings.submissions)?;
        let buffers = Buffers::register(&kernel, settings.buffers, settings.buffer_bytes)?;
        Ok(Ring {
            kernel: ManuallyDrop::new(kernel),
            buffers: ManuallyDrop::new(buffers),
            sockets: Vec::new(),
            listeners: Vec::new(),
            bell: None,
            neighbours: Vec::new(),
            pool: Pool::default(),
            backlog: VecDeque::new(),
            held: 0,
            ahead: 0,
            deaf: false,
        })
    }

    /// A descriptor by which other rings may ring this one.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        // SAFETY: the descriptor is open as long as `self.kernel`.
        unsafe { BorrowedFd::borrow_raw(self.kernel.as_raw_fd()) }.try_clone_to_owned()
    }

    /// Takes the other shards' handles, in order of their ids, for [`Ring::ring`].
    pub fn know_neighbours(&mut self, handles: Vec<OwnedFd>) {
        self.neighbours = handles;
    }

    /// Watches an eventfd; every write to it is a [`Completion::Rung`].
    pub fn watch_bell(&mut self, bell: OwnedFd) {
        let entry = opcode::PollAdd::new(Fd(bell.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.bell = Some(bell);
        self.push_held(entry, Kind::Bell, 0);
    }

    /// Rings another shard's bell, with the next submission.
    pub fn ring(&mut self, neighbour: usize) {
        let fd = self.neighbours[neighbour].as_raw_fd();
        let entry = opcode::MsgRingData::new(Fd(fd), 0, user_data(Kind::Rung, 0), None).build().flags(Flags::SKIP_SUCCESS);
        self.push(entry.user_data(user_data(Kind::Ring, neighbour as u32)));
    }

    /// Takes a listening socket and starts to accept. Returns the index by which completions name it.
    pub fn listen(&mut self, socket: OwnedFd) -> u32 {
        let listener = u32::try_from(self.listeners.len()).expect("a shard has few listeners");
        self.listeners.push(Listener { socket: Some(socket), armed: false });
        self.accept(listener);
        listener
    }

    /// Arms a listener (again). Nothing happens when it is armed or closed.
    pub fn accept(&mut self, listener: u32) {
        let place = &mut self.listeners[listener as usize];
        let Some(socket) = place.socket.as_ref().filter(|_| !place.armed && !self.deaf) else { return };
        place.armed = true;
        // Not O_NONBLOCK: the ring itself waits for readiness, and that flag would turn waiting into EAGAIN.
        let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        self.push_held(entry, Kind::Accept, listener);
    }

    /// Stops accepting for good; connections that wait in the backlog are refused by the kernel.
    pub fn stop_listening(&mut self) {
        for listener in 0..self.listeners.len() {
            // Another thread's table may hold the same socket open; this ends it everywhere.
            if let Some(socket) = &self.listeners[listener].socket {
                let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
            }
            if self.listeners[listener].armed {
                self.push_cancel(Kind::Accept, listener as u32);
            } else {
                self.listeners[listener].socket = None;
            }
        }
        self.deaf = true;
    }

    /// Takes an accepted socket as connection `slot`, which must be free.
    pub fn open(&mut self, slot: u32, socket: OwnedFd) {
        let at = slot as usize;
        if at >= self.sockets.len() {
            self.sockets.resize_with(at + 1, Socket::free);
        }
        assert!(self.sockets[at].fd < 0, "a slot is taken when it is free");
        self.sockets[at].fd = socket.into_raw_fd();
    }

    /// The socket of a connection, for options and addresses.
    pub fn socket(&self, slot: u32) -> BorrowedFd<'_> {
        let fd = self.sockets[slot as usize].fd;
        assert!(fd >= 0, "only an open slot has a socket");
        // SAFETY: the slot owns the descriptor and closes it only after `close`, which needs `&mut self`.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Starts (or goes on) to receive. Nothing happens when it does already or the slot is closing.
    pub fn receive(&mut self, slot: u32) {
        let socket = &mut self.sockets[slot as usize];
        if socket.fd < 0 || socket.state & (RECEIVING | CLOSING) != 0 {
            return;
        }
        socket.state |= RECEIVING;
        let entry = opcode::RecvMulti::new(Fd(socket.fd), buffers::GROUP).build();
        self.push_held(entry, Kind::Receive, slot);
    }

    /// Stops receiving; bytes that are on their way may still come. Ends in [`ReceiveEnd::Paused`].
    pub fn pause(&mut self, slot: u32) {
        let socket = &mut self.sockets[slot as usize];
        if socket.state & RECEIVING != 0 && socket.state & (PAUSING | CLOSING) == 0 {
            socket.state |= PAUSING;
            self.push_cancel(Kind::Receive, slot);
        }
    }

    /// True while receiving is armed.
    pub fn is_receiving(&self, slot: u32) -> bool {
        self.sockets[slot as usize].state & RECEIVING != 0
    }

    /// True while a flight is in the kernel.
    pub fn is_sending(&self, slot: u32) -> bool {
        self.sockets[slot as usize].state & SENDING != 0
    }

    /// Sends all of `frames` (at least one; the vector is left empty) as one flight. One at a time: not while
    /// [`Ring::is_sending`]. Nothing happens when the slot is closing.
    pub fn send(&mut self, slot: u32, frames: &mut Vec<Frame>) {
        let socket = &mut self.sockets[slot as usize];
        assert!(socket.fd >= 0 && socket.state & SENDING == 0, "one flight at a time, on an open slot");
        if socket.state & CLOSING != 0 {
            frames.clear();
            return;
        }
        socket.state |= SENDING;
        socket.sent = 0;
        socket.flight = Flight::load(frames, &mut self.pool);
        let entry = socket.flight.entry(socket.fd, 0);
        self.push_held(entry, Kind::Send, slot);
    }

    /// Tells the peer that nothing more will come.
    pub fn shut_write(&self, slot: u32) {
        // A socket that is gone already needs no telling.
        let _ = rustix::net::shutdown(self.socket(slot), rustix::net::Shutdown::Write);
    }

    /// Ends whatever is in flight and closes the socket; nothing but [`Completion::Closed`] follows for this slot.
    pub fn close(&mut self, slot: u32) {
        let socket = &mut self.sockets[slot as usize];
        if socket.fd < 0 || socket.state & CLOSING != 0 {
            return;
        }
        let state = socket.state;
        socket.state |= CLOSING;
        if state & (RECEIVING | PAUSING) == RECEIVING {
            self.push_cancel(Kind::Receive, slot);
        }
        if state & SENDING != 0 {
            self.push_cancel(Kind::Send, slot);
        }
        self.close_when_landed(slot);
    }

    /// The bytes of a [`Completion::Received`], to be changed at will.
    pub fn filled(&mut self, buffer: u16) -> &mut [u8] {
        self.buffers.filled(buffer)
    }

    /// Returns a buffer to the kernel.
    pub fn give_back(&mut self, buffer: u16) {
        self.buffers.give_back(buffer);
    }

    /// One system call: submits everything that was asked for and, when nothing has completed yet, waits until something
    /// does, a signal comes or `park` has passed. `Some(ZERO)` does not wait, `None` waits without end.
    pub fn enter(&mut self, park: Option<Duration>) -> io::Result<()> {
        let entered = self.submit_and_wait(park);
        self.ahead = self.kernel.completion().len();
        entered
    }

    fn submit_and_wait(&mut self, park: Option<Duration>) -> io::Result<()> {
        self.move_backlog();
        let wait = park != Some(Duration::ZERO) && self.backlog.is_empty() && self.kernel.completion().is_empty();
        if !wait && self.kernel.submission().is_empty() && !self.kernel.submission().taskrun() {
            return Ok(());
        }
        let time = park.map(|park| Timespec::new().sec(park.as_secs()).nsec(park.subsec_nanos()));
        let mut arguments = SubmitArgs::new();
        if let Some(time) = time.as_ref().filter(|_| wait) {
            arguments = arguments.timespec(time);
        }
        match self.kernel.submitter().submit_with_args(usize::from(wait), &arguments) {
            Ok(_) => Ok(()),
            Err(fault) => match fault.raw_os_error() {
                // Out of time, a signal, or (EBUSY, EAGAIN) the kernel asks to collect first: the next turn goes on.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(fault),
            },
        }
    }

    /// The next thing the kernel had done by the last [`Ring::enter`], or None when all of it is collected. What completes
    /// since, because a full queue was submitted in between, waits for the next one: nothing newer is heard than was asked for.
    #[inline]
    pub fn next_completion(&mut self) -> Option<Completion> {
        while self.ahead > 0 {
            self.ahead -= 1;
            let entry = self.kernel.completion().next()?;
            if let Some(completion) = self.digest(&entry) {
                return Some(completion);
            }
        }
        None
    }

    #[inline]
    fn digest(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let (kind, slot) = split_user_data(entry.user_data());
        let more = cqueue::more(entry.flags());
        if kind.is_held() && !more {
            self.held -= 1;
        }
        match kind {
            Kind::Receive => self.received(slot, entry, more),
            Kind::Send => self.sent(slot, entry.result()),
            Kind::Accept => self.accepted(slot, entry.result(), more),
            Kind::Close => {
                self.sockets[slot as usize] = Socket::free();
                Some(Completion::Closed { slot })
            }
            Kind::Rung => Some(Completion::Rung),
            Kind::Bell => {
                if !more && let Some(bell) = self.bell.take() {
                    self.watch_bell(bell);
                }
                Some(Completion::Rung)
            }
            Kind::Ring => {
                // Only failures complete. A ring without memory for one more completion is asked again; a dead one is not.
                if entry.result() == -libc::ENOMEM || entry.result() == -libc::EOVERFLOW {
                    self.ring(slot as usize);
                }
                None
            }
            Kind::Cancel => None,
        }
    }

    fn received(&mut self, slot: u32, entry: &cqueue::Entry, more: bool) -> Option<Completion> {
        let socket = &mut self.sockets[slot as usize];
        if !more {
            socket.state &= !(RECEIVING | PAUSING);
        }
        let closing = socket.state & CLOSING != 0;
        let result = entry.result();
        if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
            self.buffers.take(buffer, u32::try_from(result).unwrap_or(0));
            if result > 0 && !closing {
                return Some(Completion::Received { slot, buffer, ended: !more });
            }
            self.buffers.give_back(buffer);
        }
        if closing {
            self.close_when_landed(slot);
            return None;
        }
        if more {
            return None;
        }
        let end = match -result {
            0 => ReceiveEnd::Closed,
            libc::ENOBUFS => ReceiveEnd::NoBuffers,
            libc::ECANCELED => ReceiveEnd::Paused,
            errno => ReceiveEnd::Failed(Errno::from_raw_os_error(errno)),
        };
        Some(Completion::ReceiveEnded { slot, end })
    }

    fn sent(&mut self, slot: u32, result: i32) -> Option<Completion> {
        let socket = &mut self.sockets[slot as usize];
        let total = socket.flight.len();
        if let Ok(bytes) = u32::try_from(result) {
            socket.sent += bytes;
            let rest_wanted = bytes > 0 && (socket.sent as usize) < total && socket.state & CLOSING == 0;
            if rest_wanted {
                let entry = socket.flight.entry(socket.fd, socket.sent as usize);
                self.push_held(entry, Kind::Send, slot);
                return None;
            }
        }
        let complete = socket.sent as usize == total;
        socket.state &= !SENDING;
        std::mem::take(&mut socket.flight).unload(&mut self.pool);
        if socket.state & CLOSING != 0 {
            self.close_when_landed(slot);
            return None;
        }
        if complete {
            return Some(Completion::Sent { slot, bytes: total as u32 });
        }
        let errno = if result < 0 { Errno::from_raw_os_error(-result) } else { Errno::PIPE };
        Some(Completion::SendFailed { slot, errno })
    }

    fn accepted(&mut self, listener: u32, result: i32, more: bool) -> Option<Completion> {
        let place = &mut self.listeners[listener as usize];
        if !more {
            place.armed = false;
            if self.deaf {
                place.socket = None;
            }
        }
        let result = if result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
            Ok(unsafe { OwnedFd::from_raw_fd(result) })
        } else {
            Err(Errno::from_raw_os_error(-result))
        };
        if self.deaf && result.is_err() {
            return None;
        }
        Some(Completion::Accepted { listener, result, ended: !more })
    }

    fn close_when_landed(&mut self, slot: u32) {
        let socket = &mut self.sockets[slot as usize];
        if socket.state & (RECEIVING | SENDING | CLOSED) == 0 {
            socket.state |= CLOSED;
            let entry = opcode::Close::new(Fd(socket.fd)).build();
            self.push_held(entry, Kind::Close, slot);
        }
    }

    fn push_cancel(&mut self, kind: Kind, slot: u32) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(user_data(kind, slot))).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(user_data(Kind::Cancel, slot)));
    }

    fn push_held(&mut self, entry: Entry, kind: Kind, slot: u32) {
        self.held += 1;
        self.push(entry.user_data(user_data(kind, slot)));
    }

    fn push(&mut self, entry: Entry) {
        if self.backlog.is_empty() {
            if self.try_push(&entry) {
                return;
            }
            // Full: submit what there is, without waiting. Should that fail, the backlog keeps the order.
            let _ = self.kernel.submit();
            if self.try_push(&entry) {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Queues a request; false when the queue is full.
    #[inline]
    fn try_push(&mut self, entry: &Entry) -> bool {
        // SAFETY: all memory that an entry names is owned by `self` until its request has ended: flights by their socket,
        // buffers by `self.buffers`; descriptors are owned by `self` and closed through this same queue.
        unsafe { self.kernel.submission().push(entry) }.is_ok()
    }

    fn move_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            let queued = self.try_push(&entry) || self.kernel.submit().is_ok() && self.try_push(&entry);
            if !queued {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    /// Cancels everything and waits until the kernel has let go. False when it did not within the time.
    fn cancel_all(&mut self) -> bool {
        let listeners = std::mem::take(&mut self.listeners);
        for round in 0..TEARDOWN_ROUNDS_MAX {
            if self.held == 0 {
                break;
            }
            if round % 16 == 0 {
                let entry = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
                self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(user_data(Kind::Cancel, 0)));
            }
            if self.enter(Some(Duration::from_millis(50))).is_err() {
                break;
            }
            while let Some(entry) = self.kernel.completion().next() {
                let (kind, slot) = split_user_data(entry.user_data());
                let last = !cqueue::more(entry.flags());
                if kind == Kind::Close {
                    self.sockets[slot as usize].fd = -1;
                }
                if kind == Kind::Accept && entry.result() >= 0 {
                    // SAFETY: a descriptor the kernel has just made; it is closed at once.
                    drop(unsafe { OwnedFd::from_raw_fd(entry.result()) });
                }
                if kind.is_held() && last {
                    self.held -= 1;
                }
            }
        }
        drop(listeners);
        self.held == 0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.cancel_all() {
            // The kernel may still use flights and buffers: better to lose their memory than to free it.
            tracing::error!(requests = self.held, "the kernel did not let go of requests at the end of a shard");
            std::mem::forget(std::mem::take(&mut self.sockets));
            return;
        }
        for socket in self.sockets.drain(..).filter(|socket| socket.fd >= 0) {
            // SAFETY: the slot owns the descriptor and no request for it is left.
            drop(unsafe { OwnedFd::from_raw_fd(socket.fd) });
        }
        // SAFETY: neither is used again; the ring goes before the buffers that are registered with it.
        unsafe {
            ManuallyDrop::drop(&mut self.kernel);
            ManuallyDrop::drop(&mut self.buffers);
        }
    }
}

impl Socket {
    fn free() -> Socket {
        Socket { fd: -1, state: 0, sent: 0, flight: Flight::None }
    }
}

/// What a request was, kept in the upper byte of its user data; the lower half names slot, listener or neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Receive = 0,
    Send = 1,
    Accept = 2,
    Close = 3,
    /// Our own poll of the eventfd.
    Bell = 4,
    /// A neighbour's ringing, completed in this ring.
    Rung = 5,
    /// Our ringing at a neighbour's.
    Ring = 6,
    Cancel = 7,
}

impl Kind {
    /// True when the kernel completes every request of this kind here.
    fn is_held(self) -> bool {
        matches!(self, Kind::Receive | Kind::Send | Kind::Accept | Kind::Close | Kind::Bell)
    }
}

fn user_data(kind: Kind, slot: u32) -> u64 {
    (kind as u64) << 56 | u64::from(slot)
}

fn split_user_data(data: u64) -> (Kind, u32) {
    let kind = match data >> 56 {
        0 => Kind::Receive,
        1 => Kind::Send,
        2 => Kind::Accept,
        3 => Kind::Close,
        4 => Kind::Bell,
        5 => Kind::Rung,
        6 => Kind::Ring,
        _ => Kind::Cancel,
    };
    (kind, data as u32)
}

// States of a socket.
const RECEIVING: u8 = 1;
const PAUSING: u8 = 2;
const SENDING: u8 = 4;
const CLOSING: u8 = 8;
/// The descriptor's own close has been asked for.
const CLOSED: u8 = 16;

/// Rounds of 50 ms that the end of a ring waits for the kernel.
const TEARDOWN_ROUNDS_MAX: usize = 100;
