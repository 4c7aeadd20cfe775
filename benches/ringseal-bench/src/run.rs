//! A run: every writer on every filesystem with every number of files.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;

use crate::cell::Cell;
use crate::filesystem::Filesystem;
use crate::json::{FilesystemReport, Report, Row, Skipped};
use crate::options::Measuring;
use crate::round::{self, Contender};
use crate::statistics::default_rounds;
use crate::stop::Stop;
use crate::writers::{self, Entry};
use crate::{flush, progress};

/// A directory to measure in, and what the report calls it.
#[derive(Debug)]
pub(crate) struct Place {
    pub path: PathBuf,
    pub name: String,
}

impl Place {
    pub(crate) fn of_dir(dir: PathBuf) -> Result<Place> {
        ensure!(dir.is_dir(), "{} is no directory", dir.display());
        Ok(Place { name: dir.display().to_string(), path: dir })
    }
}

/// What was measured until the end, or until a signal.
pub(crate) fn run(places: &[Place], measuring: &Measuring, stop: &Stop) -> Result<Report> {
    let entries = writers::chosen(writers::all(), &measuring.only)?;
    let mut report = Report::new(measuring);
    let mut contenders = Vec::new();
    for entry in &entries {
        match entry.make() {
            Ok(writer) => contenders.push(Contender::new(entry, writer)),
            Err(error) => {
                let why = format!("{error:#}");
                eprintln!("without {entry:?}: {why}");
                report.skipped.push(skipped(entry, None, None, why));
            }
        }
    }
    let rounds = |files| measuring.rounds.unwrap_or_else(|| default_rounds(files));
    let measurements = measuring.files.iter().map(|&files| rounds(files)).sum::<usize>()
        * contenders.len()
        * places.len();
    let bar = progress::bar(measurements);
    for place in places {
        if stop.is_asked() {
            break;
        }
        let filesystem = Filesystem::of(&place.path)?;
        report.filesystems.push(describe(place, &filesystem)?);
        for &files in &measuring.files {
            if stop.is_asked() {
                break;
            }
            bar.set_message(format!("{}, {files} files", place.name));
            let cell = Cell::make(&place.path, files, measuring)
                .with_context(|| format!("prepare {files} files in {}", place.name))?;
            let device = filesystem.device.as_ref();
            let limits = round::Limits { rounds: rounds(files), time: measuring.cell_time };
            round::measure_all(&mut contenders, &cell, device, limits, stop, &bar);
            collect(&mut report, &mut contenders, place, &filesystem, &cell, measuring, &bar);
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

fn describe(place: &Place, filesystem: &Filesystem) -> Result<FilesystemReport> {
    let scratch = tempfile::tempdir_in(&place.path)
        .with_context(|| format!("make a directory in {}", place.path.display()))?;
    Ok(FilesystemReport {
        dir: place.name.clone(),
        filesystem: filesystem.kind.clone(),
        options: filesystem.options.clone(),
        device: filesystem.device_name.clone(),
        flush_us: flush::latency(scratch.path())?,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
    })
}

fn collect(
    report: &mut Report,
    contenders: &mut [Contender<'_>],
    place: &Place,
    filesystem: &Filesystem,
    cell: &Cell,
    measuring: &Measuring,
    bar: &ProgressBar,
) {
    let mut rows: Vec<Row> = Vec::new();
    for contender in contenders {
        let (dir, files) = (place.name.clone(), cell.files());
        if let Some(why) = contender.failure.take() {
            progress::say(bar, &format!("{:?} on {dir}, {files} files: {why}", contender.entry));
            report.skipped.push(skipped(contender.entry, Some(dir), Some(files), why));
        } else if let Some(figures) = contender.figures(files) {
            rows.push(Row {
                dir,
                filesystem: filesystem.kind.clone(),
                size: measuring.size,
                payload_bytes: cell.payload_bytes(),
                ..figures
            });
        }
    }
    let std_loop = rows.iter().find(|row| row.writer == "std_loop");
    if let Some(median) = std_loop.map(|row| row.us_per_file.median) {
        for row in &mut rows {
            row.ratio_to_std_loop = Some(median / row.us_per_file.median);
        }
    }
    report.results.extend(rows);
}

fn skipped(entry: &Entry, dir: Option<String>, files: Option<usize>, why: String) -> Skipped {
    Skipped { writer: entry.name.to_owned(), engine: entry.engine.to_owned(), dir, files, why }
}
