//! Owns the view that the tidy checks have of a Rust file: its text, the same text with comments, literals and test code
//! blanked out, and where its functions begin and end. Never parses more of Rust than that needs.

use std::path::{Path, PathBuf};

/// One file of the repository.
pub struct Source {
    /// Relative to the repository, with forward slashes.
    pub path: String,
    pub text: String,
    /// `text` with comments and the insides of literals replaced by spaces, byte for byte.
    pub code: String,
    /// `code` without items under `#[cfg(test)]`; empty for files that hold tests only.
    pub shipped: String,
}

/// A function with a body.
pub struct Function {
    pub name: String,
    pub line: usize,
    /// From the line of `fn` to the line of the closing brace, both counted.
    pub lines: usize,
}

impl Source {
    /// Every Rust file below `folder`, in the order of their paths. `test_modules` names files that are test modules.
    pub fn all(root: &Path, folder: &str) -> Vec<Source> {
        let mut paths = Vec::new();
        collect(&root.join(folder), &mut paths);
        paths.sort();
        let mut sources: Vec<Source> = paths
            .into_iter()
            .map(|path| {
                let text = std::fs::read_to_string(&path).expect("a Rust file of the repository is readable UTF-8");
                let relative = path.strip_prefix(root).expect("it was found below the root");
                Source::new(relative.to_string_lossy().replace('\\', "/"), text)
            })
            .collect();
        let test_files: Vec<String> = sources.iter().flat_map(Source::test_module_files).collect();
        for source in &mut sources {
            let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
            if test_files.iter().any(|test| stem == *test || stem.starts_with(&format!("{test}/"))) {
                source.shipped = String::new();
            }
        }
        sources
    }

    pub fn new(path: String, text: String) -> Source {
        let code = blank_comments_and_literals(&text);
        let shipped = blank_test_items(&code);
        Source { path, text, code, shipped }
    }

    /// The folder of `src/` that the file belongs to, or the file's own name for those beside the folders.
    pub fn folder(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').next().expect("split yields at least one part").trim_end_matches(".rs")
    }

    /// Names of modules below the crate's root, of the file itself: `src/engine/shard.rs` is `engine`, `shard`.
    pub fn module_depth(&self) -> usize {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs").trim_end_matches("/mod");
        if matches!(inside, "lib" | "main") { 0 } else { inside.split('/').count() }
    }

    pub fn functions(&self, code: &str) -> Vec<Function> {
        let mut found = Vec::new();
        for at in words(code, "fn") {
            let rest = &code[at + 2..];
            let name: String = rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(open) = rest.find(['{', ';']) else { continue };
            if name.is_empty() || rest.as_bytes()[open] == b';' {
                continue;
            }
            let open = at + 2 + open;
            let Some(close) = matching_brace(code, open) else { continue };
            let lines = code[at..=close].matches('\n').count() + 1;
            found.push(Function { name, line: line_of(code, at), lines });
        }
        found
    }

    /// Paths without extension of the files that `#[cfg(test)] mod name;` in this file brings in.
    fn test_module_files(&self) -> Vec<String> {
        let base = self.path.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/lib").to_owned();
        test_items(&self.code)
            .into_iter()
            .filter_map(|(start, end)| {
                let item = self.code[start..end].rsplit(']').next()?.trim();
                let name = ["pub ", "pub(crate) "]
                    .iter()
                    .find_map(|seen| item.strip_prefix(seen))
                    .unwrap_or(item)
                    .strip_prefix("mod ")?
                    .strip_suffix(';')?;
                Some(format!("{base}/{}", name.trim()))
            })
            .collect()
    }
}

/// Byte offsets at which `word` stands alone in `code`.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let joins = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).and_then(|at| code.as_bytes().get(at));
        !joins(before) && !joins(code.as_bytes().get(at + word.len()))
    })
}

/// Line number of a byte offset, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => end_of_block_comment(bytes, at),
            b'"' => end_of_string(bytes, at),
            b'r' | b'b' if !previous_is_word(bytes, at) => match raw_string_hashes(bytes, at) {
                Some((quote, hashes)) => {
                    let closing = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
                    find(bytes, quote + 1, &closing) + closing.len()
                }
                None => at,
            },
            b'\'' => end_of_character(bytes, at),
            _ => at,
        };
        for byte in &mut code[at..end.min(bytes.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    // Multi-byte characters outside literals and comments do not occur in Rust that compiles without warnings.
    String::from_utf8_lossy(&code).replace(char::REPLACEMENT_CHARACTER, " ")
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> usize {
    bytes[from..].windows(needle.len()).position(|window| window == needle).map_or(bytes.len(), |found| from + found)
}

fn end_of_block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// Offset of the opening quote and number of hashes when a raw string (or byte string) begins here.
fn raw_string_hashes(bytes: &[u8], start: usize) -> Option<(usize, usize)> {
    let mut at = start + usize::from(bytes[start] == b'b');
    if bytes.get(at) != Some(&b'r') {
        return None;
    }
    at += 1;
    let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
    (bytes.get(at + hashes) == Some(&b'"')).then_some((at + hashes, hashes))
}

/// A character literal ends at its quote; a lifetime is left as it is.
fn end_of_character(bytes: &[u8], start: usize) -> usize {
    if bytes.get(start + 1) == Some(&b'\\') {
        return find(bytes, start + 3, b"'") + 1;
    }
    let width = match bytes.get(start + 1) {
        Some(0xf0..) => 4,
        Some(0xe0..) => 3,
        Some(0xc0..) => 2,
        _ => 1,
    };
    if bytes.get(start + 1 + width) == Some(&b'\'') { start + width + 2 } else { start }
}

fn previous_is_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

/// Byte ranges of the items under `#[cfg(test)]`, attribute included.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut from = 0;
    while let Some((start, body)) = next_test_attribute(code, from) {
        let end = match code[body..].find(['{', ';']) {
            Some(at) if code.as_bytes()[body + at] == b'{' => matching_brace(code, body + at).map_or(code.len(), |at| at + 1),
            Some(at) => body + at + 1,
            None => code.len(),
        };
        items.push((start, end));
        from = end;
    }
    items
}

/// Where an attribute begins and ends that keeps an item out of the program: for tests, or for tests and fuzzers.
fn next_test_attribute(code: &str, from: usize) -> Option<(usize, usize)> {
    let start = from + ["#[cfg(test)]", "#[cfg(any(test, feature"].iter().filter_map(|text| code[from..].find(text)).min()?;
    Some((start, start + code[start..].find(']')? + 1))
}

fn blank_test_items(code: &str) -> String {
    let mut shipped = code.as_bytes().to_vec();
    for (start, end) in test_items(code) {
        for byte in &mut shipped[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8_lossy(&shipped).into_owned()
}

fn matching_brace(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}
