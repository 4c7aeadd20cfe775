//! ringseal: the plain function, and a writer on each engine in all its ways.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures::future::join_all;
use ringseal::{Engine, Request};

use super::{Entry, Writer};
use crate::cell::Cell;

const ENGINES: [(Engine, &str); 3] =
    [(Engine::Auto, "auto"), (Engine::Uring, "uring"), (Engine::Threads, "threads")];

/// A name, a line on it, and what it does.
type Way = (&'static str, &'static str, fn(&ringseal::Writer, &Cell) -> Result<()>);

const WAYS: [Way; 4] = [
    (
        "ringseal_replace_blocking",
        "ringseal `Writer::replace_blocking`, one file after the other",
        |writer, cell| {
            for (target, bytes) in cell.pairs() {
                writer.replace_blocking(target, bytes.clone())?;
            }
            Ok(())
        },
    ),
    (
        "ringseal_submit",
        "ringseal `Writer::replace`, each future awaited before the next is made",
        |writer, cell| {
            for (target, bytes) in cell.pairs() {
                pollster::block_on(writer.replace(target, bytes.clone()))?;
            }
            Ok(())
        },
    ),
    (
        "ringseal_submit_concurrent",
        "ringseal `Writer::replace`, a future for each file, all awaited together",
        |writer, cell| {
            let saves = cell.pairs().map(|(target, bytes)| writer.replace(target, bytes.clone()));
            all_saved(pollster::block_on(join_all(saves)))
        },
    ),
    (
        "ringseal_replace_all",
        "ringseal `Writer::replace_all_blocking`, all files in one call",
        |writer, cell| {
            let (targets, payloads) = (Arc::clone(&cell.targets), Arc::clone(&cell.payloads));
            let requests = (0..cell.files())
                .map(move |index| Request::new(targets[index].clone(), payloads[index].clone()));
            all_saved(writer.replace_all_blocking(requests))
        },
    ),
];

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = vec![Entry::plain(
        "ringseal_replace",
        "calls",
        "ringseal `replace`, the plain function, one file after the other",
        |cell| {
            for (target, bytes) in cell.pairs() {
                ringseal::replace(target, bytes)?;
            }
            Ok(())
        },
    )];
    for (name, about, save) in WAYS {
        for (engine, engine_name) in ENGINES {
            entries.push(Entry::new(name, engine_name, about, move || {
                let writer = ringseal::Writer::builder().engine(engine).build();
                Ok(Box::new(Ringseal { writer: writer.context("start a writer")?, save }))
            }));
        }
    }
    entries
}

fn all_saved(answers: Vec<ringseal::Result<ringseal::Receipt>>) -> Result<()> {
    answers.into_iter().try_for_each(|answer| Ok(answer.map(drop)?))
}

struct Ringseal {
    writer: ringseal::Writer,
    save: fn(&ringseal::Writer, &Cell) -> Result<()>,
}

impl Writer for Ringseal {
    fn save(&mut self, cell: &Cell) -> Result<()> {
        (self.save)(&self.writer, cell)
    }

    fn note(&self) -> Option<String> {
        Some(format!("ringseal engine: {}", self.writer.engine()))
    }
}

impl Drop for Ringseal {
    fn drop(&mut self) {
        self.writer.close_blocking();
    }
}
