//! What agents write: judged by what happened in the clusters.

use lockstep_engine::{Millis, marks};
use lockstep_tests::model::Request;
use serde_json::Value;

use super::{Copy, Meeting, Oracle, SAME_MOMENT_MS, STEP_MS};
use crate::journal::{Actor, Journal, Life};
use crate::objects::{CLUSTERS, Key, OTHER_HUB, POLICIES};

/// A write of an agent, as the API server answered it.
pub(crate) struct Written<'a> {
    pub(crate) at: usize,
    pub(crate) request: &'a Request,
    pub(crate) status: u16,
    pub(crate) key: Key,
    /// uid under the key before, and after.
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    /// Since when the one before was there.
    pub(crate) born: Option<Millis>,
    /// Of what is there now.
    pub(crate) content: String,
    /// How often the history there was forgotten.
    pub(crate) compactions: u32,
    /// Does its answer arrive?
    pub(crate) answered: bool,
    pub(crate) now: Millis,
}

impl Oracle {
    /// An agent wrote an object of a synced kind.
    pub(crate) fn wrote(&self, written: &Written<'_>) {
        if written.status >= 300 || written.request.query.contains("dryRun") {
            return;
        }
        self.known().counts.writes += 1;
        if self.refusal.refuses(written.at, &written.key) {
            self.fail(
                "I16",
                format_args!("{} at {} is not accepted and was written", written.key, CLUSTERS[written.at]),
            );
        }
        match written.request.method.as_str() {
            "PATCH" => self.applied(written),
            "DELETE" => self.deleted(written),
            method => self.fail("I16", format_args!("an agent sent {method} for {}", written.key)),
        }
    }

    fn applied(&self, written: &Written<'_>) {
        let Written { at, key, before, after, request, .. } = written;
        let target = CLUSTERS[*at];
        let Some(uid) = after else { return };
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let source: Option<marks::SourceMark> = body["metadata"]["annotations"][marks::SOURCE]
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok());
        let Some(source) = source else {
            // The undo of a create that met another's object, or a release of marks.
            if before.is_some() && body["metadata"]["annotations"].is_null() {
                return;
            }
            self.fail("I9", format_args!("{key} was applied at {target} without saying where it comes from"));
            return;
        };
        if body["metadata"]["annotations"][marks::HUB] == OTHER_HUB {
            // The undo of a create that met what another hub wrote: it is compared at the end.
            return;
        }
        let Some(from) = CLUSTERS.iter().position(|name| *name == source.cluster) else {
            self.fail("I9", format_args!("{key} at {target} comes from {}", source.cluster));
            return;
        };
        let named = POLICIES.iter().any(|p| p.source == from && p.targets.contains(at) && p.covers(key));
        if !named {
            self.fail("I16", format_args!("no policy brings {key} from {} to {target}", source.cluster));
        }
        if self.is_copy(&source.uid) {
            self.fail("I9", format_args!("{key} at {target} is a copy of a copy in {}", source.cluster));
        }
        let mut known = self.known();
        if before.is_some() && !known.copies.contains_key(uid) {
            // A create may meet an object that came a moment ago; it is undone, and compared at the end.
            let guarded = !body["metadata"]["uid"].is_null();
            if !guarded {
                let at_once = written.born.is_some_and(|born| written.now - born < SAME_MOMENT_MS);
                let sent = known.losses.iter().filter(|lost| **lost < written.now - STEP_MS);
                let (losses, compactions) = (sent.count(), written.compactions);
                let meeting = Meeting { at_once, losses, target: *at, compactions };
                known.meetings.insert(uid.clone(), meeting);
            }
            drop(known);
            if guarded && !self.is_forgotten(uid, written.compactions) {
                self.fail("I6", format_args!("{key} at {target} is not ours and was written"));
            }
            return;
        }
        if before.is_none() && !written.answered {
            known.unheard.insert(uid.clone());
        }
        known.copies.insert(
            uid.clone(),
            Copy {
                target: *at,
                key: key.clone(),
                source: source.uid,
                source_cluster: from,
                content: written.content.clone(),
            },
        );
    }

    /// Nobody can tell that it is not a copy (docs/reliability.md, "What cannot be promised"): it was made in the very moment of
    /// the create that met it, and the history that would tell, or the hub's data, is gone.
    fn is_forgotten(&self, uid: &str, compactions: u32) -> bool {
        let known = self.known();
        let gone =
            |meeting: &Meeting| meeting.losses < known.losses.len() || meeting.compactions < compactions;
        known.meetings.get(uid).is_some_and(|meeting| meeting.at_once && gone(meeting))
    }

    /// A create of ours met it, and that cannot be taken back: its history was compacted first, so a person has to look, or
    /// nobody can tell.
    pub(crate) fn may_keep_marks(&self, uid: &str, conflict: bool) -> bool {
        let Some(meeting) = self.known().meetings.get(uid).copied() else { return false };
        let Some(member) = self.member(meeting.target) else { return false };
        let compactions = member.with_journal(|journal| journal.compactions);
        if conflict && compactions > meeting.compactions {
            self.met_with("an object that a create met, left to a person");
            return true;
        }
        self.is_forgotten(uid, compactions)
    }

    /// Can nobody tell that it is not a copy?
    pub(crate) fn passes_for_a_copy(&self, uid: &str) -> bool {
        let met = self.known().meetings.get(uid).copied();
        let member = met.and_then(|meeting| self.member(meeting.target));
        member
            .is_some_and(|member| self.is_forgotten(uid, member.with_journal(|journal| journal.compactions)))
    }

    fn deleted(&self, written: &Written<'_>) {
        let Written { at, key, before, request, now, .. } = written;
        let target = CLUSTERS[*at];
        self.known().counts.deletes += 1;
        let options: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let uid = options["preconditions"]["uid"].as_str().unwrap_or_default();
        let version = options["preconditions"]["resourceVersion"].as_str().unwrap_or_default();
        if uid.is_empty() || version.is_empty() || options["propagationPolicy"] != "Background" {
            self.fail("I4", format_args!("{key} at {target} was deleted with {options}"));
            return;
        }
        if before.as_deref() != Some(uid) {
            return;
        }
        let copy = self.known().copies.get(uid).cloned();
        if copy.is_none() && self.is_forgotten(uid, written.compactions) {
            self.met_with("an object that a create met at once, before the hub's data was lost");
            return;
        }
        let Some(copy) = copy.filter(|copy| copy.target == *at) else {
            self.fail("I6", format_args!("{key} at {target}, uid {uid}, is not ours and was deleted"));
            return;
        };
        if !self.archive.has(uid, version) {
            self.fail(
                "I4",
                format_args!("{key} at {target} was deleted at {version}, which is not archived"),
            );
        }
        if let Err((invariant, why)) = self.justified(&copy, *now) {
            self.fail(invariant, format_args!("{key} at {target} was deleted: {why}"));
        }
    }

    /// Had the source of a copy gone, or was it unselected, in a way that may be followed?
    fn justified(&self, copy: &Copy, now: Millis) -> Result<(), (&'static str, String)> {
        let Some(source) = self.member(copy.source_cluster) else { return Ok(()) };
        let (name, uid) = (CLUSTERS[copy.source_cluster], &copy.source);
        let approved_since =
            |at: Millis| self.known().approvals.iter().any(|approval| *approval >= at && *approval <= now);
        source.with_journal(|journal: &Journal| {
            // A successor says whether there is to be a copy: deleted by its user, or unselected while it was there.
            let follows = |life: &&Life| {
                life.key == copy.key && journal.lives.get(uid).is_none_or(|of| of.born() < life.born())
            };
            let speaks = |life: &Life| {
                matches!(life.end, Some((_, Actor::User))) || life.states.iter().any(|state| !state.selected)
            };
            if journal.lives.values().filter(follows).any(speaks) {
                return Ok(());
            }
            // What it was before lockstep wrote the copy last was known then.
            let unselected = |life: &Life| life.unselected_since(&copy.content);
            let ended = |life: &Life| -> Result<(), (&'static str, String)> {
                match life.end {
                    // It was unselected before it went: the copy may be on its way out since then.
                    Some(_) if unselected(life) => Ok(()),
                    Some((at, Actor::Controller)) if !approved_since(at.ms) => Err((
                        "I7",
                        format!("its source {uid} in {name} went with its namespace or definition, and nobody approved"),
                    )),
                    Some(_) => Ok(()),
                    None if unselected(life) => Ok(()),
                    None => Err(("I3", format!("its source {uid} in {name} is there and selected"))),
                }
            };
            match (journal.lives.get(uid), journal.lost.get(uid)) {
                // What ended before a restore had ended; what was unselected before it was.
                (Some(life), Some(lost)) => ended(life).or_else(|_| ended(lost)),
                (Some(life), None) => ended(life),
                (None, Some(lost)) if ended(lost).is_ok() => Ok(()),
                (None, Some(lost)) if approved_since(lost_at(&journal.rewinds, lost)) => Ok(()),
                (None, _) if !journal.rewinds.is_empty() => {
                    Err(("I3", format!("its source {uid} in {name} was lost in a restore, and nobody approved")))
                }
                (None, _) => Err(("I6", format!("its source {uid} never was in {name}"))),
            }
        })
    }
}

/// When a life was lost: at the first restore after its last state. Later ones do not take an approval back.
fn lost_at(rewinds: &[Millis], lost: &Life) -> Millis {
    let last = lost.latest().map_or(0, |state| state.at.ms);
    rewinds.iter().copied().find(|rewind| *rewind >= last).unwrap_or(Millis::MAX)
}
