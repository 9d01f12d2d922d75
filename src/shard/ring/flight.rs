//! Owns the frames that the kernel is sending for one connection, until the kernel is done with them.
//!
//! Never moves or frees a byte that the kernel may still read. Lives on its shard's thread.
#![allow(unsafe_code)]

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fd;

use crate::types::Frame;

/// What one connection has in the kernel.
#[derive(Debug, Default)]
pub(super) enum Flight {
    #[default]
    None,
    /// One frame, sent from where it lies: the path of a fan-out.
    One(Frame),
    Many(Box<Gather>),
}

/// Empty gathers for the next flights. Boxed, because the kernel reads a gather's header where it lies.
#[derive(Debug, Default)]
#[allow(clippy::vec_box)]
pub(super) struct Pool(Vec<Box<Gather>>);

/// Several frames that leave together: small ones copied side by side, large ones named by a vector.
pub(super) struct Gather {
    /// Not empty: what is sent, and `frames` is empty.
    copied: Vec<u8>,
    frames: Vec<Frame>,
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
    bytes: usize,
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Gather").field("frames", &self.frames.len()).field("bytes", &self.bytes).finish()
    }
}

impl Flight {
    /// Takes all `frames`; at least one. `pool` is where empty gathers come from.
    pub(super) fn load(frames: &mut Vec<Frame>, pool: &mut Pool) -> Flight {
        if frames.len() == 1 {
            return Flight::One(frames.pop().expect("one frame was counted"));
        }
        let mut gather = pool.0.pop().unwrap_or_default();
        gather.load(frames);
        Flight::Many(gather)
    }

    /// Bytes of the whole flight.
    pub(super) fn len(&self) -> usize {
        match self {
            Flight::None => 0,
            Flight::One(frame) => frame.len(),
            Flight::Many(gather) => gather.bytes,
        }
    }

    /// The request that sends everything from byte `sent` on. The flight must stay where it is until the request has ended:
    /// its bytes are on the heap, so the value itself may move.
    pub(super) fn entry(&mut self, fd: i32, sent: usize) -> Entry {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let contiguous = match self {
            Flight::None => unreachable!("an empty flight is never sent"),
            Flight::One(frame) => frame.bytes(),
            Flight::Many(gather) if gather.frames.is_empty() => &gather.copied,
            Flight::Many(gather) => {
                gather.point(sent);
                return opcode::SendMsg::new(Fd(fd), &gather.header).flags(flags as u32).build();
            }
        };
        let rest = &contiguous[sent..];
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        opcode::Send::new(Fd(fd), rest.as_ptr(), length).flags(flags).build()
    }

    /// Forgets the frames; empty gathers go back to `pool`.
    pub(super) fn unload(self, pool: &mut Pool) {
        if let Flight::Many(mut gather) = self {
            gather.frames.clear();
            gather.vectors.clear();
            gather.copied.clear();
            if pool.0.len() < POOL_MAX && gather.copied.capacity() <= 2 * COPY_BYTES_MAX {
                pool.0.push(gather);
            }
        }
    }
}

impl Default for Box<Gather> {
    fn default() -> Box<Gather> {
        // SAFETY: an all-zero msghdr is a valid one that names nothing.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Gather { copied: Vec::new(), frames: Vec::new(), vectors: Vec::new(), header, bytes: 0 })
    }
}

impl Gather {
    fn load(&mut self, frames: &mut Vec<Frame>) {
        self.bytes = frames.iter().map(Frame::len).sum();
        if self.bytes > COPY_BYTES_MAX {
            self.frames.append(frames);
            return;
        }
        for frame in frames.drain(..) {
            self.copied.extend_from_slice(frame.bytes());
        }
    }

    /// Points the vector at everything from byte `sent` on.
    fn point(&mut self, mut sent: usize) {
        self.vectors.clear();
        for frame in &self.frames {
            let bytes = frame.bytes();
            if sent >= bytes.len() {
                sent -= bytes.len();
                continue;
            }
            let rest = &bytes[sent..];
            sent = 0;
            self.vectors.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len() as _;
    }
}

/// Up to this many bytes are copied side by side: cheaper than a vector of many small pieces.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Empty gathers kept for the next flights.
const POOL_MAX: usize = 1024;
