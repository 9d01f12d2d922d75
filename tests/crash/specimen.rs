//! Owns a data folder of which everything is known: the server that made it was killed when all it had acknowledged was on disk.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::facts::{Ack, Stored, content};
use crate::support::{Client, Server};

pub struct Specimen {
    folder: TempDir,
    /// What everybody must find again, by conversation, in order.
    pub logs: BTreeMap<String, Vec<Stored>>,
}

/// Whoever writes, and a member of all conversations.
pub const WRITER: &str = "walter";
/// A member of the groups, who has never been there.
pub const READER: &str = "rita";

impl Specimen {
    /// Talks until every table of the database has files, with a kill and a drain on the way.
    pub fn make() -> Specimen {
        let folder = tempfile::Builder::new().prefix("corehub-specimen-").tempdir().expect("a temporary folder can be made");
        let server = Server::start_in(1, CONFIG, &folder.path().join("data"));
        let mut logs = BTreeMap::new();
        let mut writer = Client::connect_on(&server, WRITER, "writer");
        for group in GROUPS {
            writer.acked("create_group", json!({"group_id": group, "members": [READER, "p1", "p2"]}));
        }
        drop(writer);
        for part in 0..PARTS {
            write(&server, part, &mut logs);
            if part + 1 < PARTS {
                server.signal(if part % 2 == 0 { Signal::KILL } else { Signal::TERM });
                server.wait_for_exit();
                server.start_again();
            }
        }
        // Until it is noted how far acknowledgements have come.
        std::thread::sleep(Duration::from_secs(1));
        server.signal(Signal::KILL);
        server.wait_for_exit();
        Specimen { folder, logs }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// All files with something in them, by their path below the folder.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.data()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("the folder is there") {
                let path = entry.expect("it can be read").path();
                match path.is_dir() {
                    // Second names of files that have one elsewhere.
                    true if path.ends_with("store.removing") => {}
                    true => folders.push(path),
                    false if content_end(&path).expect("it can be read") > 0 => files.push(path),
                    false => {}
                }
            }
        }
        files.sort();
        files.iter().map(|path| path.strip_prefix(self.data()).expect("it lies there").to_owned()).collect()
    }

    /// Where the bytes of a file end that are not room made in advance.
    pub fn content_end(&self, file: &Path) -> u64 {
        content_end(&self.data().join(file)).expect("it can be read")
    }

    /// A folder like it, to be harmed.
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::Builder::new().prefix("corehub-harmed-").tempdir().expect("a temporary folder can be made");
        let done = Command::new("cp").args(["-a", "--sparse=always"]).arg(self.data()).arg(copy.path()).status();
        assert!(done.expect("cp is there").success());
        copy
    }
}

/// So many messages to every conversation, several at once.
fn write(server: &Server, part: usize, logs: &mut BTreeMap<String, Vec<Stored>>) {
    let mut writer = Client::connect_on(server, WRITER, "writer");
    let privates = (0..PEERS).map(|peer| (format!("p:p{peer}:{WRITER}"), json!({"to_user_id": format!("p{peer}")})));
    let groups = GROUPS.map(|group| (format!("g:{group}"), json!({"group_id": group})));
    let targets: Vec<_> = privates.chain(groups).collect();
    singles(&mut writer, part);
    for round in 0..MESSAGES / PARTS {
        for (at, (_, target)) in targets.iter().enumerate() {
            let client_id = format!("m-{part}-{round}-{at}");
            let mut data = target.clone();
            data["content"] = json!(content(&client_id));
            writer.send_json(&json!({"type": "send_message", "message_id": client_id, "data": data}));
        }
        for (at, (conversation, _)) in targets.iter().enumerate() {
            let client_id = format!("m-{part}-{round}-{at}");
            let reply = writer.reply_to(&client_id);
            let ack = Ack::read(&reply["data"]);
            assert!(reply["type"] == "ack" && ack.conversation == *conversation, "{reply}");
            let log: &mut Vec<Stored> = logs.entry(conversation.clone()).or_default();
            assert_eq!(ack.seq, log.len() as u64 + 1);
            let sender = WRITER.to_owned();
            let (message_id, seq) = (ack.message_id, ack.seq);
            let conversation = conversation.clone();
            log.push(Stored { conversation, seq, message_id, sender, client_id, intact: true, redelivered: false });
        }
    }
    writer.leave();
}

/// Many conversations of one message, so that tables of all kinds fill. Nobody looks at them again.
fn singles(writer: &mut Client, part: usize) {
    let ids: Vec<String> = (0..SINGLES / PARTS).map(|single| format!("s-{part}-{single}")).collect();
    for ids in ids.chunks(50) {
        for id in ids {
            let data = json!({"to_user_id": format!("one-{id}"), "content": "x"});
            writer.send_json(&json!({"type": "send_message", "message_id": id, "data": data}));
        }
        for id in ids {
            assert_eq!(writer.reply_to(id)["type"], "ack");
        }
    }
}

fn content_end(path: &Path) -> io::Result<u64> {
    let file = std::fs::File::open(path)?;
    let mut end = file.metadata()?.len();
    let mut buffer = vec![0; 1 << 20];
    while end > 0 {
        let from = end.saturating_sub(buffer.len() as u64);
        let part = &mut buffer[..(end - from) as usize];
        file.read_exact_at(part, from)?;
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// What `send_message` needs to reach a conversation.
pub fn target(conversation: &str) -> serde_json::Value {
    match conversation.strip_prefix("g:") {
        Some(group) => json!({"group_id": group}),
        None => json!({"to_user_id": conversation.split(':').nth(1)}),
    }
}

const PEERS: usize = 8;
const GROUPS: [&str; 2] = ["one", "two"];
const PARTS: usize = 4;
const MESSAGES: usize = 240;
const SINGLES: usize = 4_000;

/// Small buffers: so little would stay in memory and journals otherwise.
pub const CONFIG: &str = r#"
[store]
write_buffer_bytes = "1MiB"
cache_bytes = "1MiB"

[limits]
messages_per_second = 0
user_messages_per_second = 0
errors_per_minute = 0
"#;
