//! Discovery: group by group, and aggregated.

use serde_json::{Value, json};

use super::http::{Answer, Request, Route};
use super::kinds::{BUILTIN, Kind, text};
use super::server::{ApiServer, json_answer};
use super::status::ApiError;

/// From here on aggregated discovery is v2.
const AGGREGATED_V2: (u32, u32) = (1, 30);

/// A group with its versions, the preferred one first.
struct Group {
    name: String,
    versions: Vec<String>,
}

impl ApiServer {
    pub(crate) fn discover(&self, request: &Request, route: &Route) -> Result<Answer, ApiError> {
        if request.method != "GET" {
            return Err(ApiError::not_allowed());
        }
        let body = match route {
            Route::Version => {
                let (major, minor) = self.config.version;
                json!({"major": major.to_string(), "minor": minor.to_string(), "gitVersion": self.git_version()})
            }
            Route::Health => {
                return Ok(Answer { content_type: "text/plain; charset=utf-8", ..json_answer(200, "ok") });
            }
            Route::Core | Route::Groups if self.aggregates(request) => {
                return Ok(self.aggregated(request, *route == Route::Core));
            }
            Route::Core => {
                json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
            }
            Route::Groups => {
                let groups: Vec<Value> =
                    self.groups().iter().filter(|g| !g.name.is_empty()).map(described).collect();
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
            }
            Route::Group(name) => {
                let groups = self.groups();
                let group = groups.iter().find(|group| group.name == *name).ok_or_else(ApiError::no_page)?;
                let mut group = described(group);
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                group
            }
            Route::Resources { group, version } => {
                if self.down.contains(group) {
                    return Err(ApiError::unavailable());
                }
                let resources = self.resources(group, version).ok_or_else(ApiError::no_page)?;
                let mut list = json!({
                    "kind": "APIResourceList", "groupVersion": joined(group, version), "resources": resources,
                });
                if !group.is_empty() {
                    list["apiVersion"] = "v1".into();
                }
                list
            }
            Route::Resource(_) | Route::Other => return Err(ApiError::no_page()),
        };
        Ok(json_answer(200, body.to_string()))
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let built_in = BUILTIN.groups.iter().map(|group| (text(&group["group"]), text(&group["version"])));
        let mut custom: Vec<(String, String)> =
            self.kinds.custom().map(|kind| (kind.group.clone(), kind.version.clone())).collect();
        custom.sort_by(|a, b| (&a.0, rank(&a.1)).cmp(&(&b.0, rank(&b.1))));
        custom.dedup();
        for (name, version) in built_in.chain(custom) {
            match groups.iter_mut().find(|group| group.name == name) {
                Some(group) => group.versions.push(version),
                None => groups.push(Group { name, versions: vec![version] }),
            }
        }
        groups
    }

    /// The resources of a group and version as discovery lists them.
    fn resources(&self, group: &str, version: &str) -> Option<Vec<Value>> {
        let built_in = BUILTIN.groups.iter().find(|g| g["group"] == group && g["version"] == version);
        if let Some(built_in) = built_in {
            let mut resources = built_in["resources"].as_array().cloned().unwrap_or_default();
            for resource in &mut resources {
                if let Some(members) = resource.as_object_mut() {
                    members.remove("type");
                }
            }
            return Some(resources);
        }
        let mut resources = Vec::new();
        for kind in self.kinds.custom().filter(|kind| kind.group == group && kind.version == version) {
            resources.extend(self.custom_resource(kind));
        }
        (!resources.is_empty()).then_some(resources)
    }

    fn custom_resource(&self, kind: &Kind) -> Vec<Value> {
        let name = format!("{}.{}", kind.plural, kind.group);
        let definition = self.find("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", &name);
        let names =
            definition.map(|definition| definition["status"]["acceptedNames"].clone()).unwrap_or_default();
        let mut resource = json!({
            "name": kind.plural, "singularName": names["singular"], "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": kind.verbs,
        });
        for list in ["shortNames", "categories"] {
            if names[list].is_array() {
                resource[list] = names[list].clone();
            }
        }
        let mut out = vec![resource];
        if kind.status {
            out.push(json!({
                "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": ["get", "patch", "update"],
            }));
        }
        out
    }

    fn aggregates(&self, request: &Request) -> bool {
        self.config.aggregated_discovery && request.accept.contains("as=APIGroupDiscoveryList")
    }

    fn aggregated(&self, request: &Request, core: bool) -> Answer {
        let items: Vec<Value> = self
            .groups()
            .iter()
            .filter(|group| group.name.is_empty() == core)
            .map(|group| {
                let versions: Vec<Value> = group
                    .versions
                    .iter()
                    .map(|version| self.aggregated_version(&group.name, version))
                    .collect();
                json!({"metadata": {"name": group.name, "creationTimestamp": null}, "versions": versions})
            })
            .collect();
        let version = if self.config.version >= AGGREGATED_V2 { "v2" } else { "v2beta1" };
        let api_version = format!("apidiscovery.k8s.io/{version}");
        let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items});
        let body = list.to_string();
        let etag = format!("\"{:016X}\"", fnv(body.as_bytes()));
        if request.if_none_match.as_deref() == Some(etag.as_str()) {
            return Answer { etag: Some(etag), ..json_answer(304, "") };
        }
        Answer { etag: Some(etag), ..json_answer(200, body) }
    }

    fn aggregated_version(&self, group: &str, version: &str) -> Value {
        if self.down.contains(group) {
            return json!({"version": version, "freshness": "Stale"});
        }
        let all = self.resources(group, version).unwrap_or_default();
        let mut resources: Vec<Value> = Vec::new();
        for listed in &all {
            let name = text(&listed["name"]);
            let kind = json!({"group": group, "version": version, "kind": listed["kind"]});
            if let Some((parent, subresource)) = name.split_once('/') {
                let entry =
                    json!({"subresource": subresource, "responseKind": kind, "verbs": listed["verbs"]});
                if let Some(parent) = resources.iter_mut().find(|resource| resource["resource"] == parent) {
                    match parent["subresources"].as_array_mut() {
                        Some(list) => list.push(entry),
                        None => parent["subresources"] = json!([entry]),
                    }
                }
                continue;
            }
            let scope = if listed["namespaced"] == true { "Namespaced" } else { "Cluster" };
            let singular = text(&listed["singularName"]);
            let singular = if singular.is_empty() { text(&listed["kind"]).to_lowercase() } else { singular };
            let mut resource = json!({
                "resource": name, "responseKind": kind, "scope": scope, "singularResource": singular,
                "verbs": listed["verbs"],
            });
            for list in ["shortNames", "categories"] {
                if listed[list].is_array() {
                    resource[list] = listed[list].clone();
                }
            }
            resources.push(resource);
        }
        json!({"version": version, "resources": resources, "freshness": "Current"})
    }
}

fn joined(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn described(group: &Group) -> Value {
    let version =
        |version: &String| json!({"groupVersion": joined(&group.name, version), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

/// Kubernetes' order of versions: stable, beta, alpha, each newest first.
fn rank(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>) {
    let digits =
        |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let rest = version.strip_prefix('v').unwrap_or(version);
    let (stage, minor) = match (rest.split_once("beta"), rest.split_once("alpha")) {
        (Some((_, minor)), _) => (1, digits(minor)),
        (_, Some((_, minor))) => (2, digits(minor)),
        _ => (0, 0),
    };
    (stage, std::cmp::Reverse(digits(rest)), std::cmp::Reverse(minor))
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
