//! Which faults there are, and when they come: a pure function of the seed, the length and the size of the fleet.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lockstep_tests::chaos::Trouble;
use lockstep_tests::chaos::dice::Dice;
use lockstep_tests::model::serve::Way;
use lockstep_tests::model::{Effect, Fault, Matcher};

use crate::fleet::Member;

/// On average each cluster meets a fault so often.
const EVERY: Duration = Duration::from_secs(4);
const LASTS_LEAST: Duration = Duration::from_millis(300);
const LASTS_MOST: Duration = Duration::from_secs(5);
/// Answers that are lost, per fault.
const LOST: u32 = 5;
/// Who meets refusals: people beside lockstep do not.
pub(crate) const USER: &str = "agent";

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// 429 with `Retry-After: 1` to every request.
    TooManyRequests,
    /// 500 to every request.
    ServerErrors,
    /// Every answer comes 0.5 s late.
    Slow,
    /// Some requests take effect, and the connection breaks before the answer; some before either.
    Lost,
    /// The API server cannot be reached: connections end.
    ApiCut,
    /// The same, and nothing says so.
    ApiSilent,
    /// The hub cannot be reached from a cluster.
    HubCut,
    /// The same, and nothing says so.
    HubSilent,
    /// etcd is compacted, and the API server starts anew: watches end, and older versions are 410.
    Compact,
    /// Watches stay open and say nothing.
    SilentWatches,
}

const NAMES: [(What, &str); 10] = [
    (What::TooManyRequests, "429"),
    (What::ServerErrors, "500"),
    (What::Slow, "slow"),
    (What::Lost, "lost"),
    (What::ApiCut, "api-cut"),
    (What::ApiSilent, "api-silent"),
    (What::HubCut, "hub-cut"),
    (What::HubSilent, "hub-silent"),
    (What::Compact, "compact"),
    (What::SilentWatches, "silent-watches"),
];

impl What {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        NAMES.iter().map(|(what, _)| *what).collect()
    }

    /// Does it need a wire between agent and hub that can be cut?
    pub(crate) fn is_of_the_hub(self) -> bool {
        matches!(self, Self::HubCut | Self::HubSilent)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(what, _)| what == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(_, name)| *name == text).map(|(what, _)| *what);
        found.ok_or_else(|| {
            format!("there is no fault `{text}`; there are: {}", NAMES.map(|(_, name)| name).join(", "))
        })
    }
}

/// A fault at a cluster begins or ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    /// Since the start.
    pub(crate) at: Duration,
    pub(crate) cluster: usize,
    pub(crate) what: What,
    pub(crate) begins: bool,
}

/// Everything that happens, in order.
pub(crate) fn schedule(seed: u64, length: Duration, clusters: usize, kinds: &[What]) -> Vec<Event> {
    let mut dice = Dice::new(seed, "faults");
    let count = usize::try_from(length.as_millis() / EVERY.as_millis()).unwrap_or(0).max(1) * clusters;
    let mut events = Vec::new();
    for n in 0..count {
        // Each kind as often as the others, also in a short run.
        let Some(what) = kinds.get(n % kinds.len().max(1)).copied() else { break };
        let cluster = dice.below(clusters);
        let at = dice.between(Duration::ZERO, length);
        let end = (at + dice.between(LASTS_LEAST, LASTS_MOST)).min(length);
        events.push(Event { at, cluster, what, begins: true });
        events.push(Event { at: end, cluster, what, begins: false });
    }
    events.sort();
    events
}

impl Event {
    /// Carries it out. What of one wire overlaps ends together.
    pub(crate) fn act(&self, member: &Member) {
        let Self { what, begins, .. } = *self;
        let way = |way| member.served.set_way(if begins { way } else { Way::Open });
        let wire = |trouble| {
            if let Some(wire) = &member.to_hub {
                wire.set(begins.then_some(trouble));
            }
        };
        match what {
            What::ApiCut => way(Way::Cut),
            What::ApiSilent => way(Way::Silent),
            What::HubCut => wire(Trouble::Cut),
            What::HubSilent => wire(Trouble::BlackHole),
            What::Compact if begins => member.served.with(|server, _| {
                server.compact(server.revision());
                server.restart();
            }),
            _ if begins => self.inject(member),
            _ => member.served.with(|server, _| server.heal_all()),
        }
    }

    fn inject(&self, member: &Member) {
        let fault = |effect, times| Fault {
            matches: Matcher { users: vec![USER.to_owned()], ..Matcher::default() },
            effect,
            until: None,
            times,
        };
        let answer = |code, retry_after_s| Effect::Answer { code, retry_after_s };
        let faults = match self.what {
            What::TooManyRequests => vec![fault(answer(429, Some(1)), None)],
            What::ServerErrors => vec![fault(answer(500, None), None)],
            What::Slow => vec![fault(Effect::Delay(500), None)],
            What::SilentWatches => vec![fault(Effect::Silence, None)],
            What::Lost => {
                [Effect::DropBefore, Effect::DropAfter].map(|effect| fault(effect, Some(LOST))).into()
            }
            What::ApiCut | What::ApiSilent | What::HubCut | What::HubSilent | What::Compact => vec![],
        };
        member.served.with(|server, _| {
            for fault in faults {
                server.inject(fault);
            }
        });
    }
}

/// Ends all that may be left.
pub(crate) fn heal(members: &[Member]) {
    for member in members {
        member.served.set_way(Way::Open);
        member.served.with(|server, _| server.heal_all());
        if let Some(wire) = &member.to_hub {
            wire.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_what_begins_ends() {
        let events = |seed| schedule(seed, Duration::from_secs(20), 10, &What::all());
        assert_eq!(events(1), events(1));
        assert_ne!(events(1), events(2));
        let (begun, ended): (Vec<_>, Vec<_>) = events(1).into_iter().partition(|event| event.begins);
        assert_eq!(begun.len(), ended.len());
        assert!(What::all().iter().all(|what| begun.iter().any(|event| event.what == *what)));
        assert!(schedule(1, Duration::from_secs(20), 10, &[]).is_empty());
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for what in What::all() {
            assert_eq!(what.to_string().parse(), Ok(what));
        }
        assert!("x".parse::<What>().is_err());
    }
}
