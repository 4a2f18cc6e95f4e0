//! Loading keeps what was good (I10).
#![allow(clippy::unwrap_used)] // helpers of tests may

use lockstep_policies::{Change, LoadOutcome, LoadedFile, PolicySet, load};

use crate::common::{self, file, policy};

fn one(name: &str) -> String {
    policy(name, "a", "b", "{ kind: ConfigMap }")
}

fn run(previous: &PolicySet, files: &[(&str, &str)]) -> LoadOutcome {
    let files: Vec<LoadedFile> = files.iter().map(|(path, text)| file(path, text)).collect();
    load(previous, &files, None)
}

fn names(set: &PolicySet) -> Vec<String> {
    set.policies().map(|policy| format!("{}@{}", policy.name, policy.file)).collect()
}

fn changes(outcome: &LoadOutcome) -> Vec<(String, Change)> {
    outcome.changed.iter().map(|change| (change.name.to_string(), change.change)).collect()
}

#[test]
fn i10_a_bad_file_keeps_its_last_good_version_and_the_others_load() {
    let first = run(&PolicySet::default(), &[("a", &one("x")), ("b", &one("y"))]);
    assert!(first.is_clean());
    assert_eq!(changes(&first), [("x".to_owned(), Change::Added), ("y".to_owned(), Change::Added)]);
    let changed = policy("y", "a", "c", "{ kind: ConfigMap }");
    let second = run(&first.set, &[("a", "kind: ["), ("b", &changed), ("c", "bad"), ("d", &one("z"))]);
    assert!(!second.is_clean());
    assert_eq!(names(&second.set), ["x@a", "y@b", "z@d"]);
    assert_eq!(changes(&second), [("y".to_owned(), Change::Changed), ("z".to_owned(), Change::Added)]);
    let gone = LoadedFile { path: "a".to_owned(), text: Err("io".to_owned()) };
    let third = load(&second.set, &[gone], None);
    assert_eq!(names(&third.set), ["x@a"], "unreadable is not gone; not listed is");
}

#[test]
fn i10_the_last_good_version_survives_a_restart() {
    let first = run(&PolicySet::default(), &[("a", &one("x")), ("b", &one("y"))]);
    let bad = run(&first.set, &[("a", ""), ("b", &one("y"))]);
    let (restored, findings) = PolicySet::restore(bad.set.last_good());
    assert!(findings.is_empty());
    assert_eq!(names(&restored), ["x@a", "y@b"]);
    let after = run(&restored, &[("a", ""), ("b", &one("y"))]);
    assert_eq!(names(&after.set), ["x@a", "y@b"]);
    assert!(after.changed.is_empty());
}

#[test]
fn i10_an_unknown_cluster_leaves_the_last_good_version() {
    let first = run(&PolicySet::default(), &[("a", &one("x"))]);
    let text = policy("x", "a", "typo", "{ kind: ConfigMap }");
    let second = load(&first.set, &[file("a", &text)], Some(&common::known(&["a", "b"])));
    assert!(!second.is_clean() && second.changed.is_empty());
}

#[test]
fn the_file_that_had_a_name_keeps_it() {
    let first = run(&PolicySet::default(), &[("m", &one("x"))]);
    let second = run(&first.set, &[("a", &one("x")), ("m", &one("x"))]);
    assert_eq!(names(&second.set), ["x@m"]);
    assert_eq!(second.findings.len(), 1);
    assert_eq!(second.findings[0].file, "a");
    assert!(second.findings[0].message.contains("m:3"), "{}", second.findings[0]);
    // Fresh: the first path has it.
    let fresh = run(&PolicySet::default(), &[("m", &one("x")), ("a", &one("x"))]);
    assert_eq!(names(&fresh.set), ["x@a"]);
}

#[test]
fn names_may_move_and_swap_between_files() {
    let first = run(&PolicySet::default(), &[("a", &one("x")), ("b", &one("y"))]);
    let swapped = run(&first.set, &[("a", &one("y")), ("b", &one("x"))]);
    assert!(swapped.is_clean());
    assert_eq!(names(&swapped.set), ["x@b", "y@a"]);
    assert!(swapped.changed.is_empty(), "the same policies, elsewhere");
}

#[test]
fn a_loser_falls_back_to_its_last_good_version() {
    let first = run(&PolicySet::default(), &[("a", &one("x")), ("b", &one("y"))]);
    // a wants y, which b has; so a stays x, and c, which wanted the freed x, loses too.
    let second = run(&first.set, &[("a", &one("y")), ("b", &one("y")), ("c", &one("x"))]);
    assert_eq!(names(&second.set), ["x@a", "y@b"]);
    let files: Vec<_> = second.findings.iter().map(|finding| finding.file.as_str()).collect();
    assert_eq!(files, ["a", "c"]);
}

#[test]
fn the_digest_sees_the_meaning_only() {
    let digest = |text: &str| common::good(text).by_name("x").unwrap().digest;
    let plain = policy("x", "a", "b, c", "{ kind: ConfigMap, names: [m, n] }");
    let same = format!(
        "# a comment\n{}",
        policy("x", "a", "c, b", "{ apiGroup: '', kind: ConfigMap, names: [n, m], includeOwned: false }")
    );
    assert_eq!(digest(&plain), digest(&same));
    assert_ne!(digest(&plain), digest(&policy("x", "a", "b", "{ kind: ConfigMap, names: [m, n] }")));
}
