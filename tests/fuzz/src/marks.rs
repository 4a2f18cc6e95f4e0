//! The marks on objects, which anyone who may write an object can forge.

use lockstep_engine::marks::{has_marks, read_marks, stamp, verify};
use lockstep_engine::object::RawObject;
use serde_json::Value;

const KEY: [u8; 32] = [7; 32];

/// An object.
///
/// - Marks that are read say the same when they are written and read again.
/// - No marks out of an input are genuine; signed by the key, they are, and whatever they are put onto.
pub fn marks(data: &[u8]) {
    let Ok(object) = RawObject::parse(data) else { return };
    let Some(marks) = read_marks(&object.metadata.annotations, &object.metadata.labels) else { return };
    assert!(has_marks(&object.metadata.annotations, &object.metadata.labels));
    assert!(!verify(&marks, &KEY), "forged marks are taken for genuine");
    let signed = marks.clone().signed(&KEY);
    for (marks, genuine) in [(marks, false), (signed, true)] {
        let Ok(mut body) = serde_json::from_slice::<Value>(data) else { return };
        stamp(&mut body, &marks);
        let bytes = serde_json::to_vec(&body).expect("a tree is JSON");
        let object = RawObject::parse(&bytes).expect("marks leave an object an object");
        let read = read_marks(&object.metadata.annotations, &object.metadata.labels);
        let read = read.expect("marks that were written can be read");
        assert_eq!(read, marks);
        assert_eq!(verify(&read, &KEY), genuine);
    }
}
