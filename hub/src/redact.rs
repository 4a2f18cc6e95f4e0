//! Values of Secrets become keyed digests (I13): that a value of one Secret changed, or is the same in another cluster, can
//! be seen, and nothing else. They are salted by namespace and name, or whoever may write one Secret could learn by
//! comparing what is in another.

use serde_json::{Map, Value};

/// What starts every digest.
const PREFIX: &str = "redacted:";
/// Fields of a Secret that hold no values.
const PLAIN: [&str; 5] = ["apiVersion", "kind", "metadata", "type", "immutable"];
/// Holds a copy of the whole object.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Is it the kind whose values are kept back?
pub(crate) fn is_secret(group: &str, kind: &str) -> bool {
    group.is_empty() && kind == "Secret"
}

/// Replaces every value of a Secret by a digest. `key` never leaves the hub.
pub(crate) fn redact(body: &mut Value, key: &[u8; 32]) {
    let key = &salted(body, key);
    let Some(fields) = body.as_object_mut() else {
        *body = digest(body, key);
        return;
    };
    for (name, value) in fields.iter_mut() {
        match (name.as_str(), &mut *value) {
            ("metadata", Value::Object(metadata)) => redact_annotations(metadata, key),
            (plain, _) if PLAIN.contains(&plain) => {}
            (_, Value::Object(values)) => values.values_mut().for_each(|value| *value = digest(value, key)),
            (_, value) => *value = digest(value, key),
        }
    }
}

/// The key for the values of this Secret.
fn salted(body: &Value, key: &[u8; 32]) -> [u8; 32] {
    let text = |pointer| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    *blake3::keyed_hash(key, format!("{namespace}/{name}").as_bytes()).as_bytes()
}

fn redact_annotations(metadata: &mut Map<String, Value>, key: &[u8; 32]) {
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
        && let Some(value) = annotations.get_mut(LAST_APPLIED)
    {
        *value = digest(value, key);
    }
}

fn digest(value: &Value, key: &[u8; 32]) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let hash = blake3::keyed_hash(key, text.as_bytes()).to_hex();
    Value::String(format!("{PREFIX}{}", &hash[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_value_of_a_secret_survives() {
        let mut body = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "db", "annotations": {LAST_APPLIED: "{\"data\":{\"p\":\"Y2FuYXJ5\"}}", "a": "b"}},
            "data": {"p": "Y2FuYXJ5", "q": "Y2FuYXJ5"}, "stringData": {"p": "canary"}, "unheard": ["canary"],
        });
        redact(&mut body, &[7; 32]);
        let text = body.to_string();
        assert!(!text.contains("canary") && !text.contains("Y2FuYXJ5"), "{text}");
        assert_eq!(body["data"]["p"], body["data"]["q"], "equal values have equal digests");
        assert_eq!(body["type"], "Opaque");
        assert_eq!(body["metadata"]["annotations"]["a"], "b");
        let mut other = json!({"data": {"p": "Y2FuYXJ5"}});
        redact(&mut other, &[8; 32]);
        assert_ne!(other["data"]["p"], body["data"]["p"], "digests are keyed");
        let shown = |namespace: &str, name: &str| {
            let mut body =
                json!({"metadata": {"namespace": namespace, "name": name}, "data": {"p": "Y2FuYXJ5"}});
            redact(&mut body, &[7; 32]);
            body["data"]["p"].clone()
        };
        assert_eq!(shown("shop", "db"), shown("shop", "db"), "copies can be compared");
        assert_ne!(shown("shop", "db"), shown("shop", "mine"), "and nothing else");
        assert_ne!(shown("shop", "db"), shown("dev", "db"));
    }
}
