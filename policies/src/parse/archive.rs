//! `spec` of an ArchivePolicy.

use std::collections::BTreeSet;

use lockstep_engine::ClusterName;
use lockstep_engine::catalogue::is_never_archived;
use lockstep_engine::retention::Limits;

use super::{Known, cluster, deletion, resource};
use crate::archive::{ArchiveSpec, Encrypt, Scope};
use crate::codes;
use crate::node::{Kind, Node};
use crate::reader::{Fields, Reader, join, shown};

const RESOURCES: &str = "resources";
const FIELDS: &[&str] = &["clusters", RESOURCES, "exclude", "includeOwned", "retention", "encrypt"];
const SCOPE_FIELDS: &[&str] =
    &["apiGroup", "kind", "matchLabels", "matchExpressions", "namespaces", "excludeNamespaces", "names"];
/// Any group, or any kind.
const ANY: &str = "*";
/// Ten years: longer is a legal hold.
const LONGEST: i64 = 3_650 * deletion::DAY;
/// A shorter retention leaves no time to notice.
const SHORTEST: i64 = 3_600_000;
const MOST_VERSIONS: u32 = 100_000;

/// A `spec` that is there and says nothing means everything.
pub(super) fn spec(reader: &mut Reader<'_>, node: &Node, known: Known<'_>) -> Option<ArchiveSpec> {
    if matches!(node.value, Kind::Null) {
        return Some(ArchiveSpec::default());
    }
    let fields = reader.fields(node, "spec", FIELDS)?;
    let clusters = fields.get("clusters").map_or_else(BTreeSet::new, |node| clusters(reader, node, known));
    let mut list = |name: &str, remedy: &str| match fields.get(name) {
        Some(node) => scopes(reader, node, &join("spec", name), remedy),
        None => BTreeSet::new(),
    };
    let resources = list(RESOURCES, "leave the field out to archive every kind");
    let exclude = list("exclude", "leave the field out, or list at least one entry");
    let include_owned =
        fields.get("includeOwned").map_or(Some(false), |node| reader.flag(node, "spec.includeOwned"));
    let retention = fields.get("retention").map_or(Some(Limits::default()), |node| retention(reader, node));
    let encrypt = fields.get("encrypt").map_or(Some(Encrypt::default()), |node| encrypt(reader, node));
    Some(ArchiveSpec {
        clusters,
        resources,
        exclude,
        include_owned: include_owned?,
        retention: retention?,
        encrypt: encrypt?,
    })
}

/// What is wrong with an entry is a finding, which keeps the file from being taken.
fn clusters(reader: &mut Reader<'_>, node: &Node, known: Known<'_>) -> BTreeSet<ClusterName> {
    const PATH: &str = "spec.clusters";
    let mut clusters = BTreeSet::new();
    let list = reader.list(node, PATH, "leave the field out for all clusters");
    for (i, node) in list.into_iter().flatten().enumerate() {
        let path = format!("{PATH}[{i}]");
        let Some(name) = cluster(reader, node, &path, known) else { continue };
        if clusters.contains(&name) {
            let message = format!("{name} is listed twice");
            reader.error(codes::DUPLICATE_ENTRY, node.place, &path, message, "remove one of them");
        }
        clusters.insert(name);
    }
    clusters
}

fn scopes(reader: &mut Reader<'_>, node: &Node, path: &str, remedy: &str) -> BTreeSet<Scope> {
    let mut scopes = BTreeSet::new();
    let is_resources = path.ends_with(RESOURCES);
    for (i, node) in reader.list(node, path, remedy).into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        let before = reader.findings.len();
        let Some(scope) = scope(reader, node, &path) else { continue };
        if is_resources && let Some(gk) = scope.literal().filter(is_never_archived) {
            let message = format!("{gk} is of no use in an archive: clusters make it by themselves");
            reader.error(codes::NEVER_ARCHIVED, node.place, &path, message, "remove the entry");
        }
        // What is left of a faulty entry may look like another one; the faults say enough.
        if reader.findings.len() == before && !scopes.insert(scope) {
            let message = "the entry says the same as one before it";
            reader.error(codes::DUPLICATE_ENTRY, node.place, &path, message, "remove one of them");
        }
    }
    scopes
}

fn scope(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Scope> {
    let fields = reader.fields(node, path, SCOPE_FIELDS)?;
    if fields.iter().next().is_none() {
        let remedy = "name a kind, namespaces, names or labels; kind: '*' stands for every kind";
        reader.error(codes::EMPTY, node.place, path, "the entry is empty", remedy);
        return None;
    }
    let mut condition = resource::condition(reader, &fields, path);
    condition.system = true;
    let kind = asked(reader, &fields, path, "kind")?;
    let group = asked(reader, &fields, path, "apiGroup")?;
    let (group, kind) = match (group, kind) {
        (group, Asked::One) => {
            let gk = match group {
                Asked::Any => {
                    let place = fields.get("apiGroup").map_or(fields.place, |node| node.place);
                    let remedy = "name the group of the kind, or leave the kind out";
                    let message = "a kind has one group";
                    reader.error(codes::WILDCARD, place, &join(path, "apiGroup"), message, remedy);
                    return None;
                }
                Asked::Unsaid | Asked::One => resource::group_kind(reader, &fields, path)?,
            };
            (Some(gk.group), Some(gk.kind))
        }
        (Asked::One, Asked::Any | Asked::Unsaid) => {
            let node = fields.get("apiGroup")?;
            (Some(resource::group(reader, node, &join(path, "apiGroup"))?.into()), None)
        }
        (Asked::Any | Asked::Unsaid, Asked::Any | Asked::Unsaid) => (None, None),
    };
    Some(Scope { group, kind, condition })
}

/// A field that may say `*`.
enum Asked {
    Unsaid,
    Any,
    One,
}

fn asked(reader: &mut Reader<'_>, fields: &Fields<'_>, path: &str, name: &str) -> Option<Asked> {
    let Some(node) = fields.get(name) else { return Some(Asked::Unsaid) };
    let path = join(path, name);
    let text = reader.text(node, &path)?;
    if text != ANY && text.contains('*') {
        let message = format!("`{}` is a pattern", shown(text));
        let remedy = "write the whole name, or * alone for all";
        reader.error(codes::WILDCARD, node.place, &path, message, remedy);
        return None;
    }
    Some(if text == ANY { Asked::Any } else { Asked::One })
}

fn retention(reader: &mut Reader<'_>, node: &Node) -> Option<Limits> {
    const PATH: &str = "spec.retention";
    let fields = reader.fields(node, PATH, &["maxAge", "maxVersions"])?;
    let max_age = match fields.get("maxAge") {
        Some(node) => {
            let (range, allowed) = (SHORTEST..=LONGEST, "allowed is 1h to 3650d");
            Some(deletion::duration(reader, node, &join(PATH, "maxAge"), &range, allowed)?)
        }
        None => None,
    };
    let max_versions = match fields.get("maxVersions") {
        Some(node) => Some(reader.number(node, &join(PATH, "maxVersions"), &(1..=MOST_VERSIONS))?),
        None => None,
    };
    Some(Limits { max_age, max_versions })
}

fn encrypt(reader: &mut Reader<'_>, node: &Node) -> Option<Encrypt> {
    const PATH: &str = "spec.encrypt";
    match node.value {
        Kind::List(_) => {
            let remedy = "write true for all, or leave the field out";
            Some(Encrypt::Only(scopes(reader, node, PATH, remedy)))
        }
        _ => Some(Encrypt::All(reader.flag(node, PATH)?)),
    }
}
