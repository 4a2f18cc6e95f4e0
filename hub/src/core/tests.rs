//! The core as a whole, on a real store, with agents played by the tests.

mod acts;
mod agents;
mod archive;
mod barred;
mod compared;
mod containers;
mod copies;
mod creates;
mod deletes;
mod fields;
mod fleet;
mod letting_go;
mod ownership;
mod reading;
mod removal;
mod restores;
mod rewinds;
mod sessions;
mod syncing;
mod told;
