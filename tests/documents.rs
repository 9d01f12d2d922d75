//! Holds the documents to the code: tables that derive from it, names that must exist, links that must lead somewhere.
//! Reads files of the repository and constants of the crate; never starts a server.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use corehub::config::{OPTIONS, StoreKind};
use corehub::metrics::catalog::Metric;
use corehub::types::{CloseCode, Command, ErrorName};

#[test]
fn the_error_table_is_that_of_the_code() {
    let mut faults = Vec::new();
    let mut wanted = Vec::new();
    for name in ErrorName::ALL {
        let temporary = if name.temporary() { "yes" } else { "no" };
        wanted.push(format!("| {} | `{}` | {temporary} | {} |", name.code(), name.name(), name.text()));
    }
    compare_rows(&section("docs/PROTOCOL.md", "## Errors"), &wanted, &mut faults);
    report("docs/PROTOCOL.md, Errors: against ErrorName::ALL of src/types/outcome.rs", &faults);
}

#[test]
fn the_close_table_is_that_of_the_code() {
    let mut faults = Vec::new();
    let wanted: Vec<String> = CloseCode::ALL.iter().map(|code| format!("| {} | `{}` |", code.code(), code.name())).collect();
    compare_rows(&section("docs/PROTOCOL.md", "## Close codes"), &wanted, &mut faults);
    report("docs/PROTOCOL.md, Close codes: against CloseCode::ALL of src/types/outcome.rs", &faults);
}

#[test]
fn what_is_marked_as_never_sent_is_never_named_by_deciding_code() {
    let deciding: String =
        ["src/engine", "src/shard", "src/control", "src/server", "src/wire"].iter().map(|at| text_below(at)).collect();
    let errors = section("docs/PROTOCOL.md", "## Errors");
    let closes = section("docs/PROTOCOL.md", "## Close codes");
    let unsent = |rows: &str, mark: &str| rows.lines().any(|row| row.contains(mark) && row.contains("not sent by this version"));
    // One that only counters and retry rules name is still never sent.
    let inert = [ErrorName::Internal];
    let mut faults = Vec::new();
    for name in ErrorName::ALL.iter().filter(|name| !inert.contains(name)) {
        check_unsent(unsent(&errors, name.name()), &deciding, &format!("ErrorName::{name:?}"), name.name(), &mut faults);
    }
    for code in CloseCode::ALL {
        check_unsent(
            unsent(&closes, &format!("| {} |", code.code())),
            &deciding,
            &format!("CloseCode::{code:?}"),
            code.name(),
            &mut faults,
        );
    }
    report("marks `not sent by this version` in docs/PROTOCOL.md", &faults);
}

#[test]
fn every_verb_is_in_the_protocol() {
    let verbs = section("docs/PROTOCOL.md", "## Client to server");
    let missing: Vec<String> = Command::NAMES
        .iter()
        .filter(|name| !verbs.contains(&format!("| `{name}`")))
        .map(|name| format!("{name}: no row"))
        .collect();
    report("docs/PROTOCOL.md, Client to server: against Command::NAMES", &missing);
}

#[test]
fn every_push_is_in_the_protocol() {
    let pushes = section("docs/PROTOCOL.md", "## Server to client");
    let encoder = read("src/wire/json/encode.rs");
    let names =
        encoder.split("fn type_name").nth(1).and_then(|rest| rest.split("\n}\n").next()).expect("the encoder names its pushes");
    let mut faults = Vec::new();
    for name in names.split('"').skip(1).step_by(2).chain(["new_message", "notification"]) {
        if !pushes.contains(&format!("| `{name}`")) {
            faults.push(format!("{name}: no row"));
        }
    }
    report("docs/PROTOCOL.md, Server to client: against src/wire/json/encode.rs", &faults);
}

#[test]
fn every_metric_is_in_the_operating_guide() {
    let metrics = section("docs/OPERATING.md", "## Metrics");
    let mut faults = Vec::new();
    let mut wanted = Vec::new();
    for metric in Metric::ALL {
        let labels: Vec<String> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { " ".to_owned() } else { format!(" {} ", labels.join(", ")) };
        wanted.push(format!("| `{}` |{labels}|", metric.name()));
    }
    compare_rows(&metrics, &wanted, &mut faults);
    report("docs/OPERATING.md, Metrics: against metrics::catalog", &faults);
}

#[test]
fn every_route_of_the_admin_port_is_in_the_operating_guide() {
    let port = section("docs/OPERATING.md", "### Admin port");
    let routes = read("src/control/routes.rs");
    let mut faults = Vec::new();
    for route in routes.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        if !port.contains(&format!(" {route}` |")) {
            faults.push(format!("{route}: no row"));
        }
    }
    report("docs/OPERATING.md, Admin port: against src/control/routes.rs", &faults);
}

#[test]
fn the_readme_tells_how_to_run_and_test() {
    let readme = read("README.md");
    let mut faults = Vec::new();
    for (heading, command) in [("## Run", "cargo run --release -- serve --dev"), ("## Test", "cargo test")] {
        let fences = fenced(&section_of(&readme, heading).unwrap_or_default());
        if !fences.iter().any(|block| block.trim() == command) {
            faults.push(format!("{heading}: no fenced block with `{command}` alone"));
        }
    }
    report("README.md", &faults);
}

#[test]
fn the_default_store_is_the_one_that_documents_name() {
    let kind = corehub::config::Config::default().store.kind;
    let word = if kind == StoreKind::Memory { "memory" } else { "embedded" };
    let sentence = format!("`store.kind` is `{word}` by default");
    let faults: Vec<String> = ["README.md", "docs/OPERATING.md"]
        .iter()
        .filter(|page| !read(page).contains(&sentence))
        .map(|page| format!("{page}: does not say: {sentence}"))
        .collect();
    report("default of store.kind", &faults);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let decisions = section("docs/DECISIONS.md", "## Libraries");
    let mut faults = Vec::new();
    let mut table = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            table = line;
        } else if matches!(table, "[dependencies]" | "[dev-dependencies]")
            && let Some((name, _)) = line.split_once(" = ")
            && !line.starts_with('#')
            && !decisions.contains(&format!("`{name}`"))
        {
            faults.push(format!("{name}: not in docs/DECISIONS.md"));
        }
    }
    report("libraries of Cargo.toml", &faults);
}

#[test]
fn named_options_and_files_exist() {
    let sections: BTreeSet<&str> = OPTIONS.iter().map(|spec| spec.section).collect();
    let mut faults = Vec::new();
    for page in pages() {
        let text = read(&page);
        for word in text.split('`').skip(1).step_by(2) {
            let key = word.split([' ', '=']).next().unwrap_or_default();
            let looks_like_option = key.split_once('.').is_some_and(|(section, rest)| {
                sections.contains(section)
                    && !rest.is_empty()
                    && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            });
            // `store.rs` is a file, not an option.
            if looks_like_option && !key.ends_with(".rs") && !OPTIONS.iter().any(|spec| spec.path == key) {
                faults.push(format!("{page}: `{key}` is no option"));
            }
            let is_path = ["src/", "tests/", "benches/", "scripts/", "perf/"].iter().any(|top| word.starts_with(top));
            if is_path && !word.contains(['*', ' ', '<', '{']) && !root().join(word).exists() {
                faults.push(format!("{page}: `{word}` does not exist"));
            }
        }
    }
    report("options and files that documents name", &faults);
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    for page in pages() {
        let text = read(&page);
        for target in without_fences(&text).split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { root().join(&page) } else { root().join(&page).with_file_name(path) };
            let Ok(linked) = std::fs::read_to_string(&file) else {
                if !file.exists() {
                    faults.push(format!("{page}: {target} leads nowhere"));
                }
                continue;
            };
            if !anchor.is_empty() && !anchors(&linked).contains(anchor) {
                faults.push(format!("{page}: {target}: there is no such heading"));
            }
        }
    }
    report("links", &faults);
}

#[test]
fn documents_promise_nothing_for_later() {
    let mut faults = Vec::new();
    for page in pages().iter().filter(|page| !page.ends_with("CONFIG.md")) {
        for (at, line) in read(page).lines().enumerate() {
            for word in line.split(|letter: char| !letter.is_alphanumeric()) {
                if ["will", "soon", "TODO", "FIXME", "upcoming"].contains(&word) {
                    faults.push(format!("{page}:{}: {word}", at + 1));
                }
            }
        }
    }
    report("words about the future", &faults);
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "# A b, c\n\n## One\n| 1 | x | free |\n```\n## no heading\n[a](b)\n```\n### Two `x`\n## Three\n";
    assert_eq!(section_of(text, "## One").as_deref(), Some("| 1 | x | free |\n```\n## no heading\n[a](b)\n```\n### Two `x`\n"));
    assert_eq!(section_of(text, "## Four"), None);
    assert_eq!(fenced(text), ["## no heading\n[a](b)\n"]);
    assert!(!without_fences(text).contains("(b)"));
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), ["a-b-c", "one", "three", "two-x"]);
    let mut faults = Vec::new();
    compare_rows("| 1 | x | free |\n| 3 | z |\n", &["| 1 | x |".to_owned(), "| 2 | y |".to_owned()], &mut faults);
    assert_eq!(faults, ["row 2: wanted | 2 | y | found | 3 | z |"]);
    compare_rows("| 1 | x | free |\n| 3 | z |\n", &["| 1 | x |".to_owned()], &mut faults);
    assert_eq!(faults[1..], ["one row too many: | 3 | z |"]);
}

/// Every wanted row is the beginning of one row of the table, in order, and there are no others.
fn compare_rows(section: &str, wanted: &[String], faults: &mut Vec<String>) {
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ") && !line.contains("---")).collect();
    let rows: Vec<&str> = rows.into_iter().filter(|row| !row.starts_with("| code |") && !row.starts_with("| metric |")).collect();
    for (at, wanted) in wanted.iter().enumerate() {
        match rows.get(at) {
            Some(row) if row.starts_with(wanted.as_str()) => {}
            found => faults.push(format!("row {}: wanted {wanted} found {}", at + 1, found.unwrap_or(&"nothing"))),
        }
    }
    for row in rows.iter().skip(wanted.len()) {
        faults.push(format!("one row too many: {row}"));
    }
}

fn check_unsent(marked: bool, code: &str, path: &str, name: &str, faults: &mut Vec<String>) {
    let named = code.match_indices(path).any(|(at, _)| !code[at + path.len()..].starts_with(|next: char| next.is_alphanumeric()));
    if marked && named {
        faults.push(format!("{name}: marked, but {path} is named in the code"));
    }
}

fn section(page: &str, heading: &str) -> String {
    section_of(&read(page), heading).unwrap_or_else(|| panic!("{page} has no heading `{heading}`"))
}

/// What stands between a heading and the next one of its rank or above.
fn section_of(text: &str, heading: &str) -> Option<String> {
    let rank = heading.bytes().take_while(|byte| *byte == b'#').count();
    let mut found: Option<String> = None;
    let mut in_fence = false;
    for line in text.lines() {
        in_fence ^= line.trim_start().starts_with("```");
        let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
        if !in_fence && (1..=rank).contains(&hashes) {
            if found.is_some() {
                return found;
            }
            if line == heading {
                found = Some(String::new());
            }
        } else if let Some(text) = &mut found {
            writeln!(text, "{line}").expect("writing to a String does not fail");
        }
    }
    found
}

/// Contents of all fenced blocks.
fn fenced(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            match block.take() {
                Some(done) => blocks.push(done),
                None => block = Some(String::new()),
            }
        } else if let Some(block) = &mut block {
            writeln!(block, "{line}").expect("writing to a String does not fail");
        }
    }
    blocks
}

fn without_fences(text: &str) -> String {
    let mut in_fence = false;
    let mut kept = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        in_fence ^= fence;
        if !fence && !in_fence {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Anchors of all headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = without_fences(text);
    let headings =
        headings.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim().to_owned());
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

/// README.md and everything in docs/ and perf/, as paths from the root.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for folder in ["docs", "perf"] {
        let Ok(entries) = std::fs::read_dir(root().join(folder)) else { continue };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        pages.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}/{name}")));
    }
    pages.sort();
    pages
}

/// The text of all Rust files below a folder.
fn text_below(folder: &str) -> String {
    let mut text = String::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(&path).expect("sources are UTF-8"));
            }
        }
    }
    text
}

fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn report(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}: {} faults\n  {}", faults.len(), faults.join("\n  "));
}
