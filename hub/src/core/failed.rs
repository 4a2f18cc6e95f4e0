//! A step that failed: what is shown of it, and when it is tried again.

use lockstep_engine::Millis;
use lockstep_engine::backoff::LONGEST_RETRY_AFTER_MS;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::outcome::{Again, Attempt, FailureClass, Retry};
use lockstep_engine::plan::TRACKED;
use lockstep_engine::status::{State, Status};
use lockstep_wire::v1;

use super::Core;
use super::outcome::{RETRY, STALE_RETRY_MS};
use super::state::Purpose;
use crate::store::{Creating, DeleteStage, Ending, PlacementRow, Store, StoreError};

/// An API server takes a changed definition into use some seconds after its watch reported it: a body that does not fit is
/// tried again until then, at an age of the change that doubles.
const DEFINITION_SETTLES_MS: i64 = 60_000;

impl<S: Store> Core<S> {
    pub(super) fn failed(
        &mut self,
        mut row: PlacementRow,
        failed: &v1::Failed,
        purpose: &Purpose,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.counts.failed_steps += 1;
        let class = failed.known_class();
        tracing::debug!(cluster = self.cluster_name(row.target), object = %row.key, %class, "step failed: {}", failed.text());
        let status = status_of(&row, class, failed, purpose);
        if (row.status.state, &row.status.reason) != (status.state, &status.reason) {
            row.since = now;
        }
        row.status = status;
        let adopts = matches!(purpose, Purpose::Apply { adopts: true, .. });
        let whole = class == FailureClass::Conflict && failed.paths.is_empty() && !adopts;
        if whole
            && row.record.as_ref().is_none_or(|record| record.uid.is_none())
            && let Some(source) = &row.source
        {
            row.fields.creating = Some(Creating::Met(self.nonce(&row, &source.uid)));
            self.taken_back(&row, &failed.resource_version)?;
        }
        if let (FailureClass::Immutable, Purpose::Apply { recreates: true, rendered, .. }) = (class, purpose)
        {
            row.ending = Some(Ending::Recreate);
            row.fields.immutable = Some(*rendered);
            row.delete = None;
            return self.store.put_placement(&row);
        }
        self.retry_later(&mut row, class, failed.retry_after_ms, purpose, now)?;
        self.store.put_placement(&row)?;
        self.note_due(row.next_attempt);
        Ok(())
    }

    /// Notes when a step that failed is tried again.
    fn retry_later(
        &mut self,
        row: &mut PlacementRow,
        class: FailureClass,
        retry_after_ms: u64,
        purpose: &Purpose,
        now: Millis,
    ) -> Result<(), StoreError> {
        row.attempts += 1;
        let seed = u64::from(row.target.0) ^ u64::from(row.attempts);
        let delay = RETRY.delay_ms(seed, row.attempts.saturating_sub(1));
        let backoff = now.saturating_add_unsigned(delay.max(retry_after_ms.min(LONGEST_RETRY_AFTER_MS)));
        let retry = class.retry(attempt(purpose));
        row.next_attempt = match retry {
            Retry::Observed => {
                if matches!(purpose, Purpose::Delete { .. }) && guard::on(Guard::StaleDeleteReadsAgain) {
                    // Changed since it was archived: read and archive it again (I4).
                    // What was to be asked before the first image was asked then.
                    row.delete = Some(DeleteStage::Approved);
                }
                Some(now + STALE_RETRY_MS)
            }
            Retry::After(ms) => Some(now + ms),
            Retry::Barred { again } => match again {
                Again::Never => None,
                Again::After(ms) => Some(now + ms),
                Again::Backoff => Some(backoff),
            },
            Retry::Backoff => Some(backoff),
        };
        if let (Retry::Barred { .. }, Purpose::Apply { inputs, .. }) = (retry, purpose) {
            row.barred = Some(inputs.to_vec().into());
            if class.is_of_schema()
                && let Some(definition) = self.definition(row.target, &row.key.gk)?
            {
                let age = now.saturating_sub(definition.observed_at);
                if (0..DEFINITION_SETTLES_MS).contains(&age) {
                    row.next_attempt = Some(now + age.max(STALE_RETRY_MS));
                }
            }
        }
        Ok(())
    }
}

fn attempt(purpose: &Purpose) -> Attempt {
    match purpose {
        Purpose::Apply { adopts, .. } => Attempt::Write { adopts: *adopts },
        Purpose::Image | Purpose::Delete { .. } => Attempt::Delete,
        Purpose::Release | Purpose::Retract | Purpose::Ticket { .. } | Purpose::Probe => Attempt::Other,
    }
}

/// What is shown of a step that failed.
fn status_of(row: &PlacementRow, class: FailureClass, failed: &v1::Failed, purpose: &Purpose) -> Status {
    let state = class.state();
    if state == State::Conflict && row.status.state == State::Conflict {
        // What is in the way was known; the agent adds who manages it.
        return Status::new(state, &row.status.reason, with_managers(row.status.message.clone(), failed));
    }
    // Of an object that was to be adopted as it is, and is not, that it differs; of one whose fields were taken again
    // and again, that.
    let reason = match (class, purpose) {
        (FailureClass::Conflict, Purpose::Apply { adopts: true, .. }) if !failed.paths.is_empty() => {
            "Differs"
        }
        (FailureClass::Conflict, Purpose::Apply { adopts: true, .. }) if failed.tracker.is_some() => TRACKED,
        (FailureClass::Conflict, Purpose::Apply { contested: true, .. }) => "Contested",
        _ => class.code(),
    };
    Status::new(state, reason, with_managers(failed.text(), failed))
}

/// The sentence, who is in the way, where, and whose it is by its marks.
fn with_managers(mut message: String, failed: &v1::Failed) -> String {
    let names: std::collections::BTreeSet<&str> = failed.managers.iter().map(|m| m.name.as_str()).collect();
    if !names.is_empty() {
        let names: Vec<&str> = names.into_iter().collect();
        message = format!("{message} (managed by {})", names.join(", "));
    }
    if !failed.paths.is_empty() {
        message = format!("{message}: {}", failed.paths.join(", "));
    }
    if let Some(v1::Tracker { tool, mark }) = &failed.tracker {
        message = format!("{message}; {tool} tracks it ({mark})");
    }
    message
}
