//! Proves the admin port over real sockets, with a client of plain TCP.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use serde_json::Value;

use super::*;
use crate::mesh::directory::Entry;
use crate::metrics::ShardMetrics;
use crate::types::{Millis, SessionId, SessionKey, ShardId};

const KEY: &str = "an admin key of at least thirty-two bytes";

struct Fixture {
    handle: Option<ControlHandle>,
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    readiness: Arc<Readiness>,
    kicked: Arc<Mutex<Vec<KickTarget>>>,
    queue_full: Arc<AtomicBool>,
}

struct Answered {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|fault| panic!("{fault}: {}", self.body))
    }

    fn name(&self) -> String {
        self.json()["error"]["name"].as_str().unwrap_or_default().to_owned()
    }
}

impl Fixture {
    fn new(key: Option<&str>, dev: bool) -> Fixture {
        let registry = Arc::new(Registry::new(2));
        let directory = Arc::new(Directory::new(2));
        let readiness = Arc::new(Readiness::new(Phase::Starting));
        let kicked = Arc::new(Mutex::new(Vec::new()));
        let queue_full = Arc::new(AtomicBool::new(false));
        let handle = spawn(ControlParts {
            runtime: ControlRuntime::prepare().unwrap(),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            registry: registry.clone(),
            directory: directory.clone(),
            admin_api_key: key.map(str::to_owned),
            dev,
            cors_origins: vec!["https://ops.example".to_owned()],
            readiness: readiness.clone(),
            node_id: "node-7".to_owned(),
            durability: "commit".to_owned(),
            call: Box::new(|_, _| false),
            store: None,
            backups: None,
            revoke: Box::new(|_, _| true),
            shards: 2,
            announcements_per_second: 1,
            dedupe_window_ms: 0,
            token_life_ms: 0,
            content_bytes_max: 1 << 20,
            kick: Box::new({
                let (kicked, queue_full) = (kicked.clone(), queue_full.clone());
                move |target| {
                    let room = !queue_full.load(Ordering::Acquire);
                    if room {
                        kicked.lock().unwrap().push(target);
                    }
                    room
                }
            }),
        })
        .unwrap();
        Fixture { handle: Some(handle), registry, directory, readiness, kicked, queue_full }
    }

    fn keyed() -> Fixture {
        Fixture::new(Some(KEY), false)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.handle.as_ref().unwrap().address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends a request head (lines after the first) and body as they are; reads the answer.
    fn raw(&self, first_line: &str, lines: &str, body: &[u8]) -> Answered {
        let mut stream = self.connect();
        let head = format!("{first_line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        read_answer(&mut stream)
    }

    fn get(&self, target: &str) -> Answered {
        self.call("GET", target, "")
    }

    fn call(&self, method: &str, target: &str, body: &str) -> Answered {
        let lines = format!("X-API-Key: {KEY}\r\nContent-Length: {}\r\n", body.len());
        self.raw(&format!("{method} {target}"), &lines, body.as_bytes())
    }

    fn enter(&self, user: &str, device: &str, shard: u16, slot: u32, since: u64) -> String {
        let entry = Entry {
            user: UserId::new(user).unwrap(),
            device: DeviceId::new(device).unwrap(),
            shard: ShardId(shard),
            key: SessionKey { slot, generation: 1 },
            session: SessionId(u64::from(slot) + 1),
            since: Millis(since),
            remote: IpAddr::from([192, 0, 2, 1]),
        };
        self.directory.enter(entry).unwrap().to_string()
    }

    fn kicked(&self) -> Vec<KickTarget> {
        std::mem::take(&mut self.kicked.lock().unwrap())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.stop(Duration::from_secs(5));
        }
    }
}

fn read_answer(stream: &mut TcpStream) -> Answered {
    let mut bytes = Vec::new();
    // A reset after the answer is how a server refuses to read the rest.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Answered { status, headers: headers.collect(), body: body.to_owned() }
}

#[test]
fn readiness_follows_the_phase_and_health_does_not() {
    let fixture = Fixture::keyed();
    for (phase, status) in [(Phase::Starting, 503), (Phase::Ready, 200), (Phase::Draining, 503)] {
        fixture.readiness.set(phase);
        let answer = fixture.raw("GET /ready", "", b"");
        assert_eq!((answer.status, answer.json()["phase"].as_str().unwrap()), (status, phase.name()));
        assert_eq!(fixture.raw("GET /health", "", b"").status, 200);
    }
}

#[test]
fn stats_and_metrics_show_what_shards_published() {
    let fixture = Fixture::keyed();
    for shard in 0..2 {
        let mut metrics = ShardMetrics::new(2);
        metrics.connections = 3;
        metrics.online_users = 2;
        assert!(fixture.registry.publish(shard, &metrics));
    }
    for target in ["/stats", "/v1/stats"] {
        let stats = fixture.get(target).json();
        assert_eq!((&stats["online_users"], &stats["connections"]), (&4.into(), &6.into()));
        assert_eq!((&stats["durability"], &stats["node_id"]), (&"commit".into(), &"node-7".into()));
        assert_eq!(stats["shards"].as_array().unwrap().len(), 2);
    }
    let metrics = fixture.raw("GET /metrics", "", b"");
    assert!(metrics.headers["content-type"].starts_with("application/openmetrics-text"));
    assert!(metrics.body.contains("corehub_connections{shard=\"1\"} 3\n"));
    let resident = metrics.body.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    assert!(resident.parse::<u64>().unwrap() > 1 << 20);
}

#[test]
fn only_the_key_opens_v1() {
    let fixture = Fixture::keyed();
    assert_eq!(fixture.raw("GET /v1/stats", &format!("Authorization: Bearer {KEY}\r\n"), b"").status, 200);
    assert_eq!(fixture.raw("GET /v1/stats", &format!("X-API-Key: {KEY}\r\n"), b"").status, 200);
    let megabyte = "x".repeat(1 << 20);
    let wrong =
        ["", "X-API-Key: \r\n", "X-API-Key: wrong\r\n", "Authorization: Bearer \r\n", &format!("X-API-Key: {megabyte}\r\n")];
    for lines in wrong {
        let answer = fixture.raw("GET /v1/stats", lines, b"");
        assert_eq!((answer.status, answer.name().as_str()), (401, "UNAUTHENTICATED"), "{lines:.40}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert!(!answer.body.contains(KEY));
    }
    let key = KEY.replace(' ', "%20");
    for target in [format!("/v1/stats?api_key={key}"), format!("/v1/stats?X-API-Key={key}"), format!("/v1/stats?token={key}")] {
        assert_eq!(fixture.raw(&format!("GET {target}"), "", b"").status, 401);
    }
}

#[test]
fn every_described_path_exists_and_only_the_named_ones_are_open() {
    let fixture = Fixture::keyed();
    fixture.readiness.set(Phase::Ready);
    let document = fixture.get("/openapi.json").json();
    let open = ["/health", "/ready", "/metrics", "/stats"];
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let target = path.replace("{id}", "nobody").replace("{user}", "nobody");
            let first_line = format!("{} {target}", method.to_uppercase());
            let answer = fixture.raw(&first_line, "", b"");
            assert_eq!(answer.status == 401, !open.contains(&path.as_str()), "{first_line}");
            assert_eq!(operation["security"] == serde_json::json!([]), open.contains(&path.as_str()), "{first_line}");
            let answer = fixture.raw(&first_line, &format!("X-API-Key: {KEY}\r\n"), b"");
            // Without a store and shards most of them can only say so; none may be unknown.
            assert!(matches!(answer.status, 200 | 400 | 404 | 503), "{first_line}: {}", answer.status);
            assert!(answer.status == 200 || answer.name() != "NOT_FOUND", "{first_line}");
            let described = operation["responses"].as_object().unwrap();
            assert!(described.keys().any(|status| status.starts_with('2')), "{first_line} succeeds somehow");
            for parameter in ["id", "user"].iter().filter(|name| path.contains(&format!("{{{name}}}"))) {
                let named = |given: &Value| given["name"] == *parameter && given["in"] == "path" && given["required"] == true;
                assert!(operation["parameters"].as_array().unwrap().iter().any(named), "{first_line}: {parameter}");
            }
        }
    }
}

#[test]
fn every_route_is_described() {
    let document = super::openapi::document();
    let source = include_str!("routes.rs").replace(char::is_whitespace, "");
    let routes: Vec<&str> = source.split(".route(\"").skip(1).collect();
    assert!(routes.len() > 10);
    for route in routes {
        let (path, rest) = route.split_once("\",").unwrap();
        let handlers = &rest[..rest.find("))").unwrap() + 1];
        let methods = ["get", "post", "put", "delete"]
            .into_iter()
            .filter(|method| handlers.starts_with(&format!("{method}(")) || handlers.contains(&format!(".{method}(")));
        let methods: Vec<&str> = methods.collect();
        let described: Vec<&String> = document["paths"][path].as_object().unwrap_or_else(|| panic!("{path}")).keys().collect();
        assert_eq!(methods.len(), described.len(), "{path}: {methods:?} {described:?}");
        assert!(methods.iter().all(|method| described.iter().any(|known| known == method)), "{path}: {methods:?} {described:?}");
    }
}

#[test]
fn without_a_key_v1_says_what_to_set() {
    let fixture = Fixture::new(None, false);
    let answer = fixture.get("/v1/stats");
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains("admin.api_key"));
    assert_eq!(fixture.get("/health").status, 200);
}

#[test]
fn dev_opens_v1_to_this_machine() {
    let fixture = Fixture::new(None, true);
    assert_eq!(fixture.raw("GET /v1/stats", "", b"").status, 200);
    assert_eq!(fixture.raw("GET /v1/stats", "Origin: https://evil.example\r\n", b"").status, 401);
    let answer = fixture.raw("GET /v1/stats", "Origin: http://localhost:3000\r\n", b"");
    assert_eq!(answer.headers["access-control-allow-origin"], "http://localhost:3000");
}

#[test]
fn connections_are_listed_by_pages_and_by_user() {
    let fixture = Fixture::keyed();
    let mut ids: Vec<_> =
        (0..25).map(|at| fixture.enter(&format!("user-{}", at % 5), "phone", at as u16 % 2, at, 1_000)).collect();
    ids.sort();
    for limit in [1, 7, 25, 26, 1_000_000] {
        let (mut seen, mut target) = (Vec::new(), format!("/v1/connections?limit={limit}"));
        loop {
            let page = fixture.get(&target).json();
            let rows = page["connections"].as_array().unwrap();
            assert!(rows.len() <= limit && !rows.is_empty());
            seen.extend(rows.iter().map(|row| row["connection_id"].as_str().unwrap().to_owned()));
            assert_eq!(page["has_more"].as_bool().unwrap(), page["next"].is_string());
            let Some(next) = page["next"].as_str() else { break };
            target = format!("/v1/connections?limit={limit}&cursor={next}");
        }
        seen.sort();
        assert_eq!(seen, ids, "{limit}");
    }
    let of_user = fixture.get("/v1/connections?user=user-3").json();
    let rows = of_user["connections"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    let row = &rows[0];
    assert_eq!((&row["user_id"], &row["device_id"], &row["remote"]), (&"user-3".into(), &"phone".into(), &"192.0.2.1".into()));
    assert_eq!((&row["since"], row["shard"].is_u64()), (&1_000.into(), true));
    assert_eq!(fixture.get("/v1/connections?user=nobody").json()["connections"], serde_json::json!([]));
}

#[test]
fn online_users_come_in_order_with_their_devices() {
    let fixture = Fixture::keyed();
    let mut slot = 0;
    for user in ["b", "a:%", "é", "d", "c"] {
        for (device, since) in [("phone", 50), ("web", 20), ("web", 30)] {
            fixture.enter(user, device, slot as u16 % 2, slot, since);
            slot += 1;
        }
    }
    for limit in [1, 2, 4, 5, 6] {
        let (mut users, mut target) = (Vec::new(), format!("/v1/online?limit={limit}"));
        loop {
            let page = fixture.get(&target).json();
            for row in page["users"].as_array().unwrap() {
                assert_eq!((&row["devices"], &row["since"]), (&2.into(), &20.into()));
                users.push(row["user_id"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else { break };
            target = format!("/v1/online?limit={limit}&cursor={next}");
        }
        assert_eq!(users, ["a:%", "b", "c", "d", "é"], "{limit}");
    }
}

#[test]
fn bad_lists_are_refused() {
    let fixture = Fixture::keyed();
    for query in [
        "limit=0",
        "limit=-1",
        "limit=1.5",
        "limit=x",
        "limit=1&limit=2",
        "cursor=!",
        "cursor=%ff",
        "user=",
        "user=%00",
        "user=a%0d%0ab",
    ] {
        let answer = fixture.get(&format!("/v1/connections?{query}"));
        assert_eq!((answer.status, answer.name().as_str()), (400, "BAD_REQUEST"), "{query}");
    }
    assert_eq!(fixture.get("/v1/online?cursor=AA").status, 400);
    assert_eq!(fixture.get("/v1/connections?limit=1000000000&unknown=1").status, 200);
}

#[test]
fn one_connection_is_closed_by_its_id() {
    let fixture = Fixture::keyed();
    let id = fixture.enter("a", "phone", 1, 4, 0);
    assert_eq!(fixture.call("DELETE", &format!("/v1/connections/{id}"), "").status, 202);
    let address = SessionAddress { shard: ShardId(1), key: SessionKey { slot: 4, generation: 1 } };
    assert_eq!(fixture.kicked(), [KickTarget::Session { address, close: CloseCode::Kicked }]);
    for wrong in ["0-0-0", "1-4-fffffffffffffff", "x", "..%2f..%2fetc", "%00", "%ff", "1-4"] {
        let answer = fixture.call("DELETE", &format!("/v1/connections/{wrong}"), "");
        assert!(matches!(answer.status, 400 | 404), "{wrong}");
        assert!(answer.json()["error"]["message"].is_string());
    }
    assert_eq!(fixture.kicked(), []);
}

#[test]
fn a_user_is_kicked_as_a_whole_or_by_device() {
    let fixture = Fixture::keyed();
    fixture.enter("a/b:%", "phone", 0, 0, 0);
    fixture.enter("a/b:%", "web", 1, 0, 0);
    let user = UserId::new("a/b:%").unwrap();
    let answer = fixture.call("POST", "/v1/users/a%2Fb:%25/kick", "");
    assert_eq!((answer.status, &answer.json()["connections"]), (202, &2.into()));
    let answer = fixture.call("POST", "/v1/users/a%2Fb:%25/kick", r#"{"device_id":"web"}"#);
    assert_eq!((answer.status, &answer.json()["connections"]), (202, &1.into()));
    let close = CloseCode::Kicked;
    let web = Some(DeviceId::new("web").unwrap());
    assert_eq!(
        fixture.kicked(),
        [KickTarget::User { user: user.clone(), device: None, close }, KickTarget::User { user, device: web, close }]
    );
    for body in ["{", "[]", "7", r#"{"device_id":7}"#, r#"{"device_id":""}"#, r#"{"device":"web"}"#] {
        assert_eq!(fixture.call("POST", "/v1/users/a/kick", body).status, 400, "{body}");
    }
    fixture.queue_full.store(true, Ordering::Release);
    let answer = fixture.call("POST", "/v1/users/a%2Fb:%25/kick", "");
    assert_eq!((answer.status, answer.name().as_str()), (503, "OVERLOADED"));
    assert!(answer.headers.contains_key("retry-after"));
}

#[test]
fn hostile_paths_lead_nowhere() {
    let fixture = Fixture::keyed();
    for target in [
        "/v1/users/..%2f..%2fetc",
        "/v1/users/..%2f..%2fetc/kick",
        "/v1/users/%00/kick",
        "/v1/users/a%0d%0ab/kick",
        "/v1/users/%ff/kick",
        "/v1/users//kick",
        "/v1/../v1/stats",
        "/v1/",
        "/v1",
        "/",
        "/..%2f..%2fetc%2fpasswd",
        "//v1/stats",
        "/%761/stats",
    ] {
        let answer = fixture.call("POST", target, "");
        assert!(matches!(answer.status, 400 | 404), "{target}: {}", answer.status);
        assert!(answer.json()["error"]["code"].as_u64() == Some(answer.status.into()), "{target}");
    }
    assert_eq!(fixture.raw("GET /v1/nothing", "", b"").status, 401, "what exists is not told to strangers");
    let mut stream = fixture.connect();
    stream.write_all(b"GET /v1/users/\0/kick HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).status, 400);
    assert_eq!(fixture.call("PUT", "/v1/stats", "").name(), "METHOD_NOT_ALLOWED");
    assert_eq!(fixture.call("PUT", "/v1/stats", "").headers["allow"], "GET,HEAD");
}

#[test]
fn large_bodies_are_refused_whether_announced_or_not() {
    let fixture = Fixture::keyed();
    let key = format!("X-API-Key: {KEY}\r\n");
    for first_line in ["POST /v1/users/a/kick", "GET /v1/stats"] {
        let answer = fixture.raw(first_line, &format!("{key}Content-Length: 1000000000\r\n"), b"");
        assert_eq!((answer.status, answer.name().as_str()), (413, "TOO_LARGE"), "{first_line}");
    }
    let mut stream = fixture.connect();
    let mut reader = stream.try_clone().unwrap();
    let answered = std::thread::spawn(move || read_answer(&mut reader));
    let head = format!("POST /v1/users/a/kick HTTP/1.1\r\nHost: localhost\r\n{key}Transfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    // Without end: only the server's refusal ends it.
    while !answered.is_finished() && stream.write_all(&chunk).is_ok() {}
    let answer = answered.join().unwrap();
    assert_eq!((answer.status, answer.name().as_str()), (413, "TOO_LARGE"));
}

#[test]
#[ignore = "waits for the time limits of a request, 10 s each"]
fn slow_requests_are_cut_off() {
    let fixture = Fixture::keyed();
    let head = format!("POST /v1/users/a/kick HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 9\r\n\r\n{{");
    let mut slow_body = fixture.connect();
    slow_body.write_all(head.as_bytes()).unwrap();
    let answer = read_answer(&mut slow_body);
    assert_eq!((answer.status, answer.name().as_str()), (408, "REQUEST_TIMEOUT"));
    for begun in [&b"GET /hea"[..], b""] {
        let mut slow_head = fixture.connect();
        slow_head.write_all(begun).unwrap();
        let mut rest = Vec::new();
        // Ends by the server's hand: a read that runs into its own time limit is an error.
        slow_head.read_to_end(&mut rest).unwrap();
    }
}

#[test]
fn only_listed_origins_may_read_answers() {
    let fixture = Fixture::keyed();
    let preflight = |origin: &str| {
        let lines =
            format!("Origin: {origin}\r\nAccess-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: x-api-key\r\n");
        fixture.raw("OPTIONS /v1/connections/1", &lines, b"")
    };
    let allowed = preflight("https://ops.example");
    assert_eq!((allowed.status, allowed.headers["access-control-allow-origin"].as_str()), (200, "https://ops.example"));
    assert!(allowed.headers["access-control-allow-headers"].contains("x-api-key"));
    for origin in ["https://evil.example", "https://ops.example.evil", "http://ops.example", "null", "http://localhost"] {
        assert!(!preflight(origin).headers.contains_key("access-control-allow-origin"), "{origin}");
    }
}

#[test]
fn stopping_ends_the_thread_and_frees_the_port() {
    let mut fixture = Fixture::keyed();
    let idle = fixture.connect();
    let mut served = fixture.connect();
    served.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut first = [0; 12];
    served.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let handle = fixture.handle.take().unwrap();
    let address = handle.address();
    handle.stop(Duration::from_secs(20));
    assert!(TcpStream::connect(address).is_err());
    let mut rest = Vec::new();
    let _ = served.read_to_end(&mut rest);
    drop(idle);
}

#[test]
fn an_empty_key_is_no_key() {
    let fixture = Fixture::new(None, true);
    let parts = ControlParts {
        runtime: ControlRuntime::prepare().unwrap(),
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        registry: fixture.registry.clone(),
        directory: fixture.directory.clone(),
        admin_api_key: Some(String::new()),
        dev: true,
        cors_origins: vec![],
        readiness: fixture.readiness.clone(),
        node_id: String::new(),
        durability: String::new(),
        kick: Box::new(|_| true),
        call: Box::new(|_, _| false),
        store: None,
        backups: None,
        content_bytes_max: 0,
        revoke: Box::new(|_, _| true),
        shards: 2,
        announcements_per_second: 1,
        dedupe_window_ms: 0,
        token_life_ms: 0,
    };
    assert!(matches!(spawn(parts), Err(ControlFault::EmptyKey)));
}
