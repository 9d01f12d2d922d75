//! Owns the checks of the machine: cores, memory, ports and the data folder. Never leaves a file or a socket behind.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use crate::cli::configuration::short;
use crate::config::memory::{MemorySum, Taken};
use crate::config::{Config, Limits, StoreKind};

use super::Check;

pub fn checks(config: &Config, limits: &Limits) -> Vec<Check> {
    vec![
        shards(limits),
        memory(memory_bytes(), limits),
        port("client port", "listen.client", config.listen.client),
        port("admin port", "listen.admin", config.listen.admin),
        data_folder(config),
    ]
}

/// What this process may use: the machine's memory, or less in a control group.
pub fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let total = line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1_024)?;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<u64>().ok());
    Some(group.map_or(total, |group| group.min(total)))
}

fn shards(limits: &Limits) -> Check {
    let (name, found) = ("cores", format!("{} cores, {} shards", limits.cores, limits.shards));
    if usize::from(limits.shards) > limits.cores {
        let meaning = "shards share cores: more latency, no more throughput";
        return Check::notice(name, found, meaning, "shards.count = \"auto\"");
    }
    Check::good(name, found, if limits.pin { "each shard has a core of its own" } else { "shards are not bound to cores" })
}

fn memory(machine: Option<u64>, limits: &Limits) -> Check {
    let name = "memory";
    let sum = MemorySum::of(limits);
    let idle = sum.bytes(Taken::Start).saturating_add(sum.bytes(Taken::Connected));
    let Some(machine) = machine else { return Check::good(name, "cannot be read", "not known") };
    let meaning = format!("{} with all {} connections idle", short(idle), limits.connections_max);
    if idle > machine {
        return Check::notice(name, short(machine), format!("{meaning}: more than there is"), "lower limits.connections");
    }
    Check::good(name, short(machine), format!("{meaning}; corehub config check has the full sum"))
}

fn port(name: &'static str, key: &str, address: SocketAddr) -> Check {
    let found = address.to_string();
    let error = match TcpListener::bind(address) {
        Ok(_) => return Check::good(name, found, "free"),
        Err(error) => error,
    };
    let port = address.port();
    let mend = match error.kind() {
        ErrorKind::AddrInUse => format!("find who has it: sudo ss -ltnp 'sport = :{port}'; or set {key}"),
        ErrorKind::PermissionDenied => format!("sudo sysctl -w net.ipv4.ip_unprivileged_port_start={port}; or set {key}"),
        ErrorKind::AddrNotAvailable => format!("no interface has this address (ip -br address shows them): set {key}"),
        _ => format!("set {key}"),
    };
    Check::bad(name, format!("{found}: {error}"), "the server cannot listen here", mend)
}

fn data_folder(config: &Config) -> Check {
    let (name, path) = ("data folder", config.store.path.as_path());
    let needed = config.dev || config.store.kind == StoreKind::Embedded;
    // A relative path of one part has the empty path as its parent.
    let existing = path.ancestors().map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it }).find(|it| it.exists());
    let (shown, existing) = (path.display(), existing.unwrap_or(Path::new("/")));
    let problem = if !existing.is_dir() {
        Some(format!("{} is not a folder", existing.display()))
    } else {
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        access(existing, wanted).err().map(|error| format!("{}: {error}", existing.display()))
    };
    if let Some(problem) = problem {
        let mend = format!("sudo install -d -m 700 -o \"$USER\" {shown}; or set store.path");
        return match needed {
            true => Check::bad(name, problem, "messages cannot be kept", mend),
            false => Check::notice(name, problem, "not needed: store.kind = \"memory\" keeps nothing on disk", mend),
        };
    }
    let state = if existing == path { "writable" } else { "will be made" };
    let free = statvfs(existing).map_or(u64::MAX, |facts| facts.f_bavail.saturating_mul(facts.f_frsize));
    let found = format!("{shown}, {state}, {} free", short(free));
    if needed && free < FREE_BYTES_MIN {
        return Check::notice(name, found, "a full disk refuses every message", "free some space, or set store.path");
    }
    let meaning = match (config.store.kind, config.dev) {
        (StoreKind::Embedded, _) => "messages are kept here",
        (StoreKind::Memory, true) => "the secret of --dev is kept here; messages are not (store.kind = \"memory\")",
        (StoreKind::Memory, false) => "not used: store.kind = \"memory\" keeps nothing on disk",
    };
    Check::good(name, found, meaning)
}

const FREE_BYTES_MIN: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_found_out() {
        let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = holder.local_addr().expect("bound");
        let taken = port("client port", "listen.client", address);
        assert_eq!(taken.verdict, Verdict::Bad);
        assert!(taken.mend.expect("a command").contains(&format!("sport = :{}", address.port())));
        assert_eq!(port("client port", "listen.client", "127.0.0.1:0".parse().unwrap()).verdict, Verdict::Good);
    }

    #[test]
    fn the_data_folder_must_be_a_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config { dev: true, ..Config::default() };
        config.store.path = folder.path().join("not/yet");
        assert_eq!(data_folder(&config).verdict, Verdict::Good);
        assert!(!config.store.path.exists(), "nothing is made");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        config.store.path = file;
        assert_eq!(data_folder(&config).verdict, Verdict::Bad);
    }

    #[test]
    fn memory_that_idle_connections_do_not_fit_in_is_noticed() {
        let limits = Limits::derive(&Config::default(), 2);
        assert_eq!(memory(Some(1 << 28), &limits).verdict, Verdict::Notice);
        assert_eq!(memory(Some(64 << 30), &limits).verdict, Verdict::Good);
        assert_eq!(memory(None, &limits).verdict, Verdict::Good);
    }
}
