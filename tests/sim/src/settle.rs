//! The end of a history: nothing is disturbed any more, and everything must come in step and be quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use lockstep_engine::status::State;
use lockstep_engine::{GroupKind, ObjectKey, marks};
use lockstep_hub::store::{Phase, PlacementFilter, PlacementRow, Reader, TombstoneFilter};
use serde_json::Value;

use crate::journal::Actor;
use crate::link::Mode;
use crate::objects::{CLUSTERS, Key, Kind, NAMESPACES, OTHER_HUB, POLICIES, SLOTS, key};
use crate::oracle::has_canary;
use crate::world::World;

/// Everything must be in step within this, ms: the longest wait of a write that was refused is a minute.
const BOUND_MS: i64 = 600_000;
/// When a person looks into conflicts, where the hub's data was lost.
const PERSON_MS: i64 = 90_000;
/// A target that nothing is wrong with comes in step within this, whatever is wrong with others, ms.
const PACE_MS: i64 = 5_000;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Nobody writes anything for so long afterwards (I8).
const QUIET: Duration = Duration::from_secs(90);

/// What the hub has stored, if it runs.
type Hub = Option<Box<dyn Reader>>;

/// Heals, waits, compares.
pub(crate) async fn settle(world: &mut World) -> Result<()> {
    world.heal().await?;
    let begun = world.log.elapsed();
    loop {
        tokio::time::sleep(LOOK).await;
        for cluster in 0..CLUSTERS.len() {
            // A namespace may have been on its way out.
            NAMESPACES.iter().for_each(|name| world.create_namespace(cluster, name));
            world.create_definition(cluster);
        }
        world.approve(true).await;
        if world.is_over() {
            return Ok(());
        }
        let differences = differences(world);
        if differences.is_empty() {
            break;
        }
        if world.log.elapsed() - begun > PERSON_MS {
            resolve(world);
        }
        if world.log.elapsed() - begun > BOUND_MS {
            let stuck = placements(world);
            world.log.say("end", format_args!("{stuck}"));
            world.oracle.fail("convergence", format_args!("{}", differences.join("; ")));
            return Ok(());
        }
    }
    quiet(world).await;
    if !world.is_over() {
        secrets(world);
        buried(world);
        stored(world);
        others(world);
    }
    Ok(())
}

/// I6: what another hub wrote is as that hub wrote it.
fn others(world: &World) {
    let mut reader = world.hub.reader();
    for (at, uid) in world.others.keys() {
        if let Some(what) = changed(world, &mut reader, *at, uid) {
            world.oracle.fail("I6", format_args!("{what}"));
        }
    }
}

/// What another hub wrote, and is not as that hub wrote it.
fn changed(world: &World, hub: &mut Hub, at: usize, uid: &String) -> Option<String> {
    let contents = world.others.get(&(at, uid.clone()))?;
    let life = world.members[at].with_journal(|journal| journal.lives.get(uid).cloned());
    let life = life.filter(|life| life.end.is_none())?;
    let content = life.latest().map(|state| state.content.clone()).unwrap_or_default();
    let mark = world.members[at].with(Actor::User, |server, _| {
        let (kind, key) = (life.key.kind, &life.key);
        let object = server.find(kind.api_version(), kind.name(), &key.namespace, &key.name)?;
        object["metadata"]["annotations"][marks::HUB].as_str().map(str::to_owned)
    });
    if contents.contains(&content) && mark.as_deref() == Some(OTHER_HUB) {
        return None;
    }
    let conflict = placement(hub, at, &life.key).is_some_and(|row| row.status.state == State::Conflict);
    if world.oracle.may_keep_marks(uid, conflict) {
        return None;
    }
    Some(format!("{} of {OTHER_HUB} at {} is {content} of {mark:?}", life.key, CLUSTERS[at]))
}

/// I12: while one target is frozen the other comes in step at its own pace, and the frozen one afterwards.
pub(crate) async fn one_frozen(world: &mut World) {
    let (policy, kind) = (&POLICIES[0], Kind::ConfigMap);
    let [swift, frozen] = [policy.targets[0], policy.targets[1]];
    world.log.say("frozen", format_args!("{} answers nothing", CLUSTERS[frozen]));
    world.link(frozen, false).set(Mode::Hole);
    for slot in 0..SLOTS {
        world.write(policy.source, kind, slot, true);
    }
    let off = |world: &World, target| -> Vec<String> {
        let keys = (0..SLOTS).map(|slot| key(policy.source, kind, slot));
        let written = |key: &Key| {
            world.members[policy.source].with_journal(|journal| {
                journal.live(key).and_then(|(_, life)| Some(life.latest()?.content.clone()))
            })
        };
        let wanted = keys.filter_map(|key| Some((written(&key)?, key)));
        let mut hub = world.hub.reader();
        wanted
            .filter_map(|(content, key)| difference(world, &mut hub, policy.name, &key, &content, target))
            .collect()
    };
    for (target, bound, invariant) in [(swift, PACE_MS, "I12"), (frozen, BOUND_MS, "convergence")] {
        let begun = world.log.elapsed();
        while !world.is_over() && !off(world, target).is_empty() {
            if world.log.elapsed() - begun > bound {
                let off = off(world, target).join("; ");
                world.oracle.fail(invariant, format_args!("with {} frozen: {off}", CLUSTERS[frozen]));
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        world.link(frozen, false).set(Mode::Open);
    }
    world.oracle.met_with("a target frozen while another was written to");
}

/// What is not as the policies say. Objects in the way of copies are removed, as their owners would.
fn differences(world: &World) -> Vec<String> {
    let mut differences = Vec::new();
    let mut hub = world.hub.reader();
    for policy in &POLICIES {
        let sources: Vec<(Key, String)> = world.members[policy.source].with_journal(|journal| {
            let wanted =
                journal.current.iter().filter(|(key, uid)| policy.covers(key) && !world.oracle.is_copy(uid));
            wanted
                .filter_map(|(key, uid)| {
                    let state = journal.lives.get(uid)?.latest()?;
                    (state.selected && !state.deleting).then(|| (key.clone(), state.content.clone()))
                })
                .collect()
        });
        // What a create met, and was not taken back, is no source until a person has looked (I9).
        let is_ours = |(key, _): &(Key, String)| has_genuine_marks(world, policy.source, key);
        let sources: Vec<(Key, String)> = sources.into_iter().filter(|source| !is_ours(source)).collect();
        for target in policy.targets {
            for (key, content) in &sources {
                differences.extend(difference(world, &mut hub, policy.name, key, content, *target));
            }
        }
    }
    differences.extend(leftovers(world, &mut hub));
    differences.extend(unknown(world, &mut hub));
    differences
}

/// What the hub cannot know yet.
fn unknown(world: &World, hub: &mut Hub) -> Option<String> {
    let away = CLUSTERS.len() - world.hub.sessions();
    if away > 0 {
        return Some(format!("{away} agents are not connected"));
    }
    let watches = hub.as_mut()?.watches(None).unwrap_or_default();
    let watch = watches.iter().find(|watch| watch.phase != Phase::Live)?;
    Some(format!("the watch of {} is {:?}", watch.gk, watch.phase))
}

fn difference(
    world: &World,
    hub: &mut Hub,
    policy: &str,
    key: &Key,
    content: &str,
    target: usize,
) -> Option<String> {
    let name = CLUSTERS[target];
    let there = world.members[target].with_journal(|journal| {
        let (uid, life) = journal.live(key)?;
        Some((uid.clone(), life.by, life.latest()?.content.clone()))
    });
    match there {
        // Something of another hub is in the way, and stays as it is.
        Some((uid, _, _)) if world.others.contains_key(&(target, uid.clone())) => {
            changed(world, hub, target, &uid)
        }
        None if world.refusal.refuses(target, key) => refused(world, hub, key, target),
        None => Some(format!("{policy}: {key} is missing at {name}")),
        // An object of others that nobody can tell from a copy, with what it had besides.
        Some((uid, _, _)) if world.oracle.passes_for_a_copy(&uid) => None,
        Some((uid, _, _)) if !world.oracle.is_copy(&uid) => {
            if !has_genuine_marks(world, target, key) {
                remove(world, target, key);
            }
            Some(format!("{policy}: {key} at {name} is not ours"))
        }
        Some((_, _, found)) if found != content => {
            let row = placement(hub, target, key);
            if row.is_some_and(|row| row.status.state == State::Conflict)
                && !has_genuine_marks(world, target, key)
            {
                // Its marks were taken while the hub could not hear of it.
                remove(world, target, key);
            }
            Some(format!("{policy}: {key} at {name} is {found}, its source {content}"))
        }
        // As it is to be, and the hub has to know that: it would not follow the next change.
        Some(_) => {
            let status = placement(hub, target, key)?.status;
            let wrong = status.state != State::InStep && has_genuine_marks(world, target, key);
            wrong.then(|| {
                format!("{policy}: {key} at {name} is in step and says {}: {}", status.state, status.reason)
            })
        }
    }
}

/// I16: what an agent does not accept says so.
fn refused(world: &World, hub: &mut Hub, key: &Key, target: usize) -> Option<String> {
    let name = CLUSTERS[target];
    let reason = placement(hub, target, key).map(|row| row.status.reason);
    if reason.as_deref() == Some("NotAccepted") {
        world.oracle.met_with("a copy that an agent does not accept, and says so");
        return None;
    }
    Some(format!("{key} at {name} is not accepted and says {reason:?}"))
}

/// What the hub says of a copy.
fn placement(hub: &mut Hub, target: usize, key: &Key) -> Option<PlacementRow> {
    let reader = hub.as_mut()?;
    let clusters = reader.clusters().unwrap_or_default();
    let id = clusters.iter().find(|cluster| cluster.name.as_str() == CLUSTERS[target])?.id;
    let gk = GroupKind::new(key.kind.group(), key.kind.name());
    reader.placement(id, &ObjectKey::new(gk, &key.namespace, &key.name)).ok().flatten()
}

/// A person deletes it.
fn remove(world: &World, target: usize, key: &Key) {
    let kind = key.kind;
    world.members[target].with(Actor::User, |server, now| {
        let path = server.path(kind.api_version(), kind.name(), &key.namespace, &key.name)?;
        Some(server.user_delete(now, &path))
    });
}

/// Nobody remembers which fields of a copy were ours when the hub's data is lost, or when nobody heard of its creation. Where
/// somebody changed some of them and the source changed, too, the conflict is a person's to resolve, who deletes the copy.
/// So is a field that others took again and again.
fn resolve(world: &World) {
    let Some(mut reader) = world.hub.reader() else { return };
    let filter = PlacementFilter { states: vec![State::Conflict], ..PlacementFilter::default() };
    let clusters = reader.clusters().unwrap_or_default();
    for row in reader.placements(&filter, None, 10_000).unwrap_or_default() {
        let cluster = clusters.iter().find(|cluster| cluster.id == row.target);
        let at = cluster.and_then(|c| CLUSTERS.iter().position(|name| *name == c.name.as_str()));
        let (Some(at), Some(kind)) = (at, Kind::of(&row.key.gk.group, &row.key.gk.kind)) else { continue };
        let (namespace, name) = (row.key.namespace.to_string(), row.key.name.to_string());
        let key = Key { kind, namespace, name };
        let there = world.members[at].with_journal(|journal| {
            let oracle = &world.oracle;
            journal.live(&key).map(|(uid, life)| (oracle.is_copy(uid), life.touched, oracle.is_unheard(uid)))
        });
        let (ours, touched, unheard) = there.unwrap_or_default();
        if ours && touched && row.status.reason == "Contested" {
            world.oracle.met_with("a contest over fields that a person ended");
        } else if ours && (row.status.reason == "Exists" || !touched) || !(world.forgot[at] || unheard) {
            // What lockstep made and does not know again, or what nobody else wrote to, is no person's to resolve.
            continue;
        }
        world.members[at].with(Actor::User, |server, now| {
            let path = server.path(kind.api_version(), kind.name(), &row.key.namespace, &row.key.name)?;
            Some(server.user_delete(now, &path))
        });
    }
}

/// Did lockstep write this, and nobody take its marks?
fn has_genuine_marks(world: &World, target: usize, key: &Key) -> bool {
    let kind = key.kind;
    world.members[target].with(Actor::User, |server, _| {
        let object = server.find(kind.api_version(), kind.name(), &key.namespace, &key.name);
        let cluster = server.find("v1", "Namespace", "", "kube-system");
        object.zip(cluster).is_some_and(|(object, cluster)| {
            let annotations = &object["metadata"]["annotations"];
            let mark: Value = annotations[marks::TARGET]
                .as_str()
                .and_then(|mark| serde_json::from_str(mark).ok())
                .unwrap_or_default();
            // What somebody carried here names the cluster that it comes from.
            mark["name"] == key.name
                && mark["cluster"] == cluster["metadata"]["uid"]
                && annotations[marks::HUB] != OTHER_HUB
        })
    })
}

/// Copies without a source.
fn leftovers(world: &World, hub: &mut Hub) -> Vec<String> {
    if world.released {
        return under_way(world);
    }
    let mut left = Vec::new();
    for (index, member) in world.members.iter().enumerate() {
        let copies: Vec<Key> = member.with_journal(|journal| {
            let copies = journal.current.iter().filter(|(_, uid)| world.oracle.is_copy(uid));
            copies.map(|(key, _)| key.clone()).collect()
        });
        for key in copies {
            let claimed = POLICIES.iter().any(|policy| {
                policy.targets.contains(&index)
                    && policy.covers(&key)
                    && world.members[policy.source].with_journal(|journal| {
                        let state = journal.live(&key).and_then(|(_, life)| life.latest());
                        state.is_some_and(|state| state.selected && !state.deleting)
                    })
            });
            if !claimed {
                if !has_genuine_marks(world, index, &key) && placement(hub, index, &key).is_none() {
                    // The marks were taken before the hub heard of its own write: nobody's, but a person's.
                    remove(world, index, &key);
                }
                left.push(format!("{key} at {} has no source", CLUSTERS[index]));
            }
        }
    }
    left
}

/// What the hub still means to write: where leftovers are nobody's, those that are not may take a minute more.
fn under_way(world: &World) -> Vec<String> {
    let Some(mut reader) = world.hub.reader() else { return vec!["the hub does not run".to_owned()] };
    let states = vec![State::Pending, State::Failed];
    let filter = PlacementFilter { states, ..PlacementFilter::default() };
    let rows = reader.placements(&filter, None, 10_000).unwrap_or_default();
    rows.iter().map(|row| format!("{} at {} is {}", row.key, row.target, row.status.reason)).collect()
}

/// I8: in step means that nothing is written.
async fn quiet(world: &World) {
    let writes = || world.members.iter().map(|member| member.writes()).sum::<u64>();
    // What is under way may end.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = writes();
    // What others do to fields of theirs is nobody else's business.
    for policy in &POLICIES {
        for (kind, target) in
            policy.kinds.iter().flat_map(|kind| policy.targets.iter().map(move |to| (*kind, *to)))
        {
            (0..SLOTS).for_each(|slot| world.annotate(policy.source, kind, slot, target, "after all"));
        }
    }
    tokio::time::sleep(QUIET).await;
    let after = writes();
    if before != after {
        world.oracle.fail("I8", format_args!("{} writes although everything was in step", after - before));
    }
    for (index, agent) in world.agents.iter().enumerate() {
        if agent.has_ended() {
            world.oracle.fail("process", format_args!("the agent of {} ended by itself", CLUSTERS[index]));
        }
    }
}

/// I13: no value of a Secret in clear on the hub's disk, in the archive or in the log.
fn secrets(world: &World) {
    let places = [("the hub's disk", world.hub.on_disk()), ("the archive", world.archive.contents())];
    for (place, contents) in places {
        if contents.iter().any(has_canary) {
            world.oracle.fail("I13", format_args!("a Secret's value lies on {place} in clear"));
        }
    }
}

/// Nothing whose last state was held is gone without a tombstone.
fn buried(world: &World) {
    let Some(mut reader) = world.hub.reader() else { return };
    let filter = TombstoneFilter { undeleted: true, ..TombstoneFilter::default() };
    let Ok(tombstones) = reader.tombstones(&filter, 100_000) else { return };
    let buried: BTreeSet<String> = tombstones.iter().map(|row| row.uid.to_string()).collect();
    let mut held = BTreeSet::new();
    for watch in reader.watches(None).unwrap_or_default() {
        if Kind::of(&watch.gk.group, &watch.gk.kind).is_some() {
            let rows = reader.index(watch.id, None, 100_000).unwrap_or_default();
            held.extend(rows.into_iter().map(|row| row.uid.to_string()));
        }
    }
    // Policies that were away took their interest, and what it held, with them.
    let unburied = if world.released { Vec::new() } else { world.oracle.unburied(&buried, &held) };
    if !unburied.is_empty() {
        world.oracle.fail("nothing is lost", format_args!("no tombstone for {}", unburied.join(", ")));
    }
}

/// I2: the store has what the clusters have, and nothing else, wherever a watch is live.
fn stored(world: &World) {
    let Some(mut reader) = world.hub.reader() else { return };
    for cluster in reader.clusters().unwrap_or_default() {
        let Some(at) = CLUSTERS.iter().position(|name| *name == cluster.name.as_str()) else { continue };
        for watch in reader.watches(Some(cluster.id)).unwrap_or_default() {
            let Some(kind) = Kind::of(&watch.gk.group, &watch.gk.kind) else { continue };
            let rows = reader.index(watch.id, None, 100_000).unwrap_or_default();
            let held: BTreeMap<Key, String> = rows
                .into_iter()
                .map(|row| (Key { kind, namespace: row.namespace, name: row.name }, row.uid.to_string()))
                .collect();
            let covers = |key: &Key| {
                key.kind == kind && (watch.namespace.is_empty() || *watch.namespace == key.namespace)
            };
            let there: BTreeMap<Key, String> = world.members[at].with_journal(|journal| {
                let there = journal.current.iter().filter(|(key, _)| covers(key));
                there.map(|(key, uid)| (key.clone(), uid.clone())).collect()
            });
            let keys: BTreeSet<&Key> = held.keys().chain(there.keys()).collect();
            for key in keys.into_iter().filter(|key| held.get(*key) != there.get(*key)) {
                let (ours, theirs) = (held.get(key), there.get(key));
                let (name, phase) = (CLUSTERS[at], watch.phase);
                let text = format_args!(
                    "of {key} in {name} the store has {ours:?}, and there is {theirs:?}; its watch is {phase:?}"
                );
                world.oracle.fail("I2", text);
            }
        }
    }
}

/// Where everything stands that is not in step.
fn placements(world: &World) -> String {
    let Some(mut reader) = world.hub.reader() else { return "the hub does not run".to_owned() };
    let rows = reader.placements(&PlacementFilter::default(), None, 10_000).unwrap_or_default();
    let rows = rows.iter().filter(|row| row.status.reason != "InStep").map(|row| {
        let status = &row.status;
        format!("{} at {}: {}/{}: {}", row.key, row.target, status.state, status.reason, status.message)
    });
    rows.collect::<Vec<_>>().join("\n")
}
