//! Owns what the integration tests share: a server process of their own, clients, raw connections, crowds and tokens. Knows only
//! what an outsider knows: the wire protocol and the operator's contract. Never links the crate's own code.

pub mod client;
pub mod crowd;
pub mod frames;
pub mod http;
pub mod raw;
pub mod server;
pub mod token;

use std::time::{Duration, Instant};

pub use client::{Client, Login, Place};
pub use raw::RawConnection;
pub use server::Server;

/// How long anything that must happen may take before a test gives up. Only an upper bound: no test is decided by being fast.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How long a test listens for what must not happen.
pub const SILENCE: Duration = Duration::from_millis(300);

/// Asks until there is an answer, at most for [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Declares a test that runs on a server with one shard and on one with four: `at_shards!(name, "toml", |server| {...})`.
/// The configuration may be left out.
#[macro_export]
macro_rules! at_shards {
    (#[ignore = $why:literal] $name:ident, |$server:ident| $body:block) => {
        $crate::at_shards!(#[ignore = $why] $name, "", |$server| $body);
    };
    (#[ignore = $why:literal] $name:ident, $config:expr, |$server:ident| $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn check($server: &$crate::support::Server) $body

            #[test]
            #[ignore = $why]
            fn with_1_shard() {
                check(&$crate::support::Server::start(1, $config));
            }

            #[test]
            #[ignore = $why]
            fn with_4_shards() {
                check(&$crate::support::Server::start(4, $config));
            }
        }
    };
    ($name:ident, |$server:ident| $body:block) => {
        $crate::at_shards!($name, "", |$server| $body);
    };
    ($name:ident, $config:expr, |$server:ident| $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn check($server: &$crate::support::Server) $body

            #[test]
            fn with_1_shard() {
                check(&$crate::support::Server::start(1, $config));
            }

            #[test]
            fn with_4_shards() {
                check(&$crate::support::Server::start(4, $config));
            }
        }
    };
}
