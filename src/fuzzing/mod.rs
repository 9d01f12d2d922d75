//! Owns what every fuzzer checks: one function per way in for bytes that others wrote. Each takes any input, panics on a fault,
//! and is the same under libFuzzer (`tests/fuzz`, `scripts/fuzz`) and in the unit tests (`tests.rs`: the kept corpus and seeded
//! mutations of it).
//!
//! Never part of a release: compiled for tests and with the feature `fuzzing` only. Lives on whichever thread runs it.

pub mod commands;
pub mod commit_log;
pub mod configuration;
pub mod encode;
pub mod envelope;
mod folder;
pub mod fragments;
pub mod frames;
mod input;
pub mod journal;
pub mod records;
pub mod text;
pub mod token;
pub mod upgrade;

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod tests;
