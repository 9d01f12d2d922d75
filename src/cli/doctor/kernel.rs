//! Owns the checks of the kernel: version, io_uring, resource limits and network settings. Never writes to `/proc`.

use io_uring::{IoUring, cqueue, squeue};
use rustix::process::{Resource, getrlimit};

use crate::cli::configuration::short;
use crate::config::Limits;

use super::Check;

pub fn checks(limits: &Limits) -> Vec<Check> {
    let descriptors = getrlimit(Resource::Nofile);
    let locked = getrlimit(Resource::Memlock);
    let release = rustix::system::uname();
    vec![
        version(&release.release().to_string_lossy()),
        ring(setting("kernel/io_uring_disabled").and_then(|text| text.parse().ok()), set_up_ring(limits.ring_entries)),
        open_files(descriptors.current, descriptors.maximum, limits),
        locked_memory(locked.current, limits),
        backlog("accept queue", "net.core.somaxconn", number("net/core/somaxconn"), limits),
        backlog("SYN queue", "net.ipv4.tcp_max_syn_backlog", number("net/ipv4/tcp_max_syn_backlog"), limits),
        port_range(setting("net/ipv4/ip_local_port_range").as_deref()),
        tcp_memory(setting("net/ipv4/tcp_mem").as_deref(), limits),
    ]
}

fn version(release: &str) -> Check {
    let name = "kernel";
    let mut parts = release.split(|it: char| !it.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found >= KERNEL_MIN {
        return Check::good(name, release, format!("at least {}.{}", KERNEL_MIN.0, KERNEL_MIN.1));
    }
    let meaning = format!("shards need io_uring as of {}.{} (multishot receive, deferred task work)", KERNEL_MIN.0, KERNEL_MIN.1);
    Check::bad(name, release, meaning, "install a newer kernel, such as linux-image-generic-hwe of your distribution")
}

/// Makes and drops a ring as shards make theirs.
fn set_up_ring(entries: u32) -> std::io::Result<()> {
    let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
    builder.setup_single_issuer().setup_defer_taskrun().build(entries).map(drop)
}

/// `disabled` is the sysctl: absent before Linux 6.6, 1 = only for a group, 2 = for nobody.
fn ring(disabled: Option<u32>, result: std::io::Result<()>) -> Check {
    let name = "io_uring";
    let Err(error) = result else {
        return Check::good(name, "a ring can be made", "shards have their sockets on it");
    };
    let meaning = "without io_uring no shard can run";
    match disabled {
        Some(value @ 1..) => {
            let found = format!("kernel.io_uring_disabled = {value}");
            Check::bad(name, found, meaning, "sudo sysctl -w kernel.io_uring_disabled=0")
        }
        _ => {
            let mend = "allow io_uring_setup, io_uring_enter and io_uring_register: in Docker \
                        --security-opt seccomp=unconfined or a profile that has them";
            Check::bad(name, format!("refused: {error}"), meaning, mend)
        }
    }
}

fn open_files(soft: Option<u64>, hard: Option<u64>, limits: &Limits) -> Check {
    let name = "open files";
    let (Some(hard), shards) = (hard, u64::from(limits.shards)) else {
        return Check::good(name, "unlimited", "enough for every connection");
    };
    let found = format!("soft {}, hard {hard}", soft.map_or("unlimited".to_owned(), |soft| soft.to_string()));
    let needed = limits.connections_max as u64 + OTHER_FILES;
    let mend = format!("ulimit -Hn {needed}  (as root; under systemd: LimitNOFILE={needed})");
    if hard >= needed {
        return Check::good(
            name,
            found,
            format!("enough for {} connections; serve raises the soft limit", limits.connections_max),
        );
    }
    if hard <= OTHER_FILES {
        return Check::bad(name, found, "too few even for the server's own files", mend);
    }
    let room = (hard - OTHER_FILES).saturating_mul(shards);
    if room >= limits.connections_max as u64 {
        let meaning = format!("enough for {} connections with a table of descriptors per shard", limits.connections_max);
        return Check::good(name, found, meaning);
    }
    let meaning = format!("room for about {room} connections of limits.connections = {}", limits.connections_max);
    Check::notice(name, found, meaning, mend)
}

fn locked_memory(soft: Option<u64>, limits: &Limits) -> Check {
    let name = "locked memory";
    let Some(soft) = soft else { return Check::good(name, "unlimited", "enough for every shard") };
    let needed = LOCKED_BYTES_PER_SHARD * u64::from(limits.shards);
    let kib = needed.div_ceil(1_024);
    let mend = format!("ulimit -l {kib}  (as root; under systemd: LimitMEMLOCK={needed})");
    if soft < LOCKED_BYTES_PER_SHARD {
        return Check::bad(name, short(soft), "an executor refuses to start with less than 512 KiB", mend);
    }
    if soft < needed {
        return Check::notice(name, short(soft), format!("may be short for {} shards", limits.shards), mend);
    }
    Check::good(name, short(soft), format!("enough for {} shards", limits.shards))
}

fn backlog(name: &'static str, key: &str, value: Option<u64>, limits: &Limits) -> Check {
    let wanted = u64::from(limits.listen_backlog);
    match value {
        None => Check::good(name, format!("{key} cannot be read"), "not known"),
        Some(value) if value >= wanted => Check::good(name, format!("{key} = {value}"), "holds a burst of new clients"),
        Some(value) => {
            let meaning = format!("below listen.backlog = {wanted}: clients of a storm wait for a retry of a second or more");
            Check::notice(name, format!("{key} = {value}"), meaning, format!("sudo sysctl -w {key}={wanted}"))
        }
    }
}

fn port_range(text: Option<&str>) -> Check {
    let (name, key) = ("local ports", "net.ipv4.ip_local_port_range");
    let numbers = text.map(numbers).unwrap_or_default();
    let [first, last] = numbers[..] else { return Check::good(name, format!("{key} cannot be read"), "not known") };
    let (found, count) = (format!("{first}-{last}"), (last + 1).saturating_sub(first));
    if count >= LOCAL_PORTS_MIN {
        return Check::good(name, found, format!("{count} outgoing connections per target; the server itself needs few"));
    }
    let meaning = format!("only {count} outgoing connections per target: a load generator here will run out");
    Check::notice(name, found, meaning, format!("sudo sysctl -w {key}=\"10000 65535\""))
}

fn tcp_memory(text: Option<&str>, limits: &Limits) -> Check {
    let (name, key) = ("TCP memory", "net.ipv4.tcp_mem");
    let numbers = text.map(numbers).unwrap_or_default();
    let [_, pressure, most] = numbers[..] else { return Check::good(name, format!("{key} cannot be read"), "not known") };
    let page = rustix::param::page_size() as u64;
    let found = format!("pressure at {}, at most {}", short(pressure * page), short(most * page));
    // A connection with unread or unsent bytes holds at least a page.
    let needed = limits.connections_max as u64;
    if pressure >= needed {
        return Check::good(name, found, "a page of unsent bytes for every connection fits");
    }
    let mend = format!("sudo sysctl -w {key}=\"{} {} {}\"", needed, needed * 2, needed * 4);
    Check::notice(name, found, "when many connections have unsent bytes the kernel shrinks their windows", mend)
}

fn setting(path: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/{path}")).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    setting(path)?.parse().ok()
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|part| part.parse().ok()).collect()
}

const KERNEL_MIN: (u32, u32) = (6, 1);

/// Descriptors that are no connections: rings, listeners, eventfds, the store's files.
const OTHER_FILES: u64 = 512;

/// What an executor asks for before it registers its buffers.
const LOCKED_BYTES_PER_SHARD: u64 = 512 << 10;

const LOCAL_PORTS_MIN: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::config::Config;

    fn limits(text: &str) -> Limits {
        Limits::derive(&Config::parse("test", text, true).expect("readable"), 2)
    }

    #[test]
    fn kernels_below_the_floor_are_refused() {
        for (release, verdict) in [
            ("6.1.0", Verdict::Good),
            ("6.18.44-fc", Verdict::Good),
            ("10.0", Verdict::Good),
            ("6.0.19", Verdict::Bad),
            ("5.15.0-91-generic", Verdict::Bad),
            ("", Verdict::Bad),
        ] {
            assert_eq!(version(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn a_refused_ring_names_the_switch_that_is_off() {
        let denied = || Err(std::io::Error::from_raw_os_error(1));
        assert_eq!(ring(Some(0), Ok(())).verdict, Verdict::Good);
        assert!(ring(Some(2), denied()).mend.expect("a command").contains("io_uring_disabled=0"));
        assert!(ring(Some(0), denied()).mend.expect("a way").contains("seccomp"));
        assert_eq!(ring(None, denied()).verdict, Verdict::Bad);
    }

    #[test]
    fn open_files_are_counted_against_connections_and_shards() {
        let limits = limits("[limits]\nconnections = 30000\n");
        assert_eq!(open_files(Some(1_024), Some(40_000), &limits).verdict, Verdict::Good);
        assert_eq!(open_files(Some(1_024), None, &limits).verdict, Verdict::Good);
        let split = open_files(Some(1_024), Some(20_000), &limits);
        assert!(split.verdict == Verdict::Good && split.meaning.contains("per shard"), "{split:?}");
        assert_eq!(open_files(Some(1_024), Some(10_000), &limits).verdict, Verdict::Notice);
        assert_eq!(open_files(Some(100), Some(100), &limits).verdict, Verdict::Bad);
    }

    #[test]
    fn small_settings_are_noticed_with_their_command() {
        let limits = limits("");
        assert_eq!(locked_memory(Some(64 << 10), &limits).verdict, Verdict::Bad);
        assert_eq!(locked_memory(Some(600 << 10), &limits).verdict, Verdict::Notice);
        assert_eq!(locked_memory(Some(8 << 20), &limits).verdict, Verdict::Good);
        let queue = backlog("accept queue", "net.core.somaxconn", Some(128), &limits);
        assert_eq!(queue.mend.as_deref(), Some("sudo sysctl -w net.core.somaxconn=4096"));
        assert_eq!(port_range(Some("32768\t60999")).verdict, Verdict::Good);
        assert_eq!(port_range(Some("50000 60999")).verdict, Verdict::Notice);
        assert_eq!(tcp_memory(Some("100 200 300"), &limits).verdict, Verdict::Notice);
        assert_eq!(tcp_memory(Some("300000 400000 600000"), &limits).verdict, Verdict::Good);
        assert_eq!(tcp_memory(None, &limits).verdict, Verdict::Good);
    }
}
