//! The index out of the archive, after the store was lost. A file is known by its path: doing it twice finds
//! nothing new.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use lockstep_engine::acts::Span;
use lockstep_engine::{ClusterId, ClusterName, GroupKind, Millis, ObjectKey, ResourceVersion, Uid};

use super::super::content::{Ended, Header};
use super::super::envelope;
use super::super::layout::{HOLD, ROOT, hold_of, is_tombstone, uid_of};
use super::super::{ArchiveError, ClusterRef, Listed, SEALED, UNKNOWN_FILES};
use super::{BATCH, CONCURRENT, Keeper, KeeperError, Work, at, chain};
use crate::core::keeping::{FoundFile, Keeping};
use crate::redact::is_secret;
use crate::store::{Cause, Facts, Filed, Reader, TombstoneRow};

/// Of each cluster: when it was heard of last, and whether that was its removal.
type Lasts = BTreeMap<Uid, (Millis, bool)>;

impl Keeper {
    /// Begins to bring rows back for files that have none, unless that is under way.
    #[must_use]
    pub fn reindex(&self) -> Work {
        let mut work = at(&self.0.reindex);
        if let Some(running) = work.as_ref().filter(|work| work.running) {
            return running.clone();
        }
        let begun = Work { running: true, started_at_ms: (self.0.parts.now)(), ..Work::default() };
        *work = Some(begun.clone());
        let keeper = self.clone();
        tokio::spawn(async move {
            let result = keeper.reindex_all().await;
            keeper.ended(&keeper.0.reindex, result).await;
        });
        begun
    }

    /// The last one, and whether it is under way.
    #[must_use]
    pub fn reindexing(&self) -> Option<Work> {
        at(&self.0.reindex).clone()
    }

    async fn reindex_all(&self) -> Result<(), KeeperError> {
        let archive = self.0.parts.tombstones.archive.clone();
        // Listings come in any order: holds are few, and known before what they hold.
        let listed = || archive.list(ROOT);
        let holds = listed().try_filter(|file| std::future::ready(file.path.ends_with(HOLD)));
        let holds: BTreeSet<String> = holds.map_ok(|file| file.path).try_collect().await?;
        let mut lasts = Lasts::new();
        let mut files =
            listed().try_filter(|file| std::future::ready(is_tombstone(&file.path))).try_chunks(BATCH);
        while let Some(batch) = files.next().await {
            let batch = batch.map_err(|error| error.1)?;
            self.reindex_some(batch, &holds, &mut lasts).await?;
        }
        let removed = lasts.into_iter().filter(|(_, (_, removed))| *removed).map(|(uid, _)| uid).collect();
        self.ask(|reply| Keeping::Ended { removed, reply }).await?;
        self.0.parts.problems.clear(UNKNOWN_FILES);
        Ok(())
    }

    async fn reindex_some(
        &self,
        batch: Vec<Listed>,
        holds: &BTreeSet<String>,
        lasts: &mut Lasts,
    ) -> Result<(), KeeperError> {
        let looked_at = batch.len() as u64;
        // Nothing is purged between the look at a file and its row.
        let _turn = self.0.turn.lock().await;
        let batch: Vec<_> =
            batch.into_iter().map(|file| (holds.contains(&hold_of(&file.path)), file)).collect();
        let look = move |reader: &mut dyn Reader| {
            let mut unknown = Vec::new();
            for (held, file) in batch {
                let known = match uid_of(&file.path) {
                    Some(uid) => reader.filed_at(&uid, &file.path)?,
                    None => None,
                };
                match known {
                    Some(id) if !held || reader.hold(id)?.is_some() => {}
                    _ => unknown.push(file),
                }
            }
            Ok(unknown)
        };
        let unknown = self.read(look).await?;
        let read = futures::stream::iter(unknown.into_iter().map(|file| self.found(file, holds)));
        let read: Vec<_> = read.buffered(CONCURRENT).collect().await;
        let mut found = Vec::new();
        if let Some(work) = at(&self.0.reindex).as_mut() {
            work.looked_at += looked_at;
            for result in read {
                match result {
                    Ok(file) => found.push(file),
                    Err(error) => work.fail(chain(&error)),
                }
            }
        }
        for FoundFile { cluster, row, .. } in &found {
            let Some(uid) = cluster.uid.clone() else { continue };
            let told = (row.deleted_at, row.cause == Cause::ClusterRemoved);
            let last = lasts.entry(uid).or_insert(told);
            *last = (*last).max(told);
        }
        let new = self.ask(|reply| Keeping::Found { files: found, reply }).await?;
        if let Some(work) = at(&self.0.reindex).as_mut() {
            work.done += new;
        }
        Ok(())
    }

    async fn found(&self, file: Listed, holds: &BTreeSet<String>) -> Result<FoundFile, ArchiveError> {
        let tombstones = &self.0.parts.tombstones;
        let bytes = tombstones.archive.get(&file.path).await?;
        let key = file.path.ends_with(SEALED).then(|| envelope::key_of(&bytes)).transpose();
        let size = bytes.len() as u64;
        let header = tombstones.opened(&file.path, bytes)?.header;
        let beside = hold_of(&file.path);
        let hold = if holds.contains(&beside) { Some(self.read_hold(&beside).await?) } else { None };
        let key = key.ok().flatten().map(|key| key.to_string());
        let (cluster, row) = told(header, &file.path)?;
        Ok(FoundFile { cluster, row, file: Filed { path: file.path, size, key }, hold })
    }
}

/// What a header tells.
fn told(header: Header, path: &str) -> Result<(ClusterRef, TombstoneRow), ArchiveError> {
    let bad = |why: &str| ArchiveError::Content { path: path.to_owned(), why: why.to_owned() };
    let name = ClusterName::new(&header.cluster.name).map_err(|_| bad("it names no cluster"))?;
    let uid = Some(header.cluster.uid).filter(|uid| !uid.is_empty());
    let cause = match (header.cause.as_str(), header.policy) {
        ("Observed", _) => Cause::Observed,
        ("Inferred", _) => Cause::Inferred,
        ("Lockstep", policy) => Cause::Lockstep { policy: policy.unwrap_or_default() },
        ("Rewound", _) => Cause::Rewound,
        ("ClusterRemoved", _) => Cause::ClusterRemoved,
        ("Restore", _) => Cause::Restore,
        _ => return Err(bad("it has a cause that this build does not know")),
    };
    let object = header.object;
    let sealed = path.ends_with(SEALED) && !is_secret(&object.group, &object.kind);
    let row = TombstoneRow {
        id: 0,
        cluster: ClusterId(0),
        key: ObjectKey::new(GroupKind::new(&object.group, &object.kind), &object.namespace, &object.name),
        uid: Uid::new(&object.uid),
        resource_version: ResourceVersion::new(&object.resource_version),
        api_version: object.api_version,
        cause,
        deleted_at: header.deleted_at_ms,
        last_seen: header.last_seen_ms,
        known_until: header.known_until_ms,
        body: None,
        path: Some(path.to_owned()),
        deleted: true,
        facts: Facts {
            labels: header.labels,
            owners: header.owners,
            // The object tells; nothing waits for it any more.
            created: None,
            managers: header.field_managers,
            deleter: header.deleter,
            // Its number is that of the store that was lost.
            act: None,
            ended: header.ended.map(|Ended { from, to }| Span { from, to }),
            alive: header.alive,
            held: false,
            sealed,
            size: 0,
            last: None,
        },
    };
    Ok((ClusterRef { name, uid: uid.map(|uid| Uid::new(&uid)) }, row))
}
