//! Namespaces that objects need.

use std::collections::BTreeMap;

use lockstep_engine::Uid;
use lockstep_engine::outcome::{Failure, Operation, Sensitivity};
use lockstep_engine::ownership::MANAGER;
use serde_json::json;

use super::types::Undo;
use super::undo::Place;
use super::{ApplyCall, Writer, live};
use crate::resource::Resource;

/// Marks a namespace that lockstep made because an object needed it; such are never deleted (I6).
pub(super) const IMPLICIT_ANNOTATION: &str = "lockstep.dev/implicit";

/// Fields of an apply are owned by others.
const CONFLICT: u16 = 409;

/// A namespace that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedNamespace {
    /// Its uid.
    pub uid: Uid,
    /// Did this call create it?
    pub created: bool,
}

impl Writer {
    /// Creates a namespace that was found missing, with these labels. One that appeared meanwhile is left as it is.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn create_namespace(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CreatedNamespace, Failure> {
        let resource = Resource::namespaces();
        let body = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels, "annotations": {IMPLICIT_ANNOTATION: "true"}},
        });
        let apply = ApplyCall {
            resource: &resource,
            namespace: "",
            name,
            manager: MANAGER,
            force: false,
            dry_run: false,
            body: body.to_string().into_bytes(),
        };
        let reply = self.send_apply(apply).await?;
        // Somebody made it meanwhile, with labels of their own.
        if reply.status == CONFLICT
            && let Some(live) = self.read(&resource, "", name).await?
        {
            return Ok(CreatedNamespace { uid: live.uid, created: false });
        }
        if !reply.is_success() {
            return Err(reply.failure(Operation::Apply, Sensitivity::Plain));
        }
        let created = reply.status == 201;
        let live = live(reply.body)?;
        if created {
            tracing::info!(namespace = name, "created a namespace that an object needs");
        } else if let Undo::Failed(failure) =
            self.undo(Place { resource: &resource, namespace: "", name }, &live).await
        {
            tracing::warn!(namespace = name, %failure, "a mark could not be taken off a namespace that is not ours");
        }
        Ok(CreatedNamespace { uid: live.uid, created })
    }
}
