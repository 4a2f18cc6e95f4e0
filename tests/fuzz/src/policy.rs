//! Policy files.

use lockstep_engine::GroupKind;
use lockstep_policies::{CODES, Change, Finding, LoadOutcome, LoadedFile, PolicySet, Severity, load};

use crate::secrecy::CANARY;

const PATH: &str = "a.yaml";
/// Longest message or remedy, bytes. Parts of the file in them are short.
const LONGEST: usize = 2_000;
/// The code of what is no YAML.
const NOT_YAML: &str = "LS0102";
/// Another version of the file, which is good.
const GOOD: &str = "
apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: { name: good }
spec: { sourceCluster: a, targetClusters: [b], resources: [{ kind: ConfigMap }] }
";

/// The text of a file.
///
/// - Every finding names a place inside the file, a code that has a page, and a remedy, on one line each.
/// - A file with an error leaves nothing of itself in the set, and its last good version where it was (I10).
/// - A file without one compiles, and its text compiles again to the same policies.
/// - What the YAML reader says of a file quotes nothing of it (I13).
pub fn policy_yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let empty = PolicySet::default();
    let outcome = loaded(&empty, text);
    for finding in &outcome.findings {
        sound(finding, text);
    }
    if outcome.is_clean() {
        taken(&outcome, text);
    } else {
        assert!(outcome.set.is_empty() && outcome.changed.is_empty(), "{:?}", outcome.findings);
        assert_eq!(outcome.set.last_good().count(), 0);
    }
    let good = loaded(&empty, GOOD);
    assert!(good.is_clean());
    let after = loaded(&good.set, text);
    if !after.is_clean() {
        assert_eq!(after.changed, [], "a bad file changed the set");
        assert_eq!(digests(&after.set), digests(&good.set));
        assert_eq!(after.set.last_good().collect::<Vec<_>>(), [(PATH, GOOD)]);
    }
}

fn loaded(previous: &PolicySet, text: &str) -> LoadOutcome {
    let file = LoadedFile { path: PATH.to_owned(), text: Ok(text.to_owned()) };
    load(previous, &[file], None)
}

fn digests(set: &PolicySet) -> Vec<(String, [u8; 32])> {
    set.policies().map(|policy| (policy.name.to_string(), policy.digest)).collect()
}

fn sound(finding: &Finding, text: &str) {
    assert!(CODES.iter().any(|(code, _)| *code == finding.code), "{finding:?}");
    assert_eq!(finding.file, PATH);
    for said in [&finding.message, &finding.remedy] {
        assert!(!said.is_empty() && said.len() <= LONGEST, "{finding:?}");
        assert!(!said.chars().any(char::is_control), "{finding:?}");
    }
    if finding.code == NOT_YAML {
        assert!(!finding.message.contains(CANARY), "{finding:?}");
    }
    let line = usize::try_from(finding.place.line).expect("a line");
    let column = usize::try_from(finding.place.column).expect("a column");
    // Line 0: the file as a whole. The place after the last character is one.
    if line > 0 {
        let lines = lines(text);
        assert!(line <= lines.len(), "{finding:?} in {} lines", lines.len());
        let length = lines[line - 1].chars().count();
        assert!((1..=length + 1).contains(&column), "{finding:?} in a line of {length} characters");
    }
}

/// As YAML counts them: CR ends a line as LF does.
fn lines(text: &str) -> Vec<String> {
    text.replace("\r\n", "\n").replace('\r', "\n").split('\n').map(str::to_owned).collect()
}

fn taken(outcome: &LoadOutcome, text: &str) {
    let set = &outcome.set;
    assert!(!set.is_empty(), "a good file without a policy");
    assert!(outcome.changed.iter().all(|change| change.change == Change::Added));
    assert_eq!(outcome.changed.len(), set.len());
    assert_eq!(set.last_good().collect::<Vec<_>>(), [(PATH, text)]);
    let again = loaded(set, text);
    assert_eq!(again.changed, [], "the same text is a change");
    let (restored, findings) = PolicySet::restore(set.last_good());
    assert!(findings.iter().all(|finding| finding.severity != Severity::Error), "{findings:?}");
    assert_eq!(digests(&restored), digests(set));
    let config_maps = GroupKind::new("", "ConfigMap");
    for cluster in set.clusters() {
        for interest in set.interest(cluster.as_str(), [(&config_maps, true)]) {
            assert_eq!(interest.watches(), interest.watches());
        }
    }
}
