//! Giving an object up: our marks go, what it does stays.

use lockstep_engine::object::RawObject;
use lockstep_engine::outcome::{Failure, FailureClass};
use lockstep_engine::ownership::{MANAGER, YIELD_MANAGER};
use serde_json::{Value, json};

use super::Writer;
use super::handover::Patched;
use super::types::{Live, ReleasePlan, Released};
use super::undo::Place;

/// All our labels and annotations begin so.
const MARK_PREFIX: &str = "lockstep.dev/";
/// Field manager of the patch. Not ours: a patch under our name would become an entry again.
const RELEASE_MANAGER: &str = "lockstep-release";

impl Writer {
    /// Removes our label, annotations and managedFields entries in one JSON patch with a
    /// resourceVersion test. Never a smaller apply: that would reset the fields that we own alone.
    pub async fn release(&self, plan: &ReleasePlan) -> Released {
        match self.read(&plan.resource, &plan.namespace, &plan.name).await {
            Err(failure) => Released::Failed(failure),
            Ok(None) => Released::Gone,
            // Another object has the name: what we wrote is gone.
            Ok(Some(live)) if live.uid != plan.uid => Released::Gone,
            Ok(Some(live)) => self.patch_away(plan, &live).await.unwrap_or_else(Released::Failed),
        }
    }

    async fn patch_away(&self, plan: &ReleasePlan, read: &Live) -> Result<Released, Failure> {
        let Some(operations) = operations(read)? else {
            return Ok(Released::Done { resource_version: read.resource_version.clone() });
        };
        let place = Place { resource: &plan.resource, namespace: &plan.namespace, name: &plan.name };
        Ok(match self.patch_exactly(place, read, RELEASE_MANAGER, operations).await? {
            Patched::Done(now) => Released::Done { resource_version: now.resource_version },
            Patched::Gone => Released::Gone,
            Patched::Changed => Released::Stale,
            Patched::Refused(failure) => Released::Failed(failure),
        })
    }
}

/// The patch; nothing when the object carries nothing of ours.
fn operations(read: &Live) -> Result<Option<Vec<Value>>, Failure> {
    let unreadable = || Failure::local(FailureClass::Transient, "the object's metadata could not be read");
    let object = RawObject::parse(&read.body).map_err(|_| unreadable())?;
    let mut out = Vec::new();
    for (member, marks) in
        [("labels", &object.metadata.labels), ("annotations", &object.metadata.annotations)]
    {
        for name in marks.keys().filter(|name| name.starts_with(MARK_PREFIX)) {
            let escaped = name.replace('~', "~0").replace('/', "~1");
            out.push(json!({"op": "remove", "path": format!("/metadata/{member}/{escaped}")}));
        }
    }
    if let Some(raw) = object.metadata.managed_fields {
        let entries: Vec<Value> = serde_json::from_str(raw.get()).map_err(|_| unreadable())?;
        let before = entries.len();
        let is_ours = |entry: &Value| {
            let manager = entry.get("manager").and_then(Value::as_str);
            matches!(manager, Some(MANAGER | YIELD_MANAGER))
        };
        let mut kept: Vec<Value> = entries.into_iter().filter(|entry| !is_ours(entry)).collect();
        if kept.len() != before {
            if kept.is_empty() {
                // An empty list means "leave as it is"; one empty entry clears it.
                kept.push(json!({}));
            }
            out.push(json!({"op": "replace", "path": "/metadata/managedFields", "value": kept}));
        }
    }
    Ok((!out.is_empty()).then_some(out))
}

#[cfg(test)]
mod tests {
    use super::super::live;
    use super::*;
    use bytes::Bytes;

    fn patch(body: &'static str) -> Option<String> {
        let live = live(Bytes::from_static(body.as_bytes())).unwrap();
        operations(&live).unwrap().map(|operations| Value::Array(operations).to_string())
    }

    #[test]
    fn only_what_is_ours_goes() {
        let text = patch(
            r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"1",
            "labels":{"app":"x","lockstep.dev/managed":"true"},"annotations":{"lockstep.dev/policy":"p"},
            "managedFields":[{"manager":"lockstep","operation":"Apply"},{"manager":"kubectl","operation":"Update"}]}}"#,
        )
        .unwrap();
        assert!(text.contains("/metadata/labels/lockstep.dev~1managed"), "{text}");
        assert!(text.contains("/metadata/annotations/lockstep.dev~1policy"), "{text}");
        assert!(
            text.contains(r#""manager":"kubectl""#) && !text.contains(r#""manager":"lockstep""#),
            "{text}"
        );
    }

    #[test]
    fn the_last_entry_is_cleared_explicitly_and_nothing_is_done_twice() {
        let sole = r#"{"metadata":{"name":"a","managedFields":[{"manager":"lockstep-yield"}]}}"#;
        assert!(patch(sole).unwrap().contains(r#""value":[{}]"#));
        assert_eq!(patch(r#"{"metadata":{"name":"a","labels":{"app":"x"}}}"#), None);
    }
}
