//! From the texts of files to the running set: a bad file never changes it (I10).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codes;
use crate::finding::{Finding, Place, Severity};
use crate::parse::{Kind, Known, parse_file};
use crate::policy::PolicyName;
use crate::reader::{Reader, shown};
use crate::set::{GoodFile, PolicySet};

/// A policy file as the shell read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedFile {
    /// The file, as findings name it.
    pub path: String,
    /// Its text, or why it could not be read.
    pub text: Result<String, String>,
}

/// How the running set differs from the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Change {
    /// The policy is new.
    Added,
    /// It says something else.
    Changed,
    /// It is gone.
    Removed,
}

/// One policy that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Of which kind.
    pub kind: Kind,
    /// Which.
    pub name: PolicyName,
    /// How.
    pub change: Change,
}

/// What loading gave.
#[derive(Clone, Debug)]
pub struct LoadOutcome {
    /// The set that is in force from now on.
    pub set: PolicySet,
    /// Everything that is wrong, by file and line.
    pub findings: Vec<Finding>,
    /// How the set differs from the previous one, by name.
    pub changed: Vec<PolicyChange>,
}

impl LoadOutcome {
    /// Did every file load? Where not, nothing may be concluded from the absence of a policy (I3).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}

/// Which version of a file is in force.
enum Version {
    /// The text as it is now.
    New(GoodFile),
    /// The last good one.
    LastGood(GoodFile),
}

impl Version {
    fn file(&self) -> &GoodFile {
        match self {
            Self::New(file) | Self::LastGood(file) => file,
        }
    }
}

/// Loads all files. A file with an error keeps its last good version, or contributes nothing if it
/// never had one; a file that is not listed is gone, and so are its policies. Where two files
/// define one name, the file that already had it keeps it; else the first path has it.
///
/// Call it only with a complete listing: a directory that cannot be read is not an empty one.
#[must_use]
pub fn load(previous: &PolicySet, files: &[LoadedFile], known: Known<'_>) -> LoadOutcome {
    let mut findings = Vec::new();
    let mut versions: BTreeMap<String, Version> = BTreeMap::new();
    for LoadedFile { path, text } in files {
        let last_good = previous.files.get(path);
        let new = read(path, text.as_deref(), last_good, known, &mut findings);
        let version = new.map(Version::New).or_else(|| last_good.cloned().map(Version::LastGood));
        if let Some(version) = version {
            versions.insert(path.clone(), version);
        }
    }
    // Each round takes at least one new version out, so there are at most as many as files.
    while settle_names(previous, &mut versions, &mut findings) {}
    let files = versions
        .into_iter()
        .map(|(path, version)| match version {
            Version::New(file) | Version::LastGood(file) => (path, file),
        })
        .collect();
    let set = PolicySet::build(files);
    findings.sort_by(|a, b| a.order().cmp(&b.order()));
    LoadOutcome { changed: changes(previous, &set), set, findings }
}

impl PolicySet {
    /// The set out of the texts that [`PolicySet::last_good`] gave before a restart. A text that
    /// this version of lockstep no longer takes contributes nothing; it is among the findings.
    #[must_use]
    pub fn restore<'a>(last_good: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<Finding>) {
        let files: Vec<_> = last_good
            .into_iter()
            .map(|(path, text)| LoadedFile { path: path.to_owned(), text: Ok(text.to_owned()) })
            .collect();
        // Clusters are not checked: the text was taken when they were known.
        let outcome = load(&Self::default(), &files, None);
        (outcome.set, outcome.findings)
    }
}

fn read(
    path: &str,
    text: Result<&str, &String>,
    last_good: Option<&GoodFile>,
    known: Known<'_>,
    findings: &mut Vec<Finding>,
) -> Option<GoodFile> {
    let text = match text {
        Ok(text) => text,
        Err(why) => {
            let mut reader = Reader::new(path);
            let message = format!("the file cannot be read: {}", shown(why));
            let remedy = "mend its permissions or remove it; the last good version stays in force";
            reader.error(codes::UNREADABLE, Place::default(), "", message, remedy);
            findings.append(&mut reader.findings);
            return None;
        }
    };
    let mut parsed = parse_file(path, text, known);
    let good = parsed.findings.iter().all(|finding| finding.severity != Severity::Error);
    findings.append(&mut parsed.findings);
    // The same text again shares its memory.
    let text = match last_good {
        Some(file) if file.text.as_ref() == text => file.text.clone(),
        _ => Arc::from(text),
    };
    good.then_some(GoodFile { text, documents: parsed.documents })
}

/// Takes every new version that claims another file's name out of force. True when there was one.
fn settle_names(
    previous: &PolicySet,
    versions: &mut BTreeMap<String, Version>,
    findings: &mut Vec<Finding>,
) -> bool {
    let mut losers: BTreeSet<String> = BTreeSet::new();
    for ((kind, name), claims) in claims(versions) {
        if claims.len() < 2 {
            continue;
        }
        // At most one file had the name before: the previous set was free of duplicates.
        let had = |path: &str| previous.files.get(path).is_some_and(|file| file.defines(kind, &name));
        let Some((owner, defined)) = claims.iter().find(|(path, _)| had(path)).or_else(|| claims.first())
        else {
            continue;
        };
        for (path, place) in claims.iter().filter(|(path, _)| path != owner) {
            let mut reader = Reader::new(path);
            let message = format!("policy {name} is already defined at {owner}:{}", defined.line);
            let remedy = "give one of them another name, or remove one";
            reader.error(codes::DUPLICATE_POLICY, *place, "metadata.name", message, remedy);
            findings.append(&mut reader.findings);
            losers.insert(path.clone());
        }
    }
    for path in &losers {
        let was_new = matches!(versions.remove(path), Some(Version::New(_)));
        if let Some(last_good) = previous.files.get(path).filter(|_| was_new) {
            versions.insert(path.clone(), Version::LastGood(last_good.clone()));
        }
    }
    !losers.is_empty()
}

type Claims = BTreeMap<(Kind, PolicyName), Vec<(String, Place)>>;

fn claims(versions: &BTreeMap<String, Version>) -> Claims {
    let mut claims = Claims::new();
    for (path, version) in versions {
        for (kind, name, place) in version.file().documents.names() {
            claims.entry((kind, name.clone())).or_default().push((path.clone(), place));
        }
    }
    claims
}

fn changes(previous: &PolicySet, next: &PolicySet) -> Vec<PolicyChange> {
    let digests = |set: &PolicySet| set.policies().map(|p| (p.name.clone(), p.digest)).collect();
    let specs = |set: &PolicySet| set.archive().map(|p| (p.name.clone(), p.spec.clone())).collect();
    let mut changes = differences(Kind::Sync, &digests(previous), &digests(next));
    changes.extend(differences(Kind::Archive, &specs(previous), &specs(next)));
    changes.sort();
    changes
}

fn differences<T: PartialEq>(
    kind: Kind,
    before: &BTreeMap<PolicyName, T>,
    after: &BTreeMap<PolicyName, T>,
) -> Vec<PolicyChange> {
    let left = before.iter().filter_map(|(name, was)| match after.get(name) {
        None => Some((name, Change::Removed)),
        Some(is) => (is != was).then_some((name, Change::Changed)),
    });
    let came = after.keys().filter(|name| !before.contains_key(*name)).map(|name| (name, Change::Added));
    left.chain(came).map(|(name, change)| PolicyChange { kind, name: name.clone(), change }).collect()
}
