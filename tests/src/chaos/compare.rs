//! What must hold when all is in step again: targets against sources, the store against the clusters, and those that
//! nobody asked to touch.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::fleet::Fleet;
use super::inject::History;
use super::objects::{Bystander, CLASH, CLASH_TARGET, Kind, POLICIES, Policy};
use crate::testbed::CLUSTERS;

/// Enough of what differs to see what is wrong.
const SHOWN: usize = 400;

/// Namespace and name.
pub type Key = (String, String);
/// Objects of a kind in a cluster.
type Objects = BTreeMap<Key, Value>;

/// What the clusters hold now.
pub(super) struct Live(BTreeMap<(usize, Kind), Objects>);

impl Live {
    pub(super) async fn read(fleet: &Fleet) -> Result<Self> {
        let mut all = BTreeMap::new();
        for (index, cluster) in fleet.bed.clusters().iter().enumerate() {
            for kind in Kind::ALL {
                let list = cluster.list(kind.api_version(), kind.name(), None, "").await?;
                all.insert((index, kind), list.into_iter().map(|object| (key_of(&object), object)).collect());
            }
        }
        Ok(Self(all))
    }

    pub(super) fn of(&self, cluster: usize, kind: Kind) -> impl Iterator<Item = (&Key, &Value)> {
        self.0.get(&(cluster, kind)).into_iter().flatten()
    }

    pub(super) fn find(&self, cluster: usize, kind: Kind, namespace: &str, name: &str) -> Option<&Value> {
        self.0.get(&(cluster, kind))?.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn has_uid(&self, cluster: usize, kind: Kind, uid: &str) -> bool {
        self.of(cluster, kind).any(|(_, object)| object["metadata"]["uid"] == uid)
    }
}

/// Everything that differs, in sentences.
pub(super) async fn state(fleet: &Fleet, history: &History, bystanders: &[Bystander]) -> Result<Vec<String>> {
    let live = Live::read(fleet).await?;
    let stored = Stored::read(fleet).await?;
    let mut found = vec![];
    for policy in &POLICIES {
        for target in policy.targets {
            copies(&live, &stored, history, policy, *target, &mut found);
        }
    }
    store(&live, &stored, &mut found);
    for bystander in bystanders {
        untouched(&live, bystander, &mut found);
    }
    sources_have_no_marks(&live, &mut found);
    Ok(found)
}

/// One policy at one target, object by object.
fn copies(
    live: &Live,
    stored: &Stored,
    history: &History,
    policy: &Policy,
    target: usize,
    found: &mut Vec<String>,
) {
    let kind = policy.kind;
    let place =
        |key: &Key| format!("{}: {} {}/{} at {}", policy.name, kind.name(), key.0, key.1, CLUSTERS[target]);
    let is_clash = |key: &Key| target == CLASH_TARGET && kind == Kind::ConfigMap && key.1 == CLASH;
    let wanted: BTreeMap<_, _> = live
        .of(policy.source, kind)
        .filter(|(key, object)| policy.selects(object) && !is_copy(object) && !is_clash(key))
        .collect();
    for (key, source) in &wanted {
        match live.find(target, kind, &key.0, &key.1) {
            None => found.push(format!("{} is missing", place(key))),
            Some(copy) if !is_copy(copy) => found.push(format!("{} is not ours", place(key))),
            Some(copy) => {
                let (wanted, held) = (essence(source), essence(copy));
                if wanted != held {
                    let (wanted, held) = (shown(&wanted), shown(&held));
                    found.push(format!("{} differs: the source has {wanted}, it has {held}", place(key)));
                } else if mark_of(copy)["uid"] != source["metadata"]["uid"] {
                    let (mark, uid) = (mark_of(copy), &source["metadata"]["uid"]);
                    found.push(format!("{} names another source: {mark}, not {uid}", place(key)));
                }
            }
        }
    }
    for (key, copy) in live.of(target, kind) {
        let ours = is_copy(copy) && copy["metadata"]["annotations"]["lockstep.dev/policy"] == policy.name;
        if ours && !wanted.contains_key(key) {
            let status = &stored.item(target, kind, key)["status"];
            // Left because the policy, or the target in it, had been removed when its source went.
            let explained = history.orphans && status["state"] == "Orphaned";
            if !explained {
                found.push(format!("{} has no source; its status is {status}", place(key)));
            }
        }
    }
}

/// What the hub holds, as its API shows it.
struct Stored {
    items: BTreeMap<(usize, Kind), Objects>,
    /// Namespaces that are watched; an empty one means all.
    watched: BTreeMap<(usize, Kind), Vec<String>>,
}

impl Stored {
    async fn read(fleet: &Fleet) -> Result<Self> {
        let hub = fleet.hub_client()?;
        let clusters = fleet.json(&["clusters"]).await?;
        let (mut items, mut watched) = (BTreeMap::new(), BTreeMap::new());
        for (index, name) in CLUSTERS.iter().enumerate() {
            let cluster = clusters["items"].as_array().into_iter().flatten().find(|c| c["name"] == *name);
            let watches = cluster.context("a cluster")?["watches"].as_array().cloned().unwrap_or_default();
            for kind in Kind::ALL {
                let path = format!("objects?kind={}&cluster={name}", kind.full_name());
                let list = hub.items(&path).await?;
                let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
                let keyed =
                    list.into_iter().map(|item| ((text(&item, "namespace"), text(&item, "name")), item));
                items.insert((index, kind), keyed.collect());
                let namespaces = watches.iter().filter(|watch| watch["kind"] == kind.full_name());
                watched.insert((index, kind), namespaces.map(|watch| text(watch, "namespace")).collect());
            }
        }
        Ok(Self { items, watched })
    }

    fn item(&self, cluster: usize, kind: Kind, key: &Key) -> Value {
        self.items.get(&(cluster, kind)).and_then(|items| items.get(key)).cloned().unwrap_or_default()
    }
}

/// The store holds exactly what the clusters hold, where it watches.
fn store(live: &Live, stored: &Stored, found: &mut Vec<String>) {
    for (place, items) in &stored.items {
        let (cluster, kind) = *place;
        let watched = stored.watched.get(place).map(Vec::as_slice).unwrap_or_default();
        let is_watched =
            |key: &Key| watched.iter().any(|namespace| namespace.is_empty() || *namespace == key.0);
        let what = |key: &Key| format!("{} {}/{} of {}", kind.name(), key.0, key.1, CLUSTERS[cluster]);
        for (key, object) in live.of(cluster, kind).filter(|(key, _)| is_watched(key)) {
            let Some(item) = items.get(key) else {
                found.push(format!("the store lacks {}", what(key)));
                continue;
            };
            let metadata = &object["metadata"];
            // Of a key that no policy means only its life is followed, not its versions.
            let followed = item["bodyHeld"] == true || item["managed"] == true;
            let same = item["uid"] == metadata["uid"]
                && (!followed || item["resourceVersion"] == metadata["resourceVersion"]);
            if !same {
                let (uid, version) = (&metadata["uid"], &metadata["resourceVersion"]);
                found.push(format!(
                    "the store has {} as {} at {}, the cluster as {uid} at {version}",
                    what(key),
                    item["uid"],
                    item["resourceVersion"]
                ));
            }
        }
        for key in items.keys() {
            if live.find(cluster, kind, &key.0, &key.1).is_none() {
                found.push(format!("the store has {}, which is not there", what(key)));
            }
        }
    }
}

/// As it was when the run began.
fn untouched(live: &Live, bystander: &Bystander, found: &mut Vec<String>) {
    let Bystander { cluster, kind, object } = bystander;
    let key = key_of(object);
    let what = format!("the bystander {} {}/{} of {}", kind.name(), key.0, key.1, CLUSTERS[*cluster]);
    let Some(now) = live.find(*cluster, *kind, &key.0, &key.1) else {
        return found.push(format!("{what} is gone"));
    };
    let same = now["metadata"]["uid"] == object["metadata"]["uid"] && essence(now) == essence(object);
    // A Deployment has a controller that writes its status.
    let unwritten = *kind == Kind::Deployment
        || now["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"];
    if !same || !unwritten || is_copy(now) {
        found.push(format!("{what} was changed: {}", shown(now)));
    }
}

fn sources_have_no_marks(live: &Live, found: &mut Vec<String>) {
    for policy in &POLICIES {
        for (key, object) in live.of(policy.source, policy.kind) {
            let marked = object.to_string().contains("lockstep.dev/");
            if marked
                && policy.namespaces.contains(&key.0.as_str())
                && !is_copy_from_elsewhere(policy, object)
            {
                found.push(format!("the source {} {}/{} has marks", policy.kind.name(), key.0, key.1));
            }
        }
    }
}

/// A cluster that is a source for one policy may be a target of another.
fn is_copy_from_elsewhere(policy: &Policy, object: &Value) -> bool {
    is_copy(object) && mark_of(object)["cluster"] != CLUSTERS[policy.source]
}

/// The key of an object.
#[must_use]
pub fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// Does it bear lockstep's label?
#[must_use]
pub fn is_copy(object: &Value) -> bool {
    object["metadata"]["labels"]["lockstep.dev/managed"] == "true"
}

/// Where a copy says that it comes from.
#[must_use]
pub fn mark_of(object: &Value) -> Value {
    let mark = object["metadata"]["annotations"]["lockstep.dev/source"].as_str().unwrap_or_default();
    serde_json::from_str(mark).unwrap_or_default()
}

/// What is synced of an object: everything but its life in one cluster and lockstep's marks.
#[must_use]
pub fn essence(object: &Value) -> Value {
    let mut essence = object.clone();
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let labels: serde_json::Map<_, _> = labels
        .filter(|(key, _)| !key.starts_with("lockstep.dev/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    essence["metadata"] = json!({ "labels": labels });
    if let Some(fields) = essence.as_object_mut() {
        // The items of a list have no kind.
        ["apiVersion", "kind", "status"].into_iter().for_each(|field| drop(fields.remove(field)));
    }
    essence
}

/// The beginning of its JSON, for people.
#[must_use]
pub fn shown(value: &Value) -> String {
    let text = value.to_string();
    let end = text.char_indices().nth(SHOWN).map_or(text.len(), |(at, _)| at);
    if end < text.len() { format!("{}…", &text[..end]) } else { text }
}
