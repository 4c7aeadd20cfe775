//! What a [`Writer`](crate::Writer) and a [`StateStore`](crate::StateStore) count alike: who is in flight, what was
//! answered, how long it took.
//!
//! ```text
//!   room found ──▶ Traffic: in flight since then ──▶ answered: the step that failed, bytes, latency
//! ```
//!
//! It is kept under the lock of the [limits](crate::engine::task::limits), which every save takes anyway when it
//! finds room and when it gives it back: so the figures of a snapshot fit together.

mod failures;
mod latency;
mod traffic;

pub use failures::Failures;
pub use latency::Latency;
pub(crate) use traffic::{Answered, Totals, Traffic};
