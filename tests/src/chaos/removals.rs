//! Why a copy may have been deleted: what the writer and the faults took away from a source, or out of its policy.

use super::inject::History;
use super::journal::{Entry, Operation, Outcome};
use super::objects::{DOOMED, Kind, Policy};

/// Between an answer and its line in the journal, and between two clocks.
const SLACK_MS: u64 = 2_000;

/// A source object, as a copy or a tombstone names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) policy: &'a Policy,
    pub(super) uid: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl Source<'_> {
    /// Is an entry about its name at its cluster?
    fn has(&self, entry: &Entry) -> bool {
        let Self { policy, namespace, name, .. } = self;
        (entry.cluster, entry.kind) == (policy.source, policy.kind.name())
            && (entry.namespace.as_str(), entry.name.as_str()) == (*namespace, *name)
    }
}

/// Answers out of the journal and the faults.
pub(super) struct Removals<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) history: &'a History,
}

impl Removals<'_> {
    /// Everything that was done to a name, and not refused.
    fn done<'b>(&'b self, source: &'b Source<'_>) -> impl Iterator<Item = &'b Entry> {
        self.entries.iter().filter(|entry| entry.outcome != Outcome::Refused && source.has(entry))
    }

    /// Was this object out of its policy for a while, or may it have been?
    pub(super) fn unselected(&self, source: &Source<'_>) -> bool {
        self.done(source)
            .any(|entry| unselects(entry) && (entry.uid == source.uid || entry.outcome == Outcome::Unknown))
    }

    /// Has this object been absent from its source's policy, ever?
    pub(super) fn ever(&self, source: &Source<'_>) -> bool {
        let deletes = |entry: &Entry| entry.operation == Operation::Delete && entry.uid == source.uid;
        let with_namespace = self.history.namespace_deleted && source.namespace == DOOMED;
        let with_definition =
            source.policy.kind == Kind::Widget && self.history.definitions.contains(&source.policy.source);
        with_namespace || with_definition || self.unselected(source) || self.done(source).any(deletes)
    }

    /// Did the writer by itself delete or unselect this object, or one that came after it under its name, before a copy
    /// was deleted? Then nobody had to be asked.
    pub(super) fn one_by_one(&self, source: &Source<'_>, deleted_ms: u64) -> bool {
        let created = self.done(source).find(|entry| entry.uid == source.uid).map(|entry| entry.at_ms);
        // Its creation had no answer, or was thrown away and came back: any time will do.
        let created = created.unwrap_or_default();
        let removes = |entry: &Entry| {
            let within = created <= entry.at_ms && entry.at_ms <= deleted_ms + SLACK_MS;
            within && (entry.operation == Operation::Delete || unselects(entry))
        };
        self.done(source).any(removes) || self.unselected_by_rewind(source, deleted_ms)
    }

    /// A restored source may hold what it held when it was not selected, also under another uid.
    fn unselected_by_rewind(&self, source: &Source<'_>, deleted_ms: u64) -> bool {
        let rewinds = self.history.rewinds.iter();
        let mut rewinds = rewinds.filter(|rewind| rewind.cluster == source.policy.source);
        rewinds.any(|rewind| rewind.began_ms <= deleted_ms + SLACK_MS)
            && self.done(source).any(|entry| unselects(entry) && entry.at_ms <= deleted_ms)
    }
}

fn unselects(entry: &Entry) -> bool {
    matches!(entry.operation, Operation::Apply { selected: false, .. })
}
