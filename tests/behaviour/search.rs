//! Searching one's own conversations: what is found, in which order, by whom, and that it outlives crashes and its own index.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use corehub::store::new_key_line;
use serde_json::{Value, json};

use super::groups::pair;
use crate::at_shards;
use crate::support::{Client, Server, eventually};

at_shards!(a_message_is_found_as_soon_as_it_is_acknowledged, |server| {
    let mut alice = Client::connect(server, "alice");
    for (content, query) in [
        ("明天开会议吗？", "会议"),
        ("发版 v2.3 release", "发版 V2.3"),
        ("Grüße aus der Straße", "STRASSE grüße"),
        ("회의에서 만나요", "회의"),
        ("東京タワーへ行く", "タワー"),
        ("a+b AND (c)", "\"a+b\" (c)"),
    ] {
        alice.tell("bob", content);
        assert_eq!(contents(&mut alice, json!({"query": query})), [content], "{query}");
    }
    let mut bob = Client::connect(server, "bob");
    assert_eq!(contents(&mut bob, json!({"query": "会议"})), ["明天开会议吗？"]);
    assert!(contents(&mut Client::connect(server, "carol"), json!({"query": "会议"})).is_empty(), "others find nothing");
    alice.acked("send_message", json!({"to_user_id": "bob", "content": {"caption": "季度计划", "size": [1, 2]}}));
    let page = alice.ask("search", json!({"query": "计划"}));
    assert_eq!(page["messages"][0]["content"]["caption"], "季度计划");
    assert!(contents(&mut alice, json!({"query": "caption"})).is_empty(), "names of members are no text");
});

at_shards!(pages_lead_from_the_newest_to_the_oldest, |server| {
    let mut alice = Client::connect(server, "alice");
    let mut said = Vec::new();
    for number in 0..30 {
        let text = format!("needle {number}");
        alice.tell(["bob", "carol", "dave"][number % 3], &text);
        alice.tell("bob", "hay");
        said.push(text);
    }
    said.reverse();
    for round in ["from the log", "from the index"] {
        if round == "from the index" {
            wait_for_index(server);
        }
        let (mut found, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = alice.ask("search", json!({"query": "NEEDLE", "limit": 7, "cursor": cursor}));
            let messages = page["messages"].as_array().expect("a list");
            assert!(messages.len() <= 7);
            found.extend(messages.iter().map(|message| message["content"].as_str().expect("a text").to_owned()));
            assert_eq!(page["has_more"], !page["next"].is_null());
            cursor = page["next"].clone();
            if cursor.is_null() {
                break;
            }
        }
        // Sends of one client to several conversations may share a millisecond; within a conversation they never swap.
        let mut sorted = found.clone();
        sorted.sort();
        said.sort();
        assert_eq!(sorted, said, "{round}: each once");
        for partner in 0..3 {
            let numbers: Vec<usize> = found.iter().map(|text| text[7..].parse().expect("a number")).collect();
            let mine: Vec<&usize> = numbers.iter().filter(|number| *number % 3 == partner).collect();
            assert!(mine.is_sorted_by(|newer, older| newer > older), "{round}: {mine:?}");
        }
        let only = contents(&mut alice, json!({"query": "needle", "user_id": "carol", "limit": 200}));
        assert_eq!(only.len(), 10, "{round}");
    }
});

at_shards!(what_was_taken_back_or_deleted_is_found_no_more, |server| {
    let mut alice = Client::connect(server, "alice");
    let recalled = alice.tell("bob", "secret plan")["message_id"].clone();
    let deleted = alice.tell("bob", "secret place")["message_id"].clone();
    for indexed in [false, true] {
        if indexed {
            wait_for_index(server);
        } else {
            assert_eq!(contents(&mut alice, json!({"query": "secret"})).len(), 2);
            continue;
        }
        alice.acked("recall_message", json!({"message_id": recalled}));
        assert_eq!(contents(&mut alice, json!({"query": "secret"})), ["secret place"]);
        alice.acked("delete_message", json!({"message_id": deleted}));
        assert!(contents(&mut alice, json!({"query": "secret"})).is_empty());
    }
    let mut bob = Client::connect(server, "bob");
    assert_eq!(contents(&mut bob, json!({"query": "secret"})), ["secret place"], "bob has not deleted it");
    wait_for_index(server);
    assert_eq!(contents(&mut bob, json!({"query": "secret"})), ["secret place"]);
});

at_shards!(a_member_finds_what_was_said_since_they_joined, |server| {
    let (mut owner, _bob) = pair(server, true);
    owner.tell_group("team", "会议 early");
    let mut carol = Client::connect(server, "carol");
    carol.acked("join_group", json!({"group_id": "team"}));
    owner.tell_group("team", "会议 late");
    for indexed in [false, true] {
        if indexed {
            wait_for_index(server);
        }
        assert_eq!(contents(&mut carol, json!({"query": "会议"})), ["会议 late"]);
        assert_eq!(contents(&mut owner, json!({"query": "会议", "group_id": "team"})), ["会议 late", "会议 early"]);
    }
    carol.acked("leave_group", json!({"group_id": "team"}));
    assert!(contents(&mut carol, json!({"query": "会议"})).is_empty(), "after leaving");
});

at_shards!(queries_are_bounded_and_hold_no_operators, |server| {
    let mut alice = Client::connect(server, "alice");
    alice.tell("bob", "plain text");
    for query in ["x".repeat(1_025), "x ".repeat(33), "会".repeat(400_000 / 3), "x ".repeat(1_000), " ".to_owned(), String::new()]
    {
        alice.ask_refused("BAD_REQUEST", "search", json!({"query": query}));
    }
    alice.ask_refused("BAD_REQUEST", "search", json!({}));
    for query in ["*", "pla*", "plain OR nothing", "content:plain^2", "/pl.*/", "[a TO z]", "!!!", "plain~2 \\"] {
        let found = contents(&mut alice, json!({"query": query}));
        assert!(found.is_empty(), "{query} finds {found:?}");
    }
    for query in ["(plain)", "\"plain text\"", "+plain -text", "plain && text"] {
        assert_eq!(contents(&mut alice, json!({"query": query})), ["plain text"], "{query}");
    }
    for cursor in ["", "x", "1:2:3", "99999999999999999999999:p:a:b:1"] {
        let reply = alice.request("search", json!({"query": "plain", "cursor": cursor}));
        assert!(matches!(reply["type"].as_str(), Some("search_result" | "error")), "{cursor}: {reply}");
    }
    alice.assert_alive();
});

at_shards!(a_crash_loses_nothing_that_can_be_found, |server| {
    let mut alice = Client::connect(server, "alice");
    alice.tell("bob", "会议 first");
    wait_for_index(server);
    alice.tell("bob", "会议 second");
    server.crash_and_restart();
    let mut alice = Client::connect(server, "alice");
    assert_eq!(contents(&mut alice, json!({"query": "会议"})), ["会议 second", "会议 first"]);
    wait_for_index(server);
    alice.tell("bob", "会议 third");
    assert_eq!(contents(&mut alice, json!({"query": "会议"})), ["会议 third", "会议 second", "会议 first"]);
});

at_shards!(what_was_acknowledged_before_a_kill_is_found_once, |server| {
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..3 {
        let mut alice = Client::connect(server, "alice");
        let texts: Vec<String> = (0..300).map(|number| format!("会议 needle{round}x{number}")).collect();
        let partner = |number: usize| ["bob", "carol", "dave"][number % 3];
        for (number, text) in texts.iter().enumerate() {
            let data = json!({"to_user_id": partner(number), "content": text});
            alice.send_json(&json!({"type": "send_message", "message_id": text, "data": data}));
        }
        // The kill meets the rest somewhere on its way, and the index wherever it is.
        for text in &texts[..50 + round * 100] {
            assert_eq!(alice.reply_to(text)["type"], "ack");
            acknowledged.push(text.clone());
        }
        server.crash_and_restart();
        drop(alice);
        let mut alice = Client::connect(server, "alice");
        for indexed in [false, true] {
            if indexed {
                wait_for_index(server);
            }
            let mut found = all_contents(&mut alice, "会议");
            let all = found.len();
            found.sort();
            found.dedup();
            assert_eq!(found.len(), all, "nothing twice in round {round}");
            let lost: Vec<_> = acknowledged.iter().filter(|text| found.binary_search(text).is_err()).collect();
            assert!(lost.is_empty(), "round {round}, indexed: {indexed}: {lost:?}");
        }
    }
});

at_shards!(whole_groups_are_searched_where_their_history_is_open, "[groups]\nhistory = \"all\"\n", |server| {
    let (mut owner, _bob) = pair(server, true);
    owner.tell_group("team", "会议 early");
    let mut carol = Client::connect(server, "carol");
    assert!(contents(&mut carol, json!({"query": "会议"})).is_empty(), "not before they are in");
    carol.acked("join_group", json!({"group_id": "team"}));
    owner.tell_group("team", "会议 late");
    for indexed in [false, true] {
        if indexed {
            wait_for_index(server);
        }
        assert_eq!(contents(&mut carol, json!({"query": "会议"})), ["会议 late", "会议 early"]);
    }
    carol.acked("leave_group", json!({"group_id": "team"}));
    assert!(contents(&mut carol, json!({"query": "会议"})).is_empty(), "nor after they have left");
    assert!(contents(&mut carol, json!({"query": "会议", "group_id": "team"})).is_empty());
});

at_shards!(a_page_holds_about_a_mebibyte, |server| {
    let mut alice = Client::connect(server, "alice");
    for number in 0..8 {
        alice.tell("bob", &format!("needle {number} {}", "filler ".repeat(40_000)));
    }
    let page = alice.ask("search", json!({"query": "needle", "limit": 200}));
    assert_eq!((page["messages"].as_array().expect("a list").len(), &page["has_more"]), (4, &json!(true)));
    assert_eq!(all_contents(&mut alice, "needle").len(), 8);
});

#[test]
fn sealed_messages_are_found_and_their_words_are_on_no_disk() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (data, keys) = (folder.path().join("data"), folder.path().join("keys"));
    std::fs::write(&keys, new_key_line("one").expect("a key").as_bytes()).expect("it can be written");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    let config = format!("[store]\nencryption_key_file = {:?}\n", keys.display().to_string());
    let server = Server::start_in(2, &config, &data);
    let mut alice = Client::connect(&server, "alice");
    alice.tell("bob", "明天开会议吗 unmistakable");
    assert_eq!(contents(&mut alice, json!({"query": "会议 unmistakable"})), ["明天开会议吗 unmistakable"]);
    server.crash_and_restart();
    let mut alice = Client::connect(&server, "alice");
    assert_eq!(contents(&mut alice, json!({"query": "会议"})), ["明天开会议吗 unmistakable"]);
    server.terminate();
    server.wait_for_exit();
    assert!(!data.join("search").exists(), "there is no index");
    for_each_file(&data, &|file, bytes| {
        for word in ["会议", "unmistakable"] {
            let found = bytes.windows(word.len()).any(|part| part == word.as_bytes());
            assert!(!found, "{} holds {word}", file.display());
        }
    });
}

#[test]
fn an_index_that_was_deleted_or_damaged_is_made_again() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let data = folder.path().join("data");
    let index = data.join("search");
    {
        let server = Server::start_in(2, "", &data);
        let mut alice = Client::connect(&server, "alice");
        for number in 0..50 {
            alice.tell("bob", &format!("word{number} 会议"));
        }
        wait_for_index(&server);
    }
    let harms: [fn(&Path); 2] = [
        |index| std::fs::remove_dir_all(index).expect("it is there"),
        |index| std::fs::write(index.join("meta.json"), "no index").expect("it is there"),
    ];
    for harm in harms {
        harm(&index);
        let server = Server::start_in(2, "", &data);
        let mut alice = Client::connect(&server, "alice");
        assert_eq!(contents(&mut alice, json!({"query": "word7"})), ["word7 会议"]);
        wait_for_index(&server);
        assert_eq!(contents(&mut alice, json!({"query": "会议", "limit": 200})).len(), 50);
        let made = || index.join("meta.json").metadata().is_ok_and(|file| file.len() > 100).then_some(());
        eventually("there is an index again", made);
    }
}

#[test]
fn without_an_index_it_is_looked_through() {
    let server = Server::start(1, "[store]\nsearch = false\n");
    let mut alice = Client::connect(&server, "alice");
    alice.tell("bob", "明天开会议吗");
    assert_eq!(contents(&mut alice, json!({"query": "会议"})), ["明天开会议吗"]);
}

fn contents(client: &mut Client, query: Value) -> Vec<String> {
    let page = client.ask("search", query);
    let messages = page["messages"].as_array().unwrap_or_else(|| panic!("no messages in {page}"));
    messages.iter().map(|message| message["content"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Of all pages.
fn all_contents(client: &mut Client, query: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let page = client.ask("search", json!({"query": query, "limit": 70, "cursor": cursor}));
        let messages = page["messages"].as_array().expect("a list");
        found.extend(messages.iter().map(|message| message["content"].as_str().expect("a text").to_owned()));
        cursor = page["next"].clone();
        if cursor.is_null() {
            return found;
        }
    }
}

fn for_each_file(folder: &Path, look: &dyn Fn(&Path, &[u8])) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            for_each_file(&path, look);
        } else {
            look(&path, &std::fs::read(&path).expect("a file"));
        }
    }
}

/// Returns when the index has everything that was acknowledged before.
fn wait_for_index(server: &Server) {
    // Metrics are up to half a second old.
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    eventually("the index has everything", || {
        let lag = server.metric("corehub_search_lag_messages", "") + server.metric("corehub_search_rebuild_conversations", "");
        (lag == 0.0).then_some(())
    });
}
