//! Rows that tests put into stores.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_engine::status::{State, Status};
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion, Uid};

use crate::store::{
    Cause, DeleteStage, Ending, Facts, Fields, ManagedRow, ManagerRow, ObjectRow, Owned, PlacementRow,
    Record, SourceRef, TombstoneRow,
};

pub(crate) fn key(kind: &str, namespace: &str, name: &str) -> ObjectKey {
    let group = if kind == "Deployment" { "apps" } else { "" };
    ObjectKey::new(GroupKind::new(group, kind), namespace, name)
}

pub(crate) fn object(cluster: u32, watch: u32, key: ObjectKey) -> ObjectRow {
    ObjectRow {
        unseen: None,
        cluster: ClusterId(cluster),
        watch,
        uid: Uid::new(&format!("uid-{}", key.name)),
        resource_version: ResourceVersion::new("7"),
        body: Some(Bytes::from(format!(r#"{{"metadata":{{"name":"{}"}}}}"#, key.name))),
        managed: None,
        deleting: false,
        pod_security: [("pod-security.kubernetes.io/enforce".to_owned(), "baseline".to_owned())].into(),
        before: Some(Bytes::from_static(b"{\"metadata\":{}}")),
        observed_at: 1_000,
        key,
    }
}

pub(crate) fn managed() -> ManagedRow {
    ManagedRow {
        owned: Owned::Digest([9; 16]),
        marks: BTreeMap::from([("lockstep.dev/policy".to_owned(), "p \u{fc} \"q\"".to_owned())]),
        managers: vec![ManagerRow {
            name: "kubectl".into(),
            operation: "Apply".into(),
            subresource: String::new(),
            time: "2026-01-02T03:04:05Z".into(),
            fields: vec![".data.a".into()],
            truncated: true,
        }],
        created_at: -5,
        told: true,
    }
}

pub(crate) fn placement(target: u32, key: ObjectKey) -> PlacementRow {
    PlacementRow {
        target: ClusterId(target),
        key,
        policy: "p".into(),
        rivals: Vec::new(),
        source: Some(SourceRef {
            cluster: ClusterId(1),
            namespace: "shop".into(),
            name: "web".into(),
            uid: Uid::new("s"),
        }),
        record: None,
        status: Status::new(State::Pending, "Queued", "queued"),
        since: 10,
        observed_generation: 1,
        ending: None,
        delete: None,
        attempts: 0,
        next_attempt: None,
        barred: None,
        synced_at: None,
        lag_ms: None,
        fields: Fields::default(),
    }
}

pub(crate) fn full_placement(target: u32, key: ObjectKey) -> PlacementRow {
    PlacementRow {
        rivals: vec!["other".into()],
        record: Some(Record {
            uid: Some(Uid::new("t")),
            resource_version: ResourceVersion::new("8"),
            rendered: [3; 32],
            owned: Some([4; 16]),
            field_set: Bytes::from_static(b"{\"f:data\":{}}"),
            api_version: "apps/v1".into(),
            implicit: true,
            adopted: false,
            created_at: 11,
        }),
        status: Status::new(State::Held, "Budget", "waits"),
        observed_generation: u64::MAX,
        ending: Some(Ending::PolicyRemoved),
        delete: Some(DeleteStage::Archived {
            tombstone: 5,
            uid: Uid::new("t"),
            resource_version: ResourceVersion::new("9"),
        }),
        attempts: 3,
        next_attempt: Some(77),
        barred: Some(Bytes::from_static(b"\0\xff")),
        synced_at: Some(12),
        lag_ms: Some(-1),
        fields: Fields::default(),
        ..placement(target, key)
    }
}

pub(crate) fn tombstone(cluster: u32, key: ObjectKey, deleted_at: Millis) -> TombstoneRow {
    TombstoneRow {
        known_until: None,
        id: 0,
        cluster: ClusterId(cluster),
        uid: Uid::new("u"),
        resource_version: ResourceVersion::new("7"),
        api_version: "v1".into(),
        cause: Cause::Observed,
        deleted_at,
        last_seen: deleted_at - 1,
        body: Some(Bytes::from_static(b"{\"canary\":1}")),
        path: None,
        deleted: true,
        facts: Facts::default(),
        key,
    }
}
