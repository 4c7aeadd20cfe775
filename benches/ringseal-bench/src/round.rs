//! The rounds of a cell: each runs every writer once, in another order.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use indicatif::ProgressBar;

use crate::cell::Cell;
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
    let before = cell.inodes()?;
    let sample = measure(writer, cell, device);
    cell.check()?;
    let sample = sample?;
    let kept = before.iter().zip(cell.inodes()?).filter(|(before, after)| **before == *after);
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
        let per_file = |value: f64| value / files as f64;
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
