//! The store that is being built: states saved again and again, in files that any program can read,
//! durable by one log that all containers share. So far there are its parts: the log, proved in a model
//! before anything uses it, the lock, the ids. Nothing of this is in the library yet.

mod id;
mod lock;
mod log;
