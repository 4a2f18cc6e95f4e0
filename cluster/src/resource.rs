//! Paths of the Kubernetes API.

use std::fmt::Write as _;
use std::sync::Arc;

/// One kind as one server serves it: enough to build a path and a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// API group as served (not the canonical one); empty for core.
    pub group: Arc<str>,
    /// API version, as in `v1`.
    pub version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Plural name in paths.
    pub plural: Arc<str>,
    /// Do its objects live in namespaces?
    pub namespaced: bool,
}

/// What a list or watch covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All objects of the cluster.
    Cluster,
    /// The objects of one namespace.
    Namespace(Arc<str>),
}

impl Resource {
    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of a collection: `/apis/apps/v1/namespaces/shop/deployments`. The namespace is
    /// ignored for cluster-scoped kinds; without one the path covers all namespaces.
    #[must_use]
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let mut path = String::with_capacity(64);
        if self.group.is_empty() {
            path.push_str("/api/");
        } else {
            path.push_str("/apis/");
            encode_into(&self.group, &mut path);
            path.push('/');
        }
        encode_into(&self.version, &mut path);
        if let Some(namespace) = namespace.filter(|name| self.namespaced && !name.is_empty()) {
            path.push_str("/namespaces/");
            encode_into(namespace, &mut path);
        }
        path.push('/');
        encode_into(&self.plural, &mut path);
        path
    }

    /// The path of what a scope covers.
    #[must_use]
    pub fn scope(&self, scope: &Scope) -> String {
        match scope {
            Scope::Cluster => self.collection(None),
            Scope::Namespace(namespace) => self.collection(Some(namespace)),
        }
    }

    /// The path of one object.
    #[must_use]
    pub fn object(&self, namespace: &str, name: &str) -> String {
        let mut path = self.collection(Some(namespace));
        path.push('/');
        encode_into(name, &mut path);
        path
    }

    /// Core namespaces.
    #[must_use]
    pub fn namespaces() -> Self {
        Self {
            group: "".into(),
            version: "v1".into(),
            kind: "Namespace".into(),
            plural: "namespaces".into(),
            namespaced: false,
        }
    }
}

/// Percent-encodes a path segment or query value. `:` stays: RBAC names have it.
pub(crate) fn encode_into(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A path with parameters.
pub(crate) fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (n, (name, value)) in parameters.iter().enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        encode_into(value, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let deployments = Resource {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            plural: "deployments".into(),
            namespaced: true,
        };
        assert_eq!(deployments.object("shop", "web"), "/apis/apps/v1/namespaces/shop/deployments/web");
        assert_eq!(deployments.scope(&Scope::Cluster), "/apis/apps/v1/deployments");
        assert_eq!(Resource::namespaces().object("ignored", "a"), "/api/v1/namespaces/a");
        assert_eq!(Resource::namespaces().object("", "../x?y#z"), "/api/v1/namespaces/..%2Fx%3Fy%23z");
        assert_eq!(with_query("/x", &[("a", "1 2"), ("b", "c/d")]), "/x?a=1%202&b=c%2Fd");
    }
}
