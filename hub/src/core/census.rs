//! Anti-entropy: what an agent's index holds of a namespace is compared with the rows here. Where the
//! two differ, the agent is told what is held here, and reads again what it finds different.

use std::collections::BTreeSet;

use lockstep_engine::census::{Census, Member};
use lockstep_engine::{ClusterId, ObjectKey};
use lockstep_wire::v1;

use super::state::SessionCommand;
use super::{AfterCommit, Core};
use crate::store::{IndexRow, Reader, Store, StoreError};

/// Rows read at a time.
const PAGE: usize = 1024;

impl<S: Store> Core<S> {
    /// The agent's queue was empty when it counted: with everything it sent committed, its index and
    /// the rows must be the same.
    pub(super) fn census(
        &mut self,
        id: ClusterId,
        watch: u32,
        told: &[v1::Census],
    ) -> Result<(), StoreError> {
        for theirs in told {
            let ours = census_of(&mut self.store, watch, &theirs.namespace)?;
            if ours.count() == theirs.count && ours.digest() == theirs.digest[..] {
                continue;
            }
            let Some(cluster) = self.clusters.get(&id) else { return Ok(()) };
            let Some(watched) = cluster.watches.get(&watch) else { return Ok(()) };
            // Writes whose events the agent has not read yet are here and not there.
            let writing = |key: &lockstep_engine::ObjectKey| {
                key.gk == watched.row.gk && *key.namespace == *theirs.namespace
            };
            if !watched.is_live() || cluster.echoes.keys().any(writing) || cluster.busy.keys().any(writing) {
                continue;
            }
            let (name, kind, held, there) = (&cluster.row.name, &watched.row.gk, ours.count(), theirs.count);
            tracing::warn!(
                cluster = %name, %kind, namespace = theirs.namespace, held, there,
                "the store and the agent differ; what differs is read again"
            );
            let Some(session) = cluster.session.as_ref().map(|session| session.number) else { return Ok(()) };
            self.counts.census_mismatches += 1;
            let command = SessionCommand::Compare { watch, namespace: theirs.namespace.clone() };
            self.after.push(AfterCommit::Send(id, session, command));
        }
        Ok(())
    }
}

impl<S: Store> Core<S> {
    /// What was written, and no watch has told of, is expected still, whoever of hub and agent was away.
    pub(super) fn expect_echoes(&mut self, id: ClusterId) -> Result<(), StoreError> {
        let watches = self.clusters.get(&id).map(|cluster| &cluster.watches);
        let reached: Vec<(u32, u64)> = watches
            .into_iter()
            .flatten()
            .filter_map(|(number, watch)| Some((*number, watch.row.checkpoint.ordinal()?)))
            .collect();
        for (watch, reached) in reached {
            let written = self.store.unconfirmed(watch, reached)?;
            if let Some(cluster) = self.clusters.get_mut(&id) {
                cluster.echoes.extend(written);
            }
        }
        Ok(())
    }

    /// What we wrote is told by the watch at that resourceVersion at the latest, unless it went again in
    /// a gap of the watch: the agent, which never saw it, cannot miss it in a list (I2).
    pub(super) fn ask_for_echoes(&mut self, id: ClusterId, watch: u32) {
        let Some(cluster) = self.clusters.get_mut(&id) else { return };
        let Some(watched) = cluster.watches.get(&watch) else { return };
        let Some(reached) = watched.row.checkpoint.ordinal().filter(|_| watched.is_live()) else { return };
        let (gk, scope) = (&watched.row.gk, &watched.row.namespace);
        let overdue: Vec<ObjectKey> = cluster
            .echoes
            .iter()
            .filter(|(key, _)| key.gk == *gk && (scope.is_empty() || **scope == *key.namespace))
            .filter(|(_, written)| written.ordinal().is_some_and(|written| written <= reached))
            .map(|(key, _)| key.clone())
            .collect();
        let Some(session) = cluster.session.as_ref().map(|session| session.number) else { return };
        let mut namespaces = BTreeSet::new();
        for key in overdue {
            tracing::debug!(cluster = %cluster.row.name, object = %key, "what was written was not seen; it is read");
            cluster.echoes.remove(&key);
            namespaces.insert(key.namespace.to_string());
        }
        for namespace in namespaces {
            self.after.push(AfterCommit::Send(id, session, SessionCommand::Compare { watch, namespace }));
        }
    }
}

fn census_of<R: Reader + ?Sized>(reader: &mut R, watch: u32, namespace: &str) -> Result<Census, StoreError> {
    let mut census = Census::default();
    each(reader, watch, namespace, |row| census.add(&member(&row)))?;
    Ok(census)
}

fn member(row: &IndexRow) -> Member<'_> {
    Member {
        name: &row.name,
        uid: row.uid.as_str(),
        resource_version: row.resource_version.as_str(),
        body_held: row.body_held,
        managed: row.managed,
    }
}

/// Visits the index of one namespace of a watch.
pub fn each<R: Reader + ?Sized>(
    reader: &mut R,
    watch: u32,
    namespace: &str,
    mut visit: impl FnMut(IndexRow),
) -> Result<(), StoreError> {
    let mut after = (namespace.to_owned(), String::new());
    loop {
        let page = reader.index(watch, Some((&after.0, &after.1)), PAGE)?;
        let full = page.len() == PAGE;
        for row in page {
            if row.namespace != namespace {
                return Ok(());
            }
            after = (row.namespace.clone(), row.name.clone());
            visit(row);
        }
        if !full {
            return Ok(());
        }
    }
}
