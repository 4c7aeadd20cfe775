//! Carries a load out: what the child process does. It tells each call before it, and its answer after it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;
use std::time::Duration;

use anyhow::{Context, Result};
use ringseal::{
    Carrier, Committed, Durability, Engine, Error, Level, Options, Outcome, Publish, Receipt,
    Request, Root, Route, StateStore, StoreOptions, Target, Writer,
};

use super::content::STORE_MODE;
use super::note::{Asked, Change, How, Kind, Note, previous};
use super::script::{Script, Step, Way};
use super::{Door, Load, OTHER, ROOT};
use crate::condition::{Call, Condition, Held};

/// How the load's store is opened, by whoever opens it.
pub(crate) fn store_options() -> StoreOptions {
    // As small and as quick as can be, so that segments change while the disk is recorded.
    StoreOptions::new()
        .other_name(OTHER)
        .mode(STORE_MODE)
        .segment_bytes(64 << 10, 256 << 10)
        .spread_after(Duration::from_millis(15))
}

/// Makes what the load finds when it begins, by hand, and durably.
pub(crate) fn prepare(load: &Load, directory: &Path) -> Result<()> {
    let script = Script::of(load);
    for name in &script.directories {
        let path = directory.join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    for change in script.first.iter().filter(|change| !change.path.ends_with('/')) {
        let Some(version) = change.to else { continue };
        let path = directory.join(&change.path);
        fs::write(&path, version.content(&change.path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(version.mode(&change.path)))?;
    }
    rustix::fs::syncfs(File::open(directory)?)?;
    Ok(())
}

/// Takes a condition upon this process, and what the load's door is without.
pub(crate) fn enter(load: &Load, directory: &Path, condition: &Condition) -> Result<Held> {
    if matches!(load.door, Door::ThreadsByFile | Door::RingByFile) {
        Condition::Deny { call: Call::Syncfs, errno: libc::EPERM }.enter(directory)?;
    }
    condition.enter(directory)
}

/// Carries a load out in a directory, and tells it.
pub(crate) fn run(load: &Load, directory: &Path, teller: Teller) -> Result<()> {
    let script = Script::of(load);
    let doer = Doer::new(load, directory, teller)?;
    std::thread::scope(|scope| {
        for (thread, steps) in script.threads.iter().enumerate() {
            let doer = &doer;
            let work = move || steps.iter().for_each(|step| doer.carry_out(thread, step));
            // Where there can be no more threads, one after the other.
            if Builder::new().spawn_scoped(scope, work).is_err() {
                work();
            }
        }
    });
    doer.end();
    Ok(())
}

/// Writes notes to where they are kept in order with the disk's requests.
#[derive(Debug)]
pub(crate) struct Teller {
    notes: File,
}

impl Teller {
    pub(crate) fn open(notes: &Path) -> Result<Teller> {
        Ok(Teller { notes: OpenOptions::new().write(true).open(notes)? })
    }

    fn tell(&self, note: &Note) {
        // Whoever is killed here has said nothing.
        let _ = (&self.notes).write_all(note.line().as_bytes());
    }
}

struct Doer {
    directory: PathBuf,
    teller: Teller,
    door: Door,
    writer: Option<Writer>,
    by_ring: AtomicU64,
    store: Mutex<Instance>,
}

/// A store, and the how-manieth it is.
#[derive(Clone)]
struct Instance {
    store: Option<StateStore>,
    number: u32,
}

impl Doer {
    fn new(load: &Load, directory: &Path, teller: Teller) -> Result<Doer> {
        let engine = match load.door {
            Door::Threads | Door::ThreadsByFile => Some(Engine::Threads),
            Door::Ring | Door::RingByFile => Some(Engine::Uring),
            Door::Plain | Door::Store | Door::StoreBehind => None,
        };
        // Where there is no ring, by whatever there is; `cuts` tells that. Without any writer nothing is asked for,
        // and that is told too.
        let build = |engine| Writer::builder().engine(engine).build();
        let writer = engine.and_then(|engine| build(engine).or_else(|_| build(Engine::Auto)).ok());
        let doer = Doer {
            directory: directory.to_owned(),
            teller,
            door: load.door,
            writer,
            by_ring: AtomicU64::new(0),
            store: Mutex::new(Instance { store: None, number: 0 }),
        };
        if load.shape.is_store() {
            doer.open_store();
        }
        Ok(doer)
    }

    fn carry_out(&self, thread: usize, step: &Step) {
        let asked = &step.asked;
        if step.way == Way::Reopen {
            self.close_store();
            self.open_store();
            return;
        }
        self.teller.tell(&Note::Asked(asked.clone()));
        let how = match step.way {
            Way::Files if self.door == Door::Plain => self.by_plain_functions(asked),
            Way::Files => self.by_writer(asked),
            Way::Beneath => self.beneath(thread, asked),
            Way::Store | Way::Direct | Way::Pid => self.by_store(step),
            Way::Reopen => unreachable!("it is done above"),
        };
        self.teller.tell(&Note::Answered { operation: asked.operation, how });
    }

    fn by_plain_functions(&self, asked: &Asked) -> Vec<How> {
        let save = |change: &Change| {
            let version = change.to.unwrap_or_else(|| unreachable!("no plain function removes"));
            let path = self.directory.join(&change.path);
            let saved = options(asked, change).replace(&path, version.content(&change.path));
            self.saved(saved)
        };
        asked.changes.iter().map(save).collect()
    }

    fn by_writer(&self, asked: &Asked) -> Vec<How> {
        let Some(writer) = &self.writer else {
            return vec![How::NotAsked; asked.changes.len()];
        };
        let requests: Vec<Request> =
            asked.changes.iter().map(|change| self.request(asked, change)).collect();
        let answers = match requests.len() {
            // Both ways in: on this thread if nobody else saves, and through the engine.
            1 if asked.operation % 2 == 0 => {
                requests.into_iter().map(|request| writer.submit_blocking(request)).collect()
            }
            1 => {
                let saves = requests.into_iter().map(|request| writer.submit(request));
                saves.map(pollster::block_on).collect()
            }
            _ => writer.replace_all_blocking(requests),
        };
        answers.into_iter().map(|answer| self.saved(answer)).collect()
    }

    fn request(&self, asked: &Asked, change: &Change) -> Request {
        let content = change.to.map(|version| version.content(&change.path)).unwrap_or_default();
        let target = Target::from(&self.directory.join(&change.path));
        Request::new(target, content).with(options(asked, change))
    }

    /// Below a root that is made, and whatever is missing above it.
    fn beneath(&self, thread: usize, asked: &Asked) -> Vec<How> {
        let made = self.directory.join(format!("made{thread}/deep"));
        let root = match Root::create(&made, 0o700) {
            Ok(root) => root,
            Err(error) => return vec![failed(&error)],
        };
        let change = &asked.changes[0];
        let content = change.to.map(|version| version.content(&change.path)).unwrap_or_default();
        let target = Target::beneath(&root, "state.json");
        let saved = match &self.writer {
            Some(writer) => {
                let request = Request::new(target, content).with(options(asked, change));
                writer.submit_blocking(request)
            }
            None if self.door == Door::Plain => options(asked, change).replace(target, content),
            None => return vec![How::NotAsked],
        };
        vec![self.saved(saved)]
    }

    fn saved(&self, answer: ringseal::Result<Receipt>) -> How {
        let receipt = match answer {
            Ok(receipt) => receipt,
            Err(error) => return failed(&error),
        };
        if receipt.carrier == Carrier::Ring {
            self.by_ring.fetch_add(1, Ordering::Relaxed);
        }
        went_well(&receipt)
    }

    fn by_store(&self, step: &Step) -> Vec<How> {
        let changes = &step.asked.changes;
        let instance = self.instance();
        let Some(store) = instance.store else {
            return vec![How::NotAsked; changes.len()];
        };
        let id_of = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
        if step.way == Way::Pid {
            let written = store.write_pid_blocking(&id_of(&changes[0].path), std::process::id());
            let how = written.map_or_else(|error| failed(&error), |_| How::Visible);
            return vec![how; changes.len()];
        }
        let mut transaction = store.transaction();
        for change in changes {
            let id = id_of(&change.path);
            let name = change.path.rsplit('/').next().unwrap_or_default();
            transaction = match change.to {
                Some(_) if name.is_empty() => transaction,
                Some(version) => transaction.save_file(&id, name, version.content(&change.path)),
                None if name.is_empty() => transaction.remove(&id),
                None => transaction,
            };
        }
        if step.way == Way::Direct {
            transaction = transaction.route(Route::Direct);
        }
        // Both ways in, as for a writer.
        let committed = match step.asked.operation % 2 {
            0 => transaction.commit_blocking(),
            _ => pollster::block_on(transaction.commit()),
        };
        match committed {
            Ok(committed) => {
                let how = |path: &str| self.committed(&committed, instance.number, path);
                changes.iter().map(|change| how(&change.path)).collect()
            }
            Err(error) => vec![failed(&error); changes.len()],
        }
    }

    /// What a store's answer says of a path.
    fn committed(&self, committed: &Committed, instance: u32, path: &str) -> How {
        // A directory that holds what is not the store's stays.
        let is_left = committed.left.iter().any(|left| self.directory.join(path) == left.join(""));
        match (committed.durability, committed.coalesced_into) {
            _ if is_left => How::Unknown,
            (Durability::Atomic | Durability::Volatile, _) => How::Visible,
            (_, Some(newer)) => How::Overtaken { order: (instance, newer) },
            (_, None) => How::Durable { order: (instance, committed.sequence) },
        }
    }

    fn instance(&self) -> Instance {
        self.store.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn open_store(&self) {
        let mut instance = self.store.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        instance.number += 1;
        let publish = match self.door {
            Door::StoreBehind => Publish::Behind,
            _ => Publish::BeforeAnswer,
        };
        let options = store_options().publish(publish);
        instance.store = options.open_blocking(self.directory.join(ROOT)).ok();
    }

    fn close_store(&self) {
        let mut instance = self.store.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(store) = instance.store.take() {
            // What it could not make durable, the next opening does.
            let _ = store.close_blocking();
        }
    }

    fn end(&self) {
        if let Some(writer) = &self.writer {
            writer.close_blocking();
        }
        self.close_store();
        self.teller.tell(&Note::Ended { by_ring: self.by_ring.load(Ordering::Relaxed) });
    }
}

fn options(asked: &Asked, change: &Change) -> Options {
    let path = &change.path;
    let mode = change.to.map_or(0o600, |version| version.mode(path));
    let options = Options::new().mode(mode);
    match asked.kind {
        Kind::Plain => options,
        Kind::Atomic => options.level(Level::Atomic),
        Kind::CreateNew => options.create_new(),
        Kind::KeepPrevious => {
            let name = previous(path);
            options.keep_previous(name.rsplit('/').next().unwrap_or_default())
        }
    }
}

fn went_well(receipt: &Receipt) -> How {
    match (receipt.durability, receipt.coalesced_into) {
        (Durability::Atomic | Durability::Volatile, _) => How::Visible,
        (_, Some(newer)) => How::Overtaken { order: (1, newer) },
        (_, None) => How::Durable { order: (1, receipt.sequence) },
    }
}

fn failed(error: &Error) -> How {
    match error.outcome() {
        Outcome::Unchanged => How::Unchanged,
        Outcome::DurableNotVisible => How::Durable { order: (0, 0) },
        _ => How::Unknown,
    }
}
