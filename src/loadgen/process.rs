//! Owns readings of processes from /proc: processor time, memory, waiting. Never estimates: what the kernel does not say is an
//! error or zero.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::error::{BenchError, BenchResult};

/// A process under test.
#[derive(Clone, Debug)]
pub struct Process {
    folder: PathBuf,
}

/// Sums over all threads of a process that live.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// On a processor (`schedstat`, nanoseconds).
    pub busy_ns: u64,
    /// Runnable, but another job had the processor.
    pub waiting_ns: u64,
}

impl Times {
    pub fn since(self, earlier: Times) -> Times {
        Times {
            busy_ns: self.busy_ns.saturating_sub(earlier.busy_ns),
            waiting_ns: self.waiting_ns.saturating_sub(earlier.waiting_ns),
        }
    }
}

/// Memory of a process in bytes (`smaps_rollup`, which counts exactly).
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Heap, stacks and the like: what the program itself asked for.
    pub anonymous: u64,
    /// Everything resident, the program's text included.
    pub resident: u64,
}

impl Process {
    /// The process with this id.
    pub fn new(pid: u32) -> BenchResult<Process> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        if !folder.is_dir() {
            return Err(BenchError::Usage(format!("there is no process {pid}")));
        }
        Ok(Process { folder })
    }

    /// Processor time so far.
    pub fn times(&self) -> BenchResult<Times> {
        self.times_where(|_| true)
    }

    /// Processor time so far of the threads whose names `counts` takes.
    pub fn times_where(&self, counts: impl Fn(&str) -> bool) -> BenchResult<Times> {
        let mut sum = Times::default();
        for task in self.tasks(counts)? {
            // A thread may end between the listing and the reading.
            let times = read_schedstat(&task.join("schedstat")).unwrap_or_default();
            sum.busy_ns += times.busy_ns;
            sum.waiting_ns += times.waiting_ns;
        }
        Ok(sum)
    }

    /// Bytes that those threads have handed to write calls so far. What the kernel counts as dirtied (`write_bytes`) is whole
    /// folios, which may be a hundred times as much.
    pub fn written_where(&self, counts: impl Fn(&str) -> bool) -> BenchResult<u64> {
        let written = |task: PathBuf| {
            let text = fs::read_to_string(task.join("io")).unwrap_or_default();
            field_bytes(&text, "wchar:") / 1024
        };
        Ok(self.tasks(counts)?.into_iter().map(written).sum())
    }

    fn tasks(&self, counts: impl Fn(&str) -> bool) -> BenchResult<Vec<PathBuf>> {
        let folder = self.folder.join("task");
        let tasks = fs::read_dir(&folder).map_err(BenchError::io(format!("read {}", folder.display())))?;
        let named = tasks.flatten().map(|task| task.path()).filter(|task| {
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            counts(name.trim_end())
        });
        Ok(named.collect())
    }

    /// Memory now.
    pub fn memory(&self) -> BenchResult<Memory> {
        let path = self.folder.join("smaps_rollup");
        let text = fs::read_to_string(&path).map_err(BenchError::io(format!("read {}", path.display())))?;
        Ok(Memory { anonymous: field_bytes(&text, "Anonymous:"), resident: field_bytes(&text, "Rss:") })
    }
}

/// The same for the calling thread.
pub fn this_thread_times() -> Times {
    let busy = clock_gettime(ClockId::ThreadCPUTime);
    let busy_ns = busy.tv_sec as u64 * 1_000_000_000 + busy.tv_nsec as u64;
    let waiting_ns = read_schedstat(Path::new("/proc/thread-self/schedstat")).unwrap_or_default().waiting_ns;
    Times { busy_ns, waiting_ns }
}

/// Kernel slab memory of the whole machine, in bytes.
pub fn slab_bytes() -> u64 {
    fs::read_to_string("/proc/meminfo").map_or(0, |text| field_bytes(&text, "Slab:"))
}

/// A set of processors as users write it: `0`, `0-3`, `0,2`; `none` leaves the choice to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(Vec<usize>);

impl std::str::FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        if text == "none" {
            return Ok(Cpus::default());
        }
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("`{text}` is no processor number"));
        let mut cpus = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                Some((first, last)) => cpus.extend(number(first)?..=number(last)?),
                None => cpus.push(number(part)?),
            }
        }
        match cpus.iter().find(|cpu| **cpu >= CpuSet::MAX_CPU) {
            Some(cpu) => Err(format!("processor {cpu} is beyond what the kernel's set holds")),
            None => Ok(Cpus(cpus)),
        }
    }
}

impl std::fmt::Display for Cpus {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return out.write_str("none");
        }
        let names: Vec<String> = self.0.iter().map(usize::to_string).collect();
        out.write_str(&names.join(","))
    }
}

impl Cpus {
    /// One processor.
    pub fn one(cpu: usize) -> Cpus {
        Cpus(vec![cpu])
    }

    /// Keeps the calling thread, and what it spawns from now on, on this set. An empty set changes nothing.
    pub fn pin_this_thread(&self) -> BenchResult<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut set = CpuSet::new();
        for cpu in &self.0 {
            set.set(*cpu);
        }
        sched_setaffinity(None::<Pid>, &set).map_err(|fault| BenchError::io(format!("stay on processors {self}"))(fault.into()))
    }
}

/// Raises the descriptor limit as far as it goes and refuses when that is too low for `wanted`.
pub fn descriptors(wanted: u64) -> BenchResult<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised)
        .map_err(|fault| BenchError::io("raise the descriptor limit")(fault.into()))?;
    match limit.maximum {
        Some(maximum) if maximum < wanted + DESCRIPTORS_SPARE => Err(BenchError::Usage(format!(
            "{wanted} connections need a descriptor limit of {}, this shell's hard limit is {maximum}: raise it \
             (`ulimit -Hn`, limits.conf, LimitNOFILE=) or ask for fewer",
            wanted + DESCRIPTORS_SPARE
        ))),
        _ => Ok(()),
    }
}

/// Share of one processor, in percent.
pub fn percent(busy_ns: u64, wall: Duration) -> f64 {
    busy_ns as f64 / wall.as_nanos().max(1) as f64 * 100.0
}

fn read_schedstat(path: &Path) -> Option<Times> {
    let text = fs::read_to_string(path).ok()?;
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok());
    Some(Times { busy_ns: fields.next()??, waiting_ns: fields.next()?? })
}

fn field_bytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Descriptors of the generator that are no connections.
const DESCRIPTORS_SPARE: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let own = Process::new(std::process::id()).expect("this process exists");
        let memory = own.memory().expect("readable");
        assert!(memory.anonymous > 0 && memory.resident >= memory.anonymous);
        let before = own.times().expect("readable");
        let mut sum = 0u64;
        while own.times().expect("readable").since(before).busy_ns == 0 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(Process::new(u32::MAX).is_err());
    }

    #[test]
    fn processor_sets_are_read_as_written() {
        assert_eq!("0-2,5".parse::<Cpus>().map(|cpus| cpus.to_string()), Ok("0,1,2,5".to_owned()));
        assert_eq!("none".parse::<Cpus>(), Ok(Cpus::default()));
        assert!("x".parse::<Cpus>().is_err() && "99999".parse::<Cpus>().is_err());
    }
}
