//! Requests and responses as values, and what a path and query ask for.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A request. In process nothing is sent: this is all of it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// Path, percent-encoded as in a URL, without the query.
    pub path: String,
    /// Query, percent-encoded, without `?`.
    pub query: String,
    /// `Content-Type`; empty when there is none.
    pub content_type: String,
    /// `Accept`; empty when there is none.
    pub accept: String,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `User-Agent`: what comes before `/` is the field manager of writes that name none.
    pub user_agent: String,
    /// Who asks. Rules of [`super::Forbid`] name users; whoever none names may do everything.
    pub user: String,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A GET of a path with its query.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A request without a body; `target` is a path with its query.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { method: method.into(), path: path.into(), query: query.into(), ..Self::default() }
    }

    /// With a body.
    #[must_use]
    pub fn with(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { content_type: content_type.into(), body: body.into(), ..self }
    }

    /// By a user.
    #[must_use]
    pub fn by(self, user: &str) -> Self {
        Self { user: user.into(), ..self }
    }

    pub(crate) fn parameters(&self) -> Parameters {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(decoded(name, true)).or_default().push(decoded(value, true));
        }
        Parameters(all)
    }

    /// Who writes, as the field manager.
    pub(crate) fn manager(&self, parameters: &Parameters) -> String {
        match parameters.get("fieldManager") {
            "" => self.user_agent.split('/').next().unwrap_or_default().to_owned(),
            manager => manager.to_owned(),
        }
    }
}

/// Identifies an open watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub(crate) u64);

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// `ETag`.
    pub etag: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// An answer.
    Full(Answer),
    /// A watch is open (HTTP 200): poll it.
    Watch(WatchId),
    /// The connection broke before an answer came. Whether there was an effect is the fault's secret.
    Dropped,
}

/// A response and when it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// This long after the request was handled, ms.
    pub after_ms: u64,
    /// The response.
    pub response: Response,
}

/// What a watch had to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// These lines, each with its newline; possibly none for now.
    Lines(Vec<Bytes>),
    /// These last lines; then the stream ended.
    Ended(Vec<Bytes>),
}

/// The query.
#[derive(Debug, Default)]
pub(crate) struct Parameters(BTreeMap<String, Vec<String>>);

impl Parameters {
    /// A value, or nothing.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).and_then(|values| values.first()).map_or("", String::as_str)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Version,
    /// `/api`
    Core,
    /// `/apis`
    Groups,
    /// `/apis/apps`
    Group(String),
    /// `/api/v1`, `/apis/apps/v1`
    Resources {
        group: String,
        version: String,
    },
    Resource(Target),
    Health,
    Other,
}

/// A collection or an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty: cluster-scoped, or all namespaces.
    pub(crate) namespace: String,
    pub(crate) plural: String,
    /// Empty: the collection.
    pub(crate) name: String,
    /// Empty, or such as `status`.
    pub(crate) subresource: String,
}

pub(crate) fn route(path: &str) -> Route {
    let segments: Vec<String> =
        path.split('/').filter(|segment| !segment.is_empty()).map(|s| decoded(s, false)).collect();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["version"] => Route::Version,
        ["healthz" | "readyz" | "livez", ..] => Route::Health,
        ["api"] => Route::Core,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group((*group).to_owned()),
        ["api", version] => Route::Resources { group: String::new(), version: (*version).to_owned() },
        ["apis", group, version] => {
            Route::Resources { group: (*group).to_owned(), version: (*version).to_owned() }
        }
        ["api", version, rest @ ..] => Route::Resource(target("", version, rest)),
        ["apis", group, version, rest @ ..] => Route::Resource(target(group, version, rest)),
        _ => Route::Other,
    }
}

fn target(group: &str, version: &str, rest: &[&str]) -> Target {
    let base = Target { group: group.into(), version: version.into(), ..Target::default() };
    let object = |namespace: &str, plural: &str, name: &str, subresource: &str| Target {
        namespace: namespace.into(),
        plural: plural.into(),
        name: name.into(),
        subresource: subresource.into(),
        ..base.clone()
    };
    match rest {
        ["namespaces", name, subresource @ ("status" | "finalize")] => {
            object("", "namespaces", name, subresource)
        }
        ["namespaces", namespace, plural] => object(namespace, plural, "", ""),
        ["namespaces", namespace, plural, name] => object(namespace, plural, name, ""),
        ["namespaces", namespace, plural, name, subresource, ..] => {
            object(namespace, plural, name, subresource)
        }
        [plural] => object("", plural, "", ""),
        [plural, name] => object("", plural, name, ""),
        [plural, name, subresource, ..] => object("", plural, name, subresource),
        [] => base,
    }
}

/// Without percent-encoding. What is not UTF-8 is replaced.
fn decoded(text: &str, query: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 2;
            }
            (b'+', _) if query => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_collections_objects_and_subresources() {
        let of = |path: &str| match route(path) {
            Route::Resource(t) => [t.group, t.version, t.namespace, t.plural, t.name, t.subresource]
                .join(" ")
                .trim_end()
                .to_owned(),
            other => format!("{other:?}"),
        };
        for (path, expected) in [
            ("/api/v1/namespaces", " v1  namespaces"),
            ("/api/v1/namespaces/a", " v1  namespaces a"),
            ("/api/v1/namespaces/a/status", " v1  namespaces a status"),
            ("/api/v1/namespaces/a/pods", " v1 a pods"),
            ("/apis/apps/v1/namespaces/a/deployments/b/scale", "apps v1 a deployments b scale"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/a%3Ab",
                "rbac.authorization.k8s.io v1  clusterroles a:b",
            ),
            ("/apis/apps", "Group(\"apps\")"),
            ("/nope", "Other"),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
        let request = Request::get("/x?a=1%202&b=c+d&watch");
        let parameters = request.parameters();
        assert_eq!((parameters.get("a"), parameters.get("b"), parameters.has("watch")), ("1 2", "c d", true));
    }
}
