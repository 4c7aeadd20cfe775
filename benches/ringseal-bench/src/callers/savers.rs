//! What the callers save with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use redb::Database;
use ringseal::{Publish, StateStore, StoreOptions, Writer};
use rusqlite::Connection;

use crate::options::Calling;
use crate::writers::databases::{INSERT, TABLE, open_sqlite};
use crate::writers::std_fs;

/// Saves a state; many callers at once.
pub(super) trait Saver: Sync {
    fn save(&self, id: usize, state: &[u8]) -> Result<()>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    StdThreads,
    RingsealWriter,
    RingsealStore,
    RingsealStoreNoSlots,
    RingsealStoreBehind,
    Redb,
    RedbBatched,
    Sqlite,
}

impl Kind {
    pub(super) const ALL: [Kind; 8] = [
        Kind::StdThreads,
        Kind::RingsealWriter,
        Kind::RingsealStore,
        Kind::RingsealStoreNoSlots,
        Kind::RingsealStoreBehind,
        Kind::Redb,
        Kind::RedbBatched,
        Kind::Sqlite,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::StdThreads => "std_threads",
            Kind::RingsealWriter => "ringseal_writer",
            Kind::RingsealStore => "ringseal_store",
            Kind::RingsealStoreNoSlots => "ringseal_store_no_slots",
            Kind::RingsealStoreBehind => "ringseal_store_behind",
            Kind::Redb => "redb",
            Kind::RedbBatched => "redb_batched",
            Kind::Sqlite => "sqlite",
        }
    }

    pub(super) fn make(self, home: &Path, calling: &Calling) -> Result<Box<dyn Saver>> {
        let states = calling.states();
        let options = StoreOptions::new();
        let options = match calling.spread_after {
            Some(seconds) => options.spread_after(Duration::from_secs_f64(seconds)),
            None => options,
        };
        Ok(match self {
            Kind::StdThreads => Box::new(Files { targets: targets(home, states)?, writer: None }),
            Kind::RingsealWriter => {
                let writer = Some(Writer::new()?);
                Box::new(Files { targets: targets(home, states)?, writer })
            }
            Kind::RingsealStore => Box::new(Store::open(home, options)?),
            Kind::RingsealStoreNoSlots => Box::new(Store::open(home, options.slots(0))?),
            Kind::RingsealStoreBehind => {
                Box::new(Store::open(home, options.publish(Publish::Behind))?)
            }
            Kind::Redb => Box::new(Redb(Database::create(home.join("states.redb"))?)),
            Kind::RedbBatched => Box::new(Batched::new(&home.join("states.redb"))?),
            Kind::Sqlite => Box::new(Sqlite::new(&home.join("states.sqlite"), calling.callers)?),
        })
    }
}

/// A directory for each state.
fn targets(home: &Path, states: usize) -> Result<Vec<PathBuf>> {
    let target = |id| {
        let dir = home.join(format!("{id:05}"));
        fs::create_dir(&dir)?;
        Ok(dir.join("state.json"))
    };
    (0..states).map(target).collect()
}

struct Files {
    targets: Vec<PathBuf>,
    /// Without it by hand.
    writer: Option<Writer>,
}

impl Saver for Files {
    fn save(&self, id: usize, state: &[u8]) -> Result<()> {
        let target = &self.targets[id];
        match &self.writer {
            None => std_fs::replace(target, state),
            Some(writer) => {
                Ok(writer.replace_blocking(target.as_path(), state.to_vec()).map(drop)?)
            }
        }
    }
}

struct Store(StateStore);

impl Store {
    fn open(home: &Path, options: StoreOptions) -> Result<Store> {
        Ok(Store(options.open_blocking(home.join("root")).context("open")?))
    }
}

impl Saver for Store {
    fn save(&self, id: usize, state: &[u8]) -> Result<()> {
        self.0.save_bytes_blocking(&format!("{id:05}"), state.to_vec())?;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.0.close_blocking();
    }
}

/// A transaction for each save.
struct Redb(Database);

impl Saver for Redb {
    fn save(&self, id: usize, state: &[u8]) -> Result<()> {
        insert(&self.0, [(format!("{id:05}"), state)])
    }
}

fn insert<'a>(
    database: &Database,
    states: impl IntoIterator<Item = (String, &'a [u8])>,
) -> Result<()> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for (id, state) in states {
            table.insert(id.as_str(), state)?;
        }
    }
    Ok(transaction.commit()?)
}

type Request = (usize, Vec<u8>, Sender<bool>);

/// A thread that takes all that wait into one transaction, as whoever knows redb would do it.
struct Batched {
    requests: Mutex<Option<Sender<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl Batched {
    fn new(path: &Path) -> Result<Batched> {
        let database = Database::create(path)?;
        let (requests, waiting) = channel();
        let thread = thread::spawn(move || commit_all(&database, &waiting));
        Ok(Batched { requests: Mutex::new(Some(requests)), thread: Some(thread) })
    }
}

fn commit_all(database: &Database, waiting: &Receiver<Request>) {
    while let Ok(first) = waiting.recv() {
        let mut batch = vec![first];
        batch.extend(waiting.try_iter());
        let states = batch.iter().map(|(id, state, _)| (format!("{id:05}"), state.as_slice()));
        let is_done = insert(database, states).is_ok();
        for (_, _, answer) in batch {
            let _ = answer.send(is_done);
        }
    }
}

impl Saver for Batched {
    fn save(&self, id: usize, state: &[u8]) -> Result<()> {
        let (answer, answered) = channel();
        let requests = self.requests.lock().expect("nobody panics").clone();
        requests.context("it is open")?.send((id, state.to_vec(), answer))?;
        if answered.recv()? { Ok(()) } else { Err(anyhow!("the transaction failed")) }
    }
}

impl Drop for Batched {
    fn drop(&mut self) {
        *self.requests.lock().expect("nobody panics") = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection for each caller, a transaction for each save.
struct Sqlite(Vec<Mutex<Connection>>);

impl Sqlite {
    fn new(path: &Path, callers: usize) -> Result<Sqlite> {
        let connection = |_| open_sqlite(path).map(Mutex::new);
        (0..callers).map(connection).collect::<Result<_>>().map(Sqlite)
    }
}

impl Saver for Sqlite {
    fn save(&self, id: usize, state: &[u8]) -> Result<()> {
        let connection = self.0[id % self.0.len()].lock().expect("nobody panics");
        connection.prepare_cached(INSERT)?.execute((format!("{id:05}"), state))?;
        Ok(())
    }
}
