//! Making an object ours that somebody else created, because a policy says so.

use lockstep_engine::Uid;
use lockstep_engine::marks::has_marks;
use lockstep_engine::object::RawObject;
use lockstep_engine::outcome::{Failure, FailureClass};
use lockstep_engine::ownership::{ConflictCause, differences};

use super::Writer;
use super::apply::{foreign, tracker_of};
use super::compose::Extra;
use super::types::{ApplyPlan, Live, Outcome};

impl Writer {
    /// Applies by force onto exactly the state that was looked at: its uid and resourceVersion go along.
    pub(super) async fn adopt(
        &self,
        plan: &ApplyPlan,
        uid: &Uid,
        only_if_equal: bool,
        tracked_too: bool,
    ) -> Result<Outcome, Failure> {
        let live = self.read_same(plan, uid).await?;
        if is_marked(&live)? {
            // By another hub, or copied from elsewhere: who looks again will see.
            return Err(Failure::local(FailureClass::Stale, "the object carries marks of lockstep now"));
        }
        if !tracked_too && is_tracked(&live)? {
            return Ok(foreign(&live.body, Vec::new()));
        }
        let shared = self.shared(plan, &live.body, &plan.leave.for_adoption())?;
        let merged = self.merged_with(plan, &shared.plan, &live.body)?;
        let plan = merged.as_ref().unwrap_or(&shared.plan);
        let extra = Extra { uid: Some(uid), resource_version: Some(&live.resource_version), nonce: None };
        if only_if_equal {
            let reply = self.send_as(plan, &extra, true, true).await?;
            if !reply.is_success() {
                return self.refused(plan, &reply);
            }
            let paths = differences(&live.body, &reply.body).map_err(unreadable)?;
            if !paths.is_empty() {
                let cause = |path| ConflictCause { path, ..ConflictCause::default() };
                return Ok(foreign(&live.body, paths.into_iter().map(cause).collect()));
            }
        }
        let reply = self.send(plan, &extra, true).await?;
        if !reply.is_success() {
            return self.refused(plan, &reply);
        }
        tracing::info!(
            kind = %plan.resource.kind, namespace = %plan.namespace, name = %plan.name,
            "adopted an object that was there"
        );
        self.applied(plan, reply.body, false, true)
    }
}

fn is_marked(live: &Live) -> Result<bool, Failure> {
    let object = RawObject::parse(&live.body).map_err(unreadable)?;
    Ok(has_marks(&object.metadata.annotations, &object.metadata.labels))
}

fn is_tracked(live: &Live) -> Result<bool, Failure> {
    let object = RawObject::parse(&live.body).map_err(unreadable)?;
    Ok(tracker_of(&object).is_some())
}

fn unreadable(_: lockstep_engine::object::ObjectError) -> Failure {
    Failure::local(FailureClass::Transient, "the object cannot be read")
}
