//! Making an object ours that somebody else created, because a policy says so.

use lockstep_engine::Uid;
use lockstep_engine::marks::has_marks;
use lockstep_engine::object::RawObject;
use lockstep_engine::outcome::{Failure, FailureClass};
use lockstep_engine::ownership::{ConflictCause, ManagerPattern, Retired, differences};

use super::Writer;
use super::apply::{foreign, tracker_of};
use super::compose::Extra;
use super::handover::ATTEMPTS;
use super::types::{ApplyPlan, Live, Outcome};

/// An answer to an apply that the API server considers invalid.
const UNPROCESSABLE: u16 = 422;

impl Writer {
    /// Takes over what the plan asks for, then applies by force, each onto exactly the state that was looked at: its uid and
    /// resourceVersion go along. Ownership comes first, so whoever is cut off in between leaves an object without marks,
    /// which is adopted like any other.
    pub(super) async fn adopt(
        &self,
        plan: &ApplyPlan,
        uid: &Uid,
        only_if_equal: bool,
        retired: &[ManagerPattern],
        tracked_too: bool,
    ) -> Result<Outcome, Failure> {
        let retired = Retired::Adopting(retired);
        for _ in 0..ATTEMPTS {
            let live = self.read_same(plan, uid).await?;
            if is_marked(&live)? {
                // By another hub, or copied from elsewhere: who looks again will see.
                return Err(stale("the object carries marks of lockstep now"));
            }
            if !tracked_too && is_tracked(&live)? {
                return Ok(foreign(&live.body, Vec::new()));
            }
            let shared = self.shared(plan, &live.body, &plan.leave.for_adoption())?;
            let merged = self.merged_with(plan, &shared.plan, &live.body)?;
            let plan = merged.as_ref().unwrap_or(&shared.plan);
            if only_if_equal && let Some(differs) = self.unequal(plan, &live).await? {
                return Ok(differs);
            }
            let Some(now) = self.take_over(plan, &live, &retired, None).await? else { continue };
            return self.adopt_as(plan, &live, now, only_if_equal, &retired).await;
        }
        Err(stale("the object keeps changing"))
    }

    /// The conflict of an object that does not hold every value of the body, or the refusal of the question.
    async fn unequal(&self, plan: &ApplyPlan, live: &Live) -> Result<Option<Outcome>, Failure> {
        let reply = self.send_as(plan, &exactly(live), true, true).await?;
        if !reply.is_success() {
            return self.refused(plan, &reply).map(Some);
        }
        let paths = differences(&live.body, &reply.body).map_err(unreadable)?;
        let cause = |path| ConflictCause { path, ..ConflictCause::default() };
        Ok((!paths.is_empty()).then(|| foreign(&live.body, paths.into_iter().map(cause).collect())))
    }

    /// Adopts the object whose fields were taken over; `before`: as it was until then.
    async fn adopt_as(
        &self,
        plan: &ApplyPlan,
        before: &Live,
        mut now: Live,
        only_if_equal: bool,
        retired: &Retired<'_>,
    ) -> Result<Outcome, Failure> {
        let mut reply = self.send(plan, &exactly(&now), true).await?;
        if reply.status == UNPROCESSABLE
            && !only_if_equal
            && !plan.dry_run
            && let Some(displaced) = self.displaced(plan, before, retired, &reply)?
        {
            let paths = displaced.paths(16);
            let Some(taken) = self.take_over(plan, &now, retired, Some(&displaced)).await? else {
                return Err(stale("the object changed meanwhile"));
            };
            now = taken;
            reply = self.send(plan, &exactly(&now), true).await?;
            if reply.is_success() {
                tracing::info!(
                    kind = %plan.resource.kind, namespace = %plan.namespace, name = %plan.name, ?paths,
                    "removed fields of the object that cannot stay beside what is asked for"
                );
            }
        }
        if !reply.is_success() {
            let refused = self.refused(plan, &reply);
            self.give_owners_back(plan, before, &now).await;
            return refused;
        }
        tracing::info!(
            kind = %plan.resource.kind, namespace = %plan.namespace, name = %plan.name,
            "adopted an object that was there"
        );
        match self.applied(plan, reply.body, false, true)? {
            Outcome::Applied(applied) => self.own_alone(plan, *applied, retired).await,
            other => Ok(other),
        }
    }
}

/// Onto this very state.
fn exactly(live: &Live) -> Extra<'_> {
    Extra { uid: Some(&live.uid), resource_version: Some(&live.resource_version), nonce: None }
}

fn is_marked(live: &Live) -> Result<bool, Failure> {
    let object = RawObject::parse(&live.body).map_err(unreadable)?;
    Ok(has_marks(&object.metadata.annotations, &object.metadata.labels))
}

fn stale(why: &str) -> Failure {
    Failure::local(FailureClass::Stale, why)
}

fn is_tracked(live: &Live) -> Result<bool, Failure> {
    let object = RawObject::parse(&live.body).map_err(unreadable)?;
    Ok(tracker_of(&object).is_some())
}

fn unreadable(_: lockstep_engine::object::ObjectError) -> Failure {
    Failure::local(FailureClass::Transient, "the object cannot be read")
}
