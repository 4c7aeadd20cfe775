//! What the library tells of itself: `stats()`, and the events of the feature `tracing`.

#[cfg(feature = "tracing")]
mod events;
mod store;
mod writer;

#[path = "../support/mod.rs"]
mod support;

use ringseal::{Engine, Writer};

/// The engines that can be had here.
fn engines() -> Vec<Engine> {
    match Writer::builder().engine(Engine::Uring).build() {
        Ok(_) => vec![Engine::Threads, Engine::Uring],
        Err(why) => {
            support::skipped(format_args!("the ring: {why}"));
            vec![Engine::Threads]
        }
    }
}
