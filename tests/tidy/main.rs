//! Reads the repository and holds it to its own rules: layers, where danger and the outside may live, sizes, and what may be
//! tracked. Every rule is a table or a number here; a failure names each offending place.

mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use source::{Source, line_of, words};

/// Layer of each folder of `src/` (docs/ARCHITECTURE.md): a folder imports from lower layers only.
const LAYERS: &[(&str, u8)] = &[
    ("types", 0),
    ("scheduling", 0),
    ("config", 0),
    ("metrics", 0),
    ("wire", 1),
    ("auth", 1),
    ("engine", 1),
    ("mesh", 2),
    ("store", 2),
    ("bus", 2),
    ("sim", 3),
    ("shard", 3),
    ("control", 3),
    ("server", 4),
    ("loadgen", 4),
    ("cli", 5),
    ("main", 6),
    ("bin", 6),
    ("lib", 6),
];

/// Imports within one layer that are part of the design.
const SIDEWAYS: &[(&str, &str)] = &[("engine", "auth"), ("metrics", "types")];

/// Crates that may be named only below the given paths.
const CONFINED: &[(&str, &[&str])] = &[
    ("glommio", &["src/shard/"]),
    ("tokio", &["src/control/", "src/store/postgres", "src/bus/"]),
    ("axum", &["src/control/"]),
    ("tantivy", &["src/store/embedded/search/"]),
];

/// Folders that are told the time and never look it up.
const CLOCKLESS: &[&str] = &["types", "wire", "auth", "engine", "config", "sim"];

/// Files that may say `unsafe`: the shard's ring, its private descriptor table, the load generator's own ring, and one system
/// call that no safe library has.
const UNSAFE_ALLOWED: &[&str] =
    &["src/shard/ring.rs", "src/shard/ring/", "src/shard/descriptors.rs", "src/loadgen/ceiling.rs", "src/scheduling.rs"];

/// Functions over [`FUNCTION_LINES_MAX`] that are waiting to be cut. Entries leave this list; none may enter it.
const LONG_FUNCTIONS: &[(&str, &str)] = &[("src/mesh/tests.rs", "run_random"), ("src/wire/frame/reference.rs", "walk")];

const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "docs",
    "perf",
    "rustfmt.toml",
    "scripts",
    "src",
    "tests",
];

const COLUMNS_MAX: usize = 130;
const FILE_LINES_MAX: usize = 650;
const FUNCTION_LINES_MAX: usize = 70;
const BLOB_BYTES_MAX: u64 = 256 * 1024;
/// `expect` per 1,000 shipped lines, blank lines and comments not counted. May fall, not rise.
const EXPECTS_PER_THOUSAND_MAX: f64 = 4.0;
/// Shortest text that can say why an `expect` holds.
const EXPECT_REASON_BYTES_MIN: usize = 12;

#[test]
fn imports_point_to_lower_layers() {
    let mut faults = Vec::new();
    for source in shipped_sources() {
        let folder = source.folder();
        let Some(layer) = layer_of(folder) else {
            faults.push(format!("{}: folder `{folder}` has no layer: add it to LAYERS", source.path));
            continue;
        };
        if folder == "lib" {
            continue;
        }
        for (line, target) in imported_folders(&source) {
            let Some(target_layer) = layer_of(&target) else { continue };
            let allowed = target == folder || target_layer < layer || SIDEWAYS.contains(&(folder, target.as_str()));
            if !allowed {
                faults.push(format!(
                    "{}:{line}: `{folder}` (layer {layer}) imports `{target}` (layer {target_layer})",
                    source.path
                ));
            }
        }
    }
    report("imports against the layer table", faults);
}

#[test]
fn every_file_says_what_it_owns() {
    let faults = all_sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: does not open with `//!`", source.path))
        .collect();
    report("module documentation", faults);
}

#[test]
fn runtimes_stay_in_their_folders() {
    let mut faults = Vec::new();
    for source in shipped_sources() {
        for (name, homes) in CONFINED {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            faults
                .extend(words(&source.code, name).map(|at| {
                    format!("{}:{}: `{name}` belongs to {}", source.path, line_of(&source.code, at), homes.join(", "))
                }));
        }
    }
    report("confined crates", faults);
}

#[test]
fn deciding_code_reads_no_clock() {
    let mut faults = Vec::new();
    for source in shipped_sources().iter().filter(|source| CLOCKLESS.contains(&source.folder())) {
        for clock in ["Instant::now", "SystemTime", "clock_gettime"] {
            faults.extend(source.shipped.match_indices(clock).map(|(at, _)| {
                format!("{}:{}: `{clock}`: take the time as a parameter", source.path, line_of(&source.shipped, at))
            }));
        }
    }
    report("clocks", faults);
}

#[test]
fn unsafe_stays_in_named_files() {
    let mut faults = Vec::new();
    for source in all_sources() {
        if UNSAFE_ALLOWED.iter().any(|allowed| source.path.starts_with(allowed)) {
            continue;
        }
        faults.extend(words(&source.code, "unsafe").map(|at| format!("{}:{}: `unsafe`", source.path, line_of(&source.code, at))));
    }
    report("unsafe code", faults);
}

#[test]
fn unsafe_blocks_say_why_they_are_safe() {
    let mut faults = Vec::new();
    for source in shipped_sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for at in words(&source.code, "unsafe") {
            let line = line_of(&source.code, at);
            let above = &lines[line.saturating_sub(8)..line];
            if !above.iter().any(|text| text.contains("SAFETY:") || text.contains("# Safety")) {
                faults.push(format!("{}:{line}: no SAFETY: reason within the 7 lines above", source.path));
            }
        }
    }
    report("reasons of unsafe code", faults);
}

#[test]
fn nothing_is_left_to_do() {
    let mut faults = Vec::new();
    for source in all_sources() {
        for name in ["todo!", "unimplemented!", "dbg!"] {
            faults.extend(
                source.code.match_indices(name).map(|(at, _)| format!("{}:{}: `{name}`", source.path, line_of(&source.code, at))),
            );
        }
    }
    report("unfinished code", faults);
}

#[test]
fn lines_and_files_are_short() {
    let mut faults = Vec::new();
    for source in all_sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
        }
        for (index, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                faults.push(format!("{}:{}: {columns} columns, at most {COLUMNS_MAX}", source.path, index + 1));
            }
        }
    }
    report("sizes", faults);
}

#[test]
fn no_function_newly_crosses_the_line() {
    let mut faults = Vec::new();
    let mut seen = Vec::new();
    for source in all_sources() {
        for function in source.functions(&source.code) {
            if function.lines <= FUNCTION_LINES_MAX {
                continue;
            }
            seen.push((source.path.clone(), function.name.clone()));
            if !LONG_FUNCTIONS.contains(&(source.path.as_str(), function.name.as_str())) {
                faults.push(format!(
                    "{}:{}: `{}` has {} lines, at most {FUNCTION_LINES_MAX}",
                    source.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    for (path, name) in LONG_FUNCTIONS {
        if !seen.iter().any(|(seen_path, seen_name)| seen_path == path && seen_name == name) {
            faults.push(format!("{path}: `{name}` is short now: take it off LONG_FUNCTIONS"));
        }
    }
    report("function lengths", faults);
}

#[test]
fn shipped_code_panics_for_stated_reasons_only() {
    let mut faults = Vec::new();
    let (mut expects, mut lines) = (0, 0);
    let mut folders = std::collections::BTreeMap::new();
    for source in shipped_sources() {
        lines += source.shipped.lines().filter(|line| !line.trim().is_empty()).count();
        for (at, _) in source.shipped.match_indices(".unwrap()") {
            faults.push(format!("{}:{}: bare `.unwrap()`", source.path, line_of(&source.shipped, at)));
        }
        for (at, _) in source.shipped.match_indices(".expect(") {
            expects += 1;
            *folders.entry(source.folder().to_owned()).or_insert(0) += 1;
            let argument = source.text[at + ".expect(".len()..].trim_start();
            let reason = argument.strip_prefix('"').and_then(|text| text.split('"').next()).unwrap_or(argument);
            if reason.len() < EXPECT_REASON_BYTES_MIN {
                faults.push(format!("{}:{}: `.expect` without a reason", source.path, line_of(&source.shipped, at)));
            }
        }
    }
    let density = f64::from(expects) * 1000.0 / lines.max(1) as f64;
    println!("{expects} expects in {lines} lines of shipped code, {density:.2} per 1,000: {folders:?}");
    if density > EXPECTS_PER_THOUSAND_MAX {
        faults.push(format!("{density:.2} expects per 1,000 lines, at most {EXPECTS_PER_THOUSAND_MAX}: {folders:?}"));
    }
    report("panics", faults);
}

#[test]
fn the_repository_holds_only_what_belongs() {
    let root = root();
    let listing = Command::new("git").args(["ls-files", "-z"]).current_dir(&root).output();
    let Some(listing) = listing.ok().filter(|output| output.status.success()) else {
        println!("not a git checkout: nothing to look at");
        return;
    };
    let mut faults = Vec::new();
    for path in String::from_utf8_lossy(&listing.stdout).split('\0').filter(|path| !path.is_empty()) {
        let top = path.split('/').next().expect("split yields at least one part");
        if !TOP_LEVEL.contains(&top) {
            faults.push(format!("{path}: `{top}` is not one of the top-level entries"));
        }
        // A file that is tracked and deleted in the work tree has no size to judge.
        let bytes = std::fs::symlink_metadata(root.join(path)).map_or(0, |metadata| metadata.len());
        if bytes > BLOB_BYTES_MAX {
            faults.push(format!("{path}: {bytes} bytes, at most {BLOB_BYTES_MAX}"));
        }
    }
    report("tracked files", faults);
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "//! x\nuse crate::{types::A, wire};\nuse super::super::shard::B;\nfn f() { crate::store::c(); }\n\
                const S: &str = \"crate::cli unsafe\"; // crate::cli\n#[cfg(test)]\nmod tests { use crate::cli; }\n";
    let source = Source::new("src/engine/sample.rs".to_owned(), text.to_owned());
    let mut found: Vec<String> = imported_folders(&source).into_iter().map(|(_, folder)| folder).collect();
    found.sort();
    assert_eq!(found, ["shard", "store", "types", "wire"]);
    assert_eq!(words(&source.code, "unsafe").count(), 0);
    assert!(!source.shipped.contains("cli") && source.code.contains("crate::cli;"));
    assert_eq!(source.functions(&source.code).len(), 1);
    let tricky =
        Source::new("src/x.rs".to_owned(), "fn a<'a>(c: char) -> bool { c == '{' || c == '\\'' }\nfn b() {}\n".to_owned());
    assert_eq!(tricky.functions(&tricky.code).iter().map(|function| function.lines).collect::<Vec<_>>(), [1, 1]);
}

fn layer_of(folder: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == folder).map(|(_, layer)| *layer)
}

/// Every folder of the crate that shipped code of the file names, with the line: after `crate::` (alone or in braces), after
/// enough `super::` to reach the crate's root, and after `corehub::` in the program's own file.
fn imported_folders(source: &Source) -> Vec<(usize, String)> {
    let code = &source.shipped;
    let mut found = Vec::new();
    let mut take = |at: usize, after: usize| {
        let line = line_of(code, at);
        found.extend(first_segments(&code[after..]).into_iter().map(|folder| (line, folder)));
    };
    for at in words(code, "crate").chain(words(code, "corehub")) {
        let after = at + if code[at..].starts_with("crate") { 5 } else { 7 };
        if code[after..].starts_with("::") {
            take(at, after + 2);
        }
    }
    let climb = "super::".repeat(source.module_depth());
    if !climb.is_empty() {
        for (at, _) in code.match_indices(&climb) {
            take(at, at + climb.len());
        }
    }
    found
}

/// `a::b` gives `a`; `{a::b, c::{d, e}, f}` gives `a`, `c`, `f`.
fn first_segments(path: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut depth, mut start, mut names) = (0usize, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(word(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(word(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Files that become part of the program, without those that hold tests only.
fn shipped_sources() -> Vec<Source> {
    Source::all(&root(), "src").into_iter().filter(|source| !source.shipped.trim().is_empty()).collect()
}

fn all_sources() -> Vec<Source> {
    ["src", "tests", "benches", "perf"].iter().flat_map(|folder| Source::all(&root(), folder)).collect()
}

fn report(rule: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{rule}: {} faults\n  {}", faults.len(), faults.join("\n  "));
}
