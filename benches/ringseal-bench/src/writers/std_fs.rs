//! The standard library: one file after the other, and on threads.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use super::{Entry, Writer, temp_beside};
use crate::cell::{Cell, parent};

pub(super) fn entries() -> Vec<Entry> {
    let on = |threads| move || Ok(Box::new(Threads { threads }) as Box<dyn Writer>);
    vec![
        Entry::plain(
            "std_loop",
            "calls",
            "std::fs, one file after the other: create, write, sync, rename, sync the directory",
            |cell| cell.pairs().try_for_each(|(target, bytes)| replace(target, bytes)),
        ),
        Entry::new("std_threads_8", "threads", "the same on 8 threads", on(8)),
        Entry::new("std_threads_64", "threads", "the same on 64 threads", on(64)),
        Entry::new(
            "std_threads_best",
            "threads",
            "the same on the fastest of 4, 8, 16, 32, 64 and 128 threads, tried before each cell",
            || Ok(Box::new(Best(Threads { threads: 1 }))),
        ),
    ]
}

/// The five steps.
pub(crate) fn replace(target: &Path, bytes: &[u8]) -> Result<()> {
    let temp = temp_beside(target);
    let mut file = File::create_new(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, target)?;
    File::open(parent(target))?.sync_all()?;
    Ok(())
}

/// Threads that are started for the cell, and take one file after the other.
#[derive(Debug)]
struct Threads {
    threads: usize,
}

impl Writer for Threads {
    fn save(&mut self, cell: &Cell) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(target) = cell.targets.get(index) else {
                    return Ok(());
                };
                replace(target, &cell.payloads[index])?;
            }
        };
        thread::scope(|scope| {
            let count = self.threads.min(cell.files());
            let threads: Vec<_> = (0..count)
                .map(|_| thread::Builder::new().spawn_scoped(scope, work))
                .collect::<Result<_, _>>()
                .context("start a thread")?;
            threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
        })
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

#[derive(Debug)]
struct Best(Threads);

impl Writer for Best {
    fn prepare(&mut self, cell: &Cell) -> Result<()> {
        const NUMBERS: [usize; 6] = [4, 8, 16, 32, 64, 128];
        // More threads than files are as many as files.
        let enough = NUMBERS.iter().position(|&threads| threads >= cell.files());
        let numbers = &NUMBERS[..enough.map_or(NUMBERS.len(), |last| last + 1)];
        let tries = if cell.files() < 1000 { 2 } else { 1 };
        let mut fastest = None;
        for &threads in numbers {
            for _ in 0..tries {
                cell.settle()?;
                let start = Instant::now();
                Threads { threads }.save(cell)?;
                let time = start.elapsed();
                if fastest.is_none_or(|(least, _)| time < least) {
                    fastest = Some((time, threads));
                }
            }
        }
        self.0.threads = fastest.map_or(1, |(_, threads)| threads).min(cell.files());
        Ok(())
    }

    fn save(&mut self, cell: &Cell) -> Result<()> {
        self.0.save(cell)
    }

    fn threads(&self) -> Option<usize> {
        self.0.threads()
    }
}
