//! Owns the atomics that the doorbell is built from, so that the same protocol runs on the machine's atomics and under a model
//! checker. Never decides anything. Lives on any thread.

use std::sync::atomic::{AtomicU8, Ordering, fence};

/// Where the doorbell's atomics come from.
pub trait Platform {
    type Cell: Cell;

    /// Full fence (`SeqCst`): what is stored before it is seen by whoever fences later, and the other way round.
    fn fence();
}

/// One atomic byte. All orderings are relaxed: order comes from [`Platform::fence`] and from the rings.
pub trait Cell {
    fn new(value: u8) -> Self;
    fn load(&self) -> u8;
    fn store(&self, value: u8);
    fn swap(&self, value: u8) -> u8;
    /// Replaces `current` by `next`; false when it held something else.
    fn replace(&self, current: u8, next: u8) -> bool;
}

/// The machine's own atomics.
#[derive(Debug)]
pub struct Native;

impl Platform for Native {
    type Cell = AtomicU8;

    #[inline]
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

impl Cell for AtomicU8 {
    fn new(value: u8) -> AtomicU8 {
        AtomicU8::new(value)
    }

    #[inline]
    fn load(&self) -> u8 {
        AtomicU8::load(self, Ordering::Relaxed)
    }

    #[inline]
    fn store(&self, value: u8) {
        AtomicU8::store(self, value, Ordering::Relaxed);
    }

    #[inline]
    fn swap(&self, value: u8) -> u8 {
        AtomicU8::swap(self, value, Ordering::Relaxed)
    }

    #[inline]
    fn replace(&self, current: u8, next: u8) -> bool {
        self.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
