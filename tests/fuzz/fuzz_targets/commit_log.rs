//! libFuzzer's way into `corehub::fuzzing::commit_log`, which says what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corehub::fuzzing::commit_log::check(input));
