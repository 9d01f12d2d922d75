//! Copying a data folder while a server uses it: what it holds, what it becomes, and what is left of one that did not end.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::server::{API_KEY, program};
use crate::support::{Client, Server, eventually};

fn store(arguments: &[&str]) -> Output {
    program().arg("store").args(arguments).output().expect("the program runs")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn sound(data: &Path) {
    let checked = store(&["check", "--data", path(data)]);
    assert!(checked.status.code() == Some(0) && told(&checked).contains("no fault found"), "{}", told(&checked));
}

fn begin(server: &Server, to: &Path, bytes_per_second: u64) -> Value {
    server.rest_ok("POST", "/v1/store/backup", Some(json!({"to": to, "bytes_per_second": bytes_per_second})))
}

fn state(server: &Server) -> Value {
    server.rest_ok("GET", "/v1/store/backup", None)
}

/// All that `user` said and heard with `peer`: `seq` and content.
fn history(server: &Server, user: &str, peer: &str) -> Vec<(u64, String)> {
    let mut client = Client::connect(server, user);
    let (mut query, mut found) = (json!({"user_id": peer, "after_seq": 0, "limit": 200}), Vec::new());
    loop {
        let page = client.ask("get_history", query.clone());
        for message in page["messages"].as_array().expect("a list") {
            found.push((message["seq"].as_u64().expect("a number"), message["content"].as_str().expect("a text").to_owned()));
        }
        if page["has_more"] != true {
            return found;
        }
        query["cursor"] = page["next"].clone();
    }
}

fn a_backup_under_load_is_a_prefix(shards: u16) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, to) = (folder.path().join("data"), folder.path().join("backups/first"));
    let server = Server::start_in(shards, "[limits]\nmessages_per_second = 0\n", &data);
    let mut alice = Client::connect(&server, "alice");
    alice.acked("create_group", json!({"group_id": "crew", "members": ["bob"]}));
    let mut said = 0;
    let mut say = || {
        said += 1;
        let ack =
            alice.request_as(&format!("m-{said}"), "send_message", json!({"to_user_id": "bob", "content": format!("{said}")}));
        assert_eq!((&ack["type"], &ack["data"]["seq"]), (&json!("ack"), &json!(said)), "{ack}");
        said
    };
    while say() < 400 {}
    assert_eq!(state(&server), json!({"state": "none"}));
    let begun = begin(&server, &to, 100_000);
    let before = 400;
    assert_eq!((&begun["state"], &begun["to"]), (&json!("running"), &json!(to)));
    let busy = server.rest("POST", "/v1/store/backup", Some(json!({"to": folder.path().join("second")})));
    assert_eq!((busy.status, busy.error_name()), (409, "ALREADY_EXISTS".to_owned()), "{}", busy.text());
    let mut meanwhile = 0;
    let ended = loop {
        meanwhile = say().max(meanwhile);
        let now = state(&server);
        if now["state"] != "running" {
            break now;
        }
    };
    assert!(ended["state"] == "done" && ended["records"].as_u64() > Some(800), "{ended}");
    assert!(meanwhile > before + 10, "it goes on while it is copied");
    sound(&to);
    let restored = Server::start_in(shards, "", &to);
    let found = history(&restored, "bob", "alice");
    let kept = found.len() as u64;
    assert!((before..=meanwhile).contains(&kept), "{kept} of {before} to {meanwhile}");
    assert_eq!(found, (1..=kept).map(|seq| (seq, seq.to_string())).collect::<Vec<_>>());
    // It knows what was said before, and goes on where it was.
    let mut alice = Client::connect(&restored, "alice");
    let again = alice.request_as("m-7", "send_message", json!({"to_user_id": "bob", "content": "7"}));
    assert_eq!((&again["data"]["duplicate"], &again["data"]["seq"]), (&json!(true), &json!(7)), "{again}");
    assert_eq!(alice.tell("bob", "on")["seq"], kept + 1);
    assert_eq!(alice.tell_group("crew", "on")["seq"], 1);
    restored.crash_and_restart();
    assert_eq!(history(&restored, "alice", "bob").len() as u64, kept + 1);
    drop(restored);
    sound(&to);
}

#[test]
fn a_backup_under_load_is_a_prefix_with_1_shard() {
    a_backup_under_load_is_a_prefix(1);
}

#[test]
fn a_backup_under_load_is_a_prefix_with_4_shards() {
    a_backup_under_load_is_a_prefix(4);
}

/// A server with 600 messages in `data` that has begun to copy them to `to`.
fn in_the_midst(data: &Path, to: &Path) -> Server {
    let server = Server::start_in(1, "[limits]\nmessages_per_second = 0\n", data);
    let mut alice = Client::connect(&server, "alice");
    // More than a backup at its slowest copies while a test looks.
    (0..600).for_each(|index| drop(alice.tell("bob", &format!("{index} {}", "long ".repeat(1_000)))));
    begin(&server, to, 64 << 10);
    server
}

#[test]
fn what_a_kill_leaves_of_a_backup_is_opened_by_nobody() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, to) = (folder.path().join("data"), folder.path().join("to"));
    let server = in_the_midst(&data, &to);
    eventually("something is copied", || (state(&server)["records"].as_u64() > Some(0)).then_some(()));
    server.crash_and_restart();
    assert_eq!(state(&server), json!({"state": "none"}));
    for arguments in [&["check"][..], &["stats"], &["export"], &["backup", "--to", "/nowhere"]] {
        let refused = store(&[arguments, &["--data", path(&to)]].concat());
        assert!(refused.status.code() == Some(1) && told(&refused).contains("did not finish"), "{}", told(&refused));
    }
    let refused = server.rest("POST", "/v1/store/backup", Some(json!({"to": to})));
    assert!(refused.status == 400 && refused.text().contains("not empty"), "{}", refused.text());
    assert_eq!(history(&server, "bob", "alice").len(), 600);
}

#[test]
fn a_server_that_ends_takes_its_half_backup_with_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, to) = (folder.path().join("data"), folder.path().join("to"));
    let server = in_the_midst(&data, &to);
    server.terminate();
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!to.exists());
    sound(&data);
}

#[test]
fn the_command_copies_with_and_without_a_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let to = |name: &str| -> PathBuf { folder.path().join(name) };
    let server = Server::start_in(2, "", &data);
    Client::connect(&server, "alice").tell("bob", "hello");
    let admin = server.admin_address().to_string();
    let (listen, key) = (format!("listen.admin={admin}"), format!("admin.api_key={API_KEY}"));
    // The folder is in use: its server is asked.
    let live = to("live");
    let done = store(&["backup", "--data", path(&data), "--to", path(&live), "--set", &listen, "--set", &key]);
    assert!(done.status.code() == Some(0) && told(&done).contains("copied"), "{}", told(&done));
    sound(&live);
    let asked = to("asked");
    let done = store(&["backup", "--admin", &admin, "--to", path(&asked), "--set", &key, "--mib-per-second", "500"]);
    assert_eq!(done.status.code(), Some(0), "{}", told(&done));
    sound(&asked);
    for (arguments, reason) in [
        (&["--admin", &admin, "--to", path(&asked), "--set", &key][..], "not empty"),
        (&["--admin", &admin, "--to", path(&data.join("x")), "--set", &key], "data folder itself"),
        (&["--admin", &admin, "--to", "/tmp/never-made"], "admin.api_key"),
        (&["--admin", "127.0.0.1:1", "--to", "/tmp/never-made", "--set", &key], "nobody answers"),
        (&["--data", path(&to("none")), "--to", "/tmp/never-made"], "no data folder"),
    ] {
        let refused = store(&[&["backup"], arguments].concat());
        assert!(refused.status.code() == Some(1) && told(&refused).contains(reason), "{reason}: {}", told(&refused));
    }
    let refused = server.rest("POST", "/v1/store/backup", Some(json!({"to": "relative"})));
    assert!(refused.status == 400 && refused.text().contains("absolute"), "{}", refused.text());
    let refused = server.rest("POST", "/v1/store/backup", Some(json!({"to": to("x"), "bytes_per_second": 1})));
    assert_eq!(refused.status, 400, "{}", refused.text());
    server.terminate();
    server.wait_for_exit();
    let offline = to("offline");
    let done = store(&["backup", "--data", path(&data), "--to", path(&offline)]);
    assert_eq!(done.status.code(), Some(0), "{}", told(&done));
    sound(&offline);
    let exported = |data: &Path| store(&["export", "--data", path(data)]).stdout;
    assert_eq!(exported(&offline), exported(&data));
}

#[test]
fn what_is_not_on_disk_has_no_backup() {
    let server = Server::start(1, "[store]\nkind = \"memory\"\n");
    let refused = server.rest("POST", "/v1/store/backup", Some(json!({"to": "/tmp/never-made"})));
    assert!(refused.status == 400 && refused.text().contains("store.kind"), "{}", refused.text());
    assert_eq!(server.rest("GET", "/v1/store/backup", None).status, 400);
}
