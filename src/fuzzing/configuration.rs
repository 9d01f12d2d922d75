//! Checks configuration text: whatever is written, either every error is named with its place, or the capacities can be derived
//! from it and their sum told.

use std::ffi::OsString;

use super::input::Input;
use crate::config::memory::MemorySum;
use crate::config::{Config, Flag, Limits, Sources};

/// How to read it, then a file's text, or lines of `NAME=value` for the environment, or `section.key=value` of flags.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let how = input.byte();
    let dev = how & 1 == 0;
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    let read = || match how >> 1 & 3 {
        0 | 1 => Config::parse("corehub.toml", &text, dev),
        2 => {
            let pairs = text.lines().map(|line| line.split_once('=').unwrap_or((line, "")));
            let environment = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
            Config::load(&Sources { environment, dev, ..Sources::default() })
        }
        _ => Config::load(&Sources { flags: text.lines().map(Flag::set).collect(), dev, ..Sources::default() }),
    };
    let first = read();
    assert_eq!(first, read(), "the same text means the same");
    match first {
        Ok(config) => {
            for cores in [0, 1, 2, 64, 1_024] {
                let limits = Limits::derive(&config, cores);
                assert!(limits.shards > 0 && limits.connections_per_shard_max > 0, "{limits:?}");
                let sum = MemorySum::of(&limits);
                assert!(sum.total_bytes() >= sum.shard_bytes());
            }
        }
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused without a reason");
            for finding in &errors.0 {
                let told = finding.to_string();
                assert!(told.contains(&finding.key) && told.len() > finding.key.len(), "{told}");
            }
        }
    }
}
