//! Label selectors as `kubectl -l` takes them.

use std::collections::BTreeSet;

use lockstep_engine::selector::{LabelSelector, Operator, Requirement};

/// Most conditions of one selector. The store takes each into one statement, whose depth is bounded.
const CONDITIONS: usize = 64;
/// Most values of all its conditions together.
const VALUES: usize = 1_000;

/// A selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSelector {
    /// A part is not a condition.
    #[error("`{part}` is not a label condition (`a=b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a`, `!a`)")]
    NotACondition {
        /// The part that cannot be read.
        part: String,
    },
    /// It has too many conditions or values.
    #[error(
        "the selector has {conditions} conditions with {values} values; {CONDITIONS} conditions with {VALUES} values are taken"
    )]
    TooLong {
        /// Conditions.
        conditions: usize,
        /// Values.
        values: usize,
    },
}

/// Reads `env=production,tier notin (db,cache),!legacy`.
///
/// # Errors
/// Names the first part that is not a condition, or says how many are taken.
pub fn parse(text: &str) -> Result<LabelSelector, BadSelector> {
    let mut selector = LabelSelector::default();
    if text.trim().is_empty() {
        return Ok(selector);
    }
    for part in split(text) {
        let requirement = requirement(part.trim())
            .ok_or_else(|| BadSelector::NotACondition { part: part.trim().to_owned() })?;
        selector.match_expressions.insert(requirement);
    }
    let conditions = selector.match_expressions.len();
    let values = selector.match_expressions.iter().map(|requirement| requirement.values.len()).sum();
    if conditions > CONDITIONS || values > VALUES {
        return Err(BadSelector::TooLong { conditions, values });
    }
    Ok(selector)
}

/// At the commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Option<Requirement> {
    let make = |key: &str, operator, values: BTreeSet<String>| {
        let key = key.trim();
        let fine = !key.is_empty()
            && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
            && values.iter().all(|v| v.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)));
        fine.then(|| Requirement { key: key.to_owned(), operator, values })
    };
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    if let Some(inner) = part.strip_suffix(')') {
        let (head, values) = inner.split_once('(')?;
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let operator = match word {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            _ => return None,
        };
        return make(key, operator, values.split(',').map(|value| value.trim().to_owned()).collect());
    }
    if let Some((key, value)) = part.split_once("!=") {
        return make(key, Operator::NotIn, one(value));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return make(key, Operator::In, one(value));
    }
    match part.strip_prefix('!') {
        Some(key) => make(key, Operator::DoesNotExist, BTreeSet::new()),
        None => make(part, Operator::Exists, BTreeSet::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_read_as_kubectl_reads_them() {
        for (text, expected) in [
            ("env=production", "env in (production)"),
            ("env==production", "env in (production)"),
            ("env!=dev", "env notin (dev)"),
            ("a in (b,c)", "a in (b,c)"),
            ("a notin ( b , c )", "a notin (b,c)"),
            ("app.kubernetes.io/name", "app.kubernetes.io/name"),
            ("!legacy", "!legacy"),
            ("env=", "env in ()"),
        ] {
            let selector = parse(text).unwrap();
            let found: Vec<String> = selector.match_expressions.iter().map(ToString::to_string).collect();
            assert_eq!(found, [expected], "{text}");
        }
        assert_eq!(parse("a=b,c in (d,e),!f").unwrap().match_expressions.len(), 3);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn bad_selectors_name_the_part() {
        for (text, part) in [("a=b,c>d", "c>d"), ("a=b,", ""), ("a nope (b)", "a nope (b)"), ("=b", "=b")] {
            let part = part.to_owned();
            assert_eq!(parse(text).unwrap_err(), BadSelector::NotACondition { part }, "{text}");
        }
    }
}
