//! Filesystems on loop devices, made for a run and gone after it.
//!
//! Each image is deleted once it is mounted: its space goes with the mount, and the mount with the
//! namespace, so that even a killed run leaves only a directory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::filesystem::Filesystem;
use crate::options::{Kind, Places};
use crate::run::Place;
use crate::stop::Stop;

/// The mounts of a run; dropping them unmounts, detaches and removes.
#[derive(Debug)]
pub(crate) struct Loops {
    places: Vec<Place>,
    // After the mounts, which are in it.
    home: TempDir,
}

impl Loops {
    pub(crate) fn make(places: &Places, stop: &Stop) -> Result<Loops> {
        let dir = &places.images.clone().unwrap_or_else(std::env::temp_dir);
        ensure!(
            !Filesystem::of(dir)?.is_in_memory(),
            "{} is in memory: name a directory on a disk with --in",
            dir.display()
        );
        let home = tempfile::Builder::new()
            .prefix("ringseal-bench-")
            .tempdir_in(dir)
            .with_context(|| format!("make a directory in {}", dir.display()))?;
        let mut loops = Loops { places: Vec::new(), home };
        for kind in &places.filesystems {
            if stop.is_asked() {
                break;
            }
            loops
                .add(*kind, places.image_size)
                .with_context(|| format!("make a filesystem of {}", kind.name()))?;
        }
        if places.tmpfs {
            loops.mount("tmpfs", "tmpfs", &["-t", "tmpfs", "tmpfs"])?;
        }
        Ok(loops)
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    fn add(&mut self, kind: Kind, size: u64) -> Result<()> {
        let image = self.home.path().join("image");
        File::create(&image)
            .and_then(|file| file.set_len(size))
            .with_context(|| format!("make {}", image.display()))?;
        let (program, options) = kind.mkfs();
        run(program, options.iter().map(OsStr::new).chain([image.as_os_str()]))?;
        let image_path = image.to_string_lossy();
        let name = kind.name();
        // A loop device that mount made is detached by unmounting.
        let options = kind.mount_options();
        self.mount(name, &format!("loop:{name}"), &["-t", name, "-o", options, &image_path])?;
        fs::remove_file(&image).context("delete the image")
    }

    fn mount(&mut self, directory: &str, name: &str, options: &[&str]) -> Result<()> {
        let path = self.home.path().join(directory);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        run("mount", options.iter().map(OsStr::new).chain([path.as_os_str()]))?;
        self.places.push(Place { path, name: name.to_owned() });
        Ok(())
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for place in self.places.drain(..).rev() {
            if let Err(error) = unmount_patiently(&place.path) {
                eprintln!("{} stays mounted until the end: {error}", place.path.display());
                let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
                let _ = unmount(&place.path, flags);
            }
        }
    }
}

/// The kernel's workers can hold a file for a moment longer.
fn unmount_patiently(path: &Path) -> rustix::io::Result<()> {
    const TRIES: usize = 500;
    for _ in 0..TRIES {
        match unmount(path, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => sleep(Duration::from_millis(10)),
            outcome => return outcome,
        }
    }
    Err(Errno::BUSY)
}

fn run<'a>(program: &str, args: impl Iterator<Item = &'a OsStr>) -> Result<()> {
    // `su` without a login shell leaves root without the sbin directories.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program)
        .args(args)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program}, {}: {}", output.status, said.trim());
    }
    Ok(())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    fn mount_options(self) -> &'static str {
        match self {
            // It would cut holes into the image in the background, while we measure.
            Kind::Btrfs => "loop,nodiscard",
            Kind::Ext4 | Kind::Xfs => "loop",
        }
    }

    fn mkfs(self) -> (&'static str, &'static [&'static str]) {
        match self {
            // Otherwise the kernel writes the inode tables while we measure.
            Kind::Ext4 => {
                ("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            }
            Kind::Xfs => ("mkfs.xfs", &["-q", "-f"]),
            Kind::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
        }
    }
}
