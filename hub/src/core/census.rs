//! Anti-entropy: what an agent's index holds of a namespace is compared with the rows here. Where the
//! two differ, the agent is told what is held here, and reads again what it finds different.

use lockstep_engine::ClusterId;
use lockstep_engine::census::{Census, Member};
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
