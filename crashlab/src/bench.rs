//! A place to try things at: a disk of its own with a filesystem, on which a load runs and is looked at after.

use std::cell::Cell;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio, exit};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use tempfile::TempDir;

use crate::condition::{Condition, FILLER};
use crate::disk::{
    Backing, Device, Disk, Event, Filesystem, Image, Latency, Mounted, Slate, Tape, Walk,
};
use crate::load::note::Note;
use crate::load::run::{Teller, prepare};
use crate::load::script::Script;
use crate::load::{Load, run};
use crate::look;
use crate::promise::Said;

/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) filesystem: &'static Filesystem,
    formatted: Image,
    pub(crate) disk: Disk,
    /// Where disks are only looked at.
    slate: Slate,
    at: TempDir,
    prepared: Option<(Load, Image)>,
    /// A look hung, and still holds the disk.
    hung: Cell<bool>,
}

/// What a load did to a disk.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) load: Load,
    pub(crate) base: Image,
    pub(crate) tape: Tape,
    /// How the process ended, if not well.
    pub(crate) broken: Vec<String>,
}

/// The status of a process that could not take its condition upon itself.
const NOT_TO_BE_HAD: i32 = 77;

impl Bench {
    pub(crate) fn new(filesystem: &'static Filesystem) -> Result<Bench> {
        let formatted = filesystem.format().context(filesystem.name)?;
        let disk = Disk::new(formatted.clone()).context("no FUSE disk")?;
        let at = tempfile::Builder::new().prefix("crashlab-mount-").tempdir()?;
        let slate = Slate::new().context("no disk in memory")?;
        Ok(Bench { filesystem, formatted, disk, slate, at, prepared: None, hung: Cell::new(false) })
    }

    /// The disk as a load finds it.
    fn prepared(&mut self, load: &Load) -> Result<Image> {
        if let Some((of, image)) = &self.prepared {
            if of == load {
                return Ok(image.clone());
            }
        }
        self.disk.load(self.formatted.clone());
        let (device, mounted) = self.mount(&self.disk)?;
        prepare(load, mounted.path())?;
        mounted.unmount()?;
        drop(device);
        let image = self.disk.image();
        self.prepared = Some((*load, image.clone()));
        Ok(image)
    }

    fn mount(&self, disk: &impl Backing) -> Result<(Device, Mounted)> {
        let device = Device::attach(disk).context("attach")?;
        let mounted = device.mount(self.filesystem, self.at.path()).context("mount")?;
        Ok((device, mounted))
    }

    /// Runs a load, and keeps all that came to the disk.
    pub(crate) fn record(&mut self, load: &Load, latency: Latency) -> Result<Recording> {
        let image = self.prepared(load)?;
        self.disk.load(image);
        let base = self.disk.record(latency);
        let (device, mounted) = self.mount(&self.disk)?;
        let mut child = Process::load(load, &mounted, &self.disk, &Condition::None)?;
        let broken = how_it_ended("the load's process", child.wait());
        mounted.unmount()?;
        drop(device);
        let tape = self.disk.stop();
        Ok(Recording { load: *load, base, tape, broken })
    }

    /// Recovers a disk as a runtime does when it starts, and keeps all that came to the disk meanwhile.
    pub(crate) fn record_recovery(
        &mut self,
        load: &Load,
        image: Image,
        latency: Latency,
    ) -> Result<Recording> {
        self.disk.load(image);
        let base = self.disk.record(latency);
        let (device, mounted) = self.mount(&self.disk)?;
        self.disk.note(RECOVERY);
        let broken = how_it_ended("the recovery", Process::recovery(load, mounted.path())?.wait());
        mounted.unmount()?;
        drop(device);
        let tape = self.disk.stop();
        Ok(Recording { load: *load, base, tape, broken })
    }

    /// Looks at a disk that was left by a power cut: what is broken.
    pub(crate) fn examine(&self, load: &Load, image: &Image, said: &Said) -> Vec<String> {
        let mounted = self.slate.load(image).map_err(Error::from);
        let (device, mounted) = match mounted.and_then(|()| self.mount(&self.slate)) {
            Ok(mounted) => mounted,
            Err(error) => return vec![format!("the filesystem is lost: {error:#}")],
        };
        let broken = self.examine_mounted(load, mounted.path(), said, true);
        let unmounted = mounted.unmount();
        drop(device);
        match unmounted {
            Ok(()) => broken,
            Err(error) => broken.into_iter().chain([format!("unmount: {error}")]).collect(),
        }
    }

    /// What is broken below a mounted directory. `cut`: the power was cut, or might have been.
    fn examine_mounted(
        &self,
        load: &Load,
        directory: &Path,
        said: &Said,
        cut: bool,
    ) -> Vec<String> {
        // By a thread that can be left behind if it hangs.
        let (tell, told) = mpsc::channel();
        let (looked_at, at) = (*load, directory.to_owned());
        thread::spawn(move || tell.send(look::look(&looked_at, &at)));
        let seen = match told.recv_timeout(PATIENCE) {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                let place = format!("{}/", directory.display());
                return vec![format!("it cannot be recovered: {error:#}").replace(&place, "")];
            }
            Err(RecvTimeoutError::Disconnected) => return vec!["the recovery panicked".to_owned()],
            Err(RecvTimeoutError::Timeout) => {
                self.hung.set(true);
                return vec![format!("the recovery hung for {} s", PATIENCE.as_secs())];
            }
        };
        let mut broken = Vec::new();
        for (found, by_itself) in seen {
            broken.extend(by_itself);
            broken.extend(said.broken_by(&found, cut));
        }
        broken.dedup();
        broken
    }

    /// Runs a load while something happens to it: what is broken after it, and what was answered. `before` is
    /// called when the filesystem is mounted, `disturb` when the load's process runs. What is left is looked at
    /// when the disk is sound again and mounted anew, and before that as it is if that is asked for.
    pub(crate) fn trial(
        &mut self,
        load: &Load,
        condition: &Condition,
        look: Look,
        before: impl FnOnce(&Disk),
        disturb: impl FnOnce(&mut Process, &Mounted) -> Result<()>,
    ) -> Result<Trial> {
        let image = self.prepared(load)?;
        self.disk.load(image);
        let base = self.disk.record(Latency { max_us: 0, seed: 0 });
        let (device, mounted) = self.mount(&self.disk)?;
        before(&self.disk);
        let mut child = Process::load(load, &mounted, &self.disk, condition)?;
        let disturbed = disturb(&mut child, &mounted);
        let ended = child.wait();
        let hit = self.disk.heal().failed;
        let tape = self.disk.stop();
        disturbed?;
        let said = said(load, &tape.events);
        let mut broken = match ended {
            Ok(status) if status.signal() == Some(libc::SIGKILL) => Vec::new(),
            Ok(status) if condition.is_deadly() && status.signal() == Some(libc::SIGABRT) => {
                Vec::new()
            }
            Ok(status) if status.code() == Some(NOT_TO_BE_HAD) => {
                bail!("{condition} is not to be had here")
            }
            ended => how_it_ended("the load's process", ended),
        };
        let is_full = matches!(condition, Condition::Room(_));
        if !is_full {
            // The unmount below writes what is not written yet. The power could have been cut before it.
            let mut walk = Walk::new(&tape, base);
            while walk.advance().is_some() {}
            let cut = self.examine(load, &walk.build(&[]), &said);
            broken.extend(cut.into_iter().map(|what| format!("after a power cut {what}")));
        }
        if is_full {
            // Where there is no room it may fail, and has to leave everything as it is.
            let _ = look::recover(load, mounted.path());
            fs::remove_file(mounted.path().join(FILLER))?;
        }
        if look == Look::AsItIs {
            broken.extend(self.examine_mounted(load, mounted.path(), &said, false));
        }
        // A filesystem that has shut itself down may say so once more.
        let _ = mounted.unmount();
        drop(device);
        broken.extend(self.examine(load, &self.disk.image(), &said));
        Ok(Trial { broken, answers: said.answers(), hit })
    }

    /// Tells what is broken, if anything is, and keeps the disk for who wants to look at it. `how`: what happened to
    /// the load. Told at once, for what is broken may end the laboratory too; what hangs does.
    pub(crate) fn tell(&self, load: &Load, how: &str, image: &Image, broken: &[String]) -> bool {
        if broken.is_empty() {
            return false;
        }
        let on = self.filesystem.name;
        let directory = Path::new("target/crashlab");
        let name = format!("{on}-{load}-{how}").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = (1..)
            .map(|number| directory.join(format!("{name}-{number}.img")))
            .find(|path| !path.exists())
            .unwrap_or_default();
        let why = format!("{on} {load}, {how}: {}", broken.join("; "));
        let kept = fs::create_dir_all(directory)
            .and_then(|()| image.save(&path))
            .and_then(|()| fs::write(path.with_extension("txt"), &why));
        let kept = kept.map_or_else(|error| error.to_string(), |()| path.display().to_string());
        eprintln!("BROKEN: {why} ({kept})");
        if self.hung.get() {
            eprintln!("The laboratory ends here: what hangs still holds its disk.");
            exit(1);
        }
        true
    }
}

/// What is wrong with the end of a process.
fn how_it_ended(what: &str, ended: Result<ExitStatus>) -> Vec<String> {
    match ended {
        Ok(status) if status.success() => Vec::new(),
        Ok(status) => vec![format!("{what} ended with {status}")],
        Err(error) => vec![format!("{what}: {error}")],
    }
}

/// When a disk is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// As it is, by who comes next, and then mounted anew.
    AsItIs,
    /// Mounted anew.
    Anew,
}

/// What came of a load that was disturbed.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) broken: Vec<String>,
    /// Durable, unchanged, unknown.
    pub(crate) answers: [u64; 3],
    /// Requests to the disk that failed.
    pub(crate) hit: u64,
}

/// The note at which a recovery begins.
pub(crate) const RECOVERY: &str = "recovery";

/// All that was said, in these events.
pub(crate) fn said(load: &Load, events: &[Event]) -> Said {
    let mut said = Said::new(Script::of(load).first);
    for event in events {
        if let Event::Note(line) = event {
            said.hear(Note::parse(line));
        }
    }
    said
}

/// A process of this program that is another program's part.
#[derive(Debug)]
pub(crate) struct Process {
    process: Child,
    began: Instant,
}

impl Process {
    /// One that carries a load out.
    pub(crate) fn load(
        load: &Load,
        mounted: &Mounted,
        disk: &Disk,
        condition: &Condition,
    ) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("load")
            .arg(serde_json::to_string(load)?)
            .arg(mounted.path())
            .arg(disk.notes())
            .arg(serde_json::to_string(condition)?);
        Process::start(command)
    }

    fn recovery(load: &Load, directory: &Path) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("recovery").arg(serde_json::to_string(load)?).arg(directory);
        Process::start(command)
    }

    fn start(mut command: Command) -> Result<Process> {
        let process = command.stdin(Stdio::null()).spawn().context("no child process")?;
        Ok(Process { process, began: Instant::now() })
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        Ok(self.process.kill()?)
    }

    pub(crate) fn is_over(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if self.began.elapsed() > PATIENCE {
                self.process.kill()?;
                self.process.wait()?;
                bail!("the process hung for {} s", PATIENCE.as_secs());
            }
            sleep(Duration::from_micros(500));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is still there would keep the disk busy.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the child process does that [`Process::load`] starts.
pub(crate) fn be_load(load: &str, directory: &Path, notes: &Path, condition: &str) -> Result<()> {
    let (load, condition): (Load, Condition) =
        (serde_json::from_str(load)?, serde_json::from_str(condition)?);
    // Before the condition, which may allow no more files.
    let teller = Teller::open(notes)?;
    let held = match run::enter(&load, directory, &condition) {
        Ok(held) => held,
        Err(error) => {
            eprintln!("{condition}: {error:#}");
            exit(NOT_TO_BE_HAD);
        }
    };
    run::run(&load, directory, teller)?;
    drop(held);
    Ok(())
}

/// What the child process does that [`Bench::record_recovery`] starts.
pub(crate) fn be_recovery(load: &str, directory: &Path) -> Result<()> {
    look::recover(&serde_json::from_str(load)?, directory)
}
