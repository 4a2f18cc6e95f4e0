//! People and programs beside lockstep, who write to the cluster directly.

use serde_json::{Value, json};

use super::http::{Reply, Request, Response};
use super::kinds::text;
use super::patch::APPLY;
use super::server::{ApiServer, Millis};

impl ApiServer {
    /// The path of an object, where its kind is served.
    #[must_use]
    pub fn path_of(&self, object: &Value) -> Option<String> {
        let metadata = &object["metadata"];
        self.path(
            &text(&object["apiVersion"]),
            &text(&object["kind"]),
            &text(&metadata["namespace"]),
            &text(&metadata["name"]),
        )
    }

    /// The path of an object by its parts; an empty name gives the collection.
    #[must_use]
    pub fn path(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<String> {
        let kind = self.kinds.by_kind(api_version, kind)?;
        let root = if kind.group.is_empty() { "/api" } else { "/apis" };
        let mut path = format!("{root}/{api_version}");
        if kind.namespaced && !namespace.is_empty() {
            path.push_str(&format!("/namespaces/{namespace}"));
        }
        path.push_str(&format!("/{}", kind.plural));
        if !name.is_empty() {
            path.push_str(&format!("/{}", name.replace(':', "%3A")));
        }
        Some(path)
    }

    /// A user applies an object, as `kubectl apply --server-side` does.
    pub fn user_apply(&mut self, now: Millis, manager: &str, object: &Value, force: bool) -> Option<Reply> {
        let path = self.path_of(object)?;
        let force = if force { "&force=true" } else { "" };
        let request = Request::new("PATCH", &format!("{path}?fieldManager={manager}{force}"));
        Some(self.handle(now, &request.with(APPLY, object.to_string())))
    }

    /// A user creates an object.
    pub fn user_create(&mut self, now: Millis, manager: &str, object: &Value) -> Option<Reply> {
        let metadata = &object["metadata"];
        let path = self.path(
            &text(&object["apiVersion"]),
            &text(&object["kind"]),
            &text(&metadata["namespace"]),
            "",
        )?;
        let request = Request::new("POST", &format!("{path}?fieldManager={manager}"));
        Some(self.handle(now, &request.with("application/json", object.to_string())))
    }

    /// A user replaces an object, as `kubectl replace` and most controllers do.
    pub fn user_update(&mut self, now: Millis, manager: &str, object: &Value) -> Option<Reply> {
        let path = self.path_of(object)?;
        let request = Request::new("PUT", &format!("{path}?fieldManager={manager}"));
        Some(self.handle(now, &request.with("application/json", object.to_string())))
    }

    /// A user merge-patches an object; `path` as [`Self::path`] gives it, or with `/status`.
    pub fn user_patch(&mut self, now: Millis, manager: &str, path: &str, patch: &Value) -> Reply {
        let request = Request::new("PATCH", &format!("{path}?fieldManager={manager}"));
        self.handle(now, &request.with("application/merge-patch+json", patch.to_string()))
    }

    /// A user deletes an object, in the background.
    pub fn user_delete(&mut self, now: Millis, path: &str) -> Reply {
        let options = json!({"propagationPolicy": "Background"});
        self.handle(now, &Request::new("DELETE", path).with("application/json", options.to_string()))
    }
}

impl Reply {
    /// The HTTP status; 0 where the connection broke.
    #[must_use]
    pub fn status(&self) -> u16 {
        match &self.response {
            Response::Full(answer) => answer.status,
            Response::Watch(_) => 200,
            Response::Dropped => 0,
        }
    }

    /// The body as JSON; null where there is none.
    #[must_use]
    pub fn json(&self) -> Value {
        match &self.response {
            Response::Full(answer) => serde_json::from_slice(&answer.body).unwrap_or_default(),
            Response::Watch(_) | Response::Dropped => Value::Null,
        }
    }
}
