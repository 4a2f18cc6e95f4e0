//! Why an object is where it is, or is not: rendered from what the planner wrote down and from the
//! very selection it uses, never from a second opinion.

use lockstep_engine::object::RawObject;
use lockstep_engine::status::State;
use lockstep_engine::{ClusterId, ObjectKey, advice, marks};

use super::Core;
use super::command::{CommandError, Explanation, ObjectRef, PolicySays, Sighting, TargetSays};
use super::gather::NoClaim;
use crate::store::{DeleteStage, PlacementRow, Store, StoreError};

impl<S: Store> Core<S> {
    pub(super) fn explain(
        &mut self,
        object: &ObjectRef,
    ) -> Result<Result<Explanation, CommandError>, StoreError> {
        let (gk, namespaced) = match self.kind_of(object) {
            Ok(found) => found,
            Err(refused) => return Ok(Err(refused)),
        };
        let namespace = match (namespaced, object.namespace.as_str()) {
            (true, "") => "default",
            (true, namespace) => namespace,
            (false, _) => "",
        };
        let only = match object.cluster.as_deref().map(|name| self.cluster_by_name(name)).transpose() {
            Ok(only) => only,
            Err(refused) => return Ok(Err(refused)),
        };
        let key = ObjectKey::new(gk, namespace, &object.name);
        let ids: Vec<ClusterId> = self.clusters.keys().copied().collect();
        let mut clusters = Vec::new();
        let mut targets = Vec::new();
        for id in ids {
            if only.is_none_or(|only| only == id)
                && let Some(sighting) = self.sighting(id, &key)?
            {
                clusters.push(sighting);
            }
            if let Some(row) = self.store.placement(id, &key)?
                && only
                    .is_none_or(|only| only == id || row.source.as_ref().is_some_and(|s| s.cluster == only))
            {
                targets.push(self.target_says(row)?);
            }
        }
        let policies = self.policies_say(&key)?;
        let watched = self.clusters.values().any(|c| c.covering(&key.gk, &key.namespace).is_some());
        let note = (!watched).then(|| format!("no policy names {}, so no cluster watches it", key.gk));
        Ok(Ok(Explanation { object: key.to_string(), note, clusters, policies, targets }))
    }

    fn sighting(&mut self, id: ClusterId, key: &ObjectKey) -> Result<Option<Sighting>, StoreError> {
        let Some(cluster) = self.clusters.get(&id) else { return Ok(None) };
        if cluster.covering(&key.gk, &key.namespace).is_none() {
            return Ok(None);
        }
        let name = cluster.row.name.to_string();
        let absence = self.absence_at_source(id, key);
        let row = self.store.object(id, key)?;
        let lost = row.as_ref().is_some_and(|row| row.unseen.is_some());
        let rewound = || format!("it was in {name} before that was restored to an older state");
        let presence = match (&row, &absence) {
            (Some(_), _) if lost => "Unseen",
            (Some(_), _) => "Exists",
            (None, None) => "Absent",
            (None, Some(_)) => "Unknown",
        };
        Ok(Some(Sighting {
            note: absence.map(|(_, sentence)| sentence).or_else(|| lost.then(rewound)),
            cluster: name,
            presence: presence.to_owned(),
            resource_version: row.as_ref().map(|row| row.resource_version.to_string()),
            observed_at_ms: row.as_ref().map(|row| row.observed_at),
            body_held: row.as_ref().is_some_and(|row| row.body.is_some()),
            managed: row.as_ref().is_some_and(|row| row.managed.is_some()),
        }))
    }

    fn policies_say(&mut self, key: &ObjectKey) -> Result<Vec<PolicySays>, StoreError> {
        let set = self.set.clone();
        let mut says = Vec::new();
        for policy in set.policies() {
            if policy.resources_for(&key.gk).next().is_none() {
                continue;
            }
            // The claim is the same for every target; the first one that is known stands for all.
            let target =
                policy.spec.target_clusters.iter().find_map(|target| self.names.get(target).copied());
            let claim = self.claim(policy, target.unwrap_or(ClusterId(0)), key)?;
            let (selected, reason, message) = match claim {
                Ok(claim) => {
                    (true, "Selected".to_owned(), self.selected_sentence(claim.object.body.as_deref()))
                }
                Err(NoClaim::Absent) => {
                    let message = format!("it does not exist in {}", policy.spec.source_cluster);
                    (false, "Absent".to_owned(), message)
                }
                Err(NoClaim::Unseen) => {
                    let message = format!(
                        "{} was restored to an older state, in which it is not",
                        policy.spec.source_cluster
                    );
                    (false, "SourceRewound".to_owned(), message)
                }
                Err(NoClaim::NotSelected(reason, message)) => (false, reason.to_owned(), message),
                Err(NoClaim::NotAccepted(message)) => (false, "NotAccepted".to_owned(), message),
                Err(NoClaim::Unknown(reason, message)) => (false, reason.to_owned(), message),
            };
            says.push(PolicySays {
                policy: policy.name.to_string(),
                source: policy.spec.source_cluster.to_string(),
                selected,
                reason,
                message,
            });
        }
        Ok(says)
    }

    /// I9: a source with marks that are not ours stays selected, and is reported.
    fn selected_sentence(&self, body: Option<&[u8]>) -> String {
        let marked = body
            .and_then(|body| RawObject::parse(body).ok())
            .is_some_and(|raw| marks::has_marks(&raw.metadata.annotations, &raw.metadata.labels));
        if marked {
            "selected; it carries marks of lockstep that this hub did not make, which are not copied"
                .to_owned()
        } else {
            "selected".to_owned()
        }
    }

    fn target_says(&mut self, row: PlacementRow) -> Result<TargetSays, StoreError> {
        let managers = self
            .store
            .object(row.target, &row.key)?
            .and_then(|object| object.managed)
            .map(|managed| managed.managers)
            .unwrap_or_default();
        let source = row.source.as_ref().map(|source| {
            let name = self.cluster_name(source.cluster);
            if source.namespace.is_empty() {
                format!("{name} {}", source.name)
            } else {
                format!("{name} {}/{}", source.namespace, source.name)
            }
        });
        let target = self.cluster_name(row.target).to_owned();
        let held = row.delete == Some(DeleteStage::Held);
        // A hold outlasts a pause, and a time in which little is known.
        let state = if held { State::Held } else { row.status.state };
        let remedy = advice::remedy(state, &row.status.reason, &row.policy, &target);
        Ok(TargetSays {
            target,
            held,
            meaning: advice::meaning(&row.status).map(ToOwned::to_owned),
            remedy,
            policy: row.policy,
            rivals: row.rivals,
            status: row.status,
            since_ms: row.since,
            synced_at_ms: row.synced_at,
            lag_ms: row.lag_ms,
            source,
            attempts: row.attempts,
            next_attempt_ms: row.next_attempt,
            managers,
            corrected: row.fields.corrected,
            left: row.fields.left.into_iter().map(|row| row.left).collect(),
        })
    }
}
