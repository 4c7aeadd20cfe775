//! What a save that went well answers.

/// The answer to a save that went well: what was done, and what it is worth.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// What a power cut can do to the saved version.
    pub durability: Durability,
    /// Who wrote it.
    pub carrier: Carrier,
    /// Bytes written.
    pub bytes: u64,
    /// The save's number in the order in which its [`Writer`](crate::Writer) accepted saves, from 1 on,
    /// which is the order in which versions of one target take effect; 0 for a plain function.
    pub sequence: u64,
    /// The number of the newer version that is on disk in this one's place: this one was overtaken
    /// while it waited, and was never written. Durability, carrier and bytes are that one's.
    pub coalesced_into: Option<u64>,
}

/// What a power cut can do to a version that was saved.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Nothing: file and directory are synced, and the filesystem has proved that it is alive.
    Durable,
    /// Nothing, as far as the syncs said: they all returned 0, but neither the target's directory
    /// nor one above it could prove the filesystem alive (no `O_TMPFILE` there, or no permission).
    DurableUnproven,
    /// Anything until the filesystem writes it back by itself: [`Level::Atomic`](crate::Level)
    /// was asked for, nothing was synced. Readers and a killed process see it whole.
    Atomic,
    /// It is gone with the power: the filesystem (tmpfs, ramfs) lives in memory. Nothing was
    /// synced, for there is nothing to sync to. Readers and a killed process see it whole.
    Volatile,
}

impl Durability {
    /// The snake_case name that `--json` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Durability::Durable => "durable",
            Durability::DurableUnproven => "durable_unproven",
            Durability::Atomic => "atomic",
            Durability::Volatile => "volatile",
        }
    }
}

/// Who made and wrote the new file.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// The ring. Syncs that many saves share, and what the ring could not end, are a thread's of the
    /// writer's pool.
    Ring,
    /// A thread of the writer's pool, by plain system calls.
    Pool,
    /// The caller's own thread, by plain system calls.
    Caller,
}

impl Carrier {
    /// The name that `--json` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Carrier::Ring => "ring",
            Carrier::Pool => "pool",
            Carrier::Caller => "caller",
        }
    }
}
