//! What is inside a Namespace or a CustomResourceDefinition, before it may be deleted (I6).

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_engine::outcome::{Operation, Sensitivity};
use lockstep_engine::{GroupKind, ObjectKey, Uid};
use serde::Deserialize;

use super::Writer;
use crate::client::Call;
use crate::discovery::{Served, ServedKind};
use crate::page::page;
use crate::resource::with_query;

/// Objects named at most: enough to decide and to explain.
const ITEMS_LIMIT: usize = 1_000;
/// Objects per page.
const PAGE: &str = "500";
/// Metadata only; servers of aggregated APIs that cannot may send whole objects.
const ACCEPT: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// An object found inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentsItem {
    /// Its key.
    pub key: ObjectKey,
    /// Its uid: what is ours is decided by the hub's record, not by marks.
    pub uid: Uid,
}

/// What was found inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Objects, without what every namespace has.
    pub items: Vec<ContentsItem>,
    /// Are there more?
    pub truncated: bool,
    /// Kinds that could not be listed, with the reason: what they hold is unknown.
    pub unknown: Vec<String>,
}

impl Contents {
    /// Known to hold nothing? Not when anything is unknown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && !self.truncated && self.unknown.is_empty()
    }
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Writer {
    /// What is in a namespace, beside what every namespace has: the ServiceAccount `default` and its
    /// token, kube-root-ca.crt, Events, Endpoints and EndpointSlices.
    pub async fn namespace_contents(&self, namespace: &str, served: &Served) -> Contents {
        let mut contents = Contents::default();
        for failed in &served.partial {
            contents.unknown.push(format!("{}/{}: {}", failed.group, failed.version, failed.reason));
        }
        // What cannot be deleted is derived from something else (PodMetrics).
        let kinds = served.kinds.values().filter(|k| k.namespaced && k.can("list") && k.can("delete"));
        for kind in kinds.filter(|kind| !is_derived(&kind.gk)) {
            self.collect(kind, Some(namespace), &mut contents).await;
        }
        contents
    }

    /// All objects of a kind, in all namespaces.
    pub async fn crd_contents(&self, kind: &ServedKind) -> Contents {
        let mut contents = Contents::default();
        self.collect(kind, None, &mut contents).await;
        contents
    }

    async fn collect(&self, kind: &ServedKind, namespace: Option<&str>, contents: &mut Contents) {
        if let Err(reason) = self.collect_pages(kind, namespace, contents).await {
            contents.unknown.push(format!("{}: {reason}", kind.gk));
        }
    }

    async fn collect_pages(
        &self,
        kind: &ServedKind,
        namespace: Option<&str>,
        contents: &mut Contents,
    ) -> Result<(), String> {
        let resource = kind.preferred().ok_or("no version is served")?;
        let mut token: Option<String> = None;
        loop {
            let mut parameters = vec![("limit", PAGE)];
            if let Some(token) = &token {
                parameters.push(("continue", token));
            }
            let path = with_query(&resource.collection(namespace), &parameters);
            let mut call = Call::get(&path);
            call.accept = ACCEPT;
            let reply = self.client.list(call).await.map_err(|error| error.into_failure().to_string())?;
            if !reply.is_success() {
                return Err(reply.failure(Operation::List, Sensitivity::Plain).to_string());
            }
            let read = page(&reply.body).map_err(|error| error.to_string())?;
            for raw in &read.items {
                let item: Item = serde_json::from_slice(raw).map_err(|_| "an item without a name")?;
                if namespace.is_some() && is_everywhere(&kind.gk, &item.metadata) {
                    continue;
                }
                if contents.items.len() >= ITEMS_LIMIT {
                    contents.truncated = true;
                    return Ok(());
                }
                contents.items.push(ContentsItem {
                    key: ObjectKey {
                        gk: kind.gk.clone(),
                        namespace: Arc::from(item.metadata.namespace),
                        name: Arc::from(item.metadata.name),
                    },
                    uid: Uid::new(&item.metadata.uid),
                });
            }
            token = read.continue_token;
            if token.is_none() {
                return Ok(());
            }
        }
    }
}

/// Kinds that only describe other objects.
fn is_derived(gk: &GroupKind) -> bool {
    gk.kind.as_ref() == "Event" && matches!(gk.group.as_ref(), "" | "events.k8s.io")
        || gk.is("", "Endpoints")
        || gk.is("discovery.k8s.io", "EndpointSlice")
}

/// Objects that controllers put into every namespace.
fn is_everywhere(gk: &GroupKind, metadata: &Metadata) -> bool {
    if gk.is("", "ServiceAccount") {
        metadata.name == "default"
    } else if gk.is("", "ConfigMap") {
        metadata.name == "kube-root-ca.crt"
    } else if gk.is("", "Secret") {
        let account = "kubernetes.io/service-account.name";
        metadata.name.starts_with("default-token-")
            && metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get(account))
                .is_some_and(|name| name == "default")
    } else {
        false
    }
}
