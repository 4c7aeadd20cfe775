//! The `ringseal` command: durable atomic file replace from the shell.
//!
//! One file per command; each returns an [`output::Report`], and only `output` prints.

mod arguments;
mod checkpoint;
mod directory;
mod failures;
mod flushes;
mod log;
mod output;
mod probe;
mod recover;
mod signals;
mod source;
mod stats;
mod store;
mod summary;
mod text;
mod walk;
mod write;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::Ending;

/// Shown at the end of every help text.
const EXIT_STATUS: &str = "\
Exit status:
  0  everything was done, and is as durable as its filesystem can make it
  1  something failed: one line for each failure on standard error; or a signal ended the command
  2  the command line is wrong: nothing was changed";

/// Replaces files durably and atomically.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object on standard output
    #[arg(long, global = true, display_order = 100)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make standard input the new version of a file
    #[command(after_help = EXIT_STATUS)]
    Write(write::Arguments),
    /// Save the state files of every container below one directory into another
    #[command(after_help = EXIT_STATUS)]
    Checkpoint(checkpoint::Arguments),
    /// Save, load, list, remove and verify the states of a store
    #[command(after_help = EXIT_STATUS)]
    Store(store::Arguments),
    /// Show what the log of a store holds
    #[command(after_help = EXIT_STATUS)]
    Log(log::Arguments),
    /// Recover a store, or remove the temporary files of dead writers from a directory
    #[command(after_help = EXIT_STATUS)]
    Recover(recover::Arguments),
    /// Show what this host and a directory's filesystem can promise
    #[command(after_help = EXIT_STATUS)]
    Probe(probe::Arguments),
}

fn main() -> ExitCode {
    let Cli { command, json } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    signals::report_oversized_files();
    let ending = match command {
        Command::Write(arguments) => write::run(arguments, json),
        Command::Checkpoint(arguments) => checkpoint::run(arguments, json),
        Command::Store(arguments) => store::run(arguments, json),
        Command::Log(arguments) => log::run(arguments, json),
        Command::Recover(arguments) => recover::run(arguments, json),
        Command::Probe(arguments) => probe::run(arguments, json),
    };
    match ending {
        Ending::Report(report) => report.print(json),
        Ending::Usage(error) => usage(&error),
    }
}

/// Prints what clap has to say: an error of usage, or the help or version that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody reads it: there is nobody to tell.
    let _ = error.print();
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}
