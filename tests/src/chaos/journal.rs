//! What the writer did, and what was answered: one line of JSON each, and in memory for the comparison.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;

use super::objects::{Kind, Slot};

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    /// The API server said that it did it.
    Acknowledged,
    /// The API server said that it did not.
    Refused,
    /// No answer: it may have done it.
    Unknown,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "operation")]
pub(super) enum Operation {
    /// Created or changed at a source, to a body with this number.
    Apply { serial: u64, selected: bool },
    /// Deleted at a source.
    Delete,
    /// A copy was changed at a target.
    DriftEdit,
    /// A copy was deleted at a target.
    DriftDelete,
    /// What was found later of an operation whose outcome was unknown; an empty uid: nothing.
    ReadBack,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// Since the start of the run.
    pub(super) at_ms: u64,
    pub(super) cluster: usize,
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) operation: Operation,
    pub(super) outcome: Outcome,
    /// Of the object, as far as it is known.
    pub(super) uid: String,
    pub(super) resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) error: String,
}

impl Entry {
    pub(super) fn is_of(&self, slot: &Slot) -> bool {
        self.cluster == slot.cluster
            && self.kind == slot.kind.name()
            && self.namespace == slot.namespace
            && self.name == slot.name
    }
}

/// The log; shared by all that write.
#[derive(Debug)]
pub(super) struct Journal {
    began: Instant,
    /// The same in milliseconds since the epoch.
    pub(super) began_ms: u64,
    inner: Mutex<(File, Vec<Entry>)>,
}

impl Journal {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let began_ms = u64::try_from(since_epoch.as_millis())?;
        Ok(Self { began: Instant::now(), began_ms, inner: Mutex::new((file, vec![])) })
    }

    /// Milliseconds since the start of the run.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn note(&self, entry: Entry) -> Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        inner.0.write_all(&line).context("writing the journal")?;
        inner.1.push(entry);
        Ok(())
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// An entry about an object, of now.
    pub(super) fn entry(&self, cluster: usize, kind: Kind, namespace: &str, name: &str) -> Entry {
        Entry {
            at_ms: self.now_ms(),
            cluster,
            kind: kind.name(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            operation: Operation::ReadBack,
            outcome: Outcome::Acknowledged,
            uid: String::new(),
            resource_version: String::new(),
            error: String::new(),
        }
    }
}
