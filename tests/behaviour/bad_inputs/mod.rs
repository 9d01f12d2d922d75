//! Inputs that no well-behaved client sends. Every row has its stated outcome; after every row a neighbour's traffic goes on, and
//! memory is where it was. `table.rs` lists all rows with the tests that show them.

mod envelope;
mod frames;
mod handshake;
mod keys;
mod load;
mod logs;
mod rest;
mod rights;
mod table;
mod tokens;

use serde_json::Value;

use crate::support::{Client, RawConnection, Server, eventually};

/// What a flood of bad inputs may leave behind, per shard: each has a heap of its own that keeps some pages at hand.
const GROWTH_BYTES_MAX: u64 = 10 << 20;

/// What the search index may take meanwhile for the parts that it makes: the default of `store.search_memory_bytes`.
const INDEX_BYTES_MAX: u64 = 32 << 20;

/// Two well-behaved users beside the abuse, and the memory of the server before it began.
struct Neighbours<'a> {
    server: &'a Server,
    alice: Client,
    bob: Client,
    resident_bytes: u64,
    messages: u64,
}

impl Neighbours<'_> {
    /// Moves in. What the server keeps at hand once it has worked is there before memory is measured.
    fn of(server: &Server) -> Neighbours<'_> {
        let mut neighbours = Neighbours::calm(server);
        let mut warm = RawConnection::authenticated(server, "warm");
        warm.send_text(&format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(50_000)));
        warm.read_until("pong");
        for _ in 0..50 {
            neighbours.exchange("warming up");
        }
        neighbours.resident_bytes = server.resident_bytes();
        neighbours
    }

    /// Moves in where nobody may talk fast, and looks at traffic only.
    fn calm(server: &Server) -> Neighbours<'_> {
        let (alice, bob) = (Client::connect(server, "alice"), Client::connect(server, "bob"));
        Neighbours { server, alice, bob, resident_bytes: u64::MAX, messages: 0 }
    }

    /// Shows that the neighbours are served as before.
    fn assert_undisturbed(&mut self, what: &str) {
        self.assert_bounded(what, GROWTH_BYTES_MAX * u64::from(self.server.shards()));
    }

    /// The same, where the input is allowed to leave `growth_bytes_max` behind.
    fn assert_bounded(&mut self, what: &str, growth_bytes_max: u64) {
        self.exchange(what);
        let limit = self.resident_bytes.saturating_add(growth_bytes_max + INDEX_BYTES_MAX);
        eventually(&format!("{what}: memory comes back"), || (self.server.resident_bytes() < limit).then_some(()));
        assert!(!self.server.log().contains("panicked"), "{what}:\n{}", self.server.log());
    }

    fn exchange(&mut self, what: &str) {
        self.messages += 1;
        assert_eq!(self.alice.tell("bob", what)["seq"], self.messages, "{what}");
        let message = self.bob.expect("new_message");
        assert_eq!((&message["seq"], &message["content"]), (&Value::from(self.messages), &Value::from(what)));
    }
}
