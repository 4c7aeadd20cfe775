//! Saves of single files, by every door, to paths of every kind: what comes of them is what a model of the
//! directory says, and an error changes nothing.

mod cases;
mod model;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use ringseal::{
    Durability, Engine, Error, Level, Options, Outcome as Fate, Receipt, Request, Root, Target,
    Writer,
};

use super::rooms::{Outcome, check};
use super::tree::{self, Thing};
use cases::{Case, Door, How, Save, Step};
use model::{Expected, Model};

/// The writers of a process, which all its cases use.
struct Doors {
    threads: Writer,
    /// Where the kernel has one.
    ring: Option<Writer>,
}

pub(super) fn run(cases: u64, seed: u64, scratch: &Path) -> anyhow::Result<Outcome> {
    let doors = Doors {
        threads: Writer::builder().engine(Engine::Threads).build()?,
        ring: Writer::builder().engine(Engine::Uring).build().ok(),
    };
    let base = scratch.join("base");
    Ok(check(cases, seed, &cases::case(), |case| {
        tree::clear(&base)?;
        one(&doors, &base, &case)
    }))
}

fn one(doors: &Doors, base: &Path, case: &Case) -> anyhow::Result<()> {
    let mut model = Model::new(base);
    fs::create_dir(base)?;
    for (path, thing) in cases::standing(case.plants) {
        tree::put(&base.join(OsStr::from_bytes(path)), &thing)?;
        model.plant(path, &thing);
    }
    let root_path = base.join(cases::ROOT);
    let root = Root::open(&root_path)?;
    let directory = Arc::new(OwnedFd::from(File::open(&root_path)?));
    for (index, step) in case.steps.iter().enumerate() {
        let done = match step {
            Step::One(save) => {
                let expected = model.save(save);
                let target = target(save, &root, &directory);
                judge(save, &root_path, expected, go(doors, save, target))
                    .map(|()| expected.is_err())
            }
            Step::Together(door, saves) => {
                let request = |save: &Save| {
                    let target = target(save, &root, &directory);
                    Request::new(target, payload(save)).with(options(save))
                };
                let requests: Vec<Request> = saves.iter().map(request).collect();
                let answers = writer(doors, *door).replace_all_blocking(requests);
                let mut judged = saves.iter().zip(answers);
                judged
                    .try_for_each(|(save, answer)| judge_together(save, model.save(save), answer))
                    .map(|()| true)
            }
        };
        let is_error = done.with_context(|| format!("step {index}"))?;
        // What a save has made is still there at the end.
        if !is_error && index + 1 < case.steps.len() {
            continue;
        }
        if let Some(difference) = tree::difference(&tree::read(base)?, &model.tree()) {
            bail!("after step {index}: {difference}");
        }
    }
    Ok(())
}

fn target(save: &Save, root: &Root, directory: &Arc<OwnedFd>) -> Target {
    let path = OsStr::from_bytes(&save.path);
    match save.how {
        How::Path => {
            // Not by `join`, which takes an absolute one for itself.
            let mut whole = root.path().as_os_str().as_bytes().to_vec();
            whole.push(b'/');
            whole.extend_from_slice(&save.path);
            Target::from(PathBuf::from(OsStr::from_bytes(&whole)))
        }
        How::At => Target::at(Arc::clone(directory), path),
        How::Beneath => Target::beneath(root, path),
    }
}

fn options(save: &Save) -> Options {
    let mut options = Options::new();
    if let Some(mode) = save.mode {
        options = options.mode(mode);
    }
    if save.keep_mode {
        options = options.keep_mode();
    }
    if save.keep_owner {
        options = options.keep_owner();
    }
    if save.create_new {
        options = options.create_new();
    }
    if let Some(previous) = &save.previous {
        options = options.keep_previous(OsStr::from_bytes(previous));
    }
    if save.is_atomic {
        options = options.level(Level::Atomic);
    }
    options
}

fn payload(save: &Save) -> Vec<u8> {
    vec![save.fill; save.len]
}

fn writer(doors: &Doors, door: Door) -> &Writer {
    match (door, &doors.ring) {
        (Door::Ring, Some(ring)) => ring,
        _ => &doors.threads,
    }
}

/// Saves through the door that was asked for.
fn go(doors: &Doors, save: &Save, target: Target) -> Result<Receipt, Error> {
    let (options, payload) = (options(save), payload(save));
    match save.door {
        Door::Plain => options.replace(target, payload),
        Door::Stream => {
            let mut file = options.create(target)?;
            for piece in payload.chunks(100_000) {
                // A failure is the commit's.
                let _ = file.write_all(piece);
            }
            file.commit()
        }
        Door::Threads | Door::Ring => {
            let writer = writer(doors, save.door);
            pollster::block_on(writer.submit(Request::new(target, payload).with(options)))
        }
    }
}

fn judge(
    save: &Save,
    root: &Path,
    expected: Expected,
    answer: Result<Receipt, Error>,
) -> anyhow::Result<()> {
    if let Err(error) = &answer {
        let shown = match save.how {
            How::Path => {
                let mut whole = root.as_os_str().as_bytes().to_vec();
                whole.push(b'/');
                whole.extend_from_slice(&save.path);
                PathBuf::from(OsStr::from_bytes(&whole))
            }
            How::At => PathBuf::from(OsStr::from_bytes(&save.path)),
            How::Beneath => root.join(OsStr::from_bytes(&save.path)),
        };
        ensure!(error.target() == shown, "the error is of {:?}", error.target());
    }
    if let Ok(receipt) = &answer {
        ensure!(receipt.bytes == save.len as u64, "{receipt:?}");
        let is_numbered = receipt.sequence > 0;
        let has_number = matches!(save.door, Door::Threads | Door::Ring);
        ensure!(is_numbered == has_number, "{receipt:?}");
        ensure!(receipt.coalesced_into.is_none(), "{receipt:?}");
    }
    judge_together(save, expected, answer)
}

fn judge_together(
    save: &Save,
    expected: Expected,
    answer: Result<Receipt, Error>,
) -> anyhow::Result<()> {
    match (answer, expected) {
        (Ok(receipt), Ok(())) => {
            let durability = receipt.durability;
            let may_be = match save.is_atomic {
                true => matches!(durability, Durability::Atomic | Durability::Volatile),
                false => durability != Durability::Atomic,
            };
            ensure!(may_be, "{durability:?}");
            Ok(())
        }
        (Err(error), Err((step, errno))) => {
            ensure!(error.outcome() == Fate::Unchanged, "{error}");
            let found = (error.step(), error.raw_os_error());
            ensure!(found == (step, Some(errno)), "{error}, not {step} with errno {errno}");
            Ok(())
        }
        (Ok(_), Err((step, errno))) => bail!("it succeeded, and not {step} with errno {errno}"),
        (Err(error), Ok(())) => bail!("it failed: {error}"),
    }
}

/// What a plain file of a saved version looks like.
fn saved(save: &Save, mode: u32) -> Thing {
    Thing::File { mode, data: payload(save) }
}
