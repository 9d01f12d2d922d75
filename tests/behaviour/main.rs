//! What a client, an operator and an attacker may rely on, shown on the real program over real sockets. One module per
//! behaviour; every test has a server of its own, and most run with one shard and with four.

#[path = "../support/mod.rs"]
mod support;

mod announcements;
mod auth;
mod backup;
mod bad_inputs;
mod control;
mod crowd;
mod delivery;
mod drain;
mod full_disk;
mod groups;
mod heartbeat;
mod history;
mod limits;
mod measuring;
mod offline;
mod presence;
mod private_messages;
mod program;
mod reading;
mod recall;
mod rest;
mod retention;
mod search;
mod sessions;
mod slow_reader;
mod store;
mod sync;
mod typing;
