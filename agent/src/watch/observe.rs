//! What a watch's task learned, judged against interest and index.

use std::sync::Arc;

use bytes::Bytes;
use lockstep_cluster::Resource;
use lockstep_engine::listwatch::{Absence, Health, Observation, Start};
use lockstep_engine::object::{ObjectError, RawObject};
use lockstep_engine::relist::{Entry, Gone, Seen};
use lockstep_engine::{Millis, ResourceVersion};
use lockstep_wire::v1::{self, Item, item::Change};

use super::{Context, Stage, Watch};
use crate::judge::{Bench, SEEDED, undecodable};

impl Watch {
    /// Takes an observation of the running task; true when discovery should be asked again.
    pub(crate) fn observe(&mut self, observation: Observation<Bytes>, context: &Context<'_>) -> bool {
        match observation {
            Observation::Applied { body, resource_version, listed } => {
                self.applied(&body, resource_version, listed, context);
            }
            Observation::Deleted { body, resource_version } => self.deleted(&body, resource_version, context),
            Observation::Bookmark(version) => self.bookmark(version, context.now),
            Observation::ListStarted { epoch } => {
                self.epoch = epoch;
                self.index.begin(epoch);
                self.queue.restart();
                self.reset(Stage::Running);
                self.listing = true;
                self.unkeyed = 0;
                self.tally.lists += 1;
            }
            Observation::ListCompleted { epoch, resource_version, absence } => {
                return self.list_completed(epoch, resource_version, absence, context.now);
            }
            Observation::Undecodable { listed, why } => {
                tracing::warn!(kind = %self.interest.gk, listed, %why, "an object without a readable key");
                self.tally.undecodable += 1;
            }
            Observation::RewindSuspected { checkpoint, server } => {
                tracing::error!(
                    kind = %self.interest.gk, %checkpoint, %server,
                    "the API server is behind what was seen of it: restored from a backup? Deletes are held"
                );
                self.rewound = true;
                self.complete = false;
                // What was reached before is of another history.
                self.queue.restart();
            }
            Observation::StateChanged(health) => return self.health(&health, context.now),
        }
        false
    }

    fn health(&mut self, health: &Health, now: Millis) -> bool {
        match health {
            Health::Failing { reason, .. } => {
                self.failing = Some(reason.code());
                // A list that cannot go on gives its slot to the others.
                self.listing = false;
                return reason.code() == "NotServed";
            }
            Health::Live => {
                self.last_event = now;
                self.failing = None;
                self.listing = false;
                // From a checkpoint on, the hub's index is what exists, and no list has said otherwise.
                let open = self.rewound || self.concluding.is_some() || self.unkeyed_at_last > 0;
                self.complete |= self.start != Start::Nothing && !open;
            }
            Health::Listing => {
                self.failing = None;
                self.listing = true;
            }
            Health::Starting => self.failing = None,
        }
        false
    }

    fn applied(&mut self, bytes: &Bytes, version: ResourceVersion, listed: bool, context: &Context<'_>) {
        self.tally.events += 1;
        self.last_event = context.now;
        if !listed {
            self.reached = version.clone();
        }
        let object = match RawObject::parse(bytes) {
            Ok(object) => object,
            Err(error) => return self.unreadable(bytes, &error, listed, context.now),
        };
        let api_version = self.resource.as_ref().map(Resource::api_version).unwrap_or_default();
        let bench = Bench {
            interest: &self.interest,
            api_version: &api_version,
            secret_key: context.secret_key,
            now: context.now,
        };
        let judged = bench.judge(bytes, &object);
        let known = self.index.get(&judged.namespace, &judged.name).cloned();
        let ahead = |entry: &Entry| {
            // The hub may hold a state from beyond the checkpoint: a busy key is sent in its newest
            // state. Replayed older states must not undo it.
            entry.digest() == SEEDED && entry.resource_version().ordinal() > version.ordinal()
        };
        if !listed && known.as_ref().is_some_and(ahead) {
            return;
        }
        let item = match bench.upsert(bytes, &object, &judged, known.as_ref()) {
            Ok(item) => item,
            Err(error) => return self.unreadable(bytes, &error, listed, context.now),
        };
        let seen = Seen {
            uid: &judged.uid,
            resource_version: version.clone(),
            digest: judged.digest,
            flags: judged.flags,
        };
        self.index.observe(&judged.namespace, &judged.name, &seen);
        let Some(item) = item else { return };
        if judged.flags.body_sent {
            self.tally.bodies_sent += 1;
        } else {
            self.tally.bodies_withheld += 1;
        }
        self.push(item, (!listed).then_some(version));
    }

    fn deleted(&mut self, bytes: &Bytes, version: ResourceVersion, context: &Context<'_>) {
        self.tally.events += 1;
        self.last_event = context.now;
        self.reached = version.clone();
        let object = match RawObject::parse(bytes) {
            Ok(object) => object,
            Err(error) => return self.unreadable(bytes, &error, false, context.now),
        };
        let api_version = self.resource.as_ref().map(Resource::api_version).unwrap_or_default();
        let bench = Bench {
            interest: &self.interest,
            api_version: &api_version,
            secret_key: context.secret_key,
            now: context.now,
        };
        let judged = bench.judge(bytes, &object);
        match self.index.get(&judged.namespace, &judged.name) {
            // Replayed: the name has been taken by another object since, and the hub knows.
            Some(entry) if entry.uid().as_str() != judged.uid => return,
            // The hub never heard of it, and has no wish to.
            None if !judged.flags.body_sent => return,
            _ => {}
        }
        match bench.delete(bytes, &object, &judged) {
            Ok(mut item) => {
                self.index.delete(&judged.namespace, &judged.name, &judged.uid);
                item.resource_version = version.as_str().to_owned();
                self.push(item, Some(version));
            }
            Err(error) => self.unreadable(bytes, &error, false, context.now),
        }
    }

    fn unreadable(&mut self, bytes: &Bytes, error: &ObjectError, listed: bool, now: Millis) {
        tracing::warn!(kind = %self.interest.gk, listed, %error, "an object could not be read");
        self.tally.undecodable += 1;
        match undecodable(bytes, error, now) {
            Some(item) => {
                // Its key exists: it must not be found missing from the list.
                let version = ResourceVersion::new(&item.resource_version);
                let known = self.index.get(&item.namespace, &item.name).map(|entry| entry.flags());
                let flags = known.unwrap_or_default();
                let seen = Seen { uid: &item.uid, resource_version: version.clone(), digest: SEEDED, flags };
                self.index.observe(&item.namespace, &item.name, &seen);
                self.push(item, (!listed).then_some(version));
            }
            None if listed => self.unkeyed += 1,
            None => {}
        }
    }

    fn push(&mut self, item: Item, version: Option<ResourceVersion>) {
        let key = Arc::new((item.namespace.as_str().into(), item.name.as_str().into()));
        let version = version.filter(|_| self.may_move());
        self.queue.push(key, item, version);
    }

    /// May the checkpoint move? Not past deletes that a completed list still has to conclude, and
    /// not on the far side of a rewind.
    fn may_move(&self) -> bool {
        self.concluding.is_none() && !self.rewound
    }

    fn bookmark(&mut self, version: ResourceVersion, now: Millis) {
        self.last_event = now;
        self.reached = version.clone();
        if self.may_move() {
            self.queue.bookmark(version);
        }
    }

    /// True when discovery must confirm first that the kind is still served.
    fn list_completed(
        &mut self,
        epoch: u64,
        version: ResourceVersion,
        absence: Absence,
        now: Millis,
    ) -> bool {
        self.listing = false;
        self.last_event = now;
        let behind = matches!((version.ordinal(), self.reached.ordinal()), (Some(a), Some(b)) if a < b);
        let absence = match absence {
            _ if self.rewound || behind => Absence::Rewound,
            Absence::Conclusive if self.unkeyed > 0 => Absence::Undecodable(self.unkeyed),
            other => other,
        };
        self.reached = version.clone();
        self.unkeyed_at_last = 0;
        match absence {
            Absence::Conclusive if self.index.unseen().next().is_some() => {
                self.concluding = Some(epoch);
                return true;
            }
            Absence::Conclusive => self.conclude(epoch, now),
            Absence::Rewound => {
                self.rewound = true;
                // Inconclusive by design: the index keeps what the list did not show.
                let _ = self.index.complete(epoch, absence);
            }
            Absence::Undecodable(count) => {
                let _ = self.index.complete(epoch, absence);
                self.unkeyed_at_last = count;
                self.queue.bookmark(version);
                self.live_at = self.queue.position();
            }
        }
        false
    }

    pub(super) fn conclude(&mut self, epoch: u64, now: Millis) {
        match self.index.complete(epoch, Absence::Conclusive) {
            Ok(gone) => {
                for Gone { namespace, name, last, .. } in gone {
                    let item = Item {
                        namespace: namespace.into(),
                        name: name.into(),
                        uid: last.uid().as_str().to_owned(),
                        resource_version: last.resource_version().as_str().to_owned(),
                        observed_ms: now,
                        change: Some(Change::Delete(v1::Delete { body: Bytes::new(), inferred: true })),
                    };
                    self.push(item, None);
                }
                self.complete = true;
                self.queue.bookmark(self.reached.clone());
                self.live_at = self.queue.position();
            }
            Err(error) => tracing::debug!(kind = %self.interest.gk, %error, "nothing concluded from a list"),
        }
    }
}
