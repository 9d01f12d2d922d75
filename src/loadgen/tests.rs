//! Whole scenarios against a toy server that speaks just enough of the protocol, well or badly on purpose.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use clap::Parser;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::options::{FanoutOptions, IdleOptions, PrivateOptions, StalledOptions};
use super::report::Report;
use super::{BenchError, BenchResult, scenario};

#[test]
fn a_good_server_passes_a_fan_out() {
    measured(
        || fanout(ToyServer::start(Fault::None), &["--groups", "1", "--group-size", "5"]).expect("runs"),
        |figure| {
            figure("deliveries_per_second") > 0.0
                && figure("delivery_p99_us") > 0.0
                && figure("frames_per_read") >= 1.0
                && figure("bytes_per_frame") > 64.0
        },
    );
}

#[test]
fn random_members_of_many_groups_send() {
    let report = fanout(ToyServer::start(Fault::None), &["--groups", "4", "--group-size", "3", "--threads", "2"]).expect("runs");
    assert_all_good(&report);
}

#[test]
fn one_group_may_span_threads() {
    let report = fanout(ToyServer::start(Fault::None), &["--groups", "1", "--group-size", "6", "--threads", "3"]).expect("runs");
    assert_all_good(&report);
}

#[test]
fn a_lost_delivery_fails_the_run() {
    let report = fanout(ToyServer::start(Fault::LosesOne), &["--group-size", "4"]).expect("runs");
    assert_eq!(failed(&report), ["missing deliveries"]);
}

#[test]
fn a_repeated_delivery_fails_the_run() {
    let report = fanout(ToyServer::start(Fault::RepeatsOne), &["--group-size", "4"]).expect("runs");
    assert_eq!(failed(&report), ["repeated, excess or disordered deliveries"]);
}

#[test]
fn a_refused_token_is_told() {
    let server = ToyServer::start(Fault::None);
    let address = server.address.to_string();
    let options = ["--server", &address, "--secret", "another secret", "--group-size", "4"];
    let fault = scenario::fanout::run(&parse::<FanoutOptions>(&options)).expect_err("no client gets in");
    assert!(matches!(&fault, BenchError::Server(text) if text.contains("401")), "{fault}");
}

#[test]
fn pairs_write_to_each_other_in_both_loops() {
    for pace in [&["--outstanding", "2"], &["--rate", "200"]] {
        let run = || {
            let server = ToyServer::start(Fault::None);
            let address = server.address.to_string();
            let mut options = vec!["--server", &address, "--secret", SECRET, "--connections", "6", "--threads", "2"];
            options.extend(["--seconds", "0.3", "--warmup", "0.1", "--rounds", "2"]);
            options.extend(pace);
            scenario::private::run(&parse::<PrivateOptions>(&options)).expect("runs")
        };
        measured(run, |figure| figure("messages_per_second") > 0.0 && figure("ack_p50_us") > 0.0);
    }
}

#[test]
fn idle_connections_are_opened_in_two_steps() {
    let server = ToyServer::start(Fault::None);
    let (address, own) = (server.address.to_string(), std::process::id().to_string());
    let options = parse::<IdleOptions>(&[
        "--server",
        &address,
        "--secret",
        SECRET,
        "--pid",
        &own,
        "--connections",
        "12",
        "--baseline",
        "6",
        "--group-size",
        "3",
        "--seconds",
        "0.1",
        "--settle",
        "0",
    ]);
    let report = scenario::idle::run(&options).expect("runs");
    // The toy server's costs are those of this test's process and prove nothing.
    assert!(figure(&report, "opened_per_second") > 0.0 && figure(&report, "open_cpu_us") > 0.0);
    assert!(report.checks.iter().any(|check| check.label.starts_with("connections") && check.verdict == Some(true)));
}

#[test]
fn a_stalled_member_catches_up() {
    let server = ToyServer::start(Fault::None);
    let address = server.address.to_string();
    let mut options = vec!["--server", &address, "--secret", SECRET, "--members", "4", "--rate", "200", "--stall", "0.3"];
    options.extend(["--warmup", "0.1", "--size", "256", "--rounds", "2"]);
    let report = scenario::stalled::run(&parse::<StalledOptions>(&options)).expect("runs");
    let loss: Vec<&str> = failed(&report).into_iter().filter(|label| !label.starts_with("p99")).collect();
    assert!(loss.is_empty(), "{}", report.table());
    assert!(figure(&report, "behind_messages") > 0.0);
}

#[test]
fn contradicting_options_are_usage_errors() {
    let odd = scenario::private::run(&parse::<PrivateOptions>(&["--connections", "3"]));
    let uneven = scenario::idle::run(&parse::<IdleOptions>(&["--connections", "25", "--baseline", "10"]));
    let secretless = scenario::fanout::run(&parse::<FanoutOptions>(&["--group-size", "3"]));
    for result in [odd, uneven, secretless] {
        assert!(matches!(result, Err(BenchError::Usage(_))));
    }
}

fn fanout(server: ToyServer, more: &[&str]) -> BenchResult<Report> {
    let address = server.address.to_string();
    let mut options = vec!["--server", &address, "--secret", SECRET, "--rate", "100"];
    options.extend(["--seconds", "0.3", "--warmup", "0.1", "--rounds", "2"]);
    options.extend(more);
    scenario::fanout::run(&parse::<FanoutOptions>(&options))
}

fn parse<T: clap::Args>(options: &[&str]) -> T {
    #[derive(Parser)]
    struct Line<T: clap::Args> {
        #[command(flatten)]
        options: T,
    }
    Line::<T>::parse_from(std::iter::once("bench").chain(options.iter().copied())).options
}

/// Timings decide no test: whether the machine was quick enough for a rate is not asked.
fn failed(report: &Report) -> Vec<&'static str> {
    let bad = report.checks.iter().filter(|check| check.verdict == Some(false));
    bad.map(|check| check.label).filter(|label| !label.contains("in time")).collect()
}

fn assert_all_good(report: &Report) {
    assert!(failed(report).is_empty(), "{}", report.table());
    assert!(report.warnings.iter().all(|warning| !warning.contains("refusals")), "{}", report.table());
}

/// Runs until the figures are as they should be. What is lost or comes twice fails at once; but a window in which this machine
/// let nobody run has nothing in it by right, and is measured again.
fn measured(run: impl Fn() -> Report, is_good: impl Fn(&dyn Fn(&str) -> f64) -> bool) {
    let mut tables = Vec::new();
    for _ in 0..WINDOWS_MAX {
        let report = run();
        assert_all_good(&report);
        if is_good(&|key| figure(&report, key)) {
            return;
        }
        tables.push(report.table());
    }
    panic!("no window of {WINDOWS_MAX} shows what it should: {}", tables.join("\n"));
}

fn figure(report: &Report, key: &str) -> f64 {
    let figure = report.figures.iter().find(|figure| figure.key == key);
    super::report::median(&figure.unwrap_or_else(|| panic!("no figure {key}")).values)
}

/// What the toy server does wrong, once.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    LosesOne,
    RepeatsOne,
}

struct ToyServer {
    address: SocketAddr,
}

#[derive(Default)]
struct Hub {
    users: HashMap<String, WebSocket<TcpStream>>,
    groups: HashMap<String, Vec<String>>,
    heads: HashMap<String, u64>,
    fault_done: bool,
}

impl ToyServer {
    /// One thread per connection, all sharing one lock; ends with the test's process.
    fn start(fault: Fault) -> ToyServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let hub = Arc::new(Mutex::new(Hub::default()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hub = Arc::clone(&hub);
                std::thread::spawn(move || serve(stream, &hub, fault));
            }
        });
        ToyServer { address }
    }
}

#[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
fn serve(stream: TcpStream, hub: &Mutex<Hub>, fault: Fault) {
    let mut user = String::new();
    let writer = stream.try_clone().expect("descriptors are left");
    let checked = |request: &Request, response: Response| {
        let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = header.strip_prefix("Bearer ").unwrap_or_default();
        let key = DecodingKey::from_secret(SECRET.as_bytes());
        match jsonwebtoken::decode::<Value>(token, &key, &Validation::new(Algorithm::HS256)) {
            Ok(token) => {
                user = token.claims["sub"].as_str().unwrap_or_default().to_owned();
                Ok(response)
            }
            Err(_) => Err(Response::builder().status(401).body(None).expect("a constant answer")),
        }
    };
    let Ok(mut reader) = tungstenite::accept_hdr(stream, checked) else { return };
    let mut writer = WebSocket::from_raw_socket(writer, Role::Server, None);
    for kind in ["auth_success", "sync_done"] {
        let _ = writer.send(Message::text(json!({"type": kind, "timestamp": 1, "data": {}}).to_string()));
    }
    hub.lock().expect("no test panics with it").users.insert(user.clone(), writer);
    while let Ok(message) = reader.read() {
        if let Message::Text(text) = message {
            let request: Value = serde_json::from_str(&text).expect("the generator writes JSON");
            hub.lock().expect("no test panics with it").handle(&user, &request, fault);
        }
    }
}

impl Hub {
    fn handle(&mut self, user: &str, request: &Value, fault: Fault) {
        let data = &request["data"];
        match request["type"].as_str().unwrap_or_default() {
            "send_message" => self.deliver(user, request, fault),
            _ => {
                let group = data["group_id"].as_str().unwrap_or_default().to_owned();
                self.groups.entry(group).or_default().push(user.to_owned());
                self.say(user, &json!({"type": "ack", "message_id": request["message_id"], "data": {"success": true}}));
            }
        }
    }

    fn deliver(&mut self, user: &str, request: &Value, fault: Fault) {
        let data = &request["data"];
        let (conversation, receivers) = match data["to_user_id"].as_str() {
            Some(peer) => {
                let (low, high) = if user < peer { (user, peer) } else { (peer, user) };
                (format!("p:{low}:{high}"), vec![peer.to_owned()])
            }
            None => {
                let group = data["group_id"].as_str().unwrap_or_default();
                let members = self.groups.get(group).cloned().unwrap_or_default();
                (format!("g:{group}"), members.into_iter().filter(|member| member != user).collect())
            }
        };
        let head = self.heads.entry(conversation.clone()).or_default();
        *head += 1;
        let seq = *head;
        let push = json!({"type": "new_message", "timestamp": 1, "data": {
            "message_id": "0192", "conversation_id": conversation, "seq": seq, "content": data["content"], "msg_type": "text",
            "client_message_id": request["message_id"],
        }});
        for receiver in receivers {
            let strike = fault != Fault::None && seq == 5 && !std::mem::replace(&mut self.fault_done, seq == 5);
            for _ in 0..match fault {
                Fault::LosesOne if strike => 0,
                Fault::RepeatsOne if strike => 2,
                _ => 1,
            } {
                self.say(&receiver, &push);
            }
        }
        self.say(user, &json!({"type": "ack", "message_id": request["message_id"], "data": {"success": true, "seq": seq}}));
    }

    fn say(&mut self, user: &str, message: &Value) {
        if let Some(socket) = self.users.get_mut(user) {
            let _ = socket.send(Message::text(message.to_string()));
        }
    }
}

/// A machine may stand still in some of so many windows, but not in all.
const WINDOWS_MAX: usize = 10;

const SECRET: &str = "a secret of the toy server, long enough";
