//! Owns giving a shard its own table of open files: then the limit of open files counts per shard, not per process, and accept
//! and close take no lock that other threads take too.
//!
//! Never changes another thread's table. Runs once on the shard's thread, before it accepts.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::fs::{FileType, fstat};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling thread a copy of the process's table of open files. From then on a descriptor opened here is unknown to
/// other threads, and the other way round; everything that is shared must be open before.
///
/// Regular files are closed in the copy: a deleted file of the store would keep its room on the disk as long as any table has it.
pub(super) fn make_private() -> io::Result<()> {
    // SAFETY: descriptors that threads exchange after this (none; handles are exchanged before) would mean other files; all
    // descriptors that this thread owns are in its copy under the same numbers.
    unsafe { unshare_unsafe(UnshareFlags::FILES) }?;
    let table: Vec<RawFd> = std::fs::read_dir("/proc/thread-self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > LAST_STANDARD)
        .collect();
    for number in table {
        // SAFETY: the number is borrowed for one question; one that is gone meanwhile (the listing's own) only makes it fail.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        let is_regular = fstat(borrowed).is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile);
        if is_regular {
            // SAFETY: only the copy in this thread's own table is closed, and a shard owns no regular file.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    Ok(())
}

/// Standard error may be a file, and is for everybody.
const LAST_STANDARD: RawFd = 2;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_private_table_is_private_and_without_files() {
        let mut file = tempfile::tempfile().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (number, address) = (socket.as_raw_fd(), socket.local_addr().unwrap());
        let open_before = file.as_raw_fd();
        std::thread::spawn(move || {
            make_private().unwrap();
            let here = |number| std::fs::read_link(format!("/proc/thread-self/fd/{number}"));
            assert!(here(number).is_ok(), "sockets are kept");
            assert!(here(open_before).is_err(), "files are not");
            drop(socket);
            assert!(here(number).is_err());
        })
        .join()
        .unwrap();
        // The process still has both: the file can be written, the port is still taken.
        file.write_all(b"still open").unwrap();
        assert!(std::net::UdpSocket::bind(address).is_err());
    }
}
