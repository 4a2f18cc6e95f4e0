//! YAML as a tree in which every key and value knows its place.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{MessageFormatter as _, Spanned};

use crate::finding::Place;

/// Larger files are refused: a policy takes less than a kilobyte.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// A policy is six levels deep.
const MAX_DEPTH: usize = 32;
/// Nodes of one file, aliases expanded.
const MAX_NODES: usize = 100_000;
/// Nodes that aliases may add: enough to share a selector, too few for a bomb.
const MAX_REPLAYED: usize = 10_000;
/// Documents in one file.
const MAX_DOCUMENTS: usize = 1_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Kind,
    pub(crate) place: Place,
}

/// A key and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Kind {
    /// What it is, for messages. Never quotes the value.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Why a file could not be read as YAML.
#[derive(Debug)]
pub(crate) struct YamlError {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Reads all documents of a file. Empty documents are left out.
pub(crate) fn read(text: &str) -> Result<Vec<Node>, YamlError> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_BYTES}", text.len());
        return Err(YamlError { place: Place::default(), message });
    }
    serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().map_or_else(Place::default, |at| place(at.line(), at.column()));
        YamlError { place, message: message(error) }
    })
}

/// In our own words where the reader's would name its options, or quote a part of the file: it may
/// be a Secret that got among the policies (I13).
fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    let text = match error {
        Error::DuplicateMappingKey { .. } => "the key stands twice in this map",
        Error::MergeKeyNotAllowed { .. } => "merge keys (`<<`) are not supported",
        Error::Budget { .. } => "the file is too large or too deep",
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => "aliases repeat too much",
        Error::UnknownAnchor { .. } => "the alias refers to nothing before it",
        Error::RecursiveReferencesRequireWeakTypes { .. } => "the alias refers to itself",
        other => return serde_saphyr::DefaultMessageFormatter.format_message(other).into_owned(),
    };
    text.to_owned()
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: MAX_NODES * 2,
            max_documents: MAX_DOCUMENTS,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: MAX_DEPTH,
        },
        // A merge could bring in a field that the reader of the file does not see.
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        // `no` is Norway, and `on` is a label value.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn place(line: u64, column: u64) -> Place {
    let narrow = |n| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: narrow(line), column: narrow(column) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { value, place: place(referenced.line(), referenced.column()) })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }
    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Int(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        // Larger numbers are out of range of every field anyway.
        Ok(Kind::Int(i64::try_from(value).unwrap_or(i64::MAX)))
    }
    fn visit_f64<E>(self, _value: f64) -> Result<Kind, E> {
        // No field takes one.
        Ok(Kind::Float)
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Kind::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut map = Vec::new();
        while let Some(Spanned { value, referenced, .. }) = access.next_key::<Spanned<String>>()? {
            let key = Key { text: value, place: place(referenced.line(), referenced.column()) };
            map.push((key, access.next_value()?));
        }
        Ok(Kind::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_know_their_places() {
        let documents = read("# c\na: 1\nb:\n- x: true\n  \"y\": no\n---\n---\nc: {d: [e, 1.5]}\n").unwrap();
        assert_eq!(documents.len(), 2, "empty documents are left out");
        let Kind::Map(map) = &documents[0].value else { panic!() };
        assert_eq!((map[0].0.place, map[0].1.place), (place(2, 1), place(2, 4)));
        let Kind::List(list) = &map[1].1.value else { panic!() };
        let Kind::Map(item) = &list[0].value else { panic!() };
        assert_eq!(
            (item[0].0.place, item[1].0.place, item[1].1.place),
            (place(4, 3), place(5, 3), place(5, 8))
        );
        assert!(matches!(&item[1].1.value, Kind::Text(text) if text == "no"));
        let Kind::Map(map) = &documents[1].value else { panic!() };
        let Kind::Map(inner) = &map[0].1.value else { panic!() };
        let Kind::List(list) = &inner[0].1.value else { panic!() };
        assert_eq!(list[1].place, place(8, 12));
    }

    #[test]
    fn bombs_and_towers_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","));
        }
        assert!(read(&bomb).is_err());
        assert!(read(&"[".repeat(5_000)).is_err());
        assert!(read(&"- ".repeat(5_000)).is_err());
        assert!(read(&"a".repeat(MAX_BYTES + 1)).is_err());
        assert!(read("a: &a [*a]").is_err());
    }
}
