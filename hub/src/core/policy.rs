//! Policies as they change while running: the last good version of every file (I10), generations,
//! and what has to be looked at again.

use std::collections::BTreeSet;
use std::sync::Arc;

use lockstep_engine::budget::{Answer, Limit};
use lockstep_engine::catalogue::wave;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::status::{State, Status};
use lockstep_engine::{ClusterId, ClusterName, Millis, ObjectKey};
use lockstep_policies::{Change, CompiledPolicy, Disposition, Kind, LoadedFile, PolicySet, load};

use super::containers::PROBE_RETRY_MS;
use super::scan::Scan;
use super::{Core, PolicyFiles};
use crate::store::{DeleteStage, PlacementFilter, PlacementRow, PolicyFileRow, PolicyRow, Store, StoreError};

impl<S: Store> Core<S> {
    /// The set as it was when the hub stopped.
    pub(super) fn load_last_good(&mut self) -> Result<(), StoreError> {
        let files = self.store.policy_files()?;
        let (set, findings) =
            PolicySet::restore(files.iter().map(|file| (file.path.as_str(), file.text.as_str())));
        for finding in findings {
            tracing::error!("a stored policy is no longer understood: {finding}");
        }
        self.set = Arc::new(set);
        self.policies_known = false;
        Ok(())
    }

    pub(super) fn policies_read(&mut self, files: PolicyFiles, now: Millis) -> Result<(), StoreError> {
        let files: Vec<LoadedFile> = match files {
            Ok(files) => {
                self.last_files = Some(files.clone());
                files.into_iter().map(|(path, text)| LoadedFile { path, text }).collect()
            }
            Err(why) => {
                tracing::error!("the policies directory cannot be read, the policies in force stay: {why}");
                if let Ok(mut findings) = self.findings.write() {
                    findings.directory = Some(why);
                }
                return Ok(());
            }
        };
        let known: BTreeSet<ClusterName> = self.names.keys().cloned().collect();
        // After a loss of the store nobody knows what is registered.
        let lost = self.store.meta(super::connect::VOUCHED)?.is_some();
        let outcome = load(&self.set, &files, (!lost).then_some(&known));
        for finding in &outcome.findings {
            tracing::warn!("{finding}");
        }
        if let Ok(mut findings) = self.findings.write() {
            *findings = super::Findings { files: outcome.findings.clone(), directory: None };
        }
        let first = !self.policies_known;
        self.policies_known = true;
        let before = std::mem::replace(&mut self.set, Arc::new(outcome.set));
        self.remember_files()?;
        for change in &outcome.changed {
            tracing::info!(policy = %change.name, kind = ?change.kind, change = ?change.change, "policy");
            if change.kind == Kind::Sync && change.change == Change::Removed {
                self.policy_removed(&before, change.name.as_str())?;
            }
        }
        self.update_policies()?;
        if first || !outcome.changed.is_empty() {
            self.review_interest = true;
            self.send_interests(now)?;
        }
        Ok(())
    }

    fn remember_files(&mut self) -> Result<(), StoreError> {
        let rows: Vec<PolicyFileRow> = self
            .set
            .last_good()
            .map(|(path, text)| PolicyFileRow { path: path.to_owned(), text: text.to_owned() })
            .collect();
        if self.store.policy_files()? == rows { Ok(()) } else { self.store.put_policy_files(&rows) }
    }

    fn policy_removed(&mut self, before: &PolicySet, name: &str) -> Result<(), StoreError> {
        let deletion = before.by_name(name).map(|policy| policy.spec.deletion);
        let delete = deletion.is_some_and(|deletion| deletion.on_policy_delete == Disposition::Delete);
        let limit = deletion.filter(|_| delete).map(|deletion| Limit::from(deletion.budget));
        // A struct of numbers always serialises.
        self.store.put_meta(&removal_key(name), &serde_json::to_string(&limit).unwrap_or_default())?;
        self.store.delete_policy(name)?;
        self.policies.remove(name);
        self.scan_placements(PlacementFilter { policy: Some(name.to_owned()), ..PlacementFilter::default() });
        Ok(())
    }

    /// Did the policy that was removed ask for its copies to be deleted? Then within this limit.
    pub(super) fn limit_of_removed(&mut self, policy: &str) -> Result<Option<Limit>, StoreError> {
        let kept = self.store.meta(&removal_key(policy))?;
        Ok(kept.and_then(|json| serde_json::from_str(&json).ok()).flatten())
    }

    /// Gives generations to what changed, and plans whatever was not planned with its generation.
    pub(super) fn update_policies(&mut self) -> Result<(), StoreError> {
        let set = self.set.clone();
        for policy in set.policies() {
            let name = policy.name.as_str();
            let row = match self.policies.get(name) {
                Some(row) if row.digest == policy.digest && row.planned => continue,
                Some(row) if row.digest == policy.digest => row.clone(),
                Some(row) => PolicyRow {
                    digest: policy.digest,
                    generation: row.generation + 1,
                    planned: false,
                    ..row.clone()
                },
                None => PolicyRow {
                    name: name.to_owned(),
                    digest: policy.digest,
                    generation: 1,
                    planned: false,
                    paused: false,
                },
            };
            self.store.put_policy(&row)?;
            self.scan_policy(policy, row.generation);
            self.policies.insert(row.name.clone(), row);
        }
        Ok(())
    }

    fn scan_policy(&mut self, policy: &CompiledPolicy, generation: u64) {
        let name = policy.name.as_str().to_owned();
        self.scan_placements(PlacementFilter { policy: Some(name.clone()), ..PlacementFilter::default() });
        let targets: Vec<ClusterId> =
            policy.spec.target_clusters.iter().filter_map(|target| self.names.get(target).copied()).collect();
        if let Some(source) = self.names.get(&policy.spec.source_cluster).copied() {
            let kinds: BTreeSet<_> =
                policy.spec.resources.iter().map(|resource| resource.gk.clone()).collect();
            for gk in kinds {
                self.scans.push_back(Scan::Sources {
                    cluster: source,
                    gk,
                    targets: targets.clone(),
                    after: None,
                });
            }
        }
        self.scans.push_back(Scan::Planned { policy: name, generation });
    }

    /// Deletes that came up in this transaction ask their budget together (I7).
    pub(super) fn settle_deletes(&mut self, now: Millis) -> Result<(), StoreError> {
        for ((policy, target), mut keys) in std::mem::take(&mut self.asking) {
            // What was created last goes first.
            keys.sort_by_cached_key(|key| (std::cmp::Reverse(wave(&key.gk)), key.clone()));
            keys.dedup();
            self.still_asking(target, &mut keys)?;
            self.hold_first(target, &mut keys, now)?;
            if keys.is_empty() {
                continue;
            }
            let limit = match self.set.by_name(&policy) {
                Some(policy) => policy.spec.deletion.budget.into(),
                None => self.limit_of_removed(&policy)?.unwrap_or_default(),
            };
            let filter = PlacementFilter {
                policy: Some(policy.clone()),
                target: Some(target),
                ..PlacementFilter::default()
            };
            let placements = self.store.placement_count(&filter)?;
            let held = self.store.placement_count(&PlacementFilter { held: true, ..filter })?;
            let budget = self.budgets.entry((policy.clone(), target)).or_default();
            if budget.latched.is_some() && held == 0 {
                // The sources came back: what was held has dissolved.
                budget.release();
            }
            let answer = budget.ask(limit, keys.len() as u64, placements, now);
            let json = serde_json::to_string(budget).unwrap_or_default();
            self.store.put_budget(&policy, target, &json)?;
            for key in keys {
                self.settle(target, &key, answer, limit, now)?;
            }
        }
        Ok(())
    }

    /// A source that came back within the transaction no longer asks for a delete.
    fn still_asking(&mut self, target: ClusterId, keys: &mut Vec<ObjectKey>) -> Result<(), StoreError> {
        let mut still = Vec::with_capacity(keys.len());
        for key in keys.drain(..) {
            let row = self.store.placement(target, &key)?;
            if row.is_some_and(|row| {
                let asks = matches!(row.delete, None | Some(DeleteStage::Waiting { .. } | DeleteStage::Held));
                row.ending.is_some() && asks
            }) {
                still.push(key);
            }
        }
        *keys = still;
        Ok(())
    }

    /// Deletes that follow a deleted namespace or definition, or a rewind of the source, those of copies
    /// that nothing accounts for, and those whose source nobody saw deleted, are held, whatever the
    /// budget says.
    fn hold_first(
        &mut self,
        target: ClusterId,
        keys: &mut Vec<ObjectKey>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let mut others = Vec::with_capacity(keys.len());
        for key in keys.drain(..) {
            let Some(mut row) = self.store.placement(target, &key)? else { continue };
            if row.delete == Some(DeleteStage::Held) && guard::on(Guard::HeldStays) {
                // It stays so, also where the reason could no longer be seen, until a person has said so
                // or the source is back.
                self.hold_on(&mut row, now)?;
            } else if let Some(message) = self.recovered(&row).filter(|_| guard::on(Guard::RecoveredHeld)) {
                self.hold(&mut row, "Recovered", message, now)?;
            } else if let Some(message) =
                self.lost_in_rewind(&row)?.filter(|_| guard::on(Guard::SourceRewound))
            {
                self.hold(&mut row, "SourceRewound", message, now)?;
            } else if guard::on(Guard::ContainerUnknown)
                && !self.follows_containers(&row.policy)
                && self.containers_unknown(&row, now)?
            {
                // It asks again when that is told, or when nobody tells.
                row.next_attempt = Some(now + PROBE_RETRY_MS);
                self.note_due(row.next_attempt);
                let message =
                    "the source object was deleted; whether what contained it went too is not known yet";
                row.status = Status::new(State::Pending, "ContainerUnknown", message);
                self.store.put_placement(&row)?;
            } else if let Some(why) = self.container_gone(&row)?.filter(|_| guard::on(Guard::ContainerGone)) {
                let message = format!(
                    "the source object was deleted, and {why}; the delete is held: `lockstep approve {}` releases it",
                    row.policy
                );
                self.hold(&mut row, "ContainerDeleted", message, now)?;
            } else if let Some(message) =
                self.source_missing(&row)?.filter(|_| guard::on(Guard::SourceMissing))
            {
                self.hold(&mut row, "SourceMissing", message, now)?;
            } else {
                others.push(key);
            }
        }
        *keys = others;
        Ok(())
    }

    /// A delete that was held asked again: it is said what for, if something else was said meanwhile.
    fn hold_on(&mut self, row: &mut PlacementRow, now: Millis) -> Result<(), StoreError> {
        if row.status.state == State::Held {
            return self.store.put_placement(row);
        }
        let (reason, message) = if let Some(message) = self.recovered(row) {
            ("Recovered", message)
        } else if let Some(message) = self.lost_in_rewind(row)? {
            ("SourceRewound", message)
        } else {
            let message =
                format!("the delete was held before; `lockstep approve {}` releases it", row.policy);
            match (self.container_gone(row)?, self.source_missing(row)?) {
                (Some(why), _) => ("ContainerDeleted", format!("{why}; {message}")),
                (None, Some(message)) => ("SourceMissing", message),
                (None, None) => ("DeleteBudget", message),
            }
        };
        self.hold(row, reason, message, now)
    }

    fn hold(
        &mut self,
        row: &mut PlacementRow,
        reason: &str,
        message: String,
        now: Millis,
    ) -> Result<(), StoreError> {
        row.delete = Some(DeleteStage::Held);
        if row.status.state != State::Held {
            row.since = now;
            self.counts.held += 1;
        }
        row.status = Status::new(State::Held, reason, message);
        self.store.put_placement(row)
    }

    fn settle(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        answer: Answer,
        limit: Limit,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Some(mut row) = self.store.placement(target, key)? else { return Ok(()) };
        match answer {
            Answer::Granted => {
                row.delete = Some(DeleteStage::Granted);
                self.store.put_placement(&row)?;
                self.plan(target, key, None, now)
            }
            Answer::Held { allowed, spent } => {
                let why = match row.status.reason.as_str() {
                    "SourceRewound" => "the source object was lost in a rewind that was accepted".to_owned(),
                    _ => row.status.message.trim_end_matches("; it is being deleted").to_owned(),
                };
                let message = format!(
                    "{why}; the delete is held: the policy's budget allows {allowed} here in {}, {spent} were spent; `lockstep approve {}` releases it",
                    span(limit.window_ms),
                    row.policy
                );
                // What it was held for first is said on, unless that was decided.
                let decided = matches!(row.status.reason.as_str(), "SourceRewound" | "Recovered");
                if row.status.state == State::Held && !decided {
                    row.delete = Some(DeleteStage::Held);
                    return self.store.put_placement(&row);
                }
                self.hold(&mut row, "DeleteBudget", message, now)
            }
        }
    }
}

fn removal_key(policy: &str) -> String {
    format!("policy-removed/{policy}")
}

/// A time as a policy writes it.
fn span(millis: i64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let found = units.into_iter().find(|(_, unit)| millis >= *unit && millis % unit == 0);
    found.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", millis / unit))
}
