//! Writing to a cluster: server-side apply, delete, release.
//!
//! Every rule here is from docs/kubernetes.md. A write names what it expects to find; what it
//! finds instead is an outcome, never something to be overridden.

mod adopt;
mod apply;
mod compose;
mod contents;
mod handover;
mod lists;
mod namespace;
mod probe;
mod release;
mod restore;
mod types;
mod undo;
mod yields;

pub use contents::{Contents, ContentsItem};
pub use namespace::CreatedNamespace;
pub use probe::Probed;
pub use restore::{RestoreExpect, RestorePlan, Restored};
pub use types::{
    Applied, ApplyPlan, ApplyReport, DeletePlan, Deleted, Expect, Foreign, LastApplied, Live, Outcome,
    ReleasePlan, Released, Undo,
};
pub use undo::Retracted;

use bytes::Bytes;
use http::Method;
use lockstep_engine::ResourceVersion;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::object::RawObject;
use lockstep_engine::outcome::{Failure, FailureClass, Operation, Sensitivity, Status};
use lockstep_engine::ownership::INTENT_ANNOTATION;
use serde_json::json;

use crate::client::{Call, ClusterClient, Reply};
use crate::resource::{Resource, with_query};
use crate::yaml::apply_call;

/// Writes to one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    client: ClusterClient,
    secret_key: [u8; 32],
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("client", &self.client).finish_non_exhaustive()
    }
}

/// One server-side apply; the body is JSON.
struct ApplyCall<'a> {
    resource: &'a Resource,
    namespace: &'a str,
    name: &'a str,
    manager: &'a str,
    force: bool,
    dry_run: bool,
    body: Vec<u8>,
}

impl Writer {
    /// A writer. `secret_key` keys the digests of Secrets (I13).
    #[must_use]
    pub fn new(client: ClusterClient, secret_key: [u8; 32]) -> Self {
        Self { client, secret_key }
    }

    /// The client it writes with.
    #[must_use]
    pub fn client(&self) -> &ClusterClient {
        &self.client
    }

    fn digest_key(&self, resource: &Resource) -> Option<&[u8; 32]> {
        (sensitivity(resource) == Sensitivity::Secret).then_some(&self.secret_key)
    }

    /// Reads one object; nothing when it is not there.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn read(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Live>, Failure> {
        let path = resource.object(namespace, name);
        let reply = self.client.get(&path).await.map_err(crate::RequestError::into_failure)?;
        if reply.is_success() {
            return live(reply.body).map(Some);
        }
        let failure = reply.failure(Operation::Read, sensitivity(resource));
        if failure.class == FailureClass::Gone { Ok(None) } else { Err(failure) }
    }

    /// Deletes one object, if it is still the one and the state that we mean.
    pub async fn delete(&self, plan: &DeletePlan) -> Deleted {
        let path = plan.resource.object(&plan.namespace, &plan.name);
        let uid = guard::on(Guard::DeleteNamesUid).then_some(plan.uid.as_str());
        let version = guard::on(Guard::DeleteNamesVersion).then_some(plan.resource_version.as_str());
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid, "resourceVersion": version},
            "propagationPolicy": "Background",
        });
        let call = Call {
            method: Method::DELETE,
            content_type: Some("application/json"),
            body: options.to_string().into_bytes(),
            ..Call::get(&path)
        };
        let reply = match self.client.call(call).await {
            Ok(reply) => reply,
            Err(error) => return Deleted::Failed(error.into_failure()),
        };
        if reply.is_success() {
            // With finalizers left the answer is the object; without, a Status or the object as it was.
            let finalizing = RawObject::parse(&reply.body).is_ok_and(|object| {
                object.metadata.deletion_timestamp.is_some() && has_finalizers(&reply.body)
            });
            return Deleted::Done { finalizing };
        }
        let failure = reply.failure(Operation::Delete, sensitivity(&plan.resource));
        match failure.class {
            FailureClass::Gone => Deleted::Gone,
            FailureClass::Stale => Deleted::Stale,
            _ => Deleted::Failed(failure),
        }
    }

    async fn send_apply(&self, apply: ApplyCall<'_>) -> Result<Reply, Failure> {
        let mut parameters = vec![("fieldManager", apply.manager)];
        if apply.force {
            parameters.push(("force", "true"));
        }
        if apply.dry_run {
            parameters.push(("dryRun", "All"));
        }
        let path = with_query(&apply.resource.object(apply.namespace, apply.name), &parameters);
        self.client.call(apply_call(&path, apply.body)).await.map_err(crate::RequestError::into_failure)
    }
}

fn sensitivity(resource: &Resource) -> Sensitivity {
    Sensitivity::of(&resource.group, &resource.kind)
}

/// An answer that should be an object.
fn live(body: Bytes) -> Result<Live, Failure> {
    let (uid, resource_version, nonce) = {
        let object = RawObject::parse(&body).map_err(|error| {
            Failure::local(FailureClass::Transient, &format!("unreadable answer: {error}"))
        })?;
        (object.uid(), object.resource_version(), object.metadata.annotations.get(INTENT_ANNOTATION).cloned())
    };
    Ok(Live { uid, resource_version, nonce, body })
}

fn has_finalizers(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(serde::Deserialize)]
    struct Metadata {
        #[serde(default)]
        finalizers: Option<Vec<serde::de::IgnoredAny>>,
    }
    serde_json::from_slice::<Object>(body)
        .is_ok_and(|object| object.metadata.finalizers.is_some_and(|finalizers| !finalizers.is_empty()))
}

/// The server's Status of an answer.
fn status(reply: &Reply) -> Status {
    Status::parse(&reply.body)
}

/// A version that is given and not empty.
fn given(version: Option<&ResourceVersion>) -> Option<&ResourceVersion> {
    version.filter(|version| !version.is_empty())
}
