//! The floor: the same bytes, durable, with as few flushes as an order of two things needs.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};

use anyhow::{Context, Result};

use super::{Entry, Writer};
use crate::cell::Cell;

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry::new(
        "floor",
        "calls",
        "no replace at all: the same bytes appended to one file, sync, a mark of 8 bytes, sync",
        || Ok(Box::new(Floor)),
    )]
}

#[derive(Debug)]
struct Floor;

impl Writer for Floor {
    fn before(&mut self, cell: &Cell) -> Result<()> {
        File::create(&cell.log).context("empty the log").map(drop)
    }

    fn save(&mut self, cell: &Cell) -> Result<()> {
        let log = OpenOptions::new().append(true).open(&cell.log)?;
        let mut buffered = BufWriter::with_capacity(256 << 10, &log);
        cell.payloads.iter().try_for_each(|bytes| buffered.write_all(bytes))?;
        buffered.flush()?;
        log.sync_all()?;
        (&log).write_all(b"the end\n")?;
        log.sync_all()?;
        Ok(())
    }

    fn replaces(&self) -> bool {
        false
    }
}
