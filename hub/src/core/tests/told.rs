//! What agents tell, what they are asked, and what they answer.

use lockstep_engine::{GroupKind, ObjectKey, marks};
use lockstep_wire::v1::{self, hub_message, outcome::Result as Answer, step::Action};

use crate::core::state::SessionCommand;

/// The step, if it asks whether a namespace is there.
pub(super) fn probe(command: &SessionCommand) -> Option<v1::Step> {
    let SessionCommand::Message(message) = command else { return None };
    let Some(hub_message::Body::Step(step)) = &message.body else { return None };
    matches!(step.action, Some(Action::Probe(_))).then(|| step.clone())
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new(GroupKind::new("", "ConfigMap"), "shop", name)
}

fn item(name: &str, uid: &str, rv: u64, change: v1::item::Change) -> v1::Item {
    v1::Item {
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        resource_version: rv.to_string(),
        observed_ms: 0,
        change: Some(change),
        ..v1::Item::default()
    }
}

/// A selected source object.
pub(super) fn source(name: &str, uid: &str, rv: u64, value: &str) -> v1::Item {
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"shop","uid":"{uid}","resourceVersion":"{rv}","labels":{{"sync":"yes"}}}},"data":{{"k":"{value}"}}}}"#
    );
    item(name, uid, rv, v1::item::Change::Upsert(v1::Upsert { body: body.into(), ..v1::Upsert::default() }))
}

/// A namespace, as a key.
pub(super) fn namespace(name: &str, rv: u64, deleting: bool) -> v1::Item {
    let upsert = v1::Upsert { deleting, ..v1::Upsert::default() };
    v1::Item { namespace: String::new(), ..item(name, "n", rv, v1::item::Change::Upsert(upsert)) }
}

/// An object that is a key only.
pub(super) fn foreign(name: &str, uid: &str, rv: u64) -> v1::Item {
    item(name, uid, rv, v1::item::Change::Upsert(v1::Upsert::default()))
}

pub(super) fn left(name: &str, uid: &str, rv: u64) -> v1::Item {
    item(name, uid, rv, v1::item::Change::Upsert(v1::Upsert { left: true, ..v1::Upsert::default() }))
}

pub(super) fn deleted(name: &str, uid: &str, rv: u64) -> v1::Item {
    item(name, uid, rv, v1::item::Change::Delete(v1::Delete::default()))
}

/// Known from before a rewind, and not in the list since.
pub(super) fn unseen(name: &str, uid: &str) -> v1::Item {
    item(name, uid, 0, v1::item::Change::Unseen(v1::Unseen {}))
}

/// The same in a list, which tells which fields are ours: all of that body, which has `data.k`.
pub(super) fn listed(mut item: v1::Item, body: &[u8]) -> v1::Item {
    let mut value: serde_json::Value = serde_json::from_slice(body).unwrap();
    value["data"] = serde_json::json!({ "k": "1" });
    value["metadata"]["labels"]["sync"] = "yes".into();
    if let Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), .. })) = &mut item.change {
        managed.field_set = lockstep_engine::ownership::FieldSet::of_value(&value).canonical().into();
    }
    item
}

/// What a target's agent tells of a copy.
pub(super) fn copy(name: &str, uid: &str, rv: u64, body: &[u8], digest: [u8; 16]) -> v1::Item {
    let object = lockstep_engine::object::RawObject::parse(body).unwrap();
    let marks = object.metadata.annotations.iter().filter(|(k, _)| marks::is_mark(k));
    let managed = v1::Managed {
        owned_digest: digest.to_vec().into(),
        owned: v1::OwnedState::Digest.into(),
        marks: marks.map(|(k, v)| (k.clone(), v.clone())).collect(),
        ..v1::Managed::default()
    };
    let upsert = v1::Upsert { managed: Some(managed), ..v1::Upsert::default() };
    item(name, uid, rv, v1::item::Change::Upsert(upsert))
}

pub(super) fn image(uid: &str, rv: u64) -> Answer {
    Answer::Image(v1::Image {
        uid: uid.into(),
        resource_version: rv.to_string(),
        body: br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#.to_vec().into(),
        api_version: "v1".into(),
        managed: true,
    })
}

pub(super) fn is_read(step: &v1::Step) -> bool {
    matches!(step.action, Some(Action::Read(_)))
}

/// Is nothing written where the copy is what is asked for?
pub(super) fn only_compares(step: &v1::Step) -> bool {
    matches!(&step.action, Some(v1::step::Action::Apply(apply)) if apply.unless_equal)
}
