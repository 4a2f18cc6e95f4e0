//! What is wrong with a policy file, where, and how to mend it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The file is not taken; its last good version stays.
    Error,
    /// The file is taken.
    Warning,
}

/// A place in a file; 1-based. Line 0: the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// One finding in a policy file. Serialises for `-o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// `LS0103`; see [`crate::CODES`] and docs/errors.
    pub code: Cow<'static, str>,
    /// The file, as it was named to us.
    pub file: String,
    /// Where in the file.
    #[serde(flatten)]
    pub place: Place,
    /// The field's path, as in `spec.resources[0].kind`; empty for the document.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    pub(crate) fn order(&self) -> (&str, Place, &str, &str) {
        (&self.file, self.place, &self.code, &self.field)
    }
}

impl fmt::Display for Finding {
    /// `a.yaml:7:5: LS0103 spec.resources[0].matchLables: unknown field; did you mean matchLabels?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.place.line > 0 {
            write!(f, ":{}:{}", self.place.line, self.place.column)?;
        }
        write!(f, ": {} ", self.code)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

/// The candidate that the writer most likely meant, if any is near enough.
pub(crate) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A longer word may hold more slips; two are always forgiven.
    let length = given.chars().count();
    let limit = (length / 3).max(2);
    let given_lower = given.to_lowercase();
    candidates
        .into_iter()
        // What is so much longer is not near, and comparing it takes time and memory by its length.
        .filter(|candidate| length <= limit + candidate.chars().count())
        .map(|candidate| (strsim::damerau_levenshtein(&given_lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// `did you mean x?`, or what is allowed.
pub(crate) fn suggest(given: &str, candidates: &[&str], otherwise: &str) -> String {
    match nearest(given, candidates.iter().copied()) {
        Some(candidate) => format!("did you mean {candidate}?"),
        None => format!("{otherwise} {}", candidates.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_candidate_is_suggested() {
        let fields = ["matchLabels", "matchExpressions", "names", "namespaces"];
        assert_eq!(nearest("matchLables", fields), Some("matchLabels"));
        assert_eq!(nearest("MATCHLABELS", fields), Some("matchLabels"));
        assert_eq!(nearest("name", fields), Some("names"));
        assert_eq!(nearest("colour", fields), None);
        assert_eq!(nearest("", fields), None);
        assert_eq!(nearest("x", ["ab"]), None, "a short word is not near everything");
        assert_eq!(nearest(&"names".repeat(100_000), fields), None);
        assert_eq!(suggest("colour", &["a", "b"], "one of:"), "one of: a, b");
    }

    #[test]
    fn text_and_json() {
        let finding = Finding {
            severity: Severity::Error,
            code: "LS0103".into(),
            file: "a.yaml".to_owned(),
            place: Place { line: 7, column: 5 },
            field: "spec.x".to_owned(),
            message: "unknown field".to_owned(),
            remedy: "did you mean y?".to_owned(),
        };
        assert_eq!(finding.to_string(), "a.yaml:7:5: LS0103 spec.x: unknown field; did you mean y?");
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["line"], 7);
        assert_eq!(json["severity"], "Error");
        assert_eq!(serde_json::from_value::<Finding>(json).unwrap(), finding);
        let whole = Finding { place: Place::default(), field: String::new(), ..finding };
        assert_eq!(whole.to_string(), "a.yaml: LS0103 unknown field; did you mean y?");
    }
}
