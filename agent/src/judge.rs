//! From an object as the server sent it to what the hub is told of it. Pure.
//!
//! Metadata is parsed by borrowing. A body is copied only if the interest wants it; everything
//! else stays in the cluster as a key (I13).

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_engine::catalogue::{Facts, PodSecurity, pod_security, pod_security_digest, tracker};
use lockstep_engine::interest::Interest;
use lockstep_engine::marks::{MANAGED, MET, TRACKED, is_mark, was_met};
use lockstep_engine::object::{ObjectError, RawObject, without_managed_fields};
use lockstep_engine::outcome::Sensitivity;
use lockstep_engine::ownership::{
    ManagedFields, ManagerEntry, ManagerSummary, Owned, has_entry_of_ours, owned_digest,
};
use lockstep_engine::relist::{Digest, Entry, Flags};
use lockstep_engine::{GroupKind, Millis, rfc3339};
use lockstep_wire::v1::{self, Item, item::Change};
use serde::Deserialize;

/// Managers named per object: more than this is a broken controller, and no help to a person.
const MANAGERS_LIMIT: usize = 32;

/// What every object of a watch is judged by.
pub(crate) struct Bench<'a> {
    pub(crate) interest: &'a Interest,
    /// Version watched; items of a list do not carry it.
    pub(crate) api_version: &'a str,
    pub(crate) secret_key: &'a [u8; 32],
    pub(crate) now: Millis,
    /// The hub may not know of our own write to it: out of a list, read by itself, or told by a watch that catches up. Then
    /// the fields that are ours are told.
    pub(crate) with_fields: bool,
}

/// What an object turned out to be.
pub(crate) struct Judged {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) flags: Flags,
    pub(crate) digest: Digest,
    pub(crate) deleting: bool,
    pub(crate) pod_security: PodSecurity,
}

/// What is told of an object that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// Only what differs from what was told.
    News,
    /// In the history after a rewind, where one resourceVersion may mean two states.
    Rewound,
    /// Everything: what the hub holds of it was found to be wrong.
    Again,
}

/// Set in [`Digest`] byte 0 while the object is being deleted.
const DELETING: u8 = 1;
/// Set in [`Digest`] byte 1 where the version was not learned from the watch.
const BESIDE: u8 = 1;

/// From here on [`Digest`] tells which Pod Security labels a Namespace has; zeros: none.
const LABELS: usize = 2;

fn digest(deleting: bool, pod_security: &PodSecurity) -> Digest {
    let mut digest = Digest::default();
    digest[0] = if deleting { DELETING } else { 0 };
    digest[LABELS..].copy_from_slice(&pod_security_digest(pod_security));
    digest
}

/// An index entry of the hub does not say whether the object was being deleted.
pub(crate) const SEEDED: Digest = [u8::MAX; 16];

/// Of an object that was read by itself, or that the hub holds otherwise than the watch says: its
/// version is no measure of what the watch has reached.
pub(crate) fn beside(mut digest: Digest) -> Digest {
    digest[1] = BESIDE;
    digest
}

/// May the entry's version be beyond what the watch has reached?
pub(crate) fn may_be_ahead(entry: &Entry) -> bool {
    entry.digest() == SEEDED || entry.digest()[1] == BESIDE
}

/// Was the entry's version there before any list began that is still to come?
pub(crate) fn is_sure(entry: &Entry) -> bool {
    entry.digest() == SEEDED || entry.digest()[1] != BESIDE
}

fn was_deleting(entry: &Entry) -> bool {
    entry.digest() != SEEDED && entry.digest()[0] == DELETING
}

/// Does the hub know the Pod Security labels that a Namespace has? An entry that the hub gave does not say.
fn has_labels_of(entry: &Entry, judged: &Judged, gk: &GroupKind) -> bool {
    !gk.is("", "Namespace") || entry.digest() != SEEDED && entry.digest()[LABELS..] == judged.digest[LABELS..]
}

impl Bench<'_> {
    /// Reads what matters of an object.
    pub(crate) fn judge(&self, bytes: &[u8], object: &RawObject<'_>) -> Judged {
        let meta = &object.metadata;
        let wanted = self.interest.wants_body(meta) && !self.is_token(bytes, object);
        let labelled = self.interest.managed && meta.labels.get(MANAGED).is_some_and(|value| value == "true");
        // A copy that lost its marks is a copy still, and no source (I9): our entry tells.
        let asked =
            self.interest.managed || wanted && self.interest.syncs(&meta.namespace, &meta.name, &meta.labels);
        let managed = labelled || asked && meta.managed_fields.is_some_and(has_entry_of_ours);
        let deleting = meta.deletion_timestamp.is_some();
        let pod_security = pod_security(&self.interest.gk, meta);
        Judged {
            namespace: meta.namespace.clone().into_owned(),
            name: meta.name.clone().into_owned(),
            uid: meta.uid.clone().into_owned(),
            flags: Flags { body_sent: wanted, managed, untold: false },
            digest: digest(deleting, &pod_security),
            deleting,
            pod_security,
        }
    }

    /// Tokens of service accounts are never synced, and one that was deleted is of no use any more (it names
    /// the uid of its account): they never leave, whatever a policy selects.
    fn is_token(&self, bytes: &[u8], object: &RawObject<'_>) -> bool {
        let gk = &self.interest.gk;
        gk.is("", "Secret")
            && Facts::of(gk, object, bytes)
                .is_ok_and(|facts| facts.secret_type == "kubernetes.io/service-account-token")
    }

    /// What is to be said of an object that exists; `known` is what the hub was told before.
    /// Nothing, where that still holds and nothing else calls for it.
    pub(crate) fn upsert(
        &self,
        bytes: &[u8],
        object: &RawObject<'_>,
        judged: &Judged,
        known: Option<&Entry>,
        telling: Telling,
    ) -> Result<Option<Item>, ObjectError> {
        let same = known.filter(|entry| entry.uid().as_str() == judged.uid && !entry.flags().untold);
        let held = same.is_some_and(|entry| entry.flags().body_sent);
        if let Some(entry) = same {
            let unmoved = telling == Telling::News
                && entry.resource_version() == object.resource_version()
                && entry.flags() == judged.flags;
            let bare = !held && !judged.flags.body_sent;
            let plain = !judged.flags.managed && !entry.flags().managed;
            // Of a key outside the interest only its life matters, not its versions, unless they are asked for.
            let unchanged = bare
                && plain
                && !self.interest.revisions
                && was_deleting(entry) == judged.deleting
                && has_labels_of(entry, judged, &self.interest.gk);
            if unmoved || (unchanged && telling == Telling::News) {
                return Ok(None);
            }
        }
        // The hub may know nothing of what it sees here for the first time: the fields tell it what is ours.
        let first = self.with_fields || same.is_none_or(|entry| entry.digest() == SEEDED);
        let upsert = v1::Upsert {
            body: self.body(bytes, judged.flags.body_sent)?,
            left: held && !judged.flags.body_sent,
            managed: judged.flags.managed.then(|| self.managed(bytes, object, first)).transpose()?,
            deleting: judged.deleting,
            pod_security: judged.pod_security.clone(),
        };
        Ok(Some(self.item(object, judged, Change::Upsert(upsert))))
    }

    /// What is to be said of an object that is gone, by its last state.
    pub(crate) fn delete(
        &self,
        bytes: &[u8],
        object: &RawObject<'_>,
        judged: &Judged,
    ) -> Result<Item, ObjectError> {
        let body = self.body(bytes, judged.flags.body_sent)?;
        let entries = object.metadata.managed_fields.filter(|_| judged.flags.body_sent);
        let entries = entries.map(ManagedFields::parse).transpose()?.unwrap_or_default();
        let managers = entries.managers().into_iter().take(MANAGERS_LIMIT).map(str::to_owned).collect();
        let delete = v1::Delete { body, managers, ..v1::Delete::default() };
        Ok(self.item(object, judged, Change::Delete(delete)))
    }

    fn item(&self, object: &RawObject<'_>, judged: &Judged, change: Change) -> Item {
        Item {
            namespace: judged.namespace.clone(),
            name: judged.name.clone(),
            uid: judged.uid.clone(),
            resource_version: object.metadata.resource_version.clone().into_owned(),
            observed_ms: self.now,
            change: Some(change),
            ..Item::default()
        }
    }

    fn body(&self, bytes: &[u8], wanted: bool) -> Result<Bytes, ObjectError> {
        if !wanted {
            return Ok(Bytes::new());
        }
        without_managed_fields(bytes, self.api_version, &self.interest.gk.kind).map(Bytes::from)
    }

    fn managed(&self, bytes: &[u8], object: &RawObject<'_>, first: bool) -> Result<v1::Managed, ObjectError> {
        let meta = &object.metadata;
        let gk = &self.interest.gk;
        let secret = Sensitivity::of(&gk.group, &gk.kind) == Sensitivity::Secret;
        let owned = owned_digest(bytes, self.api_version, secret.then_some(self.secret_key))?;
        let entries = meta.managed_fields.map(ManagedFields::parse).transpose()?.unwrap_or_default();
        let managers = entries.summaries();
        let ours = entries.ours().filter(|_| first);
        // JSON values always serialise.
        let field_set = ours.map(|entry| serde_json::to_vec(&entry.fields_v1).unwrap_or_default());
        let marks = meta.annotations.iter().chain(&meta.labels).filter(|(key, _)| is_mark(key));
        let mut marks: BTreeMap<String, String> =
            marks.map(|(key, value)| (key.clone(), value.clone())).collect();
        let met = |entry: &ManagerEntry| {
            was_met(&meta.annotations, meta.creation_timestamp.as_deref(), &entry.time)
        };
        if entries.ours().is_some_and(met) {
            marks.insert(MET.to_owned(), "true".to_owned());
        }
        marks.remove(TRACKED);
        if let Some(tracker) = tracker(gk, &meta.labels, &meta.annotations) {
            marks.insert(TRACKED.to_owned(), tracker.to_string());
        }
        let (owned, owned_digest) = owned_state(&owned);
        Ok(v1::Managed {
            owned_digest,
            owned: owned.into(),
            marks,
            managers: managers.into_iter().take(MANAGERS_LIMIT).map(manager).collect(),
            created_ms: meta.creation_timestamp.as_deref().and_then(rfc3339::parse).unwrap_or(0),
            field_set: field_set.unwrap_or_default().into(),
        })
    }
}

/// An item for an object that has a key and nothing else that could be read.
pub(crate) fn undecodable(bytes: &[u8], error: &ObjectError, now: Millis) -> Option<Item> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Key,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Key {
        name: String,
        #[serde(default)]
        namespace: String,
        #[serde(default)]
        uid: String,
        #[serde(default)]
        resource_version: String,
    }
    let Object { metadata } = serde_json::from_slice(bytes).ok()?;
    let Key { name, namespace, uid, resource_version } = metadata;
    let change = Change::Undecodable(v1::Undecodable { error: error.to_string() });
    Some(Item {
        namespace,
        name,
        uid,
        resource_version,
        observed_ms: now,
        change: Some(change),
        ..Item::default()
    })
}

/// An owned state as the wire has it.
pub(crate) fn owned_state(owned: &lockstep_engine::ownership::OwnedState) -> (v1::OwnedState, Bytes) {
    match owned {
        Owned::None => (v1::OwnedState::NoEntry, Bytes::new()),
        Owned::OtherVersion(_) => (v1::OwnedState::OtherVersion, Bytes::new()),
        Owned::Digest(digest) => (v1::OwnedState::Digest, Bytes::copy_from_slice(digest)),
    }
}

/// A field manager as the wire has it.
pub(crate) fn manager(summary: ManagerSummary) -> v1::Manager {
    let ManagerSummary { manager: name, operation, subresource, time, fields, truncated } = summary;
    v1::Manager { name, operation, subresource, time, fields, truncated }
}
