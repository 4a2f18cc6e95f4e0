//! Discovery group by group, as every server offers it.

use futures::StreamExt as _;
use lockstep_engine::outcome::{Operation, Sensitivity};
use serde::Deserialize;

use super::model::{Listed, PartialFailure, Served};
use crate::client::ClusterClient;
use crate::error::{RequestError, position};
use crate::resource::encode_into;

/// Groups asked at a time.
const CONCURRENCY: usize = 8;

#[derive(Deserialize)]
struct CoreVersions {
    #[serde(default)]
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    #[serde(default)]
    versions: Vec<GroupVersion>,
    #[serde(default)]
    preferred_version: Option<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

/// Which groups and versions there are, the preferred version of each group first.
fn versions(core: bool, body: &[u8], what: &'static str) -> Result<Vec<(String, String)>, RequestError> {
    let undecodable = |error: serde_json::Error| RequestError::Undecodable { what, why: position(&error) };
    if core {
        let list: CoreVersions = serde_json::from_slice(body).map_err(undecodable)?;
        return Ok(list.versions.into_iter().map(|version| (String::new(), version)).collect());
    }
    let list: GroupList = serde_json::from_slice(body).map_err(undecodable)?;
    let mut out = Vec::new();
    for group in list.groups {
        let preferred = group.preferred_version.map(|preferred| preferred.version);
        let mut versions: Vec<_> = group.versions.into_iter().map(|v| v.version).collect();
        versions.sort_by_key(|version| Some(version) != preferred.as_ref());
        out.extend(versions.into_iter().map(|version| (group.name.clone(), version)));
    }
    Ok(out)
}

/// Asks every group and version; those that fail are partial.
pub(super) async fn discover(
    client: &ClusterClient,
    core: bool,
    body: &[u8],
    what: &'static str,
) -> Result<Served, RequestError> {
    let wanted = versions(core, body, what)?;
    let answers: Vec<_> = futures::stream::iter(wanted)
        .map(|(group, version)| async move {
            let answer = resources(client, &group, &version).await;
            (group, version, answer)
        })
        .buffered(CONCURRENCY)
        .collect()
        .await;
    let mut served = Served::default();
    for (group, version, answer) in answers {
        match answer {
            Ok(resources) => {
                // Subresources have a slash.
                for resource in resources.into_iter().filter(|resource| !resource.name.contains('/')) {
                    served.add(
                        &group,
                        &version,
                        Listed {
                            kind: resource.kind,
                            plural: resource.name,
                            singular: resource.singular_name,
                            namespaced: resource.namespaced,
                            verbs: resource.verbs,
                            short_names: resource.short_names,
                            categories: resource.categories,
                        },
                    );
                }
            }
            Err(reason) => served.partial.push(PartialFailure { group, version, reason }),
        }
    }
    Ok(served)
}

async fn resources(client: &ClusterClient, group: &str, version: &str) -> Result<Vec<Resource>, String> {
    let mut path = if group.is_empty() { "/api/".to_owned() } else { "/apis/".to_owned() };
    if !group.is_empty() {
        encode_into(group, &mut path);
        path.push('/');
    }
    encode_into(version, &mut path);
    let reply = client.get(&path).await.map_err(|error| error.into_failure().to_string())?;
    if !reply.is_success() {
        return Err(reply.failure(Operation::List, Sensitivity::Plain).to_string());
    }
    let list: ResourceList = serde_json::from_slice(&reply.body).map_err(|error| position(&error))?;
    Ok(list.resources)
}
