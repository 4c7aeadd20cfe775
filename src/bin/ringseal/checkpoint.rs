//! `ringseal checkpoint`: the state files of many containers, saved into another directory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringseal::{Request, Root, Writer};
use rustix::process::{Resource, getrlimit};

use crate::arguments::{self, EngineName};
use crate::directory::Directory;
use crate::failures::{Failure, Failures};
use crate::flushes::Flushes;
use crate::output::{Ending, Report};
use crate::signals::Stop;
use crate::source::Source;
use crate::summary::Summary;

/// The options of `ringseal checkpoint`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The directory to read: one directory for each container, named by its id
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The directory to save into; made, for its owner only, if it is missing
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// A file to save of each container; can be given more than once [default: state.json]
    #[arg(long = "name", value_name = "NAME", value_parser = arguments::file_name())]
    names: Vec<OsString>,
    /// Which engine carries the saves out
    #[arg(long, value_enum, default_value_t = EngineName::Auto)]
    engine: EngineName,
    /// Saves under way at most; fewer where RLIMIT_NOFILE is low
    #[arg(long, value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(u16).range(1..=2048))]
    max_in_flight: u16,
    /// Print what the writer has counted, too
    #[arg(long)]
    stats: bool,
}

/// Directories that the command makes are for their owner only: states can hold secrets.
const MODE_OF_TO: u32 = 0o700;

/// Saves whose answers are held at once.
const PORTION: usize = 16 * 1024;

/// Runs the command.
pub fn run(arguments: Arguments, as_json: bool) -> Ending {
    let began = Instant::now();
    let mut failures = Failures::new(as_json);
    let mut summary = Summary::new(&arguments.from, &arguments.to);
    match prepare(&arguments) {
        Ok(Some((from, to, writer, stop))) => {
            let flushes = Flushes::of(&arguments.to);
            let bar = progress_bar(&from);
            let names = names(&arguments);
            let source = Source::new(from, to, names, stop, failures, bar.clone());
            failures = save(source, &writer, &mut summary);
            bar.finish_and_clear();
            summary.stats = arguments.stats.then(|| writer.stats());
            summary.flushes = flushes.and_then(|flushes| flushes.since());
        }
        Ok(None) => return Ending::Usage(same_directory()),
        Err(failure) => failures.add(failure),
    }
    summary.failed = failures.count();
    summary.took = began.elapsed();
    summary.filesystem = ringseal::probe_directory(&arguments.to).ok();
    let (text, fields) = (summary.to_text(), summary.to_json());
    let interrupted = summary.interrupted;
    Ending::Report(Report { command: "checkpoint", text, fields, failures, interrupted })
}

fn same_directory() -> clap::Error {
    let mut cli = crate::Cli::command();
    cli.build();
    let command = cli.find_subcommand_mut("checkpoint");
    let text = "--from and --to are the same directory";
    match command {
        Some(command) => command.error(ErrorKind::ArgumentConflict, text),
        None => cli.error(ErrorKind::ArgumentConflict, text),
    }
}

type Prepared = (Directory, Root, Writer, Stop);

/// `None`: both directories are the same.
fn prepare(arguments: &Arguments) -> Result<Option<Prepared>, Failure> {
    let Arguments { from, to, .. } = arguments;
    // Before anything is made.
    let stop = Stop::on_signal().map_err(|error| Failure::of_call(to, "start", &error))?;
    let from = Directory::open(from.clone())?;
    if from.is(to) {
        return Ok(None);
    }
    // A save holds up to two descriptors; the rest is for the command itself.
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(descriptors.saturating_sub(32) / 2).unwrap_or(usize::MAX);
    let writer = Writer::builder()
        .engine(arguments.engine.into())
        .max_in_flight(room.min(arguments.max_in_flight.into()))
        .build()
        .map_err(|error| Failure::of_start(to, &error))?;
    let to = Root::create(to, MODE_OF_TO)?;
    Ok(Some((from, to, writer, stop)))
}

fn names(arguments: &Arguments) -> Vec<OsString> {
    let mut names = arguments.names.clone();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push("state.json".into());
    }
    names
}

/// Hidden unless standard error is a terminal.
fn progress_bar(from: &Directory) -> ProgressBar {
    let target = ProgressDrawTarget::stderr();
    if target.is_hidden() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(from.count()), target);
    let template = "{bar:32} {human_pos} of {human_len} containers, {elapsed}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A portion of what is left. The iterator that a writer takes is lost to it, so the source is
/// shared.
struct Portion {
    source: Arc<Mutex<Source>>,
    left: usize,
}

impl Iterator for Portion {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        self.left = self.left.checked_sub(1)?;
        lock(&self.source).next()
    }
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Saves everything, or what there is before a signal comes. What was handed to the writer is
/// carried to its end.
fn save(source: Source, writer: &Writer, summary: &mut Summary) -> Failures {
    let as_json = source.failures.are_kept();
    let source = Arc::new(Mutex::new(source));
    loop {
        let portion = Portion { source: Arc::clone(&source), left: PORTION };
        let answers = writer.replace_all_blocking(portion);
        if answers.is_empty() {
            break;
        }
        for answer in answers {
            match answer {
                Ok(receipt) => summary.add(&receipt),
                Err(error) => lock(&source).failures.add(error),
            }
        }
    }
    writer.close_blocking();
    let mut source = lock(&source);
    summary.engine = Some(writer.engine());
    (summary.vanished, summary.interrupted) = (source.vanished, source.interrupted);
    std::mem::replace(&mut source.failures, Failures::new(as_json))
}
