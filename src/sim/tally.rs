//! Owns what a run has done to its node and where it came: events, faults by kind, states reached. Never judges.

use std::collections::BTreeMap;
use std::fmt;

use crate::types::planted::Reached;

/// Counts of one run, or the sum of many.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub seeds: u64,
    pub virtual_ms: u64,
    /// What happened on the agenda and what engines took in.
    pub events: u64,
    pub connections: u64,
    /// Messages that clients wanted stored.
    pub messages: u64,
    /// Log entries that clients heard.
    pub heard: u64,
    pub faults: BTreeMap<&'static str, u64>,
    /// By place in [`Reached::ALL`]; empty unless the build looks.
    pub reached: Vec<u64>,
}

impl Tally {
    /// Counts a fault that took place.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        self.seeds += other.seeds;
        self.virtual_ms += other.virtual_ms;
        self.events += other.events;
        self.connections += other.connections;
        self.messages += other.messages;
        self.heard += other.heard;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.reached.resize(self.reached.len().max(other.reached.len()), 0);
        for (sum, count) in self.reached.iter_mut().zip(&other.reached) {
            *sum += count;
        }
    }

    /// States that no run came to. Empty also where the build does not look.
    pub fn unreached(&self) -> Vec<Reached> {
        Reached::ALL.into_iter().zip(&self.reached).filter(|(_, count)| **count == 0).map(|(state, _)| state).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.virtual_ms as f64 / 3_600_000.0;
        writeln!(
            out,
            "{} seeds, {hours:.1} simulated hours, {} events, {} connections, {} messages, {} deliveries",
            self.seeds, self.events, self.connections, self.messages, self.heard
        )?;
        for (kind, count) in &self.faults {
            writeln!(out, "  fault {kind}: {count}")?;
        }
        for (state, count) in Reached::ALL.into_iter().zip(&self.reached) {
            writeln!(out, "  reached {state:?}: {count}")?;
        }
        Ok(())
    }
}
