//! Which tombstones a person means, and their bodies.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt, TryStreamExt};
use lockstep_engine::restore::{Kept, Options};
use lockstep_engine::{ClusterId, GroupKind, ObjectKey};

use super::{Restorer, Selection, refused};
use crate::core::command::CommandError;
use crate::core::state::decode_served;
use crate::store::{ClusterRow, Reader, StoreError, TombstoneFilter, TombstoneRow, removed_clusters};

/// Bodies read from the archive at a time.
const READS: usize = 16;
/// Tombstones of one object that are looked through for its newest in each cluster.
const LOOKED_THROUGH: usize = 1_000;

/// What is restored, and where to.
pub(super) struct Selected {
    pub(super) from: ClusterId,
    pub(super) to: ClusterRow,
    pub(super) kept: Vec<Kept>,
}

/// Do the options make sense together?
pub(super) fn check(options: &Options, selection: &Selection) -> Result<(), CommandError> {
    let several = match selection {
        Selection::Tombstones(ids) => ids.len() != 1,
        Selection::Act(_) => true,
        Selection::Object { .. } => false,
    };
    if options.name.is_some() && several {
        return Err(refused(
            "LS0285",
            "another name is for one object only",
            "leave --name out, or name one object",
        ));
    }
    let label = |text: &str, longest: usize| {
        !text.is_empty()
            && text.len() <= longest
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b':'))
    };
    if let Some(name) = options.name.as_deref().filter(|name| !label(name, 253)) {
        return Err(refused(
            "LS0285",
            format!("`{name}` is no name of an object"),
            "use small letters, digits and `-`",
        ));
    }
    if let Some(namespace) = options.namespace.as_deref().filter(|name| !label(name, 63)) {
        return Err(refused(
            "LS0285",
            format!("`{namespace}` is no namespace"),
            "use small letters, digits and `-`",
        ));
    }
    Ok(())
}

/// Names of clusters, also of removed ones.
pub(super) fn cluster_names(reader: &mut dyn Reader) -> Result<BTreeMap<ClusterId, String>, StoreError> {
    let mut names: BTreeMap<ClusterId, String> =
        removed_clusters(reader)?.into_iter().map(|row| (row.id, row.name.to_string())).collect();
    names.extend(reader.clusters()?.into_iter().map(|row| (row.id, row.name.to_string())));
    Ok(names)
}

/// Rows of a selection, or why there are none.
type Found = Result<(Vec<TombstoneRow>, ClusterRow), CommandError>;

impl Restorer {
    pub(super) async fn select(
        &self,
        selection: &Selection,
        to: Option<&str>,
        limit: usize,
    ) -> Result<Selected, CommandError> {
        let (selection, to) = (selection.clone(), to.map(str::to_owned));
        let (rows, to) = self.read(move |reader| find(reader, &selection, to.as_deref(), limit)).await??;
        let from = rows.first().map_or(to.id, |row| row.cluster);
        let kept = self.load(rows, &BTreeSet::new()).await?;
        Ok(Selected { from, to, kept })
    }

    /// The bodies of tombstones: from the outbox, or from the archive.
    pub(super) async fn load(
        &self,
        rows: Vec<TombstoneRow>,
        dependencies: &BTreeSet<i64>,
    ) -> Result<Vec<Kept>, CommandError> {
        let bodies = &self.0.bodies;
        stream::iter(rows)
            .map(|row| async move {
                let failed = |why: &str| {
                    let message =
                        format!("the body of tombstone {} ({}) cannot be read: {why}", row.id, row.key);
                    refused(
                        "LS0262",
                        message,
                        "check that the archive is reachable; `lockstep doctor` names it",
                    )
                };
                let body = match (&row.body, &row.path) {
                    (Some(bytes), _) => {
                        serde_json::from_slice(bytes).map_err(|_| failed("it is not JSON"))?
                    }
                    (None, Some(path)) => bodies.body(path).await.map_err(|why| failed(&why))?,
                    // Nothing was kept of it but its name: the plan says so.
                    (None, None) => serde_json::Value::Null,
                };
                let dependency = dependencies.contains(&row.id);
                Ok(Kept { tombstone: row.id, key: row.key, uid: row.uid, body, dependency })
            })
            .buffered(READS)
            .try_collect()
            .await
    }

    /// The newest tombstones of these objects of a cluster.
    pub(super) async fn newest(
        &self,
        cluster: ClusterId,
        keys: BTreeSet<ObjectKey>,
    ) -> Result<Vec<(ObjectKey, Option<Kept>)>, CommandError> {
        let rows = self
            .read(move |reader| {
                let mut found = Vec::new();
                for key in keys {
                    let row = reader.tombstones(&filter(Some(cluster), &key), 1)?.into_iter().next();
                    // Lists come without bodies.
                    let row = row.map(|row| reader.tombstone(row.id)).transpose()?.flatten();
                    found.push((key, row));
                }
                Ok(found)
            })
            .await?;
        let mut kept = Vec::new();
        for (key, row) in rows {
            let one = self.load(row.into_iter().collect(), &BTreeSet::new()).await?.pop();
            kept.push((key, one.map(|one| Kept { dependency: true, ..one })));
        }
        Ok(kept)
    }
}

fn filter(cluster: Option<ClusterId>, key: &ObjectKey) -> TombstoneFilter {
    TombstoneFilter {
        cluster,
        gk: Some(key.gk.clone()),
        namespace: Some(key.namespace.to_string()),
        name: Some(key.name.to_string()),
        ..TombstoneFilter::default()
    }
}

fn find(
    reader: &mut dyn Reader,
    selection: &Selection,
    to: Option<&str>,
    limit: usize,
) -> Result<Found, StoreError> {
    let clusters = reader.clusters()?;
    let nothing = |message: String| {
        Ok(Err(refused("LS0281", message, "`lockstep tombstones list` shows what there is")))
    };
    let mut rows = Vec::new();
    match selection {
        Selection::Tombstones(ids) => {
            for id in ids {
                match reader.tombstone(*id)? {
                    Some(row) => rows.push(row),
                    None => return nothing(format!("there is no tombstone {id}")),
                }
            }
        }
        Selection::Act(act) => {
            let filter = TombstoneFilter { act: Some(*act), ..TombstoneFilter::default() };
            for row in reader.tombstones(&filter, limit + 1)? {
                rows.extend(reader.tombstone(row.id)?);
            }
            if rows.is_empty() {
                return nothing(format!("there is no act g{act}, or nothing is kept of it"));
            }
        }
        Selection::Object { kind, namespace, name, from } => {
            match newest_of(
                reader,
                &clusters,
                (kind, namespace, name),
                from.as_deref().or(to),
                from.is_some(),
            )? {
                Ok(row) => rows.push(row),
                Err(refused) => return Ok(Err(refused)),
            }
        }
    }
    if rows.len() > limit {
        let message = format!("more than {limit} objects at once");
        return Ok(Err(refused("LS0285", message, "restore them in parts, by their tombstones")));
    }
    let from = rows.first().map(|row| row.cluster);
    if rows.iter().any(|row| Some(row.cluster) != from) {
        let message = "the tombstones are of several clusters";
        return Ok(Err(refused("LS0285", message, "restore those of one cluster at a time")));
    }
    let found = match to {
        Some(name) => clusters.iter().find(|row| row.name.as_str() == name),
        None => clusters.iter().find(|row| Some(row.id) == from),
    };
    match (found, to) {
        (Some(cluster), _) => Ok(Ok((rows, cluster.clone()))),
        (None, Some(name)) => {
            let remedy = "`lockstep clusters` lists them";
            Ok(Err(refused("LS0254", format!("there is no cluster `{name}`"), remedy)))
        }
        (None, None) => {
            let message = "the cluster that it was deleted in is no member any more";
            Ok(Err(refused("LS0285", message, "name one to restore it to: --cluster")))
        }
    }
}

/// The newest tombstone of an object, in that cluster if there is one there.
fn newest_of(
    reader: &mut dyn Reader,
    clusters: &[ClusterRow],
    (kind, namespace, name): (&str, &str, &str),
    near: Option<&str>,
    only: bool,
) -> Result<Result<TombstoneRow, CommandError>, StoreError> {
    let Some((gk, namespaced)) = kind_of(clusters, kind) else {
        let message = format!("no cluster serves a kind `{kind}`");
        let remedy = "write it as kubectl does; of a kind that is gone, restore the tombstone by its number";
        return Ok(Err(refused("LS0251", message, remedy)));
    };
    let namespace = match (namespaced, namespace) {
        (false, _) => "",
        (true, "") => "default",
        (true, named) => named,
    };
    let key = ObjectKey::new(gk, namespace, name);
    let names = cluster_names(reader)?;
    let rows = reader.tombstones(&filter(None, &key), LOOKED_THROUGH)?;
    let named = |row: &TombstoneRow| names.get(&row.cluster).map_or("", String::as_str);
    let there: BTreeSet<&str> = rows.iter().map(named).collect();
    let near_row = near.and_then(|near| rows.iter().find(|row| named(row) == near));
    let row = match (near_row, there.len()) {
        (Some(row), _) => Some(row),
        (None, 1) if !only => rows.first(),
        (None, 0 | 1) => None,
        (None, _) => {
            let listed: Vec<&str> = there.into_iter().collect();
            let message = format!("{key} was deleted in several clusters: {}", listed.join(", "));
            return Ok(Err(refused("LS0285", message, "say of which with --from")));
        }
    };
    let row = row.map(|row| reader.tombstone(row.id)).transpose()?.flatten();
    Ok(row.ok_or_else(|| {
        let message = format!("there is no tombstone of {key}");
        refused("LS0281", message, "`lockstep tombstones list` shows what there is")
    }))
}

/// A kind as people type it, among those that clusters serve.
fn kind_of(clusters: &[ClusterRow], typed: &str) -> Option<(GroupKind, bool)> {
    let typed = typed.to_ascii_lowercase();
    let (name, group) = typed.split_once('.').map_or((typed.as_str(), None), |(n, g)| (n, Some(g)));
    clusters.iter().filter_map(|row| decode_served(&row.served)).find_map(|kinds| {
        let found = kinds.iter().find(|(gk, served)| {
            let named = [&served.kind, &served.plural, &served.singular]
                .into_iter()
                .chain(&served.short_names)
                .any(|candidate| candidate.eq_ignore_ascii_case(name));
            named && group.is_none_or(|group| gk.group.as_ref() == group)
        });
        found.map(|(gk, served)| (gk.clone(), served.namespaced))
    })
}
