//! Paths as people write them: JSON pointers, and the part of JSONPath that names fields.
//!
//! Both become the same segments, and are matched against bodies and against field sets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::project::canonical_json;

/// More segments than any schema is deep.
const SEGMENTS: usize = 64;

/// A set of fields: where its segments lead, and all that is below.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pattern {
    segments: Vec<Segment>,
}

/// One step of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Segment {
    /// The member of that name; of a list, the item at that position.
    Name(String),
    /// Every member, every item.
    Any,
    /// The items in which this field has this value, as canonical JSON.
    Where(String, String),
}

/// Why a text is no pattern, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} (at character {at})")]
pub struct PatternError {
    /// What is wrong.
    pub why: &'static str,
    /// Counted from 1.
    pub at: usize,
}

/// What a segment is matched with.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Member(&'a str),
    Item(usize, &'a Value),
}

impl Segment {
    pub(super) fn matches(&self, place: Place<'_>) -> bool {
        match (self, place) {
            (Self::Any, _) => true,
            (Self::Name(name), Place::Member(member)) => name == member,
            (Self::Name(name), Place::Item(index, _)) => name.parse() == Ok(index),
            (Self::Where(..), Place::Member(_)) => false,
            (Self::Where(field, wanted), Place::Item(_, item)) => {
                item.get(field).is_some_and(|value| canonical_json(value) == wanted.as_bytes())
            }
        }
    }
}

impl Pattern {
    /// The whole object.
    #[must_use]
    pub fn root() -> Self {
        Self { segments: Vec::new() }
    }

    /// Members of members, by their names.
    #[must_use]
    pub fn of_members(names: &[&str]) -> Self {
        Self { segments: names.iter().map(|name| Segment::Name((*name).to_owned())).collect() }
    }

    /// Reads a JSON pointer (RFC 6901), as in `/spec/template/metadata/annotations/example.com~1x`.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pointer(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Ok(Self::root());
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PatternError { why: "a JSON pointer begins with `/`", at: 1 });
        };
        let mut at = 2;
        let mut segments = Vec::new();
        for token in rest.split('/') {
            let escapes = token.match_indices('~').map(|(n, _)| token.as_bytes().get(n + 1));
            if escapes.into_iter().any(|next| !matches!(next, Some(b'0' | b'1'))) {
                return Err(PatternError { why: "`~` stands only in `~0` (for ~) and `~1` (for /)", at });
            }
            segments.push(Segment::Name(token.replace("~1", "/").replace("~0", "~")));
            at += token.chars().count() + 1;
        }
        Self::bounded(segments)
    }

    /// Reads a JSONPath of members, items and `==` filters, as in
    /// `.spec.template.spec.containers[?(@.name=="web")].image`. A leading `$` and kubectl's braces may be there.
    ///
    /// # Errors
    /// When it is none, or goes beyond that.
    pub fn from_json_path(text: &str) -> Result<Self, PatternError> {
        let mut cursor = Cursor { rest: text, at: 1 };
        let braces = cursor.eat("{");
        cursor.eat("$");
        let mut segments = Vec::new();
        let end = if braces { "}" } else { "" };
        while !cursor.rest.is_empty() && cursor.rest != end {
            segments.push(cursor.segment()?);
        }
        if braces && !cursor.eat("}") {
            return Err(cursor.error("the brace is not closed"));
        }
        Self::bounded(segments)
    }

    fn bounded(segments: Vec<Segment>) -> Result<Self, PatternError> {
        if segments.len() > SEGMENTS {
            return Err(PatternError { why: "no schema is that deep", at: 1 });
        }
        Ok(Self { segments })
    }

    /// Does it mean the whole object?
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

struct Cursor<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn error(&self, why: &'static str) -> PatternError {
        PatternError { why, at: self.at }
    }

    fn eat(&mut self, what: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(what) else { return false };
        self.rest = rest;
        self.at += what.chars().count();
        true
    }

    fn next(&mut self) -> Option<char> {
        let found = self.rest.chars().next()?;
        self.rest = &self.rest[found.len_utf8()..];
        self.at += 1;
        Some(found)
    }

    fn segment(&mut self) -> Result<Segment, PatternError> {
        if self.rest.starts_with("..") {
            return Err(self.error("`..` is not supported: write the whole path"));
        }
        if self.eat("[") {
            return self.bracket();
        }
        if !self.eat(".") {
            return Err(self.error("a path goes on with `.name` or `[`"));
        }
        if self.eat("*") {
            return Ok(Segment::Any);
        }
        let name = self.plain()?;
        Ok(Segment::Name(name))
    }

    /// A member's name up to the next `.` or `[`; a backslash takes the character behind it as it is.
    fn plain(&mut self) -> Result<String, PatternError> {
        let mut name = String::new();
        while let Some(next) = self.rest.chars().next() {
            match next {
                '.' | '[' | '}' | '=' | ' ' | ')' => break,
                '\\' => {
                    self.next();
                    match self.next() {
                        Some(escaped) => name.push(escaped),
                        None => return Err(self.error("a backslash needs a character behind it")),
                    }
                }
                _ => name.extend(self.next()),
            }
        }
        if name.is_empty() { Err(self.error("a name is missing")) } else { Ok(name) }
    }

    fn bracket(&mut self) -> Result<Segment, PatternError> {
        let segment = if self.eat("*") {
            Segment::Any
        } else if self.eat("?(") {
            self.filter()?
        } else if self.rest.starts_with(['\'', '"']) {
            Segment::Name(self.quoted()?)
        } else {
            let digits: String = self.rest.chars().take_while(char::is_ascii_digit).collect();
            if !self.eat(&digits) || digits.parse::<usize>().is_err() {
                return Err(self.error("in brackets stand a position, `*`, 'a name' or ?(@.field=='value')"));
            }
            Segment::Name(digits)
        };
        if self.eat("]") { Ok(segment) } else { Err(self.error("the bracket is not closed")) }
    }

    fn filter(&mut self) -> Result<Segment, PatternError> {
        if !self.eat("@.") {
            return Err(self.error("a filter begins with `@.field`"));
        }
        let field = self.plain()?;
        while self.eat(" ") {}
        if !self.eat("==") {
            return Err(self.error("a filter compares with `==`"));
        }
        while self.eat(" ") {}
        let value = if self.rest.starts_with(['\'', '"']) {
            Value::from(self.quoted()?)
        } else {
            let (word, _) = self.rest.split_once(')').unwrap_or((self.rest, ""));
            match serde_json::from_str(word.trim()) {
                Ok(value @ (Value::Bool(_) | Value::Number(_))) => {
                    let word = word.to_owned();
                    self.eat(&word);
                    value
                }
                _ => return Err(self.error("compare with a quoted text, a number, true or false")),
            }
        };
        if !self.eat(")") {
            return Err(self.error("the filter is not closed"));
        }
        Ok(Segment::Where(field, String::from_utf8(canonical_json(&value)).unwrap_or_default()))
    }

    fn quoted(&mut self) -> Result<String, PatternError> {
        let Some(quote) = self.next() else { return Err(self.error("a quote is missing")) };
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(self.error("the quote is not closed")),
                Some('\\') => text.extend(self.next()),
                Some(found) if found == quote => return Ok(text),
                Some(found) => text.push(found),
            }
        }
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// As a JSONPath that reads back as the same.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for segment in &self.segments {
            match segment {
                Segment::Any => f.write_str("[*]")?,
                Segment::Name(name) if is_word(name) => write!(f, ".{name}")?,
                Segment::Name(name) => {
                    f.write_str("[")?;
                    quoted(f, name)?;
                    f.write_str("]")?;
                }
                Segment::Where(field, value) => {
                    f.write_str("[?(@.")?;
                    for c in field.chars() {
                        if !is_plain(c) {
                            f.write_str("\\")?;
                        }
                        write!(f, "{c}")?;
                    }
                    f.write_str("==")?;
                    match serde_json::from_str(value) {
                        Ok(Value::String(text)) => quoted(f, &text)?,
                        _ => f.write_str(value)?,
                    }
                    f.write_str(")]")?;
                }
            }
        }
        Ok(())
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_plain)
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::from_json_path(text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> String {
        Pattern::from_json_path(text).map_or_else(|error| error.to_string(), |pattern| pattern.to_string())
    }

    #[test]
    fn pointers_and_paths_say_the_same() {
        for (pointer, json_path, canonical) in [
            ("", "$", "$"),
            ("/spec/replicas", ".spec.replicas", "$.spec.replicas"),
            ("/spec/replicas", "{.spec.replicas}", "$.spec.replicas"),
            (
                "/metadata/annotations/example.com~1a~0b",
                "$.metadata.annotations['example.com/a~b']",
                "$.metadata.annotations['example.com/a~b']",
            ),
            ("/metadata/labels/a.b", r".metadata.labels.a\.b", "$.metadata.labels['a.b']"),
            ("/spec/rules/0/host", ".spec.rules[0].host", "$.spec.rules.0.host"),
        ] {
            assert_eq!(Pattern::from_pointer(pointer).unwrap().to_string(), canonical);
            assert_eq!(path(json_path), canonical);
        }
        assert_eq!(
            path(r#".spec.containers[?(@.name == "web")].ports[?(@.containerPort==80)].name"#),
            "$.spec.containers[?(@.name=='web')].ports[?(@.containerPort==80)].name"
        );
        assert_eq!(path(".spec.template.spec.containers[*].*"), "$.spec.template.spec.containers[*][*]");
    }

    #[test]
    fn what_is_not_supported_is_said_with_its_place() {
        for (text, error) in [
            ("$..image", "`..` is not supported: write the whole path (at character 2)"),
            ("spec.replicas", "a path goes on with `.name` or `[` (at character 1)"),
            (".spec.", "a name is missing (at character 7)"),
            (".a[1:2]", "the bracket is not closed (at character 5)"),
            (".a[-1]", "in brackets stand a position, `*`, 'a name' or ?(@.field=='value') (at character 4)"),
            (".a[?(@.b>1)]", "a filter compares with `==` (at character 11)"),
            (".a[?(@.b==c)]", "compare with a quoted text, a number, true or false (at character 11)"),
            ("{.a", "the brace is not closed (at character 4)"),
        ] {
            assert_eq!(path(text), error, "{text}");
        }
        assert!(Pattern::from_pointer("spec").is_err());
        assert!(Pattern::from_pointer("/a~2").is_err());
        assert!(Pattern::from_pointer(&"/a".repeat(100)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(names in proptest::collection::vec("\\PC{0,6}", 0..5), value in "\\PC{0,6}") {
            let pointer: String = names.iter().map(|n| format!("/{}", n.replace('~', "~0").replace('/', "~1"))).collect();
            let mut pattern = Pattern::from_pointer(&pointer).unwrap();
            let value = String::from_utf8(canonical_json(&Value::from(value))).unwrap();
            if let Some(name) = names.first().filter(|name| !name.is_empty()) {
                pattern.segments.push(Segment::Where(name.clone(), value));
                pattern.segments.push(Segment::Any);
            }
            prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[.$@?()\\[\\]{}'\"=*a-c0-9\\\\ ]{0,24}") {
            if let Ok(pattern) = Pattern::from_json_path(&text) {
                prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern));
            }
        }
    }
}
