//! The contract, through the public API: each module is one promise of `docs/contract.md`, kept by
//! the plain functions and by both engines.

mod access;
mod choice;
mod concurrency;
mod cycles;
mod doors;
mod executors;
mod failures;
mod forked;
mod killed;
mod limits;
mod liveness;
mod order;
mod peers;
mod previous;
mod probing;
mod recovery;
mod sizes;
mod streaming;
mod sync_failure;
mod targets;
mod trace;

#[path = "../support/mod.rs"]
mod support;
