//! ClusterSyncPolicy: parse, validate, compile, select, render. ArchivePolicy: what is kept when it is
//! deleted, for how long, and how.
//!
//! The way of a policy: [`load`] takes the texts of all files and the previous [`PolicySet`], and
//! gives the next one with every [`Finding`]; a file with an error keeps its last good version
//! (I10). The set answers which policies concern a cluster and kind, [`select`] whether an object
//! is meant and if not why, [`PolicySet::interest`] what an agent watches, and [`render`] what the
//! copy looks like.
//!
//! Architecture invariant: no I/O, no clock, no environment; the hub reads the files and keeps the
//! last good texts ([`PolicySet::last_good`]).

mod archive;
pub mod codes;
mod finding;
mod load;
mod node;
mod parse;
mod policy;
mod reader;
mod render;
mod select;
mod set;
mod syntax;
mod watch;

pub use archive::{ArchivePolicy, ArchiveSpec, Encrypt, Scope};
pub use codes::CODES;
pub use finding::{Finding, Place, Severity};
pub use load::{Change, LoadOutcome, LoadedFile, PolicyChange, load};
pub use parse::{API_VERSION, ARCHIVE_KIND, KIND, Kind, Known};
pub use policy::{
    Budget, CompiledPolicy, Deletion, Disposition, OnContainer, OnImmutable, OnRewind, Ownership, PolicyName,
    Replicas, Resource, Spec, autoscalers, is_scaled,
};
pub use render::{RenderError, RenderInput, Rendered, canonical, render};
pub use select::{Selection, Why, select};
pub use set::PolicySet;
pub use watch::{KindInterest, MAX_LITERAL_NAMESPACES};
