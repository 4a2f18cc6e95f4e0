//! What the hub commits, and what it kept of what is gone: judged by what happened in the clusters.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_engine::budget::Budget;
use lockstep_hub::core as hub;
use lockstep_hub::store::{Cause, ClusterRow, Reader, StoreError, WatchRow};

use super::{Known, Oracle};
use crate::journal::Life;
use crate::member::Member;
use crate::objects::{CLUSTERS, Key, Kind};

/// After so many commits that counted nothing the store is compared all the same.
const UNCOUNTED: u64 = 32;

/// A row of the hub's store.
#[derive(Debug)]
struct Held {
    uid: String,
    version: u64,
    /// With its body.
    whole: bool,
}

impl Oracle {
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
