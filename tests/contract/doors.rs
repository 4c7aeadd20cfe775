//! The three ways into the library, behind one function, so that each test runs through all.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use ringseal::{
    Carrier, Durability, Engine, Error, Options, Outcome, Receipt, Request, Result, Step, Target,
    Writer,
};

use crate::support;

/// A way to save.
#[derive(Debug)]
pub enum Door {
    /// The plain functions.
    Plain,
    /// The writer's ring.
    Ring(Writer),
    /// The writer's pool of threads.
    Threads(Writer),
}

impl Door {
    /// All of them; without the ring, visibly, where there is none.
    pub fn all() -> Vec<Door> {
        let mut doors = vec![Door::Plain, Door::Threads(writer(Engine::Threads))];
        match Writer::builder().engine(Engine::Uring).build() {
            Ok(writer) => doors.push(Door::Ring(writer)),
            Err(why) => support::skipped(format_args!("the ring: {why}")),
        }
        doors
    }

    /// The writers among them.
    pub fn writers() -> Vec<Writer> {
        let writer = |door| match door {
            Door::Plain => None,
            Door::Ring(writer) | Door::Threads(writer) => Some(writer),
        };
        Door::all().into_iter().filter_map(writer).collect()
    }

    pub fn name(&self) -> &'static str {
        match self {
            Door::Plain => "plain",
            Door::Ring(_) => "ring",
            Door::Threads(_) => "threads",
        }
    }

    /// Saves through this door, and makes sure that it was this one.
    pub fn save_with(
        &self,
        options: &Options,
        target: impl Into<Target>,
        bytes: impl Into<Bytes>,
    ) -> Result<Receipt> {
        let (writer, carrier) = match self {
            Door::Plain => return options.replace(target, bytes.into()),
            Door::Ring(writer) => (writer, Carrier::Ring),
            Door::Threads(writer) => (writer, Carrier::Pool),
        };
        let request = Request::new(target, bytes).with(options.clone());
        let receipt = pollster::block_on(writer.submit(request))?;
        // In memory nothing waits: the threads engine leaves it to the caller.
        let straight = receipt.durability == Durability::Volatile
            && carrier == Carrier::Pool
            && receipt.bytes <= 256 << 10;
        let expected = if straight { Carrier::Caller } else { carrier };
        assert_eq!(receipt.carrier, expected);
        Ok(receipt)
    }

    pub fn save(&self, target: impl Into<Target>, bytes: impl Into<Bytes>) -> Result<Receipt> {
        self.save_with(&Options::new(), target, bytes)
    }
}

/// The engines that can be had here.
pub fn engines() -> Vec<Engine> {
    match Writer::builder().engine(Engine::Uring).build() {
        Ok(_) => vec![Engine::Threads, Engine::Uring],
        Err(why) => {
            support::skipped(format_args!("the ring: {why}"));
            vec![Engine::Threads]
        }
    }
}

pub fn writer(engine: Engine) -> Writer {
    Writer::builder().engine(engine).build().expect("a writer")
}

/// A save that must fail as told, and leave everything as it was.
#[track_caller]
pub fn assert_unchanged(result: Result<Receipt>, step: Step, errno: i32) -> Error {
    let error = result.expect_err("the save must fail");
    assert_eq!(error.step(), step, "{error}");
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
    assert_eq!(error.outcome(), Outcome::Unchanged, "{error}");
    error
}

#[track_caller]
pub fn assert_reads(path: &Path, bytes: impl AsRef<[u8]>) {
    let read = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(read == bytes.as_ref(), "{}: {} bytes, not as saved", path.display(), read.len());
}
