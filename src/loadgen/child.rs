//! Owns child processes of a run: the spawned server and the bare loops. A child never outlives the value that owns it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::{BenchError, BenchResult};
use super::interrupt;
use super::process::{Cpus, Process};

/// A server started for this run.
pub struct SpawnedServer {
    pub address: SocketAddr,
    pub process: Process,
    pub secret: String,
    /// The data folder.
    pub path: PathBuf,
    /// From the start of the process until `/ready` answered 200.
    pub ready_after: Duration,
    admin: SocketAddr,
    child: Child,
    /// Present when the folder is ours to remove.
    _folder: Option<TemporaryFolder>,
}

/// How to start one.
pub struct ServerOrder<'a> {
    pub data: Option<&'a Path>,
    pub shards: usize,
    pub arguments: &'a [String],
    pub cpus: &'a Cpus,
    /// Configuration by environment; what the user has set already wins.
    pub settings: Vec<(&'static str, String)>,
}

impl SpawnedServer {
    /// Starts `corehub serve` and waits until `/ready` answers 200.
    pub fn start(order: &ServerOrder<'_>) -> BenchResult<SpawnedServer> {
        let (folder, path) = match order.data {
            Some(path) => (None, path.to_owned()),
            None => {
                let folder = TemporaryFolder::new()?;
                let path = folder.0.clone();
                (Some(folder), path)
            }
        };
        std::fs::create_dir_all(&path).map_err(BenchError::io(format!("make {}", path.display())))?;
        let (address, admin) = (free_address()?, free_address()?);
        let log = path.join("bench-server.log");
        let log_file = std::fs::File::create(&log).map_err(BenchError::io(format!("write {}", log.display())))?;
        let secret = std::env::var(SECRET_VARIABLE).unwrap_or_else(|_| random_text(48));
        let mut command = own_program()?;
        command.arg("serve").args(["--listen", &address.to_string(), "--admin", &admin.to_string()]);
        command.arg("--data").arg(&path).args(["--shards", &order.shards.to_string()]).args(order.arguments);
        command.env(SECRET_VARIABLE, &secret);
        for (name, value) in &order.settings {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        interrupt::install()?;
        let begun = Instant::now();
        let child = spawn_on(command, order.cpus)?;
        interrupt::remember(child.id(), folder.as_ref().map(|folder| folder.0.clone()));
        let process = Process::new(child.id())?;
        let ready_after = Duration::ZERO;
        let mut server = SpawnedServer { address, process, secret, path, ready_after, admin, child, _folder: folder };
        server.wait_until_ready(&log)?;
        server.ready_after = begun.elapsed();
        Ok(server)
    }

    /// Sum of a metric over its labels, as `/metrics` says it; None when it does not.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let answer = ask(self.admin, "/metrics").ok()?;
        let values = answer.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labels = rest.starts_with('{').then(|| rest.find('}')).flatten().map_or(0, |end| end + 1);
            rest[labels..].strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()
        });
        values.reduce(|sum, value| sum + value)
    }

    /// Ends it as a power cut would end its process: without a chance to tidy up.
    pub fn kill(mut self) {
        // Fails when it has ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn wait_until_ready(&mut self, log: &Path) -> BenchResult<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(BenchError::Server(format!("the server ended with {status}:\n{}", tail(log))));
            }
            if ready(self.admin) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(BenchError::Server(format!("the server was not ready within {READY_WITHIN:?}:\n{}", tail(log))));
            }
            std::thread::sleep(READY_POLL);
        }
    }
}

impl Drop for SpawnedServer {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        interrupt::forget(self.child.id());
        // Fails when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A bare loop in its own process, pinned and measured like the server.
pub struct BareLoop {
    pub address: SocketAddr,
    pub process: Process,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl BareLoop {
    /// Starts `corehub bench <name> --connections <count>`.
    pub fn start(name: &str, connections: usize, cpus: &Cpus) -> BenchResult<BareLoop> {
        let mut command = own_program()?;
        command.args(["bench", name, "--connections", &connections.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_on(command, cpus)?;
        let process = Process::new(child.id())?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Server(format!("`{name}` has no pipes")));
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut bare = BareLoop { address, process, child, input: Some(input), output: BufReader::new(output) };
        let line = bare.line()?;
        bare.address = line
            .strip_prefix("listening ")
            .and_then(|address| address.trim().parse().ok())
            .ok_or_else(|| BenchError::Server(format!("`{name}` said `{line}` instead of its address")))?;
        Ok(bare)
    }

    /// Gives it an order.
    pub fn order(&mut self, line: &str) -> BenchResult<()> {
        let input = self.input.as_mut().ok_or_else(|| BenchError::Worker("the bare loop is being stopped".to_owned()))?;
        writeln!(input, "{line}").and_then(|()| input.flush()).map_err(BenchError::io("write to the bare loop"))
    }

    /// Its next line.
    pub fn line(&mut self) -> BenchResult<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(BenchError::io("read from the bare loop"))?;
        if line.is_empty() {
            return Err(BenchError::Worker("the bare loop ended; it says why on standard error".to_owned()));
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for BareLoop {
    fn drop(&mut self) {
        // The end of its input is its order to stop; killing is for one that hangs.
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port nobody listens on now. Another program may take it before the server does; the server then says so.
fn free_address() -> BenchResult<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).map_err(BenchError::io("find a free port"))
}

fn own_program() -> BenchResult<Command> {
    std::env::current_exe().map(Command::new).map_err(BenchError::io("find this program's file"))
}

/// A child starts with the processors of the thread that forks it, so that its threads inherit them all.
fn spawn_on(mut command: Command, cpus: &Cpus) -> BenchResult<Child> {
    let cpus = cpus.clone();
    let spawner = std::thread::spawn(move || {
        cpus.pin_this_thread()?;
        command.spawn().map_err(BenchError::io("start a child process"))
    });
    spawner.join().map_err(|_| BenchError::Worker("starting a child process panicked".to_owned()))?
}

fn ready(admin: SocketAddr) -> bool {
    ask(admin, "/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The whole answer of the admin port, head and body.
fn ask(admin: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

fn random_text(length: usize) -> String {
    (0..length).map(|_| fastrand::alphanumeric()).collect()
}

/// A folder that goes with this value.
pub struct TemporaryFolder(pub PathBuf);

impl TemporaryFolder {
    pub fn new() -> BenchResult<TemporaryFolder> {
        let path = std::env::temp_dir().join(format!("corehub-bench-{}-{}", std::process::id(), random_text(6)));
        std::fs::create_dir(&path).map_err(BenchError::io(format!("make {}", path.display())))?;
        Ok(TemporaryFolder(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary folder, where the system tidies.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SECRET_VARIABLE: &str = "COREHUB_AUTH__HMAC_SECRET";
const READY_WITHIN: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(2);
const ANSWER_BYTES_MAX: u64 = 4 << 20;
const STOP_WITHIN: Duration = Duration::from_secs(3);
const LOG_LINES_SHOWN: usize = 20;
