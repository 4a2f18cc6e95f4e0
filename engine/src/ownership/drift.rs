//! Who changed what was ours, and how often it was set back.

use serde::{Deserialize, Serialize};

use super::fieldset::FieldSet;
use crate::Millis;

/// Corrections of one object in this time are counted together.
const WINDOW_MS: Millis = 10 * 60_000;
/// After so many of them it is a war, in which nobody's field is ever settled.
const CORRECTIONS: u32 = 5;
/// Fields named per manager.
const FIELDS: usize = 20;

/// Fields of ours that somebody else changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Field manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// RFC 3339, of its last write.
    pub time: String,
    /// As an API server writes them.
    pub fields: Vec<String>,
}

/// The fields of `ours` that a manager owns now; none: nothing of it.
#[must_use]
pub fn taken_by(
    ours: &FieldSet,
    manager: &str,
    operation: &str,
    time: &str,
    fields: &[String],
) -> Option<Taken> {
    let fields: Vec<String> =
        fields.iter().filter(|path| ours.contains(path)).take(FIELDS).cloned().collect();
    let (manager, operation, time) = (manager.to_owned(), operation.to_owned(), time.to_owned());
    (!fields.is_empty()).then_some(Taken { manager, operation, time, fields })
}

/// For people: `.data.k by kubectl-edit (Update) at 2026-01-02T03:04:05Z`.
#[must_use]
pub fn sentence(taken: &[Taken]) -> String {
    let one = |Taken { manager, operation, time, fields }: &Taken| {
        format!("{} by {manager} ({operation}) at {time}", fields.join(" "))
    };
    if taken.is_empty() {
        return "by whom, the object does not say".to_owned();
    }
    taken.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Drift of one object that was corrected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Corrected {
    /// When it was corrected last.
    pub at: Millis,
    /// Since when corrections are counted.
    pub since: Millis,
    /// How many there were since then.
    pub count: u32,
    /// Under which generation of its policy.
    pub generation: u64,
    /// Who had changed what, last time.
    pub by: Vec<Taken>,
}

impl Corrected {
    /// One more correction.
    #[must_use]
    pub fn again(before: Option<Self>, by: Vec<Taken>, generation: u64, now: Millis) -> Self {
        let counted =
            before.filter(|before| before.generation == generation && now < before.since + WINDOW_MS);
        let (since, count) = counted.map_or((now, 0), |before| (before.since, before.count));
        Self { at: now, since, count: count.saturating_add(1), generation, by }
    }

    /// Is it a war by now? It stays one until the policy is changed, or [`Self::settled`].
    #[must_use]
    pub fn is_contested(&self, generation: u64) -> bool {
        self.count >= CORRECTIONS && self.generation == generation
    }

    /// The others let go of the fields.
    #[must_use]
    pub fn settled(self) -> Self {
        Self { count: 0, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_the_manager_and_the_time_are_named() {
        let ours = FieldSet::parse(br#"{"f:data":{"f:k":{}},"f:spec":{"f:a":{}}}"#).unwrap();
        let fields = [".data.k".to_owned(), ".data.beside".to_owned()];
        let taken = taken_by(&ours, "kubectl-edit", "Update", "T", &fields).unwrap();
        assert_eq!(sentence(&[taken]), ".data.k by kubectl-edit (Update) at T");
        assert_eq!(taken_by(&ours, "x", "Apply", "T", &fields[1..]), None);
        assert_eq!(sentence(&[]), "by whom, the object does not say");
    }

    #[test]
    fn corrections_that_never_end_are_a_war_until_the_policy_changes_or_the_others_let_go() {
        let mut corrected = None;
        for n in 0..CORRECTIONS {
            assert!(!corrected.as_ref().is_some_and(|c: &Corrected| c.is_contested(1)));
            corrected = Some(Corrected::again(corrected, Vec::new(), 1, Millis::from(n) * 1_000));
        }
        let war = corrected.unwrap();
        assert!(war.is_contested(1) && !war.is_contested(2) && !war.clone().settled().is_contested(1));
        // Now and then is no war.
        let mut seldom = None;
        for n in 0..100 {
            seldom = Some(Corrected::again(seldom, Vec::new(), 1, n * WINDOW_MS / 3));
        }
        assert!(!seldom.unwrap().is_contested(1));
    }
}
