//! Every file of the corpus, and mutations of them from a fixed seed, through every target.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use lockstep_fuzz::mutate::Mutator;

const SEED: u64 = 20_261_121;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Runs the corpus and so many mutations of each of its files. An input that breaks a law is kept.
fn replay(name: &str, target: fn(&[u8]), mutations: usize) {
    let files = corpus(name);
    let inputs: Vec<Vec<u8>> = files.iter().map(|(_, bytes)| bytes.clone()).collect();
    let mut mutator = Mutator::new(SEED);
    for (path, input) in &files {
        run(name, &path.display().to_string(), target, input);
        for n in 0..mutations {
            let mutated = mutator.mutate(input, &inputs);
            run(name, &format!("{} mutation {n}", path.display()), target, &mutated);
        }
    }
}

fn run(name: &str, what: &str, target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("broke-{name}"));
        std::fs::write(&kept, input).unwrap();
        eprintln!("{what} broke a law; the input is in {}", kept.display());
        resume_unwind(panic);
    }
}

macro_rules! replays {
    ($($target:ident: $mutations:expr,)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), lockstep_fuzz::$target, $mutations);
            }
        )*

        #[test]
        fn every_directory_of_the_corpus_has_a_target() {
            let targets = [$(stringify!($target)),*];
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
            for entry in std::fs::read_dir(corpus).unwrap() {
                let name = entry.unwrap().file_name();
                assert!(targets.iter().any(|target| **target == *name), "{name:?} has no target");
            }
        }
    };
}

// Mutations of each file: as many as a second or two takes without optimisation.
replays! {
    agent_session: 1_000,
    archive_file: 60,
    credentials: 200,
    field_sets: 500,
    hub_config: 100,
    hub_core: 8,
    hub_session: 1_000,
    list_pages: 1_000,
    marks: 1_000,
    patterns: 500,
    policy_yaml: 60,
    server_status: 60,
    watch_lines: 200,
}
