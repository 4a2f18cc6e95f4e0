//! Who deleted it: webhooks of API servers tell who asked, before or after the watch tells what went.

use lockstep_engine::deleters::{Ask, CLOCKS_MS, Deletion, FOLLOWS_MS, deleter, is_controller};
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, Uid};
use lockstep_wire::v1;

use super::Core;
use crate::store::{Cause, DeleterRow, Store, StoreError, TombstoneFilter, TombstoneRow};

/// How long it is kept who asked: a watch that is behind by more is behind by a relist, whose deletes have a
/// window and not a moment.
const KEPT_MS: Millis = 24 * 3_600_000;
/// Tombstones that one who asked is looked up for: a collection may be large.
const LATE: usize = 1_000;

impl<S: Store> Core<S> {
    /// Keeps who asked, and tells it to tombstones that came first.
    pub(super) fn deleters_told(
        &mut self,
        id: ClusterId,
        deleters: v1::Deleters,
        skew_ms: i64,
        now: Millis,
    ) -> Result<(), StoreError> {
        for told in deleters.deleters {
            let v1::Deleter { group, resource, namespace, name, uid, user, asked_ms } = told;
            let Some(gk) = self.kind_of_resource(id, &group, &resource) else { continue };
            let row = DeleterRow {
                cluster: id,
                key: ObjectKey::new(gk, &namespace, &name),
                uid: (!uid.is_empty()).then(|| Uid::new(&uid)),
                user,
                asked_at: asked_ms.saturating_add(skew_ms).min(now),
            };
            self.store.put_deleter(&row, now.saturating_sub(KEPT_MS))?;
            self.tell_tombstones(&row)?;
        }
        Ok(())
    }

    /// The kind of a plural in a group, which may be another than the one that lockstep keys it by.
    fn kind_of_resource(&self, id: ClusterId, group: &str, resource: &str) -> Option<GroupKind> {
        let in_group = |version: &String| version.split_once('/').map_or("", |(group, _)| group) == group;
        let served = self.clusters.get(&id)?.served.as_ref()?;
        let found = served.iter().find(|(_, kind)| {
            kind.plural == resource && (kind.group == group || kind.versions.iter().any(in_group))
        });
        found.map(|(gk, _)| gk.clone())
    }

    fn tell_tombstones(&mut self, asked: &DeleterRow) -> Result<(), StoreError> {
        let filter = TombstoneFilter {
            cluster: Some(asked.cluster),
            gk: Some(asked.key.gk.clone()),
            namespace: Some(asked.key.namespace.to_string()),
            name: (!asked.key.name.is_empty()).then(|| asked.key.name.to_string()),
            since: Some(asked.asked_at.saturating_sub(CLOCKS_MS)),
            ..TombstoneFilter::default()
        };
        for row in self.store.tombstones(&filter, LATE)? {
            // Who is known stays, unless it was a controller that did what others asked for.
            let open = row.facts.deleter.as_deref().is_none_or(is_controller);
            let by_somebody = matches!(row.cause, Cause::Observed | Cause::Inferred);
            if !open || !by_somebody {
                continue;
            }
            let found = self.who_deleted(&row, row.deleted_at)?;
            if let Some(user) = found.filter(|user| row.facts.deleter.as_ref() != Some(user)) {
                self.store.set_deleter(row.id, &user)?;
            }
        }
        Ok(())
    }

    /// Who asked for what a tombstone is of, as far as a webhook told it by now. `until`: when it was asked for
    /// at the latest.
    pub(super) fn who_deleted(
        &mut self,
        row: &TombstoneRow,
        until: Millis,
    ) -> Result<Option<String>, StoreError> {
        let asks = self.store.deleters(row.cluster, &row.key)?;
        let asks: Vec<Ask> = asks
            .into_iter()
            .map(|asked| Ask {
                uid: asked.uid.map(|uid| uid.to_string()),
                collection: asked.key.name.is_empty(),
                user: asked.user,
                at: asked.asked_at,
            })
            .collect();
        let from = row.known_until.unwrap_or_else(|| until.saturating_sub(FOLLOWS_MS));
        let deletion = Deletion { uid: row.uid.as_str(), from, until };
        Ok(deleter(deletion, &asks).map(str::to_owned))
    }
}
