//! A set of field paths, as FieldsV1 writes it (structured-merge-diff, `fieldpath/serialize`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::INTENT_ANNOTATION;
use super::project::canonical_json;

/// Deepest path read: real schemas stay far below, recursion stays bounded.
const DEPTH_LIMIT: usize = 128;

/// Why FieldsV1 could not be read. Field names only, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldSetError {
    /// Not JSON.
    #[error("fieldsV1 is no JSON object")]
    NotAnObject,
    /// A path element with an unknown prefix, or with a key that cannot be read.
    #[error("fieldsV1 has a path element that cannot be read")]
    BadElement,
    /// More nested than any schema.
    #[error("fieldsV1 is nested too deeply")]
    TooDeep,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// `f:name`: a member of a map or struct.
    Field(String),
    /// `k:{"name":"web"}`: the item of a keyed list with these key fields; values as canonical JSON.
    Key(Vec<(String, String)>),
    /// `v:"x"`: the item of a set, as canonical JSON.
    Value(String),
    /// `i:0`: the item of a list by position.
    Index(usize),
}

impl PathElement {
    fn parse(text: &str) -> Result<Self, FieldSetError> {
        let bad = FieldSetError::BadElement;
        let (prefix, rest) = text.split_once(':').ok_or(FieldSetError::BadElement)?;
        match prefix {
            "f" => Ok(Self::Field(rest.to_owned())),
            "i" => rest.parse().map(Self::Index).map_err(|_| bad),
            "v" => {
                let value: Value = serde_json::from_str(rest).map_err(|_| bad)?;
                Ok(Self::Value(canonical_text(&value)))
            }
            "k" => {
                let Ok(Value::Object(key)) = serde_json::from_str(rest) else { return Err(bad) };
                let mut key: Vec<_> = key.into_iter().map(|(k, v)| (k, canonical_text(&v))).collect();
                key.sort();
                Ok(Self::Key(key))
            }
            _ => Err(bad),
        }
    }

    /// As the API server writes it in a conflict: `.spec`, `[name="web"]`, `[="x"]`, `[0]`.
    pub(super) fn write(&self, out: &mut String) {
        match self {
            Self::Field(name) => {
                out.push('.');
                out.push_str(name);
            }
            Self::Key(key) => {
                out.push('[');
                for (n, (name, value)) in key.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    out.push_str(name);
                    out.push('=');
                    out.push_str(value);
                }
                out.push(']');
            }
            Self::Value(value) => {
                out.push_str("[=");
                out.push_str(value);
                out.push(']');
            }
            Self::Index(index) => {
                out.push('[');
                out.push_str(&index.to_string());
                out.push(']');
            }
        }
    }

    /// As FieldsV1 has it: `f:name`, `k:{"name":"web"}`.
    fn text(&self) -> String {
        let (prefix, rest) = match self {
            Self::Field(name) => ('f', name.clone()),
            Self::Index(index) => ('i', index.to_string()),
            Self::Value(value) => ('v', value.clone()),
            Self::Key(key) => {
                let parts: Vec<_> = key
                    .iter()
                    .map(|(k, v)| format!("{}:{v}", canonical_text(&Value::from(k.as_str()))))
                    .collect();
                ('k', format!("{{{}}}", parts.join(",")))
            }
        };
        format!("{prefix}:{rest}")
    }

    fn canonical(&self) -> String {
        canonical_text(&Value::from(self.text()))
    }
}

fn canonical_text(value: &Value) -> String {
    String::from_utf8(canonical_json(value)).unwrap_or_default()
}

/// Paths, while there is room.
struct Found {
    paths: Vec<String>,
    limit: usize,
    bytes: usize,
}

impl Found {
    fn take(&mut self, path: &str) -> bool {
        let room = self.paths.len() < self.limit && path.len() <= self.bytes;
        if room {
            self.bytes -= path.len();
            self.paths.push(path.to_owned());
        }
        room
    }
}

/// A tree of paths. A path is in the set when its node is a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    pub(super) member: bool,
    pub(super) children: BTreeMap<PathElement, FieldSet>,
}

impl FieldSet {
    /// Reads FieldsV1 out of its bytes.
    ///
    /// # Errors
    /// When they are not FieldsV1.
    pub fn parse(bytes: &[u8]) -> Result<Self, FieldSetError> {
        let value: Value = serde_json::from_slice(bytes).map_err(|_| FieldSetError::NotAnObject)?;
        Self::from_value(&value)
    }

    /// Reads FieldsV1 out of its tree.
    ///
    /// # Errors
    /// When it is not FieldsV1.
    pub fn from_value(value: &Value) -> Result<Self, FieldSetError> {
        let mut set = Self::read(value, 0)?;
        // The object itself is nobody's field.
        set.member = false;
        Ok(set)
    }

    fn read(value: &Value, depth: usize) -> Result<Self, FieldSetError> {
        if depth > DEPTH_LIMIT {
            return Err(FieldSetError::TooDeep);
        }
        let members = value.as_object().ok_or(FieldSetError::NotAnObject)?;
        let mut set = Self { member: members.is_empty(), children: BTreeMap::new() };
        for (name, child) in members {
            if name == "." {
                set.member = true;
            } else {
                set.children.insert(PathElement::parse(name)?, Self::read(child, depth + 1)?);
            }
        }
        Ok(set)
    }

    /// The set of all leaves of an object: fields for maps, positions for lists.
    #[must_use]
    pub fn of_value(value: &Value) -> Self {
        let mut set = Self::leaves(value);
        set.member = false;
        set
    }

    fn leaves(value: &Value) -> Self {
        let mut set = Self::default();
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (name, child) in members {
                    set.children.insert(PathElement::Field(name.clone()), Self::leaves(child));
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, child) in items.iter().enumerate() {
                    set.children.insert(PathElement::Index(index), Self::leaves(child));
                }
            }
            _ => set.member = true,
        }
        set
    }

    /// No path at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// All paths, in order, as the API server writes them: `.spec.replicas`,
    /// `.spec.template.spec.containers[name="web"].image`. At most `limit`.
    #[must_use]
    pub fn paths(&self, limit: usize) -> Vec<String> {
        self.paths_within(limit, usize::MAX).0
    }

    /// As [`Self::paths`], of so many bytes together at most. Were these all?
    #[must_use]
    pub fn paths_within(&self, limit: usize, bytes: usize) -> (Vec<String>, bool) {
        let mut found = Found { paths: Vec::new(), limit, bytes };
        let all = self.collect(&mut String::new(), &mut found);
        (found.paths, all)
    }

    /// False when there was no room for a path.
    fn collect(&self, path: &mut String, found: &mut Found) -> bool {
        if self.member && !found.take(path) {
            return false;
        }
        self.children.iter().all(|(element, child)| {
            let length = path.len();
            element.write(path);
            let all = child.collect(path, found);
            path.truncate(length);
            all
        })
    }

    /// Is this path, as an API server writes it, in the set?
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        if path.is_empty() {
            return self.member;
        }
        // A field name may itself hold dots (annotations), so every child is tried.
        self.children.iter().any(|(element, child)| {
            let mut prefix = String::new();
            element.write(&mut prefix);
            path.strip_prefix(prefix.as_str()).is_some_and(|rest| child.contains(rest))
        })
    }

    /// Does the set hold every field of an object that is to be applied? What names the object is
    /// nobody's field, and items of lists are passed over: only the schema knows their keys.
    #[must_use]
    pub fn covers(&self, object: &Value) -> bool {
        const NAMES: [&str; 2] = ["name", "namespace"];
        let Value::Object(members) = object else { return false };
        members.iter().filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind")).all(
            |(name, value)| match (name.as_str(), value) {
                ("metadata", Value::Object(metadata)) => {
                    let node = self.children.get(&PathElement::Field(name.clone()));
                    let mut own = metadata.iter().filter(|(name, _)| !NAMES.contains(&name.as_str()));
                    own.all(|(name, value)| node.is_some_and(|node| node.covers_field(name, value)))
                }
                _ => self.covers_field(name, value),
            },
        )
    }

    fn covers_field(&self, name: &str, value: &Value) -> bool {
        let Some(node) = self.children.get(&PathElement::Field(name.to_owned())) else { return false };
        match value {
            // Owned as a whole (atomic), or with all that is in it.
            Value::Object(members) => {
                node.children.is_empty() || members.iter().all(|(name, value)| node.covers_field(name, value))
            }
            _ => true,
        }
    }

    /// Adds one path.
    pub(super) fn insert(&mut self, path: &[PathElement]) {
        match path.split_first() {
            None => self.member = true,
            Some((element, rest)) => self.children.entry(element.clone()).or_default().insert(rest),
        }
    }

    /// Is this path in the set, or something below it, or a value that it is part of?
    pub(super) fn touches(&self, path: &[PathElement]) -> bool {
        match path.split_first() {
            None => !self.is_empty(),
            Some((element, rest)) => match self.children.get(element) {
                Some(child) => child.touches(rest),
                None => self.member && self.children.is_empty(),
            },
        }
    }

    /// Adds all paths of another set.
    pub fn extend(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, child) in &other.children {
            self.children.entry(element.clone()).or_default().extend(child);
        }
    }

    /// Without the fields that change with every write or belong to one write only: the intent
    /// annotation, and what servers maintain in metadata.
    #[must_use]
    pub fn without_bookkeeping(mut self) -> Self {
        const METADATA: &[&str] =
            &["resourceVersion", "uid", "generation", "creationTimestamp", "selfLink", "managedFields"];
        let metadata = PathElement::Field("metadata".to_owned());
        if let Some(node) = self.children.get_mut(&metadata) {
            for name in METADATA {
                node.children.remove(&PathElement::Field((*name).to_owned()));
            }
            let annotations = PathElement::Field("annotations".to_owned());
            if let Some(inner) = node.children.get_mut(&annotations) {
                inner.children.remove(&PathElement::Field(INTENT_ANNOTATION.to_owned()));
                // The map goes with its last owned entry, also where it was a member of its own.
                if inner.children.is_empty() {
                    node.children.remove(&annotations);
                }
            }
            if node.is_empty() {
                self.children.remove(&metadata);
            }
        }
        self
    }

    /// The set as FieldsV1.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (element, child) in self.children.iter().filter(|(_, child)| !child.is_empty()) {
            out.insert(element.text(), child.to_value());
        }
        // A leaf is written as an empty object.
        if self.member && !out.is_empty() {
            out.insert(".".to_owned(), Value::Object(Map::new()));
        }
        Value::Object(out)
    }

    /// The set as bytes, the same for the same set however it was written.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_canonical(&mut out);
        out
    }

    fn write_canonical(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut first = true;
        if self.member {
            out.extend_from_slice(b"\".\":{}");
            first = false;
        }
        for (element, child) in self.children.iter().filter(|(_, child)| !child.is_empty()) {
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(element.canonical().as_bytes());
            out.push(b':');
            child.write_canonical(out);
        }
        out.push(b'}');
    }
}
