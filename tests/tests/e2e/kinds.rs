//! Kinds of every sort, as the field catalogue says, and a kind that nobody compiled in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::deploy::{granted, install_rbac};
use lockstep_tests::harness::{PATIENCE, eventually, unique_name};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

const CRD: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: redisclusters.GROUP }
spec:
  group: GROUP
  scope: Namespaced
  names: { kind: RedisCluster, listKind: RedisClusterList, plural: redisclusters, singular: rediscluster }
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [replicas, image]
            properties: { image: { type: string }, replicas: { type: integer, minimum: 1, maximum: 20 } }
          status:
            type: object
            properties: { readyReplicas: { type: integer }, phase: { type: string } }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_syncs_also_when_its_definition_comes_later() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-crd").await?;
    let namespace = fleet.namespace.as_str();
    // A group of the test's own: definitions are cluster-scoped, and other tests run beside.
    let group = format!("{}.example.com", unique_name("cache")?);
    let crd = CRD.replace("GROUP", &group);
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: redis }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources: [ {{ apiGroup: {group}, kind: RedisCluster, matchLabels: {{ env: production }} }} ]
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    let [b, c] = fleet.targets();
    for target in [b, c] {
        // As deploy/agent/components/custom-resources says: a group of one's own is granted so.
        target
            .apply(&format!(
                "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{ name: write-{group}, labels: {{ lockstep.dev/aggregate-to-agent-write: 'true' }} }}
rules: [ {{ apiGroups: [{group}], resources: ['*'], verbs: [get, create, patch, delete] }} ]
"
            ))
            .await?;
        granted(target, "patch", &group, "redisclusters").await?;
    }
    fleet.source().install_crd(&crd).await?;
    b.install_crd(&crd).await?;
    let version = format!("{group}/v1alpha1");
    let redis = |replicas: u32| {
        format!(
            "apiVersion: {version}
kind: RedisCluster
metadata: {{ name: test-redis, namespace: {namespace}, labels: {{ env: production }} }}
spec: {{ replicas: {replicas}, image: 'redis:7.0' }}
"
        )
    };
    fleet.source().apply(&redis(3)).await?;
    eventually(PATIENCE, "cluster-b has it", async || {
        b.get(&version, "RedisCluster", Some(namespace), "test-redis").await
    })
    .await?;
    // The other target lacks the definition: said so, and not tried.
    let object = format!("RedisCluster.{group}/test-redis");
    lockstep.stands(&object, namespace, "cluster-c", "Blocked/KindNotServed").await?;
    let explained = lockstep.json(&["explain", &object, "-n", namespace]).await?;
    ensure!(explained["targets"].as_array().unwrap().iter().all(|t| t["attempts"] == 0), "{explained}");
    c.install_crd(&crd).await?;
    fleet.everywhere(&version, "RedisCluster", "test-redis", |r| r["spec"]["replicas"] == 3).await?;
    fleet.source().apply(&redis(5)).await?;
    fleet.everywhere(&version, "RedisCluster", "test-redis", |r| r["spec"]["replicas"] == 5).await?;
    for cluster in fleet.clusters {
        let name = format!("redisclusters.{group}");
        cluster.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, &name).await?;
    }
    Ok(())
}

/// One row of the catalogue: what is created at the source, and what the copy must look like.
struct Row {
    what: &'static str,
    api_version: &'static str,
    kind: &'static str,
    /// NAME and NAMESPACE are filled in; every object carries the test's label.
    yaml: &'static str,
    check: fn(&Value, &Value) -> Result<()>,
}

fn same(copy: &Value, source: &Value, pointer: &str) -> Result<()> {
    ensure!(copy.pointer(pointer) == source.pointer(pointer), "{pointer}: {copy}");
    Ok(())
}

fn absent(copy: &Value, pointer: &str) -> Result<()> {
    ensure!(copy.pointer(pointer).is_none(), "{pointer} was copied: {copy}");
    Ok(())
}

const ROWS: &[Row] = &[
    Row {
        what: "a ConfigMap with text and binary data; finalizers and owners are not copied",
        api_version: "v1",
        kind: "ConfigMap",
        yaml: "data: { a: '1' }\nbinaryData: { b: AAEC }\n",
        check: |copy, source| {
            same(copy, source, "/data")?;
            same(copy, source, "/binaryData")?;
            absent(copy, "/metadata/ownerReferences")?;
            absent(copy, "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration")
        },
    },
    Row {
        what: "a Secret with its type",
        api_version: "v1",
        kind: "Secret",
        yaml: "type: kubernetes.io/basic-auth\nstringData: { username: u, password: p }\n",
        check: |copy, source| {
            same(copy, source, "/type")?;
            same(copy, source, "/data")
        },
    },
    Row {
        what: "a Service gets an address of its own; intent stays",
        api_version: "v1",
        kind: "Service",
        yaml: "spec: { type: NodePort, externalTrafficPolicy: Local, sessionAffinity: ClientIP, selector: { app: x }, ports: [ { port: 80, protocol: TCP } ] }\n",
        check: |copy, source| {
            same(copy, source, "/spec/externalTrafficPolicy")?;
            same(copy, source, "/spec/sessionAffinity")?;
            ensure!(copy.pointer("/spec/clusterIP").is_some_and(|ip| ip != "None"));
            ensure!(copy.pointer("/spec/clusterIP") != source.pointer("/spec/clusterIP"));
            Ok(())
        },
    },
    Row {
        what: "a headless Service stays headless",
        api_version: "v1",
        kind: "Service",
        yaml: "spec: { clusterIP: None, selector: { app: x }, ports: [ { port: 80, protocol: TCP } ] }\n",
        check: |copy, source| same(copy, source, "/spec/clusterIP"),
    },
    Row {
        what: "a ServiceAccount keeps the target's token",
        api_version: "v1",
        kind: "ServiceAccount",
        yaml: "imagePullSecrets: [ { name: pull } ]\nautomountServiceAccountToken: false\n",
        check: |copy, source| {
            same(copy, source, "/imagePullSecrets")?;
            ensure!(
                copy.pointer("/secrets").is_none() || copy.pointer("/secrets") != source.pointer("/secrets")
            );
            Ok(())
        },
    },
    Row {
        what: "a Role",
        api_version: "rbac.authorization.k8s.io/v1",
        kind: "Role",
        yaml: "rules: [ { apiGroups: [''], resources: [configmaps], verbs: [get] } ]\n",
        check: |copy, source| same(copy, source, "/rules"),
    },
    Row {
        what: "a RoleBinding",
        api_version: "rbac.authorization.k8s.io/v1",
        kind: "RoleBinding",
        yaml: "roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view }\nsubjects: [ { kind: User, apiGroup: rbac.authorization.k8s.io, name: someone } ]\n",
        check: |copy, source| {
            same(copy, source, "/roleRef")?;
            same(copy, source, "/subjects")
        },
    },
    Row {
        what: "a Job without the generated selector",
        api_version: "batch/v1",
        kind: "Job",
        yaml: "spec: { backoffLimit: 2, template: { spec: { restartPolicy: Never, containers: [ { name: c, image: busybox } ] } } }\n",
        check: |copy, source| {
            same(copy, source, "/spec/backoffLimit")?;
            let uid = "/spec/selector/matchLabels/controller-uid";
            ensure!(copy.pointer(uid).is_some() && copy.pointer(uid) != source.pointer(uid), "{copy}");
            Ok(())
        },
    },
    Row {
        what: "a PersistentVolumeClaim",
        api_version: "v1",
        kind: "PersistentVolumeClaim",
        yaml: "spec: { accessModes: [ReadWriteOnce], storageClassName: none, resources: { requests: { storage: 1Gi } } }\n",
        check: |copy, source| {
            same(copy, source, "/spec/resources")?;
            absent(copy, "/spec/volumeName")
        },
    },
    Row {
        what: "a Namespace, cluster-scoped",
        api_version: "v1",
        kind: "Namespace",
        yaml: "",
        check: |copy, source| {
            ensure!(copy["metadata"]["uid"] != source["metadata"]["uid"]);
            same(copy, source, "/metadata/labels/env")
        },
    },
    Row {
        what: "a PriorityClass, cluster-scoped",
        api_version: "scheduling.k8s.io/v1",
        kind: "PriorityClass",
        yaml: "value: 7\ndescription: test\n",
        check: |copy, source| same(copy, source, "/value"),
    },
    Row {
        what: "a ClusterRole",
        api_version: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRole",
        yaml: "rules: [ { apiGroups: [''], resources: [nodes], verbs: [get] } ]\n",
        check: |copy, source| same(copy, source, "/rules"),
    },
];

fn is_cluster_scoped(kind: &str) -> bool {
    matches!(kind, "Namespace" | "PriorityClass" | "ClusterRole")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_catalogue() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-kinds").await?;
    let label = fleet.namespace.clone();
    let mut kinds: Vec<(&str, &str)> =
        ROWS.iter().map(|row| (row.api_version.split_once('/').map_or("", |(g, _)| g), row.kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let resources: String = kinds
        .iter()
        .map(|(group, kind)| {
            format!("  - {{ apiGroup: '{group}', kind: {kind}, matchLabels: {{ env: {label} }} }}\n")
        })
        .collect();
    let policy = format!(
        "apiVersion: sync.k8s.io/v1\nkind: ClusterSyncPolicy\nmetadata: {{ name: kinds }}\nspec:\n  sourceCluster: cluster-a\n  targetClusters: [cluster-b, cluster-c]\n  resources:\n{resources}"
    );
    let mut lockstep = Lockstep::prepare(&bed).await?;
    for target in fleet.targets() {
        install_rbac(&bed, target, "agent/components/rbac").await?;
        granted(target, "escalate", "rbac.authorization.k8s.io", "roles").await?;
    }
    // RBAC must be named in what an agent accepts: `*` never means it.
    lockstep.accept(&[
        "*",
        "Role.rbac.authorization.k8s.io",
        "RoleBinding.rbac.authorization.k8s.io",
        "ClusterRole.rbac.authorization.k8s.io",
    ]);
    lockstep.policy("policy.yaml", &policy)?;
    lockstep.start().await?;
    for (n, row) in ROWS.iter().enumerate() {
        check_row(&fleet, row, &format!("{label}-{n}")).await?;
    }
    lockstep.wait("kinds").await?;
    Ok(())
}

async fn check_row(fleet: &Fleet<'_>, row: &Row, name: &str) -> Result<()> {
    let Row { what, api_version, kind, yaml, check } = row;
    let namespace = (!is_cluster_scoped(kind)).then_some(fleet.namespace.as_str());
    let place = namespace.map(|n| format!(", namespace: {n}")).unwrap_or_default();
    let label = &fleet.namespace;
    let object = format!(
        "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{ name: {name}{place}, labels: {{ env: {label} }} }}\n{yaml}"
    );
    fleet.source().apply(&object).await?;
    let source = fleet.source().get(api_version, kind, namespace, name).await?;
    for target in fleet.targets() {
        let copy = eventually(PATIENCE, &format!("{what} in {}", target.name()), async || {
            target.get(api_version, kind, namespace, name).await
        })
        .await?;
        check(&copy, &source).map_err(|error| error.context(format!("{what} in {}", target.name())))?;
    }
    if is_cluster_scoped(kind) {
        for cluster in fleet.clusters {
            cluster.delete(api_version, kind, None, name).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_catalogue_leaves_out_stays_out() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-never").await?;
    let namespace = fleet.namespace.as_str();
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: everything }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}] }}
  - {{ kind: Secret, namespaces: [{namespace}] }}
  - {{ kind: Pod, namespaces: [{namespace}] }}
  - {{ apiGroup: apps, kind: ReplicaSet, namespaces: [{namespace}] }}
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    fleet
        .source()
        .apply(&format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: owner, namespace: {namespace} }}
spec:
  replicas: 1
  selector: {{ matchLabels: {{ app: owner }} }}
  template:
    metadata: {{ labels: {{ app: owner }} }}
    spec: {{ containers: [ {{ name: c, image: busybox }} ] }}
---
apiVersion: v1
kind: Secret
metadata: {{ name: sh.helm.release.v1.x.v1, namespace: {namespace} }}
type: helm.sh/release.v1
data: {{ release: eA== }}
---
apiVersion: v1
kind: ConfigMap
metadata: {{ name: last, namespace: {namespace} }}
"
        ))
        .await?;
    eventually(PATIENCE, "the source has its ReplicaSet and its token Secret", async || {
        let sets = fleet.source().list("apps/v1", "ReplicaSet", Some(namespace), "app=owner").await?;
        let pods = fleet.source().list("v1", "Pod", Some(namespace), "app=owner").await?;
        ensure!(!sets.is_empty() && !pods.is_empty());
        Ok(())
    })
    .await?;
    fleet.everywhere("v1", "ConfigMap", "last", |_| true).await?;
    lockstep.wait("everything").await?;
    let managed = "lockstep.dev/managed=true";
    for target in fleet.targets() {
        for (version, kind) in [("v1", "Secret"), ("v1", "Pod"), ("apps/v1", "ReplicaSet")] {
            let found = target.list(version, kind, Some(namespace), managed).await?;
            ensure!(found.is_empty(), "{kind}: {found:?}");
        }
        let maps = target.list("v1", "ConfigMap", Some(namespace), managed).await?;
        ensure!(maps.len() == 1, "kube-root-ca.crt must not be among them: {maps:?}");
    }
    let says = lockstep.json(&["explain", "configmap/kube-root-ca.crt", "-n", namespace]).await?;
    ensure!(says["policies"][0]["reason"] == "KubeRootCa", "{says}");
    Ok(())
}

fn service(namespace: &str, name: &str, sync: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"sync": sync}}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_15_a_service_whose_address_and_ports_are_taken_at_a_target_gets_others() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-ports").await?;
    let namespace = fleet.namespace.as_str();
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: services }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources: [ {{ kind: Service, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }} ]
"
    );
    let spec = |port: u16| json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"name": "http", "protocol": "TCP", "port": port}]});
    let [b, _] = fleet.targets();
    fleet.source().apply_value(&service(namespace, "web", "no", spec(80))).await?;
    let source = fleet.source().get("v1", "Service", Some(namespace), "web").await?;
    let (ip, port) = (&source["spec"]["clusterIP"], &source["spec"]["ports"][0]["nodePort"]);
    b.apply_value(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
    let taker = json!({"type": "NodePort", "clusterIP": ip, "ports": [{"protocol": "TCP", "port": 80, "nodePort": port}]});
    // Where another test holds them already they are taken, too.
    let _ = b.apply_value(&service(namespace, "taker", "no", taker)).await;

    let mut lockstep = Lockstep::with_policy(&bed, &policy).await?;
    fleet.source().apply_value(&service(namespace, "web", "yes", spec(80))).await?;
    fleet.everywhere("v1", "Service", "web", |_| true).await?;
    let copy = b.get("v1", "Service", Some(namespace), "web").await?;
    let own = |service: &Value| {
        (service["spec"]["clusterIP"].clone(), service["spec"]["ports"][0]["nodePort"].clone())
    };
    ensure!(own(&copy).0 != *ip && own(&copy).1 != *port, "{copy}");
    // What changes at the source follows, and the address stays.
    fleet.source().apply_value(&service(namespace, "web", "yes", spec(8080))).await?;
    fleet.everywhere("v1", "Service", "web", |web| web["spec"]["ports"][0]["port"] == 8080).await?;
    let after = b.get("v1", "Service", Some(namespace), "web").await?;
    ensure!(own(&after).0 == own(&copy).0, "{after}");
    lockstep.wait("services").await?;
    lockstep.stop().await
}
