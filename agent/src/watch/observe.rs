//! What a watch's task learned, judged against interest and index.

use std::sync::Arc;

use bytes::Bytes;
use lockstep_cluster::Resource;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::listwatch::{Health, Observation};
use lockstep_engine::object::{ObjectError, RawObject};
use lockstep_engine::relist::{Entry, Flags, Seen};
use lockstep_engine::{Millis, ResourceVersion};
use lockstep_wire::v1::Item;

use super::conclude::is_older;
use super::{Context, Follow, Stage, Watch};
use crate::judge::{Bench, SEEDED, Telling, may_be_ahead, undecodable};
use crate::spill::Held;

/// A watch that goes on from the hub's checkpoint may still tell of what came before for so long.
const CATCHING_UP_MS: Millis = 60_000;

impl Watch {
    /// Takes an observation of the running task.
    pub(crate) fn observe(&mut self, observation: Observation<Bytes>, context: &Context<'_>) -> Follow {
        match observation {
            Observation::Applied { body, resource_version, listed } => {
                return self.applied(&body, resource_version, listed, context);
            }
            Observation::Deleted { body, resource_version } => self.deleted(&body, resource_version, context),
            Observation::Bookmark(version) => self.bookmark(version, context.now),
            Observation::ListStarted { epoch } => {
                self.epoch = epoch;
                self.leave_to_list();
                self.index.begin(epoch);
                self.queue.restart();
                // One that is tried again goes on failing until something comes of it, which is not said again; and it
                // has given its slot to the others.
                let failing = self.failing;
                self.reset(Stage::Running);
                self.failing = failing;
                self.listing = failing.is_none();
                self.flagged = self.rewound;
                self.unkeyed = 0;
                self.tally.lists += 1;
            }
            Observation::ListCompleted { epoch, resource_version, absence } => {
                return self.list_completed(epoch, resource_version, absence, context);
            }
            Observation::Undecodable { listed, why } => {
                tracing::warn!(kind = %self.interest.gk, listed, %why, "an object without a readable key");
                self.tally.undecodable += 1;
                self.unkeyed += u32::from(listed);
            }
            Observation::RewindSuspected { checkpoint, server } => {
                tracing::error!(
                    kind = %self.interest.gk, %checkpoint, %server,
                    "the API server is behind what was seen of it: restored from a backup? Nothing is concluded from absence"
                );
                return self.rewind_suspected();
            }
            Observation::StateChanged(health) => {
                let look = self.health(&health, context.now);
                return Follow { look, ..Follow::default() };
            }
        }
        Follow::default()
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
                self.complete |= self.resumes() && !open;
            }
            Health::Listing => {
                self.failing = None;
                self.listing = true;
            }
            Health::Starting => self.failing = None,
        }
        false
    }

    fn applied(
        &mut self,
        bytes: &Bytes,
        version: ResourceVersion,
        listed: bool,
        context: &Context<'_>,
    ) -> Follow {
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
            with_fields: listed || context.now < self.resumed_at + CATCHING_UP_MS,
        };
        let judged = bench.judge(bytes, &object);
        let known = self.index.get(&judged.namespace, &judged.name).cloned();
        if listed && known.as_ref().is_some_and(|known| self.proves_rewind(known, &version)) {
            return self.list_is_rewound();
        }
        // The hub may hold a state from beyond the checkpoint: a busy key is sent in its newest state.
        // What is replayed must not undo it. After a rewind there is no such state: the list that
        // followed has put its own in the place of every entry.
        let ahead = |entry: &Entry| may_be_ahead(entry) && is_older(&version, &entry.resource_version());
        if !listed && known.as_ref().is_some_and(ahead) && guard::on(Guard::ReplayUndoesNothing) {
            return Follow::default();
        }
        let again = self.is_reread(&judged.namespace, &judged.name);
        // In the new history a resourceVersion may have been given to another state of the object.
        let telling = match (again, listed && self.rewound) {
            (true, _) => Telling::Again,
            (false, true) => Telling::Rewound,
            (false, false) => Telling::News,
        };
        let item = match bench.upsert(bytes, &object, &judged, known.as_ref(), telling) {
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
        if again {
            self.forget_reread(&judged.namespace, &judged.name);
        }
        let Some(item) = item else { return Follow::default() };
        if judged.flags.body_sent {
            self.tally.bodies_sent += 1;
        } else {
            self.tally.bodies_withheld += 1;
        }
        self.push(item, (!listed).then_some(version));
        Follow::default()
    }

    fn deleted(&mut self, bytes: &Bytes, version: ResourceVersion, context: &Context<'_>) {
        self.tally.events += 1;
        self.last_event = context.now;
        self.reached = version.clone();
        let object = match RawObject::parse(bytes) {
            Ok(object) => object,
            Err(error) => {
                self.unreadable(bytes, &error, false, context.now);
                return;
            }
        };
        let api_version = self.resource.as_ref().map(Resource::api_version).unwrap_or_default();
        let bench = Bench {
            interest: &self.interest,
            api_version: &api_version,
            secret_key: context.secret_key,
            now: context.now,
            with_fields: false,
        };
        let judged = bench.judge(bytes, &object);
        match self.index.get(&judged.namespace, &judged.name) {
            // Replayed: the name has been taken by another object since, and the hub knows.
            Some(entry) if entry.uid().as_str() != judged.uid => return,
            // The hub never heard of it, and has no wish to; unless it was just found to hold it.
            None if !self.is_reread(&judged.namespace, &judged.name) && !judged.flags.body_sent => return,
            _ => {}
        }
        match bench.delete(bytes, &object, &judged) {
            Ok(mut item) => {
                self.forget_reread(&judged.namespace, &judged.name);
                self.index.delete(&judged.namespace, &judged.name, &judged.uid);
                item.resource_version = version.as_str().to_owned();
                self.push(item, Some(version));
            }
            Err(error) => {
                self.unreadable(bytes, &error, false, context.now);
            }
        }
    }

    pub(super) fn unreadable(
        &mut self,
        bytes: &Bytes,
        error: &ObjectError,
        listed: bool,
        now: Millis,
    ) -> Follow {
        tracing::warn!(kind = %self.interest.gk, listed, %error, "an object could not be read");
        self.tally.undecodable += 1;
        match undecodable(bytes, error, now) {
            Some(item) => {
                // Its key exists: it must not be found missing from the list. Of what the hub holds
                // of it, nothing changes.
                let version = ResourceVersion::new(&item.resource_version);
                let known = self.index.get(&item.namespace, &item.name);
                let known = known.filter(|entry| entry.uid().as_str() == item.uid);
                let flags = known.map_or(Flags { untold: true, ..Flags::default() }, Entry::flags);
                // A version of the history before a rewind would outlive it here.
                let kept = known.filter(|_| !self.rewound);
                let seen = Seen {
                    uid: &item.uid,
                    resource_version: kept.map_or_else(|| version.clone(), Entry::resource_version),
                    digest: kept.map_or(SEEDED, Entry::digest),
                    flags,
                };
                self.index.observe(&item.namespace, &item.name, &seen);
                self.forget_reread(&item.namespace, &item.name);
                self.push(item, (!listed).then_some(version));
            }
            None if listed => self.unkeyed += 1,
            None => {}
        }
        Follow::default()
    }

    pub(super) fn push(&mut self, item: Item, version: Option<ResourceVersion>) {
        let key = Arc::new((item.namespace.as_str().into(), item.name.as_str().into()));
        let version = version.filter(|_| self.may_move());
        self.queue.push(key, Held::new(item), version);
    }

    /// May the checkpoint move? Not past deletes that a completed list still has to conclude, and
    /// not on the far side of a rewind.
    fn may_move(&self) -> bool {
        !guard::on(Guard::CheckpointBehindConclusion) || (self.concluding.is_none() && !self.rewound)
    }

    fn bookmark(&mut self, version: ResourceVersion, now: Millis) {
        self.last_event = now;
        self.reached = version.clone();
        if self.may_move() {
            self.queue.bookmark(version);
        }
    }
}
