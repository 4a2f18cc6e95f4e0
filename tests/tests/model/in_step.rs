//! I17 by random histories on the model: in step is said exactly where what is there is what was asked for.

use anyhow::{Result, ensure};
use lockstep_tests::chaos::dice::Dice;
use lockstep_tests::in_step::{KINDS, Write, definition, history};
use lockstep_tests::model::{ApiServer, Config};

use judge::Judge;

#[path = "../common/judge.rs"]
mod judge;

const HISTORIES: u64 = 1_200;

#[test]
fn i17_in_step_implies_that_an_independent_comparison_finds_nothing() -> Result<()> {
    let config = Config { controllers: false, ..Config::new((1, 20), 1) };
    let mut server = ApiServer::new(0, config);
    let defined = server.user_create(0, "user", &definition());
    ensure!(defined.as_ref().is_some_and(|reply| reply.status() == 201), "{defined:?}");
    server.tick(0);
    let (mut in_step, mut differs) = (0, 0);
    for seed in 0..HISTORIES {
        let mut dice = Dice::new(seed, "in-step");
        let kind = KINDS[dice.below(KINDS.len())];
        let name = format!("o{seed}");
        let mut judge = Judge::new(kind);
        for write in history(&mut dice, kind, "default", &name) {
            let reply = match &write {
                Write::Ours(body) => server.user_apply(1, "lockstep", body, true),
                Write::Theirs(manager, body) => server.user_apply(1, manager, body, dice.chance(50)),
                Write::Patch(manager, patch) => server
                    .path(kind.0, kind.1, "default", &name)
                    .map(|path| server.user_patch(1, manager, &path, patch)),
            };
            let Some(reply) = reply.filter(|reply| reply.status() < 300) else { continue };
            judge
                .answered(&write, &reply.json())
                .map_err(|error| error.context(format!("seed {seed}, {kind:?}")))?;
        }
        in_step += judge.said.0;
        differs += judge.said.1;
    }
    println!("{HISTORIES} histories: in step {in_step} times, different {differs} times");
    ensure!(in_step > 1_000 && differs > 300, "in step {in_step} times, different {differs} times");
    Ok(())
}
