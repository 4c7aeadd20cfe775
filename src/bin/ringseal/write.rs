//! `ringseal write`: standard input becomes a file.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::Args;
use ringseal::{Cause, EngineStatus, Options, Receipt, Request, Root, Target, Writer};
use serde_json::json;

use crate::arguments::{self, EngineName, LevelName};
use crate::failures::{Failure, Failures};
use crate::output::{Ending, Report, engine_to_json};
use crate::signals::Stop;

/// The options of `ringseal write`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The file to replace; a symbolic link there is replaced, not followed
    target: PathBuf,
    /// Permission bits of the new version, whatever the umask is [default: 600]
    #[arg(long, value_name = "OCTAL", value_parser = arguments::mode)]
    mode: Option<u32>,
    /// Keep the permission bits and access list of the file that is replaced
    #[arg(long)]
    keep_mode: bool,
    /// Fail if anything stands at the target
    #[arg(long)]
    create_new: bool,
    /// Keep the old version under this name, in the same directory
    #[arg(long, value_name = "NAME", value_parser = arguments::file_name())]
    keep_previous: Option<OsString>,
    /// What success promises
    #[arg(long, value_enum, default_value_t = LevelName::Durable)]
    level: LevelName,
    /// Take TARGET below this directory, and never leave it: not by `..`, not through a link
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Use a writer with this engine; plain system calls if not given
    #[arg(long, value_enum)]
    engine: Option<EngineName>,
}

impl Arguments {
    fn options(&self) -> Options {
        let mut options = Options::new().level(self.level.into());
        if let Some(mode) = self.mode {
            options = options.mode(mode);
        }
        if self.keep_mode {
            options = options.keep_mode();
        }
        if self.create_new {
            options = options.create_new();
        }
        match &self.keep_previous {
            Some(name) => options.keep_previous(name),
            None => options,
        }
    }
}

/// Runs the command.
pub fn run(arguments: Arguments, as_json: bool) -> Ending {
    let shown = match &arguments.root {
        Some(root) => root.join(&arguments.target),
        None => arguments.target.clone(),
    };
    let mut failures = Failures::new(as_json);
    let mut engine = None;
    let receipt = match save(&arguments, &shown, &mut engine) {
        Ok(receipt) => Some(receipt),
        Err(failure) => {
            failures.add(failure);
            None
        }
    };
    let fields = json!({
        "target": shown.to_string_lossy(),
        "bytes": receipt.map(|receipt| receipt.bytes),
        "durability": receipt.map(|receipt| receipt.durability.name()),
        "carrier": receipt.map(|receipt| receipt.carrier.name()),
        "engine": engine.as_ref().map(engine_to_json),
    });
    let text = String::new();
    Ending::Report(Report { command: "write", text, fields, failures, interrupted: false })
}

fn save(
    arguments: &Arguments,
    shown: &PathBuf,
    engine: &mut Option<EngineStatus>,
) -> Result<Receipt, Failure> {
    // Read to its end first: whoever interrupts the command until then has changed nothing.
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut bytes);
    let in_shell = |error| Failure::of_source(shown, "standard input".as_ref(), &Cause::Io(error));
    read.map_err(in_shell)?;
    // From here on a signal waits for the save to end, so that no temporary file is left.
    let _stop = Stop::on_signal().map_err(|error| Failure::of_call(shown, "start", &error))?;

    let target = match &arguments.root {
        None => Target::from(&arguments.target),
        Some(root) => Target::beneath(&Root::open(root)?, &arguments.target),
    };
    let options = arguments.options();
    let Some(name) = arguments.engine else {
        return Ok(options.replace(target, bytes)?);
    };
    let writer = Writer::builder().engine(name.into()).max_in_flight(1).build();
    let writer = writer.map_err(|error| Failure::of_start(shown, &error))?;
    // `submit`, for `submit_blocking` would make the calls on this thread.
    let answer = pollster::block_on(writer.submit(Request::new(target, bytes).with(options)));
    *engine = Some(writer.engine());
    writer.close_blocking();
    Ok(answer?)
}
