//! Owns the bare loop that private messages are held against: an io_uring echo with multishot receives into provided buffers and
//! sends that leave in one batch per turn. It is the least a server of this shape can do for one message.
//!
//! Runs as a process of its own (`corehub bench ceiling-echo`), one thread. Never parses a byte. Submitting to io_uring is
//! unsafe by nature; every buffer named to the kernel lives in [`Buffers`], which outlives the ring.
#![allow(unsafe_code)]

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::error::{BenchError, BenchResult};

/// Accepts `connections` clients and echoes until standard input ends.
pub fn run(connections: usize) -> BenchResult<()> {
    let sockets = super::ceiling_send::accept(connections)?;
    std::thread::spawn(|| {
        // The parent holds the other end: its end means that nobody measures any more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    Echo::new(sockets)?.run()
}

struct Echo {
    // The ring is declared first, hence dropped before the memory that the kernel was told of.
    ring: IoUring,
    buffers: Buffers,
    sockets: Vec<TcpStream>,
    /// Connections whose receive has ended for want of buffers.
    unarmed: Vec<u32>,
}

impl Echo {
    fn new(sockets: Vec<TcpStream>) -> BenchResult<Echo> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(BUFFERS as u32 * 2)
            .build(SUBMISSIONS)
            .map_err(BenchError::io("set up io_uring (Linux 6.1 is the floor)"))?;
        let buffers = Buffers::new();
        let ring_address = std::ptr::from_ref::<Entries>(&*buffers.entries) as u64;
        // SAFETY: the address is page-aligned by the type, has BUFFERS entries, and lives as long as `buffers`, which the ring's
        // owner drops after the ring.
        unsafe { ring.submitter().register_buf_ring_with_flags(ring_address, BUFFERS, GROUP, 0) }
            .map_err(BenchError::io("register buffers"))?;
        let unarmed = (0..sockets.len() as u32).collect();
        Ok(Echo { ring, buffers, sockets, unarmed })
    }

    fn run(mut self) -> BenchResult<()> {
        let mut completions: Vec<cqueue::Entry> = Vec::new();
        loop {
            for connection in std::mem::take(&mut self.unarmed) {
                let receive = opcode::RecvMulti::new(self.descriptor(connection), GROUP).build();
                self.push(&receive.user_data(tag(RECEIVE, connection, 0)))?;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(fault) if fault.kind() == std::io::ErrorKind::Interrupted => {}
                Err(fault) => return Err(BenchError::io("wait for completions")(fault)),
            }
            completions.extend(self.ring.completion());
            for completion in completions.drain(..) {
                self.complete(&completion)?;
            }
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> BenchResult<()> {
        let (kind, connection, buffer) = untag(completion.user_data());
        if kind == SEND {
            self.buffers.give_back(buffer);
            return Ok(());
        }
        let received = completion.result();
        if received > 0
            && let Some(buffer) = cqueue::buffer_select(completion.flags())
        {
            let address = self.buffers.address(buffer);
            let send = opcode::Send::new(self.descriptor(connection), address, received as u32)
                .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                .build();
            self.push(&send.user_data(tag(SEND, connection, buffer)))?;
        }
        let ended = received == 0 || (received < 0 && received != -rustix::io::Errno::NOBUFS.raw_os_error());
        if !cqueue::more(completion.flags()) && !ended {
            self.unarmed.push(connection);
        }
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) -> BenchResult<()> {
        loop {
            // SAFETY: receives name no memory; sends name a buffer of `self.buffers`, which is given back, and so written to,
            // only after the send's completion. Descriptors stay open in `self.sockets`.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit().map_err(BenchError::io("submit"))?;
        }
    }

    fn descriptor(&self, connection: u32) -> Fd {
        let descriptor: RawFd = self.sockets[connection as usize].as_raw_fd();
        Fd(descriptor)
    }
}

/// Memory for arrivals: the ring of free buffers, shared with the kernel, and the buffers.
struct Buffers {
    entries: Box<Entries>,
    memory: Vec<u8>,
    tail: u16,
}

/// The kernel wants the ring page-aligned.
#[repr(C, align(4096))]
struct Entries([std::mem::MaybeUninit<BufRingEntry>; BUFFERS as usize]);

impl Buffers {
    fn new() -> Buffers {
        // SAFETY: an all-zero entry is a valid one (three integers), and so is a `MaybeUninit` of it.
        let entries = unsafe { Box::<Entries>::new_zeroed().assume_init() };
        let mut buffers = Buffers { entries, memory: vec![0; BUFFERS as usize * BUFFER_BYTES], tail: 0 };
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        buffers
    }

    fn address(&self, buffer: u16) -> *const u8 {
        self.memory[buffer as usize * BUFFER_BYTES..].as_ptr()
    }

    fn give_back(&mut self, buffer: u16) {
        let address = self.address(buffer) as u64;
        let base = self.entries.0.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is below BUFFERS, and an entry beyond the tail is not read by the kernel. Only three fields are
        // written one by one, because the fourth of the first entry is the tail itself.
        let entry = unsafe { &mut *base.add((self.tail % BUFFERS) as usize) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` is the start of the ring, initialised, and its tail field is two aligned bytes that the kernel reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

fn tag(kind: u64, connection: u32, buffer: u16) -> u64 {
    kind << 63 | u64::from(connection) << 16 | u64::from(buffer)
}

fn untag(data: u64) -> (u64, u32, u16) {
    (data >> 63, (data >> 16) as u32, data as u16)
}

const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const GROUP: u16 = 0;
const SUBMISSIONS: u32 = 4_096;
/// A power of two, as the kernel demands.
const BUFFERS: u16 = 8_192;
const BUFFER_BYTES: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn tags_come_back() {
        for (kind, connection, buffer) in [(SEND, 70_000, 8_191), (RECEIVE, 0, 0), (SEND, u32::MAX, u16::MAX)] {
            assert_eq!(untag(tag(kind, connection, buffer)), (kind, connection, buffer));
        }
    }

    #[test]
    fn what_is_sent_comes_back() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut clients: Vec<TcpStream> = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).expect("connects"));
            servers.push(listener.accept().expect("accepts").0);
        }
        // The ring belongs to the thread that made it, and ends with the test's process.
        std::thread::spawn(|| Echo::new(servers).expect("io_uring works here").run());
        for round in 0..BUFFERS as usize / 2 {
            for client in &mut clients {
                let message = [round as u8; 100];
                client.write_all(&message).expect("writable");
                let mut back = [0; 100];
                client.read_exact(&mut back).expect("echoed");
                assert_eq!(back, message);
            }
        }
    }
}
