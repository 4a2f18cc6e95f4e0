//! What is synced in a chaos run: kinds, namespaces, policies, and what nobody may touch.

use anyhow::Result;
use serde_json::{Value, json};

use super::dice::Dice;
use crate::cluster::Cluster;
use crate::testbed::CLUSTERS;

/// The namespace of the first cluster that is deleted and made again.
pub(super) const DOOMED: &str = "chaos-2";
/// In every cluster, and in no policy.
const OUTSIDE: &str = "bystanders";
/// A name that the source and a target both have, and lockstep did not bring there.
pub(super) const CLASH: &str = "clash";
/// Where that is.
pub(super) const CLASH_NAMESPACE: &str = "chaos-1";
pub(super) const CLASH_TARGET: usize = 1;
/// Names per kind and namespace: few, so that they are deleted and made again.
const NAMES: usize = 14;
/// Of a few large bodies.
const LARGE: usize = 60_000;

pub(super) const DEFINITION_NAME: &str = "widgets.chaos.example";
pub(super) const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: widgets.chaos.example }
spec:
  group: chaos.example
  scope: Namespaced
  names: { plural: widgets, singular: widget, kind: Widget }
  versions:
  - name: v1
    served: true
    storage: true
    schema: { openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true } }
";

/// The agents' right to write the custom resource, as deploy/agent/components/custom-resources grants it.
pub(super) const WIDGET_ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: lockstep-agent-write-chaos
  labels: { lockstep.dev/aggregate-to-agent-write: 'true' }
rules:
- { apiGroups: [chaos.example], resources: ['*'], verbs: [get, create, patch, delete] }
";

/// A kind that is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
    Deployment,
    Widget,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::ConfigMap, Self::Secret, Self::Deployment, Self::Widget];

    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::ConfigMap | Self::Secret => "v1",
            Self::Deployment => "apps/v1",
            Self::Widget => "chaos.example/v1",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Deployment => "Deployment",
            Self::Widget => "Widget",
        }
    }

    /// As `lockstep get` and the tombstones call it.
    pub(super) fn full_name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Deployment => "Deployment.apps",
            Self::Widget => "Widget.chaos.example",
        }
    }

    /// Where the body holds the number of the write that made it, as a JSON pointer.
    pub(super) fn content(self) -> &'static str {
        match self {
            Self::ConfigMap => "/data/k",
            Self::Secret => "/data/k",
            Self::Deployment => "/spec/template/metadata/annotations/chaos.example~1serial",
            Self::Widget => "/spec/k",
        }
    }
}

/// One policy of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) source: usize,
    pub(super) targets: &'static [usize],
    /// Where the writer works. `literal`: the policy names them.
    pub(super) namespaces: &'static [&'static str],
    literal: bool,
}

pub(super) const POLICIES: [Policy; 5] = [
    Policy {
        name: "chaos-configmaps",
        kind: Kind::ConfigMap,
        source: 0,
        targets: &[1, 2],
        namespaces: &["chaos-1", DOOMED],
        literal: false,
    },
    Policy {
        name: "chaos-secrets",
        kind: Kind::Secret,
        source: 0,
        targets: &[1, 2],
        namespaces: &["chaos-1", DOOMED],
        literal: true,
    },
    Policy {
        name: "chaos-deployments",
        kind: Kind::Deployment,
        source: 0,
        targets: &[1, 2],
        namespaces: &["chaos-1"],
        literal: false,
    },
    Policy {
        name: "chaos-widgets",
        kind: Kind::Widget,
        source: 0,
        targets: &[1, 2],
        namespaces: &["chaos-1", DOOMED],
        literal: false,
    },
    Policy {
        name: "chaos-second",
        kind: Kind::ConfigMap,
        source: 1,
        targets: &[2],
        namespaces: &["chaos-3"],
        literal: true,
    },
];

/// What is changed in a policy file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changes {
    pub(super) suspend: bool,
    pub(super) fewer_targets: bool,
}

impl Policy {
    pub(super) fn file(&self) -> String {
        format!("{}.yaml", self.name)
    }

    /// Budgets are wide: ordinary deletes go through, and only what must be held is.
    pub(super) fn text(&self, changes: Changes) -> String {
        let Self { name, kind, source, targets, namespaces, literal } = self;
        let Changes { suspend, fewer_targets } = changes;
        let mut targets: Vec<_> =
            targets.iter().filter_map(|target| CLUSTERS.get(*target).copied()).collect();
        if fewer_targets && targets.len() > 1 {
            targets.pop();
        }
        let group = kind.api_version().rsplit_once('/').map_or("", |(group, _)| group);
        let namespaces = if *literal { json!(namespaces) } else { json!([]) };
        let mut resource =
            json!({ "apiGroup": group, "kind": kind.name(), "matchLabels": { "sync": "yes" } });
        if *literal {
            resource["namespaces"] = namespaces;
        }
        json!({
            "apiVersion": "sync.k8s.io/v1",
            "kind": "ClusterSyncPolicy",
            "metadata": { "name": name },
            "spec": {
                "sourceCluster": CLUSTERS[*source],
                "targetClusters": targets,
                "suspend": suspend,
                "resources": [resource],
                "deletion": { "budget": { "count": 100_000, "percent": 100 } },
            },
        })
        .to_string()
    }

    pub(super) fn selects(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        self.namespaces.contains(&namespace) && metadata["labels"]["sync"] == "yes"
    }

    /// The names that the writer uses.
    pub(super) fn slots(&self) -> Vec<Slot> {
        let Self { kind, source, .. } = *self;
        // ReplicaSets and Pods follow Deployments; the machine is small.
        let names = if kind == Kind::Deployment { NAMES / 2 } else { NAMES };
        let slots = self.namespaces.iter().flat_map(|namespace| {
            (0..names).map(move |n| Slot { cluster: source, kind, namespace, name: format!("o{n}") })
        });
        slots.collect()
    }
}

/// A place for an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) cluster: usize,
    pub(super) kind: Kind,
    pub(super) namespace: &'static str,
    pub(super) name: String,
}

impl Slot {
    /// A body that no other write makes; `selected` by its policy or not.
    pub(super) fn body(&self, dice: &mut Dice, serial: u64, selected: bool) -> Value {
        let Self { kind, namespace, name, .. } = self;
        let metadata = json!({
            "name": name,
            "namespace": namespace,
            "labels": { "sync": if selected { "yes" } else { "no" }, "tier": format!("t{}", serial % 3) },
        });
        let text = format!("s{serial}");
        let mut object =
            json!({ "apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata });
        match kind {
            Kind::ConfigMap | Kind::Secret => {
                let mut data = json!({ "k": encoded(*kind, &text) });
                // Keys come and go, so that removing a field is tried too.
                data[format!("extra-{}", serial % 4)] = encoded(*kind, &text).into();
                if dice.chance(3) {
                    data["large"] = encoded(*kind, &"x".repeat(LARGE)).into();
                }
                object["data"] = data;
                if *kind == Kind::Secret {
                    object["type"] = "Opaque".into();
                }
            }
            Kind::Deployment => {
                object["spec"] = json!({
                    "replicas": 0,
                    "selector": { "matchLabels": { "app": name } },
                    "template": {
                        "metadata": { "labels": { "app": name }, "annotations": { "chaos.example/serial": text } },
                        "spec": { "containers": [{ "name": "web", "image": "example.invalid/web:1" }] },
                    },
                });
            }
            Kind::Widget => {
                object["spec"] = json!({ "k": text, "parts": { (format!("p{}", serial % 4)): serial } })
            }
        }
        object
    }
}

fn encoded(kind: Kind, text: &str) -> String {
    use base64::Engine as _;
    if kind == Kind::Secret {
        base64::engine::general_purpose::STANDARD.encode(text)
    } else {
        text.to_owned()
    }
}

/// What a bystander is called, and how it was when the run began.
#[derive(Debug, Clone)]
pub(super) struct Bystander {
    pub(super) cluster: usize,
    pub(super) kind: Kind,
    pub(super) object: Value,
}

/// Creates namespaces, the definition, and the objects that must be as they were at the end: beside what is synced, in
/// its namespaces, with its labels (at targets) or without them (at sources).
pub(super) async fn create_bystanders(clusters: &[Cluster]) -> Result<Vec<Bystander>> {
    let mut made = vec![];
    for (index, cluster) in clusters.iter().enumerate() {
        for namespace in namespaces_of(index) {
            create_namespace(cluster, namespace).await?;
        }
        cluster.install_crd(DEFINITION).await?;
        let (place, label) = match index {
            0 => ("chaos-1", "no"),
            _ => ("chaos-1", "yes"),
        };
        for kind in [Kind::ConfigMap, Kind::Secret, Kind::Deployment] {
            for namespace in [place, OUTSIDE] {
                let slot = Slot { cluster: index, kind, namespace, name: "bystander".to_owned() };
                let body = slot.body(&mut Dice::new(0, "bystanders"), 0, label == "yes");
                made.push(create(cluster, index, kind, &body).await?);
            }
        }
    }
    // One more, of which the source has a namesake: lockstep must leave it, and say so.
    let metadata = json!({ "name": CLASH, "namespace": CLASH_NAMESPACE, "labels": { "sync": "yes" } });
    let clash =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "mine": "yes" } });
    if let Some(target) = clusters.get(CLASH_TARGET) {
        made.push(create(target, CLASH_TARGET, Kind::ConfigMap, &clash).await?);
    }
    if let Some(source) = clusters.first() {
        let mut theirs = clash.clone();
        theirs["data"] = json!({ "k": "theirs" });
        source.apply_value(&theirs).await?;
    }
    Ok(made)
}

async fn create(cluster: &Cluster, index: usize, kind: Kind, body: &Value) -> Result<Bystander> {
    let object = cluster.apply_value(body).await?;
    Ok(Bystander { cluster: index, kind, object })
}

/// Namespaces that exist in a cluster before lockstep comes. At a target `DOOMED` is missing, and lockstep makes it.
pub(super) fn namespaces_of(cluster: usize) -> &'static [&'static str] {
    match cluster {
        0 => &["chaos-1", DOOMED, OUTSIDE],
        1 => &["chaos-1", "chaos-3", OUTSIDE],
        _ => &["chaos-1", OUTSIDE],
    }
}

pub(super) async fn create_namespace(cluster: &Cluster, name: &str) -> Result<()> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    cluster.apply_value(&namespace).await.map(drop)
}
