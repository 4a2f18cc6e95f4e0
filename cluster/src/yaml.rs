//! JSON as bodies of server-side apply must be written. API servers read those bodies as YAML, which JSON is not a
//! subset of for their reader (tried on 1.20.2; KUBERNETES.md):
//!
//! - U+0085, U+2028 and U+2029 are line breaks, and are folded together with the blanks around them: the value changes
//!   without an error.
//! - DEL, C1 controls, U+FFFE and U+FFFF are refused.
//! - The escapes `\/` and surrogate pairs (`\ud83d\ude00`) are refused.
//! - A key is at most 1024 characters long, unless `? ` announces it.

use std::fmt::Write as _;

use http::Method;

use crate::client::Call;

/// Media type of server-side apply.
const APPLY: &str = "application/apply-patch+yaml";
/// Longest key that is written without `? `. Servers count characters with quotes and escapes, up to 1024.
const LONGEST_SIMPLE_KEY: usize = 1_000;

/// A server-side apply of a JSON body: the only way to make one.
pub(crate) fn apply_call(path: &str, json: Vec<u8>) -> Call<'_> {
    Call { method: Method::PATCH, content_type: Some(APPLY), body: yaml_safe(json), ..Call::get(path) }
}

/// The same document in a form that reads alike as JSON and as API servers read YAML, but for keys of more than 1000
/// bytes, which only YAML can say. Bytes that need no change are not copied.
#[must_use]
pub fn yaml_safe(json: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(start) = json[at..].iter().position(|byte| *byte == b'"').map(|found| at + found) {
        let end = end_of_string(&json, start);
        let string = &json[start..end];
        let rewritten = rewritten(string);
        let explicit = is_key_to_announce(rewritten.as_ref().map_or(string.len(), String::len), &json[end..]);
        if rewritten.is_some() || explicit {
            out.extend_from_slice(&json[copied..start]);
            if explicit {
                out.extend_from_slice(b"? ");
            }
            out.extend_from_slice(rewritten.as_ref().map_or(string, String::as_bytes));
            copied = end;
        }
        at = end;
    }
    if copied == 0 {
        return json;
    }
    out.extend_from_slice(&json[copied..]);
    out
}

/// Past the closing quote of the string that opens there; the end where it is not closed.
fn end_of_string(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// Is a string of that length a key, and too long for a simple one, or apart from its colon?
fn is_key_to_announce(length: usize, rest: &[u8]) -> bool {
    let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    rest.get(blanks) == Some(&b':') && (blanks > 0 || length > LONGEST_SIMPLE_KEY)
}

/// A quoted string as YAML needs it; nothing where it is so already.
fn rewritten(string: &[u8]) -> Option<String> {
    // Most strings are ASCII without an escape.
    if !string.iter().any(|byte| *byte >= 0x7f || *byte == b'\\') {
        return None;
    }
    let text = std::str::from_utf8(string).ok()?;
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        if first == '\\' {
            let (read, meaning) = escape(rest);
            length = read;
            match meaning {
                Some(meaning) => out.push(meaning),
                None => out.push_str(&rest[..read]),
            }
        } else if is_special(first) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(first));
        } else {
            out.push(first);
        }
        rest = &rest[length..];
    }
    (out != text).then_some(out)
}

/// Line breaks of YAML, and what it does not allow unescaped. The byte order mark is allowed by the servers' reader,
/// and by the specification only at the beginning.
fn is_special(letter: char) -> bool {
    matches!(letter, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// The length of the escape at the beginning, and the character to write instead where YAML has no such escape.
fn escape(text: &str) -> (usize, Option<char>) {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    if text.starts_with("\\/") {
        return (2, Some('/'));
    }
    let Some(high) = unit(0) else {
        let second = text[1..].chars().next().map_or(0, char::len_utf8);
        return (1 + second, None);
    };
    let pair = unit(6).and_then(|low| char::decode_utf16([high, low]).next()?.ok());
    match pair.filter(|letter| u32::from(*letter) > 0xffff) {
        Some(letter) => (12, Some(letter)),
        None => (6, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe(json: &str) -> String {
        String::from_utf8(yaml_safe(json.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn what_yaml_reads_otherwise_is_escaped_in_values_and_keys() {
        assert_eq!(
            safe("{\"k\u{2028}\":\"x \u{85} y\u{7f}\u{9f}\u{a0}\u{2029}\u{fffd}\u{fffe}\u{ffff}\u{feff}\"}"),
            "{\"k\\u2028\":\"x \\u0085 y\\u007f\\u009f\u{a0}\\u2029\u{fffd}\\ufffe\\uffff\\ufeff\"}"
        );
    }

    #[test]
    fn what_yaml_cannot_unescape_is_written_as_it_is() {
        assert_eq!(safe(r#"{"a":"\/\ud83d\uDE00"}"#), "{\"a\":\"/\u{1f600}\"}");
        // An escaped backslash is no escape of what follows it.
        for same in
            [r#"{"a":"\\/\\ud83d\\ude00"}"#, r#"{"\"":"\u0000\u0085\n\t\\"}"#, "[\"\u{1f600}é\",1.50]"]
        {
            assert_eq!(safe(same), same);
        }
    }

    #[test]
    fn long_keys_are_announced_and_long_values_are_not() {
        let long = "k".repeat(1_023);
        assert_eq!(
            safe(&format!("{{\"a\":1,\"{long}\":\"{long}\"}}")),
            format!("{{\"a\":1,? \"{long}\":\"{long}\"}}")
        );
        let escapes = "\u{2028}".repeat(200);
        assert!(safe(&format!("{{\"{escapes}\":1}}")).starts_with("{? \"\\u2028"));
        assert_eq!(safe("{\"a\"\n: 1}"), "{? \"a\"\n: 1}");
    }

    #[test]
    fn what_needs_no_change_is_not_copied_and_broken_json_does_no_harm() {
        let body = br#"{"a":"plain"}"#.to_vec();
        let before = body.as_ptr();
        let after = yaml_safe(body);
        assert_eq!(after.as_ptr(), before);
        for broken in ["\"", "\"\\", "{\"a\\u12", "\"\\ud800\"", "\"\\ud83d\\u00e9\"", "\"\\é\""] {
            assert_eq!(safe(broken), broken);
        }
    }
}
