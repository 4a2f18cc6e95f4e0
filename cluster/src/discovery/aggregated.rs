//! `apidiscovery.k8s.io`, v2 and v2beta1: everything in one answer.

use serde::Deserialize;

use super::model::{Listed, PartialFailure, Served};
use crate::error::{RequestError, position};

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    #[serde(default)]
    response_kind: Option<Kind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}

/// Nothing when the answer is in the older form.
pub(super) fn parse(body: &[u8], what: &'static str) -> Result<Option<Served>, RequestError> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        kind: String,
    }
    let undecodable = |error: serde_json::Error| RequestError::Undecodable { what, why: position(&error) };
    let head: Head = serde_json::from_slice(body).map_err(undecodable)?;
    if head.kind != "APIGroupDiscoveryList" {
        return Ok(None);
    }
    let list: GroupList = serde_json::from_slice(body).map_err(undecodable)?;
    debug_assert_eq!(list.kind, head.kind);
    let mut served = Served::default();
    for group in list.items {
        let name = group.metadata.name;
        for version in group.versions {
            if version.freshness == "Stale" {
                served.partial.push(PartialFailure {
                    group: name.clone(),
                    version: version.version.clone(),
                    reason: "the server's knowledge of it is stale".to_owned(),
                });
            }
            for resource in version.resources {
                // A subresource's parent without an endpoint of its own has no kind.
                let Some(kind) = resource.response_kind.filter(|kind| !kind.kind.is_empty()) else {
                    continue;
                };
                served.add(
                    &name,
                    &version.version,
                    Listed {
                        kind: kind.kind,
                        plural: resource.resource,
                        singular: resource.singular_resource,
                        namespaced: resource.scope == "Namespaced",
                        verbs: resource.verbs,
                        short_names: resource.short_names,
                        categories: resource.categories,
                    },
                );
            }
        }
    }
    Ok(Some(served))
}
