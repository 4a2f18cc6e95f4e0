//! What people ask for.

use lockstep_engine::status::State;
use lockstep_engine::{ClusterId, ClusterName, GroupKind, Millis};

use super::Core;
use super::command::{
    Approval, Approved, Command, CommandError, HeldDelete, ObjectRef, PauseScope, digest_of,
};
use super::state::{Cluster, Watch};
use crate::seal::BearerToken;
use crate::store::{DeleteStage, PlacementFilter, PlacementRow, Store, StoreError};

/// Placements that one approval visits at a time.
const PAGE: usize = 512;

pub(super) fn refusal(code: &str, message: String, remedy: &str) -> CommandError {
    CommandError { code: code.to_owned(), message, remedy: remedy.to_owned() }
}

fn note_held(held: &mut Vec<Approved>, policy: &str, target: String, row: &PlacementRow) {
    let object = HeldDelete {
        kind: row.key.gk.to_string(),
        namespace: row.key.namespace.to_string(),
        name: row.key.name.to_string(),
        reason: row.status.reason.clone(),
        message: row.status.message.clone(),
        since_ms: row.since,
    };
    match held.last_mut().filter(|last| last.target == target) {
        Some(last) => last.objects.push(object),
        None => held.push(Approved { policy: policy.to_owned(), target, objects: vec![object] }),
    }
}

impl<S: Store> Core<S> {
    pub(super) fn command(&mut self, command: Command, now: Millis) -> Result<(), StoreError> {
        match command {
            Command::Approve { policy, target, how, reply } => {
                let result = self.approve(&policy, target.as_deref(), &how, now)?;
                self.answer(reply, result);
            }
            Command::Pause { scope, paused, reply } => {
                let result = self.pause(&scope, paused)?;
                self.answer(reply, result);
            }
            Command::Orphan { scope, dry_run, reply } => {
                let result = self.orphan(&scope, dry_run)?;
                self.answer(reply, result);
            }
            Command::AcceptRewind { cluster, reply } => {
                let result = self.accept_rewind(&cluster, now)?;
                self.answer(reply, result);
            }
            Command::RemoveCluster { cluster, dry_run, reply } => {
                let result = self.remove_cluster(&cluster, dry_run, now)?;
                self.answer(reply, result);
            }
            Command::CreateToken { cluster, reply } => {
                let result = self.create_token(&cluster, now)?;
                self.answer(reply, result);
            }
            Command::Explain { object, reply } => {
                let result = self.explain(&object)?;
                self.answer(reply, result);
            }
            Command::Keep(keeping) => self.keeping(keeping, now)?,
            Command::Compare { object, reply } => self.compare(&object, reply)?,
            Command::Restore(command) => self.restore_command(command, now)?,
        }
        Ok(())
    }

    pub(super) fn cluster_by_name(&self, name: &str) -> Result<ClusterId, CommandError> {
        self.names.iter().find(|(known, _)| known.as_str() == name).map(|(_, id)| *id).ok_or_else(|| {
            let known: Vec<&str> = self.names.keys().map(ClusterName::as_str).collect();
            refusal(
                "LS0200",
                format!("no cluster is called `{name}`"),
                &format!("known: {}", known.join(", ")),
            )
        })
    }

    pub(super) fn policy_exists(&mut self, policy: &str) -> Result<Result<(), CommandError>, StoreError> {
        if self.set.by_name(policy).is_some() {
            return Ok(Ok(()));
        }
        // A policy that was removed may still have deletes that are held.
        let filter = PlacementFilter { policy: Some(policy.to_owned()), ..PlacementFilter::default() };
        if self.store.placement_count(&filter)? > 0 {
            return Ok(Ok(()));
        }
        let known: Vec<&str> = self.set.policies().map(|policy| policy.name.as_str()).collect();
        let remedy = format!("known: {}", known.join(", "));
        Ok(Err(refusal("LS0200", format!("no policy is called `{policy}`"), &remedy)))
    }

    /// Releases the deletes that are held now; what comes to be held later needs a new approval.
    fn approve(
        &mut self,
        policy: &str,
        target: Option<&str>,
        how: &Approval,
        now: Millis,
    ) -> Result<Result<Vec<Approved>, CommandError>, StoreError> {
        if let Err(refused) = self.policy_exists(policy)? {
            return Ok(Err(refused));
        }
        let target = match target.map(|name| self.cluster_by_name(name)).transpose() {
            Ok(target) => target,
            Err(refused) => return Ok(Err(refused)),
        };
        let all = PlacementFilter { policy: Some(policy.to_owned()), target, ..PlacementFilter::default() };
        if *how != Approval::Whatever {
            let held = self.held(policy, &all, false)?;
            match how {
                Approval::AsShown(digest) if *digest != digest_of(&held) => {
                    return Ok(Err(refusal(
                        "LS0215",
                        "what is held is not what was shown any more".to_owned(),
                        "look at it again: `lockstep approve POLICY --dry-run`",
                    )));
                }
                Approval::DryRun => return Ok(Ok(held)),
                Approval::AsShown(_) | Approval::Whatever => {}
            }
        }
        let approved = self.held(policy, &all, true)?;
        for Approved { target, .. } in &approved {
            if let Ok(id) = self.cluster_by_name(target) {
                self.fill_window(id, now)?;
            }
        }
        self.release_budgets(policy, target)?;
        self.scan_placements(all);
        let released = approved.iter().map(|a| a.objects.len()).sum::<usize>();
        tracing::info!(policy, released, "deletes approved");
        Ok(Ok(approved))
    }

    /// What is held: deletes that asked and were held, whatever covers them now (a pause, a silent
    /// target), then those that are held before they may ask.
    fn held(
        &mut self,
        policy: &str,
        all: &PlacementFilter,
        release: bool,
    ) -> Result<Vec<Approved>, StoreError> {
        let mut held: Vec<Approved> = Vec::new();
        for filter in [
            PlacementFilter { held: true, ..all.clone() },
            PlacementFilter { states: vec![State::Held], ..all.clone() },
        ] {
            let mut after = None;
            loop {
                let rows = self.store.placements(&filter, after.as_ref(), PAGE)?;
                let full = rows.len() == PAGE;
                for mut row in rows {
                    after = Some((row.target, row.key.clone()));
                    // The second look meets again what the first one found.
                    let known =
                        !filter.held && matches!(row.delete, Some(DeleteStage::Held | DeleteStage::Approved));
                    if known || row.status.reason == "DeletionPrevented" {
                        continue;
                    }
                    let name = self.cluster_name(row.target).to_owned();
                    note_held(&mut held, policy, name, &row);
                    if release {
                        row.delete = Some(DeleteStage::Approved);
                        self.store.put_placement(&row)?;
                        // In line by its wave, before the scan comes to it in the order of names.
                        self.wait(&row);
                    }
                }
                if !full {
                    break;
                }
            }
        }
        Ok(held)
    }

    fn release_budgets(&mut self, policy: &str, target: Option<ClusterId>) -> Result<(), StoreError> {
        for ((name, id), budget) in &mut self.budgets {
            if name == policy && target.is_none_or(|target| target == *id) {
                budget.release();
                let json = serde_json::to_string(budget).unwrap_or_default();
                self.store.put_budget(name, *id, &json)?;
            }
        }
        Ok(())
    }

    fn pause(&mut self, scope: &PauseScope, paused: bool) -> Result<Result<(), CommandError>, StoreError> {
        let mut filter = PlacementFilter::default();
        match scope {
            PauseScope::Everything => {
                self.paused = paused;
                self.store.put_meta("paused", if paused { "true" } else { "false" })?;
            }
            PauseScope::Cluster(name) => {
                let id = match self.cluster_by_name(name) {
                    Ok(id) => id,
                    Err(refused) => return Ok(Err(refused)),
                };
                if let Some(cluster) = self.clusters.get_mut(&id) {
                    cluster.row.paused = paused;
                    self.store.put_cluster(&cluster.row)?;
                }
                filter.target = Some(id);
            }
            PauseScope::Policy(name) => {
                let Some(row) = self.policies.get_mut(name) else {
                    let remedy = "see `lockstep status` for the policies in force";
                    return Ok(Err(refusal("LS0200", format!("no policy is called `{name}`"), remedy)));
                };
                row.paused = paused;
                let row = row.clone();
                self.store.put_policy(&row)?;
                filter.policy = Some(name.clone());
            }
        }
        tracing::info!(?scope, paused, "pause");
        self.scan_placements(filter);
        Ok(Ok(()))
    }

    fn create_token(
        &mut self,
        cluster: &ClusterName,
        now: Millis,
    ) -> Result<Result<String, CommandError>, StoreError> {
        let token = match BearerToken::of_agent(&self.keys.token, cluster) {
            Ok(token) => token,
            Err(error) => {
                let remedy = "the system's random source failed; try again";
                return Ok(Err(refusal("LS0209", error.to_string(), remedy)));
            }
        };
        let id = self.registered(cluster, now)?;
        if let Some(cluster) = self.clusters.get_mut(&id) {
            cluster.row.token_hash = Some(token.hash());
            self.store.put_cluster(&cluster.row)?;
        }
        self.open_gate();
        // A policy that named the cluster before it was known may be good now.
        if let Some(files) = self.last_files.clone() {
            self.policies_read(Ok(files), now)?;
        }
        Ok(Ok(token.reveal().to_owned()))
    }

    /// The id of a cluster, which is registered where it was not.
    pub(super) fn registered(&mut self, name: &ClusterName, now: Millis) -> Result<ClusterId, StoreError> {
        if let Some(id) = self.names.get(name) {
            return Ok(*id);
        }
        let row = self.store.create_cluster(name, now)?;
        let id = row.id;
        self.names.insert(name.clone(), id);
        self.clusters.insert(id, Cluster::new(row, Vec::new()));
        // What policies asked for there could not be planned before.
        let set = self.set.clone();
        for policy in set.policies() {
            let named = policy.spec.source_cluster == *name || policy.spec.target_clusters.contains(name);
            if let Some(row) = self.policies.get_mut(policy.name.as_str()).filter(|_| named) {
                row.planned = false;
                self.store.put_policy(row)?;
            }
        }
        self.update_policies()?;
        Ok(id)
    }

    /// A kind as people type it, among those that clusters serve or watches name.
    pub(super) fn kind_of(&self, object: &ObjectRef) -> Result<(GroupKind, bool), CommandError> {
        let typed = object.kind.to_ascii_lowercase();
        let kinds = self.known_kinds();
        let (name, group) = typed.split_once('.').map_or((typed.as_str(), None), |(n, g)| (n, Some(g)));
        let found = kinds.iter().find(|(gk, served)| {
            let named = [&served.kind, &served.plural, &served.singular]
                .into_iter()
                .chain(&served.short_names)
                .any(|candidate| candidate.eq_ignore_ascii_case(name));
            named && group.is_none_or(|group| gk.group.as_ref() == group)
        });
        // A kind that no cluster serves any more may still have copies, tombstones and deletes that are held.
        let watched = || {
            let watches = self.clusters.values().flat_map(|cluster| cluster.watches.values());
            let kind = |watch: &&Watch| {
                let kind = watch.row.gk.kind.to_ascii_lowercase();
                let named = name == kind || name.strip_suffix('s').is_some_and(|name| name == kind);
                named && group.is_none_or(|group| watch.row.gk.group.as_ref() == group)
            };
            let mut found = watches.filter(kind);
            found.next().map(|watch| (watch.row.gk.clone(), true))
        };
        let served = found.map(|(gk, served)| (gk.clone(), served.namespaced));
        served.or_else(watched).ok_or_else(|| {
            let remedy = "write it as kubectl does: plural, singular, short name or kind.group";
            refusal("LS0200", format!("no cluster serves a kind `{}`", object.kind), remedy)
        })
    }
}
