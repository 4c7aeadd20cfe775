//! What needs `unsafe`, or has no safe wrapper: one small module each.

pub(crate) mod fork;
pub(crate) mod handle;
pub(crate) mod lease;
pub(crate) mod thread;
