//! The rounds of a cell: each runs every writer once, in another order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use indicatif::ProgressBar;

use crate::cell::{Cell, inodes};
use crate::device::{Counters, Device};
use crate::json::Row;
use crate::measure::{Sample, measure};
use crate::statistics::{Spread, median};
use crate::stop::Stop;
use crate::writers::{Entry, Writer};

/// A writer with what was measured of it in this cell.
pub(crate) struct Contender<'a> {
    pub entry: &'a Entry,
    /// Why it takes no further part in this cell.
    pub failure: Option<String>,
    writer: Box<dyn Writer>,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub rounds: usize,
    /// After this no new round begins.
    pub time: Duration,
}

pub(crate) fn measure_all(
    contenders: &mut [Contender<'_>],
    cell: &Cell,
    device: Option<&Device>,
    limits: Limits,
    stop: &Stop,
    bar: &ProgressBar,
) {
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(cell.files() as u64);
    for contender in &mut *contenders {
        contender.samples.clear();
        contender.failure = None;
        if !stop.is_asked() {
            contender.attempt(|writer| writer.prepare(cell).map(|()| None));
        }
    }
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    for round in 0..limits.rounds {
        if start.elapsed() > limits.time && round > 0 {
            bar.inc(((limits.rounds - round) * contenders.len()) as u64);
            break;
        }
        random.shuffle(&mut order);
        for &index in &order {
            if stop.is_asked() {
                return;
            }
            let contender = &mut contenders[index];
            if contender.failure.is_none() {
                contender.attempt(|writer| checked(writer, cell, device).map(Some));
            }
            bar.inc(1);
        }
    }
}

/// A measurement that counts only if every file was replaced, and nothing left behind.
fn checked(writer: &mut dyn Writer, cell: &Cell, device: Option<&Device>) -> Result<Sample> {
    writer.before(cell)?;
    let targets = Arc::clone(writer.targets(cell));
    let before = inodes(&targets)?;
    let sample = measure(writer, cell, device);
    let is_over = if sample.is_ok() && writer.replaces() { writer.after() } else { Ok(()) };
    cell.check(&targets)?;
    let sample = sample?;
    is_over?;
    let kept = before.iter().zip(inodes(&targets)?).filter(|(before, after)| **before == *after);
    let kept = kept.count();
    ensure!(kept == 0 || !writer.replaces(), "{kept} files were not replaced");
    Ok(sample)
}

impl<'a> Contender<'a> {
    pub(crate) fn new(entry: &'a Entry, writer: Box<dyn Writer>) -> Contender<'a> {
        Contender { entry, failure: None, writer, samples: Vec::new() }
    }

    /// A failure ends this writer's part in the cell, and nobody else's.
    fn attempt(&mut self, step: impl FnOnce(&mut dyn Writer) -> Result<Option<Sample>>) {
        match step(&mut *self.writer) {
            Ok(sample) => self.samples.extend(sample),
            Err(error) => self.failure = Some(format!("{error:#}")),
        }
    }

    /// The figures of a row, if anything was measured; what they are of is for the caller to say.
    pub(crate) fn figures(&self, files: usize) -> Option<Row> {
        let saves = files * self.writer.saves();
        let per_file = |value: f64| value / saves as f64;
        let of = |value: fn(&Sample) -> f64| median(self.samples.iter().map(value));
        let times: Vec<f64> =
            self.samples.iter().map(|sample| per_file(sample.time.as_secs_f64() * 1e6)).collect();
        let device = |value: fn(&Counters) -> u64| {
            let counted = self.samples.iter().filter_map(|sample| sample.device.as_ref());
            median(counted.map(|counters| value(counters) as f64))
        };
        let flushes = device(|counters| counters.flushes);
        Some(Row {
            writer: self.entry.name.to_owned(),
            engine: self.entry.engine.to_owned(),
            dir: String::new(),
            filesystem: String::new(),
            files,
            size: 0,
            payload_bytes: 0,
            rounds: self.samples.len(),
            threads: self.writer.threads(),
            us_per_file: Spread::of(&times)?,
            cpu_us_per_file: per_file(of(|sample| sample.cpu.as_secs_f64() * 1e6)?),
            heap_bytes_per_file: per_file(of(|sample| sample.heap as f64)?),
            device_writes: device(|counters| counters.writes),
            device_bytes: device(|counters| counters.bytes),
            device_flushes: flushes,
            device_flushes_per_file: flushes.map(per_file),
            ratio_to_std_loop: None,
            note: self.writer.note(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    fn cell(dir: &std::path::Path, layout: &str) -> Cell {
        let args = ["ringseal-bench", "run", "--dir", "unused", "--layout", layout];
        match Options::parse_from(args).command {
            Command::Run { measuring, .. } => Cell::make(dir, 2, &measuring).expect("a cell"),
            other => panic!("parsed as {other:?}"),
        }
    }

    fn failure(cell: &Cell, save: fn(&Cell) -> Result<()>) -> Option<String> {
        let entry = Entry::plain("tried", "calls", "a writer to try", save);
        let mut contenders = [Contender::new(&entry, entry.make().expect("it needs nothing"))];
        let limits = Limits { rounds: 2, time: Duration::MAX };
        let bar = ProgressBar::hidden();
        measure_all(&mut contenders, cell, None, limits, &Stop::default(), &bar);
        let [contender] = contenders;
        let measured = contender.figures(2).map_or(0, |row| row.rounds);
        assert_eq!(measured, if contender.failure.is_some() { 0 } else { 2 });
        contender.failure
    }

    fn replace_all(cell: &Cell) -> Result<()> {
        for (path, bytes) in cell.pairs() {
            let temp = path.with_extension("tmp");
            fs::write(&temp, bytes)?;
            fs::rename(&temp, path)?;
        }
        Ok(())
    }

    #[test]
    fn only_a_writer_that_replaces_every_file_and_leaves_nothing_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        for layout in ["one-dir", "dir-each"] {
            let cell = cell(dir.path(), layout);
            let nothing = failure(&cell, |_| Ok(())).expect("nothing was saved");
            assert_eq!(nothing, "2 files were not replaced");
            let litter = failure(&cell, |cell| {
                fs::write(cell.targets[1].with_extension("tmp"), "")?;
                replace_all(cell)?;
                Ok(fs::write(cell.targets[0].with_extension("old"), "")?)
            });
            assert_eq!(litter.expect("litter"), "it left 1 files behind");
            let short = failure(&cell, |cell| {
                replace_all(cell)?;
                Ok(fs::write(&cell.targets[0], "short")?)
            });
            assert!(short.expect("short").ends_with("has 5 bytes"));
            // Also shows that what the others left is gone.
            assert_eq!(failure(&cell, replace_all), None);
        }
    }

    #[test]
    fn an_error_is_the_row_s_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let failed = failure(&cell(dir.path(), "dir-each"), |_| anyhow::bail!("no such luck"));
        assert_eq!(failed.expect("it failed"), "no such luck");
    }
}
