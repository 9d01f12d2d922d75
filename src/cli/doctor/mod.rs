//! Owns `corehub doctor`: what this machine offers against what the configuration asks for, and the command that mends it.
//!
//! Never changes anything: it opens a ring and binds ports only to let go of them again. Lives on the main thread.

mod kernel;
mod machine;

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};

use crate::config::{Config, Limits};

use super::arguments::DoctorArguments;
use super::{Environment, Exit, configuration, cores, print};

pub use machine::memory_bytes;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// The server starts, but not all that was asked for can be had.
    Notice,
    /// The server does not start.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    meaning: String,
    /// A command, or what else to do.
    mend: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>, meaning: impl Into<String>) -> Check {
        Check { name, verdict: Verdict::Good, found: found.into(), meaning: meaning.into(), mend: None }
    }

    fn notice(name: &'static str, found: impl Into<String>, meaning: impl Into<String>, mend: impl Into<String>) -> Check {
        Check { verdict: Verdict::Notice, mend: Some(mend.into()), ..Check::good(name, found, meaning) }
    }

    fn bad(name: &'static str, found: impl Into<String>, meaning: impl Into<String>, mend: impl Into<String>) -> Check {
        Check { verdict: Verdict::Bad, mend: Some(mend.into()), ..Check::good(name, found, meaning) }
    }
}

/// `corehub doctor`.
pub fn doctor(arguments: &DoctorArguments, environment: Environment) -> anyhow::Result<Exit> {
    let (config, configuration) = configuration_check(arguments, environment);
    let limits = Limits::derive(&config, cores());
    let mut checks = vec![configuration];
    checks.extend(kernel::checks(&limits));
    checks.extend(machine::checks(&config, &limits));
    print(&report(&checks))?;
    let bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    Ok(if bad { Exit::Failed } else { Exit::Done })
}

/// The configuration to measure the machine by, and how good it is. Without a secret it still says what is asked for.
fn configuration_check(arguments: &DoctorArguments, environment: Environment) -> (Config, Check) {
    let name = "configuration";
    let errors = match arguments.serve.load(environment.clone()) {
        Ok(config) => return (config, Check::good(name, "good", "serve would accept it")),
        Err(errors) => errors,
    };
    let relaxed = crate::config::Sources { dev: true, ..arguments.serve.sources(environment) };
    match Config::load(&relaxed) {
        Ok(config) => {
            let mend = "set COREHUB_AUTH__HMAC_SECRET to the output of `openssl rand -hex 32`, or start with --dev";
            (Config { dev: false, ..config }, Check::notice(name, errors.to_string(), "serve starts only with --dev", mend))
        }
        Err(_) => {
            let mend = "corehub config check, with the same flags";
            let found = format!("{} errors; what follows is measured by the defaults", errors.0.len());
            (Config::default(), Check::bad(name, found, "serve refuses it", mend))
        }
    }
}

fn report(checks: &[Check]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(["check", "", "found", "what it means"]);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(TABLE_COLUMNS);
    for check in checks {
        table.add_row([check.name, word(check.verdict), &check.found, &check.meaning]);
    }
    let mut out = configuration::trimmed(&table);
    out.push('\n');
    let mends: Vec<_> = checks.iter().filter_map(|check| Some((check, check.mend.as_ref()?))).collect();
    for (check, mend) in &mends {
        let _ = write!(out, "\n{} ({}):\n    {mend}\n", check.name, word(check.verdict));
    }
    let bad = checks.iter().filter(|check| check.verdict == Verdict::Bad).count();
    out.push_str(match (bad, mends.len()) {
        (0, 0) => "\nAll is well.\n",
        (0, _) => "\nThe server can start; the notes above say what it will lack.\n",
        _ => "\nThe server cannot start as it is.\n",
    });
    out
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Notice => "note",
        Verdict::Bad => "BAD",
    }
}

const TABLE_COLUMNS: u16 = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_ends_with_what_it_comes_to() {
        let good = Check::good("a", "x", "y");
        assert!(report(std::slice::from_ref(&good)).ends_with("All is well.\n"));
        let notice = report(&[good.clone(), Check::notice("b", "x", "y", "mend it so")]);
        assert!(notice.contains("b (note):\n    mend it so\n") && notice.contains("can start;"), "{notice}");
        assert!(report(&[good, Check::bad("c", "x", "y", "mend it so")]).ends_with("cannot start as it is.\n"));
    }

    #[test]
    fn a_missing_secret_is_no_obstacle_to_measuring_the_machine() {
        let (_, check) = configuration_check(&DoctorArguments::default(), Vec::new());
        assert_eq!(check.verdict, Verdict::Notice);
        let (_, check) = configuration_check(&DoctorArguments::default(), vec![("COREHUB_LOG__LEVEL".into(), "loud".into())]);
        assert_eq!(check.verdict, Verdict::Bad);
    }
}
