//! What voids the promises is found, and what is good is not complained of.

use ringseal::{FilesystemProbe, HostProbe, SyncMeans, probe_directory};

use crate::support::{Disk, has_tmpfile, need};

fn probe(disk: &Disk) -> FilesystemProbe {
    probe_directory(disk.path()).unwrap()
}

#[track_caller]
fn assert_warns(disk: &Disk, of: &str) {
    let found = probe(disk);
    assert!(found.warnings.iter().any(|warning| warning.contains(of)), "{found:?}");
}

#[test]
fn what_voids_the_promises_is_warned_of() {
    assert_warns(&need!(Disk::ext4_with(64 << 20, &["-b", "4096"], "nobarrier")), "nobarrier");
    let fast_commit = &["-b", "4096", "-O", "fast_commit"];
    assert_warns(&need!(Disk::ext4_with(64 << 20, fast_commit, "defaults")), "fast_commit");
    assert_warns(&need!(Disk::btrfs_with(300 << 20, &[], "nobarrier")), "nobarrier");
    assert_warns(&need!(Disk::overlay("volatile")), "volatile");
    let disk = need!(Disk::ext4());
    disk.remount_read_only();
    assert_warns(&disk, "read-only");
}

#[test]
fn a_good_filesystem_has_no_warning() {
    for disk in Disk::each() {
        let disk = need!(disk);
        let found = probe(&disk);
        assert_eq!(found.warnings, [""; 0], "{found:?}");
        assert_eq!(found.kind, disk.name());
        assert_eq!(found.provable, has_tmpfile(disk.path()), "{found:?}");
        assert_eq!(found.mount_point.as_deref(), Some(disk.path()));
        let volatile = disk.name() == "tmpfs";
        assert_eq!(found.sync, if volatile { SyncMeans::Nothing } else { SyncMeans::Durable });
    }
}

#[test]
fn the_host_is_described() {
    let host = HostProbe::new();
    assert!(host.kernel.starts_with(|first: char| first.is_ascii_digit()), "{}", host.kernel);
    assert_eq!(host.ring.operations.len(), 7);
    assert!(host.descriptors_max.is_none_or(|limit| limit > 16));
    if host.ring.is_usable() {
        assert!(host.ring.operations.iter().all(|(_, there)| *there));
        assert!(host.ring.failed_sync_breaks_chain.is_some());
    }
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    assert_eq!(probe_directory("/nowhere").unwrap_err().raw_os_error(), Some(libc::ENOENT));
}
