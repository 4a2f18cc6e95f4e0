//! Label and field selectors: what kubectl and clients commonly send.

use serde_json::Value;

use super::status::ApiError;

/// What a list or watch is narrowed to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Debug, Clone)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selection {
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, ApiError> {
        let mut selection = Self::default();
        for term in terms(labels) {
            selection.labels.push(requirement(&term));
        }
        for term in terms(fields) {
            let (name, value, equal) = match term.split_once("!=") {
                Some((name, value)) => (name, value, false),
                None => {
                    let (name, value) = term.split_once('=').ok_or_else(|| {
                        ApiError::bad_request(format!(
                            "invalid selector: '{term}'; can't understand '{term}'"
                        ))
                    })?;
                    (name, value.trim_start_matches('='), true)
                }
            };
            if !matches!(name, "metadata.name" | "metadata.namespace") {
                return Err(ApiError::bad_request(format!("field label not supported: {name}")));
            }
            selection.fields.push((name.to_owned(), equal, value.to_owned()));
        }
        Ok(selection)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |name: &str| labels[name].as_str();
        self.labels.iter().all(|requirement| match requirement {
            Requirement::In(name, values) => {
                label(name).is_some_and(|value| values.iter().any(|v| v == value))
            }
            Requirement::NotIn(name, values) => {
                !label(name).is_some_and(|value| values.iter().any(|v| v == value))
            }
            Requirement::Exists(name) => label(name).is_some(),
            Requirement::Absent(name) => label(name).is_none(),
        }) && self.fields.iter().all(|(name, equal, value)| {
            let member = name.trim_start_matches("metadata.");
            (object["metadata"][member].as_str().unwrap_or_default() == value) == *equal
        })
    }
}

/// Parts between commas that are not in parentheses.
fn terms(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out.iter().map(|term| term.trim().to_owned()).filter(|term| !term.is_empty()).collect()
}

fn requirement(term: &str) -> Requirement {
    let values = |text: &str| {
        let inner = text.trim().trim_start_matches('(').trim_end_matches(')');
        inner.split(',').map(|value| value.trim().to_owned()).collect()
    };
    if let Some((name, list)) = term.split_once(" notin ") {
        Requirement::NotIn(name.trim().to_owned(), values(list))
    } else if let Some((name, list)) = term.split_once(" in ") {
        Requirement::In(name.trim().to_owned(), values(list))
    } else if let Some((name, value)) = term.split_once("!=") {
        Requirement::NotIn(name.trim().to_owned(), vec![value.trim().to_owned()])
    } else if let Some((name, value)) = term.split_once('=') {
        Requirement::In(name.trim().to_owned(), vec![value.trim_start_matches('=').trim().to_owned()])
    } else if let Some(name) = term.strip_prefix('!') {
        Requirement::Absent(name.trim().to_owned())
    } else {
        Requirement::Exists(term.to_owned())
    }
}
