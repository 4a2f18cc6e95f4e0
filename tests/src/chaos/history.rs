//! What must hold of the past: deletes left tombstones, nothing was deleted that has its source, nobody wrote to sources.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::compare::{Live, mark_of};
use super::fleet::{Fleet, HubClient};
use super::inject::History;
use super::journal::{Entry, Journal, Operation, Outcome};
use super::knowledge::{Known, KnownObjects};
use super::objects::{DOOMED, Kind, POLICIES, Policy, Slot};
use super::removals::{Removals, Source};
use crate::testbed::CLUSTERS;

/// An operation without an answer may be carried out this much later, by a server that was frozen.
const LATE_MS: u64 = 30_000;

/// What was found, and how much was looked at.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) differences: Vec<String>,
    pub(super) tombstones_required: u64,
    pub(super) deletes_by_lockstep: u64,
    pub(super) sources_compared: u64,
}

/// Everything about the past; `decided_ms`: since when a person has decided what was held.
pub(super) async fn past(
    fleet: &Fleet,
    history: &History,
    journal: &Journal,
    known: &KnownObjects,
    decided_ms: u64,
) -> Result<Past> {
    let entries = journal.entries();
    let look = Look {
        hub: fleet.hub_client()?,
        live: Live::read(fleet).await?,
        removals: Removals { entries: &entries, history },
        began_ms: journal.began_ms,
        decided_ms,
    };
    let mut past = Past::default();
    look.tombstones(known, &mut past).await?;
    for policy in &POLICIES {
        for target in policy.targets {
            look.deletes(policy, *target, &mut past).await?;
        }
    }
    sources(&look.live, history, &entries, &mut past);
    Ok(past)
}

struct Look<'a> {
    hub: HubClient,
    live: Live,
    removals: Removals<'a>,
    began_ms: u64,
    decided_ms: u64,
}

impl Look<'_> {
    /// Whatever the hub surely knew and is gone has a tombstone with its uid.
    async fn tombstones(&self, known: &KnownObjects, past: &mut Past) -> Result<()> {
        let mut cache = BTreeMap::new();
        for ((cluster, uid), object) in known {
            let Known { kind, namespace, name, at_ms } = object;
            let policy = POLICIES.iter().find(|policy| policy.source == *cluster && policy.kind == *kind);
            let policy = policy.context("what is known belongs to a policy")?;
            let forgotten = self.removals.history.forgotten.iter().any(|forgotten| {
                forgotten.at_ms >= *at_ms && forgotten.policy.is_none_or(|name| name == policy.name)
            });
            let source = Source { policy, uid, namespace, name };
            // An unselected object is known by its key alone, and leaves no tombstone.
            if self.live.has_uid(*cluster, *kind, uid) || forgotten || self.removals.unselected(&source) {
                continue;
            }
            past.tombstones_required += 1;
            let place = (*cluster, *kind, namespace.clone(), name.clone());
            if !cache.contains_key(&place) {
                let kept = tombstones_of(&self.hub, *cluster, *kind, namespace, name).await?;
                let uids = kept.iter().filter_map(|item| item["uid"].as_str().map(str::to_owned));
                cache.insert(place.clone(), uids.collect::<BTreeSet<String>>());
            }
            if !cache.get(&place).is_some_and(|uids| uids.contains(uid)) {
                past.differences.push(self.without_tombstone(*cluster, uid, object));
            }
        }
        Ok(())
    }

    fn without_tombstone(&self, cluster: usize, uid: &str, object: &Known) -> String {
        let Known { kind, namespace, name, at_ms } = object;
        let mut entries = self.removals.entries.iter();
        let how = entries.find(|entry| entry.operation == Operation::Delete && entry.uid == uid);
        let how = how.map_or("not deleted by the writer itself".to_owned(), |entry| {
            format!("its delete at {} ms was {:?}", entry.at_ms, entry.outcome)
        });
        format!(
            "{} {namespace}/{name} ({uid}) of {} was shown by the hub at {at_ms} ms, is gone, and has no tombstone; {how}",
            kind.name(),
            CLUSTERS[cluster]
        )
    }

    /// Whatever lockstep deleted at a target had lost its source, or been unselected, at some time. What went for another
    /// reason than a delete of its own (with its namespace or definition, or in a rewind) was held until somebody decided.
    async fn deletes(&self, policy: &Policy, target: usize, past: &mut Past) -> Result<()> {
        for Slot { kind, namespace, name, .. } in policy.slots() {
            for item in tombstones_of(&self.hub, target, kind, namespace, &name).await? {
                if item["cause"] != "Lockstep" || item["deleted"] != true {
                    continue;
                }
                past.deletes_by_lockstep += 1;
                let id = item["id"].as_i64().context("a tombstone's number")?;
                let shown = self.hub.get(&format!("tombstones/{id}")).await?;
                let mark = mark_of(&shown["body"]);
                let Some(uid) = mark["uid"].as_str() else {
                    past.differences.push(format!("tombstone {id} is of a copy without marks: {item}"));
                    continue;
                };
                let source = Source { policy, uid, namespace, name: &name };
                let deleted_ms =
                    item["deletedAtMs"].as_u64().context("a time")?.saturating_sub(self.began_ms);
                let what = format!(
                    "lockstep deleted {} {namespace}/{name} at {} at {deleted_ms} ms (tombstone {id})",
                    kind.name(),
                    CLUSTERS[target]
                );
                if self.live.has_uid(policy.source, kind, uid) && !self.removals.ever(&source) {
                    past.differences
                        .push(format!("{what}, although its source {uid} was there all the time"));
                }
                let decided = deleted_ms >= self.decided_ms;
                if !decided && !self.removals.one_by_one(&source, deleted_ms) {
                    past.differences.push(format!(
                        "{what} before anybody approved, and nobody had deleted its source {uid} by itself"
                    ));
                }
            }
        }
        Ok(())
    }
}

async fn tombstones_of(
    hub: &HubClient,
    cluster: usize,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<Vec<Value>> {
    let (cluster, kind) = (CLUSTERS[cluster], kind.full_name());
    let path =
        format!("tombstones?cluster={cluster}&kind={kind}&namespace={namespace}&name={name}&limit=1000");
    hub.items(&path).await
}

/// Sources hold what the writer wrote last, where nothing took them back and no answer was lost.
fn sources(live: &Live, history: &History, entries: &[Entry], past: &mut Past) {
    for policy in &POLICIES {
        for slot in policy.slots() {
            let mut state = None;
            let mut doubtful_until = 0;
            for entry in entries.iter().filter(|entry| entry.is_of(&slot)) {
                if entry.outcome == Outcome::Unknown {
                    doubtful_until = entry.at_ms + LATE_MS;
                }
                let wanted = match entry.operation {
                    Operation::Apply { serial, .. } => Some(serial),
                    Operation::Delete => None,
                    _ => continue,
                };
                if entry.outcome == Outcome::Acknowledged {
                    state = Some((entry.at_ms, wanted));
                }
            }
            let Some((at_ms, wanted)) = state else { continue };
            let rewound = history
                .rewinds
                .iter()
                .any(|rewind| rewind.cluster == slot.cluster && rewind.restored_ms + LATE_MS > at_ms);
            let removed = (history.namespace_deleted && slot.namespace == DOOMED)
                || (slot.kind == Kind::Widget && history.definitions.contains(&slot.cluster));
            if rewound || removed || doubtful_until > at_ms {
                continue;
            }
            past.sources_compared += 1;
            let object = live.find(slot.cluster, slot.kind, slot.namespace, &slot.name);
            let held = object.and_then(|object| serial_of(slot.kind, object));
            if held != wanted {
                past.differences.push(format!(
                    "the source {} {}/{} of {} holds write {held:?}, and the writer's last was {wanted:?} at {at_ms} ms",
                    slot.kind.name(),
                    slot.namespace,
                    slot.name,
                    CLUSTERS[slot.cluster]
                ));
            }
        }
    }
}

/// The number of the write that an object holds.
fn serial_of(kind: Kind, object: &Value) -> Option<u64> {
    use base64::Engine as _;
    let text = object.pointer(kind.content())?.as_str()?;
    let text = match kind {
        Kind::Secret => {
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()?
        }
        _ => text.to_owned(),
    };
    text.strip_prefix('s')?.parse().ok()
}
