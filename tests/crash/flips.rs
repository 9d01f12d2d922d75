//! Owns damage done to files while no server looks: a bit flipped, a tail cut, in every file of a data folder. Whatever a server
//! then shows must be right; what it cannot show it must refuse, at once with the file's name or later for the conversation.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::number;
use super::specimen::{CONFIG, Specimen};
use super::witness::{Sight, look};
use crate::support::Server;

/// What is done to one file.
#[derive(Clone, Copy, Debug)]
pub enum Harm {
    Flip { at: u64, bit: u8 },
    Cut { at: u64 },
}

/// How a server took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything is there and right.
    Whole,
    /// Some conversations are refused, all others are right.
    Limited,
    /// It did not start, and said which file is to blame.
    Refused,
    /// What must not be.
    Fault,
}

impl fmt::Display for Harm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Harm::Flip { at, bit } => write!(out, "bit {bit} of byte {at} flipped"),
            Harm::Cut { at } => write!(out, "cut at byte {at}"),
        }
    }
}

impl Harm {
    fn kind(self) -> &'static str {
        match self {
            Harm::Flip { .. } => "flip",
            Harm::Cut { .. } => "cut",
        }
    }

    /// Something near the beginning, near the end, or anywhere.
    fn choose(rng: &mut Rng, end: u64, flip: bool) -> Harm {
        let at = match rng.u8(..4) {
            0 => rng.u64(..end.min(EDGE_BYTES)),
            1 => rng.u64(end.saturating_sub(EDGE_BYTES)..end),
            _ => rng.u64(..end),
        };
        if flip { Harm::Flip { at, bit: rng.u8(..8) } } else { Harm::Cut { at } }
    }

    fn apply(self, path: &Path) {
        let file = File::options().read(true).write(true).open(path).expect("the file is ours");
        match self {
            Harm::Flip { at, bit } => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).expect("the byte is there");
                byte[0] ^= 1 << bit;
                file.write_all_at(&byte, at).expect("the file takes it");
            }
            Harm::Cut { at } => file.set_len(at).expect("the file can be cut"),
        }
    }
}

/// Harms one file after the other, each in a fresh copy. `per_file` flips and as many cuts for every file, or only a few in all.
pub fn run(per_file: Option<u64>) {
    let seed = number("COREHUB_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("flips: COREHUB_CRASH_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let specimen = Specimen::make();
    let files = specimen.files();
    let only = std::env::var("COREHUB_CRASH_FILE").unwrap_or_default();
    let mut cases = Vec::new();
    for file in files.iter().filter(|file| file.to_string_lossy().contains(&only)) {
        for turn in 0..per_file.unwrap_or(1) * 2 {
            cases.push((file, Harm::choose(&mut rng, specimen.content_end(file), turn % 2 == 0)));
        }
    }
    if per_file.is_none() {
        rng.shuffle(&mut cases);
        cases.truncate(CASES_DEFAULT);
    }
    println!("flips: {} files, {} cases", files.len(), cases.len());
    let mut counts: BTreeMap<(String, &str, Outcome), usize> = BTreeMap::new();
    let mut faults = Vec::new();
    let undamaged = try_one(&specimen, None);
    assert!(matches!(undamaged, Ok(Outcome::Whole)), "the specimen itself is not in order: {undamaged:?}");
    for (file, harm) in &cases {
        let outcome = try_one(&specimen, Some((file, *harm))).unwrap_or_else(|fault| {
            println!("flips: FAULT {}: {harm}: {fault}", file.display());
            faults.push(format!("{}: {harm}: {fault}", file.display()));
            Outcome::Fault
        });
        *counts.entry((kind(file), harm.kind(), outcome)).or_default() += 1;
    }
    for ((file, harm, outcome), count) in &counts {
        println!("flips: {file} {harm} {outcome:?}: {count}");
    }
    println!("flips: cases={} faults={}", cases.len(), faults.len());
    assert!(faults.is_empty(), "{} faults, such as\n{:#?}", faults.len(), &faults[..faults.len().min(FAULTS_SHOWN)]);
}

fn try_one(specimen: &Specimen, harmed: Option<(&Path, Harm)>) -> Result<Outcome, String> {
    let copy = specimen.copy();
    let data = copy.path().join("data");
    if let Some((file, harm)) = harmed {
        harm.apply(&data.join(file));
    }
    let server = match Server::try_start_in(1, CONFIG, &data) {
        Ok(server) => server,
        Err(refusal) => {
            let name = harmed.map(|(file, _)| data.join(file).display().to_string()).unwrap_or_default();
            if let Some(panic) = refusal.log.lines().find(|line| line.contains("panicked")) {
                return Err(format!("a panic: {panic}"));
            }
            if refusal.status.code() != Some(1) {
                return Err(format!("ended with {}: {}", refusal.status, refusal.log));
            }
            let (named, advised) = (refusal.log.contains(&name), ADVICE.iter().any(|word| refusal.log.contains(word)));
            return match named && advised {
                true => Ok(Outcome::Refused),
                false => Err(format!("names neither file nor remedy: {}", refusal.log)),
            };
        }
    };
    let sight = look(&server, specimen);
    let log = server.log();
    let told = log.lines().filter(|line| DAMAGE.iter().any(|word| line.contains(word))).count();
    if log.contains("panicked") {
        // The server's own end looks for that too, and would fail the whole run.
        std::mem::forget(server);
        return Err(format!("a panic: {}", log.lines().find(|line| line.contains("panicked")).unwrap_or_default()));
    }
    end(&server)?;
    match sight? {
        Sight { refused, .. } if refused.is_empty() => Ok(Outcome::Whole),
        Sight { refused, readable: 0 } => Err(format!("all {} conversations are refused: {log}", refused.len())),
        Sight { refused, .. } if told == 0 => Err(format!("{refused:?} are refused and the log says nothing: {log}")),
        _ => Ok(Outcome::Limited),
    }
}

/// A server with damage ends in order.
fn end(server: &Server) -> Result<(), String> {
    server.terminate();
    let begun = Instant::now();
    let status = server.wait_for_exit();
    if begun.elapsed() > END_MAX {
        return Err(format!("took {:?} to end: {}", begun.elapsed(), server.log()));
    }
    if status.code() == Some(0) { Ok(()) } else { Err(format!("ended with {status}: {}", server.log())) }
}

/// What a file is, without its number.
fn kind(file: &Path) -> String {
    let letters = |part: &str| part.chars().map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).collect::<String>();
    let parts = file.iter().map(|part| letters(&part.to_string_lossy()));
    let mut name = parts.collect::<Vec<_>>().join("/");
    while name.contains("##") {
        name = name.replace("##", "#");
    }
    name
}

const EDGE_BYTES: u64 = 96;
const CASES_DEFAULT: usize = 14;
const FAULTS_SHOWN: usize = 20;
const END_MAX: Duration = Duration::from_secs(40);
/// What a refusal advises.
const ADVICE: [&str; 3] = ["backup", "set store.path", "move it away"];
const DAMAGE: [&str; 3] = ["damaged", "hecksum", "cannot read"];
