//! Deltas into the store, in the transaction that also moves the checkpoint (I1, I2), and from
//! there to the placements that they concern.

use lockstep_engine::acts::Span;
use lockstep_engine::catalogue::{PodSecurity, is_container};
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::status::State;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion, Uid};
use lockstep_policies::autoscalers;
use lockstep_wire::HubEffect;
use lockstep_wire::v1::{self, item::Change};

use super::acts::{Turn, Turned, ended_by};
use super::containers::{definitions, namespaces};
use super::rewind::REWIND_SUSPECTED;
use super::state::SessionCommand;
use super::tombstone::{End, state_before};
use super::{AfterCommit, Core};
use crate::store::{
    Cause, ManagedRow, ManagerRow, ObjectRow, Owned, Phase, PlacementFilter, Store, StoreError,
};

impl<S: Store> Core<S> {
    pub(super) fn message(
        &mut self,
        id: ClusterId,
        session: u64,
        message: v1::AgentMessage,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        let Some(live) = cluster
            .session
            .as_mut()
            .filter(|live| live.number == session || !guard::on(Guard::FencedSession))
        else {
            return Ok(());
        };
        match live.stream.handle(message) {
            Ok(Some(HubEffect::Commit { batch, .. })) => self.batch(id, session, batch, now),
            Ok(Some(HubEffect::Outcome(outcome))) => self.outcome(id, outcome, now),
            Ok(Some(HubEffect::Served(served))) => self.served(id, served, now),
            Ok(Some(HubEffect::Heartbeat(beat))) => {
                // A message on its way only makes the difference larger: the smallest is nearest.
                live.skew_ms = live.skew_ms.min(now.saturating_sub(beat.clock_ms));
                let counter = beat.lease_counter;
                let (name, skew) = (cluster.row.name.to_string(), live.skew_ms.saturating_neg());
                self.told(&name, |told| {
                    told.clock_skew_ms = Some(skew);
                    told.queued_items = Some(beat.queued_items);
                });
                self.lease_told(id, counter, now)
            }
            Ok(Some(HubEffect::Deleters(deleters))) => {
                let skew_ms = live.skew_ms;
                self.deleters_told(id, deleters, skew_ms, now)
            }
            Ok(Some(HubEffect::Send(message))) => {
                self.after.push(AfterCommit::Send(id, session, SessionCommand::Message(Box::new(message))));
                Ok(())
            }
            Ok(Some(HubEffect::Unknown)) => {
                tracing::warn!(cluster = %cluster.row.name, "the agent sent a kind of message that this hub does not know; it is ignored, upgrade the hub");
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                self.protocol_error(id, session, &error.to_string());
                Ok(())
            }
        }
    }

    fn protocol_error(&mut self, id: ClusterId, session: u64, what: &str) {
        tracing::warn!(cluster = self.cluster_name(id), "protocol error: {what}");
        let refused = v1::Refused {
            code: "LS0208".to_owned(),
            message: format!("protocol error: {what}"),
            remedy: "bring agent and hub to the same version".to_owned(),
            retry_after_ms: 1000,
        };
        self.after.push(AfterCommit::Send(id, session, SessionCommand::Close(refused)));
    }

    fn batch(
        &mut self,
        id: ClusterId,
        session: u64,
        batch: v1::Batch,
        now: Millis,
    ) -> Result<(), StoreError> {
        let sequence = batch.sequence;
        for section in batch.sections {
            self.section(id, section, now)?;
        }
        self.counts.batches += 1;
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        cluster.row.committed = sequence;
        self.store.put_cluster(&cluster.row)?;
        // The ack leaves after the commit (I1).
        let ack = cluster.session.as_mut().and_then(|live| live.stream.committed(sequence));
        if let Some(ack) = ack {
            let ack = SessionCommand::Message(Box::new(ack));
            if guard::on(Guard::AckAfterCommit) {
                self.after.push(AfterCommit::Send(id, session, ack));
            } else {
                self.send_to(id, session, ack);
            }
        }
        Ok(())
    }

    fn section(&mut self, id: ClusterId, section: v1::Section, now: Millis) -> Result<(), StoreError> {
        let v1::Section { watch, epoch, items, checkpoint, status, census } = section;
        let Some(cluster) = self.clusters.get(&id) else { return Ok(()) };
        let skew = cluster.session.as_ref().map_or(0, |session| session.skew_ms);
        // A watch that was stopped meanwhile: its deltas are of no use any more.
        let Some(gk) = cluster.watches.get(&watch).map(|w| w.row.gk.clone()) else { return Ok(()) };
        // A watch that is no longer live is not relied on for what comes with that news; one that
        // becomes live is, once all that comes before is here.
        let live = status.as_ref().is_some_and(|status| phase(status.phase()) == Phase::Live);
        if let Some(watch) = self.clusters.get_mut(&id).and_then(|c| c.watches.get_mut(&watch))
            && status.is_some()
            && !live
            && guard::on(Guard::FailingBeforeItems)
        {
            watch.told = false;
        }
        if status.as_ref().is_some_and(|status| status.reason == REWIND_SUSPECTED) {
            self.rewind_told(id, watch, now)?;
        }
        for item in items {
            self.counts.deltas += 1;
            self.item(id, watch, &gk, item, skew, now)?;
        }
        let (number, news) = (watch, status.is_some());
        let Some(watch) = self.clusters.get_mut(&id).and_then(|c| c.watches.get_mut(&watch)) else {
            return Ok(());
        };
        let was_live = watch.is_live();
        let row = &mut watch.row;
        row.epoch = epoch;
        row.updated_at = now;
        let moved = !checkpoint.is_empty();
        if moved {
            row.checkpoint = ResourceVersion::new(&checkpoint);
        }
        if let Some(status) = status {
            let phase = phase(status.phase());
            // Why it fails may change; since when it is not known does not.
            if row.phase != phase {
                row.since = now;
            }
            row.phase = phase;
            row.reason = status.reason;
            row.message = status.message;
            row.api_version = status.api_version;
            row.interest = status.interest;
            watch.told = true;
            // The list that followed a rewind is here to its end.
            row.rewound &= !live;
        }
        // A status alone proves nothing: a server also opens a watch that it then says is too old.
        if row.phase == Phase::Live && watch.told && moved {
            row.live_at = Some(now);
        }
        self.store.put_watch(&watch.row)?;
        if !was_live && watch.is_live() {
            self.became_live(id, &gk);
        }
        if news && gk == autoscalers() {
            self.autoscalers_told(id);
        }
        if news && is_container(&gk) {
            // Deletes that had to wait for what it tells.
            let states = vec![State::Pending, State::Orphaned];
            self.scan_placements(PlacementFilter { source: Some(id), states, ..PlacementFilter::default() });
        }
        // The checkpoint of a list may come before the news that its watch is live, and the next one long after.
        if moved || !was_live {
            self.ask_for_echoes(id, number);
        }
        if !census.is_empty() {
            self.census(id, number, &census)?;
        }
        self.settle_rewind(id)
    }

    /// What could not be decided while the watch was not live can be now.
    fn became_live(&mut self, id: ClusterId, gk: &GroupKind) {
        tracing::debug!(cluster = self.cluster_name(id), kind = %gk, "watch is live");
        let waiting = super::scan::WAITING.to_vec();
        let filter = PlacementFilter { gk: Some(gk.clone()), states: waiting, ..PlacementFilter::default() };
        self.scan_placements(PlacementFilter { target: Some(id), ..filter.clone() });
        self.scan_placements(PlacementFilter { source: Some(id), ..filter.clone() });
        // Policies that came to this source lately have placements that still name the former one.
        let Some(name) = self.clusters.get(&id).map(|c| c.row.name.clone()) else { return };
        let set = self.set.clone();
        for policy in set.for_source(name.as_str(), gk) {
            let policy = Some(policy.name.as_str().to_owned());
            self.scan_placements(PlacementFilter { policy, ..filter.clone() });
        }
    }

    fn item(
        &mut self,
        id: ClusterId,
        watch: u32,
        gk: &GroupKind,
        item: v1::Item,
        skew_ms: i64,
        now: Millis,
    ) -> Result<(), StoreError> {
        let v1::Item { namespace, name, uid, resource_version, observed_ms, change, deleting_since } = item;
        let key = ObjectKey::new(gk.clone(), &namespace, &name);
        let observed_at = observed_ms.saturating_add(skew_ms);
        let scales = *gk == autoscalers();
        let scaler = if scales { self.store.object(id, &key)? } else { None };
        let lived = if *gk == namespaces() { self.alive(id, &key)? } else { None };
        match change {
            Some(Change::Upsert(upsert)) => {
                let before = self.store.object(id, &key)?;
                let v1::Upsert { body, left: _, mut managed, deleting, pod_security } = upsert;
                if self.is_stale_echo(id, &key, &resource_version) {
                    let seen = ResourceVersion::new(&resource_version).ordinal();
                    if before.as_ref().is_some_and(|before| before.resource_version.ordinal() >= seen) {
                        return Ok(());
                    }
                    // An object of others, with marks of a create that were taken back since.
                    managed = None;
                }
                if self.is_rewound(id, watch) {
                    let version = ResourceVersion::new(&resource_version);
                    self.seen_after_rewind(id, before.as_ref(), &key, &uid, &version, now)?;
                }
                let is = Some((uid.as_str(), deleting));
                // After a rewind versions begin anew: of an end that shows only now they say nothing.
                let version = if self.is_rewound(id, watch) { "" } else { &resource_version };
                self.container_told(id, &key, before.as_ref(), is, version, observed_at)?;
                if is_container(&key.gk) {
                    let to = Turned::There { version: ResourceVersion::new(version), deleting };
                    let (before, since) = (before.as_ref(), deleting_since.as_str());
                    self.turned(id, &Turn { watch, key: &key, before, uid: &uid, to, since }, now)?;
                }
                // A uid that changed under one name is a delete and a create (I5).
                let other = |row: &ObjectRow| row.uid.as_str() != uid && guard::on(Guard::UidChangeIsDelete);
                if let Some(before) = before.clone().filter(|row| other(row) && row.body.is_some()) {
                    let ended = ended_by(&before, version);
                    self.entomb_once(before, Cause::Inferred, None, ended, now)?;
                }
                let lingers = before.filter(|row| deleting && row.uid.as_str() == uid);
                let field_set = managed.as_ref().map(|managed| managed.field_set.clone()).unwrap_or_default();
                let row = ObjectRow {
                    cluster: id,
                    key: key.clone(),
                    watch,
                    uid: Uid::new(&uid),
                    resource_version: ResourceVersion::new(&resource_version),
                    body: (!body.is_empty()).then_some(body),
                    managed: managed.map(managed_row),
                    deleting,
                    pod_security,
                    before: lingers.as_ref().and_then(state_before),
                    observed_at,
                    unseen: None,
                };
                self.store.put_object(&row)?;
                if let Some(managed) = &row.managed {
                    self.recover(&row, managed, field_set, now)?;
                }
            }
            // Seen in a history that a restore threw away, and told when the hub knew of that: what the list shows counts.
            Some(Change::Delete(delete)) if self.is_rewound(id, watch) && !is_container(gk) => {
                let row = self.store.object(id, &key)?.filter(|row| row.uid.as_str() == uid);
                if let Some(row) = row.filter(|row| row.body.is_some() && !delete.body.is_empty()) {
                    self.store.put_object(&ObjectRow { body: Some(delete.body), deleting: false, ..row })?;
                }
                self.unseen(id, &key, &uid, now)?;
            }
            Some(Change::Delete(delete)) => {
                let cause = if delete.inferred { Cause::Inferred } else { Cause::Observed };
                let row = self.store.object(id, &key)?;
                self.container_told(id, &key, row.as_ref(), None, &resource_version, observed_at)?;
                let at = ResourceVersion::new(&resource_version);
                if is_container(&key.gk) {
                    let by = if delete.inferred { ResourceVersion::new(&delete.gone_by) } else { at.clone() };
                    let to = Turned::Gone { by: by.ordinal() };
                    let (before, since) = (row.as_ref(), deleting_since.as_str());
                    self.turned(id, &Turn { watch, key: &key, before, uid: &uid, to, since }, now)?;
                }
                let had = row.is_some();
                let row = self.without_elder(id, watch, row, &uid, &resource_version, now)?;
                let elder_went = had && row.is_none();
                // A row of another uid is a younger object that our own write told us of: watches
                // deliver in order, so this is its predecessor, which is kept all the same.
                let same = row.as_ref().is_some_and(|row| row.uid.as_str() == uid || uid.is_empty());
                let last = ObjectRow {
                    cluster: id,
                    key: key.clone(),
                    watch,
                    uid: Uid::new(&uid),
                    resource_version: ResourceVersion::new(&resource_version),
                    body: None,
                    managed: None,
                    deleting: true,
                    pod_security: PodSecurity::new(),
                    before: None,
                    observed_at,
                    unseen: None,
                };
                let last = row.filter(|_| same).unwrap_or(last);
                if last.body.is_some() || last.before.is_some() || !delete.body.is_empty() {
                    let rewound = last.unseen.is_some() || self.is_rewound(id, watch);
                    let ended =
                        if delete.inferred { ended_by(&last, &delete.gone_by) } else { Span::at(&at) };
                    let ended = ended.filter(|_| !rewound);
                    let end = End { body: delete.body, version: resource_version, managers: delete.managers };
                    self.entomb_once(last, cause, Some(end), ended, now)?;
                }
                if !same && !elder_went {
                    return Ok(());
                }
                self.store.delete_object(id, &key)?;
                self.clear_echo(id, &key);
            }
            Some(Change::Undecodable(undecodable)) => {
                tracing::warn!(cluster = self.cluster_name(id), object = %key, "not decodable: {}", undecodable.error);
                return Ok(());
            }
            Some(Change::Unseen(_)) => self.unseen(id, &key, &uid, now)?,
            None => return Ok(()),
        }
        if key.gk == definitions() {
            self.definition_changed(id, &key);
        }
        if *gk == namespaces() && self.alive(id, &key)? != lived {
            self.namespace_changed(id);
        }
        if scales {
            self.scaling_told(id, scaler.as_ref(), &key, now)?;
        }
        self.concerns(id, &key, observed_at, now)
    }

    /// What is there of a name: its uid, and whether it is being deleted.
    fn alive(&mut self, id: ClusterId, key: &ObjectKey) -> Result<Option<(Uid, bool)>, StoreError> {
        Ok(self.store.object(id, key)?.map(|row| (row.uid, row.deleting)))
    }

    /// Of several lives under one name an agent tells only what nothing else says: the end of the last.
    /// At that resourceVersion nothing had the name, so whatever had it before is gone, too (I5).
    fn without_elder(
        &mut self,
        id: ClusterId,
        watch: u32,
        row: Option<ObjectRow>,
        uid: &str,
        version: &str,
        now: Millis,
    ) -> Result<Option<ObjectRow>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        let (ended, had) = (ResourceVersion::new(version).ordinal(), row.resource_version.ordinal());
        let is_elder = row.uid.as_str() != uid && had.is_some() && had < ended;
        // Of two histories versions say nothing.
        if !is_elder || !guard::on(Guard::ElderGoes) || row.unseen.is_some() || self.is_rewound(id, watch) {
            return Ok(Some(row));
        }
        if row.body.is_some() {
            let ended = ended_by(&row, version);
            self.entomb_once(row, Cause::Inferred, None, ended, now)?;
        }
        Ok(None)
    }

    /// Plans every placement that an object may matter for: as a source, and as a copy.
    pub(super) fn concerns(
        &mut self,
        id: ClusterId,
        key: &ObjectKey,
        seen: Millis,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Some(name) = self.clusters.get(&id).map(|c| c.row.name.clone()) else { return Ok(()) };
        let set = self.set.clone();
        let mut targets = std::collections::BTreeSet::new();
        for policy in set.for_source(name.as_str(), &key.gk) {
            targets.extend(
                policy.spec.target_clusters.iter().filter_map(|target| self.names.get(target).copied()),
            );
        }
        for target in targets {
            self.plan(target, key, Some(seen), now)?;
        }
        self.plan(id, key, None, now)
    }

    fn is_rewound(&self, id: ClusterId, watch: u32) -> bool {
        self.clusters.get(&id).and_then(|cluster| cluster.watches.get(&watch)).is_some_and(|w| w.row.rewound)
    }

    /// An observation that is older than our own last write of that key: its echo is still to come.
    fn is_stale_echo(&mut self, id: ClusterId, key: &ObjectKey, resource_version: &str) -> bool {
        let Some(cluster) = self.clusters.get_mut(&id) else { return false };
        let Some(expected) = cluster.echoes.get(key) else { return false };
        let seen = ResourceVersion::new(resource_version);
        let older = match (seen.ordinal(), expected.ordinal()) {
            (Some(seen), Some(expected)) => seen < expected && guard::on(Guard::EchoOrder),
            _ => false,
        };
        if !older {
            cluster.echoes.remove(key);
        }
        older
    }

    fn clear_echo(&mut self, id: ClusterId, key: &ObjectKey) {
        if let Some(cluster) = self.clusters.get_mut(&id) {
            cluster.echoes.remove(key);
        }
    }
}

fn phase(phase: v1::WatchPhase) -> Phase {
    match phase {
        v1::WatchPhase::Unspecified | v1::WatchPhase::Pending => Phase::Pending,
        v1::WatchPhase::Listing => Phase::Listing,
        v1::WatchPhase::Live => Phase::Live,
        v1::WatchPhase::Failing => Phase::Failing,
    }
}

fn managed_row(managed: v1::Managed) -> ManagedRow {
    let owned = match (managed.owned(), <[u8; 16]>::try_from(managed.owned_digest.as_ref())) {
        (v1::OwnedState::Digest, Ok(digest)) => Owned::Digest(digest),
        (v1::OwnedState::OtherVersion, _) => Owned::OtherVersion,
        _ => Owned::NoEntry,
    };
    ManagedRow {
        owned,
        marks: managed.marks.into_iter().collect(),
        managers: managed.managers.into_iter().map(manager_row).collect(),
        created_at: managed.created_ms,
        told: true,
    }
}

pub(super) fn manager_row(manager: v1::Manager) -> ManagerRow {
    let v1::Manager { name, operation, subresource, time, fields, truncated } = manager;
    ManagerRow { name, operation, subresource, time, fields, truncated }
}
