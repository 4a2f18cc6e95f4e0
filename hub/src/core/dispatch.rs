//! Steps to targets: a bounded window per target, in the order of waves, behind a circuit breaker.
//! One target's trouble stays its own (I12); what does not fit into memory stays in the store (I14).

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_engine::breaker::{Admission, Permit};
use lockstep_engine::catalogue::{PodSecurity, restricted, wave};
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::marks;
use lockstep_engine::object::RawObject;
use lockstep_engine::ownership::{FieldSet, Taken};
use lockstep_engine::plan::{Act, OnConflict, OnTracked};
use lockstep_engine::status::State;
use lockstep_engine::{ClusterId, Millis, ObjectKey, ResourceVersion, Uid};
use lockstep_wire::v1::{self, step::Action};

use super::Core;
use super::asked::Desired;
use super::compared::lingering;
use super::containers::namespaces;
use super::gather::Claim;
use super::inputs::{Inputs, Manner};
use super::recover::is_recovered;
use super::state::{InFlight, MAX_IN_FLIGHT, MAX_READY, Purpose, SessionCommand};
use crate::store::{ObjectRow, PlacementFilter, PlacementRow, Store, StoreError};

/// A step that is ready to go.
#[derive(Debug)]
pub(super) struct Prepared {
    action: Action,
    purpose: Purpose,
}

impl Prepared {
    /// Reads the image for the archive.
    pub(super) fn read(must_be_empty: bool) -> Self {
        Self { action: Action::Read(v1::Read { must_be_empty }), purpose: Purpose::Image }
    }

    /// What a person waits for.
    pub(super) fn ticket(ticket: u64, action: Action) -> Self {
        Self { action, purpose: Purpose::Ticket { ticket } }
    }

    /// Looks whether a container is still there.
    pub(super) fn probe() -> Self {
        Self { action: Action::Probe(v1::Probe {}), purpose: Purpose::Probe }
    }

    /// Deletes exactly the archived state.
    pub(super) fn delete(
        tombstone: i64,
        uid: &Uid,
        resource_version: &ResourceVersion,
        must_be_empty: bool,
    ) -> Self {
        let action = Action::Delete(v1::DeleteStep {
            uid: uid.to_string(),
            resource_version: resource_version.to_string(),
            must_be_empty,
        });
        Self { action, purpose: Purpose::Delete { tombstone } }
    }

    /// Takes our marks and entries off the object with that uid.
    pub(super) fn release(uid: &Uid) -> Self {
        Self { action: Action::Release(v1::Release { uid: uid.to_string() }), purpose: Purpose::Release }
    }

    /// Looks at what the create with that nonce left, and takes it back where it met an object of others.
    pub(super) fn retract(nonce: &str) -> Self {
        Self { action: Action::Retract(v1::Retract { nonce: nonce.to_owned() }), purpose: Purpose::Retract }
    }

    /// It sets drift back.
    pub(super) fn correcting(mut self, by: Vec<Taken>) -> Self {
        if let Purpose::Apply { drift, .. } = &mut self.purpose {
            *drift = Some(by);
        }
        self
    }

    /// Did these very inputs fail for good?
    pub(super) fn is_barred(&self, row: &PlacementRow) -> bool {
        match &self.purpose {
            Purpose::Apply { inputs, .. } => {
                row.barred.as_deref().is_some_and(|barred| barred == inputs.as_slice())
            }
            _ => false,
        }
    }

    /// Deletes wait for the commit (I4), and so does what gives an object up; writes may leave before it.
    fn waits_for_commit(&self) -> bool {
        matches!(self.purpose, Purpose::Ticket { .. })
            || matches!(self.purpose, Purpose::Delete { .. } | Purpose::Image | Purpose::Release)
                && guard::on(Guard::DeleteAfterCommit)
    }
}

/// API version and marks of a body that is about to be written.
fn written(body: &[u8]) -> (String, BTreeMap<String, String>) {
    let Ok(object) = RawObject::parse(body) else { return Default::default() };
    let annotations = object.metadata.annotations.into_iter();
    (object.api_version.into_owned(), annotations.filter(|(name, _)| marks::is_mark(name)).collect())
}

impl<S: Store> Core<S> {
    pub(super) fn prepare_apply(
        &mut self,
        row: &PlacementRow,
        desired: &Desired,
        object: Option<&ObjectRow>,
        act: Act,
    ) -> Result<Prepared, StoreError> {
        let Desired { claim, rendered } = desired;
        // Marks say of the very object that is there whether it was adopted.
        let there = object.filter(|_| act != Act::Create);
        let recorded = row.record.as_ref().filter(|record| there.map(|o| &o.uid) == record.uid.as_ref());
        let adopts = act == Act::Adopt && there.is_some();
        let adopted = adopts || recorded.is_some_and(|record| record.adopted);
        let body = self.stamped(row.target, &row.key, claim, rendered, adopted);
        let (api_version, marks) = written(&body);
        let on_conflict = claim.ownership().conflict;
        let retired: Vec<String> = claim.ownership().retired.iter().map(ToString::to_string).collect();
        let tracked_too = claim.ownership().tracked == OnTracked::Ignore;
        // After a war only what is nobody else's is written.
        let contested = matches!(act, Act::Update | Act::Verify) && self.is_contested(row);
        let digest = self.desired_digest(claim, rendered);
        let manner = match (adopts, contested, there) {
            (true, _, _) => Manner::Adopt,
            (false, true, _) => Manner::Contested,
            (false, false, Some(_)) => Manner::Update,
            (false, false, None) => Manner::Create,
        };
        let inputs = self.inputs(row, digest, claim, manner, object)?;
        let expect = match there {
            Some(object) if adopts => v1::apply::Expect::Adopt(v1::Adopt {
                uid: object.uid.to_string(),
                only_if_equal: on_conflict != OnConflict::TakeOver,
                retired,
                tracked_too,
            }),
            Some(object) => v1::apply::Expect::Present(v1::Present {
                uid: object.uid.to_string(),
                resource_version: String::new(),
            }),
            None => {
                let nonce = self.nonce(row, &claim.object.uid);
                v1::apply::Expect::Absent(v1::Absent { nonce, again: row.fields.creating.is_some() })
            }
        };
        // Also where only its marks tell (after a loss): what was applied last is this very body.
        let same_body = there.is_some()
            && !adopts
            && !contested
            && row.record.as_ref().is_some_and(|record| record.rendered == digest);
        // What a recovered copy was found to own is less than that, where somebody took fields over.
        let last = row.record.as_ref().filter(|record| !(contested || same_body && is_recovered(record)));
        let mut was_ours = lingering(row).filter(|_| there.is_some()).unwrap_or_default();
        if let (Some(record), None, Some(_)) = (&row.record, last, there)
            && let Ok(fields) = FieldSet::parse(&record.field_set)
        {
            was_ours.extend(&fields);
        }
        let action = Action::Apply(v1::Apply {
            was_ours: if was_ours.is_empty() { Bytes::new() } else { was_ours.canonical().into() },
            unless_equal: act == Act::Verify,
            same_body,
            body,
            versions: vec![api_version.clone()],
            expect: Some(expect),
            last_field_set: last.map(|record| record.field_set.clone()).unwrap_or_default(),
            ensure_namespace: !row.key.namespace.is_empty(),
            namespace_labels: BTreeMap::new(),
            leave: if claim.leave.is_empty() { Bytes::new() } else { claim.leave.canonical().into() },
            reclaim: if contested { Vec::new() } else { row.fields.reclaim() },
        });
        Ok(Prepared {
            action,
            purpose: Purpose::Apply {
                rendered: digest,
                inputs,
                source_seen: None,
                api_version,
                adopts,
                drift: None,
                recreates: matches!(act, Act::Update | Act::Verify)
                    && !adopted
                    && self.recreates(claim, &row.key),
                contested,
                marks,
            },
        })
    }

    /// The digest of everything that decides whether this write succeeds.
    fn inputs(
        &mut self,
        row: &PlacementRow,
        desired: [u8; 32],
        claim: &Claim,
        manner: Manner,
        object: Option<&ObjectRow>,
    ) -> Result<[u8; 16], StoreError> {
        let (target, gk) = (row.target, &row.key.gk);
        let definition = self.definition(target, gk)?;
        let namespace = match row.key.namespace.as_ref() {
            "" => None,
            name => self.store.object(target, &ObjectKey::new(namespaces(), "", name))?,
        };
        let cluster = self.clusters.get(&target);
        let facts = cluster.map(|cluster| &cluster.row);
        let inputs = Inputs {
            desired,
            policy: claim.policy.digest,
            manner,
            object,
            served: cluster.and_then(|cluster| cluster.served.as_ref()?.get(gk)),
            definition: definition.as_ref().map(|row| (&row.uid, &row.resource_version)),
            namespace: namespace.as_ref().map(|row| (&row.uid, row.deleting)),
            server_version: facts.map_or("", |row| &row.server_version),
            agent_version: facts.map_or("", |row| &row.agent_version),
            accepts: facts.map_or(&[], |row| &row.accepts),
        };
        Ok(inputs.digest())
    }

    /// Sends a step, or lets it wait for a place in the target's window.
    pub(super) fn dispatch(
        &mut self,
        row: &PlacementRow,
        mut step: Prepared,
        seen: Option<Millis>,
        now: Millis,
    ) -> Result<(), StoreError> {
        if let Purpose::Apply { source_seen, .. } = &mut step.purpose {
            *source_seen = seen;
        }
        if let Action::Apply(apply) = &mut step.action
            && matches!(apply.expect, Some(v1::apply::Expect::Absent(_)))
        {
            apply.namespace_labels = self.namespace_labels(row)?;
        }
        let Some(cluster) = self.clusters.get_mut(&row.target) else { return Ok(()) };
        if cluster.session.is_none() {
            return Ok(());
        }
        if !cluster.has_place(&row.key.gk) {
            self.wait(row);
            return Ok(());
        }
        let permit = match cluster.breaker(&row.key.gk).breaker.admit(now) {
            Admission::Go(permit) => permit,
            Admission::Wait { until } => {
                let until = until.unwrap_or(now + PROBE_POLL_MS);
                return self.postpone(row.target, &row.key, until);
            }
        };
        self.send_step(row.target, &row.key, step, Some(permit));
        Ok(())
    }

    /// The Pod Security labels that a namespace gets if it has to be made for this object: those of the source's.
    fn namespace_labels(&mut self, row: &PlacementRow) -> Result<PodSecurity, StoreError> {
        let Some(source) = &row.source else { return Ok(restricted()) };
        if source.namespace.is_empty() {
            return Ok(PodSecurity::new());
        }
        let key = ObjectKey::new(namespaces(), "", &source.namespace);
        let namespace =
            self.store.object(source.cluster, &key)?.filter(|namespace| namespace.unseen.is_none());
        Ok(namespace.map_or_else(restricted, |namespace| namespace.pod_security))
    }

    pub(super) fn wait(&mut self, row: &PlacementRow) {
        let Some(cluster) = self.clusters.get_mut(&row.target) else { return };
        if cluster.ready.len() >= MAX_READY {
            cluster.overflow = true;
            return;
        }
        let wave = i32::from(wave(&row.key.gk));
        // Creation in the order of waves, deletion after it and in reverse.
        let order = if row.ending.is_some() { i32::from(u16::MAX) - wave } else { wave };
        cluster.ready.insert(order, row.key.clone());
    }

    pub(super) fn send_step(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        step: Prepared,
        permit: Option<Permit>,
    ) {
        let number = self.next_step;
        self.next_step += 1;
        self.counts.steps += 1;
        let waits = step.waits_for_commit();
        let Prepared { action, purpose } = step;
        let Some(cluster) = self.clusters.get_mut(&target) else { return };
        let Some(session) = cluster.session.as_ref().map(|session| session.number) else { return };
        cluster.busy.insert(key.clone(), number);
        cluster.in_flight.insert(number, InFlight { key: key.clone(), purpose, permit, again: false });
        let body = v1::hub_message::Body::Step(v1::Step {
            step: number,
            group: key.gk.group.to_string(),
            kind: key.gk.kind.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            action: Some(action),
        });
        if waits {
            self.send_after(target, body);
        } else {
            let message = Box::new(v1::HubMessage { body: Some(body) });
            self.send_to(target, session, SessionCommand::Message(message));
        }
    }

    /// A place in the window is free: the next keys are planned anew, so that only the net effect
    /// is carried out.
    pub(super) fn fill_window(&mut self, target: ClusterId, now: Millis) -> Result<(), StoreError> {
        loop {
            let Some(cluster) = self.clusters.get_mut(&target) else { return Ok(()) };
            if cluster.session.is_none() || cluster.in_flight.len() >= MAX_IN_FLIGHT {
                return Ok(());
            }
            let mut ready = std::mem::take(&mut cluster.ready);
            let next = ready.pop(|gk| cluster.has_place(gk));
            cluster.ready = ready;
            let Some(key) = next else {
                if cluster.ready.is_empty() && std::mem::take(&mut cluster.overflow) {
                    self.scan_placements(PlacementFilter {
                        target: Some(target),
                        states: vec![State::Pending],
                        ..PlacementFilter::default()
                    });
                }
                return Ok(());
            };
            self.plan(target, &key, None, now)?;
        }
    }
}

/// How often a key that waits for a probe in flight asks again, ms.
const PROBE_POLL_MS: i64 = 1000;
