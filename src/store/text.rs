//! Owns what a search compares: how the text of a message and that of a query fall into words, and when one is in the other.
//! Every backend and the index follow it, so that they find the same. Never reads the store. Pure.
//!
//! A text is folded into *runs* with one blank before and after each: words (letters and digits of scripts that put blanks
//! between words) and stretches of scripts that do not (Chinese, Japanese, Korean, Thai, ..., and symbols such as emoji). A word
//! is found as a whole, a stretch wherever it occurs. Whatever lies between runs, punctuation or blanks, only separates.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::types::record::Message;

/// What is searched for: every part has to occur.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Each is looked for in a folded text as it is.
    needles: Vec<String>,
    terms: Vec<String>,
}

impl Query {
    /// Every character is text; none is an operator. Parts without a letter, digit or symbol count for nothing.
    pub fn new(text: &str) -> Query {
        let (mut needles, mut terms) = (Vec::new(), Vec::new());
        for part in text.split_whitespace() {
            let mut folded = Folded::new(part);
            folded.terms(false, |term| terms.push(term.to_owned()));
            let runs = folded.text.trim();
            let (Some(first), Some(last)) = (runs.chars().next(), runs.chars().next_back()) else { continue };
            let (before, after) = (if unspaced(first) { "" } else { " " }, if unspaced(last) { "" } else { " " });
            needles.push(format!("{before}{runs}{after}"));
        }
        terms.sort_unstable();
        terms.dedup();
        Query { needles, terms }
    }

    /// Nothing is searched for, so nothing is found.
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// What the index is asked for: a message that matches has all of them.
    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    pub fn matches(&self, message: &Message) -> bool {
        let folded = Folded::of(message);
        !self.is_empty() && self.needles.iter().all(|needle| folded.text.contains(needle.as_str()))
    }
}

/// The terms of a message for the index, each once.
pub fn terms(message: &Message) -> Vec<String> {
    let mut terms = Vec::new();
    Folded::of(message).terms(true, |term| terms.push(term.to_owned()));
    terms.sort_unstable();
    terms.dedup();
    terms
}

/// A text in the form in which texts are compared.
struct Folded {
    text: String,
    /// The run that is being written: whether it is of a script without blanks, and its length.
    run: Option<(bool, usize)>,
}

impl Folded {
    fn new(text: &str) -> Folded {
        let mut folded = Folded { text: String::with_capacity(text.len() + 2), run: None };
        folded.text.push(' ');
        folded.add(text);
        folded
    }

    /// The text of a message, or all texts in its object, up to [`TEXT_BYTES_MAX`].
    fn of(message: &Message) -> Folded {
        let mut folded = Folded::new("");
        let mut left = TEXT_BYTES_MAX;
        each_text(message.content.as_str(), |text| {
            let text = &text[..text.floor_char_boundary(left)];
            left -= text.len();
            folded.add(text);
            // Two texts are not one: no part of a query has two blanks.
            folded.text.push(' ');
            left > 0
        });
        folded
    }

    fn add(&mut self, text: &str) {
        if text.is_ascii() {
            text.bytes().for_each(|byte| match byte.is_ascii_alphanumeric() {
                true => self.push(char::from(byte.to_ascii_lowercase()), false),
                false => self.end(),
            });
        } else {
            text.nfkc().for_each(|character| self.add_character(character));
        }
        self.end();
    }

    fn add_character(&mut self, character: char) {
        match character {
            // Invisible: joiners, selectors, soft hyphens.
            '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => {}
            'ß' | 'ẞ' => "ss".chars().for_each(|character| self.push(character, false)),
            'ς' => self.push('σ', false),
            'İ' => self.push('i', false),
            _ if unspaced(character) => self.push(character, true),
            _ if character.is_alphanumeric() => {
                character.to_lowercase().for_each(|character| self.push(character, false));
            }
            _ if is_combining_mark(character) => {
                if let Some((unspaced, _)) = self.run {
                    self.push(character, unspaced);
                }
            }
            _ => self.end(),
        }
    }

    fn push(&mut self, character: char, unspaced: bool) {
        if self.run.is_some_and(|(current, _)| current != unspaced) {
            self.end();
        }
        let (_, characters) = self.run.get_or_insert((unspaced, 0));
        *characters += 1;
        if unspaced || *characters <= WORD_CHARACTERS_MAX {
            self.text.push(character);
        }
    }

    fn end(&mut self) {
        if self.run.take().is_some() {
            self.text.push(' ');
        }
    }

    /// Words as they are; of other runs each two neighbours, and with `single` also each character alone, as which a run of
    /// one is searched for.
    fn terms(&mut self, single: bool, mut take: impl FnMut(&str)) {
        for run in self.text.split(' ').filter(|run| !run.is_empty()) {
            if !run.starts_with(unspaced) {
                take(run);
                continue;
            }
            let mut characters = run.char_indices().map(|(at, character)| (at, at + character.len_utf8())).peekable();
            let alone = single || run.chars().nth(1).is_none();
            while let Some((from, to)) = characters.next() {
                if alone {
                    take(&run[from..to]);
                }
                if let Some((_, end)) = characters.peek() {
                    take(&run[from..*end]);
                }
            }
        }
    }
}

/// Hands over every text in a valid JSON value that is not a member's name, escapes resolved, until `take` has enough.
fn each_text(json: &str, mut take: impl FnMut(&str) -> bool) {
    let mut rest = json;
    while let Some(begin) = rest.find('"') {
        let text = &rest[begin..];
        let Some(end) = closing_quote(text.as_bytes()) else { return };
        let (quoted, after) = text.split_at(end + 1);
        rest = after;
        if after.trim_start().starts_with(':') {
            continue;
        }
        let plain = &quoted[1..end];
        let more = match plain.contains('\\') {
            // What cannot be resolved, such as half a surrogate pair, is not text.
            true => serde_json::from_str::<String>(quoted).map_or(true, |text| take(&text)),
            false => take(plain),
        };
        if !more {
            return;
        }
    }
}

fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Scripts that put no blanks between words (or, as Korean, hang endings on them), and symbols.
fn unspaced(character: char) -> bool {
    matches!(
        u32::from(character),
        0xe00..=0x109f // Thai, Lao, Tibetan, Myanmar
            | 0x1100..=0x11ff // Hangul letters
            | 0x1780..=0x17ff // Khmer
            | 0x2190..=0x2bff // arrows and symbols
            | 0x2e80..=0x2fdf // radicals
            | 0x3005..=0x3007
            | 0x3021..=0x3029
            | 0x3031..=0x3035
            | 0x3041..=0x309f // Hiragana
            | 0x30a1..=0x30fa // Katakana
            | 0x30fc..=0x31ff
            | 0x3400..=0x4dbf
            | 0x4e00..=0xa4cf // Chinese characters, Yi
            | 0xac00..=0xd7ff // Hangul
            | 0xf900..=0xfaff
            | 0x1f000..=0x1faff // emoji
            | 0x20000..=0x3ffff
    )
}

/// Of one message; what lies beyond is not searched.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Longer words count as their beginning.
const WORD_CHARACTERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::conformance::{message, private};
    use crate::types::record::RawJson;

    fn text(content: &str) -> Message {
        let mut draft = message(&private("a", "b"), Some("a"), None, 1);
        draft.content = RawJson::from_validated(content);
        draft
    }

    fn found(query: &str, plain: &str) -> bool {
        let message = text(RawJson::string(plain).as_str());
        let query = Query::new(query);
        let all = terms(&message);
        let found = query.matches(&message);
        assert!(!found || query.terms().iter().all(|term| all.contains(term)), "{query:?} is in {plain:?}, not in {all:?}");
        found
    }

    #[test]
    fn words_are_found_whole_and_stretches_anywhere() {
        for (query, plain) in [
            ("hello", "Hello, World!"),
            ("WORLD hello", "hello world"),
            ("会议", "明天开会议吗"),
            ("会", "明天开会议吗"),
            ("明天 会议", "明天下午三点的会议"),
            ("发版 release", "发版 v2.3 release"),
            ("v2.3", "发版 v2.3 release"),
            ("发版v2.3", "今天发版 v2.3"),
            ("발표", "회의에서 발표를"),
            ("カタカナ", "ﾊﾝｶｸｶﾀｶﾅ"),
            ("テスト", "これはテストです"),
            ("ประชุม", "พรุ่งนี้ประชุม"),
            ("ＡＢＣ", "abc"),
            ("strasse", "Große STRAßE"),
            ("ΟΔΟΣ", "οδος"),
            ("café", "cafe\u{301}"),
            ("👍", "ok 👍🏽"),
            ("ada@example.com", "mail: ada@example.com."),
            ("\"a+b\" -c", "a b c"),
        ] {
            assert!(found(query, plain), "{query} is in {plain}");
        }
        for (query, plain) in [
            ("hell", "hello"),
            ("会议", "开会，议程"),
            ("会议", "会 议"),
            ("hello moon", "hello world"),
            ("v2.3", "v2 and 3"),
            ("!!!", "!!!"),
            ("a OR b", "a b"),
            ("*", "anything"),
        ] {
            assert!(!found(query, plain), "{query} is not in {plain}");
        }
    }

    #[test]
    fn an_object_is_its_texts_without_names() {
        let message = text(r#"{"title" : "Plan \"B\"", "deep":[{"x":"明天"},7,null,"a\\"], "n":1e999, "bad":"\ud800"}"#);
        for (query, expected) in [("plan b", true), ("明天", true), ("a", true), ("title", false), ("deep", false), ("7", false)]
        {
            assert_eq!(Query::new(query).matches(&message), expected, "{query}");
        }
        assert!(!Query::new("b-明天").matches(&message), "two texts are not one");
        assert!(terms(&text("\"\"")).is_empty());
    }

    #[test]
    fn a_long_text_is_searched_up_to_its_bound() {
        let long = format!("{} last", "word ".repeat(20_000));
        assert!(found("word", &long) && !found("last", &long));
        let long = format!("{} last", "x".repeat(1_000));
        assert!(found("last", &long) && found(&"x".repeat(900), &long) && !found(&"x".repeat(63), &long));
    }

    proptest! {
        #[test]
        fn whatever_matches_has_the_terms(plain in "[a-c 会议开.👍é]{0,12}", from in 0_usize..12, length in 1_usize..6) {
            let part: String = plain.chars().skip(from).take(length).collect();
            found(&part, &plain);
            found(&plain, &plain);
        }

        #[test]
        fn any_text_is_searched(plain in ".*", query in ".*") {
            found(&query, &plain);
            let runs = Folded::new(&plain).text.trim().is_empty();
            prop_assert_eq!(found(&plain, &plain), !runs);
        }

        #[test]
        fn any_json_is_searched(content in ".*") {
            terms(&text(&content));
        }
    }
}
