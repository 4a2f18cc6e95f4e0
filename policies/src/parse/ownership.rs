//! `spec.ownership`, and the same of one entry of `spec.resources`.

use lockstep_engine::plan::OnConflict;

use crate::node::Node;
use crate::policy::Ownership;
use crate::reader::{Reader, join};

const CONFLICTS: &[(&str, OnConflict)] = &[
    ("Fail", OnConflict::Fail),
    ("AdoptIfEqual", OnConflict::AdoptIfEqual),
    ("TakeOver", OnConflict::TakeOver),
];

/// What is not said is as in `default`. A faulty field has a finding, which keeps the file from being taken.
pub(super) fn ownership(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    path: &str,
    default: Ownership,
) -> Ownership {
    let Some(fields) = node.and_then(|node| reader.fields(node, path, &["conflict"])) else { return default };
    let conflict =
        fields.get("conflict").and_then(|node| reader.one_of(node, &join(path, "conflict"), CONFLICTS));
    Ownership { conflict: conflict.unwrap_or(default.conflict) }
}
