//! Many objects at once.

use anyhow::{Context, Result};
use futures::TryStreamExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, LATE_ANSWERS, is_late};

/// Requests at a time: as many as an API server takes on before it slows down.
const WRITERS: usize = 32;
/// What an API server says to a create of what is there.
const ALREADY_THERE: u16 = 409;
/// What it says to a delete of what is not.
const NOT_THERE: u16 = 404;

/// ConfigMaps of one namespace that a policy selects by the label `sync: yes`.
#[derive(Clone)]
pub struct Maps {
    api: Api<DynamicObject>,
    namespace: String,
}

impl Maps {
    /// Those of a namespace of a cluster.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn of(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let api = cluster.api("v1", "ConfigMap", Some(namespace)).await?;
        Ok(Self { api, namespace: namespace.to_owned() })
    }

    fn object(&self, name: &str, value: &str, selected: bool) -> Result<DynamicObject> {
        let labels = if selected { json!({"sync": "yes"}) } else { json!({}) };
        let metadata = json!({"name": name, "namespace": self.namespace, "labels": labels});
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": value}});
        Ok(serde_json::from_value(object)?)
    }

    /// Creates them, all with the same value of `k`.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn create(&self, names: &[String], value: &str) -> Result<()> {
        self.each(names, ALREADY_THERE, async |name| {
            self.api.create(&PostParams::default(), &self.object(name, value, true)?).await?;
            Ok(())
        })
        .await
    }

    /// Creates some that no policy selects.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn create_others(&self, names: &[String]) -> Result<()> {
        self.each(names, ALREADY_THERE, async |name| {
            self.api.create(&PostParams::default(), &self.object(name, "", false)?).await?;
            Ok(())
        })
        .await
    }

    /// Replaces them, whatever is there.
    ///
    /// # Errors
    /// When the API server refuses one, or one is not there.
    pub async fn replace(&self, names: &[String], value: &str) -> Result<()> {
        self.each(names, ALREADY_THERE, async |name| {
            self.api.replace(name, &PostParams::default(), &self.object(name, value, true)?).await?;
            Ok(())
        })
        .await
    }

    /// Deletes them.
    ///
    /// # Errors
    /// When the API server refuses one, or one is not there.
    pub async fn delete(&self, names: &[String]) -> Result<()> {
        self.each(names, NOT_THERE, async |name| {
            self.api.delete(name, &DeleteParams::background()).await?;
            Ok(())
        })
        .await
    }

    /// All of the namespace that carry this label, by name.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn labelled(&self, label: &str) -> Result<std::collections::BTreeMap<String, Value>> {
        let list = self.api.list(&kube::api::ListParams::default().labels(label)).await?;
        let named = list.items.into_iter().map(|object| {
            Ok((object.metadata.name.clone().context("a name")?, serde_json::to_value(object)?))
        });
        named.collect()
    }

    /// A write whose answer came too late is repeated; `done` is what the server says if the first one did it.
    async fn each(&self, names: &[String], done: u16, write: impl AsyncFn(&str) -> Result<()>) -> Result<()> {
        let repeated = async |name: &str| {
            for attempt in 0..LATE_ANSWERS {
                let Err(error) = write(name).await else { return Ok(()) };
                match error.downcast_ref::<kube::Error>() {
                    Some(error) if is_late(error) => {}
                    Some(kube::Error::Api(status)) if attempt > 0 && status.code == done => return Ok(()),
                    _ => return Err(error),
                }
            }
            write(name).await
        };
        let names = futures::stream::iter(names.iter().map(anyhow::Ok));
        names
            .try_for_each_concurrent(WRITERS, async |name| {
                repeated(name).await.with_context(|| format!("ConfigMap {name}"))
            })
            .await
    }
}

/// `PREFIX-000`, `PREFIX-001`, ...
#[must_use]
pub fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n:05}")).collect()
}
