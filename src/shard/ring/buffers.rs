//! Owns the memory into which the kernel receives: one ring of equal buffers per shard, lent to the kernel and taken back.
//!
//! Never hands out a buffer that the kernel may still write to. Lives on its shard's thread.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The provided buffers of one ring. They belong to the kernel except while they are out: from the completion that names a
/// buffer until [`Buffers::give_back`].
#[derive(Debug)]
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    bytes: u32,
    tail: u16,
    /// For each buffer: how many bytes the kernel left in it, while it is out.
    out: Vec<Option<u32>>,
}

impl Buffers {
    /// Makes `count` buffers (a power of two, at most 32,768) of `bytes` bytes and registers them with `ring` as its group 0.
    pub(super) fn register(ring: &IoUring, count: u16, bytes: u32) -> io::Result<Buffers> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "the kernel wants a power of two, at most 32768 buffers");
        assert!(bytes > 0);
        let entries = allocate(entries_layout(count)).cast::<BufRingEntry>();
        let memory = allocate(memory_layout(count, bytes));
        // Taken now and not little by little as the kernel walks through the ring, so that what a shard needs shows at its start.
        // SAFETY: the allocation is as large as its layout; bytes need no value yet.
        unsafe { memory.as_ptr().write_bytes(0xff, memory_layout(count, bytes).size()) };
        let mut buffers = Buffers { entries, memory, count, bytes, tail: 0, out: vec![Some(bytes); usize::from(count)] };
        // SAFETY: `entries` is page-aligned, zeroed, has room for `count` entries and lives until the ring is gone (see `Drop`
        // of the ring, which comes before this value's).
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0) }?;
        for id in 0..count {
            buffers.give_back(id);
        }
        Ok(buffers)
    }

    /// Notes that the kernel has filled a buffer; it is out from now on.
    pub(super) fn take(&mut self, id: u16, filled: u32) {
        assert!(filled <= self.bytes);
        let was = self.out[usize::from(id)].replace(filled);
        assert!(was.is_none(), "the kernel names a buffer once");
    }

    /// The filled part of a buffer that is out.
    pub(super) fn filled(&mut self, id: u16) -> &mut [u8] {
        let filled = self.out[usize::from(id)].expect("only a buffer that is out may be looked at");
        // SAFETY: the buffer is out, so the kernel does not touch it until `give_back`, which needs `&mut self`; the slice lies
        // within the allocation, all of which was written at its start.
        unsafe {
            let start = self.memory.as_ptr().add(usize::from(id) * self.bytes as usize);
            std::slice::from_raw_parts_mut(start, filled as usize)
        }
    }

    /// Lends a buffer to the kernel again.
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(self.out[usize::from(id)].take().is_some(), "only a buffer that is out can be given back");
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place` and `id` are below `count`; the kernel reads entries only below the tail published next, and the
        // tail lies in the first entry's unused member, which the setters leave alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.memory.as_ptr().add(usize::from(id) * self.bytes as usize) as u64);
            entry.set_len(self.bytes);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut().cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts; the ring drops its descriptor before its buffers, or forgets both.
        unsafe {
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.bytes));
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
        }
    }
}

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

const PAGE_BYTES: usize = 4096;

fn entries_layout(count: u16) -> Layout {
    let bytes = usize::from(count) * size_of::<BufRingEntry>();
    Layout::from_size_align(bytes, PAGE_BYTES).expect("32768 entries of 16 bytes fit a layout")
}

fn memory_layout(count: u16, bytes: u32) -> Layout {
    Layout::from_size_align(usize::from(count) * bytes as usize, PAGE_BYTES)
        .expect("buffer sizes are checked by the configuration")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here has size zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
