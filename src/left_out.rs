//! Rules that can be left out, to see that it is missed: by the models of the unit tests, and by the crash
//! laboratory, which has to find those that it plants on a real disk.
//!
//! ```text
//! unit tests                       a switch of the thread: left_out::without(Rule)
//! --cfg ringseal_left_out          RINGSEAL_LEFT_OUT=NAME, read once; needs debug assertions
//! everything else                  false, at compile time
//! ```
//!
//! ```sh
//! RUSTFLAGS='--cfg ringseal_left_out' cargo build --profile left-out
//! ```

use rustix::io::Errno;

#[cfg(all(ringseal_left_out, not(debug_assertions)))]
compile_error!("a release build keeps every rule: build with `--profile left-out`");

/// A rule that is left out. Those with a number are the store's, as docs/testing.md lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A file is synced.
    FileSync,
    /// A directory is synced after the rename.
    DirectorySync,
    /// Keep-previous: the directory is synced before the rename.
    PreviousSync,
    /// The file is synced *before* it gets the target's name, and not behind it.
    RenameBeforeSync,
    /// A save is answered after what follows the rename: the directory's sync, its own or the cycle's, and the
    /// probe. Left out, nobody does either.
    AnswerBeforeBarrier,
    /// A filesystem that said "synced" is asked whether it is alive.
    Liveness,
    /// A sync that failed is not tried again on the same file.
    RetryFsync,
    /// 8: a directory that the library makes is on the disk, in the one that holds it, before anything in it is
    /// acknowledged.
    HolderSync,
    /// 1: nothing is published before the log has it, durably.
    PublishBeforeLog,
    /// 2: a segment is used again only when the files have what it holds, durably.
    SegmentReuse,
    /// 2: the log says that the files have something only after a sync.
    NoteBeforeSync,
    /// 2: what was published after a sync began is not counted as synced by it.
    LatePublish,
    /// 3: after a sync that failed, files are made anew.
    FreshFiles,
    /// 3: what cannot be published is set aside before the log forgets it.
    SettingAside,
    /// 3: what was set aside is taken back before the log forgets a newer version.
    TakingBack,
    /// 4: a block that holds something acknowledged is never written again.
    OwnBlock,
    /// 5: a group that is torn is told from one that is whole, by checksums.
    TornTail,
    /// 5: what a recovery reads of the log was flushed.
    FlushBeforeReading,
    /// 5: before groups that a reader still needs are overwritten, a mark is on the disk.
    MarkBeforeOverwriting,
    /// 6: what a failed write may have left is cut off before anybody is told that nothing changed.
    CutOff,
    /// 6: after a write whose fate is not known, nothing more is taken.
    RefusalAfterUnknown,
    /// 7: a recovery syncs what it has put into the files.
    DurableReplay,
    /// 7: a record goes into the directory that it was made for, and into no other of its name.
    DirectoryIdentity,
    /// 9: a removal is in the log before it happens. Left out, transactions that only remove are in no log.
    RemovalInLog,
    /// 10: what is saved beside the log makes the log forget what it has of the path.
    MarkBesideLog,
    /// 11: all of a transaction is in one group.
    WholeTransactions,
    /// 12: what could not be published is remembered, and tried again.
    TryingAgain,
    /// 3: after a sync that failed, no slot of before is used.
    SlotsGivenUp,
    /// 2: what is answered and not visible yet is not counted as spread.
    UnpublishedUnspread,
    /// 10: what is saved beside the log makes what is not visible yet void.
    UnpublishedForgotten,
    /// 2: an older version that was published is not taken for the newer one that waits.
    OvertakenSettled,
    /// Slots: a spare is written only while nobody else can see it.
    SpareUnseen,
    /// Slots: a spare's mode is the one that was asked for.
    SpareMode,
    /// Slots: every lease is told by which signal it is broken.
    LeaseSignal,
}

/// What each is called by whoever asks for it.
#[cfg(any(test, ringseal_left_out))]
const NAMES: [(&str, Rule); 34] = [
    ("file-sync", Rule::FileSync),
    ("directory-sync", Rule::DirectorySync),
    ("previous-sync", Rule::PreviousSync),
    ("rename-before-sync", Rule::RenameBeforeSync),
    ("answer-before-barrier", Rule::AnswerBeforeBarrier),
    ("liveness", Rule::Liveness),
    ("retry-fsync", Rule::RetryFsync),
    ("holder-sync", Rule::HolderSync),
    ("publish-before-log", Rule::PublishBeforeLog),
    ("segment-reuse", Rule::SegmentReuse),
    ("note-before-sync", Rule::NoteBeforeSync),
    ("late-publish", Rule::LatePublish),
    ("fresh-files", Rule::FreshFiles),
    ("setting-aside", Rule::SettingAside),
    ("taking-back", Rule::TakingBack),
    ("own-block", Rule::OwnBlock),
    ("torn-tail", Rule::TornTail),
    ("flush-before-reading", Rule::FlushBeforeReading),
    ("mark-before-overwriting", Rule::MarkBeforeOverwriting),
    ("cut-off", Rule::CutOff),
    ("refusal-after-unknown", Rule::RefusalAfterUnknown),
    ("durable-replay", Rule::DurableReplay),
    ("directory-identity", Rule::DirectoryIdentity),
    ("removal-in-log", Rule::RemovalInLog),
    ("mark-beside-log", Rule::MarkBesideLog),
    ("whole-transactions", Rule::WholeTransactions),
    ("trying-again", Rule::TryingAgain),
    ("slots-given-up", Rule::SlotsGivenUp),
    ("unpublished-unspread", Rule::UnpublishedUnspread),
    ("unpublished-forgotten", Rule::UnpublishedForgotten),
    ("overtaken-settled", Rule::OvertakenSettled),
    ("spare-unseen", Rule::SpareUnseen),
    ("spare-mode", Rule::SpareMode),
    ("lease-signal", Rule::LeaseSignal),
];

/// Is this rule left out?
#[cfg(not(any(test, ringseal_left_out)))]
pub(crate) const fn left_out(_: Rule) -> bool {
    false
}

/// Is this rule left out?
#[cfg(all(ringseal_left_out, not(test)))]
pub(crate) fn left_out(rule: Rule) -> bool {
    use std::sync::OnceLock;
    static LEFT_OUT: OnceLock<Option<Rule>> = OnceLock::new();
    *LEFT_OUT.get_or_init(asked_for) == Some(rule)
}

/// The rule that the environment names. A wrong name must not pass for a rule that is not missed.
#[cfg(all(ringseal_left_out, not(test)))]
fn asked_for() -> Option<Rule> {
    let asked = std::env::var_os("RINGSEAL_LEFT_OUT")?;
    let named = NAMES.iter().find(|(name, _)| asked == *name);
    let Some((_, rule)) = named else {
        let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "RINGSEAL_LEFT_OUT={}: no such rule; there are: {}",
            asked.to_string_lossy(),
            known.join(" ")
        );
        std::process::abort();
    };
    Some(*rule)
}

/// Is this rule left out?
#[cfg(test)]
pub(crate) fn left_out(rule: Rule) -> bool {
    tests::LEFT_OUT.get() == Some(rule)
}

#[cfg(test)]
pub(crate) use tests::without;

/// The answer of a file's sync, which is not asked for again: what the kernel could not write may count as
/// written from then on, and the second answer is 0 (fsync(2)).
pub(crate) fn final_answer(
    synced: Result<(), Errno>,
    again: impl FnOnce() -> Result<(), Errno>,
) -> Result<(), Errno> {
    match synced {
        Err(Errno::IO) if left_out(Rule::RetryFsync) => again(),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static LEFT_OUT: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// The rule is left out on this thread until this is dropped.
    #[derive(Debug)]
    pub(crate) struct Without(());

    /// Leaves a rule out, or none, on this thread.
    #[must_use = "dropped, the rule is kept again"]
    pub(crate) fn without(rule: impl Into<Option<Rule>>) -> Without {
        LEFT_OUT.set(rule.into());
        Without(())
    }

    impl Drop for Without {
        fn drop(&mut self) {
            LEFT_OUT.set(None);
        }
    }

    #[test]
    fn every_name_is_its_rules() {
        for (name, rule) in NAMES {
            let mut kebab = String::new();
            for character in format!("{rule:?}").chars() {
                if character.is_uppercase() && !kebab.is_empty() {
                    kebab.push('-');
                }
                kebab.extend(character.to_lowercase());
            }
            assert_eq!(name, kebab);
            let listed = include_str!("../docs/testing.md").contains(&format!("`{name}`"));
            assert!(listed, "{name} is not in docs/testing.md");
        }
        // `LeaseSignal` is the last.
        assert_eq!(NAMES.len(), Rule::LeaseSignal as usize + 1);
        assert!(NAMES.iter().enumerate().all(|(index, (_, rule))| *rule as usize == index));
    }

    #[test]
    fn a_rule_is_kept_again() {
        let without = without(Rule::FileSync);
        assert!(left_out(Rule::FileSync) && !left_out(Rule::DirectorySync));
        drop(without);
        assert!(!left_out(Rule::FileSync));
    }
}
