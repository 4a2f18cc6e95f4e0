//! What is synced in a history: kinds, namespaces, names, policies.

use lockstep_agent::AcceptEntry;
use lockstep_engine::marks::{MANAGED, Marks, SourceMark, TargetMark};
use lockstep_engine::{GroupKind, ObjectKey};
use serde_json::{Value, json};

/// Clusters of a fleet.
pub(crate) const CLUSTERS: [&str; 3] = ["a", "b", "c"];
/// Namespaces that sources live in. The second is deleted and made again.
pub(crate) const NAMESPACES: [&str; 2] = ["shop", "doomed"];
/// Names of a kind, a namespace and a cluster: few, so that they are deleted and made again.
pub(crate) const SLOTS: usize = 4;
/// In every value of a Secret: must be found nowhere in clear (I13).
pub(crate) const CANARY: &str = "Y2FuYXJ5LWluLWEtc2VjcmV0";
pub(crate) const DEFINITION: &str = "widgets.sim.example";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
    Widget,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::ConfigMap, Self::Secret, Self::Widget];

    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::ConfigMap | Self::Secret => "v1",
            Self::Widget => "sim.example/v1",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Widget => "Widget",
        }
    }

    pub(crate) fn group(self) -> &'static str {
        if self == Self::Widget { "sim.example" } else { "" }
    }

    /// As the model names its tables.
    pub(crate) fn of_table(table: &str) -> Option<Self> {
        match table {
            "/configmaps" => Some(Self::ConfigMap),
            "/secrets" => Some(Self::Secret),
            "sim.example/widgets" => Some(Self::Widget),
            _ => None,
        }
    }

    pub(crate) fn of(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.group() == group && known.name() == kind)
    }

    /// What is synced of an object: its content.
    pub(crate) fn content(self, object: &Value) -> String {
        match self {
            Self::ConfigMap | Self::Secret => object["data"].to_string(),
            Self::Widget => object["spec"].to_string(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// The object that the user of a source cluster has under this number.
pub(crate) fn key(cluster: usize, kind: Kind, slot: usize) -> Key {
    let namespace = NAMESPACES[slot % NAMESPACES.len()].to_owned();
    Key { kind, namespace, name: format!("{}{slot}", CLUSTERS[cluster]) }
}

/// An object as its user writes it.
pub(crate) fn object(key: &Key, serial: u64, selected: bool) -> Value {
    let labels = if selected { json!({ "sync": "yes" }) } else { json!({ "sync": "no" }) };
    let mut object = json!({
        "apiVersion": key.kind.api_version(),
        "kind": key.kind.name(),
        "metadata": { "namespace": key.namespace, "name": key.name, "labels": labels },
    });
    match key.kind {
        Kind::ConfigMap => object["data"] = json!({ "k": serial.to_string(), "x": "y" }),
        // Base64 of the canary and a number: eight digits are six bytes.
        Kind::Secret => object["data"] = json!({ "k": format!("{CANARY}{serial:08}") }),
        Kind::Widget => object["spec"] = json!({ "k": serial, "list": [1, serial] }),
    }
    object
}

/// Who the other hub says that it is.
pub(crate) const OTHER_HUB: &str = "another-hub";

/// A copy that another hub made under this name: all the marks, under a key that is not ours.
pub(crate) fn of_other_hub(key: &Key, cluster: &str, serial: u64) -> Value {
    let gk = GroupKind::new(key.kind.group(), key.kind.name());
    let copy = ObjectKey::new(gk, &key.namespace, &key.name);
    let marks = Marks {
        policy: "theirs".to_owned(),
        source: SourceMark {
            cluster: CLUSTERS[0].to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: format!("theirs-{}", key.name),
            hops: 1,
        },
        target: TargetMark { cluster: cluster.to_owned(), key: copy },
        hub: OTHER_HUB.to_owned(),
        rendered: [3; 32],
        mac: [0; 32],
        intent: None,
        adopted: false,
    };
    let mut copy = object(key, serial, false);
    copy["metadata"]["labels"] = json!({ MANAGED: "true" });
    copy["metadata"]["annotations"] = json!(marks.signed(&[9; 32]).annotations());
    copy
}

pub(crate) fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": DEFINITION },
        "spec": {
            "group": "sim.example",
            "scope": "Namespaced",
            "names": { "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
}

/// One policy of the fleet.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) name: &'static str,
    pub(crate) source: usize,
    pub(crate) targets: &'static [usize],
    pub(crate) kinds: &'static [Kind],
    /// Are its namespaces named? Then they are watched one by one.
    pub(crate) literal: bool,
}

/// Copies that the first makes in b match the second, too: they must not go on from there (I9).
pub(crate) const POLICIES: [Policy; 3] = [
    Policy {
        name: "first",
        source: 0,
        targets: &[1, 2],
        kinds: &[Kind::ConfigMap, Kind::Secret],
        literal: false,
    },
    Policy { name: "second", source: 1, targets: &[2, 0], kinds: &[Kind::ConfigMap], literal: false },
    Policy { name: "widgets", source: 1, targets: &[2], kinds: &[Kind::Widget, Kind::Secret], literal: true },
];

/// What the agent of the last cluster does not accept (I16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Nothing,
    Secrets,
    /// The namespace that is deleted and made again.
    Doomed,
}

impl Refusal {
    /// Where an agent refuses something.
    pub(crate) const AT: usize = CLUSTERS.len() - 1;

    pub(crate) fn refuses(self, cluster: usize, key: &Key) -> bool {
        cluster == Self::AT
            && match self {
                Self::Nothing => false,
                Self::Secrets => key.kind == Kind::Secret,
                Self::Doomed => key.namespace == NAMESPACES[1],
            }
    }

    /// The agent's accept list.
    pub(crate) fn accepted(self) -> Vec<AcceptEntry> {
        let mut accept = AcceptEntry::everything();
        for entry in &mut accept {
            match self {
                Self::Nothing => {}
                Self::Secrets => entry.kinds = vec!["ConfigMap".to_owned(), "Widget.sim.example".to_owned()],
                Self::Doomed => entry.namespaces = vec![NAMESPACES[0].to_owned()],
            }
        }
        accept
    }
}

/// How a policy's file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileState {
    Whole,
    Suspended,
    Broken,
    Removed,
    /// Its last target is not named.
    Narrowed,
}

impl Policy {
    pub(crate) fn file(&self, state: FileState, budget: u32, grace_s: u32) -> Option<String> {
        let targets: Vec<&str> = match state {
            FileState::Removed => return None,
            FileState::Broken => return Some("kind: ClusterSyncPolicy\nspec: {".to_owned()),
            // One target is needed: a policy with a single one names a cluster that never comes.
            FileState::Narrowed if self.targets.len() == 1 => vec!["elsewhere"],
            FileState::Narrowed => self.targets[1..].iter().map(|target| CLUSTERS[*target]).collect(),
            FileState::Whole | FileState::Suspended => {
                self.targets.iter().map(|target| CLUSTERS[*target]).collect()
            }
        };
        let resources: Vec<Value> = self
            .kinds
            .iter()
            .map(|kind| {
                let mut resource = json!({
                    "apiGroup": kind.group(), "kind": kind.name(), "matchLabels": { "sync": "yes" },
                });
                if self.literal {
                    resource["namespaces"] = json!(NAMESPACES);
                }
                resource
            })
            .collect();
        let policy = json!({
            "apiVersion": "sync.k8s.io/v1",
            "kind": "ClusterSyncPolicy",
            "metadata": { "name": self.name },
            "spec": {
                "sourceCluster": CLUSTERS[self.source],
                "targetClusters": targets,
                "suspend": state == FileState::Suspended,
                "resources": resources,
                "deletion": {
                    "budget": { "count": budget, "percent": 20 }, "gracePeriod": format!("{grace_s}s"),
                },
            },
        });
        Some(policy.to_string())
    }

    pub(crate) fn covers(&self, key: &Key) -> bool {
        self.kinds.contains(&key.kind) && NAMESPACES.contains(&key.namespace.as_str())
    }
}
