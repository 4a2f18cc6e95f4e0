//! Reads typed values out of a tree, collecting every finding on the way.

use std::ops::RangeInclusive;

use crate::codes;
use crate::finding::{Finding, Place, Severity, suggest};
use crate::node::{Key, Kind, Node};

/// Collects the findings of one file.
pub(crate) struct Reader<'a> {
    file: &'a str,
    pub(crate) findings: Vec<Finding>,
}

/// The fields of one map.
pub(crate) struct Fields<'n> {
    map: &'n [(Key, Node)],
    pub(crate) place: Place,
}

impl<'n> Fields<'n> {
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        self.map.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'n (Key, Node)> {
        self.map.iter()
    }
}

/// `spec` and `suspend` make `spec.suspend`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A piece of the file for a message: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().count() > LONGEST {
        shown.push_str("...");
    }
    shown
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a str) -> Self {
        Self { file, findings: Vec::new() }
    }

    pub(crate) fn file(&self) -> &'a str {
        self.file
    }

    pub(crate) fn error(
        &mut self,
        code: &'static str,
        place: Place,
        field: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding {
            severity: Severity::Error,
            code: code.into(),
            file: self.file.to_owned(),
            place,
            field: field.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    fn wrong_type(&mut self, node: &Node, path: &str, expected: &str) {
        let remedy = match node.value {
            Kind::Null => "give it a value, or leave the field out",
            Kind::Bool(_) | Kind::Int(_) | Kind::Float if expected == "a string" => "put it in quotes",
            _ => "see the examples in policies/examples",
        };
        let message = format!("expected {expected}, found {}", node.value.name());
        self.error(codes::WRONG_TYPE, node.place, path, message, remedy);
    }

    /// A map with no other fields than the known ones.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, path: &str, known: &[&str]) -> Option<Fields<'n>> {
        let fields = self.any_fields(node, path)?;
        for (key, _) in fields.map.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let remedy = suggest(&key.text, known, "allowed are:");
            self.error(
                codes::UNKNOWN_FIELD,
                key.place,
                &join(path, &shown(&key.text)),
                "unknown field",
                remedy,
            );
        }
        Some(fields)
    }

    /// A map with free keys.
    pub(crate) fn any_fields<'n>(&mut self, node: &'n Node, path: &str) -> Option<Fields<'n>> {
        match &node.value {
            Kind::Map(map) => Some(Fields { map, place: node.place }),
            _ => {
                self.wrong_type(node, path, "a map");
                None
            }
        }
    }

    /// A field that must be there.
    pub(crate) fn required<'n>(
        &mut self,
        fields: &Fields<'n>,
        path: &str,
        name: &str,
        remedy: &str,
    ) -> Option<&'n Node> {
        let found = fields.get(name);
        if found.is_none() {
            self.error(codes::MISSING, fields.place, &join(path, name), "the field is missing", remedy);
        }
        found
    }

    pub(crate) fn text<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n str> {
        match &node.value {
            Kind::Text(text) => Some(text),
            _ => {
                self.wrong_type(node, path, "a string");
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, node: &Node, path: &str) -> Option<bool> {
        match &node.value {
            Kind::Bool(value) => Some(*value),
            _ => {
                self.wrong_type(node, path, "true or false");
                None
            }
        }
    }

    pub(crate) fn number(&mut self, node: &Node, path: &str, range: &RangeInclusive<u32>) -> Option<u32> {
        let Kind::Int(value) = node.value else {
            self.wrong_type(node, path, "a whole number");
            return None;
        };
        let number = u32::try_from(value).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let remedy = format!("allowed is {} to {}", range.start(), range.end());
            self.error(codes::OUT_OF_RANGE, node.place, path, "the number is out of range", remedy);
        }
        number
    }

    /// A list with at least one entry. What an empty one would mean (nothing? everything?)
    /// nobody should have to guess.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, path: &str, remedy: &str) -> Option<&'n [Node]> {
        let Kind::List(list) = &node.value else {
            self.wrong_type(node, path, "a list");
            return None;
        };
        if list.is_empty() {
            self.error(codes::EMPTY, node.place, path, "the list is empty", remedy);
            return None;
        }
        Some(list)
    }

    /// One of a few words.
    pub(crate) fn one_of<T: Copy>(&mut self, node: &Node, path: &str, allowed: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, path)?;
        let found = allowed.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
            let remedy = suggest(text, &names, "allowed are:");
            self.error(
                codes::UNKNOWN_VALUE,
                node.place,
                path,
                format!("unknown value `{}`", shown(text)),
                remedy,
            );
        }
        found
    }
}
