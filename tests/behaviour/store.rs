//! Looking after data folders with the program itself: keys, checking, counting, export and import.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::server::program;
use crate::support::{Client, Server};

fn run(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

fn store(arguments: &[&str], data: &Path) -> Output {
    run(program().arg("store").args(arguments).arg("--data").arg(data))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file with a new key, as an operator would make it.
fn key_file(folder: &Path) -> PathBuf {
    let made = run(program().args(["store", "key", "--id", "2026-01"]));
    assert_eq!(made.status.code(), Some(0));
    assert_eq!(text(&made.stdout).lines().count(), 1);
    let path = folder.join("store.keys");
    std::fs::write(&path, &made.stdout).expect("writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
    path
}

fn files_with(folder: &Path, marker: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // Of a running server: what goes meanwhile has nothing in it.
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files_with(&path, marker));
        } else if std::fs::read(&path).unwrap_or_default().windows(marker.len()).any(|window| window == marker.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_server_with_a_key_leaves_no_body_readable() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, keys) = (folder.path().join("data"), key_file(folder.path()));
    let config = format!("[store]\nencryption_key_file = {:?}\n", keys.display().to_string());
    let marker = "marker-4711-of-a-body";
    {
        let server = Server::start_in(1, &config, &data);
        let mut alice = Client::connect(&server, "alice");
        for index in 0..50 {
            alice.tell("bob", &format!("{marker} {index}"));
        }
        server.crash_and_restart();
        let mut bob = Client::connect(&server, "bob");
        let page = bob.ask("get_history", serde_json::json!({"user_id": "alice"}));
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(50));
        assert_eq!(files_with(&data, marker), Vec::<PathBuf>::new());
        server.terminate();
        assert_eq!(server.wait_for_exit().code(), Some(0));
        assert!(!server.log().contains(marker));
    }
    assert_eq!(files_with(&data, marker), Vec::<PathBuf>::new());
    // Nobody opens it without the key.
    for arguments in [&["check"][..], &["stats"], &["export"]] {
        let refused = store(arguments, &data);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(text(&refused.stderr).contains("store.encryption_key_file") && refused.stdout.is_empty(), "{refused:?}");
    }
    let with_key = format!("store.encryption_key_file={}", keys.display());
    let exported = store(&["export", "--set", &with_key], &data);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    assert_eq!(text(&exported.stdout).matches(marker).count(), 50, "an export is not sealed");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let refused = store(&["check", "--set", &with_key], &data);
    assert!(text(&refused.stderr).contains("chmod 600"), "{}", text(&refused.stderr));
}

#[test]
fn what_a_server_kept_is_sound_and_can_be_carried_away() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, copy, file) = (folder.path().join("data"), folder.path().join("copy"), folder.path().join("export.jsonl"));
    {
        let server = Server::start_in(2, "", &data);
        let mut alice = Client::connect(&server, "alice");
        (0..20).for_each(|index| drop(alice.tell("bob", &format!("m{index}"))));
        let held = store(&["check"], &data);
        assert_eq!(held.status.code(), Some(1));
        assert!(text(&held.stderr).contains("in use by process"), "{}", text(&held.stderr));
        server.terminate();
        assert_eq!(server.wait_for_exit().code(), Some(0));
    }
    let checked = store(&["check"], &data);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stdout));
    assert!(text(&checked.stdout).contains("20 messages") && text(&checked.stdout).contains("no fault found"));
    let stats: Value = serde_json::from_slice(&store(&["stats", "--json"], &data).stdout).expect("JSON alone");
    assert_eq!((&stats["messages"], &stats["conversations"], &stats["users"]), (&20.into(), &1.into(), &2.into()), "{stats}");
    let exported = store(&["export", "--to", file.to_str().expect("a plain path")], &data);
    assert_eq!(exported.status.code(), Some(0));
    assert!(exported.stdout.is_empty());
    assert_eq!(std::fs::metadata(&file).expect("made").permissions().mode() & 0o777, 0o600);
    let import = ["import", "--from", file.to_str().expect("a plain path")];
    assert_eq!(store(&import, &data).status.code(), Some(1), "never over what is there");
    assert_eq!(store(&import, &copy).status.code(), Some(0));
    assert_eq!(text(&store(&["export"], &copy).stdout), std::fs::read_to_string(&file).expect("readable"));
    let server = Server::start_in(1, "", &copy);
    let mut bob = Client::connect(&server, "bob");
    let page = bob.ask("get_history", serde_json::json!({"user_id": "alice"}));
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(20));
}

#[test]
fn wrong_usage_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = store(&["check"], &folder.path().join("none"));
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("no data folder"), "{}", text(&missing.stderr));
    assert_eq!(run(program().args(["store", "key", "--id", "not an id"])).status.code(), Some(2));
    assert_eq!(run(program().args(["store"])).status.code(), Some(2));
    assert_eq!(store(&["check", "--set", "store.kind=sometimes"], folder.path()).status.code(), Some(2));
    let refused = store(&["stats", "--set", "store.encryption_key_file=/nonexistent/keys"], folder.path());
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("store.encryption_key_file"), "{}", text(&refused.stderr));
}

#[test]
fn a_damaged_folder_is_repaired_only_when_told_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    {
        let server = Server::start_in(1, "", &data);
        let mut alice = Client::connect(&server, "alice");
        (0..40).for_each(|index| drop(alice.tell("bob", &format!("m{index}"))));
        // Who reads finds all of it in the database.
        assert!(alice.ask("get_history", serde_json::json!({"user_id": "bob"}))["messages"].is_array());
        server.signal(rustix::process::Signal::KILL);
        server.wait_for_exit();
    }
    // In the commit log, and where the database has it: one of them alone would make up for the other.
    for file in ["log/0.log", "store/0.jnl"].map(|file| data.join(file)) {
        let mut bytes = std::fs::read(&file).expect("readable");
        let at = bytes.windows(3).position(|window| window == b"m20").expect("it was written");
        bytes[at + 1] ^= 1;
        std::fs::write(&file, &bytes).expect("writable");
    }
    for _ in 0..2 {
        let refusal = Server::try_start_in(1, "", &data).err().expect("it is damaged");
        assert!(refusal.status.code() == Some(1) && refusal.log.contains("0.log"), "{}", refusal.log);
        assert!(refusal.log.contains("corehub store check --repair"), "{}", refusal.log);
        let checked = store(&["check"], &data);
        assert!(checked.status.code() == Some(1) && text(&checked.stderr).contains("0.log"), "{}", text(&checked.stderr));
    }
    let repaired = store(&["check", "--repair"], &data);
    let told = text(&repaired.stdout);
    assert_eq!(repaired.status.code(), Some(0), "{told}{}", text(&repaired.stderr));
    assert!(told.contains("lost, unless a backup has it: p:alice:bob seq 21\n") && told.contains("no fault found"), "{told}");
    let checked = store(&["check"], &data);
    assert!(checked.status.code() == Some(0) && text(&checked.stdout).contains("no fault found"), "{}", text(&checked.stdout));
    let server = Server::start_in(1, "", &data);
    let mut bob = Client::connect(&server, "bob");
    let skipped = bob.take("messages_skipped");
    assert_eq!((&skipped["data"]["from_seq"], &skipped["data"]["to_seq"]), (&21.into(), &21.into()), "{skipped}");
    let page = bob.ask("get_history", serde_json::json!({"user_id": "alice"}));
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(39));
    assert_eq!(Client::connect(&server, "alice").tell("bob", "on")["seq"], 41);
}
