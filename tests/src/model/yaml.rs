//! Bodies of server-side apply, read as API servers read them: as YAML, also where they are JSON.
//!
//! JSON is read by rules of its own here, because that is where a reader of JSON and the servers' reader disagree in
//! silence: line breaks that fold, characters that are refused, escapes that YAML does not have, keys that are too long.
//! Anything else is left to a YAML library.

use serde_json::{Map, Number, Value};

/// Longest key that `? ` does not announce: characters from the opening quote to the colon.
const SIMPLE_KEY: usize = 1_024;

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// It is not written as JSON.
    Unlike,
    /// An API server refuses it.
    Refused(&'static str),
}

const CUT: NotRead = NotRead::Unlike;

/// The object in a body of an apply.
pub(crate) fn read(body: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(body).map_err(|_| "yaml: invalid leading UTF-8 octet".to_owned())?;
    if text.chars().any(is_refused) {
        return Err("yaml: control characters are not allowed".to_owned());
    }
    let read = match flow(text) {
        Ok(value) => value,
        Err(NotRead::Refused(why)) => return Err(format!("yaml: {why}")),
        Err(NotRead::Unlike) => serde_saphyr::from_str(text).map_err(|error| error.to_string())?,
    };
    match read {
        Value::Object(_) => Ok(read),
        _ => Err("no object".to_owned()),
    }
}

/// Characters that the servers' reader does not let through, in strings or elsewhere.
fn is_refused(letter: char) -> bool {
    match letter {
        '\t' | '\n' | '\r' | '\u{85}' => false,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => true,
        _ => false,
    }
}

/// JSON as YAML reads it.
pub(crate) fn flow(text: &str) -> Result<Value, NotRead> {
    let mut reader = Reader { rest: text };
    let value = reader.value()?;
    reader.blanks();
    if reader.rest.is_empty() { Ok(value) } else { Err(CUT) }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn next(&mut self) -> Option<char> {
        let mut letters = self.rest.chars();
        let next = letters.next()?;
        self.rest = letters.as_str();
        Some(next)
    }

    /// Takes it, if it is next.
    fn takes(&mut self, text: &str) -> bool {
        self.blanks();
        let Some(rest) = self.rest.strip_prefix(text) else { return false };
        self.rest = rest;
        true
    }

    fn value(&mut self) -> Result<Value, NotRead> {
        if self.takes("{") {
            return self.map();
        }
        if self.takes("[") {
            return self.list();
        }
        if self.rest.starts_with('"') {
            return self.text().map(Value::String);
        }
        let end = self.rest.find([',', '}', ']', ' ', '\t', '\n', '\r']).unwrap_or(self.rest.len());
        let (plain, rest) = self.rest.split_at(end);
        let value = match plain {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => Value::Number(number.parse::<Number>().map_err(|_| CUT)?),
        };
        self.rest = rest;
        Ok(value)
    }

    fn map(&mut self) -> Result<Value, NotRead> {
        let mut members = Map::new();
        if self.takes("}") {
            return Ok(Value::Object(members));
        }
        loop {
            let announced = self.takes("? ");
            self.blanks();
            let from = self.rest;
            let name = self.text()?;
            self.blanks();
            let key = from.strip_suffix(self.rest).ok_or(CUT)?;
            let simple = key.chars().count() <= SIMPLE_KEY && !key.contains(is_break);
            if !announced && !simple {
                return Err(NotRead::Refused("did not find expected ',' or '}'"));
            }
            if !self.takes(":") {
                return Err(CUT);
            }
            let value = self.value()?;
            members.insert(name, value);
            if self.takes("}") {
                return Ok(Value::Object(members));
            }
            if !self.takes(",") {
                return Err(CUT);
            }
        }
    }

    fn list(&mut self) -> Result<Value, NotRead> {
        let mut items = Vec::new();
        if self.takes("]") {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            if self.takes("]") {
                return Ok(Value::Array(items));
            }
            if !self.takes(",") {
                return Err(CUT);
            }
        }
    }

    /// A quoted string. A line break folds with the blanks around it.
    fn text(&mut self) -> Result<String, NotRead> {
        if !self.takes("\"") {
            return Err(CUT);
        }
        let mut out = String::new();
        loop {
            match self.next().ok_or(CUT)? {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                blank if blank == ' ' || blank == '\t' || is_break(blank) => {
                    let from = self.rest.trim_start_matches(|c| c == ' ' || c == '\t' || is_break(c));
                    let skipped = self.rest.strip_suffix(from).ok_or(CUT)?;
                    let run: String = std::iter::once(blank).chain(skipped.chars()).collect();
                    self.rest = from;
                    out.push_str(&folded(run));
                }
                letter => out.push(letter),
            }
        }
    }

    fn escape(&mut self) -> Result<char, NotRead> {
        let digits = match self.next().ok_or(CUT)? {
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            same @ ('"' | '\\') => return Ok(same),
            'u' => self.rest.get(..4).ok_or(CUT)?,
            _ => return Err(NotRead::Refused("found unknown escape character")),
        };
        let code = u32::from_str_radix(digits, 16).map_err(|_| CUT)?;
        self.rest = self.rest.get(4..).ok_or(CUT)?;
        // Half of a surrogate pair.
        char::from_u32(code).ok_or(NotRead::Refused("found invalid Unicode character escape code"))
    }
}

fn is_break(letter: char) -> bool {
    matches!(letter, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What a run of blanks and line breaks in a string becomes.
fn folded(run: String) -> String {
    if !run.contains(is_break) {
        return run;
    }
    let run = run.replace("\r\n", "\n");
    // CR, LF and NEL are one kind of break; the others are kept as they are.
    let mut breaks = run.chars().filter(|c| is_break(*c)).map(|c| if c > '\u{85}' { c } else { '\n' });
    let first = breaks.next();
    let more: String = breaks.collect();
    match first {
        Some('\n') if more.is_empty() => " ".to_owned(),
        Some('\n') | None => more,
        Some(kept) => format!("{kept}{more}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_cluster::yaml_safe;
    use proptest::prelude::*;

    fn safe(value: &Value) -> String {
        String::from_utf8(yaml_safe(value.to_string().into_bytes())).unwrap()
    }

    #[test]
    fn every_character_is_read_as_it_was_escaped_and_only_special_ones_are_escaped() {
        let changed = |c: char| {
            let value = serde_json::json!({ format!("k{c}"): format!("{c} a {c} b{c}") });
            assert_eq!(read(safe(&value).as_bytes()).as_ref(), Ok(&value), "{:x}", u32::from(c));
            read(value.to_string().as_bytes()).as_ref() != Ok(&value)
        };
        let samples = ['\u{10000}', '\u{1f600}', '\u{1ffff}', '\u{e0001}', '\u{10ffff}'];
        let seen: Vec<u32> =
            ('\0'..='\u{ffff}').chain(samples).filter(|c| changed(*c)).map(u32::from).collect();
        let expected: Vec<u32> = (0x7f..=0x9f).chain([0x2028, 0x2029, 0xfffe, 0xffff]).collect();
        assert_eq!(seen, expected);
    }

    fn json() -> impl Strategy<Value = Value> {
        let text = "[a\\\\/\" \t\r\n\u{0}\u{7f}\u{85}\u{a0}\u{2028}\u{2029}\u{feff}\u{fffe}\u{1f600}]{0,8}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from),
            Just(Value::from("x".repeat(2_000))),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            let key = prop_oneof![9 => text.prop_map(String::from), 1 => "[k\u{2028}]{900,1100}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key, inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_made_safe_is_read_as_it_was_meant(value in json()) {
            prop_assert_eq!(flow(&safe(&value)), Ok(value));
        }
    }
}
