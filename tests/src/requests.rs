//! Counting requests, and reading which ones there were.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cluster::Cluster;

/// What requests are counted by, as in the API server's metric `apiserver_request_total`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestKey {
    /// `GET`, `LIST`, `WATCH`, `POST`, `PUT`, `APPLY`, `PATCH`, `DELETE`, ...
    pub verb: String,
    /// API group; empty for the core group and for requests that are not about resources.
    pub group: String,
    /// Plural resource; empty for requests that are not about resources.
    pub resource: String,
    /// Such as `status`, or empty.
    pub subresource: String,
    /// HTTP status. A watch is counted when it ends.
    pub code: u16,
}

/// Requests since the API server started, of all its clients together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestCounts(BTreeMap<RequestKey, u64>);

impl RequestCounts {
    /// Parses what `/metrics` gives.
    #[must_use]
    pub fn parse(metrics: &str) -> Self {
        let mut counts = BTreeMap::new();
        for line in metrics.lines() {
            let Some((labels, value)) =
                line.strip_prefix("apiserver_request_total{").and_then(|rest| rest.rsplit_once("} "))
            else {
                continue;
            };
            // The value may be written as 1.234e+06; counts are far below 2^53, so f64 holds them exactly.
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counters are not negative"
            )]
            let value = value.trim().parse::<f64>().unwrap_or_default() as u64;
            let mut key = RequestKey::default();
            for (name, text) in labels_of(labels) {
                match name {
                    "verb" => text.clone_into(&mut key.verb),
                    "group" => text.clone_into(&mut key.group),
                    "resource" => text.clone_into(&mut key.resource),
                    "subresource" => text.clone_into(&mut key.subresource),
                    "code" => key.code = text.parse().unwrap_or_default(),
                    _ => {}
                }
            }
            *counts.entry(key).or_default() += value;
        }
        Self(counts)
    }

    /// What was added since an earlier count.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let added = self.0.iter().map(|(key, count)| {
            (key.clone(), count.saturating_sub(earlier.0.get(key).copied().unwrap_or_default()))
        });
        Self(added.filter(|(_, count)| *count > 0).collect())
    }

    /// How many there are that `matches` accepts.
    pub fn count(&self, matches: impl Fn(&RequestKey) -> bool) -> u64 {
        self.0.iter().filter(|(key, _)| matches(key)).map(|(_, count)| count).sum()
    }

    /// Those that change state: neither GET, LIST nor WATCH.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.count(|key| !matches!(key.verb.as_str(), "GET" | "LIST" | "WATCH" | "HEAD" | "CONNECT"))
    }

    /// Each key with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&RequestKey, u64)> {
        self.0.iter().map(|(key, count)| (key, *count))
    }
}

impl fmt::Display for RequestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (RequestKey { verb, group, resource, subresource, code }, count) in &self.0 {
            writeln!(f, "{count:>6}  {code} {verb} {resource}.{group}/{subresource}")?;
        }
        Ok(())
    }
}

/// Label names and values. The values we read hold no quotes or commas; others are skipped harmlessly.
fn labels_of(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("\",").filter_map(|label| label.trim_end_matches('"').split_once("=\""))
}

/// A request in the audit log.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// `ResponseStarted` (watches only), `ResponseComplete` or `Panic`.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// The client's `User-Agent`.
    #[serde(default)]
    pub user_agent: String,
    /// Who it was.
    pub user: AuditUser,
    /// Outcome.
    #[serde(default)]
    pub response_status: Option<AuditStatus>,
}

/// Who sent a request.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditUser {
    /// Like `system:serviceaccount:NAMESPACE:NAME`; empty if nobody knows, as while an API server starts.
    #[serde(default)]
    pub username: String,
}

/// How a request ended.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditStatus {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

impl Cluster {
    /// Counts requests by verb, resource and status. The count includes this request of earlier calls.
    ///
    /// # Errors
    /// If `/metrics` cannot be read.
    pub async fn request_counts(&self) -> Result<RequestCounts> {
        Ok(RequestCounts::parse(&self.raw("/metrics").await?))
    }

    /// Reads the audit log; the test bed must have been started with [`Options::audit`](crate::testbed::Options::audit).
    ///
    /// # Errors
    /// If there is none, or a line is not understood.
    pub fn audit_events(&self) -> Result<Vec<AuditEvent>> {
        let path =
            self.state().audit_log.as_ref().context("this test bed was started without an audit log")?;
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        // The last line may still be in the writing.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| serde_json::from_str(line).context("parsing the audit log")).collect()
    }
}

impl AuditEvent {
    /// The request without its names: verb, path with placeholders, names of the parameters in order.
    /// `list /apis/{group}/{version}/namespaces/{namespace}/{resource} ?limit`
    #[must_use]
    pub fn shape(&self) -> String {
        let (path, query) = self.request_uri.split_once('?').unwrap_or((&self.request_uri, ""));
        let mut parameters: Vec<&str> =
            query.split('&').filter_map(|p| p.split('=').next()).filter(|p| !p.is_empty()).collect();
        parameters.sort_unstable();
        parameters.dedup();
        let mut shape = format!("{} {}", self.verb, shape_of_path(path));
        if !parameters.is_empty() {
            shape += &format!(" ?{}", parameters.join("&"));
        }
        shape
    }
}

fn shape_of_path(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (root, rest): (Vec<&str>, &[&str]) = match segments.as_slice() {
        ["api", _, rest @ ..] => (vec!["api", "v1"], rest),
        ["apis", _, _, rest @ ..] => (vec!["apis", "{group}", "{version}"], rest),
        other => (other.to_vec(), &[]),
    };
    let rest: Vec<&str> = match rest {
        ["namespaces"] => vec!["namespaces"],
        ["namespaces", _] => vec!["namespaces", "{name}"],
        ["namespaces", _, _] => vec!["namespaces", "{namespace}", "{resource}"],
        ["namespaces", _, _, _] => vec!["namespaces", "{namespace}", "{resource}", "{name}"],
        [_] => vec!["{resource}"],
        [_, _] => vec!["{resource}", "{name}"],
        other => other.to_vec(),
    };
    root.into_iter().chain(rest).fold(String::new(), |path, segment| path + "/" + segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_no_names() {
        for (uri, shape) in [
            (
                "/api/v1/namespaces/shop/configmaps/a?fieldManager=x&force=true",
                "/api/v1/namespaces/{namespace}/{resource}/{name} ?fieldManager&force",
            ),
            ("/apis/apps/v1/deployments?watch=1", "/apis/{group}/{version}/{resource} ?watch"),
            ("/apis/apps/v1", "/apis/{group}/{version}"),
            ("/api/v1/namespaces/kube-system", "/api/v1/namespaces/{name}"),
            ("/version", "/version"),
            ("/api/v1/namespaces/a/pods/b/exec", "/api/v1/namespaces/a/pods/b/exec"),
        ] {
            let event = AuditEvent {
                stage: String::new(),
                verb: "get".to_owned(),
                request_uri: uri.to_owned(),
                user_agent: String::new(),
                user: AuditUser { username: String::new() },
                response_status: None,
            };
            assert_eq!(event.shape(), format!("get {shape}"));
        }
    }
}
