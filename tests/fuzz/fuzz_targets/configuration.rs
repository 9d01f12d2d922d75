//! libFuzzer's way into `corehub::fuzzing::configuration`, which says what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corehub::fuzzing::configuration::check(input));
