//! A client whose network ends without a word: the connection goes through a relay that stops passing anything on and keeps both
//! sockets open.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::link::{Heard, Link};
use crate::support::{Client, PATIENCE, Server, eventually};

fn the_vanished_are_given_up_and_served_later(shards: u16) {
    let server = Server::start(shards, "[heartbeat]\ninterval = \"1s\"\ntimeout = \"8s\"\n");
    let relay = Relay::start(server.client_address());
    let mut ghost = Link::open(relay.address, "ghost", "phone", true).expect("the relay passes everything on");
    hear(&mut ghost, "sync_done");
    let mut watcher = Client::connect(&server, "watcher");
    let seen = watcher.ask("subscribe_presence", json!({"user_ids": ["ghost"]}));
    assert_eq!(seen["users"][0]["status"], "online", "{seen}");
    relay.frozen.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    // Into the open connection, which nobody reads.
    let sent: Vec<Value> =
        (0..5).map(|number| watcher.tell("ghost", &format!("into the void {number}"))["message_id"].clone()).collect();
    let told = watcher.take_where("ghost goes offline", |envelope| {
        envelope["type"] == "presence" && envelope["data"]["users"][0]["status"] == "offline"
    });
    println!("half open, {shards} shards: offline after {} ms: {}", begun.elapsed().as_millis(), told["data"]["users"][0]);
    eventually("only the watcher is connected", || (server.metric("corehub_connections", "") == 1.0).then_some(()));
    let mut back = Link::open(server.client_address(), "ghost", "phone", true).expect("the server listens");
    let found: Vec<Value> = sent.iter().map(|_| hear(&mut back, "new_message")["data"]["message_id"].clone()).collect();
    assert_eq!(found, sent, "what was sent into the void arrives at the next connection");
}

#[test]
fn the_vanished_are_given_up_and_served_later_with_1_shard() {
    the_vanished_are_given_up_and_served_later(1);
}

#[test]
fn the_vanished_are_given_up_and_served_later_with_4_shards() {
    the_vanished_are_given_up_and_served_later(4);
}

fn hear(link: &mut Link, kind: &str) -> Value {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match link.hear() {
            Heard::Envelope(envelope) if envelope["type"] == kind => return envelope,
            Heard::Ended(code) => panic!("ended with {code:?} before {kind}"),
            _ => {}
        }
    }
    panic!("{kind} never came");
}

/// Passes bytes on in both directions until it is frozen. Its threads end with the process.
struct Relay {
    address: SocketAddr,
    frozen: Arc<AtomicBool>,
}

impl Relay {
    fn start(to: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let relay = Relay { address: listener.local_addr().expect("it is bound"), frozen: Arc::default() };
        let frozen = relay.frozen.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection can be taken");
                let server = TcpStream::connect(to).expect("the server listens");
                let halves =
                    |one: &TcpStream, other: &TcpStream| (one.try_clone().expect("a copy"), other.try_clone().expect("a copy"));
                for (from, to) in [halves(&client, &server), halves(&server, &client)] {
                    let frozen = frozen.clone();
                    std::thread::spawn(move || pass(from, to, &frozen));
                }
            }
        });
        relay
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, frozen: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout above zero");
    let mut buffer = [0; 16 * 1024];
    loop {
        if frozen.load(Ordering::Relaxed) {
            // Both sockets stay as they are.
            std::thread::sleep(PATIENCE * 2);
            return;
        }
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) if to.write_all(&buffer[..count]).is_err() => return,
            Ok(_) => {}
            Err(fault) if matches!(fault.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}
