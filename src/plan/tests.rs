//! The plan by enumeration: every shape x every payload x by itself or in a cycle x every operation
//! failing x every errno, on a model of the kernel that breaks chains as the real one does, and on one
//! that breaks them as the manual says. No system call is made.

use rustix::io::Errno;

use super::barrier::Barrier;
use super::chain::{ChainEnd, Op, WRITE_MAX, next_chain, record_chain};
use super::{Liveness, Outcome, Progress, Shape, Step};
use crate::left_out::{Rule, without};

const PAYLOADS: [usize; 3] = [0, 5, WRITE_MAX + 5];
const ERRORS: [Errno; 5] = [Errno::IO, Errno::NOSPC, Errno::ROFS, Errno::ACCESS, Errno::EXIST];

/// A directory and a disk, as far as a save can tell.
#[derive(Debug, Clone, Default)]
struct World {
    old_stands: bool,
    /// The filesystem honours `RWF_DSYNC`.
    write_syncs: bool,
    /// Bytes of the temp, and how many of them are on stable storage.
    temp: Option<(usize, usize)>,
    slot_is_full: bool,
    link: bool,
    previous_is_old: bool,
    previous_is_durable: bool,
    replaced: bool,
    rename_is_durable: bool,
    proven_alive: bool,
    /// What a rename has published that was not on stable storage.
    published_unsynced: bool,
}

impl World {
    fn run(&mut self, op: Op, payload: usize) -> Result<i32, Errno> {
        match op {
            Op::Open => {
                self.temp = Some((0, 0));
                self.slot_is_full = true;
            }
            Op::Write { len, sync, .. } => {
                let (written, synced) = self.temp.as_mut().ok_or(Errno::BADF)?;
                *written += len;
                if sync && len > 0 && self.write_syncs {
                    *synced = *written;
                }
                return Ok(len as i32);
            }
            Op::Sync => {
                let (written, synced) = self.temp.as_mut().ok_or(Errno::BADF)?;
                // One more than there are bytes: the empty file itself is there.
                *synced = *written + usize::from(payload == 0);
            }
            Op::LinkPrevious if !self.old_stands => return Err(Errno::NOENT),
            Op::LinkPrevious => self.link = true,
            Op::RenamePrevious => {
                if !std::mem::take(&mut self.link) {
                    return Err(Errno::NOENT);
                }
                self.previous_is_old = true;
            }
            Op::SyncDirectory => {
                self.previous_is_durable = self.previous_is_old;
                self.rename_is_durable = self.replaced;
            }
            Op::Rename => {
                let (written, synced) = self.temp.take().ok_or(Errno::NOENT)?;
                self.replaced = true;
                assert_eq!(written, payload, "a part of a file was published");
                self.published_unsynced = synced < payload.max(1);
            }
            Op::Verify => {
                self.proven_alive = true;
                self.slot_is_full = true;
            }
            Op::Close => {
                assert!(std::mem::take(&mut self.slot_is_full), "a slot is closed twice");
            }
        }
        Ok(0)
    }
}

/// Runs chains, failing the `fail_at`-th operation of all.
struct Kernel {
    world: World,
    payload: usize,
    fail_at: usize,
    errno: Errno,
    as_the_manual_says: bool,
    ran: usize,
    failed: Option<Op>,
}

impl Kernel {
    fn submit(&mut self, chain: &[Op]) -> Vec<i32> {
        let mut severed = false;
        let mut results = Vec::new();
        for op in chain {
            if severed {
                results.push(-Errno::CANCELED.raw_os_error());
                continue;
            }
            let answer = if self.ran == self.fail_at {
                self.failed = Some(*op);
                Err(self.errno)
            } else {
                self.world.run(*op, self.payload)
            };
            self.ran += 1;
            let breaks =
                self.as_the_manual_says || matches!(op, Op::Open | Op::Write { .. } | Op::Verify);
            severed = breaks && answer.is_err();
            results.push(answer.unwrap_or_else(|errno| -errno.raw_os_error()));
        }
        results
    }
}

fn shapes() -> impl Iterator<Item = Shape> {
    (0..8).map(|bits| Shape {
        durable: bits & 1 != 0,
        keep_previous: bits & 2 != 0,
        write_syncs: bits & 4 != 0,
        attributes: false,
    })
}

/// Every case there is; `check` gets the end of each.
fn enumerate(mut check: impl FnMut(Shape, &Kernel, &Progress, ChainEnd)) -> usize {
    let mut cases = 0;
    let barriers = [None, Some(Barrier::File), Some(Barrier::Filesystem)];
    for (shape, barrier) in shapes().flat_map(|shape| barriers.map(|barrier| (shape, barrier))) {
        for payload in PAYLOADS {
            for old_stands in [false, true] {
                for as_the_manual_says in [false, true] {
                    for errno in ERRORS {
                        for fail_at in 0..16 {
                            let mut kernel = Kernel {
                                world: World {
                                    old_stands,
                                    write_syncs: shape.write_syncs,
                                    ..World::default()
                                },
                                payload,
                                fail_at,
                                errno,
                                as_the_manual_says,
                                ran: 0,
                                failed: None,
                            };
                            let (progress, end) = drive(shape, barrier, payload, &mut kernel);
                            check(shape, &kernel, &progress, end);
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    cases
}

/// What the ring's engine does, chain by chain; in a cycle, up to each step that is shared, which is
/// a call for itself.
fn drive(
    shape: Shape,
    barrier: Option<Barrier>,
    payload: usize,
    kernel: &mut Kernel,
) -> (Progress, ChainEnd) {
    let here = |step| barrier.is_none_or(|barrier| !barrier.shares(step));
    let mut progress = Progress::new(shape);
    while let Some(step) = progress.next() {
        let by_directory = matches!(step, Step::SyncPrevious | Step::SyncDirectory);
        if by_directory && barrier == Some(Barrier::File) {
            let chain = next_chain(&progress, payload, false, |next| next == step);
            assert_eq!(chain, [Op::SyncDirectory]);
            let results = kernel.submit(&chain);
            let end = record_chain(&mut progress, payload, &chain, &results);
            assert_eq!(end, ChainEnd::Recorded);
            continue;
        }
        if !here(step) {
            let op = match step {
                Step::Sync => Op::Sync,
                Step::Verify => Op::Verify,
                Step::SyncPrevious | Step::SyncDirectory => Op::SyncDirectory,
                _ => panic!("{step} is nobody else's"),
            };
            let result = kernel.submit(&[op])[0];
            let answer = if result < 0 { Err(kernel.errno) } else { Ok(()) };
            progress.record(step, answer);
            kernel.world.slot_is_full = false;
            continue;
        }
        let chain = next_chain(&progress, payload, kernel.world.slot_is_full, here);
        let results = kernel.submit(&chain);
        let end = record_chain(&mut progress, payload, &chain, &results);
        if end != ChainEnd::Recorded {
            return (progress, end);
        }
    }
    (progress, ChainEnd::Recorded)
}

#[test]
fn a_chain_never_publishes_what_is_not_synced() {
    let cases = enumerate(|shape, kernel, _, _| {
        assert!(
            !(shape.durable && kernel.world.published_unsynced),
            "{shape:?}: {:?} failed with {:?}",
            kernel.failed,
            kernel.errno
        );
    });
    assert_eq!(cases, 8 * 3 * 3 * 2 * 2 * 5 * 16);
}

/// The same model finds the loss in the chain that everybody writes first, so it can find one.
#[test]
fn the_obvious_chain_publishes_what_is_not_synced() {
    let chain = [
        Op::Open,
        Op::Write { offset: 0, len: 5, sync: false },
        Op::Sync,
        Op::Rename,
        Op::SyncDirectory,
    ];
    let lost = |as_the_manual_says| {
        let (fail_at, errno) = (2, Errno::NOSPC);
        let world = World { old_stands: true, ..World::default() };
        let mut kernel =
            Kernel { world, payload: 5, fail_at, errno, as_the_manual_says, ran: 0, failed: None };
        kernel.submit(&chain);
        kernel.world.published_unsynced
    };
    assert!(lost(false), "on real kernels the rename runs after the failed sync");
    assert!(!lost(true));
}

#[test]
fn what_an_end_says_is_true() {
    enumerate(|shape, kernel, progress, end| {
        let world = &kernel.world;
        let context = format!("{shape:?} {:?} {:?} {end:?} {world:?}", kernel.failed, kernel.errno);
        if end != ChainEnd::Recorded {
            return;
        }
        match progress.failed() {
            None => {
                assert!(world.replaced, "{context}");
                assert!(progress.next().is_none(), "{context}");
                if shape.durable {
                    assert!(world.rename_is_durable, "{context}");
                    let probed = matches!(kernel.failed, Some(Op::Verify)) || world.proven_alive;
                    assert!(probed, "{context}");
                }
                if shape.keep_previous && world.old_stands {
                    assert!(world.previous_is_old, "{context}");
                }
            }
            Some(_) => {
                assert_eq!(progress.errno(), Some(kernel.errno), "{context}");
                match progress.outcome() {
                    Outcome::Unchanged => assert!(!world.replaced, "{context}"),
                    Outcome::ReplacedDurabilityUnknown => assert!(world.replaced, "{context}"),
                    Outcome::Unknown => panic!("the engine was not lost: {context}"),
                    Outcome::DurableNotVisible => panic!("there is no log: {context}"),
                }
            }
        }
    });
}

#[test]
fn the_step_that_failed_is_named() {
    enumerate(|shape, kernel, progress, end| {
        let Some(failed) = kernel.failed else { return };
        let expected = match failed {
            // Nothing to keep is no failure, nor is a directory that cannot prove anything, nor a
            // filesystem that has no room for the probe.
            Op::Close => None,
            Op::Verify if Liveness::of(Err(kernel.errno)) != Liveness::Dead => None,
            Op::Open => Some(Step::Open),
            Op::Write { .. } => Some(Step::Write),
            Op::Sync => Some(Step::Sync),
            Op::LinkPrevious => Some(Step::LinkPrevious),
            Op::RenamePrevious => Some(Step::RenamePrevious),
            Op::SyncDirectory if kernel.world.replaced => Some(Step::SyncDirectory),
            Op::SyncDirectory => Some(Step::SyncPrevious),
            Op::Rename => Some(Step::Rename),
            Op::Verify => Some(Step::Verify),
        };
        assert_eq!(progress.failed(), expected, "{shape:?} {:?} {end:?}", kernel.errno);
    });
}

#[test]
fn what_is_left_behind_is_known() {
    enumerate(|shape, kernel, progress, end| {
        let world = &kernel.world;
        let left = progress.leftovers();
        let at_open = kernel.failed == Some(Op::Open);
        let known = left.temp == world.temp.is_some() || at_open;
        assert!(known, "{shape:?} {:?} {end:?}", kernel.failed);
        assert!(left.link || !world.link, "{shape:?} {:?} {end:?}", kernel.failed);
    });
}

#[test]
fn the_old_version_is_safe_under_its_second_name_before_the_target_changes() {
    enumerate(|shape, kernel, _, _| {
        let world = &kernel.world;
        if shape.keep_previous && world.old_stands && world.replaced {
            assert!(world.previous_is_old);
            assert!(world.previous_is_durable || !shape.durable);
        }
    });
}

/// Plain calls take the same steps, one at a time: whatever fails, nothing after it is asked for.
#[test]
fn one_step_at_a_time() {
    for attributes in [false, true] {
        for shape in shapes().map(|shape| Shape { attributes, ..shape }) {
            let steps: Vec<Step> = Progress::new(shape).remaining().collect();
            for (fail_at, failing) in steps.iter().enumerate() {
                let mut progress = Progress::new(shape);
                for step in &steps[..fail_at] {
                    assert_eq!(progress.next(), Some(*step));
                    progress.record(*step, Ok(()));
                }
                progress.record(*failing, Err(Errno::IO));
                assert_eq!(progress.next(), None, "{shape:?} {failing}");
                assert_eq!(progress.failed(), Some(*failing));
                let replaced = *failing > Step::Rename;
                let expected = match replaced {
                    true => Outcome::ReplacedDurabilityUnknown,
                    false => Outcome::Unchanged,
                };
                assert_eq!(progress.outcome(), expected, "{shape:?} {failing}");
            }
        }
    }
}

#[test]
fn the_usual_save_is_one_chain() {
    let shape = Shape { durable: true, attributes: false, keep_previous: false, write_syncs: true };
    let write = Op::Write { offset: 0, len: 5, sync: true };
    let usual = [Op::Open, write, Op::Rename, Op::SyncDirectory, Op::Verify, Op::Close];
    let chain = |payload_len| next_chain(&Progress::new(shape), payload_len, false, |_| true);
    assert_eq!(chain(5), usual);
    // An empty file's sync is a plain fsync, and nothing that matters may be linked behind one.
    let empty = Op::Write { offset: 0, len: 0, sync: false };
    assert_eq!(chain(0), [Op::Open, empty, Op::Sync]);
}

/// In a cycle a save gives its slot back before each step that is shared.
#[test]
fn a_save_of_a_cycle_is_cut_where_it_shares() {
    let shape = Shape { durable: true, attributes: false, keep_previous: false, write_syncs: true };
    let wave = |barrier: Barrier, done: &[Step]| {
        let mut progress = Progress::new(shape);
        done.iter().for_each(|step| progress.record(*step, Ok(())));
        next_chain(&progress, 5, false, |step| !barrier.shares(step))
    };
    let write = |sync| Op::Write { offset: 0, len: 5, sync };
    let (by_file, by_filesystem) = (Barrier::File, Barrier::Filesystem);
    assert_eq!(wave(by_file, &[]), [Op::Open, write(true), Op::Rename, Op::Close]);
    assert_eq!(wave(by_filesystem, &[]), [Op::Open, write(false), Op::Close]);
    let synced = [Step::Open, Step::Write, Step::Sync];
    assert_eq!(wave(by_filesystem, &synced), [Op::Rename]);
}

#[test]
fn a_chain_that_no_worker_takes_is_told_apart() {
    let shape = Shape { durable: true, attributes: false, keep_previous: false, write_syncs: true };
    let mut progress = Progress::new(shape);
    let chain = next_chain(&progress, 5, false, |_| true);
    let canceled = vec![-Errno::CANCELED.raw_os_error(); chain.len()];
    assert_eq!(record_chain(&mut progress, 5, &chain, &canceled), ChainEnd::NotStarted);
    assert_eq!(progress.next(), Some(Step::Open));
}

/// Memory that a sync lacked says nothing of what it has done, and it is not done twice.
#[test]
fn a_sync_or_a_rename_without_memory_has_failed() {
    let shape = Shape { durable: true, attributes: false, keep_previous: false, write_syncs: true };
    let done = [Step::Open, Step::Write, Step::Sync, Step::Rename];
    for (done, step) in [(&done[..3], Step::Rename), (&done[..], Step::SyncDirectory)] {
        for errno in [Errno::NOMEM, Errno::AGAIN] {
            let mut progress = Progress::new(shape);
            done.iter().for_each(|step| progress.record(*step, Ok(())));
            let chain = next_chain(&progress, 5, false, |next| next == step);
            let results = [-errno.raw_os_error()];
            assert_eq!(record_chain(&mut progress, 5, &chain, &results), ChainEnd::Recorded);
            assert_eq!(progress.failed(), Some(step));
        }
    }
    let mut progress = Progress::new(shape);
    let chain = next_chain(&progress, 5, false, |_| true);
    let results = vec![-Errno::NOMEM.raw_os_error(); chain.len()];
    assert_eq!(record_chain(&mut progress, 5, &chain, &results), ChainEnd::NotStarted);
    assert!(progress.leftovers().temp, "the file can have been made all the same");
}

#[test]
fn a_short_write_is_no_success() {
    let shape = Shape { durable: true, attributes: false, keep_previous: false, write_syncs: true };
    let mut progress = Progress::new(shape);
    let chain = next_chain(&progress, 5, false, |_| true);
    let canceled = -Errno::CANCELED.raw_os_error();
    let results = [0, 4, canceled, canceled, canceled, canceled];
    assert_eq!(record_chain(&mut progress, 5, &chain, &results), ChainEnd::ShortWrite);
    assert!(progress.leftovers().temp);
}

#[test]
fn a_rename_that_failed_doubtfully_is_unknown_unless_the_temp_was_there() {
    let shape = Shape { durable: true, attributes: false, keep_previous: false, write_syncs: true };
    for (errno, expected) in [(Errno::IO, Outcome::Unknown), (Errno::NOENT, Outcome::Unchanged)] {
        let mut progress = Progress::new(shape);
        for step in [Step::Open, Step::Write, Step::Sync] {
            progress.record(step, Ok(()));
        }
        progress.record(Step::Rename, Err(errno));
        progress.temp_is_gone(true);
        assert_eq!(progress.outcome(), Outcome::Unchanged);
        progress.temp_is_gone(false);
        assert_eq!(progress.outcome(), expected);
    }
}

#[test]
fn liveness_is_read_from_the_probe() {
    let alive = [Ok(()), Err(Errno::NOSPC), Err(Errno::DQUOT)];
    let dead = [Errno::ROFS, Errno::IO, Errno::SHUTDOWN, Errno::UCLEAN];
    let silent = [
        Errno::ACCESS,
        Errno::PERM,
        Errno::NOENT,
        Errno::OPNOTSUPP,
        Errno::ISDIR,
        Errno::MFILE,
        Errno::NOMEM,
    ];
    assert!(alive.into_iter().all(|answer| Liveness::of(answer) == Liveness::Alive));
    assert!(dead.into_iter().all(|errno| Liveness::of(Err(errno)) == Liveness::Dead));
    assert!(silent.into_iter().all(|errno| Liveness::of(Err(errno)) == Liveness::Unprovable));
}

/// What the models do not know: the probe, and a sync that lies the second time.
#[test]
fn the_probe_and_the_second_sync_are_left_out_and_in() {
    let shape = Shape { durable: true, attributes: false, keep_previous: false, write_syncs: true };
    let written = |results: &[i32]| {
        let mut progress = Progress::new(shape);
        let chain = next_chain(&progress, 5, false, |_| true);
        record_chain(&mut progress, 5, &chain, results);
        progress
    };
    let (failed, canceled) = (-Errno::IO.raw_os_error(), -Errno::CANCELED.raw_os_error());
    let results = [0, failed, canceled, canceled, canceled, canceled];
    assert_eq!(written(&results).failed(), Some(Step::Write));
    assert!(Progress::new(shape).remaining().any(|step| step == Step::Verify));

    let _without = without(Rule::RetryFsync);
    let mut progress = written(&results);
    assert_eq!(next_chain(&progress, 5, true, |_| true), [Op::Sync]);
    progress.record(Step::Sync, Err(Errno::IO));
    assert_eq!(progress.failed(), Some(Step::Sync), "once more, and not for ever");

    let _without = without(Rule::Liveness);
    assert!(Progress::new(shape).remaining().all(|step| step != Step::Verify));
}
