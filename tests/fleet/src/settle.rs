//! When all is in step: by the hub's status, in fact, and when nobody writes any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::chaos::compare::{Key, essence, is_copy, key_of, mark_of, shown};
use lockstep_tests::harness::eventually;
use lockstep_tests::model::serve::{Asked, Traffic};
use lockstep_tests::patience::scaled;
use serde_json::Value;

use crate::fleet::{Fleet, Member};
use crate::objects::{Kind, SOURCES, bystander, originals, policy_name};
use crate::writer::Edits;

/// So long nobody may write.
const QUIET: Duration = Duration::from_secs(4);
/// The hub shares the machine with those who look.
const REST: u32 = 4;
const SHORTEST_REST: Duration = Duration::from_millis(250);
/// Enough of what is behind to see what is wrong.
const SHOWN: usize = 10;

/// Waits until the status says that all is in step: how long that took. The sources must not change meanwhile.
pub(crate) async fn in_step(fleet: &Fleet, patience: Duration, tell: impl Fn(&str)) -> Result<Duration> {
    let began = Instant::now();
    let held: Vec<Held> = (0..SOURCES.len()).map(|source| held(&fleet.members, source)).collect();
    let mut last = String::new();
    loop {
        let looked = Instant::now();
        let Err(error) = standing(fleet, &held).await else { return Ok(began.elapsed()) };
        let text = format!("{error:#}");
        if text != last {
            tell(&format!("{:.0} s: not in step: {text}", began.elapsed().as_secs_f32()));
            last = text;
        }
        if began.elapsed() > scaled(patience) {
            let behind = behind(fleet).await.unwrap_or_default().join("\n");
            return Err(error.context(format!("not in step within {} s:\n{behind}\n", patience.as_secs())));
        }
        tokio::time::sleep((looked.elapsed() * REST).max(SHORTEST_REST)).await;
    }
}

/// How many objects of its own a source holds.
type Held = BTreeMap<Kind, usize>;

fn held(members: &[Member], source: usize) -> Held {
    let of = |member: &Member, kind| member.served.look(|server| originals(server, source, kind).len());
    let counts = |member| Kind::ALL.map(|kind| (kind, of(member, kind))).into();
    members.get(source).map(counts).unwrap_or_default()
}

/// Fails with what the status says is not in step.
async fn standing(fleet: &Fleet, held: &[Held]) -> Result<()> {
    let status = fleet.client.get("policies").await?;
    ensure!(status["findings"].as_array().is_none_or(Vec::is_empty), "findings: {}", status["findings"]);
    ensure!(status["problems"].as_array().is_none_or(Vec::is_empty), "problems: {}", status["problems"]);
    let items = status["items"].as_array().context("a list of policies")?;
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (source, held) in held.iter().enumerate() {
        let name = policy_name(source);
        let policy = items.iter().find(|item| item["name"] == name).context("a policy is not loaded")?;
        ensure!(policy["generation"] == policy["observedGeneration"], "{name} is not planned yet");
        let targets = policy["targets"].as_array().context("a list of targets")?;
        ensure!(targets.len() + 1 == fleet.members.len(), "{name} has {} targets", targets.len());
        for target in targets {
            let member = fleet.members.iter().find(|member| target["target"] == *member.name);
            for (state, count) in missing(target, held, member.context("a target")?)? {
                *sums.entry(state).or_default() += count;
            }
        }
    }
    if sums.is_empty() {
        return Ok(());
    }
    // Why, where the hub says so.
    for policy in items {
        for reason in policy["targets"].as_array().into_iter().flatten().flat_map(reasons) {
            *sums.entry(reason.0).or_default() += reason.1;
        }
    }
    let text = sums.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
    bail!("{text}")
}

/// States with their reasons, and gaps with theirs, as the status tells them of a target.
fn reasons(target: &Value) -> Vec<(String, u64)> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let reasons = target["reasons"].as_array().into_iter().flatten();
    let states = reasons.map(|reason| {
        let name = format!("{}/{}", text(reason, "state"), text(reason, "reason"));
        (name, reason["count"].as_u64().unwrap_or_default())
    });
    let gaps = target["unknown"].as_array().into_iter().flatten();
    states.chain(gaps.map(|gap| (format!("gap {} {}", text(gap, "kind"), text(gap, "reason")), 1))).collect()
}

/// Some of what is not in step, one by one.
async fn behind(fleet: &Fleet) -> Result<Vec<String>> {
    let page = fleet.client.get("placements?state=Pending,Held,Conflict,Failed,Unknown").await?;
    let items = page["items"].as_array().context("a list")?.iter().take(SHOWN);
    Ok(items.map(ToString::to_string).collect())
}

/// What is not as it should be of a policy at a target, by state.
fn missing(target: &Value, held: &Held, member: &Member) -> Result<Vec<(String, u64)>> {
    let mut found = vec![];
    if target["connected"] != true {
        found.push(("targets not connected".to_owned(), 1));
    }
    let gaps = target["unknown"].as_array().map_or(0, Vec::len);
    if gaps > 0 {
        found.push(("gaps".to_owned(), gaps as u64));
    }
    let sum = |accepted: bool| {
        let kinds = held.iter().filter(|(kind, _)| member.accepts.contains(kind) == accepted);
        kinds.map(|(_, count)| *count as u64).sum::<u64>()
    };
    for (state, count) in target["counts"].as_object().context("counts")? {
        let count = count.as_u64().unwrap_or_default();
        let wanted = match state.as_str() {
            "inStep" => sum(true),
            // What its agent does not accept.
            "blocked" => sum(false),
            _ => 0,
        };
        if count != wanted {
            found.push((format!("too many or few {state}"), count.abs_diff(wanted)));
        }
    }
    Ok(found)
}

/// Everything that differs, in sentences.
pub(crate) fn compare(members: &[Member], bystanders: &[Option<Value>], edits: &Edits) -> Vec<String> {
    let mut found = vec![];
    for (source, from) in members.iter().enumerate().take(SOURCES.len()) {
        for kind in Kind::ALL {
            let wanted = from.served.look(|server| originals(server, source, kind));
            for object in wanted.iter().filter(|object| object.to_string().contains("lockstep.dev/")) {
                found.push(format!("the source {:?} in {} has marks", key_of(object), from.name));
            }
            let wanted: BTreeMap<Key, Value> =
                wanted.into_iter().map(|object| (key_of(&object), object)).collect();
            for (_, to) in members.iter().enumerate().filter(|(index, _)| *index != source) {
                copies(source, &wanted, kind, to, &mut found);
            }
        }
    }
    for (member, before) in members.iter().zip(bystanders) {
        if member.served.look(bystander) != *before {
            found.push(format!("what no policy means was changed in {}", member.name));
        }
        for (path, count) in member.served.traffic().deleted {
            let allowed = edits.deleted.get(&path).copied().unwrap_or_default();
            if count > allowed {
                found.push(format!(
                    "{path} was deleted {count} times in {}, {allowed} times at its source",
                    member.name
                ));
            }
        }
    }
    found
}

/// The copies of one kind from one source in a cluster.
fn copies(source: usize, wanted: &BTreeMap<Key, Value>, kind: Kind, to: &Member, found: &mut Vec<String>) {
    let place = |key: &Key| format!("{} {}/{} at {}", kind.name(), key.0, key.1, to.name);
    let held = to.served.look(|server| kind.all_of(server)).into_iter();
    let held: BTreeMap<Key, Value> = held
        .filter(|object| {
            is_copy(object) && object["metadata"]["annotations"]["lockstep.dev/policy"] == policy_name(source)
        })
        .map(|object| (key_of(&object), object))
        .collect();
    if !to.accepts.contains(&kind) {
        found.extend(held.keys().map(|key| format!("{} was not accepted, and is there", place(key))));
        return;
    }
    for (key, original) in wanted {
        let Some(copy) = held.get(key) else {
            found.push(format!("{} is missing", place(key)));
            continue;
        };
        let (wanted, has) = (essence(original), essence(copy));
        if wanted != has {
            found.push(format!(
                "{} differs: the source has {}, it has {}",
                place(key),
                shown(&wanted),
                shown(&has)
            ));
        } else if mark_of(copy)["uid"] != original["metadata"]["uid"] {
            found.push(format!("{} names another source: {}", place(key), mark_of(copy)));
        }
    }
    let without = held.keys().filter(|key| !wanted.contains_key(*key));
    found.extend(without.map(|key| format!("{} has no source", place(key))));
}

/// What all servers were asked.
pub(crate) fn traffic(members: &[Member]) -> BTreeMap<Asked, u64> {
    let mut sum = BTreeMap::new();
    for member in members {
        let Traffic { requests, .. } = member.served.traffic();
        requests.into_iter().for_each(|(asked, count)| *sum.entry(asked).or_default() += count);
    }
    sum
}

/// Is it a write, and no heartbeat?
pub(crate) fn is_write(asked: &Asked) -> bool {
    !matches!(asked.verb, "get" | "list" | "watch" | "discovery") && asked.resource != "leases"
}

/// Writes that are no heartbeat.
pub(crate) fn writes(requests: &BTreeMap<Asked, u64>) -> u64 {
    requests.iter().filter(|(asked, _)| is_write(asked)).map(|(_, count)| count).sum()
}

/// Waits until nobody writes for a while.
pub(crate) async fn quiet(members: &[Member], patience: Duration) -> Result<()> {
    eventually(patience, "nothing is written any more", async || {
        let before = writes(&traffic(members));
        tokio::time::sleep(QUIET).await;
        let more = writes(&traffic(members)) - before;
        ensure!(more == 0, "{more} writes within {} s", QUIET.as_secs());
        Ok(())
    })
    .await
}
