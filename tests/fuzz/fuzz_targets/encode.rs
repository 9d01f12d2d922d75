//! libFuzzer's way into `corehub::fuzzing::encode`, which says what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corehub::fuzzing::encode::check(input));
