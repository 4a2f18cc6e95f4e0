//! What an error may say of the bytes that caused it: positions and categories, never values (I13).

/// Stands for a value in inputs and in the mutator's dictionary: no error may repeat it.
pub(crate) const CANARY: &str = "c4n4ry";

/// Every text of an error about JSON, without its numbers.
const SAYINGS: &[&str] = &[
    "Syntax error at line  column ",
    "Data error at line  column ",
    "Eof error at line  column ",
    "not a Kubernetes object: bad syntax at line  column ",
    "not a Kubernetes object: wrong type or missing field at line  column ",
    "not a Kubernetes object: truncated at line  column ",
    "not a Kubernetes object: bad managedFields at line  column ",
    "the object has no metadata.name",
    "neither an event nor a Status",
    "unknown event type",
];

/// Fails when a text says anything but a known sentence with numbers in it.
pub(crate) fn assert_no_value(text: &str) {
    let without: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
    assert!(SAYINGS.contains(&without.as_str()), "an error that may quote a value: {text:?}");
}
