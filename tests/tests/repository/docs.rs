//! What the documentation says, as far as it can be checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lockstep_engine::advice;
use lockstep_engine::outcome::{Advice, FailureClass};

use crate::{files, root};

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| format!("reading {path}"))
}

/// Every text between two backticks of a line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_dependency_has_its_line() -> Result<()> {
    let mut manifests = vec![root().join("Cargo.toml")];
    for member in [
        "agent",
        "cli",
        "cluster",
        "engine",
        "hub",
        "net",
        "policies",
        "tests",
        "tests/fuzz",
        "tests/fuzz/libfuzzer",
        "wire",
    ] {
        manifests.push(root().join(member).join("Cargo.toml"));
    }
    let mut used = BTreeSet::new();
    for manifest in manifests {
        let mut within = false;
        for line in std::fs::read_to_string(&manifest)?.lines() {
            if line.starts_with('[') {
                within = line.trim_end_matches(']').ends_with("dependencies");
            } else if within && line.starts_with(|c: char| c.is_ascii_lowercase()) {
                let end = line.find(['.', ' ', '=']).unwrap_or(line.len());
                used.insert(line[..end].to_owned());
            }
        }
    }
    used.retain(|name| !name.starts_with("lockstep-"));
    assert!(used.contains("tokio") && used.contains("proptest"), "the manifests were read wrongly: {used:?}");
    let page = read("docs/dependencies.md")?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let mut explained = BTreeSet::new();
    for (name, why) in rows {
        assert!(explained.insert(name.to_owned()), "{name} has two lines");
        assert!(why.trim_end_matches(" |").len() > 5, "{name} has no reason");
    }
    assert_eq!(used, explained, "left: Cargo.toml, right: docs/dependencies.md");
    Ok(())
}

#[test]
fn every_error_code_has_one_page_with_its_title() -> Result<()> {
    let mut pages = vec![];
    files(&root().join("docs/errors"), ".md", &mut pages)?;
    let mut titles = BTreeMap::new();
    for page in pages {
        let code = page.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let digits = code.strip_prefix("LS").unwrap_or_default();
        assert!(digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()), "{code} is no error code");
        let text = std::fs::read_to_string(&page)?;
        let title = text.lines().next().unwrap_or_default().strip_prefix(&format!("# {code}: "));
        let title =
            title.with_context(|| format!("the first line of {code} is not `# {code}: ...`"))?.to_owned();
        if let Some(other) = titles.insert(title.clone(), code.clone()) {
            panic!("{other} and {code} have one title: {title}");
        }
    }
    assert!(titles.len() > 20, "only {} pages", titles.len());
    Ok(())
}

#[test]
fn every_error_code_that_documents_name_has_a_page() -> Result<()> {
    let mut documents = vec![root().join("README.md")];
    files(&root().join("docs"), ".md", &mut documents)?;
    for document in documents {
        let text = std::fs::read_to_string(&document)?;
        for (at, _) in text.match_indices("LS0") {
            let code = text.get(at..at + 6).unwrap_or_default();
            if code.len() == 6 && code[2..].bytes().all(|b| b.is_ascii_digit()) {
                let page = root().join(format!("docs/errors/{code}.md"));
                ensure!(page.exists(), "{} names {code}, which has no page", document.display());
            }
        }
    }
    Ok(())
}

#[test]
fn make_knows_what_documents_tell_to_make() -> Result<()> {
    let makefile = read("Makefile")?;
    let targets: BTreeSet<&str> = makefile.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let mut documents = vec![root().join("README.md")];
    files(&root().join("docs"), ".md", &mut documents)?;
    let mut seen = BTreeSet::new();
    for document in documents {
        let text = std::fs::read_to_string(&document)?;
        let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
        for command in quoted(&text).chain(indented) {
            let Some((_, rest)) = command
                .split_once("make ")
                .filter(|(before, _)| before.is_empty() || before.ends_with("=1 "))
            else {
                continue;
            };
            let target = rest.split([' ', '`']).next().unwrap_or_default();
            assert!(targets.contains(target), "{} says `make {target}`", document.display());
            seen.insert(target.to_owned());
        }
    }
    for target in ["demo", "test", "clusters"] {
        assert!(seen.contains(target), "no document says `make {target}`");
    }
    Ok(())
}

/// The page and the code have one table: what a class of failure means, what to do, when it is tried again.
#[test]
fn every_class_of_failure_and_every_reason_is_in_the_reference() -> Result<()> {
    let page = read("docs/reference/status.md")?;
    for class in FailureClass::ALL {
        let Advice { means, remedy } = class.advice();
        let row = format!("| `{class}` | {} | {means} | {remedy} | {} |", class.state(), class.tried_again());
        ensure!(page.lines().any(|line| line == row), "docs/reference/status.md has no row\n{row}");
    }
    for (state, reason) in advice::reasons() {
        let named = |line: &str| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            cells.next() == Some(state.as_str())
                && cells.next().is_some_and(|cell| quoted(cell).any(|r| r == reason))
        };
        ensure!(page.lines().any(named), "docs/reference/status.md does not name {state} {reason}");
    }
    // What the hub and the engine put into a status.
    let mut sources = Vec::new();
    for place in ["engine/src/plan.rs", "engine/src/plan", "hub/src/core"] {
        match root().join(place) {
            path if path.is_dir() => files(&path, ".rs", &mut sources)?,
            path => sources.push(path),
        }
    }
    let named: BTreeSet<&str> = quoted(&page).collect();
    for source in sources.iter().filter(|path| !path.to_string_lossy().contains("tests")) {
        let text = std::fs::read_to_string(source)?;
        for part in text.split("Status::new(").skip(1) {
            let mut arguments = part.split(',').map(str::trim).skip(1);
            let reason = arguments.next().and_then(|a| a.strip_prefix('"')?.strip_suffix('"'));
            if let Some(reason) = reason {
                ensure!(
                    named.contains(reason),
                    "docs/reference/status.md does not name {reason} of {}",
                    source.display()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut documents =
        vec![root().join("README.md"), root().join("CHANGELOG.md"), root().join("deploy/README.md")];
    files(&root().join("docs"), ".md", &mut documents)?;
    for document in documents {
        let text = std::fs::read_to_string(&document)?;
        for (at, _) in text.match_indices("](") {
            let rest = &text[at + 2..];
            let link = &rest[..rest.find(')').unwrap_or(0)];
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let there = document.parent().unwrap_or(Path::new(".")).join(path);
            assert!(there.exists(), "{} links to {link}", document.display());
        }
    }
    Ok(())
}

/// Paths and tests that docs/ARCHITECTURE.md names.
#[test]
fn the_architecture_names_what_there_is() -> Result<()> {
    let page = read("docs/ARCHITECTURE.md")?;
    let mut sources = vec![];
    files(&root(), ".rs", &mut sources)?;
    let mut tests = BTreeSet::new();
    for source in sources {
        let text = std::fs::read_to_string(source)?;
        for (at, _) in text.match_indices("fn ") {
            let rest = &text[at + 3..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
            tests.insert(rest[..end].to_owned());
        }
    }
    let mut invariants = 0;
    for row in page.lines().filter(|line| line.starts_with("| I")) {
        invariants += 1;
        for name in quoted(row.rsplit(" | ").next().unwrap_or_default()) {
            assert!(tests.contains(name), "there is no test {name}");
        }
    }
    assert_eq!(invariants, 17);
    for text in quoted(&page).filter(|text| text.contains('/') && !text.contains([' ', '*', '>'])) {
        for path in braces(text) {
            assert!(root().join(&path).exists(), "there is no {path}");
        }
    }
    Ok(())
}

/// `a/{b,c}.rs` as a/b.rs and a/c.rs; names of annotations, groups and the like are no paths.
fn braces(text: &str) -> Vec<String> {
    if text.contains("lockstep.dev") || text.contains("k8s.io") {
        return vec![];
    }
    match text.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (inner, after))) => {
            inner.split(',').map(|part| format!("{before}{part}{after}")).collect()
        }
        None => vec![text.to_owned()],
    }
}
