//! Bodies of applies: metadata is added by splicing, no tree is built.

use std::collections::BTreeMap;

use lockstep_engine::outcome::{Failure, FailureClass};
use lockstep_engine::ownership::INTENT_ANNOTATION;
use lockstep_engine::{ResourceVersion, Uid};
use serde_json::value::{RawValue, to_raw_value};

use crate::error::position;

/// What an apply carries beside the desired body.
#[derive(Debug, Default)]
pub(super) struct Extra<'a> {
    pub(super) uid: Option<&'a Uid>,
    pub(super) resource_version: Option<&'a ResourceVersion>,
    pub(super) nonce: Option<&'a str>,
}

/// The body with uid, resourceVersion and nonce in its metadata.
pub(super) fn compose(body: &[u8], extra: &Extra<'_>) -> Result<Vec<u8>, Failure> {
    splice(body, extra).map_err(|error| {
        let text = format!("the desired body is not an object with metadata: {}", position(&error));
        Failure::local(FailureClass::Invalid, &text)
    })
}

fn splice(body: &[u8], extra: &Extra<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut top: BTreeMap<String, &RawValue> = serde_json::from_slice(body)?;
    let own = match top.get("metadata") {
        Some(raw) => raw.get(),
        None => "null", // refused below with the position of the type error
    };
    let mut metadata: BTreeMap<String, &RawValue> = serde_json::from_str(own)?;
    let uid = extra.uid.map(|uid| to_raw_value(uid.as_str())).transpose()?;
    let version = extra.resource_version.map(|version| to_raw_value(version.as_str())).transpose()?;
    let nonce = extra.nonce.map(to_raw_value).transpose()?;
    let annotations = match &nonce {
        None => None,
        Some(nonce) => {
            let mut annotations: Option<BTreeMap<String, &RawValue>> = match metadata.get("annotations") {
                Some(raw) => serde_json::from_str(raw.get())?,
                None => None,
            };
            let annotations = annotations.get_or_insert_default();
            annotations.insert(INTENT_ANNOTATION.to_owned(), nonce);
            Some(to_raw_value(annotations)?)
        }
    };
    for (name, value) in [("uid", &uid), ("resourceVersion", &version), ("annotations", &annotations)] {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), value);
        }
    }
    let metadata = to_raw_value(&metadata)?;
    top.insert("metadata".to_owned(), &metadata);
    serde_json::to_vec(&top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_added_and_the_rest_stays() {
        let body = br#"{"kind":"X","metadata":{"name":"a","annotations":{"b":"c"}},"data":{"n":1.50}}"#;
        let uid = Uid::new("u");
        let version = ResourceVersion::new("7");
        let extra = Extra { uid: Some(&uid), resource_version: Some(&version), nonce: Some("n\"1") };
        assert_eq!(
            String::from_utf8(compose(body, &extra).unwrap()).unwrap(),
            r#"{"data":{"n":1.50},"kind":"X","metadata":{"annotations":{"b":"c","lockstep.dev/intent":"n\"1"},"name":"a","resourceVersion":"7","uid":"u"}}"#
        );
    }

    #[test]
    fn a_body_without_metadata_is_invalid_and_not_quoted() {
        let failure = compose(br#"{"data":"canary"}"#, &Extra::default()).unwrap_err();
        assert_eq!(failure.class, FailureClass::Invalid);
        assert!(!failure.message.contains("canary"));
        assert!(
            compose(br#"{"metadata":{"annotations":null}}"#, &Extra { nonce: Some("x"), ..Extra::default() })
                .is_ok()
        );
    }
}
