//! What came of a request to an API server: one classification for all who write, read or list.
//!
//! The class decides what the executor does next (retry, observe again, report); it never depends
//! on the wording of a message where the server gives a machine-readable reason. The few cases in
//! which Kubernetes gives none (typed patch errors) are matched by text and tried on real servers.

use std::fmt;

mod class;

pub use class::{Advice, Again, Attempt, Retry};

use serde::{Deserialize, Serialize};

/// Longest message kept from a server, in characters: status text is shown to people and stored.
const MESSAGE_LIMIT: usize = 512;
/// Longest machine-readable reason, in bytes; those of Kubernetes have up to 40.
const REASON_LIMIT: usize = 64;
/// Most field paths kept of one rejection.
const PATHS_LIMIT: usize = 32;
/// Assumed when a 429 names no delay.
const DEFAULT_RETRY_AFTER_MS: u64 = 1_000;

/// Why a request did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureClass {
    /// The server had a passing problem: try again with backoff.
    Transient,
    /// The server asks for patience (429, or 503 with Retry-After).
    Throttled {
        /// How long to wait at least.
        retry_after_ms: u64,
    },
    /// Another field manager owns a field we want.
    Conflict,
    /// A field that cannot change after creation was to change.
    Immutable,
    /// RBAC, admission or a quota says no.
    Forbidden,
    /// The server considers the body invalid.
    Invalid,
    /// The body has fields that this server's schema does not know.
    SchemaMismatch,
    /// Two entries of a keyed list have one key: accepted by POST, refused by apply.
    DuplicateKeys,
    /// The server does not serve this kind or version.
    NotServed,
    /// The object's namespace does not exist.
    NamespaceMissing,
    /// The object's namespace is being deleted: wait, do not hammer.
    NamespaceTerminating,
    /// The body is larger than the server takes.
    TooLarge,
    /// The object is not in the state we expected (uid or resourceVersion): observe again.
    Stale,
    /// The object is not there.
    Gone,
    /// An object of that name is there, where none should be.
    AlreadyExists,
    /// The agent's own configuration does not accept this write (I16).
    NotAccepted,
    /// No connection.
    Unreachable,
    /// No answer in time: what happened is unknown.
    Timeout,
}

impl FailureClass {
    /// Will the same request fail the same way until somebody changes something?
    #[must_use]
    pub fn is_permanent(self) -> bool {
        match self {
            Self::Conflict
            | Self::Immutable
            | Self::Forbidden
            | Self::Invalid
            | Self::SchemaMismatch
            | Self::DuplicateKeys
            | Self::NotServed
            | Self::TooLarge
            | Self::NotAccepted => true,
            Self::Transient
            | Self::Throttled { .. }
            | Self::NamespaceMissing
            | Self::NamespaceTerminating
            | Self::Stale
            | Self::Gone
            | Self::AlreadyExists
            | Self::Unreachable
            | Self::Timeout => false,
        }
    }

    /// The reason shown to people and stored in status: PascalCase, stable.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Transient => "Transient",
            Self::Throttled { .. } => "Throttled",
            Self::Conflict => "Conflict",
            Self::Immutable => "Immutable",
            Self::Forbidden => "Forbidden",
            Self::Invalid => "Invalid",
            Self::SchemaMismatch => "SchemaMismatch",
            Self::DuplicateKeys => "DuplicateKeys",
            Self::NotServed => "NotServed",
            Self::NamespaceMissing => "NamespaceMissing",
            Self::NamespaceTerminating => "NamespaceTerminating",
            Self::TooLarge => "TooLarge",
            Self::Stale => "Stale",
            Self::Gone => "Gone",
            Self::AlreadyExists => "AlreadyExists",
            Self::NotAccepted => "NotAccepted",
            Self::Unreachable => "Unreachable",
            Self::Timeout => "Timeout",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What was asked of the server; a 404 or 409 means different things to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// POST of one object.
    Create,
    /// PUT of one object.
    Replace,
    /// JSON patch (release).
    Patch,
    /// DELETE.
    Delete,
    /// GET of one object.
    Read,
    /// LIST, WATCH or discovery.
    List,
}

/// May a server's text about this object be kept?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sensitivity {
    /// Yes, bounded.
    Plain,
    /// No: a server quotes values in what it rejects. Reason and field paths only (I13).
    Secret,
}

impl Sensitivity {
    /// Of a kind: core Secrets are secret.
    #[must_use]
    pub fn of(group: &str, kind: &str) -> Self {
        if group.is_empty() && kind == "Secret" { Self::Secret } else { Self::Plain }
    }
}

/// A request that failed, fit for a log, a status or an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Failure {
    /// What to do about it.
    pub class: FailureClass,
    /// For people. For Secrets it holds no text of the server beyond reasons and field paths.
    pub message: String,
    /// The fields that the server named, as it wrote them.
    pub fields: Vec<String>,
    /// How long the server asked to wait.
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure that no server reported.
    #[must_use]
    pub fn local(class: FailureClass, message: &str) -> Self {
        let retry_after_ms = match class {
            FailureClass::Throttled { retry_after_ms } => Some(retry_after_ms),
            _ => None,
        };
        Self { class, message: bounded(message), fields: Vec::new(), retry_after_ms }
    }
}

/// A `metav1.Status`, the parts that decide anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// HTTP code as the server repeats it in the body; 0 when absent.
    pub code: u16,
    /// Machine-readable reason, as in `Expired`.
    pub reason: String,
    /// Text of the server; may quote values.
    pub message: String,
    /// More of the machine-readable part.
    #[serde(deserialize_with = "null_as_default")]
    pub details: StatusDetails,
}

/// `details` of a [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusDetails {
    /// Plural resource or kind that the error is about.
    pub kind: String,
    /// Name that the error is about.
    pub name: String,
    /// Single causes.
    #[serde(deserialize_with = "null_as_default")]
    pub causes: Vec<Cause>,
    /// Seconds to wait.
    pub retry_after_seconds: u64,
}

/// One cause of a rejection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// Machine-readable, as in `FieldManagerConflict`.
    pub reason: String,
    /// Text; may quote values.
    pub message: String,
    /// Field path.
    pub field: String,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Status {
    /// Reads a body; anything that is no Status gives an empty one.
    #[must_use]
    pub fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    fn has_cause(&self, reason: &str) -> bool {
        self.details.causes.iter().any(|cause| cause.reason == reason)
    }

    /// Does message or a cause's message contain any of these?
    fn says(&self, any: &[&str]) -> bool {
        any.iter().any(|text| {
            self.message.contains(text)
                || self.details.causes.iter().any(|cause| cause.message.contains(text))
        })
    }

    /// Is the resourceVersion that was asked for in the future? 1.20 says it in words only.
    #[must_use]
    pub fn is_future_version(&self) -> bool {
        self.has_cause("ResourceVersionTooLarge")
            || self.says(&["Too large resource version", "future revision"])
    }
}

/// Classifies an answer that was not a success.
///
/// `http_status` is the code of the response, `body` a `metav1.Status` (or anything), and
/// `retry_after_ms` the Retry-After header.
#[must_use]
pub fn classify(
    http_status: u16,
    body: &[u8],
    operation: Operation,
    sensitivity: Sensitivity,
    retry_after_ms: Option<u64>,
) -> Failure {
    let status = Status::parse(body);
    let in_body = match status.details.retry_after_seconds {
        0 => None,
        seconds => Some(seconds.saturating_mul(1_000)),
    };
    let retry_after_ms = retry_after_ms.or(in_body);
    let class = class_of(http_status, &status, operation, retry_after_ms);
    let mut fields: Vec<String> =
        status.details.causes.iter().map(|cause| cause.field.clone()).filter(|f| !f.is_empty()).collect();
    fields.dedup();
    fields.truncate(PATHS_LIMIT);
    Failure { class, message: message(http_status, &status, sensitivity), fields, retry_after_ms }
}

fn class_of(http: u16, status: &Status, operation: Operation, retry_after_ms: Option<u64>) -> FailureClass {
    match http {
        400 => body_problem(status).unwrap_or(FailureClass::Invalid),
        401 | 403
            if status.has_cause("NamespaceTerminating")
                || status.says(&["because it is being terminated"]) =>
        {
            FailureClass::NamespaceTerminating
        }
        401 | 403 => FailureClass::Forbidden,
        404 => not_found(status, operation),
        405 | 406 | 415 => FailureClass::NotServed,
        409 if operation == Operation::Create && status.reason == "AlreadyExists" => {
            FailureClass::AlreadyExists
        }
        409 => conflict(status),
        410 => FailureClass::Stale,
        413 => FailureClass::TooLarge,
        422 => unprocessable(status),
        429 => FailureClass::Throttled { retry_after_ms: retry_after_ms.unwrap_or(DEFAULT_RETRY_AFTER_MS) },
        503 if retry_after_ms.is_some() => {
            FailureClass::Throttled { retry_after_ms: retry_after_ms.unwrap_or(DEFAULT_RETRY_AFTER_MS) }
        }
        504 => FailureClass::Timeout,
        500.. => body_problem(status).unwrap_or(FailureClass::Transient),
        _ => FailureClass::Invalid,
    }
}

/// What apply says about a body with HTTP 500 (or 400) and no reason. Tried on 1.20.2, except what is too large.
fn body_problem(status: &Status) -> Option<FailureClass> {
    const TOO_LARGE: &[&str] =
        &["request is too large", "Request entity too large", "trying to send message larger than max"];
    // A list key that has a default on newer servers ("omits key field \"protocol\"") counts too.
    const SCHEMA: &[&str] = &["failed to create typed patch object", "field not declared in schema"];
    const NOT_DECODED: &[&str] =
        &["failed to convert new object to proper version", "error decoding from json"];
    if status.says(&["duplicate entries for key"]) {
        Some(FailureClass::DuplicateKeys)
    } else if status.says(SCHEMA) {
        Some(FailureClass::SchemaMismatch)
    } else if status.says(NOT_DECODED) {
        Some(FailureClass::Invalid)
    } else if status.says(TOO_LARGE) {
        Some(FailureClass::TooLarge)
    } else {
        None
    }
}

fn not_found(status: &Status, operation: Operation) -> FailureClass {
    if status.details.kind == "namespaces" && matches!(operation, Operation::Apply | Operation::Create) {
        return FailureClass::NamespaceMissing;
    }
    // A path that no API serves is answered without details ("404 page not found", or a Status
    // without a name).
    let unknown_path = status.details.name.is_empty();
    match operation {
        Operation::Apply | Operation::Create | Operation::List => FailureClass::NotServed,
        Operation::Patch | Operation::Replace | Operation::Delete | Operation::Read if unknown_path => {
            FailureClass::NotServed
        }
        Operation::Patch | Operation::Replace | Operation::Delete | Operation::Read => FailureClass::Gone,
    }
}

fn conflict(status: &Status) -> FailureClass {
    if status.has_cause("FieldManagerConflict") {
        FailureClass::Conflict
    } else if status.says(&["no existing object was found"]) {
        FailureClass::Gone
    } else {
        FailureClass::Stale
    }
}

fn unprocessable(status: &Status) -> FailureClass {
    const IMMUTABLE: &[&str] = &[
        "field is immutable",
        "may not change once set",
        "cannot be changed",
        "may not be changed",
        "are forbidden", // "updates to statefulset spec for fields other than ... are forbidden"
        "is immutable after creation",
        "cannot change roleRef",
        "when `immutable` is set",
    ];
    if status.details.causes.iter().any(|cause| cause.field == "metadata.uid")
        || status.says(&["uid mismatch", "Precondition failed: UID", "UID in precondition"])
    {
        return FailureClass::Stale;
    }
    if let Some(class) = body_problem(status) {
        return class;
    }
    if status.says(IMMUTABLE) { FailureClass::Immutable } else { FailureClass::Invalid }
}

fn message(http: u16, status: &Status, sensitivity: Sensitivity) -> String {
    if sensitivity == Sensitivity::Plain && !status.message.is_empty() {
        return bounded(&status.message);
    }
    let mut text = format!("HTTP {http}");
    let reason = word(&status.reason);
    if !reason.is_empty() {
        text.push(' ');
        text.push_str(reason);
    }
    let mut parts = Vec::new();
    for cause in status.details.causes.iter().take(PATHS_LIMIT) {
        let reason = word(&cause.reason);
        let part = match (cause.field.is_empty(), reason.is_empty()) {
            (false, false) => format!("{} ({reason})", cause.field),
            (false, true) => cause.field.clone(),
            (true, _) => reason.to_owned(),
        };
        if !part.is_empty() && !parts.contains(&part) {
            parts.push(part);
        }
    }
    if !parts.is_empty() {
        text.push_str(": ");
        text.push_str(&parts.join(", "));
    }
    bounded(&text)
}

/// A reason, if it is one: some webhooks write their text there, and quote what they refuse.
fn word(reason: &str) -> &str {
    let is_word = reason.len() <= REASON_LIMIT && reason.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_word { reason } else { "" }
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_LIMIT) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
