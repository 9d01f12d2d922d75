//! Owns the proof of the simulator itself: every fault that can be planted must be found within a bounded number of seeds.
//! Never looks for a shorter script. Lives on the thread that runs it, since faults are planted by thread.

use std::fmt;

use super::run::run_once;
use crate::types::planted::{Planted, plant};

/// How a planted fault fared.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub fault: Planted,
    /// Seeds needed until it was found, counted from the first, and why that run failed. None: not found.
    pub found: Option<(u64, String)>,
}

/// Plants a fault and runs seeds from `first` on until one fails, at most `seeds_max`.
///
/// # Panics
/// When the run fails without the fault, too.
pub fn hunt(fault: Planted, first: u64, seeds_max: u64, ms: u64) -> Verdict {
    plant(Some(fault));
    let found = (0..seeds_max).find_map(|at| run_once(first.wrapping_add(at), ms).err().map(|why| (at + 1, why)));
    plant(None);
    if let Some((seeds, why)) = &found {
        let without = run_once(first.wrapping_add(seeds - 1), ms).err();
        assert_eq!(without, None, "the same run fails without {fault:?}, so it shows nothing; with it: {why}");
    }
    Verdict { fault, found }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", self.fault);
        match &self.found {
            None => write!(out, "{name:<22} NOT FOUND"),
            Some((seeds, why)) => {
                // The first line of a panic says only where.
                let said: Vec<&str> = why.lines().skip(1).take(1).collect();
                let said: String = said.join(" ").chars().take(WHY_CHARS_MAX).collect();
                write!(out, "{name:<22} {seeds:>5}  {said}")
            }
        }
    }
}

const WHY_CHARS_MAX: usize = 100;
