//! What is synced: which objects the sources hold, and the policies that ask for them elsewhere.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockstep_tests::chaos::compare::is_copy;
use lockstep_tests::chaos::dice::Dice;
use lockstep_tests::model::ApiServer;
use serde_json::{Value, json};

/// Shares of the objects in percent, by source: not everything shall hang on one cluster.
pub(crate) const SOURCES: [usize; 3] = [70, 20, 10];
const NAMESPACES: usize = 4;
/// Of text in an object: with its metadata it is then about the 1.28 KB that others measured with.
const TEXT: usize = 900;
/// The label that says by which source's policy an object is meant.
const LABEL: &str = "fleet";
/// Beside what is synced, in its namespaces; nobody may touch it.
const BYSTANDER: &str = "bystander";

/// A kind that is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
    Deployment,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::ConfigMap, Self::Secret, Self::Deployment];

    pub(crate) fn api_version(self) -> &'static str {
        if self == Self::Deployment { "apps/v1" } else { "v1" }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Deployment => "Deployment",
        }
    }

    /// As accept lists call it.
    pub(crate) fn full_name(self) -> &'static str {
        if self == Self::Deployment { "Deployment.apps" } else { self.name() }
    }

    fn group(self) -> &'static str {
        if self == Self::Deployment { "apps" } else { "" }
    }

    pub(crate) fn all_of(self, server: &ApiServer) -> Vec<Value> {
        server.all(self.api_version(), self.name())
    }
}

/// A place for an object at a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) source: usize,
    pub(crate) number: usize,
}

impl Slot {
    pub(crate) fn kind(self) -> Kind {
        match self.number % 5 {
            3 => Kind::Secret,
            4 => Kind::Deployment,
            _ => Kind::ConfigMap,
        }
    }

    pub(crate) fn namespace(self) -> String {
        format!("team-{}", self.number / 5 % NAMESPACES)
    }

    pub(crate) fn name(self) -> String {
        format!("s{}-{}", self.source, self.number)
    }

    pub(crate) fn path(self, server: &ApiServer) -> Result<String> {
        let kind = self.kind();
        let path = server.path(kind.api_version(), kind.name(), &self.namespace(), &self.name());
        path.context("the kind is served")
    }

    /// A body that no other write makes.
    pub(crate) fn body(self, dice: &mut Dice, serial: u64) -> Value {
        let kind = self.kind();
        let name = self.name();
        let mut object = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "metadata": { "name": name, "namespace": self.namespace(), "labels": { LABEL: format!("s{}", self.source) } },
        });
        let text: String = (0..TEXT).map(|_| char::from(b"abcdefghijklmnop"[dice.below(16)])).collect();
        // Keys come and go, so that removing a field is tried too.
        let extra = format!("extra-{}", serial % 3);
        match kind {
            Kind::ConfigMap => {
                object["data"] = json!({ "serial": serial.to_string(), "text": text, extra: "x" });
            }
            Kind::Secret => {
                let encoded = |text: &str| STANDARD.encode(text);
                object["type"] = "Opaque".into();
                object["data"] = json!({ "serial": encoded(&serial.to_string()), "text": encoded(&text), extra: encoded("x") });
            }
            Kind::Deployment => {
                object["spec"] = json!({
                    "replicas": 0,
                    "selector": { "matchLabels": { "app": name } },
                    "template": {
                        "metadata": { "labels": { "app": name }, "annotations": { "serial": serial.to_string() } },
                        "spec": { "containers": [{ "name": "web", "image": "example.invalid/web:1",
                            "env": [{ "name": "TEXT", "value": text }] }] },
                    },
                });
            }
        }
        object
    }
}

/// How many objects a source holds of its own.
pub(crate) fn share(source: usize, objects: usize) -> usize {
    let percent = SOURCES.get(source).copied().unwrap_or(0);
    (objects * percent / 100).max(1)
}

/// Everything that a source holds of its own now, of a kind.
pub(crate) fn originals(server: &ApiServer, source: usize, kind: Kind) -> Vec<Value> {
    let mut all = kind.all_of(server);
    all.retain(|object| object["metadata"]["labels"][LABEL] == format!("s{source}") && !is_copy(object));
    all
}

pub(crate) fn policy_name(source: usize) -> String {
    format!("fleet-{source}")
}

/// One policy per source, to all others. Budgets are wide: ordinary deletes go through.
pub(crate) fn write_policies(dir: &Path, names: &[String]) -> Result<()> {
    for source in 0..SOURCES.len() {
        let targets: Vec<_> =
            names.iter().enumerate().filter(|(index, _)| *index != source).map(|(_, name)| name).collect();
        let label = json!({ LABEL: format!("s{source}") });
        let resources = Kind::ALL
            .map(|kind| json!({ "apiGroup": kind.group(), "kind": kind.name(), "matchLabels": label }));
        let policy = json!({
            "apiVersion": "sync.k8s.io/v1",
            "kind": "ClusterSyncPolicy",
            "metadata": { "name": policy_name(source) },
            "spec": {
                "sourceCluster": names[source],
                "targetClusters": targets,
                "resources": resources,
                "deletion": { "budget": { "count": 100_000, "percent": 100 } },
            },
        });
        std::fs::write(dir.join(format!("{}.yaml", policy_name(source))), policy.to_string())?;
    }
    Ok(())
}

/// A user of a cluster writes an object.
pub(crate) fn apply(server: &mut ApiServer, now: i64, object: &Value) -> Result<()> {
    let reply = server.user_apply(now, "user", object, true).context("the kind is served")?;
    ensure!(reply.status() < 300, "{}: {}", reply.status(), reply.json());
    Ok(())
}

/// What a cluster has before lockstep comes: the namespace of the agent's Lease, those of the sources, and what no
/// policy means.
pub(crate) fn furnish(
    server: &mut ApiServer,
    now: i64,
    index: usize,
    objects: usize,
    seed: u64,
) -> Result<()> {
    let namespace =
        |name: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    apply(server, now, &namespace("lockstep-system"))?;
    apply(server, now, &namespace("team-0"))?;
    let metadata = json!({ "name": BYSTANDER, "namespace": "team-0", "labels": { LABEL: "none" } });
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "a": "b" } });
    apply(server, now, &body)?;
    if index < SOURCES.len() {
        (1..NAMESPACES).try_for_each(|n| apply(server, now, &namespace(&format!("team-{n}"))))?;
        let mut dice = Dice::new(seed, &format!("objects of {index}"));
        for number in 0..share(index, objects) {
            apply(server, now, &Slot { source: index, number }.body(&mut dice, 0))?;
        }
    }
    Ok(())
}

/// The version of what nobody may touch.
pub(crate) fn bystander(server: &ApiServer) -> Option<Value> {
    Some(server.find("v1", "ConfigMap", "team-0", BYSTANDER)?["metadata"]["resourceVersion"].clone())
}
