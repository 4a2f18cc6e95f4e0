//! `metav1.Status`: how an API server says no.

use serde_json::{Map, Value, json};

/// A refusal.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    reason: &'static str,
    pub(crate) message: String,
    details: Map<String, Value>,
    pub(crate) retry_after_s: Option<u32>,
    /// "404 page not found" and its like, without a Status.
    text: bool,
    /// `metadata.continue` of an expired list.
    next: Option<String>,
}

/// Which resource an error is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) group: &'a str,
    /// Plural, or the kind, as the server has it there.
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
}

impl About<'_> {
    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        for (name, value) in [("name", self.name), ("group", self.group), ("kind", self.kind)] {
            if !value.is_empty() {
                details.insert(name.to_owned(), value.into());
            }
        }
        details
    }

    /// `configmaps`, `deployments.apps`.
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Wrong {
    pub(crate) fn invalid(field: &str, value: &Value, why: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            field: field.to_owned(),
            message: format!("Invalid value: {value}: {why}"),
        }
    }

    pub(crate) fn required(field: &str, why: &str) -> Self {
        let colon = if why.is_empty() { "" } else { ": " };
        Self {
            reason: "FieldValueRequired",
            field: field.to_owned(),
            message: format!("Required value{colon}{why}"),
        }
    }

    pub(crate) fn forbidden(field: &str, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.to_owned(), message: format!("Forbidden: {why}") }
    }

    pub(crate) fn too_long(field: &str, limit: usize) -> Self {
        let message = format!("Too long: must have at most {limit} bytes");
        Self { reason: "FieldValueTooLong", field: field.to_owned(), message }
    }
}

impl ApiError {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, reason, message, details: Map::new(), retry_after_s: None, text: false, next: None }
    }

    fn about(mut self, about: About<'_>) -> Self {
        self.details = about.details();
        self
    }

    fn with_causes(mut self, causes: Vec<Value>) -> Self {
        self.details.insert("causes".to_owned(), Value::Array(causes));
        self
    }

    pub(crate) fn not_found(about: About<'_>) -> Self {
        Self::new(404, "NotFound", format!("{} {:?} not found", about.qualified(), about.name)).about(about)
    }

    pub(crate) fn unknown_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// A path that nobody handles.
    pub(crate) fn no_page() -> Self {
        Self { text: true, ..Self::new(404, "", "404 page not found\n") }
    }

    /// An aggregated API server that is away.
    pub(crate) fn unavailable() -> Self {
        Self { text: true, ..Self::new(503, "", "service unavailable\n") }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// What the server has no reason for.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    pub(crate) fn exists(about: About<'_>, deleting: bool) -> Self {
        let prefix = if deleting { "object is being deleted: " } else { "" };
        let message = format!("{prefix}{} {:?} already exists", about.qualified(), about.name);
        Self::new(409, "AlreadyExists", message).about(about)
    }

    pub(crate) fn conflict(about: About<'_>, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {:?}: {why}", about.qualified(), about.name);
        Self::new(409, "Conflict", message).about(about)
    }

    pub(crate) fn stale(about: About<'_>) -> Self {
        Self::conflict(
            about,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn forbidden(about: About<'_>, why: &str) -> Self {
        let name = if about.name.is_empty() { String::new() } else { format!(" {:?}", about.name) };
        let message = format!("{}{name} is forbidden: {why}", about.qualified());
        Self::new(403, "Forbidden", message).about(about)
    }

    pub(crate) fn terminating(about: About<'_>, namespace: &str) -> Self {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        Self::forbidden(about, &why).with_causes(vec![json!({
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        })])
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(crate) fn crd_terminating(about: About<'_>, verb: &str) -> Self {
        let message = format!("{verb} not allowed while custom resource definition is terminating");
        Self::new(405, "MethodNotAllowed", message).about(About { name: "", ..about })
    }

    pub(crate) fn media_type(message: &str) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn too_large(message: String) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 422 for what a generic server response makes of it.
    pub(crate) fn rejected() -> Self {
        Self::new(422, "Invalid", "the server rejected our request due to an error in our request")
    }

    pub(crate) fn invalid(about: About<'_>, wrongs: &[Wrong]) -> Self {
        let texts: Vec<String> = wrongs.iter().map(|w| format!("{}: {}", w.field, w.message)).collect();
        let mut unique = texts.clone();
        unique.dedup();
        let text = match &unique[..] {
            [only] => only.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes = wrongs
            .iter()
            .map(|w| json!({"reason": w.reason, "message": w.message, "field": w.field}))
            .collect();
        let message = format!("{} {:?} is invalid: {text}", about.qualified(), about.name);
        Self::new(422, "Invalid", message).about(about).with_causes(causes)
    }

    pub(crate) fn apply_conflicts(conflicts: &[(String, String)]) -> Self {
        let causes = conflicts.iter().map(|(manager, field)| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field})
        });
        let causes: Vec<Value> = causes.collect();
        let message = match conflicts {
            [(manager, field)] => format!("Apply failed with 1 conflict: conflict with {manager}: {field}"),
            many => {
                let mut lines = Vec::new();
                let mut last = "";
                for (manager, field) in many {
                    if manager != last {
                        lines.push(format!("conflicts with {manager}:"));
                        last = manager;
                    }
                    lines.push(format!("- {field}"));
                }
                format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
            }
        };
        Self::new(409, "Conflict", message).with_causes(causes)
    }

    pub(crate) fn expired(message: String) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(crate) fn expired_token(next: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start \
            a new list without the continue parameter, or use the continue token in this response to retrieve the \
            remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
            that were created, modified, or deleted between the time the first chunk was returned and now may show \
            up in the list.";
        Self { next: Some(next), ..Self::expired(message.to_owned()) }
    }

    /// A version from the future, told by the watch cache.
    pub(crate) fn version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut error = Self::new(504, "Timeout", message).with_causes(vec![
            json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}),
        ]);
        error.details.insert("retryAfterSeconds".to_owned(), 1.into());
        error.retry_after_s = Some(1);
        error
    }

    /// As injected by a fault.
    pub(crate) fn injected(code: u16, retry_after_s: Option<u32>) -> Self {
        let (reason, message) = match code {
            401 => return Self::unauthorized(),
            403 => ("Forbidden", "forbidden by a fault"),
            404 => return Self::unknown_resource(),
            410 => ("Expired", "expired by a fault"),
            413 => ("RequestEntityTooLarge", "too large by a fault"),
            422 => ("Invalid", "invalid by a fault"),
            429 => ("TooManyRequests", "Too many requests, please try again later."),
            500 => ("InternalError", "Internal error occurred: injected by a fault"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "the request timed out"),
            _ => ("", "injected by a fault"),
        };
        let mut error = Self::new(code, reason, message);
        error.retry_after_s = retry_after_s;
        if let Some(seconds) = retry_after_s {
            error.details.insert("retryAfterSeconds".to_owned(), seconds.into());
        }
        error
    }

    /// The Status.
    pub(crate) fn status(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(next) = &self.next {
            metadata.insert("continue".to_owned(), next.as_str().into());
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        // These come with details that say nothing.
        let empty = matches!(self.reason, "MethodNotAllowed" | "UnsupportedMediaType" | "NotFound")
            || (self.reason == "Invalid" && self.details.is_empty());
        if empty || !self.details.is_empty() {
            status["details"] = Value::Object(self.details.clone());
        }
        status
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        if self.text { self.message.clone().into_bytes() } else { self.status().to_string().into_bytes() }
    }

    pub(crate) fn is_text(&self) -> bool {
        self.text
    }
}
