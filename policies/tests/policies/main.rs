//! The public face of this crate: what a policy says, and what follows from it. One binary for all: it is linked once.

mod archive;
mod common;
mod deletion;
mod errors;
mod examples;
mod laws;
mod loading;
mod ownership;
mod rendering;
mod selecting;
