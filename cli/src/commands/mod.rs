//! The commands that ask the hub.

pub(crate) mod act;
pub(crate) mod archive;
pub(crate) mod clusters;
pub(crate) mod deletes;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod hub;
pub(crate) mod object;
pub(crate) mod policy;
pub(crate) mod restore;
pub(crate) mod status;
pub(crate) mod tombstones;
pub(crate) mod wait;

use lockstep_hub::http::types::List;

use crate::output::{self, Out};

/// The sentences of a list, for people: to stderr, so that pipes stay clean.
fn notes<T>(out: &Out, list: &List<T>) {
    if !out.structured() {
        for note in &list.notes {
            output::note(&format!("note: {note}"));
        }
    }
}
