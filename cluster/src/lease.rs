//! The Lease that an agent counts in: read and written, without an opinion.
//!
//! A restore of etcd takes the counter back with everything else, and the counter is nobody's but
//! the agent's: that is how a restore is told from a busy day (docs/decisions/0008-rewinds.md).

use lockstep_engine::outcome::{Failure, FailureClass, Operation, Sensitivity};
use lockstep_engine::{ResourceVersion, Uid};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{ClusterClient, Reply};
use crate::error::{RequestError, position};
use crate::resource::{Resource, with_query};
use crate::yaml::apply_call;

/// The annotation with the counter.
const COUNTER: &str = "lockstep.dev/lease-counter";
/// Not the manager of synced objects: a Lease is none.
const MANAGER: &str = "lockstep-agent";

/// A Lease as it was read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseState {
    /// Its counter; 0 where it has none that can be read.
    pub counter: u64,
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`.
    pub resource_version: ResourceVersion,
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseWrite<'a> {
    /// Namespace; it must exist.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// The new counter.
    pub counter: u64,
    /// `holderIdentity`.
    pub holder: &'a str,
    /// `leaseDurationSeconds`.
    pub duration_s: u32,
    /// `renewTime`: RFC 3339 with microseconds.
    pub renew_time: &'a str,
    /// The state that was read, and that must still be the present one; none: there was no Lease.
    pub over: Option<&'a LeaseState>,
}

impl ClusterClient {
    /// Reads a Lease; nothing when it is not there.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn read_lease(&self, namespace: &str, name: &str) -> Result<Option<LeaseState>, Failure> {
        let path = leases().object(namespace, name);
        let reply = self.get(&path).await.map_err(RequestError::into_failure)?;
        match state(&reply, Operation::Read) {
            Ok(state) => Ok(Some(state)),
            Err(failure) if failure.class == FailureClass::Gone => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Writes a Lease by server-side apply, over exactly the state that was read; the new state.
    ///
    /// # Errors
    /// When the server refuses or does not answer. [`FailureClass::Stale`] or [`FailureClass::Gone`]:
    /// somebody else wrote first.
    pub async fn write_lease(&self, write: &LeaseWrite<'_>) -> Result<LeaseState, Failure> {
        let path = leases().object(write.namespace, write.name);
        let path = with_query(&path, &[("fieldManager", MANAGER), ("force", "true")]);
        let call = apply_call(&path, body(write).to_string().into_bytes());
        let reply = self.call(call).await.map_err(RequestError::into_failure)?;
        let state = state(&reply, Operation::Apply)?;
        if write.over.is_none() && reply.status != 201 {
            // Apply has no create-only: it went onto a Lease that was made in between.
            return Err(Failure::local(FailureClass::Stale, "somebody else made the Lease"));
        }
        Ok(state)
    }
}

fn leases() -> Resource {
    Resource {
        group: "coordination.k8s.io".into(),
        version: "v1".into(),
        kind: "Lease".into(),
        plural: "leases".into(),
        namespaced: true,
    }
}

fn body(write: &LeaseWrite<'_>) -> Value {
    let LeaseWrite { namespace, name, counter, holder, duration_s, renew_time, over } = write;
    let mut metadata = json!({
        "name": name,
        "namespace": namespace,
        "annotations": { COUNTER: counter.to_string() },
    });
    if let (Some(over), Some(members)) = (over, metadata.as_object_mut()) {
        // Without the uid, an apply to a Lease that is gone would make a new one.
        members.insert("uid".to_owned(), over.uid.as_str().into());
        members.insert("resourceVersion".to_owned(), over.resource_version.as_str().into());
    }
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": duration_s, "renewTime": renew_time },
    })
}

fn state(reply: &Reply, operation: Operation) -> Result<LeaseState, Failure> {
    #[derive(Deserialize)]
    struct Lease {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        uid: String,
        resource_version: String,
        annotations: Option<std::collections::BTreeMap<String, String>>,
    }
    if !reply.is_success() {
        return Err(reply.failure(operation, Sensitivity::Plain));
    }
    let Lease { metadata } = serde_json::from_slice(&reply.body).map_err(|error| {
        let why = format!("the Lease could not be read: {}", position(&error));
        Failure::local(FailureClass::Transient, &why)
    })?;
    let counter = metadata.annotations.unwrap_or_default().get(COUNTER).and_then(|text| text.parse().ok());
    Ok(LeaseState {
        counter: counter.unwrap_or(0),
        uid: Uid::new(&metadata.uid),
        resource_version: ResourceVersion::new(&metadata.resource_version),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &Value) -> Reply {
        Reply { status, body: body.to_string().into_bytes().into(), retry_after_ms: None, etag: None }
    }

    #[test]
    fn a_write_names_the_state_that_it_replaces() {
        let over = LeaseState { counter: 7, uid: Uid::new("u"), resource_version: ResourceVersion::new("5") };
        let write = LeaseWrite {
            namespace: "n",
            name: "l",
            counter: 8,
            holder: "i",
            duration_s: 40,
            renew_time: "2026-01-31T08:05:09.000000Z",
            over: Some(&over),
        };
        let metadata = &body(&write)["metadata"];
        assert_eq!((&metadata["uid"], &metadata["resourceVersion"]), (&json!("u"), &json!("5")));
        assert_eq!(metadata["annotations"][COUNTER], "8");
        let first = body(&LeaseWrite { over: None, ..write });
        assert!(first["metadata"]["uid"].is_null() && first["metadata"]["resourceVersion"].is_null());
    }

    #[test]
    fn a_lease_without_a_readable_counter_counts_nothing() {
        for (annotations, expected) in [
            (json!({ COUNTER: "12" }), 12),
            (json!({ COUNTER: "-1" }), 0),
            (json!({ "other": "12" }), 0),
            (Value::Null, 0),
        ] {
            let metadata = json!({"uid": "u", "resourceVersion": "3", "annotations": annotations});
            let read = state(&reply(200, &json!({ "metadata": metadata })), Operation::Read).unwrap();
            assert_eq!((read.counter, read.resource_version.as_str()), (expected, "3"));
        }
        let broken = state(&reply(200, &json!({"metadata": {}})), Operation::Read).unwrap_err();
        assert_eq!(broken.class, FailureClass::Transient, "{broken}");
    }

    #[test]
    fn only_an_answer_about_the_lease_itself_says_that_it_is_gone() {
        let named = json!({"kind": "Status", "code": 404, "details": {"name": "l", "kind": "leases"}});
        let unknown = json!({"kind": "Status", "code": 404, "message": "404 page not found"});
        let class = |body| state(&reply(404, &body), Operation::Read).unwrap_err().class;
        assert_eq!((class(named), class(unknown)), (FailureClass::Gone, FailureClass::NotServed));
    }
}
