//! Marks by which GitOps tools and package managers find the objects that they applied.
//!
//! A tool prunes what carries its mark and is not in its sources. So a copy must not carry the marks of its source:
//! the same tool at the target would delete it, or fight over it. And an object at a target that carries one has an
//! owner, whom a person should know by name.
//!
//! Only ownership is told apart here. Instructions to a tool (`argocd.argoproj.io/sync-options`,
//! `kustomize.toolkit.fluxcd.io/prune`), names for people (`app.kubernetes.io/instance`) and everything below the
//! metadata of the object itself (selectors, templates) stay.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::identity::GroupKind;

/// Characters of a mark's value that are shown.
const SHOWN: usize = 200;

/// Where a mark stands in the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Label,
    Annotation,
}
use Place::{Annotation, Label};

/// What a mark amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The tool finds the object by it, and may change or delete it.
    Tracks,
    /// The same, but the tool writes it into selectors, too: it stays on Pods, which those select.
    TracksAndSelects,
    /// It says more about an object that is tracked.
    Detail,
    /// [`Self::Detail`], on an object that is tracked by another mark of the tool; without one it means nothing.
    DetailOfTracked,
}
use Meaning::{Detail, DetailOfTracked, Tracks, TracksAndSelects};

/// A mark: the tool, the place, the key (all keys of a domain where it ends in `/`), the value (any where it is
/// empty), and what it means.
struct Row(&'static str, Place, &'static str, &'static str, Meaning);

/// The first row that tracks an object names its tool, so tools that use another stand above it: Flux and Fleet above
/// Helm, Config Sync above the inventories of kustomize.
const TABLE: &[Row] = &[
    // Finds objects by either, as its `application.resourceTrackingMethod` says. Its third label,
    // app.kubernetes.io/instance, is a recommended label that Services select by: it stays, and tells nothing.
    Row("Argo CD", Annotation, "argocd.argoproj.io/tracking-id", "", Tracks),
    Row("Argo CD", Label, "argocd.argoproj.io/instance", "", Tracks),
    Row("Argo CD", Annotation, "argocd.argoproj.io/installation-id", "", Detail),
    // Prunes by an inventory; events and `flux trace` go by the labels, and an object has one owner.
    Row("Flux", Label, "kustomize.toolkit.fluxcd.io/name", "", Tracks),
    Row("Flux", Label, "kustomize.toolkit.fluxcd.io/namespace", "", Detail),
    Row("Flux", Label, "kustomize.toolkit.fluxcd.io/checksum", "", Detail),
    Row("Flux", Annotation, "kustomize.toolkit.fluxcd.io/checksum", "", Detail),
    Row("Flux", Label, "helm.toolkit.fluxcd.io/name", "", Tracks),
    Row("Flux", Label, "helm.toolkit.fluxcd.io/namespace", "", Detail),
    Row("Flux", Label, "resourceset.fluxcd.controlplane.io/name", "", Tracks),
    Row("Flux", Label, "resourceset.fluxcd.controlplane.io/namespace", "", Detail),
    Row("Flux", Label, "fluxcd.controlplane.io/name", "", Tracks),
    Row("Flux", Label, "fluxcd.controlplane.io/namespace", "", Detail),
    // Flux 1 collects garbage by this label.
    Row("Flux", Label, "fluxcd.io/sync-gc-mark", "", Tracks),
    Row("Flux", Annotation, "fluxcd.io/sync-checksum", "", Detail),
    // Fleet, and k3s for its add-ons: both prune what carries the hash of a set that no longer has it.
    Row("Rancher Fleet", Annotation, "objectset.rio.cattle.io/id", "", Tracks),
    Row("Rancher Fleet", Label, "objectset.rio.cattle.io/hash", "", Tracks),
    Row("Rancher Fleet", Annotation, "objectset.rio.cattle.io/", "", Detail),
    Row("Rancher Fleet", Label, "objectset.rio.cattle.io/", "", Detail),
    Row("Rancher Fleet", Label, "fleet.cattle.io/", "", Detail),
    Row("Rancher Fleet", Annotation, "fleet.cattle.io/", "", Detail),
    // `helm install` takes an object over where all three agree, and `helm uninstall` deletes it then. The label alone
    // is in every chart that was rendered by `helm template`: it means nothing without the annotation.
    Row("Helm", Annotation, "meta.helm.sh/release-name", "", Tracks),
    Row("Helm", Annotation, "meta.helm.sh/release-namespace", "", Detail),
    Row("Helm", Label, "app.kubernetes.io/managed-by", "Helm", DetailOfTracked),
    // Lists and prunes by the label.
    Row("kapp", Label, "kapp.k14s.io/app", "", TracksAndSelects),
    Row("kapp", Label, "kapp.k14s.io/association", "", TracksAndSelects),
    Row("kapp", Annotation, "kapp.k14s.io/identity", "", Detail),
    Row("kapp", Annotation, "kapp.k14s.io/original", "", Detail),
    Row("kapp", Annotation, "kapp.k14s.io/original-diff", "", Detail),
    Row("kapp", Annotation, "kapp.k14s.io/original-diff-full", "", Detail),
    Row("kapp", Annotation, "kapp.k14s.io/original-diff-md5", "", Detail),
    // Adopts and prunes what names it.
    Row("Config Sync", Annotation, "configsync.gke.io/resource-id", "", Tracks),
    Row("Config Sync", Annotation, "configmanagement.gke.io/managed", "enabled", Tracks),
    Row("Config Sync", Annotation, "configsync.gke.io/", "", Detail),
    Row("Config Sync", Label, "configsync.gke.io/", "", Detail),
    Row("Config Sync", Annotation, "configmanagement.gke.io/", "", Detail),
    // The inventory that may prune it (kpt, `kustomize` with cli-utils); the second is the older spelling.
    Row("kustomize", Annotation, "config.k8s.io/owning-inventory", "", Tracks),
    Row("kustomize", Annotation, "config.kubernetes.io/owning-inventory", "", Tracks),
    Row("kustomize", Label, "cli-utils.sigs.k8s.io/inventory-id", "", Detail),
    // `kubectl apply --prune --applyset` deletes the members that it did not apply; the rest stands on the parent.
    Row("kubectl ApplySet", Label, "applyset.kubernetes.io/part-of", "", Tracks),
    Row("kubectl ApplySet", Label, "applyset.kubernetes.io/", "", Detail),
    Row("kubectl ApplySet", Annotation, "applyset.kubernetes.io/", "", Detail),
    // `tk prune` and `kluctl prune` go by the label.
    Row("Tanka", Label, "tanka.dev/environment", "", Tracks),
    Row("kluctl", Label, "kluctl.io/discriminator", "", Tracks),
    Row("kluctl", Annotation, "kluctl.io/deployment-item-dir", "", Detail),
    // Its operators delete what names an owner that is gone.
    Row("Operator Lifecycle Manager", Label, "olm.owner", "", Tracks),
    Row("Operator Lifecycle Manager", Label, "olm.owner.kind", "", Detail),
    Row("Operator Lifecycle Manager", Label, "olm.owner.namespace", "", Detail),
    Row("Operator Lifecycle Manager", Label, "olm.managed", "", Detail),
    // Runs `kubectl apply --prune` with this selector; `EnsureExists` is not looked at again.
    Row("the add-on manager", Label, "addonmanager.kubernetes.io/mode", "Reconcile", Tracks),
    Row("the add-on manager", Label, "addonmanager.kubernetes.io/mode", "", Detail),
];

impl Row {
    fn means(&self, gk: &GroupKind, place: Place, key: &str, value: &str) -> bool {
        let Self(_, at, name, wanted, meaning) = self;
        let named = if name.ends_with('/') { key.starts_with(name) } else { key == *name };
        // Objects of the tool itself say by these labels what they are about.
        let own = name.strip_suffix('/').is_some_and(|domain| domain == gk.group.as_ref());
        let selected = *meaning == TracksAndSelects && gk.is("", "Pod");
        *at == place && named && (wanted.is_empty() || *wanted == value) && !own && !selected
    }

    fn tracks(&self) -> bool {
        matches!(self.4, Tracks | TracksAndSelects)
    }
}

/// The tool that an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracker {
    /// Its name, for people.
    pub tool: String,
    /// The mark that says so, which names its application: `argocd.argoproj.io/instance=shop`.
    pub mark: String,
}

impl std::fmt::Display for Tracker {
    /// `Argo CD (argocd.argoproj.io/instance=shop)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.tool, self.mark)
    }
}

/// The tool that tracks an object, by its metadata.
#[must_use]
pub fn tracker(
    gk: &GroupKind,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Option<Tracker> {
    TABLE.iter().filter(|row| row.tracks()).find_map(|row| {
        let map = if row.1 == Label { labels } else { annotations };
        let (key, value) = map.iter().find(|(key, value)| row.means(gk, row.1, key, value))?;
        let value: String = value.chars().take(SHOWN).collect();
        Some(Tracker { tool: row.0.to_owned(), mark: format!("{key}={value}") })
    })
}

/// Takes the marks of such tools off the metadata of a body. Doing it twice is doing it once.
pub fn strip_tracking(gk: &GroupKind, body: &mut Value) {
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let tracked: Vec<&str> = TABLE
        .iter()
        .filter(|row| {
            row.tracks() && texts(metadata, row.1).any(|(key, value)| row.means(gk, row.1, key, value))
        })
        .map(|row| row.0)
        .collect();
    for (place, field) in [(Label, "labels"), (Annotation, "annotations")] {
        let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) else { continue };
        let before = map.len();
        map.retain(|key, value| {
            let value = value.as_str().unwrap_or_default();
            let goes = |row: &Row| {
                (row.4 != DetailOfTracked || tracked.contains(&row.0)) && row.means(gk, place, key, value)
            };
            !TABLE.iter().any(goes)
        });
        if map.is_empty() && before > 0 {
            metadata.remove(field);
        }
    }
}

/// The labels or annotations of a metadata.
fn texts(metadata: &Map<String, Value>, place: Place) -> impl Iterator<Item = (&str, &str)> {
    let field = if place == Label { "labels" } else { "annotations" };
    let map = metadata.get(field).and_then(Value::as_object);
    map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

#[cfg(test)]
#[path = "tracking_tests.rs"]
mod tests;
