//! The marks on objects that lockstep writes.
//!
//! One label and a few annotations say where a copy came from. They let a hub that lost its disk
//! recognise its objects without a write (I11). They are never an authority to delete: anyone who
//! may write the object can forge or copy them (I6). The MAC, under a key that lives outside the
//! data directory, tells marks of this hub from others.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::guard::{self, Guard};
use crate::identity::ObjectKey;
use crate::{Millis, rfc3339};

/// What all marks begin with.
pub const PREFIX: &str = "lockstep.dev/";
/// Label: `"true"` on everything lockstep writes.
pub const MANAGED: &str = "lockstep.dev/managed";
/// Annotation: the policy's name.
pub const POLICY: &str = "lockstep.dev/policy";
/// Annotation: [`SourceMark`] as JSON.
pub const SOURCE: &str = "lockstep.dev/source";
/// Annotation: [`TargetMark`] as JSON.
pub const TARGET: &str = "lockstep.dev/target";
/// Annotation: which hub wrote it.
pub const HUB: &str = "lockstep.dev/hub";
/// Annotation: digest of the desired body without marks, in hex.
pub const RENDERED: &str = "lockstep.dev/rendered";
/// Annotation: keyed digest over all other marks but the intent, in hex.
pub const MAC: &str = "lockstep.dev/mac";
/// Annotation, on what was there before lockstep and was adopted: `"true"`.
pub const ADOPTED: &str = "lockstep.dev/adopted";
/// Annotation: nonce of the call that created the object, to recognise a reply that was lost.
pub const INTENT: &str = "lockstep.dev/intent";

/// Never on an object: an agent adds it to the marks that it tells of where a create of ours met what was
/// there before ([`was_met`]). Such marks are taken back, and mean nothing (I6).
pub const MET: &str = "lockstep.dev/met";
/// Never on an object: an agent adds it to the marks that it reports where a GitOps tool or a package manager tracks the
/// object, with [`Tracker`](crate::catalogue::Tracker) in words.
pub const TRACKED: &str = "lockstep.dev/tracked";
/// API servers write times in whole seconds; of a create both may fall on either side of one, ms.
const SAME_CREATE_MS: Millis = 1_000;

/// Was the object there before the create whose nonce it carries? A create is an apply, which merges with
/// what it meets (KUBERNETES, "Writing"); who dies before he has taken that back leaves an object of others
/// with genuine marks. But what our apply created is no older than our managedFields entry, whose time is
/// `written`; later applies leave no nonce.
#[must_use]
pub fn was_met(annotations: &BTreeMap<String, String>, created: Option<&str>, written: &str) -> bool {
    let times = created.and_then(rfc3339::parse).zip(rfc3339::parse(written));
    annotations.contains_key(INTENT)
        && times.is_some_and(|(created, written)| written > created.saturating_add(SAME_CREATE_MS))
        && guard::on(Guard::MetByCreate)
}

/// Is this key of a label or annotation a mark?
#[must_use]
pub fn is_mark(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// Where a copy came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMark {
    /// Name of the source cluster.
    pub cluster: String,
    /// Namespace at the source; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name at the source.
    pub name: String,
    /// uid at the source.
    pub uid: String,
    /// How many times it has been copied from cluster to cluster; 1 for a copy of an original.
    pub hops: u32,
}

/// Where a copy belongs: another tool that carries it elsewhere takes the mark along, and it no
/// longer fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetMark {
    /// uid of the target cluster (of its kube-system).
    pub cluster: String,
    /// The copy's own key.
    #[serde(flatten)]
    pub key: ObjectKey,
}

/// All marks of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The policy's name.
    pub policy: String,
    /// Where it came from.
    pub source: SourceMark,
    /// Where it belongs.
    pub target: TargetMark,
    /// Which hub wrote it.
    pub hub: String,
    /// Digest of the desired body without marks.
    pub rendered: [u8; 32],
    /// The object was there before, and lockstep took it over: a hub that lost its disk must not take it
    /// for one that it created.
    pub adopted: bool,
    /// Keyed digest over the above; [`Marks::signed`] sets it.
    pub mac: [u8; 32],
    /// Nonce of the creating call, while it is not yet known to have succeeded.
    pub intent: Option<String>,
}

impl Marks {
    /// The same marks with the MAC under `key`.
    #[must_use]
    pub fn signed(mut self, key: &[u8; 32]) -> Self {
        self.mac = *self.compute_mac(key).as_bytes();
        self
    }

    fn compute_mac(&self, key: &[u8; 32]) -> blake3::Hash {
        // Destructured so that a new mark is either covered or left out on purpose. The intent is
        // left out: it comes and goes without a new desired state.
        let Self { policy, source, target, hub, rendered, adopted, mac: _, intent: _ } = self;
        let mut hasher = blake3::Hasher::new_keyed(key);
        let (source, target) = (json(source), json(target));
        for part in [b"lockstep marks v1".as_slice(), policy.as_bytes(), source.as_bytes(), target.as_bytes()]
            .into_iter()
            .chain([hub.as_bytes(), rendered.as_slice()])
            .chain(adopted.then_some(b"adopted".as_slice()))
        {
            // The length keeps the border between two parts from moving.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }

    /// The annotations, without the label.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<&'static str, String> {
        let mut annotations = BTreeMap::from([
            (POLICY, self.policy.clone()),
            (SOURCE, json(&self.source)),
            (TARGET, json(&self.target)),
            (HUB, self.hub.clone()),
            (RENDERED, hex(&self.rendered)),
            (MAC, hex(&self.mac)),
        ]);
        if self.adopted {
            annotations.insert(ADOPTED, "true".to_owned());
        }
        if let Some(intent) = &self.intent {
            annotations.insert(INTENT, intent.clone());
        }
        annotations
    }
}

/// Is the MAC right under this key? In constant time.
#[must_use]
pub fn verify(marks: &Marks, key: &[u8; 32]) -> bool {
    // `blake3::Hash` compares in constant time.
    marks.compute_mac(key) == blake3::Hash::from(marks.mac)
}

/// Writes the marks onto a rendered body. A body that is not an object, or has odd metadata,
/// gets the maps it needs.
pub fn stamp(body: &mut Value, marks: &Marks) {
    with_object(body, |body| {
        with_object(body.entry("metadata").or_insert(Value::Null), |metadata| {
            with_object(metadata.entry("labels").or_insert(Value::Null), |labels| {
                labels.insert(MANAGED.to_owned(), Value::from("true"));
            });
            with_object(metadata.entry("annotations").or_insert(Value::Null), |annotations| {
                for (name, value) in marks.annotations() {
                    annotations.insert(name.to_owned(), Value::from(value));
                }
            });
        });
    });
}

/// Reads the marks of an object; None when it is not labelled as managed, or a mark is missing or
/// malformed. Says nothing about who wrote them: [`verify`].
#[must_use]
pub fn read_marks(
    annotations: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> Option<Marks> {
    if labels.get(MANAGED).map(String::as_str) != Some("true") {
        return None;
    }
    Some(Marks {
        policy: annotations.get(POLICY)?.clone(),
        source: serde_json::from_str(annotations.get(SOURCE)?).ok()?,
        target: serde_json::from_str(annotations.get(TARGET)?).ok()?,
        hub: annotations.get(HUB)?.clone(),
        rendered: unhex(annotations.get(RENDERED)?)?,
        adopted: annotations.get(ADOPTED).is_some_and(|value| value == "true"),
        mac: unhex(annotations.get(MAC)?)?,
        intent: annotations.get(INTENT).cloned(),
    })
}

/// Does the object carry any mark at all, whole or not?
#[must_use]
pub fn has_marks(annotations: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    labels.keys().chain(annotations.keys()).any(|key| is_mark(key))
}

fn json(value: &impl Serialize) -> String {
    // Structs of strings and numbers always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

fn with_object(value: &mut Value, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut map = match value.take() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    change(&mut map);
    *value = Value::Object(map);
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut out, byte| {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(text).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::GroupKind;
    use crate::object::RawObject;

    const KEY: [u8; 32] = [7; 32];

    fn marks() -> Marks {
        Marks {
            policy: "production".to_owned(),
            source: SourceMark {
                cluster: "cluster-a".to_owned(),
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                uid: "u".to_owned(),
                hops: 1,
            },
            target: TargetMark {
                cluster: "t".to_owned(),
                key: ObjectKey::new(GroupKind::new("apps", "Deployment"), "shop", "web"),
            },
            adopted: false,
            hub: "h".to_owned(),
            rendered: [1; 32],
            mac: [0; 32],
            intent: None,
        }
        .signed(&KEY)
    }

    fn read(body: &Value) -> Option<Marks> {
        let bytes = serde_json::to_vec(body).unwrap();
        let object = RawObject::parse(&bytes).unwrap();
        read_marks(&object.metadata.annotations, &object.metadata.labels)
    }

    #[test]
    fn marks_round_trip_through_an_object() {
        let mut body = json!({"metadata": {"name": "web", "labels": {"app": "web"}}});
        stamp(&mut body, &marks());
        assert_eq!(read(&body).unwrap(), marks());
        assert!(verify(&read(&body).unwrap(), &KEY));
        assert_eq!(body["metadata"]["labels"], json!({"app": "web", "lockstep.dev/managed": "true"}));
        assert_eq!(
            body["metadata"]["annotations"][SOURCE],
            json!(r#"{"cluster":"cluster-a","namespace":"shop","name":"web","uid":"u","hops":1}"#)
        );
        assert_eq!(
            body["metadata"]["annotations"][TARGET],
            json!(r#"{"cluster":"t","group":"apps","kind":"Deployment","namespace":"shop","name":"web"}"#)
        );
    }

    #[test]
    fn what_our_apply_created_is_no_older_than_our_entry() {
        let nonce = BTreeMap::from([(INTENT.to_owned(), "n".to_owned())]);
        for (created, written, expected) in [
            ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z", false),
            ("2026-11-21T10:00:00Z", "2026-11-21T10:00:01Z", false),
            ("2026-11-21T10:00:09Z", "2026-11-21T10:00:00Z", false),
            ("2026-11-21T10:00:00Z", "2026-11-21T10:00:02Z", true),
            ("", "2026-11-21T10:00:02Z", false),
        ] {
            assert_eq!(was_met(&nonce, Some(created), written), expected, "{created} {written}");
            assert!(!was_met(&BTreeMap::new(), Some(created), written), "an update leaves no nonce");
        }
    }

    #[test]
    fn the_mac_covers_every_mark_but_the_intent() {
        assert!(!verify(&marks(), &[8; 32]), "another key");
        let changed: [fn(&mut Marks); 9] = [
            |m| m.policy.push('x'),
            |m| m.source.cluster.push('x'),
            |m| m.source.uid.push('x'),
            |m| m.source.hops += 1,
            |m| m.target.cluster.push('x'),
            |m| m.target.key.name = "x".into(),
            |m| m.hub.push('x'),
            |m| m.rendered[0] ^= 1,
            |m| m.adopted = true,
        ];
        for change in changed {
            let mut forged = marks();
            change(&mut forged);
            assert!(!verify(&forged, &KEY), "{forged:?}");
        }
        assert!(verify(&Marks { intent: Some("nonce".to_owned()), ..marks() }, &KEY));
    }

    #[test]
    fn half_a_set_of_marks_is_none() {
        let mut whole = json!({"metadata": {"name": "web"}});
        stamp(&mut whole, &Marks { intent: Some("n".to_owned()), ..marks() });
        assert_eq!(read(&whole).unwrap().intent.as_deref(), Some("n"));
        for name in [POLICY, SOURCE, TARGET, HUB, RENDERED, MAC] {
            let mut body = whole.clone();
            body["metadata"]["annotations"].as_object_mut().unwrap().remove(name);
            assert_eq!(read(&body), None, "{name}");
            body["metadata"]["annotations"][name] = json!("{broken");
            assert!(name == POLICY || name == HUB || read(&body).is_none(), "{name}");
        }
        let mut body = whole.clone();
        body["metadata"]["labels"] = json!({});
        assert_eq!(read(&body), None);
    }

    #[test]
    fn stripping_takes_every_mark_off() {
        let mut body = json!({"metadata": {"name": "web"}});
        stamp(&mut body, &Marks { intent: Some("n".to_owned()), ..marks() });
        crate::catalogue::strip(&GroupKind::new("apps", "Deployment"), &mut body);
        assert_eq!(body, json!({"metadata": {"name": "web"}}));
    }

    #[test]
    fn any_mark_is_noticed() {
        let none = BTreeMap::new();
        let one = BTreeMap::from([(SOURCE.to_owned(), String::new())]);
        assert!(has_marks(&one, &none) && has_marks(&none, &one) && !has_marks(&none, &none));
    }
}
