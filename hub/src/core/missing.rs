//! Sources that are not there, and whose end nobody told: they went while no policy asked for their
//! watch, or in a rewind of which only the tombstone speaks. That is absence, and no delete (I3).

use lockstep_engine::{ClusterId, GroupKind, ObjectKey};

use super::Core;
use super::gather::NoClaim;
use super::rewind::source_key;
use crate::store::{
    Cause, Ending, PlacementRow, SourceRef, Store, StoreError, TombstoneFilter, TombstoneRow,
};

/// Tombstones of one name that are looked through for those of a source.
const RECENT: usize = 16;

impl<S: Store> Core<S> {
    /// What was kept of a source, the newest first.
    pub(super) fn kept_of(
        &mut self,
        gk: &GroupKind,
        source: &SourceRef,
    ) -> Result<Vec<TombstoneRow>, StoreError> {
        let filter = TombstoneFilter {
            cluster: Some(source.cluster),
            gk: Some(gk.clone()),
            namespace: Some(source.namespace.clone()),
            name: Some(source.name.clone()),
            ..TombstoneFilter::default()
        };
        let mut kept = self.store.tombstones(&filter, RECENT)?;
        kept.retain(|kept| kept.uid == source.uid);
        Ok(kept)
    }

    /// Was it told how the source of a placement ended? A tombstone of a rewind says that it did not
    /// end, unless the policy follows rewinds. So does one of an end that a rewind threw away: its namespace, which went
    /// with it, may be back, and nothing else would tell (I7).
    pub(super) fn end_was_told(&mut self, row: &PlacementRow) -> Result<bool, StoreError> {
        let Some(source) = row.source.clone() else { return Ok(false) };
        let follows = self.follows_rewinds(&row.policy);
        let kept = self.kept_of(&row.key.gk, &source)?;
        let Some(kept) = kept.first() else { return Ok(false) };
        Ok(match kept.cause {
            Cause::Observed | Cause::Inferred => {
                follows || !self.is_of_lost_history(source.cluster, kept.id)?
            }
            Cause::Rewound => follows,
            Cause::Lockstep { .. } | Cause::ClusterRemoved | Cause::Restore => false,
        })
    }

    /// A source that is no longer selected may be gone when the step is answered that is under way: it
    /// is noted at once, for then nothing says so any more.
    pub(super) fn note_unselected(&mut self, target: ClusterId, key: &ObjectKey) -> Result<(), StoreError> {
        let Some(mut row) = self.store.placement(target, key)?.filter(|row| row.ending.is_none()) else {
            return Ok(());
        };
        let Some(policy) = self.set.by_name(&row.policy).cloned() else { return Ok(()) };
        let source = self.names.get(&policy.spec.source_cluster).copied();
        let known = source.is_some_and(|source| self.absence(source, key).is_none());
        if known && matches!(self.claim(&policy, target, key)?, Err(NoClaim::NotSelected(..))) {
            row.ending = Some(Ending::Unselected);
            self.store.put_placement(&row)?;
        }
        Ok(())
    }

    /// Why the delete of a copy is held whose source is missing. One sentence.
    pub(super) fn source_missing(&mut self, row: &PlacementRow) -> Result<Option<String>, StoreError> {
        let (Some(Ending::SourceDeleted), Some(source)) = (row.ending, row.source.clone()) else {
            return Ok(None);
        };
        let key = source_key(&row.key.gk, &source.namespace, &source.name);
        // A row is of what a rewind lost, and was judged as such.
        if self.store.object(source.cluster, &key)?.is_some() || self.end_was_told(row)? {
            return Ok(None);
        }
        Ok(Some(format!(
            "the source object is not in {}, and nobody saw it deleted: it went while no policy watched it, or in a rewind; `lockstep approve {}` deletes the copy, a source object brings it back in step",
            self.cluster_name(source.cluster),
            row.policy
        )))
    }
}
