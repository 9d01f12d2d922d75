//! Owns one server process: its folder, ports, configuration and end. A server that panicked fails the test it served.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Response};
use super::{PATIENCE, token};

/// The key that every test server's administrators use.
pub const API_KEY: &str = "the-key-of-the-test-administrators";

/// A running `corehub serve` with a data folder of its own.
pub struct Server {
    folder: TempDir,
    data: PathBuf,
    shards: u16,
    state: Mutex<State>,
}

/// A server that ended before it was ready.
#[derive(Debug)]
#[allow(dead_code, reason = "not every binary with this harness damages files")]
pub struct Refusal {
    pub status: ExitStatus,
    pub log: String,
}

struct State {
    process: Child,
    client: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    /// Starts a server on free ports and waits until it is ready. `config` is the text of a configuration file.
    pub fn start(shards: u16, config: &str) -> Server {
        let folder = tempfile::Builder::new().prefix("corehub-test-").tempdir().expect("a temporary folder can be made");
        let data = folder.path().join("data");
        Server::start_with(shards, config, folder, data)
    }

    /// The same with its data in a folder that stays when the server is gone.
    #[allow(dead_code, reason = "not every binary with this harness crashes its servers")]
    pub fn start_in(shards: u16, config: &str, data: &Path) -> Server {
        let folder = tempfile::Builder::new().prefix("corehub-test-").tempdir().expect("a temporary folder can be made");
        Server::start_with(shards, config, folder, data.to_owned())
    }

    /// The same where the server may refuse to start: then what it said.
    #[allow(dead_code, reason = "not every binary with this harness damages files")]
    pub fn try_start_in(shards: u16, config: &str, data: &Path) -> Result<Server, Refusal> {
        let folder = tempfile::Builder::new().prefix("corehub-test-").tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("corehub.toml"), config).expect("the folder is writable");
        let state = Mutex::new(try_spawn(&folder, data, shards)?);
        Ok(Server { folder, data: data.to_owned(), shards, state })
    }

    fn start_with(shards: u16, config: &str, folder: TempDir, data: PathBuf) -> Server {
        std::fs::write(folder.path().join("corehub.toml"), config).expect("the folder is writable");
        let state = Mutex::new(spawn(&folder, &data, shards));
        Server { folder, data, shards, state }
    }

    /// Where clients connect.
    pub fn client_address(&self) -> SocketAddr {
        self.state().client
    }

    /// Where administrators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.state().admin
    }

    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Kills the process without warning and starts another on the same data. The ports change.
    pub fn crash_and_restart(&self) {
        let mut state = self.state();
        stop(&mut state.process);
        *state = spawn(&self.folder, &self.data, self.shards);
    }

    /// Starts again on the same data after the process has ended by itself.
    pub fn start_again(&self) {
        let mut state = self.state();
        assert!(state.process.try_wait().expect("a child can be waited for").is_some(), "it still runs");
        *state = spawn(&self.folder, &self.data, self.shards);
    }

    /// Starts again after the process has ended by itself, without waiting until it is ready.
    #[allow(dead_code, reason = "not every binary with this harness crashes its servers")]
    pub fn begin_again(&self) {
        let mut state = self.state();
        assert!(state.process.try_wait().expect("a child can be waited for").is_some(), "it still runs");
        *state = spawn_once(&self.folder, &self.data, self.shards);
    }

    /// Replaces the text of the configuration file; in force when the process is told or starts again.
    #[allow(dead_code, reason = "not every binary with this harness changes it")]
    pub fn configure(&self, config: &str) {
        std::fs::write(self.folder.path().join("corehub.toml"), config).expect("the folder is writable");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is ours");
    }

    /// Waits until the process has ended.
    pub fn wait_for_exit(&self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.state().process.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE * 2, "the server does not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A request to the REST API with the administrators' key.
    pub fn rest(&self, method: &str, path: &str, body: Option<Value>) -> Response {
        self.rest_with(method, path, &[("X-API-Key", API_KEY)], body)
    }

    /// A request to the admin port with headers of one's own.
    pub fn rest_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Response {
        http::exchange(self.admin_address(), method, path, headers, body.as_ref())
    }

    /// A REST request that must succeed; its answer.
    pub fn rest_ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let response = self.rest(method, path, body);
        assert!((200..300).contains(&response.status), "{method} {path}: {} {}", response.status, response.text());
        if response.body.is_empty() { Value::Null } else { response.json() }
    }

    /// A plain request to the clients' port.
    pub fn fetch(&self, path: &str) -> Response {
        http::exchange(self.client_address(), "GET", path, &[], None)
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let response = self.rest("GET", "/metrics", None);
        assert_eq!(response.status, 200);
        response.text()
    }

    /// Sum of a metric over all its label sets that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.metrics();
        let samples = text.lines().filter(|line| {
            let own = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            own && line.contains(label)
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The number of the process.
    #[allow(dead_code, reason = "not every binary with this harness looks into its servers")]
    pub fn process_id(&self) -> i32 {
        self.pid().as_raw_nonzero().get()
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.pid().as_raw_nonzero());
        let text = std::fs::read_to_string(path).expect("the process runs");
        let line = text.lines().find(|line| line.starts_with("Rss:")).expect("the kernel names it");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a number of KiB");
        kib * 1024
    }

    /// Everything the process has logged.
    pub fn log(&self) -> String {
        log_of(&self.folder)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.state().process)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.state().process);
        let log = self.log();
        if std::thread::panicking() {
            let from = log.len().saturating_sub(4_000);
            let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
            eprintln!("--- end of the server's log ({} shards)\n{}\n---", self.shards, &log[from..]);
        } else {
            assert!(!log.contains("panicked"), "the server panicked:\n{log}");
        }
    }
}

/// The program, with the environment that all tests share. `COREHUB_BINARY` names another build of it.
pub fn program() -> Command {
    let binary = std::env::var_os("COREHUB_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_corehub").into());
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COREHUB_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A port that nobody listens on, below the range from which the kernel takes ports of outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let spread = (std::process::id() as u16).wrapping_mul(97).wrapping_add(step) % 20_000;
        let port = 11_000 + spread;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn spawn(folder: &TempDir, data: &Path, shards: u16) -> State {
    try_spawn(folder, data, shards)
        .unwrap_or_else(|refusal| panic!("the server ended before it was ready; its log:\n{}", refusal.log))
}

fn try_spawn(folder: &TempDir, data: &Path, shards: u16) -> Result<State, Refusal> {
    let start = Instant::now();
    loop {
        let mut state = spawn_once(folder, data, shards);
        while state.process.try_wait().expect("a child can be waited for").is_none() {
            if is_ready(state.admin) {
                return Ok(state);
            }
            if start.elapsed() > PATIENCE {
                stop(&mut state.process);
                panic!("the server does not become ready; its log:\n{}", log_of(folder));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Another process may have taken a port between our look and the server's: try again with other ports.
        let log = log_of(folder);
        let taken = log.to_lowercase().contains("in use");
        if !taken || start.elapsed() > PATIENCE {
            return Err(Refusal { status: state.process.wait().expect("a child can be waited for"), log });
        }
    }
}

fn spawn_once(folder: &TempDir, data: &Path, shards: u16) -> State {
    let client = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let log = File::options().create(true).append(true).open(folder.path().join("server.log"));
    let process = program()
        .arg("serve")
        .arg("--config")
        .arg(folder.path().join("corehub.toml"))
        .arg("--data")
        .arg(data)
        .args(["--listen", &client.to_string(), "--admin", &admin.to_string(), "--shards", &shards.to_string()])
        .env("COREHUB_AUTH__HMAC_SECRET", token::SECRET)
        .env("COREHUB_ADMIN__API_KEY", API_KEY)
        .stdout(Stdio::null())
        .stderr(log.expect("the folder is writable"))
        .spawn()
        .expect("the program can be started");
    State { process, client, admin }
}

fn is_ready(admin: SocketAddr) -> bool {
    // Until the port is open there is nobody to ask, and a server that refuses its data ends while it is asked.
    let Ok(mut stream) = TcpStream::connect_timeout(&admin, Duration::from_secs(1)) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let asked = write!(stream, "GET /ready HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    asked.is_ok() && matches!(http::read_response(&mut stream, &mut Vec::new()), Ok(Some(answer)) if answer.status == 200)
}

fn stop(process: &mut Child) {
    // It may have ended already; then there is nothing to kill.
    let _ = process.kill();
    process.wait().expect("a child can be waited for");
}

fn log_of(folder: &TempDir) -> String {
    String::from_utf8_lossy(&std::fs::read(folder.path().join("server.log")).unwrap_or_default()).into_owned()
}
