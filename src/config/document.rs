//! Owns the documents made from the table of options: the sample file and `docs/CONFIG.md`. Never says anything that is not in
//! the table or true of all options.

use std::fmt::Write;

use super::options::{Config, OPTIONS, SECTIONS};
use super::spec::{Spec, Start, Status};

/// A TOML file that documents every option. Lines with a default begin with `#` alone, so taking that away changes nothing.
pub fn sample() -> String {
    let mut out = String::from(SAMPLE_HEAD);
    let config = Config::default();
    for (section, doc) in SECTIONS {
        let _ = write!(out, "\n{}\n[{section}]\n", comment(&paragraph(doc)));
        for spec in of_section(section).filter(|spec| spec.status != Status::Unsupported) {
            let _ = writeln!(out, "\n{}", comment(&spec.text()));
            let _ = writeln!(out, "{}", comment(&format!("Must be {}.", spec.allowed())));
            let _ = match spec.start {
                Start::Default(_) => writeln!(out, "#{} = {}", spec.key, config.write(spec)),
                Start::Unset(example) => writeln!(out, "# Not set. Example: {} = {example}", spec.key),
            };
        }
    }
    out
}

/// `docs/CONFIG.md`.
pub fn reference() -> String {
    let mut out = String::from(REFERENCE_HEAD);
    let config = Config::default();
    for (section, doc) in SECTIONS {
        let _ = write!(out, "\n## {section}\n\n{}\n\n", paragraph(doc));
        out.push_str("| key | default | must be | meaning |\n|---|---|---|---|\n");
        for spec in of_section(section) {
            let default = match spec.start {
                Start::Default(_) => format!("`{}`", config.write(spec)),
                Start::Unset(_) => "not set".to_owned(),
            };
            let _ = writeln!(out, "| `{}` | {default} | {} | {} |", spec.path, cell(&spec.allowed()), cell(&meaning(spec)));
        }
    }
    out
}

fn of_section<'s>(section: &'s str) -> impl Iterator<Item = &'static Spec> + use<'s> {
    OPTIONS.iter().filter(move |spec| spec.section == section)
}

fn meaning(spec: &Spec) -> String {
    let text = spec.text();
    match spec.status {
        Status::Restart => text,
        Status::Reloadable => format!("{text} Reloadable."),
        Status::Unsupported => format!("{text} **Not supported by this version: setting it is an error.**"),
    }
}

fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// A bar would end the cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Lines of a comment, broken between words.
fn comment(text: &str) -> String {
    let (mut out, mut width) = (String::from("#"), 1);
    for word in text.split(' ') {
        if width + 1 + word.len() > COMMENT_COLUMNS_MAX {
            out.push_str("\n#");
            width = 1;
        }
        out.push(' ');
        out.push_str(word);
        width += 1 + word.len();
    }
    out
}

const COMMENT_COLUMNS_MAX: usize = 110;

const SAMPLE_HEAD: &str = "\
# corehub configuration: every option with its default, commented out.
#
# Order: this file < environment COREHUB_SECTION__KEY < flags. Unknown keys are errors.
# Check it with: corehub config check --config FILE
";

const REFERENCE_HEAD: &str = "\
# Configuration

Made by `corehub config reference` from `src/config/options.rs`; do not edit. After a change of the table run
`cargo run -- config reference > docs/CONFIG.md`.

Sources, later ones win: a TOML file (`--config FILE`) < the environment (`COREHUB_SECTION__KEY`, such as
`COREHUB_LISTEN__CLIENT`) < flags (`--set section.key=value`; `serve` has `--listen`, `--admin`, `--data` and `--shards` for the
common ones). In the environment and in flags texts are written without quotes and lists are separated by commas.

- Unknown keys and unknown `COREHUB_*` variables are errors, except `COREHUB_PORT*` and `COREHUB_SERVICE_*`, which Kubernetes
  sets by itself for a service of this name.
- All errors are reported together, each with its file and line, variable or flag; the program then exits with 2.
- Durations: `10s`, `250ms`, `500us`, `1h30m`, `7d`; bare integers are seconds. Sizes: `512KiB`, `4MiB`; bare integers are bytes.
- Options marked *Reloadable* take effect on SIGHUP, all others at the next start.
- `corehub config check` reads what `serve` would read and prints the worst-case memory; `corehub config sample` prints a file
  to start from.
";
