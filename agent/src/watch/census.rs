//! Anti-entropy: what the index holds is counted namespace by namespace, and where the hub holds
//! something else, the objects are read one by one and told as they are.
//!
//! Nothing here should ever find anything. What it finds is counted, so that somebody asks why.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_cluster::Resource;
use lockstep_engine::census::{Census, Member};
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::object::RawObject;
use lockstep_engine::relist::{Digest, Entry, Flags, Seen};
use lockstep_engine::{Millis, ResourceVersion};
use lockstep_wire::v1::{self, IndexEntry, Item, item::Change};

use super::conclude::is_older;
use super::{Context, Follow, Stage, Watch};
use crate::judge::{Bench, Telling, beside, is_sure};

/// Objects of one watch that are read again one by one; where more differ, one list is cheaper.
const REREADS: usize = 1_000;

/// Where a watch is in its round through its namespaces.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// When the next one begins; 0: not known yet.
    due: Millis,
    under_way: bool,
    /// The namespace chosen last.
    after: Option<Box<str>>,
    /// Namespaces to tell as soon as nothing is queued.
    chosen: Vec<Box<str>>,
    /// What the watch had reached when a census was told last.
    told_at: ResourceVersion,
}

impl Round {
    /// The index changes under it: the next round begins in its time.
    pub(super) fn interrupt(&mut self) {
        self.under_way = false;
        self.after = None;
        self.chosen.clear();
    }
}

/// A key that is being read again.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// What the hub holds of it.
    held: Option<IndexEntry>,
    /// It was not there; that counts once this read of the Lease shows that nothing was rewound.
    gone: Option<u64>,
}

/// What a single read answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The object.
    Found(Bytes),
    /// There is none of this name.
    Absent,
    /// The agent may not read single objects of this kind.
    Forbidden,
    /// Nothing of use.
    Failed,
}

/// What a comparison calls for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    Nothing,
    /// Read these again.
    Reread(Vec<Box<str>>),
    /// List everything again; the task is to be stopped.
    Relist,
}

impl Watch {
    /// Does the index say what is there, and has the hub been told that it does?
    fn is_settled(&self) -> bool {
        self.stage == Stage::Running
            && self.complete
            && self.unkeyed_at_last == 0
            && self.concluding.is_none()
            && self.failing.is_none()
            && !self.rewound
            && !self.listing
    }

    /// Chooses namespaces to tell, with about so many keys; how many they have. A first round begins
    /// `phase` after now, so that watches and clusters do not all count at once.
    pub(crate) fn choose_census(
        &mut self,
        now: Millis,
        interval: Millis,
        phase: Millis,
        room: usize,
    ) -> usize {
        if !self.is_settled() || !self.census.chosen.is_empty() {
            return 0;
        }
        if !self.census.under_way {
            if self.census.due == 0 {
                self.census.due = now.saturating_add(phase);
            }
            // Somebody may have set the clock back.
            self.census.due = self.census.due.min(now.saturating_add(interval));
            if now < self.census.due {
                return 0;
            }
            self.census.under_way = true;
            self.census.due = now.saturating_add(interval);
        }
        let mut chosen = 0;
        while chosen < room {
            let Some((namespace, keys)) = self.index.namespace_after(self.census.after.as_deref()) else {
                self.census.under_way = false;
                self.census.after = None;
                break;
            };
            let keys = keys.max(1);
            // One that is larger than all the room goes alone.
            if chosen > 0 && chosen + keys > room {
                break;
            }
            chosen += keys;
            let namespace: Box<str> = namespace.into();
            self.census.chosen.push(namespace.clone());
            self.census.after = Some(namespace);
        }
        chosen
    }

    /// Nobody counts: namespaces that were emptied need not be remembered.
    pub(crate) fn forget_census(&mut self) {
        self.index.forget_all_empty();
    }

    /// Is there a census to tell right now?
    pub(super) fn has_census(&self) -> bool {
        !self.census.chosen.is_empty() && self.queue.is_empty() && self.is_settled()
    }

    /// The censuses that go with a section after which nothing is queued: with that applied, the hub
    /// must hold exactly the index.
    pub(super) fn take_census(&mut self) -> Vec<v1::Census> {
        if !self.has_census() {
            return Vec::new();
        }
        self.census.told_at = self.reached.clone();
        let chosen = std::mem::take(&mut self.census.chosen);
        self.tally.censuses += chosen.len() as u64;
        chosen.into_iter().map(|namespace| self.census_of(&namespace)).collect()
    }

    fn census_of(&mut self, namespace: &str) -> v1::Census {
        let mut census = Census::default();
        for (name, entry) in self.index.namespace(namespace) {
            let Flags { body_sent, managed, untold } = entry.flags();
            if untold {
                continue;
            }
            let (uid, version) = (entry.uid(), entry.resource_version());
            census.add(&Member {
                name,
                uid: uid.as_str(),
                resource_version: version.as_str(),
                body_held: body_sent,
                managed,
            });
        }
        // Told once that it is empty: the hub has seen to it, or asks.
        self.index.forget_empty(namespace);
        v1::Census {
            namespace: namespace.to_owned(),
            count: census.count(),
            digest: Bytes::copy_from_slice(&census.digest()),
        }
    }

    /// Takes what the hub holds of a namespace in which a census differed.
    pub(crate) fn compare(&mut self, namespace: &str, entries: Vec<IndexEntry>) -> Compared {
        if !self.is_settled() {
            // The next census tells of it, also where nothing is known there.
            self.index.remember_empty(namespace);
            return Compared::Nothing;
        }
        let differing = self.differing(namespace, entries);
        if differing.is_empty() {
            return Compared::Nothing;
        }
        self.tally.mismatches += differing.len() as u64;
        tracing::warn!(
            kind = %self.interest.gk, namespace, objects = differing.len(),
            first = differing.keys().next().map(|name| &**name).unwrap_or_default(),
            "the hub holds objects otherwise than they were seen here; they are read again"
        );
        if self.rereads.len() + differing.len() > REREADS {
            for (name, held) in differing {
                self.adopt(namespace, &name, held.as_ref());
            }
            return if self.mend() { Compared::Relist } else { Compared::Nothing };
        }
        let names = differing.keys().cloned().collect();
        for (name, held) in differing {
            self.rereads.insert((namespace.into(), name), Asked { held, gone: None });
        }
        Compared::Reread(names)
    }

    /// Something in the index may not be so. True: it is to be read again.
    pub(crate) fn doubt(&mut self, namespace: &str, name: &str) -> bool {
        let told = self.index.get(namespace, name).is_some_and(|entry| !entry.flags().untold);
        let doubt =
            told && self.is_settled() && self.rereads.len() < REREADS && !self.is_reread(namespace, name);
        if doubt {
            self.rereads.insert((namespace.into(), name.into()), Asked::default());
        }
        doubt
    }

    /// The keys of which index and hub say different things, with what the hub says.
    fn differing(&self, namespace: &str, entries: Vec<IndexEntry>) -> BTreeMap<Box<str>, Option<IndexEntry>> {
        let mut held: BTreeMap<Box<str>, IndexEntry> =
            entries.into_iter().map(|entry| (entry.name.as_str().into(), entry)).collect();
        let mut differing = BTreeMap::new();
        for (name, entry) in self.index.namespace(namespace) {
            let theirs = held.remove(name);
            let same = match &theirs {
                Some(theirs) => is_same(entry, theirs),
                None => entry.flags().untold,
            };
            // It has changed since the census: that was told, or will be.
            let moved = is_older(&self.census.told_at, &entry.resource_version());
            if !same && !moved {
                differing.insert(name.into(), theirs);
            }
        }
        differing.extend(held.into_iter().map(|(name, theirs)| (name, Some(theirs))));
        differing.retain(|name, theirs| {
            // The hub knows the answer to a write of its own, and the event is still to come.
            let ahead = theirs
                .as_ref()
                .is_some_and(|held| is_older(&self.reached, &ResourceVersion::new(&held.resource_version)));
            !ahead && !self.is_reread(namespace, name)
        });
        differing
    }

    /// Takes the hub's view of a key into the index, so that a list tells what differs from it.
    fn adopt(&mut self, namespace: &str, name: &str, held: Option<&IndexEntry>) {
        let known = self.index.get(namespace, name).cloned();
        let digest = beside(Digest::default());
        match (held, known) {
            (Some(held), _) => {
                let resource_version = ResourceVersion::new(&held.resource_version);
                let flags = Flags { body_sent: held.body_held, managed: held.managed, untold: false };
                self.index.observe(
                    namespace,
                    name,
                    &Seen { uid: &held.uid, resource_version, digest, flags },
                );
            }
            (None, Some(entry)) => {
                let (uid, resource_version) = (entry.uid(), entry.resource_version());
                let flags = Flags { untold: true, ..Flags::default() };
                let seen = Seen { uid: uid.as_str(), resource_version, digest, flags };
                self.index.observe(namespace, name, &seen);
            }
            (None, None) => {}
        }
    }

    /// A list that begins tells what was being read again: nobody would ask for it once more.
    pub(super) fn leave_to_list(&mut self) {
        for ((namespace, name), asked) in std::mem::take(&mut self.rereads) {
            self.adopt(&namespace, &name, asked.held.as_ref());
        }
    }

    /// Lists everything, against what the hub holds; true when the task must be stopped.
    fn mend(&mut self) -> bool {
        self.mending = true;
        self.relist()
    }

    pub(super) fn is_reread(&self, namespace: &str, name: &str) -> bool {
        !self.rereads.is_empty() && self.rereads.contains_key(&(namespace.into(), name.into()))
    }

    /// The watch says something of a key: the answer to a read of it would be late.
    pub(super) fn forget_reread(&mut self, namespace: &str, name: &str) {
        if !self.rereads.is_empty() {
            self.rereads.remove(&(namespace.into(), name.into()));
        }
    }

    /// Takes what a single read answered.
    pub(crate) fn reread(
        &mut self,
        namespace: &str,
        name: &str,
        read: &Read,
        context: &Context<'_>,
    ) -> Follow {
        let key = (namespace.into(), name.into());
        let Some(asked) = self.rereads.get_mut(&key) else { return Follow::default() };
        self.tally.rereads += 1;
        match read {
            Read::Absent => {
                if !guard::on(Guard::LeaseAfterReread) {
                    asked.gone = Some(0);
                    self.tell_gone(0, context.now);
                    return Follow::default();
                }
                asked.gone = Some(context.next_read);
                Follow { read: true, ..Follow::default() }
            }
            Read::Found(bytes) if self.is_settled() => {
                self.rereads.remove(&key);
                self.found(bytes, context)
            }
            Read::Found(_) | Read::Failed => {
                self.rereads.remove(&key);
                self.index.remember_empty(namespace);
                Follow::default()
            }
            Read::Forbidden => {
                // What may not be read one by one may be listed.
                self.leave_to_list();
                Follow { stop: self.mend(), ..Follow::default() }
            }
        }
    }

    fn found(&mut self, bytes: &Bytes, context: &Context<'_>) -> Follow {
        let Ok(object) = RawObject::parse(bytes) else {
            // The hub was told so when it was seen, and will not hold more of it.
            self.tally.undecodable += 1;
            return Follow::default();
        };
        let api_version = self.resource.as_ref().map(Resource::api_version).unwrap_or_default();
        let bench = Bench {
            interest: &self.interest,
            api_version: &api_version,
            secret_key: context.secret_key,
            now: context.now,
            with_fields: true,
        };
        let judged = bench.judge(bytes, &object);
        let version = object.resource_version();
        let known = self.index.get(&judged.namespace, &judged.name).cloned();
        // The watch said nothing of it since it was asked for, so what it knows is older than the read.
        if known.as_ref().is_some_and(|known| is_sure(known) && is_older(&version, &known.resource_version()))
        {
            return self.list_is_rewound();
        }
        let item = bench.upsert(bytes, &object, &judged, known.as_ref(), Telling::Again);
        let Ok(Some(item)) = item else { return Follow::default() };
        let digest = beside(judged.digest);
        let seen = Seen { uid: &judged.uid, resource_version: version, digest, flags: judged.flags };
        self.index.observe(&judged.namespace, &judged.name, &seen);
        // The checkpoint stays: the watch has not got there yet.
        self.push(item, None);
        Follow::default()
    }

    /// Tells the deletes of what a single read did not find, once a later read of the Lease was heard.
    pub(super) fn tell_gone(&mut self, read: u64, now: Millis) {
        if self.rereads.is_empty() || !self.is_settled() {
            return;
        }
        let heard = self.rereads.extract_if(.., |_, asked| asked.gone.is_some_and(|needed| needed <= read));
        for ((namespace, name), asked) in heard.collect::<Vec<_>>() {
            let known = self.index.get(&namespace, &name).cloned();
            let (uid, resource_version) = match (asked.held, &known) {
                (Some(held), _) => (held.uid, held.resource_version),
                (None, Some(entry)) => {
                    (entry.uid().as_str().to_owned(), entry.resource_version().as_str().to_owned())
                }
                (None, None) => continue,
            };
            if let Some(entry) = known {
                self.index.delete(&namespace, &name, entry.uid().as_str());
            }
            let change = Some(Change::Delete(v1::Delete { inferred: true, ..v1::Delete::default() }));
            let (namespace, name) = (namespace.into(), name.into());
            let item =
                Item { namespace, name, uid, resource_version, observed_ms: now, change, ..Item::default() };
            self.push(item, None);
        }
    }
}

/// Do both sides say the same? Of a bare key only its life counts.
fn is_same(ours: &Entry, theirs: &IndexEntry) -> bool {
    let Flags { body_sent, managed, untold } = ours.flags();
    !untold
        && theirs.uid == ours.uid().as_str()
        && theirs.body_held == body_sent
        && theirs.managed == managed
        && (!(body_sent || managed) || theirs.resource_version == ours.resource_version().as_str())
}
