//! Acts as the store holds them.

use lockstep_engine::acts::ActKind;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, Uid};

/// What deleted several objects at once. With fewer than two members it is no group, and not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActRow {
    /// Ascending; given by the store on insertion (0 before).
    pub id: i64,
    /// Where.
    pub cluster: ClusterId,
    /// What it was.
    pub kind: ActKind,
    /// The namespace, definition or owner, and its uid.
    pub root: Option<(ObjectKey, Uid)>,
    /// The kind that a definition defined.
    pub contents: Option<GroupKind>,
    /// The policy for which lockstep deleted.
    pub policy: Option<String>,
    /// resourceVersion before which the delete of a namespace or definition had not begun.
    pub began: Option<u64>,
    /// resourceVersion by which it was gone; none while it is there.
    pub ended: Option<u64>,
    /// The cluster was rewound since: nothing joins any more.
    pub over: bool,
    /// When the first of its deletes was seen (hub's clock).
    pub started_at: Millis,
    /// When the last one was.
    pub last_at: Millis,
    /// Tombstones in it, of deletes that were carried out. The store counts them.
    pub members: u64,
}

/// Which acts are asked for. Conditions are joined by AND; groups only, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActFilter {
    /// Of this cluster.
    pub cluster: Option<ClusterId>,
    /// Of this kind.
    pub kind: Option<ActKind>,
    /// That went on at or after.
    pub since: Option<Millis>,
}

/// Acts that something deleted may belong to, whatever their members: those that are not over.
#[derive(Clone, Copy, Debug)]
pub enum Lives<'a> {
    /// Whose root has this uid.
    Of(&'a Uid),
    /// Of namespaces of that name.
    Namespace(&'a str),
    /// Of definitions of that kind.
    Definition(&'a GroupKind),
    /// Of lockstep for that policy; the latest one only.
    Lockstep(&'a str),
}

/// Which deleted objects of a cluster are looked for. Those of a rewind or a removed cluster are not
/// deleted.
#[derive(Clone, Copy, Debug)]
pub enum Kin<'a> {
    /// Of one tombstone.
    Id(i64),
    /// With this uid.
    Uid(&'a Uid),
    /// With this uid as their first owner.
    Owner(&'a Uid),
    /// In this namespace, and not known to have ended before that resourceVersion.
    Namespace(&'a str, u64),
    /// Of this kind, and not known to have ended before that resourceVersion.
    Kind(&'a GroupKind, u64),
}
