//! Judges what agents do at API servers and what the hub commits, against what really happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use lockstep_engine::budget::{Budget, Limit};
use lockstep_engine::{Millis, marks};
use lockstep_hub::core as hub;
use lockstep_hub::store::{Cause, ClusterRow, Reader, StoreError, WatchRow};
use lockstep_tests::model::Request;
use serde_json::Value;

use crate::archive::MemoryArchive;
use crate::journal::{Actor, Journal, Life};
use crate::log::Log;
use crate::member::Member;
use crate::objects::{CLUSTERS, Key, Kind, OTHER_HUB, POLICIES, Refusal};

/// After so many commits that counted nothing the store is compared all the same.
const UNCOUNTED: u64 = 32;

/// API servers write times in whole seconds: what is as close to each other cannot be told apart by them.
const SAME_MOMENT_MS: Millis = 2_000;

/// A create of ours met an object of others.
#[derive(Clone, Copy, Debug)]
struct Meeting {
    /// Within [`SAME_MOMENT_MS`] of its own creation.
    at_once: bool,
    /// How often the hub's data had been lost.
    losses: u32,
    /// Where, and how often the history there had been forgotten.
    target: usize,
    compactions: u32,
}

/// A copy that lockstep made.
#[derive(Clone, Debug)]
struct Copy {
    target: usize,
    key: Key,
    /// uid that its marks named last.
    source: String,
    source_cluster: usize,
    /// As it was when lockstep wrote it last.
    content: String,
}

#[derive(Debug, Default)]
struct Known {
    /// By uid at the target.
    copies: BTreeMap<String, Copy>,
    /// When a person approved all that was held.
    approvals: Vec<Millis>,
    /// Tombstones up to this id were looked at.
    tombstones: i64,
    /// What the hub had counted when its store was compared last, and commits since.
    compared: (hub::Counts, u64),
    /// What was told when a watch was compared: its checkpoint, and when.
    told: BTreeMap<u32, (String, Millis)>,
    /// The budgets at the last commit, by policy and target.
    budgets: BTreeMap<(String, u32), Budget>,
    /// Objects whose bodies the store had: cluster and uid.
    stored: BTreeSet<(u32, String)>,
    /// Objects of others that a create of ours met.
    meetings: BTreeMap<String, Meeting>,
    /// Copies of which nobody heard that they were made: the answer was lost.
    unheard: BTreeSet<String>,
    /// How often the hub's data was lost.
    losses: u32,
    /// Situations, by name.
    met: BTreeMap<&'static str, u64>,
    /// The hub's clusters: they change with sessions only.
    clusters: Vec<ClusterRow>,
    violation: Option<String>,
    counts: Counts,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes of agents to synced kinds.
    pub writes: u64,
    /// Deletes among them that were carried out.
    pub deletes: u64,
    /// Commits of the hub's store that were compared with the clusters' histories.
    pub commits: u64,
}

/// Clones share what they know.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    known: Arc<Mutex<Known>>,
    members: Arc<OnceLock<Vec<Weak<Member>>>>,
    archive: MemoryArchive,
    log: Log,
    refusal: Refusal,
    /// What the policies allow.
    limit: Limit,
}

/// A row of the hub's store.
#[derive(Debug)]
struct Held {
    uid: String,
    version: u64,
    /// With its body.
    whole: bool,
}

/// A write of an agent, as the API server answered it.
pub(crate) struct Written<'a> {
    pub(crate) at: usize,
    pub(crate) request: &'a Request,
    pub(crate) status: u16,
    pub(crate) key: Key,
    /// uid under the key before, and after.
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    /// Since when the one before was there.
    pub(crate) born: Option<Millis>,
    /// Of what is there now.
    pub(crate) content: String,
    /// How often the history there was forgotten.
    pub(crate) compactions: u32,
    /// Does its answer arrive?
    pub(crate) answered: bool,
    pub(crate) now: Millis,
}

impl Oracle {
    pub(crate) fn new(archive: MemoryArchive, log: Log, refusal: Refusal, budget: u32) -> Self {
        let limit = Limit { count: budget, ..Limit::default() };
        Self { known: Arc::default(), members: Arc::default(), archive, log, refusal, limit }
    }

    pub(crate) fn watch(&self, members: &[Arc<Member>]) {
        // Set once, when the fleet is made.
        let _ = self.members.set(members.iter().map(Arc::downgrade).collect());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(&self, index: usize) -> Option<Arc<Member>> {
        self.members.get()?.get(index)?.upgrade()
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.known().violation.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.known().counts
    }

    pub(crate) fn met(&self) -> BTreeMap<&'static str, u64> {
        self.known().met.clone()
    }

    /// A situation that is counted.
    pub(crate) fn met_with(&self, situation: &'static str) {
        *self.known().met.entry(situation).or_default() += 1;
    }

    pub(crate) fn approved(&self, now: Millis) {
        self.known().approvals.push(now);
    }

    pub(crate) fn is_copy(&self, uid: &str) -> bool {
        self.known().copies.contains_key(uid)
    }

    /// Was a copy made without an answer that anybody heard? Which fields were ours is not known then.
    pub(crate) fn is_unheard(&self, uid: &str) -> bool {
        self.known().unheard.contains(uid)
    }

    /// The hub's data is gone, and what it numbered.
    pub(crate) fn hub_data_lost(&self) {
        let mut known = self.known();
        known.losses += 1;
        known.tombstones = 0;
        known.budgets.clear();
        known.stored.clear();
        known.told.clear();
        known.clusters.clear();
    }

    pub(crate) fn fail(&self, invariant: &str, what: std::fmt::Arguments<'_>) {
        let text = format!("{invariant}: {what}");
        self.log.say("VIOLATION", format_args!("{text}"));
        self.known().violation.get_or_insert(text);
    }

    /// An agent wrote an object of a synced kind.
    pub(crate) fn wrote(&self, written: &Written<'_>) {
        if written.status >= 300 || written.request.query.contains("dryRun") {
            return;
        }
        self.known().counts.writes += 1;
        if self.refusal.refuses(written.at, &written.key) {
            self.fail(
                "I16",
                format_args!("{} at {} is not accepted and was written", written.key, CLUSTERS[written.at]),
            );
        }
        match written.request.method.as_str() {
            "PATCH" => self.applied(written),
            "DELETE" => self.deleted(written),
            method => self.fail("I16", format_args!("an agent sent {method} for {}", written.key)),
        }
    }

    fn applied(&self, written: &Written<'_>) {
        let Written { at, key, before, after, request, .. } = written;
        let target = CLUSTERS[*at];
        let Some(uid) = after else { return };
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let source: Option<marks::SourceMark> = body["metadata"]["annotations"][marks::SOURCE]
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok());
        let Some(source) = source else {
            // The undo of a create that met another's object, or a release of marks.
            if before.is_some() && body["metadata"]["annotations"].is_null() {
                return;
            }
            self.fail("I9", format_args!("{key} was applied at {target} without saying where it comes from"));
            return;
        };
        if body["metadata"]["annotations"][marks::HUB] == OTHER_HUB {
            // The undo of a create that met what another hub wrote: it is compared at the end.
            return;
        }
        let Some(from) = CLUSTERS.iter().position(|name| *name == source.cluster) else {
            self.fail("I9", format_args!("{key} at {target} comes from {}", source.cluster));
            return;
        };
        let named = POLICIES.iter().any(|p| p.source == from && p.targets.contains(at) && p.covers(key));
        if !named {
            self.fail("I16", format_args!("no policy brings {key} from {} to {target}", source.cluster));
        }
        if self.is_copy(&source.uid) {
            self.fail("I9", format_args!("{key} at {target} is a copy of a copy in {}", source.cluster));
        }
        let mut known = self.known();
        if before.is_some() && !known.copies.contains_key(uid) {
            // A create may meet an object that came a moment ago; it is undone, and compared at the end.
            let guarded = !body["metadata"]["uid"].is_null();
            if !guarded {
                let at_once = written.born.is_some_and(|born| written.now - born < SAME_MOMENT_MS);
                let meeting =
                    Meeting { at_once, losses: known.losses, target: *at, compactions: written.compactions };
                known.meetings.insert(uid.clone(), meeting);
            }
            drop(known);
            if guarded && !self.is_forgotten(uid, written.compactions) {
                self.fail("I6", format_args!("{key} at {target} is not ours and was written"));
            }
            return;
        }
        if before.is_none() && !written.answered {
            known.unheard.insert(uid.clone());
        }
        known.copies.insert(
            uid.clone(),
            Copy {
                target: *at,
                key: key.clone(),
                source: source.uid,
                source_cluster: from,
                content: written.content.clone(),
            },
        );
    }

    /// Nobody can tell that it is not a copy (docs/reliability.md, "What cannot be promised"): it was made in the very moment of
    /// the create that met it, and the history that would tell, or the hub's data, is gone.
    fn is_forgotten(&self, uid: &str, compactions: u32) -> bool {
        let known = self.known();
        let gone = |meeting: &Meeting| meeting.losses < known.losses || meeting.compactions < compactions;
        known.meetings.get(uid).is_some_and(|meeting| meeting.at_once && gone(meeting))
    }

    /// A create of ours met it, and that cannot be taken back: its history was compacted first, so a person has to look, or
    /// nobody can tell.
    pub(crate) fn may_keep_marks(&self, uid: &str, conflict: bool) -> bool {
        let Some(meeting) = self.known().meetings.get(uid).copied() else { return false };
        let Some(member) = self.member(meeting.target) else { return false };
        let compactions = member.with_journal(|journal| journal.compactions);
        if conflict && compactions > meeting.compactions {
            self.met_with("an object that a create met, left to a person");
            return true;
        }
        self.is_forgotten(uid, compactions)
    }

    fn deleted(&self, written: &Written<'_>) {
        let Written { at, key, before, request, now, .. } = written;
        let target = CLUSTERS[*at];
        self.known().counts.deletes += 1;
        let options: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let uid = options["preconditions"]["uid"].as_str().unwrap_or_default();
        let version = options["preconditions"]["resourceVersion"].as_str().unwrap_or_default();
        if uid.is_empty() || version.is_empty() || options["propagationPolicy"] != "Background" {
            self.fail("I4", format_args!("{key} at {target} was deleted with {options}"));
            return;
        }
        if before.as_deref() != Some(uid) {
            return;
        }
        let copy = self.known().copies.get(uid).cloned();
        if copy.is_none() && self.is_forgotten(uid, written.compactions) {
            self.met_with("an object that a create met at once, before the hub's data was lost");
            return;
        }
        let Some(copy) = copy.filter(|copy| copy.target == *at) else {
            self.fail("I6", format_args!("{key} at {target}, uid {uid}, is not ours and was deleted"));
            return;
        };
        if !self.archive.has(uid, version) {
            self.fail(
                "I4",
                format_args!("{key} at {target} was deleted at {version}, which is not archived"),
            );
        }
        if let Err((invariant, why)) = self.justified(&copy, *now) {
            self.fail(invariant, format_args!("{key} at {target} was deleted: {why}"));
        }
    }

    /// Had the source of a copy gone, or was it unselected, in a way that may be followed?
    fn justified(&self, copy: &Copy, now: Millis) -> Result<(), (&'static str, String)> {
        let Some(source) = self.member(copy.source_cluster) else { return Ok(()) };
        let (name, uid) = (CLUSTERS[copy.source_cluster], &copy.source);
        let approved_since =
            |at: Millis| self.known().approvals.iter().any(|approval| *approval >= at && *approval <= now);
        source.with_journal(|journal: &Journal| {
            // A successor says whether there is to be a copy: unselected, or deleted by its user.
            let follows = |life: &&Life| life.key == copy.key && journal.lives.get(uid).is_none_or(|of| of.born() < life.born());
            let speaks = |life: &Life| match life.end {
                Some((_, by)) => by == Actor::User,
                None => life.states.iter().any(|state| !state.selected),
            };
            if journal.lives.values().filter(follows).any(speaks) {
                return Ok(());
            }
            // What it was before lockstep wrote the copy last was known then.
            let unselected = |life: &Life| life.unselected_since(&copy.content);
            let ended = |life: &Life| -> Result<(), (&'static str, String)> {
                match life.end {
                    // It was unselected before it went: the copy may be on its way out since then.
                    Some(_) if unselected(life) => Ok(()),
                    Some((at, Actor::Controller)) if !approved_since(at.ms) => Err((
                        "I7",
                        format!("its source {uid} in {name} went with its namespace or definition, and nobody approved"),
                    )),
                    Some(_) => Ok(()),
                    None if unselected(life) => Ok(()),
                    None => Err(("I3", format!("its source {uid} in {name} is there and selected"))),
                }
            };
            match (journal.lives.get(uid), journal.lost.get(uid)) {
                // What ended before a restore had ended; what was unselected before it was.
                (Some(life), Some(lost)) => ended(life).or_else(|_| ended(lost)),
                (Some(life), None) => ended(life),
                (None, Some(lost)) if ended(lost).is_ok() => Ok(()),
                (None, Some(lost)) if approved_since(lost_at(&journal.rewinds, lost)) => Ok(()),
                (None, _) if !journal.rewinds.is_empty() => {
                    Err(("I3", format!("its source {uid} in {name} was lost in a restore, and nobody approved")))
                }
                (None, _) => Err(("I6", format!("its source {uid} never was in {name}"))),
            }
        })
    }

    /// The hub committed: what its store says must be what the clusters' histories say. What a commit can have changed of
    /// that is seen by what it counted; the others are looked at now and then.
    pub(crate) fn committed(&self, reader: &mut dyn Reader, counts: &hub::Counts) {
        let (all, any, joined) = {
            let mut known = self.known();
            known.counts.commits += 1;
            let Known { compared: (before, since), met, .. } = &mut *known;
            for (situation, before, now) in [
                ("deletes held", before.held, counts.held),
                ("steps that failed", before.failed_steps, counts.failed_steps),
                ("rewinds noticed", before.rewinds, counts.rewinds),
                ("sessions begun", before.sessions, counts.sessions),
                ("namespaces whose census differed", before.census_mismatches, counts.census_mismatches),
                ("tombstones made", before.tombstones, counts.tombstones),
                ("copies deleted", before.deletes, counts.deletes),
            ] {
                // A hub that starts again counts from nothing.
                let more = now.checked_sub(before).unwrap_or(now);
                if more > 0 {
                    *met.entry(situation).or_default() += more;
                }
            }
            let took = |counts: &hub::Counts| {
                let hub::Counts { sessions, rewinds, census_mismatches, .. } = *counts;
                [sessions, rewinds, census_mismatches]
            };
            let all = took(before) != took(counts) || *since >= UNCOUNTED;
            let joined = before.sessions != counts.sessions;
            let any = all || before.batches != counts.batches;
            before.clone_from(counts);
            *since = if all { 0 } else { *since + 1 };
            (all, any, joined)
        };
        if !any {
            return;
        }
        if let Err(error) = self.compare(reader, all, joined) {
            self.fail("store", format_args!("{error}"));
        }
    }

    /// Of all watches, or of those that were told of.
    fn compare(&self, reader: &mut dyn Reader, all: bool, joined: bool) -> Result<(), StoreError> {
        if joined || self.known().clusters.is_empty() {
            let clusters = reader.clusters()?;
            self.known().clusters = clusters;
        }
        let clusters = self.known().clusters.clone();
        let at = |name: &str| CLUSTERS.iter().position(|known| *known == name);
        for cluster in &clusters {
            let Some(member) = at(cluster.name.as_str()).and_then(|index| self.member(index)) else {
                continue;
            };
            for watch in reader.watches(Some(cluster.id))? {
                let Some(kind) = Kind::of(&watch.gk.group, &watch.gk.kind) else { continue };
                let told = (watch.checkpoint.to_string(), watch.updated_at);
                let moved = self.known().told.insert(watch.id, told.clone()) != Some(told);
                if !all && !moved {
                    continue;
                }
                self.compare_watch(reader, &member, kind, &watch)?;
            }
        }
        self.compare_budgets(reader)?;
        self.compare_tombstones(reader, &clusters)
    }

    /// I7: no more deletes are granted than the policy allows, and none after a breach.
    fn compare_budgets(&self, reader: &mut dyn Reader) -> Result<(), StoreError> {
        for (policy, target, json) in reader.budgets()? {
            let Ok(budget) = serde_json::from_str::<Budget>(&json) else { continue };
            let (spent, allowed) = (budget.spent, budget.allowed(self.limit));
            let before = self.known().budgets.insert((policy.clone(), target.0), budget.clone());
            if spent > allowed {
                self.fail(
                    "I7",
                    format_args!("{policy} was granted {spent} deletes at {target}, and allows {allowed}"),
                );
            }
            let breached =
                before.filter(|before| before.latched.is_some() && before.latched == budget.latched);
            if breached.is_some_and(|before| spent > before.spent) {
                self.fail(
                    "I7",
                    format_args!(
                        "{policy} was granted deletes at {target} after a breach that nobody approved"
                    ),
                );
            }
        }
        Ok(())
    }

    /// I2: a checkpoint never runs ahead of the state that it covers.
    fn compare_watch(
        &self,
        reader: &mut dyn Reader,
        member: &Member,
        kind: Kind,
        watch: &WatchRow,
    ) -> Result<(), StoreError> {
        let rows = reader.index(watch.id, None, 10_000)?;
        let cluster = watch.cluster.0;
        {
            let mut known = self.known();
            let bodies = rows.iter().filter(|row| row.body_held);
            known.stored.extend(bodies.map(|row| (cluster, row.uid.to_string())));
        }
        let Ok(checkpoint) = watch.checkpoint.to_string().parse::<u64>() else { return Ok(()) };
        let held: BTreeMap<(&str, &str), Held> = rows
            .iter()
            .map(|row| {
                let version = row.resource_version.to_string().parse().unwrap_or(0);
                let held = Held { uid: row.uid.to_string(), version, whole: row.body_held };
                ((&*row.namespace, &*row.name), held)
            })
            .collect();
        member.with_journal(|journal| {
            // After a restore revisions count twice.
            if !journal.rewinds.is_empty() {
                return;
            }
            let covers = |key: &Key| key.kind == kind && (watch.namespace.is_empty() || watch.namespace == key.namespace);
            for (uid, life) in journal.lives.iter().filter(|(_, life)| covers(&life.key)) {
                let Some(version) = life.version_at(checkpoint) else { continue };
                let row = held.get(&(life.key.namespace.as_str(), life.key.name.as_str()));
                let ok = match row {
                    // Of what is outside the interest only changes that matter are told.
                    Some(held) if held.uid == *uid => !held.whole || held.version >= version,
                    Some(held) => held.version > version,
                    None => life.end.is_some(),
                };
                if !ok {
                    self.fail("I2", format_args!(
                        "the checkpoint {checkpoint} of {} in {} covers {} at {version}, and the store has {row:?}",
                        kind.name(), member.name(), life.key
                    ));
                }
            }
            // What an agent never saw of our own writes is asked for a moment later.
            for ((namespace, name), Held { uid, version, .. }) in held.iter().filter(|(_, held)| held.whole) {
                let gone = journal.lives.get(uid).and_then(|life| life.end).is_some_and(|(end, _)| end.revision <= checkpoint);
                if gone && *version <= checkpoint {
                    self.fail("I2", format_args!(
                        "{} {namespace}/{name} of {} ended before the checkpoint {checkpoint}, and the store has it at {version}",
                        kind.name(), member.name()
                    ));
                }
            }
        });
        Ok(())
    }

    /// I3: what has a tombstone has gone.
    fn compare_tombstones(&self, reader: &mut dyn Reader, clusters: &[ClusterRow]) -> Result<(), StoreError> {
        loop {
            let last = self.known().tombstones;
            let Some(row) = reader.tombstone(last + 1)? else { return Ok(()) };
            self.known().tombstones = row.id;
            let cluster = clusters.iter().find(|cluster| cluster.id == row.cluster);
            let index = cluster.and_then(|c| CLUSTERS.iter().position(|name| *name == c.name.as_str()));
            let Some(member) = index.and_then(|index| self.member(index)) else { continue };
            if Kind::of(&row.key.gk.group, &row.key.gk.kind).is_none() {
                continue;
            }
            let uid = row.uid.to_string();
            let went = member.with_journal(|journal| {
                let ended = |life: Option<&Life>| life.is_some_and(|life| life.end.is_some());
                let lost = journal.lost.get(&uid);
                ended(journal.lives.get(&uid))
                    || ended(lost)
                    || lost.is_some() && !journal.lives.contains_key(&uid)
            });
            if !went && matches!(row.cause, Cause::Observed | Cause::Inferred) {
                self.fail(
                    "I3",
                    format_args!("a tombstone for {} in {}, which is there", row.key, member.name()),
                );
            }
        }
    }

    /// Objects whose bodies the store had, that were selected when they went, and have no tombstone.
    pub(crate) fn unburied(&self, buried: &BTreeSet<String>, held: &BTreeSet<String>) -> Vec<String> {
        let gone: Vec<String> = {
            let known = self.known();
            let gone = known.stored.iter().map(|(_, uid)| uid);
            gone.filter(|uid| !held.contains(*uid) && !buried.contains(*uid)).cloned().collect()
        };
        let selected = |uid: &String| {
            // Of copies no last state is promised: they are made again.
            !self.is_copy(uid)
                && (0..CLUSTERS.len()).filter_map(|index| self.member(index)).any(|member| {
                    member.with_journal(|journal| {
                        let life = journal.lives.get(uid).or_else(|| journal.lost.get(uid));
                        life.is_some() && !journal.unselected.contains(uid)
                    })
                })
        };
        gone.into_iter().filter(selected).collect()
    }
}

/// Does a text with secrets in clear occur?
pub(crate) fn has_canary(bytes: &Bytes) -> bool {
    let canary = crate::objects::CANARY.as_bytes();
    let [first, ..] = canary else { return false };
    let mut rest = &bytes[..];
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(canary) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// When a life was lost: at the first restore after its last state. Later ones do not take an approval back.
fn lost_at(rewinds: &[Millis], lost: &Life) -> Millis {
    let last = lost.latest().map_or(0, |state| state.at.ms);
    rewinds.iter().copied().find(|rewind| *rewind >= last).unwrap_or(Millis::MAX)
}
