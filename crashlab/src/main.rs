//! Cuts the power, breaks the disk and starves the process under ringseal. See the README beside it.

mod bench;
mod bugs;
mod condition;
mod crew;
mod cuts;
mod disk;
mod errors;
mod figures;
mod inputs;
mod limits;
mod load;
mod look;
mod options;
mod over;
mod promise;
mod quote;
mod report;
mod stops;
#[allow(unreachable_pub, reason = "the tests share it")]
#[path = "../../tests/support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::disk::Filesystem;
use crate::figures::Figures;
use crate::options::{Command, Options, Room, Size};
use crate::report::Report;
use crate::stops::Stop;

fn main() -> ExitCode {
    match carry_out(Options::parse().command) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(broken) => {
            eprintln!("{broken} broken");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("ringseal-crashlab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How much was found broken.
fn carry_out(command: Command) -> Result<u64> {
    match command {
        Command::Load { load, directory, notes, condition } => {
            bench::be_load(&load, &directory, &notes, &condition).map(|()| 0)
        }
        Command::Recovery { load, directory } => bench::be_recovery(&load, &directory).map(|()| 0),
        Command::Bug { name, by, control } => bugs::be_search(&name, &by, control).map(|()| 0),
        Command::Quote { figures, documents } => {
            quote::into(&Figures::read(&figures)?, &documents).map(|()| 0)
        }
        Command::OneRoom(room) => {
            let (room, size) = room.split();
            in_private(|| one_room(room, &size))
        }
        Command::All(size) => in_private(|| {
            let rooms = [Room::Cuts, Room::Errors, Room::Stops, Room::Limits, Room::Inputs];
            rooms.into_iter().map(|room| one_room(room, &size)).sum()
        }),
    }
}

/// In a mount namespace of this process's own, so that nothing is left mounted whatever becomes of it.
fn in_private(work: impl FnOnce() -> Result<u64>) -> Result<u64> {
    disk::enter_private_mounts().context("the laboratory has to be root, to mount filesystems")?;
    work()
}

fn one_room(room: Room, size: &Size) -> Result<u64> {
    let report = Report;
    let mut figures = Figures::here();
    // One that cannot be added to is better told before all the work.
    if let Some(path) = size.figures.as_ref().filter(|path| path.exists()) {
        Figures::read(path)?;
    }
    for filesystem in size.filesystems(room)? {
        in_room(room, filesystem, size, &report, &mut figures)?;
    }
    match room {
        Room::Inputs => figures.inputs = run_inputs(size, &report)?,
        Room::Bugs => figures.bugs = bugs::run(&size.only, &report)?,
        _ => {}
    }
    figures.print();
    if let Some(path) = &size.figures {
        figures.add_to(path)?;
    }
    Ok(figures.broken())
}

/// The rooms of inputs, or the one that is named.
fn run_inputs(size: &Size, report: &Report) -> Result<Vec<inputs::Tally>> {
    let bar = report.begin("inputs", size.cases());
    let done = RefCell::new(BTreeMap::new());
    let progress = |room: &str, cases: u64| {
        let mut done = done.borrow_mut();
        done.insert(room.to_owned(), cases);
        bar.set(done.values().sum());
    };
    let (cases, seed) = (size.cases(), size.seed);
    let tallies = match &size.only[..] {
        [] => inputs::run(cases, seed, &progress)?,
        rooms => {
            let each = rooms.iter().map(|room| inputs::run_room(room, cases, seed, &progress));
            each.collect::<Result<Vec<_>>>()?.concat()
        }
    };
    bar.end();
    Ok(tallies)
}

fn in_room(
    room: Room,
    filesystem: &'static Filesystem,
    size: &Size,
    report: &Report,
    figures: &mut Figures,
) -> Result<()> {
    let (name, seed) = (filesystem.name.to_owned(), size.seed);
    report.say(&format!("{room:?} on {name}, seed {seed}"));
    match room {
        Room::Cuts => {
            let done = cuts::run(filesystem, size.cuts(filesystem), seed, report)?;
            figures.cuts.insert(name, done);
        }
        Room::Errors => {
            let done = errors::run(filesystem, size.every(), seed, report)?;
            figures.errors.insert(name, done);
        }
        Room::Stops => {
            if filesystem.can_shut_down() {
                let times = size.shutdowns();
                let done = stops::run(filesystem, Stop::Filesystem, times, seed, report)?;
                figures.shutdowns.insert(name.clone(), done);
            }
            let done = stops::run(filesystem, Stop::Process, size.kills(), seed, report)?;
            figures.kills.insert(name, done);
        }
        Room::Limits => {
            let done = limits::run(filesystem, size.fineness(), seed, report)?;
            figures.limits.insert(name, done);
        }
        Room::Inputs | Room::Bugs => {}
    }
    Ok(())
}
