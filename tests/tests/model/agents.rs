//! A real hub with real agents on simulated API servers: they notice no difference.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::conditions::now_ms;
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::Lockstep;
use lockstep_tests::model::serve::{Served, kubeconfig};
use lockstep_tests::model::{ApiServer, Config, Effect, Fault, Matcher, Restore};
use serde_json::{Value, json};

const POLICY: &str = "
apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: { name: p }
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - apiGroup: ''
    kind: ConfigMap
    matchLabels: { sync: 'yes' }
";
/// Objects in the source.
const OBJECTS: usize = 50;

struct Fleet {
    servers: Vec<Served>,
    lockstep: Lockstep,
}

impl Fleet {
    /// Clusters of different ages, so that lists come in pages and as streams, and discovery in both forms.
    async fn start() -> Result<Self> {
        let mut servers = Vec::new();
        for (seed, version) in [(1, (1, 34)), (2, (1, 20)), (3, (1, 28))] {
            servers.push(Served::start(ApiServer::new(now_ms()?, Config::new(version, seed))).await?);
        }
        let named: Vec<_> = ["cluster-a", "cluster-b", "cluster-c"].into_iter().zip(&servers).collect();
        let mut lockstep = Lockstep::prepare_with(&kubeconfig(&named, "agent"))?;
        lockstep.policy("policy.yaml", POLICY)?;
        lockstep.start().await?;
        Ok(Self { servers, lockstep })
    }

    fn write(&self, name: &str, value: &str) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": value},
            "metadata": {"name": name, "namespace": "default", "labels": {"sync": "yes"}}});
        let reply = self.servers[0].with(|server, now| server.user_apply(now, "user", &object, true));
        ensure!(reply.as_ref().is_some_and(|reply| reply.status() < 300), "{reply:?}");
        Ok(())
    }

    fn at(&self, cluster: usize, name: &str) -> Option<Value> {
        self.servers[cluster].with(|server, _| server.find("v1", "ConfigMap", "default", name))
    }

    async fn in_step(&self, objects: usize) -> Result<()> {
        self.lockstep.all_in_step("p", objects, PATIENCE).await
    }
}

#[tokio::test]
async fn a_fleet_of_models_comes_into_step_whatever_they_answer_on_the_way() -> Result<()> {
    let fleet = Fleet::start().await?;
    for n in 0..OBJECTS {
        fleet.write(&format!("c{n}"), "1")?;
    }
    fleet.in_step(OBJECTS).await?;
    ensure!(fleet.at(1, "c7").context("it is there")?["data"]["x"] == "1");
    // A change, a delete, drift at a target.
    fleet.write("c7", "2")?;
    fleet.servers[0].with(|server, now| server.user_delete(now, "/api/v1/namespaces/default/configmaps/c8"));
    let patch = json!({"data": {"x": "drift"}});
    fleet.servers[1].with(|server, now| {
        server.user_patch(now, "kubectl-edit", "/api/v1/namespaces/default/configmaps/c9", &patch)
    });
    eventually(PATIENCE, "change, delete and drift are dealt with", async || {
        for cluster in [1, 2] {
            ensure!(fleet.at(cluster, "c7").is_some_and(|object| object["data"]["x"] == "2"), "c7");
            ensure!(fleet.at(cluster, "c8").is_none(), "c8");
        }
        ensure!(fleet.at(1, "c9").is_some_and(|object| object["data"]["x"] == "1"), "c9");
        Ok(())
    })
    .await?;
    // Refusals and lost answers, then the server starts anew.
    let fault = |effect, times| Fault {
        matches: Matcher { verbs: vec!["apply".into()], ..Matcher::default() },
        effect,
        until: None,
        times: Some(times),
    };
    fleet.servers[1].with(|server, _| {
        server.inject(fault(Effect::DropAfter, 5));
        server.inject(fault(Effect::Answer { code: 429, retry_after_s: Some(1) }, 5));
        server.inject(fault(Effect::Answer { code: 500, retry_after_s: None }, 5));
        server.restart();
    });
    for n in 0..OBJECTS {
        if n != 8 {
            fleet.write(&format!("c{n}"), "3")?;
        }
    }
    eventually(Duration::from_secs(120), "every copy is as the source", async || {
        for n in (0..OBJECTS).filter(|n| *n != 8) {
            for cluster in [1, 2] {
                let copy = fleet.at(cluster, &format!("c{n}")).context("a copy")?;
                ensure!(copy["data"]["x"] == "3", "c{n} in {cluster}: {copy}");
            }
        }
        Ok(())
    })
    .await?;
    fleet.in_step(OBJECTS - 1).await
}

#[tokio::test]
async fn i3_a_rewound_model_deletes_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.write("kept", "1")?;
    fleet.in_step(1).await?;
    let snapshot = fleet.servers[0].with(|server, _| server.snapshot());
    fleet.write("lost", "1")?;
    fleet.in_step(2).await?;
    fleet.servers[0].with(|server, _| server.restore(&snapshot, Restore::Plain));
    eventually(PATIENCE, "the rewind is noticed", async || {
        let list = fleet.lockstep.json(&["clusters", "cluster-a"]).await?;
        let rewound = &list["items"][0]["rewound"];
        ensure!(rewound["missing"] == 1 && rewound["how"].is_string(), "{list}");
        Ok(())
    })
    .await?;
    ensure!(fleet.at(1, "lost").is_some() && fleet.at(2, "lost").is_some(), "the copies stay");
    Ok(())
}
