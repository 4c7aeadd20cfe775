//! The names of the steps and of what is true when one fails: the words that the plan, both
//! engines, the errors, the command line and the documents share.

use std::fmt;

/// One step of a save, in the order in which steps run.
///
/// An [`Error`](crate::Error) names the step that failed. `Display` gives the kebab-case name.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Take the request: its target's name is usable, its value serialises, the writer is open.
    Accept,
    /// Make a directory that the target needs, and sync the directory that holds it.
    MakeDirectory,
    /// Open the directory that holds the target, on the caller's thread.
    OpenDirectory,
    /// Look at what stands at the target, without following a link.
    Check,
    /// Create the temporary file beside the target: unique name, `O_EXCL`, the exact mode.
    Open,
    /// Set owner, special mode bits or access list, where they were asked for.
    SetAttributes,
    /// Write every byte.
    Write,
    /// Sync the file: its bytes are on stable storage.
    Sync,
    /// Keep-previous only: give the old version a second name, a hard link.
    LinkPrevious,
    /// Keep-previous only: move that link over the previous name.
    RenamePrevious,
    /// Keep-previous only: sync the directory, so that the old version is safe under its new name.
    SyncPrevious,
    /// `renameat2`: the target becomes the new version, at once, for everybody.
    Rename,
    /// Sync the directory: the rename is on stable storage.
    SyncDirectory,
    /// Prove that the filesystem is alive, for a sync that returned 0 is no proof of it.
    Verify,
    /// A [`StateStore`](crate::StateStore) only: append to the log, durably.
    Log,
}

impl Step {
    /// Is it done to the open temporary file?
    pub(crate) const fn needs_file(self) -> bool {
        matches!(self, Step::SetAttributes | Step::Write | Step::Sync)
    }

    /// Does it wait for the disk to have a file or a directory?
    pub(crate) const fn syncs(self) -> bool {
        matches!(self, Step::Sync | Step::SyncPrevious | Step::SyncDirectory)
    }

    /// The kebab-case name, as errors, the command line and the documents print it.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Accept => "accept",
            Step::MakeDirectory => "make-directory",
            Step::OpenDirectory => "open-directory",
            Step::Check => "check",
            Step::Open => "open",
            Step::SetAttributes => "set-attributes",
            Step::Write => "write",
            Step::Sync => "sync",
            Step::LinkPrevious => "link-previous",
            Step::RenamePrevious => "rename-previous",
            Step::SyncPrevious => "sync-previous",
            Step::Rename => "rename",
            Step::SyncDirectory => "sync-directory",
            Step::Verify => "verify",
            Step::Log => "log",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is true of the target after an error.
///
/// More may come; match with a wildcard arm that treats an outcome you do not know as
/// [`Unknown`](Outcome::Unknown).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The old version stands, untouched, or there is still nothing where nothing was.
    Unchanged,
    /// Readers see the new version, but a later step failed: a power cut may bring the old one
    /// back. It is never a mixture of both.
    ReplacedDurabilityUnknown,
    /// A [`StateStore`](crate::StateStore) only: it is in the log and will stand, but the files do not show it,
    /// or are not durable themselves yet. The next opening sees to it.
    DurableNotVisible,
    /// The engine was lost before it could say: the target is the whole old version or the whole
    /// new one. Read it before you decide.
    Unknown,
}

impl Outcome {
    /// The snake_case name that `--json` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Unchanged => "unchanged",
            Outcome::ReplacedDurabilityUnknown => "replaced_durability_unknown",
            Outcome::DurableNotVisible => "durable_not_visible",
            Outcome::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Unchanged => "unchanged",
            Outcome::ReplacedDurabilityUnknown => "replaced, durability unknown",
            Outcome::DurableNotVisible => "durable, not yet visible",
            Outcome::Unknown => "unknown",
        })
    }
}
