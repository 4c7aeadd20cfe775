//! Which filesystem a directory is on, from the mount table.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use procfs::process::{MountInfo, Process};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::device::Device;

#[derive(Debug, Clone)]
pub(crate) struct Filesystem {
    pub kind: String,
    /// Of the mount and of the filesystem, sorted.
    pub options: String,
    pub device: Option<Device>,
    pub device_name: Option<String>,
}

impl Filesystem {
    pub(crate) fn of(dir: &Path) -> Result<Filesystem> {
        let found = statx(CWD, dir, AtFlags::empty(), StatxFlags::MNT_ID)
            .with_context(|| format!("look at {}", dir.display()))?;
        let mounts = Process::myself().and_then(|me| me.mountinfo()).context("the mount table")?;
        let mount = mounts
            .into_iter()
            .find(|mount| u64::try_from(mount.mnt_id) == Ok(found.stx_mnt_id))
            .ok_or_else(|| anyhow!("{} is on no mount", dir.display()))?;
        Ok(Filesystem::from_mount(&mount))
    }

    fn from_mount(mount: &MountInfo) -> Filesystem {
        let device = Device::find(mount.mount_source.as_deref(), &mount.majmin);
        let device_name = device.as_ref().and(mount.mount_source.clone());
        Filesystem { kind: mount.fs_type.clone(), options: options(mount), device, device_name }
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }
}

fn options(mount: &MountInfo) -> String {
    let both = mount.mount_options.iter().chain(&mount.super_options);
    let mut options: Vec<String> = both
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        })
        .collect();
    options.sort();
    options.dedup();
    options.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table() {
        let line =
            "36 35 0:53 /sub /mnt/a\\040b rw,noatime shared:1 - btrfs none rw,space_cache=v2";
        let filesystem = Filesystem::from_mount(&MountInfo::from_line(line).expect("valid"));
        assert_eq!(filesystem.kind, "btrfs");
        assert_eq!(filesystem.options, "noatime,rw,space_cache=v2");
        assert!(filesystem.device.is_none());
        assert!(filesystem.device_name.is_none());
    }

    #[test]
    fn proc_is_found_in_the_mount_table() {
        let proc = Filesystem::of(Path::new("/proc")).expect("mounted");
        assert_eq!(proc.kind, "proc");
        assert!(proc.device.is_none());
        assert!(Filesystem::of(Path::new("/no/such/directory")).is_err());
    }
}
