//! Real container runtimes, and their state kept by a store.
//!
//! runc and crun are taken from `PATH`.

mod bundle;
mod checkpoint;
mod daemon;
mod documented;
mod restored;
mod runtime;
mod seen;
mod shared_root;

#[path = "../support/mod.rs"]
mod support;
