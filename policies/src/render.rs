//! What a copy looks like.

use lockstep_engine::catalogue::{strip, strip_tracking};
use lockstep_engine::object::ObjectError;
use lockstep_engine::{GroupKind, ObjectKey};
use serde_json::{Map, Value};

use crate::policy::CompiledPolicy;

/// Where a copy goes.
#[derive(Clone, Copy, Debug)]
pub struct RenderInput<'a> {
    /// The copy's key in the target.
    pub target: &'a ObjectKey,
    /// The key under which digests of Secrets are made (I13).
    pub digest_key: &'a [u8; 32],
}

/// The desired state of a copy, without marks.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The body. [`lockstep_engine::marks::stamp`] adds the marks.
    pub body: Value,
    /// Digest of its canonical bytes; keyed for Secrets.
    pub digest: [u8; 32],
}

/// Why no copy can be made. Never quotes the body (I13).
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The body is not JSON.
    #[error("the source body cannot be read")]
    Undecodable(#[source] ObjectError),
    /// The body is JSON, and not an object with metadata.
    #[error("the source body is not a Kubernetes object")]
    NotAnObject,
    /// The body is of another kind than the key.
    #[error("the source body is not of kind {expected}")]
    WrongKind {
        /// The kind of the key.
        expected: GroupKind,
    },
}

/// The body of a copy: parsed, stripped, named. The same input gives the same bytes, and rendering
/// a rendered body changes nothing.
///
/// # Errors
/// When the body is not an object of the key's kind.
pub fn render(
    _policy: &CompiledPolicy, // overrides and namespace mapping will be read from it
    source_body: &[u8],
    input: &RenderInput<'_>,
) -> Result<Rendered, RenderError> {
    let RenderInput { target, digest_key } = *input;
    let mut body: Value = serde_json::from_slice(source_body)
        .map_err(|error| RenderError::Undecodable(ObjectError::from(error)))?;
    let kind = body.get("kind").and_then(Value::as_str);
    if kind.is_some_and(|kind| kind != target.gk.kind.as_ref()) {
        return Err(RenderError::WrongKind { expected: target.gk.clone() });
    }
    strip(&target.gk, &mut body);
    strip_tracking(&target.gk, &mut body);
    let metadata = body.get_mut("metadata").and_then(Value::as_object_mut).ok_or(RenderError::NotAnObject)?;
    name(metadata, target);
    let digest = digest(&target.gk, &body, digest_key);
    Ok(Rendered { body, digest })
}

fn name(metadata: &mut Map<String, Value>, target: &ObjectKey) {
    metadata.insert("name".to_owned(), Value::from(target.name.as_ref()));
    // The name is given; the prefix that it was once made from would be noise.
    metadata.remove("generateName");
    if target.namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".to_owned(), Value::from(target.namespace.as_ref()));
    }
}

/// The canonical bytes of a body: members sorted, no blanks. Numbers keep their value: integers up
/// to 64 bits exactly, others as the nearest double, which is all that API servers keep themselves.
#[must_use]
pub fn canonical(body: &Value) -> Vec<u8> {
    // serde_json's map is a BTreeMap unless `preserve_order` is on, which a test below refuses. A
    // tree of JSON always serialises.
    serde_json::to_vec(body).unwrap_or_default()
}

fn digest(gk: &GroupKind, body: &Value, key: &[u8; 32]) -> [u8; 32] {
    let bytes = canonical(body);
    // The digest of a Secret is written onto the copy. Without a key, a short password could be
    // guessed from it.
    let hash = if gk.is("", "Secret") { blake3::keyed_hash(key, &bytes) } else { blake3::hash(&bytes) };
    *hash.as_bytes()
}
