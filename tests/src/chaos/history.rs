//! What must hold of the past: deletes left tombstones, nothing was deleted that has its source, nobody wrote to sources.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::compare::{Live, mark_of};
use super::fleet::{Fleet, HubClient};
use super::inject::History;
use super::journal::{Entry, Operation, Outcome};
use super::knowledge::{Known, KnownObjects};
use super::objects::{DOOMED, Kind, POLICIES, Policy, Slot};
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

/// Everything about the past.
pub(super) async fn past(
    fleet: &Fleet,
    history: &History,
    entries: &[Entry],
    known: &KnownObjects,
    decided_ms: u64,
) -> Result<Past> {
    let live = Live::read(fleet).await?;
    let hub = fleet.hub_client()?;
    let removals = Removals::of(entries, history);
    let mut past = Past::default();
    tombstones(&hub, &live, history, &removals, known, entries, &mut past).await?;
    for policy in &POLICIES {
        for target in policy.targets {
            deletes(&hub, &live, &removals, policy, *target, decided_ms, &mut past).await?;
        }
    }
    sources(&live, history, entries, &mut past);
    Ok(past)
}

/// What the writer and the faults took away, or out of its policy.
struct Removals<'a> {
    entries: &'a [Entry],
    /// By uid: deleted, or unselected.
    by_uid: BTreeSet<&'a str>,
    unselected: BTreeSet<&'a str>,
    history: &'a History,
}

impl<'a> Removals<'a> {
    fn of(entries: &'a [Entry], history: &'a History) -> Self {
        let (mut by_uid, mut unselected) = (BTreeSet::new(), BTreeSet::new());
        for entry in entries.iter().filter(|entry| entry.outcome != Outcome::Refused) {
            match entry.operation {
                Operation::Delete => drop(by_uid.insert(entry.uid.as_str())),
                Operation::Apply { selected: false, .. } => drop(unselected.insert(entry.uid.as_str())),
                _ => {}
            }
        }
        Self { entries, by_uid, unselected, history }
    }

    /// Was it out of its policy for a while, or may it have been?
    fn unselected(&self, policy: &Policy, uid: &str, namespace: &str, name: &str) -> bool {
        let may_have_been = |entry: &Entry| {
            entry.outcome == Outcome::Unknown
                && matches!(entry.operation, Operation::Apply { selected: false, .. })
                && (entry.cluster, entry.kind) == (policy.source, policy.kind.name())
                && (entry.namespace.as_str(), entry.name.as_str()) == (namespace, name)
        };
        self.unselected.contains(uid) || self.entries.iter().any(may_have_been)
    }

    /// Did the writer delete or unselect just this object, or may it have?
    fn one_by_one(&self, policy: &Policy, uid: &str, namespace: &str, name: &str) -> bool {
        self.by_uid.contains(uid) || self.unselected(policy, uid, namespace, name)
    }

    /// Has it been absent from its source's policy, ever?
    fn removed(&self, policy: &Policy, uid: &str, namespace: &str, name: &str) -> bool {
        let with_namespace = self.history.namespace_deleted && namespace == DOOMED;
        let with_definition =
            policy.kind == Kind::Widget && self.history.definitions.contains(&policy.source);
        with_namespace || with_definition || self.one_by_one(policy, uid, namespace, name)
    }
}

/// Whatever the hub surely knew and is gone has a tombstone with its uid.
async fn tombstones(
    hub: &HubClient,
    live: &Live,
    history: &History,
    removals: &Removals<'_>,
    known: &KnownObjects,
    entries: &[Entry],
    past: &mut Past,
) -> Result<()> {
    let mut cache = BTreeMap::new();
    for ((cluster, uid), object) in known {
        let Known { kind, namespace, name, at_ms } = object;
        let policy = POLICIES.iter().find(|policy| policy.source == *cluster && policy.kind == *kind);
        let policy = policy.context("what is known belongs to a policy")?;
        let forgotten = history.forgotten.iter().any(|forgotten| {
            forgotten.at_ms >= *at_ms && forgotten.policy.is_none_or(|name| name == policy.name)
        });
        // An unselected object is known by its key alone, and leaves no tombstone.
        if live.has_uid(*cluster, *kind, uid)
            || forgotten
            || removals.unselected(policy, uid, namespace, name)
        {
            continue;
        }
        past.tombstones_required += 1;
        let place = (*cluster, *kind, namespace.clone(), name.clone());
        if !cache.contains_key(&place) {
            let kept = tombstones_of(hub, *cluster, *kind, namespace, name).await?;
            let uids: BTreeSet<String> =
                kept.iter().filter_map(|item| item["uid"].as_str().map(str::to_owned)).collect();
            cache.insert(place.clone(), uids);
        }
        if !cache.get(&place).is_some_and(|uids| uids.contains(uid)) {
            let how = entries.iter().find(|entry| entry.operation == Operation::Delete && entry.uid == *uid);
            let how = how.map_or("not deleted by the writer itself".to_owned(), |entry| {
                format!("its delete at {} ms was {:?}", entry.at_ms, entry.outcome)
            });
            past.differences.push(format!(
                "{} {namespace}/{name} ({uid}) of {} was shown by the hub at {at_ms} ms, is gone, and has no tombstone; {how}",
                kind.name(),
                CLUSTERS[*cluster]
            ));
        }
    }
    Ok(())
}

/// Whatever lockstep deleted at a target had lost its source, or been unselected, at some time. What went for another
/// reason than a delete of its own (with its namespace or definition, or in a rewind) was held until somebody decided.
async fn deletes(
    hub: &HubClient,
    live: &Live,
    removals: &Removals<'_>,
    policy: &Policy,
    target: usize,
    decided_ms: u64,
    past: &mut Past,
) -> Result<()> {
    for Slot { kind, namespace, name, .. } in policy.slots() {
        for item in tombstones_of(hub, target, kind, namespace, &name).await? {
            if item["cause"] != "Lockstep" || item["deleted"] != true {
                continue;
            }
            past.deletes_by_lockstep += 1;
            let id = item["id"].as_i64().context("a tombstone's number")?;
            let shown = hub.get(&format!("tombstones/{id}")).await?;
            let mark = mark_of(&shown["body"]);
            let uid = mark["uid"].as_str().unwrap_or_default();
            if uid.is_empty() {
                past.differences.push(format!("tombstone {id} is of a copy without marks: {item}"));
                continue;
            }
            let what = format!("{} {namespace}/{name} at {}", kind.name(), CLUSTERS[target]);
            let removed = removals.removed(policy, uid, namespace, &name);
            if live.has_uid(policy.source, kind, uid) && !removed {
                past.differences.push(format!(
                    "lockstep deleted {what} although its source {uid} was there all the time; tombstone {id}"
                ));
            }
            let decided = item["deletedAtMs"].as_u64().context("a time")? >= decided_ms;
            if !decided && !removals.one_by_one(policy, uid, namespace, &name) {
                past.differences.push(format!(
                    "lockstep deleted {what}, whose source {uid} nobody deleted by itself, before anybody approved; tombstone {id}"
                ));
            }
        }
    }
    Ok(())
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
