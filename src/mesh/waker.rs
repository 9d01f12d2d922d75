//! Owns waking a shard from a thread that has no ring of its own (store, control). Never rings a shard that works. Lives on any
//! thread; clones share one descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::Doorbell;

/// Wakes one shard through an eventfd that the shard's ring reads.
#[derive(Clone, Debug)]
pub struct Waker {
    doorbell: Arc<Doorbell>,
    descriptor: Arc<OwnedFd>,
}

impl Waker {
    /// Makes the eventfd: non-blocking, closed on exec.
    pub fn new(doorbell: Arc<Doorbell>) -> io::Result<Waker> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker { doorbell, descriptor: Arc::new(descriptor) })
    }

    /// To be called once after publishing values for the shard: wakes it when it is parked and nobody else does.
    /// True when it had to.
    pub fn wake(&self) -> bool {
        Doorbell::<super::primitive::Native>::fence();
        self.doorbell.claim() && {
            // The only failure of a write to an own eventfd is a full counter, which means that it is readable already.
            let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
            true
        }
    }

    /// Takes back all wakes so far, for a shard that polls the descriptor instead of reading it through its ring. True when
    /// there were any.
    pub fn clear(&self) -> bool {
        rustix::io::read(&self.descriptor, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
