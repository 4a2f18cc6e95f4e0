//! How what was deleted comes back: tombstones, what is live at the destination and options go in, one
//! verdict per object comes out, in the order in which they are written.
//!
//! A restore is what a person asked for, once. So it is no copy of the sync: no marks, no record, and
//! of what is stripped from copies much stays ([`body`]). Invariants, each with a test:
//! - planning is deterministic, and planning what was carried out finds everything in place;
//! - nothing is written where something else is, unless the options say so;
//! - of a group only roots are written: what a controller makes by itself is counted;
//! - what is not known blocks, it is never taken for absent.
//!
//! What the planner has to know and was not told comes out as [`Needs`]: the caller looks, and plans
//! again.

mod body;
mod collect;
mod order;
mod references;
#[cfg(test)]
mod tests;
mod verdict;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use body::replacing;
pub use references::references;

use crate::identity::{GroupKind, ObjectKey, ResourceVersion, Uid};

/// What to do where something else is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// Nothing at all is written, of the whole restore.
    #[default]
    Fail,
    /// That object, and what is blocked, is left out.
    Skip,
    /// It is replaced by what was kept.
    Update,
    /// It is deleted, and what was kept is created.
    Recreate,
    /// What was kept comes back beside it, under another name.
    Rename,
}

/// How to restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Options {
    /// Into this namespace instead of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Under this name instead of its own; of one object only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where something else is.
    pub on_conflict: OnConflict,
    /// Also what is named and missing, where there is a tombstone of it.
    pub with_dependencies: bool,
    /// Also the status.
    pub status: bool,
    /// Finalizers stay.
    pub keep_finalizers: bool,
    /// Also where a policy looks after the object, a Job would run again, or a controller makes its own.
    pub force: bool,
}

/// A tombstone with its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Its number.
    pub tombstone: i64,
    /// What it was.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Uid,
    /// The state that was kept; null where it was only the name.
    pub body: Value,
    /// Nobody named it: another object of the restore does.
    pub dependency: bool,
}

/// An object at the destination.
#[derive(Clone, Debug, PartialEq)]
pub enum Live {
    /// There is none.
    Absent,
    /// This state.
    Present(Value),
    /// Nobody can tell; one sentence.
    Unknown(String),
}

/// What is at one key of the destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// What is there.
    pub live: Live,
    /// The policy in force that looks after the object there.
    pub policy: Option<String>,
}

/// A kind as the destination serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// `apps/v1`, the preferred one first.
    pub versions: Vec<String>,
    /// Do its objects live in namespaces?
    pub namespaced: bool,
}

/// What is known of the destination.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Situation {
    /// It is the cluster in which the objects were.
    pub same_cluster: bool,
    /// Its kinds.
    pub served: BTreeMap<GroupKind, Served>,
    /// What is there, by the key at the destination.
    pub places: BTreeMap<ObjectKey, Place>,
    /// The newest tombstones of what bodies name, by the key in the cluster of origin.
    pub kept: BTreeMap<ObjectKey, Option<Kept>>,
}

/// What has to be looked at before there can be a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// At the destination.
    pub places: BTreeSet<ObjectKey>,
    /// Tombstones, by the key in the cluster of origin.
    pub kept: BTreeSet<ObjectKey>,
}

impl Needs {
    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.kept.is_empty()
    }
}

/// What becomes of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// It is created.
    Create,
    /// It is created under another name: its own is taken.
    Rename,
    /// What is there is replaced.
    Update,
    /// What is there is deleted, and it is created.
    Recreate,
    /// It is there as it was.
    InPlace,
    /// A controller makes it once its owner is back.
    Rebuilt,
    /// It is left out.
    Skip,
    /// Something else is there.
    Conflict,
    /// It cannot be restored now.
    Blocked,
}

impl Verdict {
    /// All of them, by their names.
    pub const ALL: [(&str, Self); 9] = [
        ("Create", Self::Create),
        ("Rename", Self::Rename),
        ("Update", Self::Update),
        ("Recreate", Self::Recreate),
        ("InPlace", Self::InPlace),
        ("Rebuilt", Self::Rebuilt),
        ("Skip", Self::Skip),
        ("Conflict", Self::Conflict),
        ("Blocked", Self::Blocked),
    ];

    /// Is anything written?
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Rename | Self::Update | Self::Recreate)
    }

    /// Does it keep a restore that leaves nothing out from being carried out?
    #[must_use]
    pub fn stops(self) -> bool {
        matches!(self, Self::Conflict | Self::Blocked)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(_, verdict)| verdict == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

/// An owner that a restored object has again.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// Its key at the destination.
    pub key: ObjectKey,
    /// The reference, without its uid.
    pub reference: Value,
    /// The owner that is there; none: it is restored before.
    pub uid: Option<Uid>,
}

/// The state that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its uid.
    pub uid: Uid,
    /// Its resourceVersion.
    pub resource_version: ResourceVersion,
    /// The object.
    pub body: Value,
}

/// One object of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The tombstone.
    pub tombstone: i64,
    /// What it was.
    pub origin: ObjectKey,
    /// What it becomes.
    pub key: ObjectKey,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, where the verdict does not say it.
    pub why: String,
    /// Nobody named it: another object of the plan does.
    pub dependency: bool,
    /// What was dropped or changed, and what to know of it; one sentence each.
    pub words: Vec<String>,
    /// What is written, without owners.
    pub body: Option<Value>,
    /// Its owners.
    pub owners: Vec<Owner>,
    /// What is there, where something is.
    pub found: Option<Found>,
    /// Items of a lower rank are written before.
    pub rank: u32,
    /// The server cannot check it before another item is there.
    pub untried: bool,
}

impl Item {
    /// What is sent: the body with its owners, as far as they are there.
    #[must_use]
    pub fn write(&self, restored: impl Fn(&ObjectKey) -> Option<Uid>) -> Option<Value> {
        let mut body = self.body.clone()?;
        let owners: Vec<Value> = self
            .owners
            .iter()
            .filter_map(|owner| {
                let uid = restored(&owner.key).or_else(|| owner.uid.clone())?;
                let mut reference = owner.reference.clone();
                reference.as_object_mut()?.insert("uid".to_owned(), uid.as_str().into());
                Some(reference)
            })
            .collect();
        if !owners.is_empty() {
            body.get_mut("metadata")?.as_object_mut()?.insert("ownerReferences".to_owned(), owners.into());
        }
        Some(body)
    }
}

/// Something that a body names, and that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its key at the destination.
    pub key: ObjectKey,
    /// Who names it.
    pub named_by: ObjectKey,
    /// Its newest tombstone.
    pub tombstone: Option<i64>,
}

/// What a restore would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestorePlan {
    /// In the order in which they are written.
    pub items: Vec<Item>,
    /// What is named and missing.
    pub missing: Vec<Missing>,
}

/// A plan, or what has to be looked at before.
#[derive(Clone, Debug, PartialEq)]
pub enum Planned {
    /// Done.
    Plan(RestorePlan),
    /// Look, and plan again.
    Needs(Needs),
}

/// Plans a restore of these tombstones.
#[must_use]
pub fn plan(selected: &[Kept], options: &Options, situation: &Situation) -> Planned {
    let mut needs = Needs::default();
    let members = collect::members(selected, options, situation, &mut needs);
    if !needs.is_empty() {
        return Planned::Needs(needs);
    }
    let mut items = verdict::items(&members, options, situation, &mut needs);
    if !needs.is_empty() {
        return Planned::Needs(needs);
    }
    verdict::settle(&mut items, situation);
    order::rank(&mut items);
    let missing = collect::missing(&members, options, situation);
    Planned::Plan(RestorePlan { items, missing })
}
