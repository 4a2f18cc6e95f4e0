//! Paths of fields as people write them in policies, and what they cut out of objects.

use std::collections::BTreeSet;

use lockstep_engine::object::RawObject;
use lockstep_engine::ownership::{Drift, Leave, Pattern, PatternError, canonical_json, give_back, share};
use serde_json::Value;

/// Three lines: a JSON pointer, a JSONPath, and an object as an API server answers it.
///
/// - A pattern reads back as the same; an error names a place in the text.
/// - What is left out of a body is left out once and for all, makes it no larger, and never takes apiVersion, kind, name or
///   namespace away.
/// - Our share of an object, and what is given back of it, is worked out or refused, whatever its managedFields say.
pub fn patterns(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let text = |line: Option<&[u8]>| String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    let (pointer, path) = (text(lines.next()), text(lines.next()));
    let read = [read(&pointer, Pattern::from_pointer(&pointer)), read(&path, Pattern::from_json_path(&path))];
    let never: BTreeSet<Pattern> = read.into_iter().flatten().filter(|pattern| !pattern.is_root()).collect();
    let Some(bytes) = lines.next().filter(|bytes| RawObject::parse(bytes).is_ok()) else { return };
    let Ok(live) = serde_json::from_slice::<Value>(bytes) else { return };
    let mut body = live.clone();
    if let Some(metadata) = body["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let drift = never.iter().map(|pattern| (pattern.clone(), Drift::Report)).collect();
    for leave in [
        Leave { never: never.clone(), ..Leave::default() },
        Leave { after_create: never.clone(), drift, ..Leave::default() },
    ] {
        let again: Leave = serde_json::from_slice(&leave.canonical()).expect("what was written can be read");
        assert_eq!(again, leave);
        for cut in [Leave::without_left, Leave::at_creation] {
            let rest = cut(&leave, &body);
            assert_eq!(cut(&leave, &rest), rest, "cutting twice");
            assert!(canonical_json(&rest).len() <= canonical_json(&body).len());
            for name in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
                assert_eq!(rest.pointer(name), body.pointer(name), "{name}");
            }
        }
        if let Ok(ours) = share(&body, &live, &leave) {
            assert_eq!(share(&body, &live, &leave).ok().as_ref(), Some(&ours));
            assert_eq!(ours.body.pointer("/metadata/name"), body.pointer("/metadata/name"));
        }
        let _ = give_back(&body, &live, &leave);
    }
}

fn read(text: &str, read: Result<Pattern, PatternError>) -> Option<Pattern> {
    match read {
        Ok(pattern) => {
            let again: Pattern = pattern.to_string().parse().expect("what was written can be read");
            assert_eq!(again, pattern, "{text}");
            Some(pattern)
        }
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.at), "{error} in {text:?}");
            None
        }
    }
}
