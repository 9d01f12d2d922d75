//! Filling folders on a disk that has no room for them: what is said, and what is left.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::server::program;
use crate::support::{Client, Server};

/// Runs a script with a file system of so many megabytes on `disk`, which only the script sees. `$corehub` is the program.
fn on_a_small_disk(disk: &Path, megabytes: u64, script: &str) -> std::io::Result<Output> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o size={megabytes}m none \"$disk\" || exit 99\nexec 2>&1\n{script}")).env("disk", disk);
    command.env("corehub", program().get_program()).output()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// An export of more than the small disk holds, and its lines.
fn large_export(folder: &Path) -> (String, usize) {
    let data = folder.join("small");
    {
        let server = Server::start_in(1, "", &data);
        Client::connect(&server, "alice").tell("bob", "hello");
        server.terminate();
        server.wait_for_exit();
    }
    let exported = program().args(["store", "export", "--data"]).arg(&data).output().expect("the program runs");
    let mut lines: Vec<Value> = Vec::new();
    for line in String::from_utf8(exported.stdout).expect("text").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if line["message"].is_null() {
            lines.push(line);
            continue;
        }
        let mut random = fastrand::Rng::with_seed(7);
        for seq in 1..=MESSAGES {
            let mut copy = line.clone();
            let message = &mut copy["message"];
            message["seq"] = json!(seq);
            message["id"] = json!(format!("00000000-0000-0000-0000-{seq:012x}"));
            message["client_id"] = json!(format!("m-{seq}"));
            message["content"] = json!({"json": (0..1_000).map(|_| random.alphanumeric()).collect::<String>()});
            lines.push(copy);
        }
    }
    let end = lines.len() - 1;
    lines[end] = json!({"end": end});
    (lines.iter().map(|line| format!("{line}\n")).collect(), lines.len())
}

#[test]
fn what_does_not_fit_is_refused_clearly_and_leaves_nothing_to_open() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (disk, source, export) = (folder.path().join("disk"), folder.path().join("source"), folder.path().join("export.jsonl"));
    std::fs::create_dir(&disk).expect("made");
    if !on_a_small_disk(&disk, 8, "").is_ok_and(|tried| tried.status.success()) {
        // A container may not let us mount anything.
        eprintln!("no file system can be mounted here: this test shows nothing");
        return;
    }
    let (lines, count) = large_export(folder.path());
    std::fs::write(&export, lines).expect("written");
    let imported = program().args(["store", "import", "--data"]).arg(&source).arg("--from").arg(&export).output();
    let imported = imported.expect("the program runs");
    assert_eq!(imported.status.code(), Some(0), "{count} lines: {}", text(&imported));
    let (export, source) = (export.display(), source.display());
    let done = on_a_small_disk(
        &disk,
        8,
        &format!(
            "\"$corehub\" store import --data \"$disk/data\" --from '{export}'; echo import: $?\n\
             for what in check stats export; do \"$corehub\" store $what --data \"$disk/data\"; echo $what: $?; done\n\
             \"$corehub\" store check --repair --data \"$disk/data\"; echo repair: $?\n\
             \"$corehub\" serve --dev --data \"$disk/data\"; echo serve: $?\n\
             \"$corehub\" store backup --data '{source}' --to \"$disk/data\"; echo backup over it: $?\n\
             \"$corehub\" store backup --data '{source}' --to \"$disk/other\"; echo backup beside it: $?\n\
             ls -A \"$disk\""
        ),
    );
    let told = text(&done.expect("it ran before"));
    let answers: Vec<(&str, &str)> = told.lines().collect::<Vec<_>>().windows(2).map(|pair| (pair[0], pair[1])).collect();
    let refused = |what: &str, reason: &str| {
        let found = answers.iter().find(|(_, end)| *end == format!("{what}: 1"));
        assert!(found.is_some_and(|(why, _)| why.contains(reason)), "{what} is not refused for {reason:?}: {told}");
    };
    refused("import", "is full: make room, delete this folder");
    ["check", "stats", "export", "repair", "serve"].iter().for_each(|what| refused(what, "did not finish"));
    refused("backup over it", "not empty");
    refused("backup beside it", "bytes free, of which a backup needs");
    assert!(told.ends_with("data\n"), "nothing is left of what was refused: {told}");
    // As much room as the tables have, which is not enough for all that a backup writes on its way.
    let script = format!("\"$corehub\" store backup --data '{source}' --to \"$disk/data\"; echo $?; ls -A \"$disk\"");
    let done = text(&on_a_small_disk(&disk, 18, &script).expect("it ran before"));
    assert!(done.contains("is full: make room, or name another folder") && done.ends_with("\n1\n"), "{done}");
}

const MESSAGES: u64 = 12_000;
