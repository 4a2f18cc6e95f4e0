//! Hub and agents as processes of their own, with TLS between them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;

/// A CA, and a certificate for the loopback signed by it: (CA, chain, key) in PEM.
fn certificates() -> Result<(String, String, String)> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    Ok((ca_pem, certificate.pem(), key.serialize_pem()))
}

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: over-tls }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources: [ {{ kind: ConfigMap, namespaces: [{namespace}] }} ]
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_agents_come_over_tls_with_their_own_token_only() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-tls").await?;
    let namespace = fleet.namespace.as_str();
    let files = tempfile::tempdir()?;
    let (ca, chain, key) = certificates()?;
    let path = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    for (name, pem) in [("ca.crt", &ca), ("tls.crt", &chain), ("tls.key", &key)] {
        std::fs::write(path(name), pem)?;
    }
    let (certificate, private, authority) = (path("tls.crt"), path("tls.key"), path("ca.crt"));
    let tls =
        [("LOCKSTEP_CONFIG__TLS__CERT_FILE", &*certificate), ("LOCKSTEP_CONFIG__TLS__KEY_FILE", &*private)];
    let hub = Lockstep::hub_with_policy(&bed, &policy(namespace), &tls).await?;
    let address = format!("https://{}", hub.address("agents")?);
    let trusting = [("LOCKSTEP_CONFIG__TLS__CA", &*authority)];
    let mut agents = Vec::new();
    for cluster in ["cluster-a", "cluster-b"] {
        agents.push(hub.agent(cluster, &address, &trusting).await?);
    }
    // The agent of cluster-c holds the token of cluster-b: it may not speak for itself, nor for b.
    let stolen = hub.dir.path().join("token-cluster-c");
    let own = std::fs::read(&stolen)?;
    std::fs::copy(hub.dir.path().join("token-cluster-b"), &stolen)?;
    let impostor = hub.agent("cluster-c", &address, &trusting).await?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": namespace},
        "data": {"k": "1"}});
    fleet.source().apply_value(&map).await?;
    let [_, c] = fleet.targets();
    fleet.everywhere_but(c, "v1", "ConfigMap", "m", |m| m["data"]["k"] == "1").await?;
    eventually(PATIENCE, "the impostor is refused, and told why", async || {
        let clusters = hub.json(&["clusters", "cluster-c"]).await?;
        ensure!(clusters.to_string().contains("LS0321"), "{clusters}");
        Ok(())
    })
    .await?;
    drop(impostor);
    std::fs::write(&stolen, own)?;
    agents.push(hub.agent("cluster-c", &address, &trusting).await?);
    fleet.everywhere("v1", "ConfigMap", "m", |m| m["data"]["k"] == "1").await
}
