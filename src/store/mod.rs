//! The store that is being built: states saved again and again, in files that any program can read,
//! durable by one log that all containers share. So far there is the log, proved in a model before
//! anything uses it; no part of this is in the library yet.

mod log;
