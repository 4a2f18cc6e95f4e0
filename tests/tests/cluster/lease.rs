//! The Lease of the rewind guard against real API servers.

use anyhow::{Context, Result, ensure};
use lockstep_cluster::{ClusterClient, LeaseWrite, Limits, from_kubeconfig};
use lockstep_engine::outcome::FailureClass;
use lockstep_tests::harness::TestNamespace;
use lockstep_tests::testbed::Testbed;

const NAME: &str = "lockstep-agent";

fn write<'a>(namespace: &'a str, counter: u64) -> LeaseWrite<'a> {
    LeaseWrite {
        namespace,
        name: NAME,
        counter,
        holder: "me",
        duration_s: 40,
        renew_time: "2026-01-31T08:05:09.123000Z",
        over: None,
    }
}

#[tokio::test]
async fn a_lease_is_written_only_over_the_state_that_was_read() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let config = from_kubeconfig(&bed.state().kubeconfig, Some(a.name())).await?;
    let client = ClusterClient::new(config, Limits::default())?;
    let namespace = TestNamespace::create(a, "lease").await?;
    let namespace = namespace.name();
    ensure!(client.read_lease(namespace, NAME).await?.is_none(), "there is none yet");

    let first = client.write_lease(&write(namespace, 1)).await?;
    ensure!(client.read_lease(namespace, NAME).await?.as_ref() == Some(&first), "it reads as it was written");
    let second = client.write_lease(&LeaseWrite { over: Some(&first), ..write(namespace, 2) }).await?;
    ensure!((second.counter, &second.uid) == (2, &first.uid), "{second:?}");
    let lease = a.get("coordination.k8s.io/v1", "Lease", Some(namespace), NAME).await?;
    ensure!(
        lease["spec"]["holderIdentity"] == "me" && lease["spec"]["leaseDurationSeconds"] == 40,
        "{lease}"
    );
    ensure!(lease["spec"]["renewTime"] == "2026-01-31T08:05:09.123000Z", "{lease}");

    let stale = client.write_lease(&LeaseWrite { over: Some(&first), ..write(namespace, 9) }).await;
    let class = stale.err().context("a stale write went through")?.class;
    ensure!(class == FailureClass::Stale, "{class}");
    // Apply has no create-only: it goes through, and is told as what it is.
    let beside = client.write_lease(&write(namespace, 7)).await.err().context("it was there already")?.class;
    ensure!(beside == FailureClass::Stale, "{beside}");

    a.delete("coordination.k8s.io/v1", "Lease", Some(namespace), NAME).await?;
    let gone = client.write_lease(&LeaseWrite { over: Some(&second), ..write(namespace, 3) }).await;
    let class = gone.err().context("a write made a Lease anew that was deleted")?.class;
    ensure!(matches!(class, FailureClass::Stale | FailureClass::Gone), "{class}");
    ensure!(client.read_lease(namespace, NAME).await?.is_none(), "it stays deleted");
    let nowhere = client.write_lease(&write("no-such-namespace", 1)).await.err().context("no namespace")?;
    ensure!(nowhere.class == FailureClass::NamespaceMissing, "{nowhere}");
    Ok(())
}
