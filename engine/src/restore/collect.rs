//! What belongs to a restore: what was named, what that needs, and what comes back by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Kept, Live, Missing, Needs, Options, Place, Situation, Verdict, references};
use crate::catalogue::{Asked, Eligibility, Facts, SkipReason, eligibility};
use crate::identity::{GroupKind, ObjectKey};
use crate::object::{OwnerReference, RawObject};

/// A tombstone that belongs to the restore.
#[derive(Clone, Debug)]
pub(super) struct Member<'a> {
    pub(super) kept: &'a Kept,
    /// Its key at the destination.
    pub(super) key: ObjectKey,
    pub(super) dependency: bool,
    /// Why it is not written, decided without a look at the destination.
    pub(super) rests: Option<(Verdict, String)>,
}

impl Member<'_> {
    pub(super) fn owners(&self) -> Vec<OwnerReference> {
        owners(&self.kept.body)
    }
}

/// Its ownerReferences.
fn owners(body: &Value) -> Vec<OwnerReference> {
    let references = body.pointer("/metadata/ownerReferences").cloned().unwrap_or_default();
    serde_json::from_value(references).unwrap_or_default()
}

/// The key of an owner, in the namespace of what it owns or without one.
pub(super) fn owner_key(owner: &OwnerReference, namespace: &str, situation: &Situation) -> ObjectKey {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    let gk = GroupKind::new(group, &owner.kind);
    let namespaced = situation.served.get(&gk).is_none_or(|served| served.namespaced);
    ObjectKey::new(gk, if namespaced { namespace } else { "" }, &owner.name)
}

/// Where an object goes.
pub(super) fn destination(key: &ObjectKey, options: &Options, dependency: bool) -> ObjectKey {
    let mut to = key.clone();
    if let Some(namespace) = &options.namespace {
        if !key.namespace.is_empty() {
            to.namespace = namespace.as_str().into();
        } else if key.gk.is("", "Namespace") {
            to.name = namespace.as_str().into();
        }
    }
    if let Some(name) = options.name.as_ref().filter(|_| !dependency) {
        to.name = name.as_str().into();
    }
    to
}

/// Everything that belongs to the restore, each object once, by the newest of its tombstones.
pub(super) fn members<'a>(
    selected: &'a [Kept],
    options: &Options,
    situation: &'a Situation,
    needs: &mut Needs,
) -> Vec<Member<'a>> {
    let mut newest: BTreeMap<&ObjectKey, (&Kept, bool)> = BTreeMap::new();
    for kept in selected {
        let known = newest.entry(&kept.key).or_insert((kept, kept.dependency));
        if known.0.tombstone < kept.tombstone {
            *known = (kept, kept.dependency);
        }
    }
    let mut looked: BTreeSet<ObjectKey> = BTreeSet::new();
    loop {
        if !options.with_dependencies {
            break;
        }
        let wanted: BTreeSet<ObjectKey> = newest
            .values()
            .flat_map(|(kept, _)| references(&kept.key.gk, &kept.key.namespace, &kept.body))
            .filter(|key| !newest.contains_key(key) && !looked.contains(key))
            .collect();
        if wanted.is_empty() {
            break;
        }
        for key in wanted {
            let to = destination(&key, options, true);
            match place(&to, situation, needs).map(|place| &place.live) {
                Some(Live::Absent) => match situation.kept.get(&key) {
                    Some(Some(kept)) => {
                        newest.insert(&kept.key, (kept, true));
                    }
                    Some(None) => {}
                    None => {
                        needs.kept.insert(key.clone());
                    }
                },
                Some(Live::Present(_) | Live::Unknown(_)) | None => {}
            }
            looked.insert(key);
        }
    }
    let members = newest.into_values().map(|(kept, dependency)| {
        let key = destination(&kept.key, options, dependency);
        let rests = if kept.body.is_null() {
            Some((Verdict::Blocked, "nothing was kept of it but its name".to_owned()))
        } else {
            left_alone(kept, options).map(|why| (Verdict::Skip, why))
        };
        Member { kept, key, dependency, rests }
    });
    let mut members: Vec<Member<'a>> = members.collect();
    rebuilt(&mut members);
    members
}

/// What has its controller among the others comes back with it.
fn rebuilt(members: &mut [Member<'_>]) {
    let uids: BTreeMap<String, ObjectKey> =
        members.iter().map(|member| (member.kept.uid.to_string(), member.key.clone())).collect();
    for member in members.iter_mut().filter(|member| member.rests.is_none()) {
        let controller = member.owners().into_iter().find(|owner| owner.controller == Some(true));
        if let Some(by) = controller.and_then(|owner| uids.get(&owner.uid)) {
            member.rests = Some((Verdict::Rebuilt, format!("{by} makes it")));
        }
    }
}

/// What every cluster makes for itself, and what would not be what it was.
fn left_alone(kept: &Kept, options: &Options) -> Option<String> {
    let Kept { key, body, .. } = kept;
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let object = RawObject::parse(&bytes).ok()?;
    if key.gk.is("", "ServiceAccount") && key.name.as_ref() == "default" {
        let plain =
            ["imagePullSecrets", "automountServiceAccountToken"].iter().all(|f| body.get(*f).is_none())
                && object.metadata.labels.is_empty()
                && object.metadata.annotations.is_empty();
        return plain.then(|| "every namespace gets one by itself".to_owned());
    }
    if key.gk.is("", "Pod") && object.metadata.annotations.contains_key("kubernetes.io/config.mirror") {
        return Some("its kubelet makes it from a file".to_owned());
    }
    let facts = Facts::of(&key.gk, &object, &bytes).ok()?;
    let asked = Asked { name: true, namespace: true, owned: true };
    match eligibility(key, &facts, asked) {
        Eligibility::Skip(SkipReason::FinishedJob) => (!options.force)
            .then(|| "the Job had finished, and would run once more (--force restores it)".to_owned()),
        // Servers create these once, when they start.
        Eligibility::Skip(
            SkipReason::BootstrapRbac | SkipReason::SystemPriorityClass | SkipReason::AutoManagedFlowControl,
        )
        | Eligibility::Sync => None,
        Eligibility::Skip(reason) => Some(reason.sentence().to_owned()),
    }
}

/// What is at a key, where that is known. A kind that is not served has no places.
pub(super) fn place<'s>(key: &ObjectKey, situation: &'s Situation, needs: &mut Needs) -> Option<&'s Place> {
    if !situation.served.contains_key(&key.gk) {
        return None;
    }
    let known = situation.places.get(key);
    if known.is_none() {
        needs.places.insert(key.clone());
    }
    known
}

/// What the members that are written name, and that is neither there nor among them.
pub(super) fn missing(members: &[Member<'_>], options: &Options, situation: &Situation) -> Vec<Missing> {
    let known: BTreeSet<&ObjectKey> = members.iter().map(|member| &member.kept.key).collect();
    let mut missing: BTreeMap<ObjectKey, Missing> = BTreeMap::new();
    for member in members.iter().filter(|member| member.rests.is_none()) {
        let Kept { key, body, .. } = member.kept;
        for origin in references(&key.gk, &key.namespace, body) {
            let to = destination(&origin, options, true);
            let absent = situation.places.get(&to).is_some_and(|place| place.live == Live::Absent);
            if absent && !known.contains(&origin) {
                let tombstone =
                    situation.kept.get(&origin).and_then(Option::as_ref).map(|kept| kept.tombstone);
                missing.entry(to.clone()).or_insert(Missing {
                    key: to,
                    named_by: member.key.clone(),
                    tombstone,
                });
            }
        }
    }
    missing.into_values().collect()
}
