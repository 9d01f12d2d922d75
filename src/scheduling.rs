//! Owns what a thread tells the system about its urgency. Threads that somebody waits for run in short slices: they get the
//! processor at once from whatever works in the background, which they would otherwise have to wait for, milliseconds at a time.
//! Never raises a priority, so it needs no right, and a system that knows nothing of it goes on as before.

#![allow(unsafe_code)]

use rustix::process::{getpriority_process, setpriority_process};

/// The calling thread is waited for, and rests often. Linux 6.12 and later heed it (`sched_setattr(2)`, `sched_runtime` of
/// `SCHED_OTHER`); without it the thread shares as all others do.
pub fn run_promptly() {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: getpriority_process(None).unwrap_or(0),
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the structure is whole, lives through the call and says its own size; the call reads it and keeps nothing. 0 is the
    // calling thread.
    let refused = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0;
    if refused {
        tracing::debug!(error = %std::io::Error::last_os_error(), "threads that are waited for share as all others do");
    }
}

/// The calling thread, and those that it will start, give way to others. Where the system refuses, they share equally.
pub fn be_nice(niceness: i32) {
    let _ = setpriority_process(None, niceness);
}

/// The shortest that the system takes.
const SLICE_NS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_waited_for_is_as_nice_as_before() {
        std::thread::spawn(|| {
            be_nice(3);
            run_promptly();
            assert_eq!(getpriority_process(None).ok(), Some(3));
        })
        .join()
        .expect("nothing is refused that would matter");
    }
}
