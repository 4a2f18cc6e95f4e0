//! Holds the comparison of `engine` against the definition, along a history (I17).

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use lockstep_engine::GroupKind;
use lockstep_engine::ownership::{
    Comparison, FieldSet, Leave, MANAGER, ManagedFields, Owned, compare, owned_digest_of,
};
use lockstep_tests::in_step::{Write, differences, leaves};
use serde_json::Value;

/// Follows one history, and says where the comparison and its own opinion part.
#[derive(Debug)]
pub(super) struct Judge {
    gk: GroupKind,
    api_version: String,
    desired: Value,
    was_ours: FieldSet,
    /// Digest of what is ours after our last write, where that was found to be as asked.
    in_step: Option<[u8; 16]>,
    /// Leaves that our earlier bodies had, and that were there after the last write.
    written: BTreeSet<String>,
    /// How often it said in step, and how often that it differs.
    pub(super) said: (usize, usize),
}

impl Judge {
    /// Of an object of that kind.
    #[must_use]
    pub(super) fn new((api_version, kind): (&str, &str)) -> Self {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self {
            gk: GroupKind::new(group, kind),
            api_version: api_version.to_owned(),
            desired: Value::Null,
            was_ours: FieldSet::default(),
            in_step: None,
            written: BTreeSet::new(),
            said: (0, 0),
        }
    }

    /// A write was answered with this object.
    ///
    /// # Errors
    /// When the comparison says something else than the definition.
    pub(super) fn answered(&mut self, write: &Write, live: &Value) -> Result<()> {
        let digest = match owned_digest_of(live, &self.api_version, None)? {
            Owned::Digest(digest) => Some(digest),
            Owned::None | Owned::OtherVersion(_) => None,
        };
        let Write::Ours(body) = write else {
            // As observed: what was in step, and is as it was as far as it is ours, is in step.
            if self.in_step.is_some() && self.in_step == digest {
                let off = differences(&self.desired, live);
                ensure!(off.is_empty(), "observed as in step, and {off:?}: {} {live}", self.desired);
            }
            return Ok(());
        };
        self.desired = body.clone();
        let leave = Leave::default();
        let compared = compare(&Comparison {
            gk: &self.gk,
            desired: body,
            live,
            was_ours: &self.was_ours,
            leave: &leave,
        })?;
        let asked = leaves(body);
        let there = leaves(live);
        self.written.retain(|leaf| !asked.contains(leaf) && there.contains(leaf));
        let mut off = differences(body, live);
        off.extend(self.written.iter().cloned());
        let said = &compared.differences;
        ensure!(
            said.is_empty() == off.is_empty(),
            "the comparison says {said:?}, by the definition there is {off:?}: {body} {live}"
        );
        if said.is_empty() {
            self.said.0 += 1
        } else {
            self.said.1 += 1
        }
        self.written.extend(asked);
        let managed = ManagedFields::from_value(&live["metadata"]["managedFields"])?;
        self.was_ours = managed.entry(MANAGER).map(|entry| entry.fields()).transpose()?.unwrap_or_default();
        self.was_ours.extend(&compared.lingering);
        self.in_step = digest.filter(|_| said.is_empty());
        Ok(())
    }
}
