//! What decides whether a write succeeds. A write that was refused for good is barred until one of these changes
//! (docs/reference/status.md lists them for people).

use lockstep_engine::{ResourceVersion, Uid};

use super::state::ServedKind;
use crate::store::{ManagedRow, ManagerRow, ObjectRow, Owned};

/// What the write expects at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Create,
    Update,
    /// Nothing is forced: others take the same fields again and again.
    Contested,
    Adopt,
}

/// Every input of a write, apart from what no watch reports: RBAC, quotas and webhooks of the target.
#[derive(Clone, Debug)]
pub(super) struct Inputs<'a> {
    /// The source object as rendered, its uid, and the fields that are left to the target.
    pub desired: [u8; 32],
    /// Digest of the policy with all of its options.
    pub policy: [u8; 32],
    pub manner: Manner,
    /// The object at the target, as observed.
    pub object: Option<&'a ObjectRow>,
    /// What the target serves of the kind.
    pub served: Option<&'a ServedKind>,
    /// The definition of the kind at the target, which holds its schema: a change of it is a new resourceVersion.
    pub definition: Option<(&'a Uid, &'a ResourceVersion)>,
    /// The namespace at the target: its uid, and whether it is being deleted.
    pub namespace: Option<(&'a Uid, bool)>,
    /// Version of the target's API server: the schemas of its own kinds.
    pub server_version: &'a str,
    /// Version of the agent, which writes.
    pub agent_version: &'a str,
    /// What the agent accepts.
    pub accepts: &'a [String],
}

impl Inputs<'_> {
    /// Equal digests: the same write would fail in the same way.
    pub(super) fn digest(&self) -> [u8; 16] {
        let Self {
            desired,
            policy,
            manner,
            object,
            served,
            definition,
            namespace,
            server_version,
            agent_version,
            accepts,
        } = self;
        let mut hash = Hash(blake3::Hasher::new_derive_key("lockstep 2026 inputs v1"));
        hash.bytes(desired).bytes(policy).number(*manner as u64);
        hash.some(object.as_ref(), |hash, object| object_into(hash, object));
        hash.some(served.as_ref(), |hash, served| served_into(hash, served));
        hash.some(definition.as_ref(), |hash, (uid, version)| {
            hash.text(uid.as_str()).text(version.as_str());
        });
        hash.some(namespace.as_ref(), |hash, (uid, deleting)| {
            hash.text(uid.as_str()).number(u64::from(*deleting));
        });
        // Another release of the hub may render or classify otherwise.
        hash.text(server_version).text(agent_version).text(env!("CARGO_PKG_VERSION")).texts(accepts);
        hash.short()
    }
}

fn object_into(hash: &mut Hash, object: &ObjectRow) {
    hash.text(object.uid.as_str());
    hash.some(object.managed.as_ref(), |hash, managed| {
        // Who reported it does not matter.
        let ManagedRow { owned, marks, managers, created_at, told: _ } = managed;
        match owned {
            Owned::Digest(digest) => hash.number(0).bytes(digest),
            Owned::NoEntry => hash.number(1),
            Owned::OtherVersion => hash.number(2),
        };
        hash.number(marks.len() as u64);
        for (name, value) in marks {
            hash.text(name).text(value);
        }
        let writers: Vec<&ManagerRow> = managers.iter().filter(|manager| !writes_status(manager)).collect();
        hash.number(writers.len() as u64);
        for ManagerRow { name, operation, subresource, time, fields, truncated } in writers {
            hash.text(name).text(operation).text(subresource).text(time).texts(fields);
            hash.number(u64::from(*truncated));
        }
        hash.number(created_at.unsigned_abs());
    });
}

/// A controller that reports the state of the copy, time and again, changes nothing that a write depends on.
fn writes_status(manager: &ManagerRow) -> bool {
    let of_status = |field: &String| field == ".status" || field.starts_with(".status.");
    manager.subresource == "status"
        || !manager.truncated && !manager.fields.is_empty() && manager.fields.iter().all(of_status)
}

fn served_into(hash: &mut Hash, served: &ServedKind) {
    // Names for people decide nothing.
    let ServedKind { group, kind, versions, plural, singular: _, short_names: _, namespaced, verbs } = served;
    hash.text(group).text(kind).texts(versions).text(plural).number(u64::from(*namespaced)).texts(verbs);
}

/// Each part with its length: no two sequences of parts are one sequence of bytes.
struct Hash(blake3::Hasher);

impl Hash {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).0.update(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn texts(&mut self, texts: &[String]) -> &mut Self {
        self.number(texts.len() as u64);
        texts.iter().for_each(|text| {
            self.text(text);
        });
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn some<T>(&mut self, part: Option<T>, into: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.number(u64::from(part.is_some()));
        if let Some(part) = part {
            into(self, part);
        }
        self
    }

    fn short(&self) -> [u8; 16] {
        let mut short = [0; 16];
        short.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        short
    }
}

#[cfg(test)]
mod tests {
    use lockstep_engine::{ClusterId, GroupKind, ObjectKey};

    use super::*;

    fn manager(field: &str, time: &str) -> ManagerRow {
        ManagerRow {
            name: "controller".to_owned(),
            operation: "Update".to_owned(),
            subresource: String::new(),
            time: time.to_owned(),
            fields: vec![field.to_owned()],
            truncated: false,
        }
    }

    fn object(managers: Vec<ManagerRow>) -> ObjectRow {
        ObjectRow {
            cluster: ClusterId(1),
            key: ObjectKey::new(GroupKind::new("", "ConfigMap"), "shop", "web"),
            watch: 1,
            uid: Uid::new("u"),
            resource_version: ResourceVersion::new("7"),
            body: None,
            managed: Some(ManagedRow {
                owned: Owned::NoEntry,
                marks: std::collections::BTreeMap::new(),
                managers,
                created_at: 1,
                told: true,
            }),
            deleting: false,
            before: None,
            observed_at: 1,
            unseen: None,
            pod_security: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn every_input_counts_and_reports_of_state_do_not() {
        let (uid, other) = (Uid::new("d"), Uid::new("e"));
        let (one, two) = (ResourceVersion::new("1"), ResourceVersion::new("2"));
        let there = object(vec![manager(".spec.x", "t1")]);
        let edited = object(vec![manager(".spec.x", "t2")]);
        let kind = ServedKind {
            group: "example.com".to_owned(),
            kind: "Knob".to_owned(),
            versions: vec!["example.com/v1".to_owned()],
            plural: "knobs".to_owned(),
            singular: "knob".to_owned(),
            short_names: Vec::new(),
            namespaced: true,
            verbs: vec!["patch".to_owned()],
        };
        let more = ServedKind { versions: vec!["example.com/v2".to_owned()], ..kind.clone() };
        let accepts = vec!["Role".to_owned()];
        let inputs = Inputs {
            desired: [1; 32],
            policy: [2; 32],
            manner: Manner::Update,
            object: Some(&there),
            served: Some(&kind),
            definition: Some((&uid, &one)),
            namespace: Some((&uid, false)),
            server_version: "v1.20.2",
            agent_version: "0.1.0",
            accepts: &[],
        };
        let changed = [
            Inputs { desired: [3; 32], ..inputs.clone() },
            Inputs { policy: [3; 32], ..inputs.clone() },
            Inputs { manner: Manner::Contested, ..inputs.clone() },
            Inputs { object: None, ..inputs.clone() },
            Inputs { object: Some(&edited), ..inputs.clone() },
            Inputs { served: None, ..inputs.clone() },
            Inputs { served: Some(&more), ..inputs.clone() },
            Inputs { definition: None, ..inputs.clone() },
            Inputs { definition: Some((&other, &one)), ..inputs.clone() },
            Inputs { definition: Some((&uid, &two)), ..inputs.clone() },
            Inputs { namespace: None, ..inputs.clone() },
            Inputs { namespace: Some((&other, false)), ..inputs.clone() },
            Inputs { namespace: Some((&uid, true)), ..inputs.clone() },
            Inputs { server_version: "v1.36.2", ..inputs.clone() },
            Inputs { agent_version: "0.2.0", ..inputs.clone() },
            Inputs { accepts: &accepts, ..inputs.clone() },
        ];
        let mut digests: Vec<_> = changed.iter().map(Inputs::digest).chain([inputs.digest()]).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), changed.len() + 1);
        let busy = |time| object(vec![manager(".spec.x", "t1"), manager(".status.x", time)]);
        let (now, later) = (busy("t2"), busy("t3"));
        let seen = |object| Inputs { object: Some(object), ..inputs.clone() }.digest();
        assert_eq!(seen(&now), seen(&later));
        assert_eq!(seen(&now), inputs.digest());
    }
}
