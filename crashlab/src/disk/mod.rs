//! A disk that writes down what happens to it, and shows what a power cut could have left on it.

#![allow(unreachable_pub, reason = "a part of its own, which knows nothing of the laboratory")]

mod device;
mod filesystem;
mod image;
mod recorder;
mod server;
mod slate;
mod sys;
mod tape;
#[cfg(test)]
mod tests;
mod walk;

pub use device::{Backing, Device, Mounted, enter_private_mounts};
pub use filesystem::Filesystem;
pub use image::Image;
#[cfg(test)]
use recorder::Hit;
pub use recorder::{Disk, Fault, Kind, Latency, Requests};
pub use slate::Slate;
pub use tape::{Event, Kept, Tape};
pub use walk::Walk;
