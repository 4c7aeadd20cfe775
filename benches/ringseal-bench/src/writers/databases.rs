//! What a daemon might pick instead of files: databases.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use redb::{Database, TableDefinition};
use rusqlite::Connection;

use super::store::states;
use super::{Entry, Writer};
use crate::cell::{Cell, parent};

pub(super) fn entries() -> Vec<Entry> {
    vec![
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
            || Ok(Box::new(Sqlite { open: None, version: 0 })),
        ),
    ]
}

pub(crate) const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("states");

struct Redb(Option<Database>);

/// Beside the log of the floor.
fn database(cell: &Cell, name: &str) -> Result<PathBuf> {
    ensure!(cell.has_directories(), "a state is known by its directory");
    Ok(parent(&cell.log).join(name))
}

impl Writer for Redb {
    fn prepare(&mut self, cell: &Cell) -> Result<()> {
        self.0 = None;
        self.0 = Some(Database::create(database(cell, "states.redb")?).context("open redb")?);
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

struct Sqlite {
    open: Option<Connection>,
    /// SQLite does not write a row that stays as it is: each time it has another version.
    version: u64,
}

impl Writer for Sqlite {
    fn prepare(&mut self, cell: &Cell) -> Result<()> {
        self.open = None;
        self.open = Some(open_sqlite(&database(cell, "states.sqlite")?)?);
        Ok(())
    }

    fn save(&mut self, cell: &Cell) -> Result<()> {
        self.version += 1;
        let connection = self.open.as_mut().context("it is not open")?;
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for (id, bytes) in states(cell) {
                let mut state = bytes.to_vec();
                let version = self.version.to_le_bytes();
                let len = version.len().min(state.len());
                state[..len].copy_from_slice(&version[..len]);
                insert.execute((id, state))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn replaces(&self) -> bool {
        false
    }
}

pub(crate) const INSERT: &str = "INSERT OR REPLACE INTO states VALUES (?1, ?2)";

pub(crate) fn open_sqlite(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).context("open SQLite")?;
    connection.busy_timeout(std::time::Duration::from_secs(60))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS states (id TEXT PRIMARY KEY, state BLOB) WITHOUT ROWID;",
    )?;
    Ok(connection)
}
