//! Owns the result of a run and how it is shown: a table for people, JSON for programs. Never measures.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

/// A finished run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub scenario: &'static str,
    /// One line: what ran, with which options that matter.
    pub setting: String,
    pub figures: Vec<Figure>,
    pub checks: Vec<Check>,
    /// What a reader must know before believing a figure.
    pub warnings: Vec<String>,
}

/// One measured figure, a value per round.
#[derive(Clone, Debug)]
pub struct Figure {
    /// JSON key, unit last.
    pub key: &'static str,
    pub label: &'static str,
    pub unit: &'static str,
    pub values: Vec<f64>,
}

/// A bound that the run is held against.
#[derive(Clone, Debug)]
pub struct Check {
    pub label: &'static str,
    pub value: f64,
    pub bound: f64,
    /// The bound is a lower one.
    pub at_least: bool,
    /// None: refused, because the generator itself was at its limit.
    pub verdict: Option<bool>,
}

impl Report {
    pub fn new(scenario: &'static str, setting: String) -> Report {
        Report { scenario, setting, ..Report::default() }
    }

    /// Adds a figure with one value per round.
    pub fn figure(&mut self, key: &'static str, label: &'static str, unit: &'static str, values: Vec<f64>) {
        self.figures.push(Figure { key, label, unit, values });
    }

    /// Holds `value` against an upper bound; no verdict when `saturated`.
    pub fn at_most(&mut self, label: &'static str, value: f64, bound: f64, saturated: bool) {
        let verdict = (!saturated && value.is_finite()).then_some(value <= bound);
        self.checks.push(Check { label, value, bound, at_least: false, verdict });
    }

    /// Holds `value` against a lower bound; no verdict when `saturated`.
    pub fn at_least(&mut self, label: &'static str, value: f64, bound: f64, saturated: bool) {
        let verdict = (!saturated && value.is_finite()).then_some(value >= bound);
        self.checks.push(Check { label, value, bound, at_least: true, verdict });
    }

    pub fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// True when every check has a verdict and it is good.
    pub fn good(&self) -> bool {
        self.checks.iter().all(|check| check.verdict == Some(true))
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut figures = Table::new();
        figures.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["figure", "median", "min", "max", "unit"]);
        for figure in &self.figures {
            let (low, high) = bounds(&figure.values);
            let spread = figure.values.len() > 1;
            figures.add_row([
                Cell::new(figure.label),
                number(median(&figure.values)),
                if spread { number(low) } else { Cell::new("") },
                if spread { number(high) } else { Cell::new("") },
                Cell::new(figure.unit),
            ]);
        }
        let mut text = format!("{}: {}\n{figures}\n", self.scenario, self.setting);
        if !self.checks.is_empty() {
            let mut checks = Table::new();
            checks.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["check", "value", "bound", "verdict"]);
            for check in &self.checks {
                let verdict = match check.verdict {
                    Some(true) => "good",
                    Some(false) => "FAILED",
                    None => "none",
                };
                let bound = Cell::new(format!("{} {}", if check.at_least { "≥" } else { "≤" }, written(check.bound)));
                let bound = bound.set_alignment(CellAlignment::Right);
                checks.add_row([Cell::new(check.label), number(check.value), bound, Cell::new(verdict)]);
            }
            text.push_str(&format!("{checks}\n"));
        }
        for warning in &self.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let figures: serde_json::Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| {
                let (low, high) = bounds(&figure.values);
                let value = json!({
                    "median": median(&figure.values), "min": low, "max": high,
                    "unit": figure.unit, "rounds": figure.values,
                });
                (figure.key.to_owned(), value)
            })
            .collect();
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                let bound = if check.at_least { "at_least" } else { "at_most" };
                json!({"check": check.label, "value": check.value, bound: check.bound, "good": check.verdict})
            })
            .collect();
        json!({
            "scenario": self.scenario, "setting": self.setting, "machine": machine(),
            "figures": figures, "checks": checks, "warnings": self.warnings, "good": self.good(),
        })
    }
}

/// `values` in `base`, round by round, so that what drifts over a run cancels out; a round without either gives NaN, hence no
/// verdict.
pub fn ratios(values: &[f64], base: &[f64]) -> Vec<f64> {
    let ratio = |(value, base): (&f64, &f64)| if value.is_normal() && base.is_normal() { value / base } else { f64::NAN };
    values.iter().zip(base).map(ratio).collect()
}

/// Middle value; the mean of the two middle ones of an even number; NaN of none, and of any NaN.
pub fn median(values: &[f64]) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

fn bounds(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::NAN, f64::min), values.iter().copied().fold(f64::NAN, f64::max))
}

fn number(value: f64) -> Cell {
    Cell::new(written(value)).set_alignment(CellAlignment::Right)
}

fn written(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        0.0 => "0".to_owned(),
        magnitude if magnitude >= 1_000.0 => thousands(value),
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        magnitude if magnitude >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

fn machine() -> Value {
    let system = rustix::system::uname();
    json!({
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": system.release().to_string_lossy(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_need_no_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(ratios(&[3.0, 8.0], &[1.0, 2.0]), [3.0, 4.0]);
        assert!(ratios(&[3.0, 0.0], &[f64::INFINITY, 1.0]).into_iter().all(f64::is_nan));
        assert!(median(&[1.0, f64::NAN]).is_nan() && median(&ratios(&[1.0], &[])).is_nan());
    }

    #[test]
    fn a_saturated_generator_gives_no_verdict() {
        let mut report = Report::new("fanout", String::new());
        report.at_most("ratio", 1.0, 1.15, false);
        assert!(report.good());
        report.at_most("ratio", 1.0, 1.15, true);
        assert!(!report.good());
        assert_eq!(report.checks[1].verdict, None);
        report.checks.pop();
        report.at_most("ratio", f64::NAN, 1.15, false);
        assert!(!report.good());
        report.checks.pop();
        report.at_least("rate", 2.0, 1.0, false);
        assert!(report.good());
        report.at_least("rate", 0.5, 1.0, false);
        assert!(!report.good() && report.table().contains("≥ 1.00"));
    }

    #[test]
    fn tables_and_json_name_every_figure() {
        let mut report = Report::new("idle", "x".to_owned());
        report.figure("user_bytes", "user memory", "bytes", vec![1_234_567.0, 1.5]);
        report.warn("be careful");
        assert!(report.table().contains("user memory") && report.table().contains("be careful"));
        assert_eq!(report.json()["figures"]["user_bytes"]["max"], 1_234_567.0);
        assert_eq!(thousands(1_234_567.4), "1 234 567");
    }
}
