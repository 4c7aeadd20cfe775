//! ringseal's store, and what a daemon might pick instead of files: databases.

use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use redb::{Database, TableDefinition};
use ringseal::StateStore;
use rusqlite::Connection;

use super::{Entry, Writer};
use crate::cell::{Cell, parent};

pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry::new(
            "ringseal_store",
            "calls",
            "ringseal `StateStore`, all files in one transaction, visible when it is answered",
            || Ok(Box::new(Store { save: transaction, open: None })),
        ),
        Entry::new(
            "ringseal_store_blocking",
            "calls",
            "ringseal `StateStore::save_bytes_blocking`, one file after the other",
            || Ok(Box::new(Store { save: one_by_one, open: None })),
        ),
        Entry::new(
            "ringseal_store_callers",
            "threads",
            "the same, each of 64 threads taking its share of the files",
            || Ok(Box::new(Store { save: on_threads, open: None })),
        ),
        Entry::new(
            "redb",
            "calls",
            "redb 3, all states in one transaction; there are no files",
            || Ok(Box::new(Redb(None))),
        ),
        Entry::new(
            "sqlite",
            "calls",
            "SQLite, WAL and synchronous=FULL, all states in one transaction; there are no files",
            || Ok(Box::new(Sqlite(None))),
        ),
    ]
}

type Save = fn(&StateStore, &Cell) -> Result<()>;

struct Store {
    save: Save,
    open: Option<StateStore>,
}

fn states(cell: &Cell) -> impl Iterator<Item = (&str, &bytes::Bytes)> {
    cell.pairs().map(|(target, bytes)| {
        let id = parent(target).file_name().and_then(|id| id.to_str()).unwrap_or_default();
        (id, bytes)
    })
}

fn transaction(store: &StateStore, cell: &Cell) -> Result<()> {
    store.save_all_blocking(states(cell).map(|(id, bytes)| (id, bytes.clone())))?;
    Ok(())
}

fn one_by_one(store: &StateStore, cell: &Cell) -> Result<()> {
    for (id, bytes) in states(cell) {
        store.save_bytes_blocking(id, bytes.clone())?;
    }
    Ok(())
}

fn on_threads(store: &StateStore, cell: &Cell) -> Result<()> {
    let states: Vec<_> = states(cell).collect();
    let share = states.len().div_ceil(64);
    thread::scope(|scope| {
        let save = |part: &[(&str, &bytes::Bytes)]| {
            part.iter().try_for_each(|(id, bytes)| {
                store.save_bytes_blocking(id, (*bytes).clone()).map(drop)
            })
        };
        let threads: Vec<_> =
            states.chunks(share).map(|part| scope.spawn(move || save(part))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    Ok(())
}

impl Writer for Store {
    fn prepare(&mut self, cell: &Cell) -> Result<()> {
        // The one of the cell before goes first: its root is gone.
        self.open = None;
        let root = parent(parent(&cell.targets[0]));
        self.open = Some(StateStore::open_blocking(root).context("open the store")?);
        Ok(())
    }

    fn save(&mut self, cell: &Cell) -> Result<()> {
        let store = self.open.as_ref().context("the store is not open")?;
        (self.save)(store, cell)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(store) = self.open.take() {
            let _ = store.close_blocking();
        }
    }
}

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("states");

struct Redb(Option<Database>);

/// Beside the log of the floor.
fn database(cell: &Cell, name: &str) -> PathBuf {
    parent(&cell.log).join(name)
}

impl Writer for Redb {
    fn prepare(&mut self, cell: &Cell) -> Result<()> {
        self.0 = None;
        self.0 = Some(Database::create(database(cell, "states.redb")).context("open redb")?);
        Ok(())
    }

    fn save(&mut self, cell: &Cell) -> Result<()> {
        let database = self.0.as_ref().context("it is not open")?;
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (id, bytes) in states(cell) {
                table.insert(id, bytes.as_ref())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn replaces(&self) -> bool {
        false
    }
}

struct Sqlite(Option<Connection>);

impl Writer for Sqlite {
    fn prepare(&mut self, cell: &Cell) -> Result<()> {
        self.0 = None;
        self.0 = Some(open_sqlite(&database(cell, "states.sqlite"))?);
        Ok(())
    }

    fn save(&mut self, cell: &Cell) -> Result<()> {
        let connection = self.0.as_mut().context("it is not open")?;
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for (id, bytes) in states(cell) {
                insert.execute((id, bytes.as_ref()))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn replaces(&self) -> bool {
        false
    }
}

pub(crate) const INSERT: &str = "INSERT OR REPLACE INTO states VALUES (?1, ?2)";

pub(crate) fn open_sqlite(path: &std::path::Path) -> Result<Connection> {
    let connection = Connection::open(path).context("open SQLite")?;
    connection.busy_timeout(std::time::Duration::from_secs(60))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS states (id TEXT PRIMARY KEY, state BLOB) WITHOUT ROWID;",
    )?;
    Ok(connection)
}
