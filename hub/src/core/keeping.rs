//! What the archive's keeper does to tombstones: purged, held, sealed anew, found again in the archive.

use lockstep_engine::{ClusterId, ClusterName, Millis, Uid};

use super::Core;
use super::command::{CommandError, Reply};
use crate::archive::ClusterRef;
use crate::store::{Filed, Hold, RemovedCluster, Store, StoreError, TombstoneRow, put_removed_clusters};

/// What the keeper asks for.
#[derive(Debug)]
pub enum Keeping {
    /// Their files are gone: the rows go, too.
    Purged {
        /// Which.
        ids: Vec<i64>,
        /// Answer.
        reply: Reply<()>,
    },
    /// Put a hold on some, or take it off.
    Hold {
        /// Which.
        ids: Vec<i64>,
        /// None: release.
        hold: Option<Hold>,
        /// Answer.
        reply: Reply<()>,
    },
    /// Their files were written anew.
    Rewrapped {
        /// Which, and where.
        files: Vec<(i64, Filed)>,
        /// Answer.
        reply: Reply<()>,
    },
    /// Files of the archive that may have no row.
    Found {
        /// What they say.
        files: Vec<FoundFile>,
        /// Answer: how many had none.
        reply: Reply<u64>,
    },
    /// Everything was found: of these clusters the last that is told is that they were removed.
    Ended {
        /// uids of their kube-system namespaces.
        removed: Vec<Uid>,
        /// Answer.
        reply: Reply<()>,
    },
}

impl Keeping {
    /// The store takes nothing now. A file that is gone already has its row taken by the next sweep.
    pub(super) fn refuse(self, error: CommandError) {
        match self {
            Self::Purged { reply, .. }
            | Self::Hold { reply, .. }
            | Self::Rewrapped { reply, .. }
            | Self::Ended { reply, .. } => drop(reply.send(Err(error))),
            Self::Found { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// A file of the archive, read.
#[derive(Clone, Debug)]
pub struct FoundFile {
    /// The cluster it names.
    pub cluster: ClusterRef,
    /// The tombstone; its cluster is still to be told.
    pub row: TombstoneRow,
    /// Where it lies.
    pub file: Filed,
    /// A hold that lies beside it.
    pub hold: Option<Hold>,
}

impl<S: Store> Core<S> {
    pub(super) fn keeping(&mut self, keeping: Keeping, now: Millis) -> Result<(), StoreError> {
        match keeping {
            Keeping::Purged { ids, reply } => {
                for id in ids {
                    self.store.forget_tombstone(id)?;
                }
                self.answer(reply, Ok(()));
            }
            Keeping::Hold { ids, hold, reply } => {
                for id in ids {
                    self.store.set_hold(id, hold.as_ref())?;
                }
                self.answer(reply, Ok(()));
            }
            Keeping::Rewrapped { files, reply } => {
                for (id, file) in files {
                    self.store.set_filed(id, &file)?;
                }
                self.answer(reply, Ok(()));
            }
            Keeping::Found { files, reply } => {
                let new = files
                    .into_iter()
                    .try_fold(0, |new, file| Ok::<_, StoreError>(new + u64::from(self.found(file, now)?)))?;
                self.answer(reply, Ok(new));
            }
            Keeping::Ended { removed, reply } => {
                self.removed_again(&removed, now)?;
                self.answer(reply, Ok::<_, CommandError>(()));
            }
        }
        Ok(())
    }

    /// A file gets its row, unless it has one. Was it new?
    fn found(&mut self, found: FoundFile, now: Millis) -> Result<bool, StoreError> {
        let FoundFile { cluster, mut row, file, hold } = found;
        if let Some(id) = self.store.filed_at(&row.uid, &file.path)? {
            // A hold that was written when the store was lost.
            if hold.is_some() && self.store.hold(id)?.is_none() {
                self.store.set_hold(id, hold.as_ref())?;
            }
            return Ok(false);
        }
        row.cluster = self.cluster_of_file(&cluster, now)?;
        // The image of a delete that was never carried out: the object is still there.
        let there = self.store.object(row.cluster, &row.key)?;
        row.deleted = there.is_none_or(|there| there.uid != row.uid || there.deleting);
        let id = self.store.put_tombstone(&row)?;
        self.store.set_archived(id, &file)?;
        if row.deleted {
            // What owners took with them is found anew; of namespaces and policies only the store knew.
            self.join_act(row.cluster, id, now)?;
        }
        if hold.is_some() {
            self.store.set_hold(id, hold.as_ref())?;
        }
        Ok(true)
    }

    /// The cluster that a file names, by its uid: a member, one that was removed, or one that this store
    /// has not heard of yet.
    fn cluster_of_file(&mut self, cluster: &ClusterRef, now: Millis) -> Result<ClusterId, StoreError> {
        if let Some(uid) = &cluster.uid {
            let member = self.clusters.values().find(|known| known.row.uid.as_ref() == Some(uid));
            if let Some(member) = member {
                return Ok(member.id());
            }
            if let Some(former) = self.removed.iter().rfind(|former| former.uid.as_ref() == Some(uid)) {
                return Ok(former.id);
            }
        }
        if let Some(id) = self.names.get(&cluster.name).copied() {
            let known = self.clusters.get(&id).and_then(|known| known.row.uid.as_ref());
            return match known {
                // Another cluster has the name now.
                Some(_) if cluster.uid.is_some() => self.former(cluster, id, now),
                _ => Ok(id),
            };
        }
        let id = self.registered(&cluster.name, now)?;
        if let Some(known) = self.clusters.get_mut(&id) {
            known.row.uid.clone_from(&cluster.uid);
            self.store.put_cluster(&known.row)?;
        }
        Ok(id)
    }

    /// A cluster of the past, whose name another one has. It gets a number that is never given out again.
    fn former(
        &mut self,
        cluster: &ClusterRef,
        namesake: ClusterId,
        now: Millis,
    ) -> Result<ClusterId, StoreError> {
        let passing = (0..).map(|n| format!("former-{}-{n}", namesake.0));
        let passing = passing.filter_map(|name| ClusterName::new(&name).ok());
        let free = passing.into_iter().find(|name| !self.names.contains_key(name));
        let Some(free) = free else { return Ok(namesake) };
        let id = self.store.create_cluster(&free, now)?.id;
        self.store.forget_cluster(id)?;
        let (name, uid) = (cluster.name.clone(), cluster.uid.clone());
        self.removed.push(RemovedCluster { id, name, uid, at: now, cleared: true });
        put_removed_clusters(&mut self.store, &self.removed)?;
        Ok(id)
    }

    /// Clusters that were removed before the store was lost, and of which nothing was heard since.
    fn removed_again(&mut self, removed: &[Uid], now: Millis) -> Result<(), StoreError> {
        let gone = self.clusters.values().filter(|cluster| {
            let named = cluster.row.uid.as_ref().is_some_and(|uid| removed.contains(uid));
            named && cluster.row.connected_at.is_none() && cluster.row.token_hash.is_none()
        });
        let gone: Vec<ClusterId> = gone.map(super::state::Cluster::id).collect();
        for id in gone {
            self.take_out(id, now)?;
        }
        Ok(())
    }
}
