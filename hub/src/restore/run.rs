//! Carries restores out, and goes on with those that a hub before left under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use lockstep_engine::outcome::FailureClass;
use lockstep_engine::restore::{Found, Item, Verdict};
use lockstep_engine::{ClusterId, ObjectKey, Uid};
use lockstep_wire::v1::{self, outcome::Result as Answer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Restorer;
use super::select::Selected;
use super::survey::write;
use crate::core::command::{CommandError, Question, RestoreCommand};
use crate::retry::Retry;
use crate::store::restores::{ItemState, RestoreItemRow, RestoreRow};

/// Writes under way of one restore; the agent goes by what its API server takes.
const AT_ONCE: usize = 16;
/// Restores looked for at a time.
const PAGE: usize = 64;
/// Between two passes over what is left.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);
/// Passes without any progress after which what is left is given up: some two minutes. An agent that is
/// away is waited for without end.
const MAX_IDLE_PASSES: u32 = 30;

/// What came of one write.
enum Wrote {
    /// It is there.
    Done(Uid),
    /// It cannot be done.
    Failed(String),
    /// Look at what is there, and try again.
    Again(String),
}

impl Restorer {
    /// Runs until the hub stops.
    pub async fn run(self, stop: CancellationToken) {
        let mut running: BTreeSet<i64> = BTreeSet::new();
        let mut tasks: JoinSet<i64> = JoinSet::new();
        loop {
            match self.read(|reader| reader.restores(true, PAGE)).await {
                Ok(rows) => {
                    for row in rows {
                        if !running.insert(row.id) {
                            continue;
                        }
                        let restorer = self.clone();
                        tasks.spawn(async move {
                            restorer.carry_out(&row).await;
                            row.id
                        });
                    }
                }
                Err(error) => tracing::warn!("restores cannot be looked for, trying again: {error}"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.wake.notified() => {}
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(id) = ended {
                        running.remove(&id);
                    }
                }
                () = tokio::time::sleep(PAUSE_LONGEST) => {}
            }
        }
    }

    async fn carry_out(&self, row: &RestoreRow) {
        let mut pause = Retry::new(PAUSE_FIRST, PAUSE_LONGEST, row.id.unsigned_abs());
        let mut idle = 0;
        loop {
            match self.pass(row, idle >= MAX_IDLE_PASSES).await {
                Ok(Pass { left: 0, .. }) => break,
                Ok(Pass { progress: true, .. }) => {
                    idle = 0;
                    pause.reset();
                }
                Ok(Pass { progress: false, .. }) => idle += 1,
                Err(error) => tracing::info!(restore = row.id, "it waits: {error}"),
            }
            tokio::time::sleep(pause.next_wait()).await;
        }
        match self.command(|reply| RestoreCommand::End { id: row.id, reply }).await {
            Ok(()) => tracing::info!(restore = row.id, "the restore ended"),
            // It is still noted as under way, and taken up again.
            Err(error) => tracing::warn!(restore = row.id, "its end cannot be noted: {error}"),
        }
    }

    /// Plans what is left anew, and writes it, rank by rank.
    async fn pass(&self, restore: &RestoreRow, last: bool) -> Result<Pass, CommandError> {
        let id = restore.id;
        let (rows, selected) = self.loaded(restore).await?;
        let mut rows: BTreeMap<i64, RestoreItemRow> = rows
            .into_iter()
            .filter(|row| row.state == ItemState::Planned)
            .map(|row| (row.tombstone, row))
            .collect();
        let Some(selected) = selected else {
            self.give_up(rows.into_values().collect(), "its cluster is no member any more").await?;
            return Ok(Pass { left: 0, progress: true });
        };
        let draft = self.survey(&selected, &restore.options).await?;
        let before = rows.len();
        let planned = draft.plan.items.iter().map(|item| item.tombstone);
        self.give_up(purged(planned, &mut rows), "its tombstone was purged").await?;
        let mut uids: BTreeMap<ObjectKey, Uid> = BTreeMap::new();
        for item in &draft.plan.items {
            if let (Some(found), Verdict::InPlace) = (&item.found, item.verdict) {
                uids.insert(item.key.clone(), found.uid.clone());
            }
        }
        let mut ranks: BTreeMap<u32, Vec<Item>> = BTreeMap::new();
        for item in draft.plan.items.into_iter().filter(|item| rows.contains_key(&item.tombstone)) {
            ranks.entry(item.rank).or_default().push(item);
        }
        for (_, items) in ranks {
            let mut again = false;
            let works: Vec<_> = items
                .into_iter()
                .filter_map(|item| rows.remove(&item.tombstone).map(|row| (row, item)))
                .collect();
            let restored = &uids;
            let done: Vec<(RestoreItemRow, ObjectKey, Wrote)> = stream::iter(works)
                .map(|(row, item)| async move {
                    let (row, wrote) = self.item(draft.cluster, row, &item, restored, restore).await;
                    (row, item.key, wrote)
                })
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            let mut notes = Vec::new();
            for (mut row, key, wrote) in done {
                match wrote {
                    Wrote::Done(uid) => {
                        uids.insert(key, uid);
                        row.state = ItemState::Done;
                    }
                    Wrote::Failed(why) => {
                        tracing::warn!(restore = id, object = %row.key, "it is not restored: {why}");
                        (row.state, row.message) = (ItemState::Failed, why);
                    }
                    Wrote::Again(why) if last => (row.state, row.message) = (ItemState::Failed, why),
                    Wrote::Again(why) => {
                        again = true;
                        row.message = why;
                        rows.insert(row.tombstone, row.clone());
                    }
                }
                notes.push(row);
            }
            self.command(|reply| RestoreCommand::Note { items: notes, reply }).await?;
            if again {
                // What comes after it may need it.
                break;
            }
        }
        Ok(Pass { left: rows.len(), progress: rows.len() < before })
    }

    /// Notes what will not be written any more, and why.
    async fn give_up(&self, rows: Vec<RestoreItemRow>, why: &str) -> Result<(), CommandError> {
        if rows.is_empty() {
            return Ok(());
        }
        let failed = |row| RestoreItemRow { state: ItemState::Failed, message: why.to_owned(), ..row };
        let items = rows.into_iter().map(failed).collect();
        self.command(|reply| RestoreCommand::Note { items, reply }).await
    }

    /// Its objects, and what they are written from; that only while its cluster is a member.
    async fn loaded(
        &self,
        restore: &RestoreRow,
    ) -> Result<(Vec<RestoreItemRow>, Option<Selected>), CommandError> {
        let (id, to) = (restore.id, restore.cluster);
        let (items, tombstones, to) = self
            .read(move |reader| {
                let items = reader.restore_items(id)?;
                let mut tombstones = Vec::new();
                for item in &items {
                    tombstones.extend(reader.tombstone(item.tombstone)?);
                }
                let to = reader.clusters()?.into_iter().find(|row| row.id == to);
                Ok((items, tombstones, to))
            })
            .await?;
        let Some(to) = to else { return Ok((items, None)) };
        let from = tombstones.first().map_or(to.id, |row| row.cluster);
        let dependencies = items.iter().filter(|item| item.dependency).map(|item| item.tombstone).collect();
        let kept = self.load(tombstones, &dependencies).await?;
        Ok((items, Some(Selected { from, to, kept })))
    }

    /// One object, if what was planned for it is still what is to be done.
    async fn item(
        &self,
        cluster: ClusterId,
        mut row: RestoreItemRow,
        item: &Item,
        uids: &BTreeMap<ObjectKey, Uid>,
        restore: &RestoreRow,
    ) -> (RestoreItemRow, Wrote) {
        let planned = row.verdict;
        let as_planned = match item.verdict {
            Verdict::InPlace => {
                let uid = item.found.as_ref().map(|found| found.uid.clone()).unwrap_or_default();
                return (row, Wrote::Done(uid));
            }
            Verdict::Create => true,
            verdict => verdict == planned || verdict == Verdict::Update && planned == Verdict::Create,
        };
        if !as_planned || item.verdict == Verdict::Rename && item.key != row.key {
            return (row, Wrote::Failed(item.why.clone()));
        }
        let replaces = matches!(item.verdict, Verdict::Update | Verdict::Recreate);
        if let Some(found) = item.found.as_ref().filter(|_| replaces) {
            // I4: exactly the state that is about to go is in the archive.
            match self.keep(cluster, item, found).await {
                Ok(kept) => row.replaced = Some(kept),
                Err(error) => return (row, Wrote::Again(error.message)),
            }
            // Known also to a hub that is killed now.
            let items = vec![row.clone()];
            if let Err(error) = self.command(|reply| RestoreCommand::Note { items, reply }).await {
                return (row, Wrote::Again(error.message));
            }
            if item.verdict == Verdict::Recreate {
                let wrote = self.delete(cluster, item, found).await;
                return (row, wrote);
            }
        }
        let Some(question) = write(item, &|key| uids.get(key).cloned(), false, restore.options.status) else {
            return (row, Wrote::Failed("there is nothing to write".to_owned()));
        };
        let wrote = match self.ask(cluster, &item.key, question).await {
            Ok(Answer::Applied(applied)) => Wrote::Done(Uid::new(&applied.uid)),
            Ok(Answer::Failed(failed)) => failure(&failed),
            Ok(_) => Wrote::Failed("the agent gave another answer than was asked for".to_owned()),
            Err(error) => Wrote::Again(error.message),
        };
        (row, wrote)
    }

    async fn keep(&self, cluster: ClusterId, item: &Item, found: &Found) -> Result<i64, CommandError> {
        let key = item.key.clone();
        let image = v1::Image {
            uid: found.uid.to_string(),
            resource_version: found.resource_version.to_string(),
            body: serde_json::to_vec(&found.body).unwrap_or_default().into(),
            ..v1::Image::default()
        };
        self.command(|reply| RestoreCommand::Keep { cluster, key, image, reply }).await
    }

    /// Deletes what is in the way; what was kept is created in the next pass, when it is gone.
    async fn delete(&self, cluster: ClusterId, item: &Item, found: &Found) -> Wrote {
        let question = Question::Delete {
            uid: found.uid.to_string(),
            resource_version: found.resource_version.to_string(),
        };
        match self.ask(cluster, &item.key, question).await {
            Ok(Answer::Failed(failed)) => failure(&failed),
            Ok(_) => Wrote::Again("what was there is deleted".to_owned()),
            Err(error) => Wrote::Again(error.message),
        }
    }
}

/// What a pass came to.
struct Pass {
    left: usize,
    progress: bool,
}

/// Takes out what a plan has no tombstone of any more: it cannot come back, and would be waited for without end.
fn purged(
    planned: impl Iterator<Item = i64>,
    rows: &mut BTreeMap<i64, RestoreItemRow>,
) -> Vec<RestoreItemRow> {
    let planned: BTreeSet<i64> = planned.collect();
    rows.extract_if(.., |id, _| !planned.contains(id)).map(|(_, row)| row).collect()
}

fn failure(failed: &v1::Failed) -> Wrote {
    let (class, text) = (failed.known_class(), failed.text());
    // Somebody was faster, the definition or namespace is not ready yet, or nobody knows.
    let passes = !class.is_permanent() || class == FailureClass::NotServed;
    let why = format!("{class}: {text}");
    if passes { Wrote::Again(why) } else { Wrote::Failed(format!("{why}; to do: {}", class.advice().remedy)) }
}

#[cfg(test)]
mod tests {
    use lockstep_engine::GroupKind;

    use super::*;

    #[test]
    fn what_was_purged_is_not_waited_for() {
        let row = |tombstone| RestoreItemRow {
            restore: 1,
            position: 0,
            tombstone,
            key: ObjectKey::new(GroupKind::new("", "ConfigMap"), "shop", "web"),
            dependency: false,
            verdict: Verdict::Create,
            state: ItemState::Planned,
            message: String::new(),
            replaced: None,
        };
        let mut rows = BTreeMap::from([7, 8, 9].map(|id| (id, row(id))));
        // A dependency that nobody asked for when the restore began is in the plan, and no row of it.
        let given_up = purged([7, 9, 10].into_iter(), &mut rows);
        assert_eq!(given_up.iter().map(|row| row.tombstone).collect::<Vec<_>>(), [8]);
        assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [7, 9]);
    }
}
