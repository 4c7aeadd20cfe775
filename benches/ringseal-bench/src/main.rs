//! Measures ringseal against other ways of saving files durably. See the README beside it.

mod callers;
mod cell;
mod device;
mod filesystem;
mod flush;
mod json;
mod loops;
mod measure;
mod options;
mod plot;
mod private_mounts;
mod progress;
mod report;
mod round;
mod run;
mod statistics;
mod stop;
mod writers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use peak_alloc::PeakAlloc;
use rustix::process::{Resource, Rlimit};

use crate::json::Report;
use crate::options::{Command, Options, Output, Places};
use crate::run::Place;
use crate::stop::Stop;

/// Counts the heap of every writer in the same way.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What a shell reports for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    allow_all_descriptors();
    match carry_out(options.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringseal-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As a service manager does for a daemon: a store's files take three each.
fn allow_all_descriptors() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

fn carry_out(command: Command) -> Result<ExitCode> {
    match command {
        Command::List => print!("{}", writers::list()),
        Command::Plot { json, svg } => {
            let text = fs::read(&json).with_context(|| format!("read {}", json.display()))?;
            let report: Report = serde_json::from_slice(&text)
                .with_context(|| format!("{} is not a report", json.display()))?;
            plot::draw(&report, &svg)?;
        }
        Command::Run { measuring, .. } | Command::Loops { measuring, .. } if measuring.list => {
            print!("{}", writers::list());
        }
        Command::Run { dir, measuring } => {
            let stop = Stop::on_signals()?;
            let places = dir.into_iter().map(Place::of_dir).collect::<Result<Vec<_>>>()?;
            let report = run::run(&places, &measuring, &stop)?;
            return finish(&report, &measuring.output, &stop);
        }
        Command::Callers { dir, places, calling } => return on_callers(dir, &places, &calling),
        Command::Loops { places, measuring } => return on_loops(&places, &measuring),
    }
    Ok(ExitCode::SUCCESS)
}

fn on_loops(places: &Places, measuring: &options::Measuring) -> Result<ExitCode> {
    private_mounts::enter()?;
    let stop = Stop::on_signals()?;
    let loops = loops::Loops::make(places, &stop)?;
    let report = run::run(loops.places(), measuring, &stop)?;
    drop(loops);
    finish(&report, &measuring.output, &stop)
}

fn on_callers(dirs: Vec<PathBuf>, places: &Places, calling: &options::Calling) -> Result<ExitCode> {
    let rows = if dirs.is_empty() {
        private_mounts::enter()?;
        let stop = Stop::on_signals()?;
        let loops = loops::Loops::make(places, &stop)?;
        callers::run(loops.places(), calling, &stop)?
    } else {
        let stop = Stop::on_signals()?;
        let places = dirs.into_iter().map(Place::of_dir).collect::<Result<Vec<_>>>()?;
        callers::run(&places, calling, &stop)?
    };
    print!("{}", callers::table(&rows));
    if let Some(path) = &calling.json {
        write(path, &(serde_json::to_string_pretty(&rows)? + "\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was measured is kept, also when a signal ended it early.
fn finish(report: &Report, output: &Output, stop: &Stop) -> Result<ExitCode> {
    report::print(report);
    if let Some(path) = &output.json {
        let text = serde_json::to_string_pretty(report).context("write the report as JSON")?;
        write(path, &(text + "\n"))?;
    }
    if let Some(path) = &output.plot {
        if report.results.is_empty() {
            eprintln!("nothing was measured, so nothing is drawn");
        } else {
            plot::draw(report, path)?;
        }
    }
    if stop.is_asked() {
        eprintln!("interrupted: the figures are of what was measured until then");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
