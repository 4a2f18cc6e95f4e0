//! What is wrong with the hub itself: written by the part that notices, read by the HTTP API, the
//! probes and the metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use lockstep_engine::Millis;
use serde::{Deserialize, Serialize};

use crate::codes::Code;

/// Something that a person should know of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `LS02xx`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub remedy: String,
    /// Since when.
    pub since_ms: Millis,
    /// Does the hub take nothing new because of it?
    pub stops_work: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, message, remedy, since_ms: _, stops_work: _ } = self;
        write!(f, "{code}: {message}; {remedy}")
    }
}

/// The problems that there are now, one per code. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Problems(Arc<RwLock<BTreeMap<&'static str, Problem>>>);

impl Problems {
    /// There is one, from now on or still.
    pub fn set(&self, code: Code, message: String, remedy: &str, stops_work: bool, now: Millis) {
        let mut problems = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let since_ms = problems.get(code.code).map_or(now, |known| known.since_ms);
        let (code, remedy) = (code.code, remedy.to_owned());
        problems.insert(code, Problem { code: code.to_owned(), message, remedy, since_ms, stops_work });
    }

    /// It is over.
    pub fn clear(&self, code: Code) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(code.code);
    }

    /// All of them, by code.
    #[must_use]
    pub fn all(&self) -> Vec<Problem> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The one because of which the hub takes nothing new.
    #[must_use]
    pub fn stopping(&self) -> Option<Problem> {
        self.all().into_iter().find(|problem| problem.stops_work)
    }
}
