//! Owns what the operating system says about this process. Never blocks on a disk: `/proc` is memory. Lives on the control
//! thread.

use crate::metrics::ProcessSample;

/// Memory, descriptors and CPU time as of now; 0 for what cannot be read.
pub(super) fn sample() -> ProcessSample {
    ProcessSample {
        resident_memory_bytes: resident_memory_bytes().unwrap_or(0),
        open_fds: open_fds(),
        cpu_seconds: cpu_seconds(),
    }
}

fn resident_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Descriptors of the first thread's table; shards with a table of their own are not in it.
fn open_fds() -> u64 {
    // Since Linux 6.2 the size of this directory is the number of its entries, so a million are counted in one call.
    match std::fs::metadata("/proc/self/fd").map(|directory| directory.len()) {
        Ok(0) | Err(_) => std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        Ok(count) => count,
    }
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_follows_what_the_process_does() {
        let before = sample();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/proc/self/statm").unwrap()).collect();
        let after = sample();
        assert!(before.resident_memory_bytes > 1 << 20);
        // Other tests open and close files of their own meanwhile.
        assert!(after.open_fds + 25 > before.open_fds + files.len() as u64, "{before:?} {after:?}");
        assert!(after.cpu_seconds >= before.cpu_seconds && after.cpu_seconds > 0.0);
    }
}
