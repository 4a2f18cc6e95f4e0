//! What `engine::plan::decide` needs to know about one object at one target, read from the store.

use std::sync::Arc;

use bytes::Bytes;
use lockstep_engine::catalogue::Facts;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::marks::{self, Marks, SourceMark, TargetMark};
use lockstep_engine::object::RawObject;
use lockstep_engine::ownership::{Leave, mark_lists};
use lockstep_engine::plan::{self, Observed, OnTracked, OwnedView};
use lockstep_engine::status::{State, Status};
use lockstep_engine::{ClusterId, GroupKind, ObjectKey, ResourceVersion, Uid};
use lockstep_policies::{CompiledPolicy, Ownership, RenderInput, Rendered, Selection, render, select};

use super::Core;
use super::state::{Cluster, Watch};
use crate::store::{Fields, ManagedRow, ObjectRow, Owned, PlacementRow, Store, StoreError};

/// Annotation by which a target's people keep an object from being deleted.
pub(super) const PREVENT_DELETION: &str = "lockstep.dev/prevent-deletion";

/// A policy that claims a key, with the source object.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub policy: Arc<CompiledPolicy>,
    pub source: ClusterId,
    pub object: Arc<ObjectRow>,
    /// Index of the entry of `spec.resources` that selects it.
    pub entry: usize,
    /// Fields that are not ours to write.
    pub leave: Leave,
    /// Why that is not known yet: code and sentence.
    pub waits: Option<(&'static str, String)>,
}

/// Why a policy does not claim a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoClaim {
    /// The source object does not exist, as far as a live watch tells.
    Absent,
    /// A rewind of its cluster took it away, and what becomes of that is not decided.
    Unseen,
    /// It exists and is not selected: code and sentence.
    NotSelected(&'static str, String),
    /// The source's agent does not let the hub read it (I16): what to accept.
    NotAccepted(String),
    /// It cannot be known now: code and sentence.
    Unknown(&'static str, String),
}

/// The last thing rendered: an object that goes to many targets is rendered once.
#[derive(Debug, Default)]
pub(super) struct RenderCache {
    entry: Option<(CacheKey, Arc<Rendered>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct CacheKey {
    policy: [u8; 32],
    cluster: ClusterId,
    key: ObjectKey,
    uid: Uid,
    resource_version: lockstep_engine::ResourceVersion,
}

impl Claim {
    /// What the policy says of objects and fields that are not ours.
    pub(super) fn ownership(&self) -> &Ownership {
        static NOTHING_SAID: std::sync::LazyLock<Ownership> = std::sync::LazyLock::new(Ownership::default);
        self.policy.spec.resources.get(self.entry).map_or_else(|| &*NOTHING_SAID, |entry| &entry.ownership)
    }
}

impl<S: Store> Core<S> {
    /// Every policy that claims the key at the target, in the order of their names: the first wins
    /// (I8: independent of the order of events).
    pub(super) fn claims(&mut self, target: ClusterId, key: &ObjectKey) -> Result<Vec<Claim>, StoreError> {
        let Some(name) = self.clusters.get(&target).map(|c| c.row.name.clone()) else {
            return Ok(Vec::new());
        };
        let set = self.set.clone();
        let mut claims = Vec::new();
        for policy in set.claimants(name.as_str(), &key.gk) {
            if let Ok(claim) = self.claim(policy, target, key)? {
                claims.push(claim);
            }
        }
        claims.sort_by(|a, b| a.policy.name.cmp(&b.policy.name));
        Ok(claims)
    }

    /// Does this policy claim the key at the target, and if not, why?
    pub(super) fn claim(
        &mut self,
        policy: &Arc<CompiledPolicy>,
        target: ClusterId,
        key: &ObjectKey,
    ) -> Result<Result<Claim, NoClaim>, StoreError> {
        let source_name = &policy.spec.source_cluster;
        let Some(source) = self.names.get(source_name).copied() else {
            let message = format!("the source cluster {source_name} has never connected, or was removed");
            return Ok(Err(NoClaim::Unknown("SourceNotConnected", message)));
        };
        if let Some(message) = self.not_accepted(source, policy, key) {
            return Ok(Err(NoClaim::NotAccepted(message)));
        }
        let Some(object) = self.store.object(source, key)? else {
            return Ok(Err(self
                .absence_at_source(source, key)
                .map_or(NoClaim::Absent, |(r, m)| NoClaim::Unknown(r, m))));
        };
        if object.unseen.is_some() {
            return Ok(Err(self
                .absence_at_source(source, key)
                .map_or(NoClaim::Unseen, |(r, m)| NoClaim::Unknown(r, m))));
        }
        let Some(body) = object.body.clone() else {
            return Ok(Err(match self.absence_at_source(source, key) {
                Some((reason, message)) => NoClaim::Unknown(reason, message),
                None => NoClaim::NotSelected(
                    "NotSelected",
                    "no policy's conditions match the source object".to_owned(),
                ),
            }));
        };
        let Ok(raw) = RawObject::parse(&body) else {
            return Ok(Err(NoClaim::NotSelected(
                "Undecodable",
                "the source object cannot be read".to_owned(),
            )));
        };
        if self.is_our_copy(&object, &raw)? {
            let message = "lockstep wrote the source object itself; a copy is not a source".to_owned();
            return Ok(Err(NoClaim::NotSelected("WrittenByLockstep", message)));
        }
        let bound = self.store.placement(target, key)?.is_some_and(|row| row.record.is_some());
        let Ok(facts) = Facts::of(&key.gk, &raw, &body) else {
            return Ok(Err(NoClaim::NotSelected(
                "Undecodable",
                "the source object cannot be read".to_owned(),
            )));
        };
        Ok(match select(policy, key, &facts.bound(bound)) {
            Selection::Selected { resource: entry } => {
                drop(raw);
                let (policy, object) = (policy.clone(), Arc::new(object));
                let (leave, waits) = self.leave(&policy, entry, target, key)?;
                Ok(Claim { policy, source, object, entry, leave, waits })
            }
            Selection::NotSelected { why } => {
                Err(NoClaim::NotSelected(why.code(), why.sentence(policy, key)))
            }
        })
    }

    /// [`Self::absence`], of a source. Of a kind that it does not serve any more nothing is left there: what ended with
    /// its definition stays held, and an approval is carried out.
    pub(super) fn absence_at_source(&self, id: ClusterId, key: &ObjectKey) -> Option<(&'static str, String)> {
        self.absence(id, key).filter(|_| guard::on(Guard::SourceUnknown) && !self.is_unserved(id, key))
    }

    /// Does a cluster say in this session, with all of its discovery, that it does not serve the kind of an object?
    fn is_unserved(&self, id: ClusterId, key: &ObjectKey) -> bool {
        let Some(cluster) = self.clusters.get(&id).filter(|cluster| cluster.session.is_some()) else {
            return false;
        };
        let said = |watch: &Watch| watch.told && watch.row.reason == "NotServed";
        cluster.serves(&key.gk) == Some(false) && cluster.covering(&key.gk, &key.namespace).is_some_and(said)
    }

    /// Why the absence of an object in a cluster means nothing now; none when it means something (I3).
    pub(super) fn absence(&self, id: ClusterId, key: &ObjectKey) -> Option<(&'static str, String)> {
        let cluster = self.clusters.get(&id)?;
        let name = &cluster.row.name;
        if cluster.session.is_none() {
            return Some(("NotConnected", format!("{name} is not connected")));
        }
        let Some(watch) = cluster.covering(&key.gk, &key.namespace) else {
            return Some(("NotWatched", format!("{} is not watched in {name}", key.gk)));
        };
        if watch.is_live() {
            return None;
        }
        let row = &watch.row;
        Some(match row.phase {
            crate::store::Phase::Failing | crate::store::Phase::Pending if watch.told => (
                "WatchFailing",
                format!("the watch of {} in {name} does not run: {} {}", key.gk, row.reason, row.message),
            ),
            _ => ("Listing", format!("{} is being listed in {name}", key.gk)),
        })
    }

    /// Did lockstep write this object (I9)? By the record first, by genuine marks after a loss, and where
    /// somebody took the marks before the record was made, by our managedFields entry.
    fn is_our_copy(&mut self, object: &ObjectRow, raw: &RawObject<'_>) -> Result<bool, StoreError> {
        let ObjectRow { cluster, key, uid, managed, .. } = object;
        let recorded = self.store.placement(*cluster, key)?.and_then(|row| row.record);
        if recorded.is_some_and(|record| record.uid.as_ref() == Some(uid)) && guard::on(Guard::CopyByRecord) {
            return Ok(true);
        }
        let Some(marks) = marks::read_marks(&raw.metadata.annotations, &raw.metadata.labels) else {
            let entry = managed.as_ref().is_some_and(|managed| managed.owned != Owned::NoEntry);
            return Ok(entry && guard::on(Guard::CopyByEntry));
        };
        Ok(self.is_genuine(*cluster, key, &marks) && guard::on(Guard::CopyByMarks))
    }

    pub(super) fn is_genuine(&self, id: ClusterId, key: &ObjectKey, marks: &Marks) -> bool {
        let uid = self.clusters.get(&id).and_then(|cluster| cluster.row.uid.as_ref());
        let here = uid.is_some_and(|uid| uid.as_str() == marks.target.cluster) && marks.target.key == *key;
        marks.hub == self.hub_id
            && (here || !guard::on(Guard::MarksTarget))
            && (marks::verify(marks, &self.keys.mac) || !guard::on(Guard::MarksMac))
    }

    /// What the marks of a managed object amount to.
    pub(super) fn marks_view<'a>(
        &self,
        id: ClusterId,
        key: &ObjectKey,
        managed: Option<&ManagedRow>,
        source_uid: &'a mut String,
    ) -> plan::Marks<'a> {
        // Without marks it is told of where our managedFields entry says that it was ours (I9).
        let is_marked = |managed: &&ManagedRow| managed.marks.keys().any(|mark| mark != marks::TRACKED);
        let Some(managed) = managed.filter(is_marked) else { return plan::Marks::Absent };
        let labels = std::collections::BTreeMap::from([(marks::MANAGED.to_owned(), "true".to_owned())]);
        let Some(read) = marks::read_marks(&managed.marks, &labels) else { return plan::Marks::Forged };
        if !self.is_genuine(id, key, &read) {
            return if read.hub == self.hub_id || read.hub.is_empty() {
                plan::Marks::Forged
            } else {
                plan::Marks::ForeignHub
            };
        }
        if managed.marks.contains_key(marks::MET) {
            return plan::Marks::Met;
        }
        *source_uid = read.source.uid;
        plan::Marks::Genuine {
            source_uid,
            rendered: read.rendered,
            prevent_deletion: managed.marks.get(PREVENT_DELETION).is_some_and(|value| value != "false"),
        }
    }

    /// Renders a claim for a target. The last result is kept: most objects go to several targets.
    pub(super) fn rendered(&mut self, claim: &Claim, key: &ObjectKey) -> Result<Arc<Rendered>, Status> {
        let cache_key = CacheKey {
            policy: claim.policy.digest,
            cluster: claim.source,
            key: key.clone(),
            uid: claim.object.uid.clone(),
            resource_version: claim.object.resource_version.clone(),
        };
        if let Some((known, rendered)) = &self.render_cache.entry
            && *known == cache_key
        {
            return Ok(rendered.clone());
        }
        let body = claim.object.body.clone().unwrap_or_default();
        let input = RenderInput { target: key, digest_key: &self.keys.rendered_digest };
        let rendered = render(&claim.policy, &body, &input)
            .map(Arc::new)
            .map_err(|error| Status::new(State::Failed, "RenderFailed", error.to_string()))?;
        self.render_cache.entry = Some((cache_key, rendered.clone()));
        Ok(rendered)
    }

    /// The body to apply: the rendered one with our marks.
    pub(super) fn stamped(
        &self,
        target: ClusterId,
        key: &ObjectKey,
        claim: &Claim,
        rendered: &Rendered,
        adopted: bool,
    ) -> Bytes {
        let target_uid = self
            .clusters
            .get(&target)
            .and_then(|c| c.row.uid.as_ref())
            .map(|uid| uid.to_string())
            .unwrap_or_default();
        let source = SourceMark {
            cluster: self.cluster_name(claim.source).to_owned(),
            namespace: claim.object.key.namespace.to_string(),
            name: claim.object.key.name.to_string(),
            uid: claim.object.uid.to_string(),
            hops: 1,
        };
        let marks = Marks {
            policy: claim.policy.name.as_str().to_owned(),
            source,
            target: TargetMark { cluster: target_uid, key: key.clone() },
            hub: self.hub_id.clone(),
            rendered: self.desired_digest(claim, rendered),
            adopted,
            mac: [0; 32],
            intent: None,
        }
        .signed(&self.keys.mac);
        let mut body = rendered.body.clone();
        marks::stamp(&mut body, &marks);
        let asked = claim.leave.without_left(&body);
        mark_lists(&key.gk, &asked, &mut body);
        // A tree of JSON values always serialises.
        serde_json::to_vec(&body).unwrap_or_default().into()
    }

    /// What "the target holds what is asked for" is measured by: the rendered body, and the very
    /// source object that the marks name. A source that was deleted and created again (I5) thus
    /// leads to one update in place, after which the marks are true again (I11).
    pub(super) fn desired_digest(&self, claim: &Claim, rendered: &Rendered) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("lockstep 2026 desired v1");
        hasher.update(&rendered.digest);
        if !claim.leave.is_empty() {
            hasher.update(&claim.leave.canonical());
        }
        for part in [self.cluster_name(claim.source), claim.object.uid.as_str()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// The nonce of a create: that of an earlier one, as long as no answer says what became of it.
    pub(super) fn nonce(&self, row: &PlacementRow, source: &Uid) -> String {
        let earlier = row.fields.creating.as_ref().map(|creating| creating.nonce().to_owned());
        earlier.unwrap_or_else(|| self.intent(row.target, &row.key, source))
    }

    /// The nonce of a first create. Derived, not drawn: after a crash between the call and the commit the
    /// same create has the same nonce, and the lost reply is recognised.
    fn intent(&self, target: ClusterId, key: &ObjectKey, source: &Uid) -> String {
        let uid = self.clusters.get(&target).and_then(|cluster| cluster.row.uid.as_ref());
        let target_uid = uid.map(Uid::as_str).unwrap_or_default();
        let mut hasher = blake3::Hasher::new_keyed(&self.keys.mac);
        for part in ["lockstep intent v1", target_uid, &key.to_string(), source.as_str()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The versions a body is valid in. None: its group has no version the target serves.
    pub(super) fn versions(
        &self,
        target: ClusterId,
        gk: &GroupKind,
        api_version: &str,
    ) -> Result<(), Status> {
        let Some(served) = self.clusters.get(&target).and_then(|c| c.served.as_ref()?.get(gk)) else {
            return Ok(());
        };
        if served.versions.iter().any(|version| version == api_version) {
            return Ok(());
        }
        Err(Status::new(
            State::Blocked,
            "VersionNotServed",
            format!("the source has it as {api_version}, the target serves {}", served.versions.join(", ")),
        ))
    }
}

/// What is known of the object at the target, as the plan wants it.
pub(super) fn observed<'a>(
    row: Option<&'a ObjectRow>,
    absence: Option<&'a (&'static str, String)>,
    amount: plan::Marks<'a>,
    written: Option<&ResourceVersion>,
    on_tracked: OnTracked,
) -> Observed<'a> {
    match (row, absence) {
        // What was seen and may be old is still no ground for a write.
        (_, Some((reason, message))) if guard::on(Guard::TargetUnknown) => {
            Observed::Unknown { reason, message }
        }
        (None, _) => Observed::Absent,
        (Some(row), _) => {
            let owned = match row.managed.as_ref().map(|managed| managed.owned) {
                Some(Owned::Digest(digest)) => OwnedView::Digest(digest),
                Some(Owned::OtherVersion) => OwnedView::OtherVersion,
                Some(Owned::NoEntry) | None => OwnedView::NoEntry,
            };
            let as_written =
                written.is_some_and(|version| !version.is_empty() && *version == row.resource_version);
            let marked = row.managed.as_ref().and_then(|managed| managed.marks.get(marks::TRACKED));
            let tracked = marked.filter(|_| on_tracked == OnTracked::Conflict).map(String::as_str);
            let (uid, deleting) = (&row.uid, row.deleting);
            Observed::Known(plan::Known { uid, deleting, marks: amount, owned, as_written, tracked })
        }
    }
}

/// The sentence of the pause that covers a placement, if any.
pub(super) fn pause(
    everything: bool,
    cluster: &Cluster,
    suspended: bool,
    policy_paused: bool,
) -> Option<&'static str> {
    if everything {
        Some("everything is paused; `lockstep resume --all`")
    } else if cluster.row.paused {
        Some("the cluster is paused; `lockstep resume --cluster`")
    } else if policy_paused {
        Some("the policy is paused; `lockstep resume POLICY`")
    } else if suspended {
        Some("the policy says suspend: true")
    } else {
        None
    }
}

/// A placement that was not there before.
pub(super) fn fresh_placement(target: ClusterId, key: &ObjectKey, now: i64) -> PlacementRow {
    PlacementRow {
        target,
        key: key.clone(),
        policy: String::new(),
        rivals: Vec::new(),
        source: None,
        record: None,
        status: Status::new(State::Pending, "New", "not looked at yet"),
        since: now,
        observed_generation: 0,
        ending: None,
        delete: None,
        attempts: 0,
        next_attempt: None,
        barred: None,
        synced_at: None,
        lag_ms: None,
        fields: Fields::default(),
    }
}
