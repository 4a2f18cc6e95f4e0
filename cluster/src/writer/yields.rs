//! Fields that are left to the target, around an apply (decision 0013).

use bytes::Bytes;
use lockstep_engine::Uid;
use lockstep_engine::object::ObjectError;
use lockstep_engine::outcome::{Failure, FailureClass, Operation};
use lockstep_engine::ownership::{Leave, Left, YIELD_MANAGER, conflicts, give_back, share};
use serde_json::Value;

use super::compose::{Extra, compose};
use super::types::{Applied, ApplyPlan, Live, Outcome};
use super::{ApplyCall, Writer, live, sensitivity, status};

/// An apply of our part of a body.
pub(super) struct Shared {
    pub(super) plan: ApplyPlan,
    pub(super) yields: Option<Value>,
    pub(super) left: Vec<Left>,
}

/// What became of the fields that are left.
enum Settled {
    /// The object as it is then.
    As(Bytes),
    Refused(Outcome),
}

/// Looks at an object that others keep writing to; then the hub decides anew.
const ATTEMPTS: usize = 4;

impl Writer {
    /// What is applied to the object as it is.
    pub(super) fn shared(&self, plan: &ApplyPlan, live: &Bytes, leave: &Leave) -> Result<Shared, Failure> {
        let (body, live) = (tree(&plan.body)?, tree(live)?);
        let share = share(&body, &live, leave).map_err(unreadable)?;
        let body = Bytes::from(share.body.to_string());
        Ok(Shared { plan: ApplyPlan { body, ..plan.clone() }, yields: share.yields, left: share.left })
    }

    /// Our part for the object as it is, once what it omits is held by the second manager.
    pub(super) async fn yielded(&self, plan: &ApplyPlan, uid: &Uid) -> Result<Shared, Failure> {
        let mut attempts = 1;
        loop {
            let live = self.read_same(plan, uid).await?;
            let shared = self.shared(plan, &live.body, &plan.leave)?;
            let Some(yields) = &shared.yields else { return Ok(shared) };
            match self.apply_yields(plan, yields, &live).await {
                Err(failure) if failure.class == FailureClass::Stale && attempts < ATTEMPTS => attempts += 1,
                done => return done.map(|_| shared),
            }
        }
    }

    /// What an object is created with, where that is less than the body.
    pub(super) fn at_creation(&self, plan: &ApplyPlan) -> Result<Option<ApplyPlan>, Failure> {
        if plan.leave.is_empty() {
            return Ok(None);
        }
        let body = Bytes::from(plan.leave.at_creation(&tree(&plan.body)?).to_string());
        Ok(Some(ApplyPlan { body, ..plan.clone() }))
    }

    /// Keeps live values under a second manager, before we omit them, or gives up those that we have again.
    pub(super) async fn apply_yields(
        &self,
        plan: &ApplyPlan,
        yields: &Value,
        read: &Live,
    ) -> Result<Live, Failure> {
        let extra =
            Extra { uid: Some(&read.uid), resource_version: Some(&read.resource_version), nonce: None };
        let call = ApplyCall {
            resource: &plan.resource,
            namespace: &plan.namespace,
            name: &plan.name,
            manager: YIELD_MANAGER,
            force: false,
            dry_run: plan.dry_run,
            body: compose(yields.to_string().as_bytes(), &extra)?,
        };
        let reply = self.send_apply(call).await?;
        if reply.is_success() {
            return live(reply.body);
        }
        if !conflicts(&status(&reply)).is_empty() {
            return Err(Failure::local(FailureClass::Stale, "a field that is left changed meanwhile"));
        }
        Err(reply.failure(Operation::Apply, sensitivity(&plan.resource)))
    }

    /// After our part was applied: what a creation had to write is given up, and what is not left any more is no longer
    /// kept by the second manager. Controllers write meanwhile; then it is looked at again.
    pub(super) async fn settle(&self, plan: &ApplyPlan, applied: Applied) -> Result<Outcome, Failure> {
        let kept = std::str::from_utf8(&applied.body).is_ok_and(|text| text.contains(YIELD_MANAGER));
        if plan.dry_run || (plan.leave.is_empty() && !kept) {
            return Ok(Outcome::Applied(Box::new(applied)));
        }
        let mut seen = self.answered(&applied);
        let mut attempts = 1;
        loop {
            match self.settle_on(plan, &seen).await {
                Err(failure) if failure.class == FailureClass::Stale && attempts < ATTEMPTS => {
                    attempts += 1;
                    seen = self.read_same(plan, &applied.uid).await?;
                }
                Err(failure) => return Err(failure),
                Ok(None) => return Ok(Outcome::Applied(Box::new(self.again(plan, applied, seen.body)?))),
                Ok(Some(Settled::As(body))) => {
                    return Ok(Outcome::Applied(Box::new(self.again(plan, applied, body)?)));
                }
                Ok(Some(Settled::Refused(outcome))) => return Ok(outcome),
            }
        }
    }

    /// [`Self::settle`], of exactly this state; nothing where it is settled already.
    async fn settle_on(&self, plan: &ApplyPlan, seen: &Live) -> Result<Option<Settled>, Failure> {
        let mut now = seen.body.clone();
        let mut shared = self.shared(plan, &now, &plan.leave.for_adoption())?;
        if let Some(merged) = self.merged_with(plan, &shared.plan, &now)? {
            shared.plan = merged;
        }
        if let Some(yields) = &shared.yields {
            self.apply_yields(plan, yields, seen).await?;
            let extra = Extra { uid: Some(&seen.uid), ..Extra::default() };
            let reply = self.send(&shared.plan, &extra, false).await?;
            if !reply.is_success() {
                return Ok(Some(Settled::Refused(self.refused(plan, &reply)?)));
            }
            now = reply.body;
        }
        let (body, answer) = (tree(&plan.body)?, tree(&now)?);
        if let Some(rest) = give_back(&body, &answer, &plan.leave).map_err(unreadable)? {
            now = self.apply_yields(plan, &rest, &live(now)?).await?.body;
        }
        Ok((now != seen.body).then_some(Settled::As(now)))
    }

    fn answered(&self, applied: &Applied) -> Live {
        let Applied { uid, resource_version, body, .. } = applied;
        Live { uid: uid.clone(), resource_version: resource_version.clone(), nonce: None, body: body.clone() }
    }

    /// The same apply, with the object as it is now.
    fn again(&self, plan: &ApplyPlan, first: Applied, body: Bytes) -> Result<Applied, Failure> {
        let sent = ApplyPlan { body: first.sent.clone(), ..plan.clone() };
        match self.applied(&sent, body, first.created, first.forced)? {
            Outcome::Applied(now) => Ok(Applied { left: first.left, ..*now }),
            _ => Ok(first),
        }
    }
}

pub(super) fn tree(body: &Bytes) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| unreadable(error.into()))
}

pub(super) fn unreadable(error: ObjectError) -> Failure {
    Failure::local(
        FailureClass::SchemaMismatch,
        &format!("what is ours of the object cannot be told: {error}"),
    )
}
