//! What becomes of each object, by what is there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::body::{self, Likeness, Setting, carry, likeness};
use super::collect::{Member, owner_key, place};
use super::{
    Found, Item, Kept, Live, Needs, OnConflict, Options, Owner, Served, Situation, Verdict, references,
    versions,
};
use crate::identity::{GroupKind, ObjectKey, ResourceVersion, Uid};

/// Names tried for what comes back beside something else.
const MAX_NAMES: usize = 9;

/// One item per member; incomplete where `needs` says so.
pub(super) fn items(
    members: &[Member<'_>],
    options: &Options,
    situation: &Situation,
    needs: &mut Needs,
) -> Vec<Item> {
    let defined: BTreeMap<GroupKind, Served> = members
        .iter()
        .filter(|m| m.rests.is_none())
        .filter_map(|member| definition(&member.kept.body))
        .collect();
    let keys: BTreeSet<&ObjectKey> = members.iter().filter(|m| m.rests.is_none()).map(|m| &m.key).collect();
    let mut judge = Judge { options, situation, needs, defined, keys, taken: BTreeSet::new() };
    members.iter().map(|member| judge.item(member)).collect()
}

/// The kind that a CustomResourceDefinition defines.
fn definition(body: &Value) -> Option<(GroupKind, Served)> {
    if body.get("kind").and_then(Value::as_str) != Some("CustomResourceDefinition") {
        return None;
    }
    let spec = body.get("spec")?;
    let group = spec.get("group")?.as_str()?;
    let gk = GroupKind::new(group, spec.pointer("/names/kind")?.as_str()?);
    let served = |version: &&Value| version.get("served") == Some(&Value::Bool(true));
    let listed = spec.get("versions").and_then(Value::as_array).into_iter().flatten().filter(served);
    let versions = listed.filter_map(|v| Some(format!("{group}/{}", v.get("name")?.as_str()?))).collect();
    let namespaced = spec.get("scope").and_then(Value::as_str) == Some("Namespaced");
    Some((gk, Served { versions, namespaced }))
}

struct Judge<'a, 'm> {
    options: &'a Options,
    situation: &'a Situation,
    needs: &'m mut Needs,
    /// Kinds that the restore itself defines.
    defined: BTreeMap<GroupKind, Served>,
    /// What is written.
    keys: BTreeSet<&'a ObjectKey>,
    /// Keys at the destination that an item has already.
    taken: BTreeSet<ObjectKey>,
}

impl<'a> Judge<'a, '_> {
    fn item(&mut self, member: &Member<'_>) -> Item {
        let mut item = Item {
            tombstone: member.kept.tombstone,
            origin: member.kept.key.clone(),
            key: member.key.clone(),
            verdict: Verdict::Blocked,
            why: String::new(),
            dependency: member.dependency,
            words: Vec::new(),
            body: None,
            owners: Vec::new(),
            found: None,
            rank: 0,
            untried: false,
        };
        if let Some((verdict, why)) = &member.rests {
            (item.verdict, item.why) = (*verdict, why.clone());
            return item;
        }
        if !self.taken.insert(member.key.clone()) {
            (item.verdict, item.why) =
                (Verdict::Conflict, "another object of this restore goes there".to_owned());
            return item;
        }
        (item.verdict, item.why) = self.verdict(member, &mut item).unwrap_or_else(|rests| rests);
        item
    }

    /// The verdict and a sentence; as an error, where nothing is written.
    fn verdict(
        &mut self,
        member: &Member<'_>,
        item: &mut Item,
    ) -> Result<(Verdict, String), (Verdict, String)> {
        let blocked = |why: String| (Verdict::Blocked, why);
        let gk = &member.key.gk;
        let served = self.situation.served.get(gk).or_else(|| self.defined.get(gk));
        let served = served.ok_or_else(|| {
            blocked(format!("{gk} is not served here: restore its definition too, or install what serves it"))
        })?;
        let kept_version = member.kept.body.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let version = versions::choose(gk, kept_version, &served.versions).map_err(blocked)?;
        for origin in references(gk, &member.kept.key.namespace, &member.kept.body) {
            place(&super::collect::destination(&origin, self.options, true), self.situation, self.needs);
        }
        let controlled = self.owners(member, item);
        let setting = Setting {
            options: self.options,
            same_cluster: self.situation.same_cluster,
            same_place: self.situation.same_cluster && member.key == member.kept.key,
            volume_waits: self.volume_waits(member),
        };
        let (wanted, words) = body::desired(member.kept, &member.key, &version, setting);
        item.words.extend(words);
        item.body = Some(wanted);
        if !self.situation.served.contains_key(gk) {
            item.untried = true;
            return Ok((Verdict::Create, "once its definition is there".to_owned()));
        }
        let Some(place) = place(&member.key, self.situation, self.needs) else {
            return Err(blocked(String::new())); // to be looked at
        };
        if let (Some(policy), false) = (&place.policy, self.options.force) {
            return Err(blocked(format!(
                "policy `{policy}` looks after it here, and goes by its source: restore it there, and the sync \
                 brings it back (--force restores it here; the policy then reports a conflict with it)"
            )));
        }
        if let (Some(controller), false) = (controlled, self.options.force) {
            return Err((Verdict::Skip, format!("{controller} is there, and makes its own")));
        }
        match &place.live {
            Live::Unknown(why) => Err(blocked(format!("what is there cannot be told: {why}"))),
            Live::Absent => Ok((Verdict::Create, String::new())),
            Live::Present(live) => self.present(member, item, live, setting),
        }
    }

    fn present(
        &mut self,
        member: &Member<'_>,
        item: &mut Item,
        live: &Value,
        setting: Setting<'_>,
    ) -> Result<(Verdict, String), (Verdict, String)> {
        let Some(wanted) = item.body.clone() else { return Err((Verdict::Blocked, String::new())) };
        let gk = &member.key.gk;
        item.found = Some(found(live));
        if is_deleting(live) {
            let why =
                "what is there is being deleted, and waits for its finalizers: restore it when it is gone";
            return Err((Verdict::Blocked, why.to_owned()));
        }
        let updates = self.options.on_conflict == OnConflict::Update;
        let paths = match likeness(gk, &wanted, live, setting) {
            Likeness::Same => return Ok((Verdict::InPlace, String::new())),
            Likeness::Holds if !updates => return Ok((Verdict::InPlace, String::new())),
            Likeness::Holds => Vec::new(),
            Likeness::Differs(paths) => paths,
        };
        let differs = format!("another state is there; it differs in {}", paths.join(", "));
        // The cluster made it, before anybody could restore it.
        let made = gk.is("", "ServiceAccount") && member.key.name.as_ref() == "default";
        match self.options.on_conflict {
            _ if made || updates => {
                carry(gk, item.body.get_or_insert_default(), live);
                Ok((Verdict::Update, differs))
            }
            OnConflict::Skip => Ok((Verdict::Skip, differs)),
            OnConflict::Recreate if holds_others(gk) => Err((
                Verdict::Blocked,
                format!("{differs}; it is not deleted, because what it holds would be lost"),
            )),
            OnConflict::Recreate => {
                item.words.push("what it owns is deleted with it".to_owned());
                Ok((Verdict::Recreate, differs))
            }
            OnConflict::Rename if !is_renamable(gk) => {
                Err((Verdict::Conflict, format!("{differs}; its name is part of it")))
            }
            OnConflict::Rename => self.renamed(member, item, setting),
            OnConflict::Fail | OnConflict::Update => Ok((Verdict::Conflict, differs)),
        }
    }

    /// Beside what is there: under the first free name, or under one where it is already.
    fn renamed(
        &mut self,
        member: &Member<'_>,
        item: &mut Item,
        setting: Setting<'_>,
    ) -> Result<(Verdict, String), (Verdict, String)> {
        let setting = Setting { same_place: false, volume_waits: false, ..setting };
        let version = item.body.as_ref().and_then(|body| body.get("apiVersion")).and_then(Value::as_str);
        let version = version.unwrap_or_default().to_owned();
        for n in 1..=MAX_NAMES {
            let suffix = if n == 1 { "-restored".to_owned() } else { format!("-restored-{n}") };
            let name: String = member.key.name.chars().take(63 - suffix.len()).collect();
            let name = format!("{}{suffix}", name.trim_end_matches(['-', '.']));
            let key = ObjectKey { name: name.as_str().into(), ..member.key.clone() };
            if self.keys.contains(&key) || self.taken.contains(&key) {
                continue;
            }
            let Some(there) = place(&key, self.situation, self.needs) else {
                return Err((Verdict::Blocked, String::new())); // to be looked at
            };
            let (wanted, words) = body::desired(member.kept, &key, &version, setting);
            let verdict = match &there.live {
                Live::Absent => Verdict::Rename,
                Live::Present(live) if likeness(&key.gk, &wanted, live, setting) != Likeness::Same => {
                    continue;
                }
                Live::Present(live) => {
                    item.found = Some(found(live));
                    Verdict::InPlace
                }
                Live::Unknown(_) => continue,
            };
            if verdict == Verdict::Rename {
                item.found = None;
            }
            self.taken.insert(key.clone());
            let why =
                format!("{} is taken by another state; what names it still means that one", member.key.name);
            (item.key, item.body, item.words) = (key, Some(wanted), words);
            return Ok((verdict, why));
        }
        Err((Verdict::Conflict, format!("{} and the names made of it are taken", member.key.name)))
    }

    /// Maps the owners. Says which controller is there already, if one is.
    fn owners(&mut self, member: &Member<'_>, item: &mut Item) -> Option<ObjectKey> {
        let mut controlled = None;
        for owner in member.owners() {
            let origin = owner_key(&owner, &member.kept.key.namespace, self.situation);
            let key = super::collect::destination(&origin, self.options, true);
            let restored = self.keys.contains(&key);
            let live = match place(&key, self.situation, self.needs).map(|place| &place.live) {
                Some(Live::Present(live)) if !is_deleting(live) => Some(found(live).uid),
                _ => None,
            };
            if !restored && live.is_none() {
                item.words.push(format!("without its owner {key}, which is not there"));
                continue;
            }
            if owner.controller == Some(true) && live.is_some() && !restored {
                controlled = Some(key.clone());
            }
            let mut reference = serde_json::to_value(&owner).unwrap_or_default();
            if let Some(members) = reference.as_object_mut() {
                members.remove("uid");
                members.retain(|_, value| !value.is_null());
            }
            item.owners.push(Owner { key, reference, uid: live });
        }
        controlled
    }

    /// Is the volume of a claim there, or restored, for this claim?
    fn volume_waits(&mut self, member: &Member<'_>) -> bool {
        let Kept { key, body, .. } = member.kept;
        let volume = body.pointer("/spec/volumeName").and_then(Value::as_str).unwrap_or_default();
        let own = self.situation.same_cluster && member.key == *key;
        if !key.gk.is("", "PersistentVolumeClaim") || volume.is_empty() || !own {
            return false;
        }
        let volume = ObjectKey::new(GroupKind::new("", "PersistentVolume"), "", volume);
        if self.keys.contains(&volume) {
            return true;
        }
        // The claim that is there has it.
        let bound = |place: Option<&super::Place>| {
            matches!(place.map(|place| &place.live), Some(Live::Present(live))
                if live.pointer("/spec/volumeName").and_then(Value::as_str) == Some(&*volume.name))
        };
        if bound(self.situation.places.get(key)) {
            return true;
        }
        let Some(Live::Present(live)) = place(&volume, self.situation, self.needs).map(|place| &place.live)
        else {
            return false;
        };
        let Some(claim) = live.pointer("/spec/claimRef").filter(|claim| !claim.is_null()) else {
            return true;
        };
        let is = |field: &str, value: &str| claim.get(field).and_then(Value::as_str) == Some(value);
        is("namespace", &key.namespace) && is("name", &key.name) && claim.get("uid").is_none()
    }
}

/// What the items say of each other.
pub(super) fn settle(items: &mut [Item], situation: &Situation) {
    let places: BTreeMap<ObjectKey, (ObjectKey, Verdict, Option<Uid>)> = items
        .iter()
        .map(|item| {
            let uid = item.found.as_ref().map(|found| found.uid.clone());
            let uid = uid.filter(|_| item.verdict != Verdict::Recreate);
            (original(item), (item.key.clone(), item.verdict, uid))
        })
        .collect();
    for item in items.iter_mut() {
        for owner in &mut item.owners {
            if let Some((key, _, uid)) = places.get(&owner.key) {
                (owner.key, owner.uid) = (key.clone(), uid.clone());
            }
        }
        if !item.verdict.writes() || item.key.namespace.is_empty() {
            continue;
        }
        let namespace = ObjectKey::new(GroupKind::new("", "Namespace"), "", &item.key.namespace);
        let blocked =
            match (places.get(&namespace), situation.places.get(&namespace).map(|place| &place.live)) {
                (Some((_, verdict, _)), _) if verdict.writes() => {
                    item.untried = true;
                    None
                }
                (_, Some(Live::Present(live))) if is_deleting(live) => {
                    Some("is being deleted: wait until it is gone")
                }
                (_, Some(Live::Absent)) => {
                    Some("is not there: restore it too (--with-dependencies), or create it")
                }
                _ => None,
            };
        if let Some(why) = blocked {
            item.verdict = Verdict::Blocked;
            item.why = format!("namespace {} {why}", item.key.namespace);
        }
    }
}

/// The key that others know it by.
fn original(item: &Item) -> ObjectKey {
    match item.verdict {
        Verdict::Rename => ObjectKey { name: item.origin.name.clone(), ..item.key.clone() },
        _ => item.key.clone(),
    }
}

fn found(live: &Value) -> Found {
    let text = |path: &str| live.pointer(path).and_then(Value::as_str).unwrap_or_default();
    Found {
        uid: Uid::new(text("/metadata/uid")),
        resource_version: ResourceVersion::new(text("/metadata/resourceVersion")),
        body: live.clone(),
    }
}

fn is_deleting(live: &Value) -> bool {
    live.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null())
}

/// Deleting one deletes more than itself.
fn holds_others(gk: &GroupKind) -> bool {
    gk.is("", "Namespace")
        || gk.is("", "PersistentVolume")
        || gk.is("", "PersistentVolumeClaim")
        || gk.is("apiextensions.k8s.io", "CustomResourceDefinition")
}

fn is_renamable(gk: &GroupKind) -> bool {
    !(gk.is("", "Namespace")
        || gk.is("apiextensions.k8s.io", "CustomResourceDefinition")
        || gk.is("apiregistration.k8s.io", "APIService"))
}
