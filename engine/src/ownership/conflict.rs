//! Conflicts of a server-side apply.

use serde::{Deserialize, Serialize};

use super::fieldset::FieldSet;
use crate::outcome::Status;

/// One field that another manager owns and we want to change.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConflictCause {
    /// The other manager; empty when the server's text could not be read.
    pub manager: String,
    /// The subresource it wrote through, or empty.
    #[serde(default)]
    pub subresource: String,
    /// The field, as an API server writes it: `.spec.template.spec.containers[name="web"].image`.
    pub path: String,
}

impl ConflictCause {
    /// Is it a number of replicas that was set through `scale`? So write autoscalers; where one is there, the field is
    /// not asked for, and where one was, its last number stays behind.
    #[must_use]
    pub fn is_of_scale(&self) -> bool {
        self.subresource == "scale" && self.path == ".spec.replicas"
    }
}

/// The conflicts that the 409 of an apply names; none when it is another kind of 409.
#[must_use]
pub fn conflicts(status: &Status) -> Vec<ConflictCause> {
    let causes = status.details.causes.iter().filter(|cause| cause.reason == "FieldManagerConflict");
    causes
        .map(|cause| ConflictCause {
            manager: quoted_after(&cause.message, "conflict with ").unwrap_or_default(),
            subresource: quoted_after(&cause.message, "with subresource ").unwrap_or_default(),
            path: cause.field.clone(),
        })
        .collect()
}

/// `conflict with "kubectl-edit" using apps/v1`, `conflict with "a" with subresource "scale" using ...`.
fn quoted_after(message: &str, words: &str) -> Option<String> {
    let quoted = message.split_once(words)?.1;
    if !quoted.starts_with('"') {
        return None;
    }
    // Go's %q is close enough to a JSON string for any name that a manager can have.
    serde_json::Deserializer::from_str(quoted).into_iter::<String>().next()?.ok()
}

/// May these conflicts be overridden? Only if every field named is one that our last apply owned:
/// then somebody changed what is ours (`kubectl edit`); else we would take what is theirs.
#[must_use]
pub fn force_allowed(causes: &[ConflictCause], last_applied: &FieldSet) -> bool {
    !causes.is_empty() && causes.iter().all(|cause| last_applied.contains(&cause.path))
}
