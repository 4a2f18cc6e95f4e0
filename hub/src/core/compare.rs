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
                if !self.can_read(&row) {
                    let complete = complete(comparison, &row.key.gk, &self.keys.shown_digest);
                    self.answer(reply, Ok(complete));
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

    /// What is asked for. It holds the values of Secrets until [`complete`] hides them.
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
        let key = ObjectKey::new(gk, &object.namespace, &object.name);
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
        Ok(Ok((row, comparison)))
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
        let complete = complete(Comparison { observed, ..comparison }, gk, &self.keys.shown_digest);
        self.answer(reply, Ok(complete));
    }
}

/// The comparison as a person gets it: what nobody asked for is left out, values of Secrets are hidden, and what
/// differs then is the patch.
fn complete(mut comparison: Comparison, gk: &GroupKind, key: &[u8; 32]) -> Comparison {
    if let (Some(desired), Some(observed)) = (&comparison.desired, &mut comparison.observed) {
        *observed = project(observed, desired);
    }
    hide(&mut comparison, gk, key);
    if let (Some(desired), Some(observed)) = (&comparison.desired, &comparison.observed) {
        let patch = json_patch::diff(observed, desired);
        comparison.patch = patch.0.iter().filter_map(|op| serde_json::to_value(op).ok()).collect();
    }
    comparison
}

/// Replaces values of Secrets by keyed digests (I13). Done once: the digest of a digest equals nothing.
fn hide(comparison: &mut Comparison, gk: &GroupKind, key: &[u8; 32]) {
    if redact::is_secret(&gk.group, &gk.kind) {
        for body in [&mut comparison.desired, &mut comparison.observed].into_iter().flatten() {
            redact::redact(body, key);
        }
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

    fn secret(desired: Value, observed: Value) -> Comparison {
        let (desired, observed) = (Some(desired), Some(observed));
        let comparison =
            Comparison { target: "b".into(), desired, observed, patch: Vec::new(), status: None };
        complete(comparison, &GroupKind::new("", "Secret"), &[7; 32])
    }

    #[test]
    fn i13_a_secret_in_step_shows_no_difference_and_no_value() {
        let desired = json!({"kind": "Secret", "data": {"password": "Y2FuYXJ5"}});
        let observed = json!({"kind": "Secret", "data": {"password": "Y2FuYXJ5", "theirs": "Y2FuYXJ5"}, "type": "Opaque"});
        let same = secret(desired.clone(), observed);
        assert_eq!(same.patch, Vec::<Value>::new());
        assert_eq!(same.desired, same.observed);
        let other = secret(desired, json!({"kind": "Secret", "data": {"password": "b3RoZXI="}}));
        assert_eq!(other.patch[0]["path"], "/data/password");
        let shown = format!("{same:?} {other:?}");
        assert!(!shown.contains("Y2FuYXJ5") && !shown.contains("b3RoZXI="), "{shown}");
    }
}
