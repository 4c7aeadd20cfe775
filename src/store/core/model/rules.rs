//! The rules of the store, to be left out one at a time.

/// A rule of the store that a history is run without, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    Nothing,
    /// Files are replaced only when the log holds their versions.
    LogBeforePublishing,
    /// A segment is used again only when the files have what it holds, durably.
    SpreadBeforeReuse,
    /// The log says that the files have something only when they have.
    SyncBeforeNote,
    /// After a sync that failed, files are written anew.
    FreshFilesAfterFailure,
    /// What a failed write may have left is cut off before anybody is told that nothing changed.
    CutOff,
    /// What a recovery puts into the files is durable before the log goes on.
    DurableReplay,
    /// Before a recovery overwrites groups, it is on the disk that they count no longer.
    MarkBeforeOverwriting,
    /// What a recovery reads of the log is on the disk, and not only on its way.
    FlushBeforeReading,
    /// What cannot be published is kept somewhere else before the log forgets it.
    SettingAside,
    /// After a write whose fate is not known, nothing more is taken.
    RefusalAfterUnknown,
    /// A directory is on the disk before a record of it is acknowledged.
    DurableDirectories,
    /// A record is published into the directory that it was written for, and into no other of its name.
    DirectoryIdentity,
    /// A removal is in the log before it happens.
    RemovalInLog,
    /// What is saved beside the log makes the log forget what it has of the path.
    Forgetting,
    /// What was set aside is taken back before the log forgets a newer version.
    TakingBack,
    /// What was published after a sync began is not counted as synced by it.
    SyncBeginsAfterPublishing,
    /// A block that holds something acknowledged is never written again.
    OwnBlocks,
    /// A group that is torn is told from one that is whole.
    Checksums,
    /// What could not be published is remembered, and tried again.
    TryingAgain,
    /// All of a transaction is in one group.
    WholeTransactions,
}
