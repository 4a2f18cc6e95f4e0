//! Bringing an object back because a person asked for it: the one place that writes by POST and PUT.
//! A create must fail where something is there, and a replacement must also take away what was added
//! since; server-side apply does neither. Nothing of lockstep is left on the object but the name of
//! its field manager.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use lockstep_engine::outcome::{Failure, FailureClass, Operation};
use lockstep_engine::ownership::RESTORE_MANAGER;
use lockstep_engine::{ResourceVersion, Uid};
use serde_json::Value;

use super::{Writer, live, sensitivity};
use crate::client::{Call, Reply};
use crate::resource::{Resource, with_query};

/// One object to bring back.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// Kind and version.
    pub resource: Resource,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// JSON, in the version of `resource`.
    pub body: Bytes,
    /// What is there now.
    pub expect: RestoreExpect,
    /// The API server checks it, and keeps nothing.
    pub dry_run: bool,
    /// Its status, too, where the kind has one.
    pub status: bool,
}

/// What a restore expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreExpect {
    /// Nothing.
    Absent,
    /// Exactly this state, which it replaces as a whole.
    Present {
        /// Its uid.
        uid: Uid,
        /// Its resourceVersion.
        resource_version: ResourceVersion,
    },
}

/// An object that is there now, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Its uid.
    pub uid: Uid,
    /// Its resourceVersion; that of the state it replaces where it changed nothing.
    pub resource_version: ResourceVersion,
    /// It was not there before.
    pub created: bool,
}

impl Writer {
    /// Creates or replaces one object.
    ///
    /// # Errors
    /// [`FailureClass::AlreadyExists`] where it expects nothing, [`FailureClass::Stale`] where another
    /// state is there, and whatever the server refuses.
    pub async fn restore(&self, plan: &RestorePlan) -> Result<Restored, Failure> {
        let unreadable = || Failure::local(FailureClass::Invalid, "the body is no JSON object with metadata");
        let mut body: Value = serde_json::from_slice(&plan.body).map_err(|_| unreadable())?;
        let object = body.as_object_mut().ok_or_else(unreadable)?;
        let status = object.get("status").cloned().filter(|_| plan.status);
        if status.is_none() {
            object.remove("status");
        }
        let metadata = body.get_mut("metadata").and_then(Value::as_object_mut).ok_or_else(unreadable)?;
        let created = match &plan.expect {
            RestoreExpect::Absent => {
                metadata.remove("uid");
                metadata.remove("resourceVersion");
                true
            }
            RestoreExpect::Present { uid, resource_version } => {
                metadata.insert("uid".to_owned(), uid.as_str().into());
                metadata.insert("resourceVersion".to_owned(), resource_version.as_str().into());
                false
            }
        };
        let reply = self.write(plan, created, &body).await?;
        let mut there = live(reply.body)?;
        if let Some(status) = status.filter(|_| !plan.dry_run) {
            there.resource_version = self.write_status(plan, &there.body, status).await?;
        }
        Ok(Restored { uid: there.uid, resource_version: there.resource_version, created })
    }

    async fn write(&self, plan: &RestorePlan, create: bool, body: &Value) -> Result<Reply, Failure> {
        let (method, operation, path) = if create {
            (Method::POST, Operation::Create, plan.resource.collection(Some(&plan.namespace)))
        } else {
            (Method::PUT, Operation::Replace, plan.resource.object(&plan.namespace, &plan.name))
        };
        self.send_object(plan, method, &path, body, operation).await
    }

    /// Creates ignore the status of most kinds: it is written afterwards, to what is there then.
    async fn write_status(
        &self,
        plan: &RestorePlan,
        there: &[u8],
        status: Value,
    ) -> Result<ResourceVersion, Failure> {
        let unreadable = || Failure::local(FailureClass::Transient, "the answer is no JSON object");
        let mut body: Value = serde_json::from_slice(there).map_err(|_| unreadable())?;
        let before = live(Bytes::copy_from_slice(there))?.resource_version;
        body.as_object_mut().ok_or_else(unreadable)?.insert("status".to_owned(), status);
        let path = format!("{}/status", plan.resource.object(&plan.namespace, &plan.name));
        match self.send_object(plan, Method::PUT, &path, &body, Operation::Replace).await {
            Ok(reply) => Ok(live(reply.body)?.resource_version),
            // The kind has none apart from the object.
            Err(failure) if failure.class == FailureClass::NotServed => Ok(before),
            Err(mut failure) => {
                failure.message = format!("it is there, but without its status: {}", failure.message);
                Err(failure)
            }
        }
    }

    async fn send_object(
        &self,
        plan: &RestorePlan,
        method: Method,
        path: &str,
        body: &Value,
        operation: Operation,
    ) -> Result<Reply, Failure> {
        let mut parameters = vec![("fieldManager", RESTORE_MANAGER)];
        if plan.dry_run {
            parameters.push(("dryRun", "All"));
        }
        let path = with_query(path, &parameters);
        let call = Call {
            method,
            content_type: Some("application/json"),
            body: body.to_string().into_bytes(),
            ..Call::get(&path)
        };
        let reply = self.client.call(call).await.map_err(crate::RequestError::into_failure)?;
        if reply.is_success() {
            return Ok(reply);
        }
        Err(reply.failure(operation, sensitivity(&plan.resource)))
    }
}
