//! Sets of field paths, as `managedFields` holds them (FieldsV1).
//!
//! A node can be a member itself, have children, or both: `f:data` with `"."` is the map as such, without it only
//! what is inside. The operations are those of structured-merge-diff's `fieldpath.Set`, because what a manager owns
//! after a write depends on exactly them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// One step of a path. The order is that of structured-merge-diff.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// `f:name`.
    Field(String),
    /// `k:{"name":"web"}`; values as JSON text, sorted by name.
    Key(Vec<(String, String)>),
    /// `v:"x"`; the value as JSON text.
    Value(String),
    /// `i:0`.
    Index(usize),
}

impl Step {
    /// As FieldsV1 writes it.
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Value(text) => format!("v:{text}"),
            Self::Index(index) => format!("i:{index}"),
            Self::Key(key) => {
                let mut out = String::from("k:{");
                for (n, (name, value)) in key.iter().enumerate() {
                    let comma = if n > 0 { "," } else { "" };
                    let _ = write!(out, "{comma}{}:{value}", Value::from(name.as_str()));
                }
                out + "}"
            }
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_once(':')?;
        match prefix {
            "f" => Some(Self::Field(rest.to_owned())),
            "v" => Some(Self::Value(serde_json::from_str::<Value>(rest).ok()?.to_string())),
            "i" => rest.parse().ok().map(Self::Index),
            "k" => {
                let members: Map<String, Value> = serde_json::from_str(rest).ok()?;
                let mut key: Vec<_> = members.into_iter().map(|(k, v)| (k, v.to_string())).collect();
                key.sort();
                Some(Self::Key(key))
            }
            _ => None,
        }
    }

    /// As conflicts and errors write it: `.spec`, `[name="web"]`, `[="x"]`, `[0]`.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Value(text) => format!("[={text}]"),
            Self::Index(index) => format!("[{index}]"),
            Self::Key(key) => {
                let parts: Vec<_> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("[{}]", parts.join(","))
            }
        }
    }
}

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    children: BTreeMap<Step, Node>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    pub(crate) fn insert(&mut self, path: &[Step]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.children.entry(first.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.below.insert(rest);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.children.values().all(Node::is_empty)
    }

    /// Is this child itself a member?
    pub(crate) fn has(&self, step: &Step) -> bool {
        self.children.get(step).is_some_and(|node| node.member)
    }

    /// What lies below a child; nothing when that is empty.
    pub(crate) fn below(&self, step: &Step) -> Option<&Self> {
        self.children.get(step).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    pub(crate) fn union(mut self, other: &Self) -> Self {
        self.extend(other);
        self
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        for (step, node) in &other.children {
            let mine = self.children.entry(step.clone()).or_default();
            mine.member |= node.member;
            mine.below.extend(&node.below);
        }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.filtered(|step, node| {
            let theirs = other.children.get(step)?;
            let below = node.below.intersection(&theirs.below);
            Some(Node { member: node.member && theirs.member, below })
        })
    }

    /// Without the members of another set; what lies below them stays.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.filtered(|step, node| match other.children.get(step) {
            None => Some(node.clone()),
            Some(theirs) => {
                let below = node.below.difference(&theirs.below);
                Some(Node { member: node.member && !theirs.member, below })
            }
        })
    }

    fn filtered(&self, map: impl Fn(&Step, &Node) -> Option<Node>) -> Self {
        let children = self.children.iter().filter_map(|(step, node)| {
            let node = map(step, node)?;
            (!node.is_empty()).then(|| (step.clone(), node))
        });
        Self { children: children.collect() }
    }

    /// All paths, members of a level before what lies below, as conflicts name them.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        for (step, _) in self.children.iter().filter(|(_, node)| node.member) {
            out.push(format!("{prefix}{}", step.path()));
        }
        for (step, node) in &self.children {
            node.below.collect(&format!("{prefix}{}", step.path()), out);
        }
    }

    /// FieldsV1.
    pub(crate) fn encode(&self) -> Value {
        let mut out = Map::new();
        for (step, node) in self.children.iter().filter(|(_, node)| !node.is_empty()) {
            let mut below = node.below.encode();
            if node.member
                && !node.below.is_empty()
                && let Some(members) = below.as_object_mut()
            {
                members.insert(".".to_owned(), Value::Object(Map::new()));
            }
            out.insert(step.encode(), below);
        }
        Value::Object(out)
    }

    /// From FieldsV1; nothing when it cannot be read.
    pub(crate) fn decode(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (name, inner) in value.as_object()? {
            if name == "." {
                continue;
            }
            let members = inner.as_object()?;
            let member = members.is_empty() || members.contains_key(".");
            set.children.insert(Step::decode(name)?, Node { member, below: Self::decode(inner)? });
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> FieldSet {
        FieldSet::decode(&value).unwrap()
    }

    #[test]
    fn fields_v1_is_read_and_written_alike() {
        let value = json!({
            "f:data": {".": {}, "f:a": {}},
            "f:metadata": {"f:finalizers": {"v:\"x.y/z\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
        });
        assert_eq!(set(value.clone()).encode(), value);
        assert_eq!(
            set(value).paths(),
            [
                ".data",
                ".data.a",
                ".metadata.finalizers[=\"x.y/z\"]",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
            ]
        );
    }

    #[test]
    fn a_difference_keeps_what_lies_below() {
        let both = set(json!({"f:data": {".": {}, "f:a": {}}}));
        let map = set(json!({"f:data": {}}));
        assert_eq!(both.difference(&map), set(json!({"f:data": {"f:a": {}}})));
        assert_eq!(both.intersection(&map), map);
        assert!(map.difference(&both).is_empty());
        assert_eq!(map.clone().union(&set(json!({"f:data": {"f:a": {}}}))), both);
    }
}
