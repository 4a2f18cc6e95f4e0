//! Is an object there now? Asked of containers (Namespace, CustomResourceDefinition) before what was in
//! them is taken for deleted by itself.

use lockstep_engine::object::RawObject;
use lockstep_engine::outcome::{Failure, FailureClass, Operation};
use lockstep_engine::{Millis, ResourceVersion, Uid, rfc3339};

use super::{Writer, sensitivity};
use crate::client::Call;
use crate::page::page;
use crate::resource::{Resource, with_query};

/// An object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Its uid.
    pub uid: Uid,
    /// `metadata.resourceVersion`: of its last change.
    pub resource_version: ResourceVersion,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.creationTimestamp`, by the API server's clock, in whole seconds.
    pub created: Option<Millis>,
}

impl Writer {
    /// Whether an object without a namespace is there, read consistently; nothing when it is not. By a
    /// list of one, for which the right to list is enough.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn probe(&self, resource: &Resource, name: &str) -> Result<Option<Probed>, Failure> {
        let selector = format!("metadata.name={name}");
        let parameters = [("fieldSelector", selector.as_str()), ("limit", "1")];
        let path = with_query(&resource.collection(None), &parameters);
        let reply = self.client().call(Call::get(&path)).await.map_err(crate::RequestError::into_failure)?;
        if !reply.is_success() {
            return Err(reply.failure(Operation::List, sensitivity(resource)));
        }
        let unreadable =
            |why: String| Failure::local(FailureClass::Transient, &format!("unreadable answer: {why}"));
        let page = page(&reply.body).map_err(|error| unreadable(error.to_string()))?;
        let Some(item) = page.items.into_iter().next() else { return Ok(None) };
        let object = RawObject::parse(&item).map_err(|error| unreadable(error.to_string()))?;
        Ok(Some(Probed {
            uid: object.uid(),
            resource_version: object.resource_version(),
            deleting: object.metadata.deletion_timestamp.is_some(),
            created: object.metadata.creation_timestamp.as_deref().and_then(rfc3339::parse),
        }))
    }
}
