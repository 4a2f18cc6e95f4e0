//! The repository itself: what may depend on what, and whether the documents name what exists. Needs no control plane.

mod docs;
mod purity;
