//! An object as bytes: metadata is parsed by borrowing, everything else stays what the server sent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::identity::{GroupKind, ResourceVersion, Uid};

/// Why bytes are not an object that can be keyed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON of the expected shape. The text names positions only, never values: an object may
    /// be a Secret (I13).
    #[error("not a Kubernetes object: {category} at line {line} column {column}")]
    Undecodable {
        /// serde's category: syntax, data, eof.
        category: &'static str,
        /// 1-based.
        line: usize,
        /// 1-based.
        column: usize,
    },
    /// No `metadata.name`.
    #[error("the object has no metadata.name")]
    Nameless,
}

impl From<serde_json::Error> for ObjectError {
    fn from(error: serde_json::Error) -> Self {
        use serde_json::error::Category;
        let category = match error.classify() {
            Category::Io => "io",
            Category::Syntax => "bad syntax",
            Category::Data => "wrong type or missing field",
            Category::Eof => "truncated",
        };
        Self::Undecodable { category, line: error.line(), column: error.column() }
    }
}

/// The metadata lockstep looks at, borrowed from the bytes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta<'a> {
    /// `metadata.name`.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    /// `metadata.namespace`; empty for cluster-scoped objects.
    #[serde(borrow, default)]
    pub namespace: Cow<'a, str>,
    /// `metadata.uid`.
    #[serde(borrow, default)]
    pub uid: Cow<'a, str>,
    /// `metadata.resourceVersion`.
    #[serde(borrow, default)]
    pub resource_version: Cow<'a, str>,
    /// RFC 3339, as sent.
    #[serde(borrow, default)]
    pub creation_timestamp: Option<Cow<'a, str>>,
    /// RFC 3339, as sent; present while the object is being deleted.
    #[serde(borrow, default)]
    pub deletion_timestamp: Option<Cow<'a, str>>,
    /// `metadata.labels`.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `metadata.ownerReferences`.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// `metadata.managedFields`, unparsed.
    #[serde(borrow, default)]
    pub managed_fields: Option<&'a RawValue>,
}

/// The parts of an owner reference that decide anything here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// `apiVersion` of the owner.
    #[serde(default)]
    pub api_version: String,
    /// Kind of the owner.
    #[serde(default)]
    pub kind: String,
    /// Name of the owner.
    #[serde(default)]
    pub name: String,
    /// uid of the owner.
    #[serde(default)]
    pub uid: String,
    /// Is this owner the managing controller?
    #[serde(default)]
    pub controller: Option<bool>,
}

impl OwnerReference {
    /// Is this owner the managing controller?
    #[must_use]
    pub fn is_controller(&self) -> bool {
        self.controller == Some(true)
    }
}

fn null_as_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// One object, borrowed from the bytes it came in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RawObject<'a> {
    /// `apiVersion`; absent on items of a typed list.
    #[serde(borrow, default)]
    pub api_version: Cow<'a, str>,
    /// `kind`; absent on items of a typed list.
    #[serde(borrow, default)]
    pub kind: Cow<'a, str>,
    /// `metadata`.
    #[serde(borrow)]
    pub metadata: Meta<'a>,
}

impl<'a> RawObject<'a> {
    /// Parses the metadata of one object.
    ///
    /// # Errors
    /// When the bytes are not JSON of that shape, or carry no name.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ObjectError> {
        let object: Self = serde_json::from_slice(bytes)?;
        if object.metadata.name.is_empty() {
            return Err(ObjectError::Nameless);
        }
        Ok(object)
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> Uid {
        Uid::new(&self.metadata.uid)
    }

    /// `metadata.resourceVersion`.
    #[must_use]
    pub fn resource_version(&self) -> ResourceVersion {
        ResourceVersion::new(&self.metadata.resource_version)
    }

    /// The controller among the owners, if any.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.metadata.owner_references.iter().find(|owner| owner.controller == Some(true))
    }
}

/// The object without `metadata.managedFields`, and with `apiVersion` and `kind` filled in (items
/// of a list lack them). Member order is kept; no tree is built.
///
/// # Errors
/// When the bytes are not a JSON object with an object `metadata`.
pub fn without_managed_fields(bytes: &[u8], api_version: &str, kind: &str) -> Result<Vec<u8>, ObjectError> {
    let top: Members<'_> = serde_json::from_slice(bytes)?;
    let mut out = Vec::with_capacity(bytes.len());
    out.push(b'{');
    if !top.has("apiVersion") {
        member(&mut out, "apiVersion", &serde_json::to_string(api_version)?);
    }
    if !top.has("kind") {
        member(&mut out, "kind", &serde_json::to_string(kind)?);
    }
    for (name, value) in &top.0 {
        if name == "metadata" {
            let metadata: Members<'_> = serde_json::from_str(value.get())?;
            let mut inner = Vec::with_capacity(value.get().len());
            inner.push(b'{');
            for (name, value) in metadata.0.iter().filter(|(name, _)| name != "managedFields") {
                member(&mut inner, name, value.get());
            }
            inner.push(b'}');
            member(&mut out, name, &String::from_utf8_lossy(&inner));
        } else {
            member(&mut out, name, value.get());
        }
    }
    out.push(b'}');
    Ok(out)
}

fn member(out: &mut Vec<u8>, name: &str, raw: &str) {
    if out.len() > 1 {
        out.push(b',');
    }
    // A str always serialises.
    out.extend_from_slice(serde_json::to_string(name).unwrap_or_default().as_bytes());
    out.push(b':');
    out.extend_from_slice(raw.as_bytes());
}

/// The members of a JSON object in the order they came, values unparsed.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl Members<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Visitor<'a> {
            type Value = Members<'a>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}

/// The kind that a CustomResourceDefinition defines; none where the bytes are no definition.
#[must_use]
pub fn defined_kind(definition: &[u8]) -> Option<GroupKind> {
    #[derive(Deserialize)]
    struct Definition {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        group: String,
        names: Names,
    }
    #[derive(Deserialize)]
    struct Names {
        kind: String,
    }
    let Definition { spec } = serde_json::from_slice(definition).ok()?;
    Some(GroupKind::new(&spec.group, &spec.names.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_fields_go_and_everything_else_stays_in_order() {
        let bytes =
            br#"{"metadata":{"name":"a","managedFields":[{"x":1}],"labels":null},"data":{"z":"1","a":1.50}}"#;
        let out = without_managed_fields(bytes, "v1", "ConfigMap").unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","labels":null},"data":{"z":"1","a":1.50}}"#
        );
    }

    #[test]
    fn an_error_never_quotes_a_value() {
        let error = RawObject::parse(br#"{"metadata":{"name":["canary"]}}"#).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }

    #[test]
    fn metadata_is_borrowed_and_null_maps_are_empty() {
        let object = RawObject::parse(br#"{"metadata":{"name":"a","uid":"u","labels":null,"ownerReferences":[{"kind":"X","controller":true}]}}"#).unwrap();
        assert!(matches!(object.metadata.name, Cow::Borrowed("a")));
        assert_eq!(object.controller().unwrap().kind, "X");
    }
}
