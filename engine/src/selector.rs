//! Label selectors with exactly the semantics of Kubernetes.
//!
//! Source: apimachinery/pkg/labels/selector.go (`Requirement.Matches`): all requirements must hold,
//! `NotIn` and `DoesNotExist` hold where the key is absent, and an empty selector selects everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// `matchExpressions[].operator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The label is there and its value is one of the values.
    In,
    /// The label is absent, or its value is none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Operator {
    /// All operators.
    pub const ALL: [Self; 4] = [Self::In, Self::NotIn, Self::Exists, Self::DoesNotExist];

    /// The name as Kubernetes spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold.
    pub operator: Operator,
    /// The values for `In` and `NotIn`; empty otherwise.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub values: BTreeSet<String>,
}

impl Requirement {
    /// Does it hold for these labels?
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    /// As `kubectl -l` spells it: `env in (a,b)`, `!env`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.operator {
            Operator::Exists => return f.write_str(&self.key),
            Operator::DoesNotExist => return write!(f, "!{}", self.key),
            Operator::In => "in",
            Operator::NotIn => "notin",
        };
        write!(f, "{} {word} (", self.key)?;
        for (i, value) in self.values.iter().enumerate() {
            write!(f, "{}{value}", if i == 0 { "" } else { "," })?;
        }
        f.write_str(")")
    }
}

/// `matchLabels` and `matchExpressions`: all must hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must be there with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements. A set: their order means nothing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub match_expressions: BTreeSet<Requirement>,
}

/// The first requirement that does not hold, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LabelDifference {
    /// The label's key.
    pub key: String,
    /// What the selector wants, as `kubectl -l` spells it.
    pub wanted: String,
    /// What the object has; None when the label is absent.
    pub found: Option<String>,
}

impl LabelSelector {
    /// Does it select everything?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Does an object with these labels match?
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }

    /// The first requirement, in key order, that does not hold; None when all do.
    #[must_use]
    pub fn difference(&self, labels: &BTreeMap<String, String>) -> Option<LabelDifference> {
        let label = self.match_labels.iter().find(|(key, value)| labels.get(*key) != Some(*value));
        if let Some((key, value)) = label {
            let wanted = format!("{key}={value}");
            return Some(LabelDifference { key: key.clone(), wanted, found: labels.get(key).cloned() });
        }
        let requirement = self.match_expressions.iter().find(|requirement| !requirement.matches(labels))?;
        Some(LabelDifference {
            key: requirement.key.clone(),
            wanted: requirement.to_string(),
            found: labels.get(&requirement.key).cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn expression(key: &str, operator: Operator, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        LabelSelector {
            match_expressions: [Requirement { key: key.to_owned(), operator, values }].into(),
            ..LabelSelector::default()
        }
    }

    #[test]
    fn operators_mean_what_kubernetes_means() {
        let (absent, a, c, empty) =
            (labels(&[]), labels(&[("x", "a")]), labels(&[("x", "c")]), labels(&[("x", "")]));
        for (selector, expected) in [
            (expression("x", Operator::In, &["a", "b"]), [false, true, false, false]),
            (expression("x", Operator::NotIn, &["a", "b"]), [true, false, true, true]),
            (expression("x", Operator::NotIn, &[""]), [true, true, true, false]),
            (expression("x", Operator::Exists, &[]), [false, true, true, true]),
            (expression("x", Operator::DoesNotExist, &[]), [true, false, false, false]),
            (LabelSelector::default(), [true; 4]),
        ] {
            let found = [&absent, &a, &c, &empty].map(|labels| selector.matches(labels));
            assert_eq!(found, expected, "{selector:?}");
            let differs = [&absent, &a, &c, &empty].map(|labels| selector.difference(labels).is_none());
            assert_eq!(differs, expected, "a difference is named exactly where it does not match");
        }
    }

    #[test]
    fn all_requirements_must_hold_and_the_first_that_does_not_is_named() {
        let mut selector = expression("tier", Operator::NotIn, &["db", "cache"]);
        selector.match_labels = labels(&[("env", "production")]);
        assert!(selector.matches(&labels(&[("env", "production")])));
        let difference = selector.difference(&labels(&[("env", "production"), ("tier", "db")])).unwrap();
        assert_eq!(difference.wanted, "tier notin (cache,db)");
        assert_eq!(difference.found.as_deref(), Some("db"));
        let difference = selector.difference(&labels(&[("tier", "db")])).unwrap();
        assert_eq!((difference.wanted.as_str(), difference.found), ("env=production", None));
    }

    #[test]
    fn json_is_that_of_kubernetes() {
        let text = r#"{"matchLabels":{"env":"production"},"matchExpressions":[{"key":"tier","operator":"DoesNotExist"}]}"#;
        let selector: LabelSelector = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&selector).unwrap(), text);
        assert_eq!(serde_json::to_string(&LabelSelector::default()).unwrap(), "{}");
    }
}
