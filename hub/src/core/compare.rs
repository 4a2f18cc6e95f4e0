//! Desired against observed, read from the target through its agent because a person asked. Only
//! objects that lockstep wrote are read: what is not ours does not leave its cluster.

use lockstep_engine::{GroupKind, ObjectKey};
use lockstep_wire::v1::{self, outcome::Result as Answer, step::Action};
use serde_json::Value;

use super::Core;
use super::command::{CommandError, Comparison, ObjectRef, Reply};
use super::commands::refusal;
use super::dispatch::Prepared;
use super::tickets::Asker;
use crate::redact;
use crate::store::{PlacementRow, Store, StoreError};

impl<S: Store> Core<S> {
    pub(super) fn compare(&mut self, object: &ObjectRef, reply: Reply<Comparison>) -> Result<(), StoreError> {
        match self.comparable(object)? {
            Err(refused) => self.answer(reply, Err(refused)),
            Ok((row, comparison)) => {
                if comparison.observed.is_some() || !self.can_read(&row) {
                    self.answer(reply, Ok(comparison));
                    return Ok(());
                }
                let asker =
                    Asker::Comparison { comparison: Box::new(comparison), gk: row.key.gk.clone(), reply };
                let ticket = self.tickets.open(row.target, asker);
                let read = Action::Read(v1::Read { must_be_empty: false });
                self.send_step(row.target, &row.key, Prepared::ticket(ticket, read), None);
            }
        }
        Ok(())
    }

    fn can_read(&self, row: &PlacementRow) -> bool {
        let Some(cluster) = self.clusters.get(&row.target) else { return false };
        let ours = row.record.as_ref().is_some_and(|record| record.uid.is_some());
        ours && cluster.session.is_some() && !cluster.busy.contains_key(&row.key) && !self.tickets.is_full()
    }

    #[allow(clippy::type_complexity)]
    fn comparable(
        &mut self,
        object: &ObjectRef,
    ) -> Result<Result<(PlacementRow, Comparison), CommandError>, StoreError> {
        let Some(target_name) = object.cluster.clone() else {
            let remedy = "name the target with --cluster";
            return Ok(Err(refusal("LS0200", "a comparison needs a target cluster".to_owned(), remedy)));
        };
        let (target, gk) = match (self.cluster_by_name(&target_name), self.kind_of(object)) {
            (Ok(target), Ok((gk, _))) => (target, gk),
            (Err(refused), _) | (_, Err(refused)) => return Ok(Err(refused)),
        };
        let key = ObjectKey::new(gk.clone(), &object.namespace, &object.name);
        let Some(row) = self.store.placement(target, &key)? else {
            let message = format!("no policy puts {key} into {target_name}");
            return Ok(Err(refusal("LS0200", message, "see `lockstep explain`")));
        };
        let claims = self.claims(target, &key)?;
        let mut desired = None;
        if let Some(claim) = claims.first() {
            desired =
                self.rendered(claim, &key).ok().map(|rendered| claim.leave.without_left(&rendered.body));
        }
        let comparison = Comparison {
            target: target_name,
            desired,
            observed: None,
            patch: Vec::new(),
            status: Some(row.status.clone()),
        };
        Ok(Ok((row, self.hide(comparison, &gk))))
    }

    pub(super) fn compared(
        &mut self,
        comparison: Comparison,
        gk: &GroupKind,
        reply: Reply<Comparison>,
        answer: &Answer,
    ) {
        let observed: Option<Value> = match answer {
            Answer::Image(image) => serde_json::from_slice(&image.body).ok(),
            _ => None,
        };
        let mut comparison = Comparison { observed, ..comparison };
        comparison = self.hide(comparison, gk);
        if let (Some(desired), Some(observed)) = (&comparison.desired, &mut comparison.observed) {
            *observed = project(observed, desired);
            let patch = json_patch::diff(observed, desired);
            comparison.patch = patch.0.iter().filter_map(|op| serde_json::to_value(op).ok()).collect();
        }
        self.answer(reply, Ok(comparison));
    }

    /// Values of Secrets become keyed digests (I13).
    fn hide(&self, mut comparison: Comparison, gk: &GroupKind) -> Comparison {
        if gk.is("", "Secret") {
            for body in [&mut comparison.desired, &mut comparison.observed].into_iter().flatten() {
                redact::redact(body, &self.keys.shown_digest);
            }
        }
        comparison
    }
}

/// What is there of that which is asked for: fields nobody asks for are nobody's business here.
/// Lists are compared as a whole, their items field by field where both have one at that place.
fn project(observed: &Value, desired: &Value) -> Value {
    match (observed, desired) {
        (Value::Object(observed), Value::Object(desired)) => desired
            .iter()
            .filter_map(|(name, desired)| Some((name.clone(), project(observed.get(name)?, desired))))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        (Value::Array(observed), Value::Array(desired)) => observed
            .iter()
            .enumerate()
            .map(|(n, item)| desired.get(n).map_or_else(|| item.clone(), |desired| project(item, desired)))
            .collect(),
        (observed, _) => observed.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_fields_that_are_asked_for_are_compared() {
        let observed = json!({"spec": {"replicas": 2, "paused": false, "list": [{"a": 1, "default": 0}, {"b": 1}]}, "status": {}});
        let desired = json!({"spec": {"replicas": 3, "list": [{"a": 1}]}, "gone": 1});
        assert_eq!(
            project(&observed, &desired),
            json!({"spec": {"replicas": 2, "list": [{"a": 1}, {"b": 1}]}})
        );
    }
}
