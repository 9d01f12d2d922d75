//! The program on the command line: what it prints where, how it ends, and which configurations it refuses.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::at_shards;
use crate::support::server::{free_port, program};
use crate::support::token::SECRET;
use crate::support::{Client, Login, eventually, http};

#[test]
fn the_version_is_on_standard_output() {
    let output = run(program().arg("version"));
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["no-such-command"][..], &["serve", "--no-such-flag"], &["token"], &[]] {
        assert_eq!(run(program().args(arguments)).status.code(), Some(2), "{arguments:?}");
    }
}

at_shards!(a_token_made_on_the_command_line_is_good, |server| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("corehub.toml");
    std::fs::write(&config, format!("[auth]\nhmac_secret = \"{SECRET}\"\n")).expect("writable");
    let arguments = ["token", "--user", "alice", "--device", "made", "--ttl", "1h", "--config"];
    let output = run(program().args(arguments).arg(&config));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert_eq!(printed.lines().count(), 1, "the token alone: {printed}");
    let client = Client::open(server, &Login::of("alice").token(printed.trim().to_owned()));
    assert_eq!((&client.success["user_id"], &client.success["device_id"]), (&json!("alice"), &json!("made")));
});

#[test]
fn bad_configurations_are_refused_all_errors_at_once() {
    let secret = format!("hmac_secret = \"{SECRET}\"");
    for (config, expected) in [
        (format!("[auth]\n{secret}\n[limits]\nno_such_key = 1\n"), vec!["no_such_key"]),
        (format!("[auth]\n{secret}\n[no_such_section]\nx = 1\n"), vec!["no_such_section"]),
        (format!("[auth]\n{secret}\n[sessions]\nper_user = -1\n"), vec!["per_user"]),
        (format!("[auth]\n{secret}\n[sessions]\npolicy = \"sometimes\"\n"), vec!["policy"]),
        (format!("[auth]\n{secret}\ntimeout = \"soon\"\n"), vec!["timeout"]),
        (format!("[auth]\n{secret}\n[limits]\nmessage_bytes = \"much\"\n"), vec!["message_bytes"]),
        ("[auth]\nhmac_secret = \"\"\n".to_owned(), vec!["hmac_secret"]),
        ("[auth]\nhmac_secret = \"thirty-one bytes are not enough\"\n".to_owned(), vec!["hmac_secret", "32"]),
        (String::new(), vec!["hmac_secret"]),
        (
            "[auth]\nhmac_secret = \"short\"\ntimeout = \"soon\"\n[sessions]\npolicy = \"sometimes\"\n".to_owned(),
            vec!["hmac_secret", "timeout", "policy"],
        ),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("corehub.toml");
        std::fs::write(&path, &config).expect("writable");
        let ports = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let mut serve = program();
        serve
            .args(["serve", "--listen", &ports[0], "--admin", &ports[1], "--shards", "1", "--data"])
            .arg(folder.path().join("data"));
        let mut check = program();
        check.args(["config", "check"]);
        for command in [&mut serve, &mut check] {
            let output = run(command.arg("--config").arg(&path));
            let told = text(&output.stderr) + &text(&output.stdout);
            assert_eq!(output.status.code(), Some(2), "{config}\n{told}");
            for word in &expected {
                assert!(told.contains(word), "{config}\nsays nothing of {word}:\n{told}");
            }
            assert!(!told.contains("panicked"), "{told}");
        }
    }
}

#[test]
fn a_good_configuration_tells_its_worst_case_and_the_sample_is_good() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("sample.toml");
    let sample = run(program().args(["config", "sample"]));
    assert_eq!(sample.status.code(), Some(0));
    std::fs::write(&path, &sample.stdout).expect("writable");
    let check = run(program().args(["config", "check", "--config"]).arg(&path).env("COREHUB_AUTH__HMAC_SECRET", SECRET));
    let told = text(&check.stdout) + &text(&check.stderr);
    assert_eq!(check.status.code(), Some(0), "{told}");
    assert!(told.to_lowercase().contains("memory"), "{told}");
    let reference = run(program().args(["config", "reference"]));
    assert_eq!(reference.status.code(), Some(0));
    for key in ["per_user", "message_bytes", "drain_deadline", "ack_timeout", "hmac_secret", "receipts_max"] {
        assert!(text(&reference.stdout).contains(key), "{key}");
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("corehub.toml");
    std::fs::write(&path, "[sessions]\npolicy = \"reject\"\n").expect("writable");
    let mut check = program();
    check.args(["config", "check", "--config"]).arg(&path).env("COREHUB_AUTH__HMAC_SECRET", SECRET);
    assert_eq!(run(&mut check).status.code(), Some(0));
    assert_eq!(run(check.env("COREHUB_SESSIONS__POLICY", "sometimes")).status.code(), Some(2));
    assert_eq!(run(check.env("COREHUB_SESSIONS__POLICY", "evict_oldest")).status.code(), Some(0));
    assert_eq!(run(check.env("COREHUB_SESSIONS__NO_SUCH_KEY", "1")).status.code(), Some(2));
}

at_shards!(a_port_in_use_ends_with_1, |server| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for taken in [server.client_address(), server.admin_address()] {
        let free = format!("127.0.0.1:{}", free_port());
        let taken_listen = taken == server.client_address();
        let (listen, admin) = if taken_listen { (taken.to_string(), free) } else { (free, taken.to_string()) };
        let mut command = program();
        command.args(["serve", "--listen", &listen, "--admin", &admin, "--shards", "1", "--data"]).arg(folder.path());
        let output = run(command.env("COREHUB_AUTH__HMAC_SECRET", SECRET));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(&taken.port().to_string()), "{}", text(&output.stderr));
    }
    Client::connect(server, "alice").assert_alive();
});

#[test]
fn a_data_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut first = dev_server(folder.path());
    let second = run(dev_command(folder.path()).0.env("COREHUB_AUTH__HMAC_SECRET", SECRET));
    assert_eq!(second.status.code(), Some(1), "{}", text(&second.stderr));
    assert!(text(&second.stderr).contains(&first.process.id().to_string()), "says who holds it: {}", text(&second.stderr));
    first.stop();
}

#[test]
fn a_data_folder_that_cannot_be_used_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("writable");
    let (foreign, newer) = (folder.path().join("foreign"), folder.path().join("newer"));
    for (folder, format) in [(&foreign, "somebody else's\n"), (&newer, "corehub data format 999\n")] {
        std::fs::create_dir(folder).expect("writable");
        std::fs::write(folder.join("corehub.format"), format).expect("writable");
    }
    let nowhere = std::path::PathBuf::from("/proc/nowhere");
    let cases = [(&file, "store.path"), (&nowhere, "store.path"), (&foreign, "store.path"), (&newer, "start a newer version")];
    for (path, advice) in cases {
        let ports = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let mut serve = program();
        serve.args(["serve", "--listen", &ports[0], "--admin", &ports[1], "--shards", "1", "--data"]).arg(path);
        let output = run(serve.env("COREHUB_AUTH__HMAC_SECRET", SECRET));
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(advice) && told.contains(path.to_str().expect("a path in UTF-8")), "{told}");
    }
}

#[test]
fn dev_mode_needs_nothing_and_prints_a_ready_token() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut server = dev_server(folder.path());
    let token = server.token.clone();
    assert_eq!(token.split('.').count(), 3, "{token}");
    let response = http::exchange(server.listen, "GET", "/ws", &upgrade_headers(&token, "http://localhost:5173"), None);
    assert_eq!(response.status, 101, "any localhost origin may come: {}", response.text());
    let response = http::exchange(server.listen, "GET", "/ws", &upgrade_headers(&token, "https://evil.example"), None);
    assert_eq!(response.status, 403);
    server.stop();
    // The secret is kept: the token is good for the next start.
    let mut again = dev_server(folder.path());
    let response = http::exchange(again.listen, "GET", "/ws", &upgrade_headers(&token, "http://localhost:5173"), None);
    assert_eq!(response.status, 101, "{}", response.text());
    again.stop();
}

struct DevServer {
    process: std::process::Child,
    listen: std::net::SocketAddr,
    token: String,
}

impl DevServer {
    fn stop(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("a child can be waited for");
    }
}

impl Drop for DevServer {
    fn drop(&mut self) {
        // A test that failed leaves it running; one that passed has stopped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn dev_command(data: &std::path::Path) -> (Command, std::net::SocketAddr, std::net::SocketAddr) {
    let (listen, admin) = (([127, 0, 0, 1], free_port()).into(), ([127, 0, 0, 1], free_port()).into());
    let mut command = program();
    command.args(["serve", "--dev", "--shards", "1", "--listen"]).arg(format!("{listen}"));
    command.arg("--admin").arg(format!("{admin}")).arg("--data").arg(data);
    (command, listen, admin)
}

fn dev_server(data: &std::path::Path) -> DevServer {
    let (mut command, listen, admin) = dev_command(data);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let mut token = String::new();
    let output = process.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut token).expect("it prints text");
    eventually("ready", || {
        let reachable = std::net::TcpStream::connect(admin).is_ok();
        (reachable && http::exchange(admin, "GET", "/ready", &[], None).status == 200).then_some(())
    });
    DevServer { process, listen, token: token.trim().to_owned() }
}

fn upgrade_headers<'a>(token: &'a str, origin: &'a str) -> Vec<(&'a str, &'a str)> {
    let protocol: &str = Box::leak(format!("bearer.{token}").into_boxed_str());
    vec![
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", crate::support::raw::HANDSHAKE_KEY),
        ("Sec-WebSocket-Protocol", protocol),
        ("Origin", origin),
    ]
}

/// Runs to the end; a program that does not end fails the test by its own deadline.
fn run(command: &mut Command) -> Output {
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let start = std::time::Instant::now();
    while process.try_wait().expect("a child can be waited for").is_none() {
        if start.elapsed() > crate::support::PATIENCE {
            process.kill().expect("it runs");
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    process.wait_with_output().expect("its output is readable")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
