//! Runs every fuzzer over its kept corpus and over seeded mutations of it: the same ones each time, and new ones, whose seed is
//! printed. An input that takes too long or too much memory ends the whole test by itself.
//!
//! `COREHUB_FUZZ_SEED` replays a run, `COREHUB_FUZZ_RUNS` sets its length.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mutate::Mutator;

macro_rules! fuzzers {
    ($($name:ident: $runs:literal,)+) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name), super::$name::check, $runs);
            }
        )+

        #[test]
        fn every_fuzzer_has_its_program() {
            let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
            let mut listed: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")).collect();
            let mut known = vec![$(concat!(stringify!($name), ".rs\"")),+];
            listed.sort_unstable();
            known.sort_unstable();
            assert_eq!(listed, known);
        }
    };
}

// How many mutations a plain test run tries: about a second each.
fuzzers! {
    commands: 300,
    commit_log: 1_500,
    configuration: 4_000,
    encode: 10_000,
    envelope: 10_000,
    fragments: 4_000,
    frames: 4_000,
    journal: 1_500,
    records: 20_000,
    text: 4_000,
    token: 3_000,
    upgrade: 4_000,
}

#[test]
fn the_corpus_stays_small() {
    let bytes: u64 = std::fs::read_dir(folder().join("corpus"))
        .unwrap()
        .flat_map(|target| std::fs::read_dir(target.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes; `scripts/fuzz --minimise` keeps what adds coverage");
}

fn run(name: &str, check: fn(&[u8]), runs: u64) {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder().join("corpus").join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "a fuzzer without a corpus reaches little");
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let watch = Watch::start();
    for (file, input) in files.iter().zip(&corpus) {
        watch.over(&file.display().to_string(), input, check);
    }
    let words = words(name);
    let fresh = number("COREHUB_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let runs = number("COREHUB_FUZZ_RUNS").unwrap_or(runs);
    println!("{name}: {} kept inputs, {runs} mutations each with seed 1 and with COREHUB_FUZZ_SEED={fresh}", corpus.len());
    for seed in [1, fresh] {
        let mut mutator = Mutator::new(seed, &corpus, &words);
        for count in 0..runs {
            watch.over(&format!("COREHUB_FUZZ_SEED={seed}, input {count}"), &mutator.next(), check);
        }
    }
}

/// Looks at one input from another thread while it is checked.
struct Watch {
    present: Arc<Mutex<Option<Present>>>,
}

struct Present {
    what: String,
    input: Vec<u8>,
    since: Instant,
    resident_bytes: u64,
}

impl Watch {
    fn start() -> Watch {
        let present = Arc::new(Mutex::new(None));
        let watched = Arc::downgrade(&present);
        std::thread::spawn(move || {
            while let Some(present) = watched.upgrade() {
                if let Some(present) = &*present.lock().unwrap_or_else(PoisonError::into_inner) {
                    judge(present);
                }
                drop(present);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Watch { present }
    }

    fn over(&self, what: &str, input: &[u8], check: fn(&[u8])) {
        let present = Present { what: what.to_owned(), input: input.to_vec(), since: Instant::now(), resident_bytes: resident() };
        *self.lock() = Some(present);
        let result = catch_unwind(AssertUnwindSafe(|| check(input)));
        *self.lock() = None;
        if let Err(fault) = result {
            eprintln!("{what}: {}", input.escape_ascii());
            resume_unwind(fault);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An endless loop cannot be unwound, so the whole process ends.
fn judge(present: &Present) {
    let (taken, grown) = (present.since.elapsed(), resident().saturating_sub(present.resident_bytes));
    if taken > patience() || grown > GROWTH_BYTES_MAX {
        // Not `eprintln!`: what a test prints is kept, and lost when the process ends.
        let input = present.input.escape_ascii();
        let _ = writeln!(std::io::stderr(), "{}: not done after {taken:?}, {grown} bytes more: {input}", present.what);
        std::process::abort();
    }
}

/// Far more than any input needs, also on a machine that is busy with other things.
fn patience() -> Duration {
    Duration::from_millis(number("COREHUB_FUZZ_PATIENCE_MS").unwrap_or(120_000))
}

/// Of the whole process, so that what other tests take at the same time counts as well: the bound is far above that.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}

/// Words of the target's dictionary, in the form that libFuzzer reads.
fn words(name: &str) -> Vec<Vec<u8>> {
    let Ok(text) = std::fs::read_to_string(folder().join("dictionaries").join(format!("{name}.dict"))) else { return Vec::new() };
    text.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix('"').map(unescape)).collect()
}

fn unescape(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    loop {
        match rest {
            [b'\\', b'x', high, low, after @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16).expect("a dictionary has two digits after \\x") as u8;
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                bytes.push(*byte);
                rest = after;
            }
            [] => return bytes,
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

#[test]
fn an_endless_loop_ends_the_test() {
    let program = std::env::current_exe().unwrap();
    let ended = std::process::Command::new(program)
        .args(["--ignored", "--exact", "fuzzing::tests::loops_for_ever"])
        .env("COREHUB_FUZZ_PATIENCE_MS", "200")
        .output()
        .unwrap();
    assert!(!ended.status.success());
    assert!(String::from_utf8_lossy(&ended.stderr).contains("an endless one: not done after"));
}

#[test]
#[ignore = "it is what the test above ends"]
fn loops_for_ever() {
    Watch::start().over("an endless one", b"x", |_| {
        loop {
            std::hint::spin_loop()
        }
    });
}

#[test]
fn words_are_read_as_libfuzzer_reads_them() {
    assert_eq!(unescape(r#"a\x00\"\\"#), b"a\0\"\\");
}

const GROWTH_BYTES_MAX: u64 = 2 << 30;
const CORPUS_BYTES_MAX: u64 = 300_000;
