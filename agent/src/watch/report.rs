//! What a watch tells the hub: deltas, the checkpoint they lead to, and its status.

use lockstep_cluster::Resource;
use lockstep_engine::guard::{self, Guard};
use lockstep_wire::v1::{self, WatchPhase, WatchStatus};

use super::{Stage, Watch};

impl Watch {
    /// What one batch takes from this watch.
    pub(crate) fn take(&mut self, max_bytes: usize) -> Option<v1::Section> {
        let taken = if self.queue.has_news() { self.queue.take_batch(max_bytes) } else { None };
        let (items, checkpoint) = match taken {
            Some(section) => self.unpack(section),
            None => (Vec::new(), None),
        };
        let status = self.status().filter(|status| self.told.as_ref() != Some(status));
        let census = self.take_census();
        if items.is_empty() && checkpoint.is_none() && status.is_none() && census.is_empty() {
            return None;
        }
        if let Some(status) = &status {
            self.judged.clone_from(&status.interest);
            self.told = Some(status.clone());
        }
        Some(v1::Section {
            watch: self.id,
            epoch: self.epoch,
            items,
            checkpoint: checkpoint.map(|version| version.as_str().to_owned()).unwrap_or_default(),
            status,
            census,
        })
    }

    /// A new session begins: whatever was told of the status counts no more.
    pub(crate) fn tell_again(&mut self) {
        self.told = None;
    }

    /// Has it anything to say?
    pub(crate) fn has_news(&self) -> bool {
        let untold = |status| self.told.as_ref() != Some(&status);
        self.queue.has_news() || self.status().is_some_and(untold) || self.has_census()
    }

    /// The status to tell now. Nothing while what it says is not yet with the hub: `Live` waits
    /// for everything that was queued before it.
    fn status(&self) -> Option<WatchStatus> {
        let (phase, reason, message) = self.phase();
        let live = phase == WatchPhase::Live;
        if live && !self.queue.drained_to(self.live_at) && guard::on(Guard::LiveAfterQueue) {
            return None;
        }
        let interest = if live { &self.interest_digest } else { &self.judged };
        Some(WatchStatus {
            phase: phase.into(),
            reason: reason.to_owned(),
            message,
            api_version: self.resource.as_ref().map(Resource::api_version).unwrap_or_default(),
            interest: interest.clone(),
        })
    }

    fn phase(&self) -> (WatchPhase, &'static str, String) {
        let said = |phase, reason, message: &str| (phase, reason, message.to_owned());
        if self.stage == Stage::AwaitingResume {
            return said(WatchPhase::Pending, "", "");
        }
        if self.refused {
            return said(
                WatchPhase::Failing,
                "NotAccepted",
                "the agent's `accept` does not let the hub read all that it asks for; nothing of this kind is known",
            );
        }
        if self.not_served {
            let phase = if self.run > 0 { WatchPhase::Failing } else { WatchPhase::Pending };
            return said(phase, "NotServed", "the cluster does not serve this kind");
        }
        if self.rewound {
            return said(
                WatchPhase::Failing,
                "RewindSuspected",
                "the API server was restored to an older state; everything is listed anew, and nothing is concluded from absence",
            );
        }
        if let Some(reason) = self.failing {
            return said(WatchPhase::Failing, reason, "requests to the API server fail; they are retried");
        }
        match self.stage {
            Stage::AwaitingKind => said(
                WatchPhase::Pending,
                "DiscoveryPending",
                "the API server has not said whether it serves this kind; until it does, what is there is unknown",
            ),
            Stage::AwaitingSlot => said(WatchPhase::Pending, "ListQueued", "other lists are under way"),
            _ if self.waits_for_lease() => said(
                WatchPhase::Listing,
                "LeaseUnreadable",
                "deletes are concluded once the agent's Lease can be read: it shows whether the cluster was rewound",
            ),
            _ if self.listing || self.concluding.is_some() => said(WatchPhase::Listing, "", ""),
            _ if self.unkeyed_at_last > 0 => (
                WatchPhase::Live,
                "Undecodable",
                format!(
                    "{} objects could not be read; nothing is concluded from absence",
                    self.unkeyed_at_last
                ),
            ),
            _ if self.complete => said(WatchPhase::Live, "", ""),
            _ => said(WatchPhase::Pending, "Starting", ""),
        }
    }
}
