//! What is asked for at one target: claimed, ended, let go of, or unknown.

use std::sync::Arc;

use lockstep_engine::ObjectKey;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::status::Status;
use lockstep_policies::{CompiledPolicy, Disposition, Rendered};

use super::Core;
use super::gather::{Claim, NoClaim};
use super::release::Waits;
use crate::store::{DeleteStage, Ending, PlacementRow, SourceRef, Store, StoreError};

/// What is asked for, with everything it borrows from.
pub(super) enum Asked {
    Claimed { claim: Claim, rendered: Result<Arc<Rendered>, Status> },
    Ended { ending: Ending, delete: bool, why: String, waits: Waits },
    Released,
    NotAccepted { message: String },
    Unknown { reason: &'static str, message: String },
}

/// What a claim carries that a step needs.
pub(super) struct Desired {
    pub claim: Claim,
    pub rendered: Arc<Rendered>,
}

impl Asked {
    pub(super) fn desired(&self) -> Option<Desired> {
        match self {
            Self::Claimed { claim, rendered: Ok(rendered) } => {
                Some(Desired { claim: claim.clone(), rendered: rendered.clone() })
            }
            _ => None,
        }
    }
}

impl<S: Store> Core<S> {
    pub(super) fn asked(
        &mut self,
        row: &mut PlacementRow,
        mut claims: Vec<Claim>,
    ) -> Result<Asked, StoreError> {
        if row.delete == Some(DeleteStage::Releasing) {
            return Ok(Asked::Released);
        }
        if !claims.is_empty() {
            let rivals = claims.split_off(1);
            let Some(claim) = claims.pop() else { return Ok(unclaimed()) };
            row.policy = claim.policy.name.as_str().to_owned();
            row.rivals = rivals.iter().map(|rival| rival.policy.name.as_str().to_owned()).collect();
            row.source = Some(SourceRef {
                cluster: claim.source,
                namespace: claim.object.key.namespace.to_string(),
                name: claim.object.key.name.to_string(),
                uid: claim.object.uid.clone(),
            });
            row.observed_generation = self.policies.get(&row.policy).map_or(0, |policy| policy.generation);
            let rendered = self.rendered(&claim, &row.key);
            if rendered.as_ref().is_ok_and(|rendered| self.is_made_anew(row, &claim, rendered)) {
                let why = "a field that cannot be changed is to be another, and the policy has it made anew";
                return Ok(end(row, Ending::Recreate, true, why.to_owned()));
            }
            row.ending = None;
            row.fields.immutable = None;
            if matches!(row.delete.take(), Some(DeleteStage::Waiting { .. })) {
                row.next_attempt = None;
            }
            return Ok(Asked::Claimed { claim, rendered });
        }
        row.rivals.clear();
        if !self.policies_known && guard::on(Guard::PoliciesKnown) {
            let message = "the policies have not been read yet".to_owned();
            return Ok(Asked::Unknown { reason: "PoliciesUnknown", message });
        }
        let Some(policy) = self.set.by_name(&row.policy).cloned() else {
            let delete = self.limit_of_removed(&row.policy)?.is_some();
            let why = format!("the policy {} was removed", row.policy);
            return Ok(end(row, Ending::PolicyRemoved, delete, why));
        };
        row.observed_generation = self.policies.get(&row.policy).map_or(0, |row| row.generation);
        let name = self.cluster_name(row.target).to_owned();
        if !policy.spec.target_clusters.iter().any(|target| target.as_str() == name) {
            let delete = policy.spec.deletion.on_policy_delete == Disposition::Delete;
            let why = format!("the policy {} no longer names {name} as a target", row.policy);
            return Ok(end(row, Ending::TargetRemoved, delete, why));
        }
        self.ended(row, &policy)
    }

    fn ended(&mut self, row: &mut PlacementRow, policy: &Arc<CompiledPolicy>) -> Result<Asked, StoreError> {
        let (target, key) = (row.target, row.key.clone());
        let deletion = policy.spec.deletion;
        if policy.resources_for(&key.gk).next().is_none() {
            // The policy itself says so; no cluster has to be asked.
            let delete = deletion.on_unselect == Disposition::Delete;
            return Ok(end(
                row,
                Ending::Unselected,
                delete,
                format!("the policy no longer names {}", key.gk),
            ));
        }
        let covers = |resource: &lockstep_policies::Resource| {
            resource.condition.covers_namespace(&key.namespace) && resource.condition.covers_name(&key.name)
        };
        if !policy.resources_for(&key.gk).any(|(_, resource)| covers(resource)) {
            let delete = deletion.on_unselect == Disposition::Delete;
            let why = format!("the policy no longer means {} {}", key.namespace, key.name);
            return Ok(end(row, Ending::Unselected, delete, why));
        }
        let came_from = row.source.as_ref().map(|source| source.cluster);
        let moved = came_from.is_some() && came_from != self.names.get(&policy.spec.source_cluster).copied();
        let unselected = row.ending == Some(Ending::Unselected);
        Ok(match self.claim(policy, target, &key)? {
            Ok(_) => unclaimed(),
            Err(NoClaim::Unknown(reason, message)) => Asked::Unknown { reason, message },
            Err(NoClaim::NotAccepted(message)) => Asked::NotAccepted { message },
            Err(NoClaim::Absent) if moved => {
                // Nothing was deleted: the policy takes its objects from elsewhere now.
                let delete = deletion.on_policy_delete == Disposition::Delete;
                let why = format!("the policy takes its objects from {} now", policy.spec.source_cluster);
                end(row, Ending::TargetRemoved, delete, why)
            }
            // Of what is not selected the key alone is known, and its end leaves nothing.
            Err(NoClaim::Absent) if unselected && !self.end_was_told(row)? => {
                let delete = deletion.on_unselect == Disposition::Delete;
                let why = "the source object was no longer selected, and is not there any more";
                end(row, Ending::Unselected, delete, why.to_owned())
            }
            Err(NoClaim::Absent | NoClaim::Unseen) => {
                let delete = deletion.on_source_delete == Disposition::Delete;
                let (ending, why) = match row.ending {
                    Some(Ending::Recovered) => (Ending::Recovered, "its source object is not there"),
                    _ => (Ending::SourceDeleted, "the source object was deleted"),
                };
                end(row, ending, delete, why.to_owned())
            }
            Err(NoClaim::NotSelected(_, sentence)) => {
                // The last state says "not selected"; only a live source makes that news (I3).
                if let Some((reason, message)) = self.absence_of_source(policy, &key) {
                    return Ok(Asked::Unknown { reason, message });
                }
                let delete = deletion.on_unselect == Disposition::Delete;
                let ending = row.ending.filter(|ending| *ending == Ending::Recovered);
                end(
                    row,
                    ending.unwrap_or(Ending::Unselected),
                    delete,
                    format!("the source object is no longer selected: {sentence}"),
                )
            }
        })
    }

    fn absence_of_source(&self, policy: &CompiledPolicy, key: &ObjectKey) -> Option<(&'static str, String)> {
        let source = self.names.get(&policy.spec.source_cluster)?;
        self.absence_at_source(*source, key)
    }
}

fn unclaimed() -> Asked {
    Asked::Unknown { reason: "NotClaimed", message: "what claims it is being worked out".to_owned() }
}

fn end(row: &mut PlacementRow, ending: Ending, delete: bool, why: String) -> Asked {
    if row.ending != Some(ending) {
        row.ending = Some(ending);
        row.delete = None;
    }
    Asked::Ended { ending, delete, why, waits: Waits::default() }
}

pub(super) fn ending_reason(ending: Ending) -> &'static str {
    match ending {
        Ending::SourceDeleted => "SourceDeleted",
        Ending::Unselected => "Unselected",
        Ending::PolicyRemoved => "PolicyRemoved",
        Ending::TargetRemoved => "TargetRemoved",
        Ending::Recovered => "Recovered",
        Ending::Recreate => "Recreate",
    }
}
