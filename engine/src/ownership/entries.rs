//! `metadata.managedFields`: our entry, and whose the others are.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fieldset::FieldSet;
use super::{MANAGER, YIELD_MANAGER};
use crate::object::ObjectError;

/// Most field paths kept per other manager: enough to attribute drift, small enough to send along.
pub const SUMMARY_PATHS: usize = 64;
/// Bytes of the paths of all other managers together. A path may be as long as its object, 64 of them as long as a
/// message to the hub may be.
pub const SUMMARY_BYTES: usize = 64 << 10;

/// [`MANAGER`] as JSON has it.
const QUOTED_MANAGER: &str = "\"lockstep\"";

/// One entry of managedFields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ManagerEntry {
    /// Field manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// The version that the field paths are of.
    pub api_version: String,
    /// RFC 3339, of the last write.
    pub time: String,
    /// `status`, `scale` or empty.
    pub subresource: String,
    /// The field set, unparsed.
    #[serde(rename = "fieldsV1")]
    pub fields_v1: Value,
}

impl ManagerEntry {
    /// Is it the entry of our applies?
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.manager == MANAGER && self.operation == "Apply" && self.subresource.is_empty()
    }

    /// The field set.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn fields(&self) -> Result<FieldSet, ObjectError> {
        if self.fields_v1.is_null() {
            return Ok(FieldSet::default());
        }
        FieldSet::from_value(&self.fields_v1).map_err(|_| unreadable())
    }
}

fn unreadable() -> ObjectError {
    ObjectError::Undecodable { category: "bad managedFields", line: 0, column: 0 }
}

/// What another manager owns, without values (I13): for the attribution of drift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerSummary {
    /// Field manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// `status`, `scale` or empty.
    pub subresource: String,
    /// RFC 3339, of the last write.
    pub time: String,
    /// Field paths as an API server writes them.
    pub fields: Vec<String>,
    /// Are there more than [`SUMMARY_PATHS`] and [`SUMMARY_BYTES`] allow?
    pub truncated: bool,
}

/// Is there an entry of ours among `metadata.managedFields`? For every object that a watch delivers, so
/// nothing is parsed where no manager has our name.
#[must_use]
pub fn has_entry_of_ours(raw: &RawValue) -> bool {
    raw.get().contains(QUOTED_MANAGER)
        && ManagedFields::parse(raw).is_ok_and(|entries| entries.ours().is_some())
}

/// All entries of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManagedFields(pub Vec<ManagerEntry>);

impl ManagedFields {
    /// Reads `Meta::managed_fields`.
    ///
    /// # Errors
    /// When it is not a list of entries.
    pub fn parse(raw: &RawValue) -> Result<Self, ObjectError> {
        let entries: Option<Vec<ManagerEntry>> = serde_json::from_str(raw.get())?;
        Ok(Self(entries.unwrap_or_default()))
    }

    /// Reads the tree of `metadata.managedFields`.
    ///
    /// # Errors
    /// When it is not a list of entries.
    pub fn from_value(value: &Value) -> Result<Self, ObjectError> {
        let entries = Option::<Vec<ManagerEntry>>::deserialize(value)?;
        Ok(Self(entries.unwrap_or_default()))
    }

    /// The entry of this manager with operation Apply and no subresource.
    #[must_use]
    pub fn entry(&self, manager: &str) -> Option<&ManagerEntry> {
        self.0.iter().find(|entry| {
            entry.manager == manager && entry.operation == "Apply" && entry.subresource.is_empty()
        })
    }

    /// Our entry.
    #[must_use]
    pub fn ours(&self) -> Option<&ManagerEntry> {
        self.entry(MANAGER)
    }

    /// The union of what all others own.
    ///
    /// # Errors
    /// When a field set cannot be read.
    pub fn others(&self) -> Result<FieldSet, ObjectError> {
        let mut union = FieldSet::default();
        for entry in self.0.iter().filter(|entry| !entry.is_ours()) {
            union.extend(&entry.fields()?);
        }
        Ok(union)
    }

    /// Names of all managers, each once.
    #[must_use]
    pub fn managers(&self) -> BTreeSet<&str> {
        self.0.iter().map(|entry| entry.manager.as_str()).collect()
    }

    /// One summary per other manager. An entry whose field set cannot be read is named without
    /// fields, as truncated.
    #[must_use]
    pub fn summaries(&self) -> Vec<ManagerSummary> {
        let foreign = self.0.iter().filter(|entry| !entry.is_ours() && entry.manager != YIELD_MANAGER);
        let mut room = SUMMARY_BYTES;
        foreign
            .map(|entry| {
                let fields = entry.fields().map(|set| set.paths_within(SUMMARY_PATHS, room));
                let (fields, all) = fields.unwrap_or_default();
                room -= fields.iter().map(String::len).sum::<usize>();
                ManagerSummary {
                    manager: entry.manager.clone(),
                    operation: entry.operation.clone(),
                    subresource: entry.subresource.clone(),
                    time: entry.time.clone(),
                    fields,
                    truncated: !all,
                }
            })
            .collect()
    }
}
