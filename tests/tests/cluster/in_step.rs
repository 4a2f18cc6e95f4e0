//! I17 by random histories on a real API server: in step is said exactly where what is there is what was asked for.

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use lockstep_tests::chaos::dice::Dice;
use lockstep_tests::harness::TestNamespace;
use lockstep_tests::in_step::{KINDS, Write, definition, history};
use lockstep_tests::testbed::Testbed;

use judge::Judge;

#[path = "../common/judge.rs"]
mod judge;

/// Some hundred writes.
const HISTORIES: u64 = 48;

#[tokio::test]
async fn i17_in_step_implies_that_an_independent_comparison_finds_nothing_on_a_real_server() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [cluster, _, _] = bed.three()?;
    cluster.install_crd(&definition().to_string()).await?;
    let namespace = TestNamespace::create(cluster, "in-step").await?;
    let (mut in_step, mut differs) = (0, 0);
    for seed in 0..HISTORIES {
        let mut dice = Dice::new(seed, "in-step-real");
        let kind = KINDS[usize::try_from(seed)? % KINDS.len()];
        let name = format!("o{seed}");
        let api = cluster.api(kind.0, kind.1, Some(namespace.name())).await?;
        let mut judge = Judge::new(kind);
        for write in history(&mut dice, kind, namespace.name(), &name) {
            let answer = match &write {
                Write::Ours(body) => {
                    api.patch(&name, &PatchParams::apply("lockstep").force(), &Patch::Apply(body)).await
                }
                Write::Theirs(manager, body) => {
                    let parameters = PatchParams { force: dice.chance(50), ..PatchParams::apply(manager) };
                    api.patch(&name, &parameters, &Patch::Apply(body)).await
                }
                Write::Patch(manager, patch) => {
                    let parameters =
                        PatchParams { field_manager: Some((*manager).to_owned()), ..PatchParams::default() };
                    api.patch(&name, &parameters, &Patch::Merge(patch)).await
                }
            };
            let live = match answer {
                Ok(object) => serde_json::to_value(object)?,
                Err(kube::Error::Api(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            judge.answered(&write, &live).with_context(|| format!("seed {seed}, {kind:?}"))?;
        }
        in_step += judge.said.0;
        differs += judge.said.1;
    }
    println!("{HISTORIES} histories: in step {in_step} times, different {differs} times");
    ensure!(in_step > 40 && differs > 10, "in step {in_step} times, different {differs} times");
    let (definitions, name) = ("CustomResourceDefinition", "widgets.in-step.example");
    cluster.delete("apiextensions.k8s.io/v1", definitions, None, name).await?;
    namespace.close().await
}
