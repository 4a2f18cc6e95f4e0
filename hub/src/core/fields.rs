//! Fields of copies that are not ours to write, or that others took (decision 0013).

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_engine::catalogue::is_container;
use lockstep_engine::ownership::{Corrected, FieldSet, Leave, Left, Taken, sentence, taken_by};
use lockstep_engine::plan::OnTracked;
use lockstep_engine::reading::Refused;
use lockstep_engine::status::State;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey};
use lockstep_policies::{CompiledPolicy, OnImmutable, Rendered, Replicas, autoscalers, is_scaled};
use lockstep_wire::v1;
use serde::Deserialize;

use super::Core;
use super::asked::Asked;
use super::gather::Claim;

use crate::store::{
    Ending, Fields, LeftRow, ManagerRow, ObjectRow, PlacementFilter, PlacementRow, Record, Store, StoreError,
};

/// Namespaces whose autoscalers are remembered: a scan goes namespace by namespace.
const NAMESPACES: usize = 64;
/// Autoscalers read from the store at a time.
const PAGE: usize = 256;

/// What autoscalers of a namespace scale, by cluster and namespace. Built from the store when it is asked for.
#[derive(Debug, Default)]
pub(super) struct Autoscaled {
    known: BTreeMap<(ClusterId, String), BTreeMap<ObjectKey, String>>,
}

impl<S: Store> Core<S> {
    /// Which fields of a copy are not ours, and why that may not be known yet.
    #[allow(clippy::type_complexity)]
    pub(super) fn leave(
        &mut self,
        policy: &CompiledPolicy,
        entry: usize,
        target: ClusterId,
        key: &ObjectKey,
    ) -> Result<(Leave, Option<(&'static str, String)>), StoreError> {
        let Some(entry) = policy.spec.resources.get(entry) else { return Ok((Leave::default(), None)) };
        let asks = is_scaled(&key.gk) && entry.ownership.replicas == Replicas::Auto;
        let scaled = asks && self.autoscaler(target, key)?.is_some();
        let waits = if asks { self.autoscalers_unknown(target, &key.namespace)? } else { None };
        Ok((entry.ownership.leave(&key.gk, scaled), waits))
    }

    /// The autoscaler that scales an object of a cluster.
    pub(super) fn autoscaler(
        &mut self,
        cluster: ClusterId,
        key: &ObjectKey,
    ) -> Result<Option<String>, StoreError> {
        let place = (cluster, key.namespace.to_string());
        if let Some(known) = self.autoscaled.known.get(&place) {
            return Ok(known.get(key).cloned());
        }
        let mut found = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let from = after.as_deref().map(|name| (key.namespace.as_ref(), name));
            let rows = self.store.objects(cluster, &autoscalers(), Some(&key.namespace), from, PAGE)?;
            // One that is being deleted scales until it is gone.
            for row in rows.iter().filter(|row| row.unseen.is_none()) {
                if let Some(scaled) = scaled_by(row) {
                    found.insert(scaled, row.key.name.to_string());
                }
            }
            if rows.len() < PAGE {
                break;
            }
            after = rows.last().map(|row| row.key.name.to_string());
        }
        let name = found.get(key).cloned();
        if self.autoscaled.known.len() >= NAMESPACES {
            self.autoscaled.known.clear();
        }
        self.autoscaled.known.insert(place, found);
        Ok(name)
    }

    /// While they are listed, an autoscaler may be there that is not known. Where they cannot be watched, or are not
    /// served, what is known holds.
    #[allow(clippy::type_complexity)]
    fn autoscalers_unknown(
        &mut self,
        target: ClusterId,
        namespace: &str,
    ) -> Result<Option<(&'static str, String)>, StoreError> {
        let gk = autoscalers();
        let Some(cluster) = self.clusters.get(&target).filter(|cluster| cluster.serves(&gk) == Some(true))
        else {
            return Ok(None);
        };
        let session = cluster.session.as_ref();
        let reading = session.and_then(|session| session.reading.as_ref());
        let hidden = reading.is_some_and(|reading| !reading.allows(&gk, namespace, ""));
        let key = ObjectKey::new(gk, namespace, "");
        // One is there, and what it scales may not be read.
        if hidden && !self.store.objects(target, &key.gk, Some(namespace), None, 1)?.is_empty() {
            let sentence = Refused::at(&key);
            return Ok(Some((
                "NotAccepted",
                format!("whether an autoscaler scales it is not known: {sentence}"),
            )));
        }
        let Some((reason, sentence)) = self.absence(target, &key) else { return Ok(None) };
        let waits = matches!(reason, "Listing" | "NotWatched");
        Ok(waits.then(|| (reason, format!("whether an autoscaler scales it is not known yet: {sentence}"))))
    }

    /// What an autoscaler that was told of scales now, and did before: to be planned.
    pub(super) fn scaling_told(
        &mut self,
        id: ClusterId,
        before: Option<&ObjectRow>,
        key: &ObjectKey,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.autoscaled.known.remove(&(id, key.namespace.to_string()));
        let row = self.store.object(id, key)?;
        let scaled = [before, row.as_ref()].map(|row| row.and_then(scaled_by));
        let mut keys: Vec<ObjectKey> = scaled.into_iter().flatten().collect();
        keys.dedup();
        keys.into_iter().try_for_each(|key| self.plan(id, &key, None, now))
    }

    /// The watch of autoscalers has news: who waited for them is looked at again.
    pub(super) fn autoscalers_told(&mut self, id: ClusterId) {
        for gk in ["Deployment", "StatefulSet", "ReplicaSet"]
            .map(|kind| GroupKind::new("apps", kind))
            .into_iter()
            .chain([GroupKind::new("", "ReplicationController")])
        {
            let (target, gk, states) = (Some(id), Some(gk), vec![State::Unknown]);
            self.scan_placements(PlacementFilter { target, gk, states, ..PlacementFilter::default() });
        }
    }

    /// Does the policy have a copy made anew where a field of it cannot be changed?
    pub(super) fn recreates(&self, claim: &Claim, key: &ObjectKey) -> bool {
        claim.ownership().on_immutable == OnImmutable::Recreate && !is_container(&key.gk)
    }

    /// Is the copy on its way to be made anew, for this very body?
    pub(super) fn is_made_anew(&self, row: &PlacementRow, claim: &Claim, rendered: &Rendered) -> bool {
        row.ending == Some(Ending::Recreate)
            && self.recreates(claim, &row.key)
            && row.record.as_ref().is_some_and(|record| !record.adopted)
            && row.fields.immutable == Some(self.desired_digest(claim, rendered))
    }

    /// Does it matter that a tool tracks the copy? Once nothing claims it any more, what the policy that it is of says of
    /// objects of the kind counts.
    pub(super) fn on_tracked(&self, row: &PlacementRow, asked: &Asked) -> OnTracked {
        if let Asked::Claimed { claim, .. } = asked {
            return claim.ownership().tracked;
        }
        let ignores = |policy: &Arc<CompiledPolicy>| {
            policy.resources_for(&row.key.gk).any(|(_, entry)| entry.ownership.tracked == OnTracked::Ignore)
        };
        if self.set.by_name(&row.policy).is_some_and(ignores) {
            OnTracked::Ignore
        } else {
            OnTracked::Conflict
        }
    }

    /// Do others take fields of it again and again?
    pub(super) fn is_contested(&self, row: &PlacementRow) -> bool {
        let corrected = row.fields.corrected.as_ref();
        corrected.is_some_and(|corrected| corrected.is_contested(row.observed_generation))
    }

    /// Fields that our last write owned, and others own now.
    pub(super) fn taken(&self, row: &PlacementRow, object: Option<&ObjectRow>) -> Vec<Taken> {
        let Some(record) = &row.record else { return Vec::new() };
        let managers = object.and_then(|object| object.managed.as_ref()).map(|managed| &managed.managers);
        let Some(managers) = managers.filter(|managers| !managers.is_empty()) else { return Vec::new() };
        let Ok(ours) = FieldSet::parse(&record.field_set) else { return Vec::new() };
        let taken = |ManagerRow { name, operation, time, fields, .. }: &ManagerRow| {
            taken_by(&ours, name, operation, time, fields)
        };
        managers.iter().filter_map(taken).collect()
    }
}

/// What an autoscaler scales.
fn scaled_by(row: &ObjectRow) -> Option<ObjectKey> {
    #[derive(Deserialize)]
    struct Object {
        spec: Spec,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        scale_target_ref: Reference,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Reference {
        #[serde(default)]
        api_version: String,
        kind: String,
        name: String,
    }
    let Object { spec } = serde_json::from_slice(row.body.as_deref()?).ok()?;
    let Reference { api_version, kind, name } = spec.scale_target_ref;
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    Some(ObjectKey::new(GroupKind::new(group, &kind), &row.key.namespace, &name))
}

impl Fields {
    /// What our last write left and is to be reported, for people.
    pub(super) fn reported(&self) -> Option<String> {
        let reported = self.left.iter().map(|row| &row.left).filter(|left| left.reported);
        let taken: Vec<Taken> = reported
            .map(|Left { path, manager, operation, time, .. }| Taken {
                manager: manager.clone(),
                operation: operation.clone(),
                time: time.clone(),
                fields: vec![path.clone()],
            })
            .collect();
        (!taken.is_empty()).then(|| sentence(&taken))
    }

    /// Does nobody own some of what was left, by what was seen since our last write?
    pub(super) fn is_free(&self, record: Option<&Record>, object: Option<&ObjectRow>) -> bool {
        let (Some(record), Some(object)) = (record, object) else { return false };
        let Some(managed) = object.managed.as_ref() else { return false };
        if record.resource_version == object.resource_version {
            return false;
        }
        let holds = |left: &Left, manager: &ManagerRow| {
            manager.name == left.manager
                && manager.operation == left.operation
                && (manager.truncated || manager.fields.contains(&left.path))
        };
        self.left.iter().any(|row| !managed.managers.iter().any(|manager| holds(&row.left, manager)))
    }

    /// Paths that were ours, and may be taken back where they are asked for.
    pub(super) fn reclaim(&self) -> Vec<String> {
        self.left.iter().filter(|row| row.ours).map(|row| row.left.path.clone()).collect()
    }

    /// What a write of ours came to: what it left, and what it set back.
    pub(super) fn written(
        &mut self,
        record: Option<&Record>,
        left: Vec<v1::Left>,
        drift: Option<Vec<Taken>>,
        generation: u64,
        now: Millis,
    ) {
        let ours = record.and_then(|record| FieldSet::parse(&record.field_set).ok()).unwrap_or_default();
        self.creating = None;
        let before = std::mem::take(&mut self.left);
        let row = |left: v1::Left| {
            let v1::Left { path, manager, reported } = left;
            let v1::Manager { name: manager, operation, time, .. } = manager.unwrap_or_default();
            let ours =
                ours.contains(&path) || before.iter().any(|before| before.ours && before.left.path == path);
            LeftRow { left: Left { path, manager, operation, time, reported }, ours }
        };
        self.left = left.into_iter().map(row).collect();
        let contested = self.corrected.as_ref().is_some_and(|corrected| corrected.is_contested(generation));
        self.corrected = match drift {
            // Written without force: the others have let go.
            _ if contested => self.corrected.take().map(Corrected::settled),
            Some(by) => Some(Corrected::again(self.corrected.take(), by, generation, now)),
            None => self.corrected.take(),
        };
    }
}
