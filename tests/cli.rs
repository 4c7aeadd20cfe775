//! The `ringseal` command, run as a program: what it does to files, what it prints, how it exits.
#![cfg(feature = "cli")]

#[path = "cli/checkpoint.rs"]
mod checkpoint;
#[path = "cli/command.rs"]
mod command;
#[path = "cli/links.rs"]
mod links;
#[path = "cli/probe.rs"]
mod probe;
#[path = "cli/recover.rs"]
mod recover;
#[path = "cli/refusals.rs"]
mod refusals;
#[path = "cli/signals.rs"]
mod signals;
#[path = "cli/store.rs"]
mod store;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/write.rs"]
mod write;

#[path = "support/mod.rs"]
mod support;
