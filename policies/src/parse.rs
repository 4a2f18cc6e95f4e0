//! From the text of a file to policies, with every finding.

mod archive;
mod deletion;
mod ownership;
mod resource;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_engine::ClusterName;
use serde::{Deserialize, Serialize};

use crate::archive::ArchivePolicy;
use crate::codes;
use crate::finding::{Finding, Place, nearest};
use crate::node::{self, Node};
use crate::policy::{CompiledPolicy, Deletion, Ownership, PolicyName, Spec};
use crate::reader::{Fields, Reader, join, shown};
use crate::syntax;

/// The API version of policies.
pub const API_VERSION: &str = "sync.k8s.io/v1";
/// The kind of policies that sync.
pub const KIND: &str = "ClusterSyncPolicy";
/// The kind of policies that archive.
pub const ARCHIVE_KIND: &str = "ArchivePolicy";

/// The kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// ClusterSyncPolicy.
    Sync,
    /// ArchivePolicy.
    Archive,
}

/// Clusters that have registered; None: not checked.
pub type Known<'a> = Option<&'a BTreeSet<ClusterName>>;

/// What one file holds. It is good when there are no findings of [`crate::Severity::Error`].
pub(crate) struct ParsedFile {
    pub(crate) documents: Documents,
    pub(crate) findings: Vec<Finding>,
}

/// The policies of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Documents {
    pub(crate) policies: Vec<Arc<CompiledPolicy>>,
    pub(crate) archive: Vec<Arc<ArchivePolicy>>,
}

impl Documents {
    /// Names, which are unique per kind, each with its place.
    pub(crate) fn names(&self) -> impl Iterator<Item = (Kind, &PolicyName, Place)> {
        let policies = self.policies.iter().map(|policy| (Kind::Sync, &policy.name, policy.place));
        policies.chain(self.archive.iter().map(|policy| (Kind::Archive, &policy.name, policy.place)))
    }
}

/// Reads one file. Never panics, whatever the text.
pub(crate) fn parse_file(file: &str, text: &str, known: Known<'_>) -> ParsedFile {
    let mut reader = Reader::new(file);
    let documents = match node::read(text) {
        Ok(documents) => documents,
        Err(error) => {
            let remedy = "mend the YAML; the last good version of the file stays in force";
            reader.error(codes::NOT_YAML, error.place, "", shown_message(&error.message), remedy);
            return ParsedFile { documents: Documents::default(), findings: reader.findings };
        }
    };
    if documents.is_empty() {
        // An editor that truncates before it writes must not remove policies.
        let remedy = "write a policy into it; to remove its policies, delete the file";
        reader.error(codes::EMPTY, Place::default(), "", "the file holds no policy", remedy);
    }
    let mut parsed = Documents::default();
    for document in &documents {
        policy(&mut reader, document, file, known, &mut parsed);
    }
    duplicates_within(&mut reader, &parsed);
    ParsedFile { documents: parsed, findings: reader.findings }
}

/// One line, whatever the YAML reader says.
fn shown_message(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

fn duplicates_within(reader: &mut Reader<'_>, documents: &Documents) {
    let mut first: BTreeMap<(Kind, &PolicyName), Place> = BTreeMap::new();
    for (kind, name, place) in documents.names() {
        if let Some(earlier) = first.get(&(kind, name)) {
            let message = format!("policy {name} is already defined at {}:{}", reader.file(), earlier.line);
            let remedy = "give one of them another name";
            reader.error(codes::DUPLICATE_POLICY, place, "metadata.name", message, remedy);
        } else {
            first.insert((kind, name), place);
        }
    }
}

fn policy(
    reader: &mut Reader<'_>,
    document: &Node,
    file: &str,
    known: Known<'_>,
    into: &mut Documents,
) -> Option<()> {
    let fields = reader.any_fields(document, "")?;
    let kind = kind(reader, &fields)?;
    // Now that it is one of ours, its fields are checked.
    reader.fields(document, "", &["apiVersion", "kind", "metadata", "spec"]);
    let name = reader
        .required(&fields, "", "metadata", "write metadata: { name: ... }")
        .and_then(|node| metadata(reader, node));
    match kind {
        Kind::Sync => {
            let spec = reader
                .required(&fields, "", "spec", "say what is synced from where to where")
                .and_then(|node| spec(reader, node, known));
            let (name, place) = name?;
            into.policies.push(Arc::new(CompiledPolicy::new(name, spec?, file, place)));
        }
        Kind::Archive => {
            let spec = reader
                .required(&fields, "", "spec", "write spec: {} to archive everything in all clusters")
                .and_then(|node| archive::spec(reader, node, known));
            let (name, place) = name?;
            into.archive.push(Arc::new(ArchivePolicy { name, spec: spec?, file: file.to_owned(), place }));
        }
    }
    Some(())
}

/// Which kind of policy is it? Says so if it is none; nothing else of a foreign document is looked at.
fn kind(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Kind> {
    let remedy = format!("write apiVersion: {API_VERSION} and kind: {KIND} or {ARCHIVE_KIND}");
    let api_version = reader
        .required(fields, "", "apiVersion", &remedy)
        .and_then(|node| Some((node.place, reader.text(node, "apiVersion")?)));
    let kind = reader
        .required(fields, "", "kind", &remedy)
        .and_then(|node| Some((node.place, reader.text(node, "kind")?)));
    let ((version_place, version), (kind_place, kind)) = (api_version?, kind?);
    if version != API_VERSION {
        let message = format!("unknown apiVersion `{}`", shown(version));
        reader.error(codes::UNKNOWN_KIND, version_place, "apiVersion", message, &remedy);
        return None;
    }
    match kind {
        KIND => Some(Kind::Sync),
        ARCHIVE_KIND => Some(Kind::Archive),
        _ => {
            let message = format!("unknown kind `{}`", shown(kind));
            let remedy = match nearest(kind, [KIND, ARCHIVE_KIND]) {
                Some(meant) => format!("did you mean {meant}?"),
                None => remedy,
            };
            reader.error(codes::UNKNOWN_KIND, kind_place, "kind", message, remedy);
            None
        }
    }
}

fn metadata(reader: &mut Reader<'_>, node: &Node) -> Option<(PolicyName, Place)> {
    let fields = reader.fields(node, "metadata", &["name", "labels", "annotations"])?;
    for map in ["labels", "annotations"] {
        let path = join("metadata", map);
        let Some(pairs) = fields.get(map).and_then(|node| reader.any_fields(node, &path)) else { continue };
        for (key, value) in pairs.iter() {
            reader.text(value, &join(&path, &shown(&key.text)));
        }
    }
    let node = reader.required(&fields, "metadata", "name", "name the policy")?;
    let name = reader.text(node, "metadata.name")?;
    if !syntax::is_subdomain(name) {
        let message = format!("`{}` is not a name", shown(name));
        let remedy = "use lower-case letters, digits, `-` and `.`, as in production-deployments";
        reader.error(codes::BAD_NAME, node.place, "metadata.name", message, remedy);
        return None;
    }
    Some((PolicyName::new(name), node.place))
}

const SPEC_FIELDS: &[&str] =
    &["sourceCluster", "targetClusters", "resources", "suspend", "ownership", "deletion"];

fn spec(reader: &mut Reader<'_>, node: &Node, known: Known<'_>) -> Option<Spec> {
    let fields = reader.fields(node, "spec", SPEC_FIELDS)?;
    let source_cluster = reader
        .required(&fields, "spec", "sourceCluster", "name the cluster that objects come from")
        .and_then(|node| cluster(reader, node, "spec.sourceCluster", known));
    let target_clusters = reader
        .required(&fields, "spec", "targetClusters", "list the clusters that copies go to")
        .and_then(|node| targets(reader, node, source_cluster.as_ref(), known));
    let ownership =
        ownership::ownership(reader, fields.get("ownership"), "spec.ownership", &Ownership::default());
    let resources = reader
        .required(&fields, "spec", "resources", "list what is synced, as in: - kind: ConfigMap")
        .and_then(|node| resource::resources(reader, node, &ownership));
    let suspend = fields.get("suspend").map_or(Some(false), |node| reader.flag(node, "spec.suspend"));
    let deletion =
        fields.get("deletion").map_or(Some(Deletion::default()), |node| deletion::deletion(reader, node));
    Some(Spec {
        source_cluster: source_cluster?,
        target_clusters: target_clusters?,
        resources: resources?,
        suspend: suspend?,
        deletion: deletion?,
    })
}

fn targets(
    reader: &mut Reader<'_>,
    node: &Node,
    source: Option<&ClusterName>,
    known: Known<'_>,
) -> Option<BTreeSet<ClusterName>> {
    const PATH: &str = "spec.targetClusters";
    let mut targets = BTreeSet::new();
    for (i, node) in reader.list(node, PATH, "list at least one cluster")?.iter().enumerate() {
        let path = format!("{PATH}[{i}]");
        let Some(name) = cluster(reader, node, &path, known) else { continue };
        if Some(&name) == source {
            let message = format!("{name} is the source");
            let remedy = "a cluster cannot be its own target; remove it here";
            reader.error(codes::SOURCE_IS_TARGET, node.place, &path, message, remedy);
        } else if targets.contains(&name) {
            let message = format!("{name} is listed twice");
            reader.error(codes::DUPLICATE_ENTRY, node.place, &path, message, "remove one of them");
        } else {
            targets.insert(name);
        }
    }
    // With no valid target there is a finding for each entry.
    (!targets.is_empty()).then_some(targets)
}

fn cluster(reader: &mut Reader<'_>, node: &Node, path: &str, known: Known<'_>) -> Option<ClusterName> {
    let text = reader.text(node, path)?;
    let name = match ClusterName::new(text) {
        Ok(name) => name,
        Err(error) => {
            let message = format!("`{}` is not a cluster name: {}", shown(text), error.why);
            let remedy = "use the name under which the cluster is registered, as in prod-eu-1";
            reader.error(codes::BAD_NAME, node.place, path, message, remedy);
            return None;
        }
    };
    if let Some(known) = known.filter(|known| !known.contains(&name)) {
        let remedy = match nearest(text, known.iter().map(ClusterName::as_str)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "connect its agent first; `lockstep clusters` lists those that are known".to_owned(),
        };
        reader.error(codes::UNKNOWN_CLUSTER, node.place, path, format!("unknown cluster {name}"), remedy);
    }
    Some(name)
}
