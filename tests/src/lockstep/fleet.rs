//! What `lockstep up` works on in a test: one namespace in a source and two targets.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::harness::{PATIENCE, TestNamespace, eventually, unique_name};
use crate::testbed::Testbed;

/// A namespace of one name in the source, and in the targets once something is synced there.
pub struct Fleet<'a> {
    /// cluster-a, cluster-b, cluster-c.
    pub clusters: [&'a Cluster; 3],
    /// The namespace.
    pub namespace: String,
    _namespaces: Vec<TestNamespace>,
}

impl<'a> Fleet<'a> {
    /// Creates the namespace at the source.
    ///
    /// # Errors
    /// When an API server refuses.
    pub async fn new(bed: &'a Testbed, prefix: &str) -> Result<Self> {
        let clusters = bed.three()?;
        let namespace = unique_name(prefix)?;
        let mut namespaces = vec![TestNamespace::create_named(clusters[0], &namespace).await?];
        namespaces.extend(clusters[1..].iter().map(|cluster| TestNamespace::adopt(cluster, &namespace)));
        Ok(Self { clusters, namespace, _namespaces: namespaces })
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &'a Cluster {
        self.clusters[0]
    }

    /// The targets.
    #[must_use]
    pub fn targets(&self) -> [&'a Cluster; 2] {
        [self.clusters[1], self.clusters[2]]
    }

    /// Waits until `check` accepts the object in every target.
    ///
    /// # Errors
    /// When it does not, with the last reason.
    pub async fn everywhere(
        &self,
        api_version: &str,
        kind: &str,
        name: &str,
        check: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        self.follow(self.targets().into_iter(), api_version, kind, name, check).await
    }

    /// Waits until `check` accepts the object in every target but one.
    ///
    /// # Errors
    /// When it does not, with the last reason.
    pub async fn everywhere_but(
        &self,
        but: &Cluster,
        api_version: &str,
        kind: &str,
        name: &str,
        check: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let others = self.targets().into_iter().filter(|target| target.name() != but.name());
        self.follow(others, api_version, kind, name, check).await
    }

    async fn follow(
        &self,
        targets: impl Iterator<Item = &Cluster>,
        api_version: &str,
        kind: &str,
        name: &str,
        check: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        for target in targets {
            eventually(PATIENCE, &format!("{kind} {name} in {} follows", target.name()), async || {
                let object = target.get(api_version, kind, Some(&self.namespace), name).await?;
                ensure!(check(&object), "it is {object}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until no target has the object.
    ///
    /// # Errors
    /// When one keeps it.
    pub async fn nowhere(&self, api_version: &str, kind: &str, name: &str) -> Result<()> {
        for target in self.targets() {
            eventually(PATIENCE, &format!("{kind} {name} is gone from {}", target.name()), async || {
                let object = target.find(api_version, kind, Some(&self.namespace), name).await?;
                ensure!(object.is_none(), "it is there: {object:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
