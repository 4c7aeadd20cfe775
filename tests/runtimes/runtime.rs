//! A container runtime as its commands, with a root of its own.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use oci_spec::runtime::{ContainerState, State};

use crate::bundle;
use crate::support::{Disk, ProcessGroup, Skipped, search_path, slow};

/// What a runtime is called, and which files it keeps of a container.
#[derive(Debug)]
pub struct Kind {
    pub program: &'static str,
    /// The file without which the runtime does not know the container.
    pub state: &'static str,
    pub others: &'static [&'static str],
    pub mode: u32,
    pub directory_mode: u32,
}

pub const RUNC: Kind =
    Kind { program: "runc", state: "state.json", others: &[], mode: 0o600, directory_mode: 0o711 };

pub const CRUN: Kind = Kind {
    program: "crun",
    state: "status",
    others: &["config.json"],
    mode: 0o700,
    directory_mode: 0o700,
};

impl Kind {
    /// All files of a container that are state.
    pub fn files(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.others.iter().copied().chain([self.state])
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.env("PATH", search_path());
        command
    }

    pub fn require(&self) -> Result<(), Skipped> {
        match self.command().arg("--version").stdout(Stdio::null()).status() {
            Ok(_) => Ok(()),
            Err(error) => Err(Skipped(format!("cannot run {}: {error}", self.program))),
        }
    }
}

/// A runtime whose containers, and what they have, end when this is dropped.
#[derive(Debug)]
pub struct Runtime {
    pub kind: &'static Kind,
    // First: the containers hold the disk.
    group: ProcessGroup,
    disk: Disk,
}

/// One that waits for `start`, one that runs, one that was killed.
pub const CREATED: &str = "web-1";
pub const RUNNING: &str = "web-2";
pub const STOPPED: &str = "web-3";
pub const IDS: [&str; 3] = [CREATED, RUNNING, STOPPED];

/// Gives a command the control groups at `$0`, in mounts of its own: crun refuses a mixture of
/// version 1 and 2.
const WITH_GROUPS: &str = r#"mount --bind "$0" /sys/fs/cgroup && exec "$@""#;

impl Runtime {
    /// A runtime with the three containers.
    pub fn with_containers(kind: &'static Kind) -> Result<Runtime, Skipped> {
        kind.require()?;
        let disk = Disk::ext4()?;
        let runtime = Runtime { kind, group: ProcessGroup::new()?, disk };
        for id in IDS {
            bundle::write(&runtime.bundle(id), runtime.group.path().join(id));
            let bundle = runtime.bundle(id);
            runtime
                .run(&["create", "--bundle", bundle.to_str().unwrap(), id])
                .map_err(|said| Skipped(format!("{} makes no container: {said}", kind.program)))?;
        }
        runtime.start(RUNNING).unwrap();
        runtime.start(STOPPED).unwrap();
        runtime.stop(STOPPED);
        Ok(runtime)
    }

    /// Where the runtime keeps its state.
    pub fn root(&self) -> PathBuf {
        self.disk.path().join("root")
    }

    /// Where a store can be that is not the runtime's root.
    pub fn elsewhere(&self) -> PathBuf {
        self.disk.path().join("elsewhere")
    }

    pub fn file(&self, id: &str) -> PathBuf {
        self.root().join(id).join(self.kind.state)
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.disk.path().join("bundles").join(id)
    }

    pub fn state(&self, id: &str) -> Result<State, String> {
        Ok(serde_json::from_str(&self.run(&["state", id])?).unwrap())
    }

    pub fn list(&self) -> Result<Vec<State>, String> {
        Ok(parse_list(&self.run(&["list", "--format", "json"])?))
    }

    pub fn start(&self, id: &str) -> Result<String, String> {
        self.run(&["start", id])
    }

    pub fn kill(&self, id: &str) -> Result<String, String> {
        self.run(&["kill", id, "KILL"])
    }

    /// Kills a container and waits until the runtime has seen it.
    #[track_caller]
    pub fn stop(&self, id: &str) {
        self.kill(id).unwrap();
        let end = Instant::now() + Duration::from_secs(10) * slow();
        while *self.state(id).unwrap().status() != ContainerState::Stopped {
            assert!(Instant::now() < end, "{id} does not end");
            sleep(Duration::from_millis(10));
        }
    }

    /// All that is left to do with the three containers.
    #[track_caller]
    pub fn finish(&self) {
        self.start(CREATED).unwrap();
        assert_eq!(*self.state(CREATED).unwrap().status(), ContainerState::Running);
        self.stop(CREATED);
        self.stop(RUNNING);
        for id in IDS {
            self.run(&["delete", id]).unwrap();
        }
        assert_eq!(self.list().unwrap(), []);
    }

    /// What a command printed, or what it said when it failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        // Files, for a container keeps what its `create` was given: a pipe would never end.
        let (output, errors) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let status = Command::new("unshare")
            .env("PATH", search_path())
            .args(["--mount", "sh", "-c", WITH_GROUPS])
            .arg(self.group.hierarchy())
            .args([Path::new(self.kind.program), Path::new("--root"), &self.root()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(errors.try_clone().unwrap())
            .status()
            .map_err(|error| format!("cannot run unshare: {error}"))?;
        match status.success() {
            true => Ok(text(output)),
            false => Err(text(errors)),
        }
    }
}

/// What `list --format json` printed, in the order of the ids.
pub fn parse_list(json: &str) -> Vec<State> {
    // runc says `null` for none.
    let mut states = serde_json::from_str::<Option<Vec<State>>>(json).unwrap().unwrap_or_default();
    states.sort_by(|left, right| left.id().cmp(right.id()));
    states
}

fn text(mut file: File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}
