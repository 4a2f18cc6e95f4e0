//! Atomic lists to which controllers of the target add (`engine::ownership::merge_lists`).

use bytes::Bytes;
use lockstep_engine::catalogue::merged_lists;
use lockstep_engine::outcome::{Failure, FailureClass};
use lockstep_engine::ownership::merge_lists;
use lockstep_engine::{GroupKind, Uid};

use super::Writer;
use super::types::{ApplyPlan, Outcome};
use super::yields::{tree, unreadable};

/// Reads of an object that others keep writing to; then the hub decides anew.
const ATTEMPTS: usize = 4;

impl Writer {
    /// `sent` with what the target added to the lists of `asked`; none where that is nothing.
    pub(super) fn merged_with(
        &self,
        asked: &ApplyPlan,
        sent: &ApplyPlan,
        live: &Bytes,
    ) -> Result<Option<ApplyPlan>, Failure> {
        if !merges(asked) {
            return Ok(None);
        }
        let live = tree(live)?;
        let (whole, part) = (tree(&asked.body)?, tree(&sent.body)?);
        let merged = merge_lists(&kind(asked), &whole, &part, &live).map_err(unreadable)?;
        Ok(merged.map(|body| ApplyPlan { body: Bytes::from(body.to_string()), ..sent.clone() }))
    }

    /// An update of exactly the state whose lists were merged: what somebody adds meanwhile is read, too.
    pub(super) async fn update_merged(
        &self,
        asked: &ApplyPlan,
        sent: &ApplyPlan,
        uid: &Uid,
    ) -> Result<Outcome, Failure> {
        let mut attempts = 1;
        loop {
            let live = self.read_same(asked, uid).await?;
            let Some(merged) = self.merged_with(asked, sent, &live.body)? else {
                return self.update_with(sent, uid, None).await;
            };
            match self.update_with(&merged, uid, Some(&live.resource_version)).await {
                Err(failure) if failure.class == FailureClass::Stale && attempts < ATTEMPTS => attempts += 1,
                done => return done,
            }
        }
    }
}

/// Has the kind lists that are merged?
pub(super) fn merges(plan: &ApplyPlan) -> bool {
    merged_lists(&kind(plan)).next().is_some()
}

/// Is it such a list, as an API server names it in a conflict? The union takes nothing from its owner.
pub(super) fn is_merged(plan: &ApplyPlan, path: &str) -> bool {
    merged_lists(&kind(plan)).any(|row| path.strip_prefix('.').is_some_and(|path| path == row.path.join(".")))
}

fn kind(plan: &ApplyPlan) -> GroupKind {
    GroupKind::new(&plan.resource.group, &plan.resource.kind)
}
