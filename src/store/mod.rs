//! The store that is being built: states saved again and again, in files that any program can read,
//! durable by one log that all containers share. So far there are its parts: the log and what a save does
//! with it, proved in a model, the lock, the ids. Nothing of this is in the library yet.

mod core;
mod id;
mod lock;
mod log;
