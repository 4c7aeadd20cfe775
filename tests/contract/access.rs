//! The mode asked for is the mode on disk, and what is to be kept is kept.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use ringseal::{Carrier, Options, Request, Step};
use tempfile::tempdir;

use crate::doors::{Door, assert_reads, assert_unchanged};
use crate::support::{Disk, assert_no_temps, in_child, need, require_root};

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_mode_is_exact_whatever_the_umask() {
    in_child("access::the_mode_is_exact_whatever_the_umask", || {
        let dir = tempdir().unwrap();
        for umask in [0o077, 0o022, 0o000, 0o777] {
            // SAFETY: sets a number of the process, which is this test's own.
            unsafe { libc::umask(umask) };
            for door in Door::all() {
                for mode in [0o644, 0o600, 0o666, 0o777, 0o440, 0o000] {
                    let target = dir.path().join(format!("{}-{umask:o}-{mode:o}", door.name()));
                    door.save_with(&Options::new().mode(mode), &target, "new").unwrap();
                    assert_eq!(mode_of(&target), mode, "{}", target.display());
                }
                let target = dir.path().join(format!("{}-{umask:o}", door.name()));
                door.save(&target, "new").unwrap();
                assert_eq!(mode_of(&target), 0o600, "{}", target.display());
            }
            // SAFETY: as above; reads the umask by setting it.
            assert_eq!(unsafe { libc::umask(umask) }, umask, "the process's umask is its own");
        }
    });
}

#[test]
fn other_bits_than_permissions_are_refused() {
    let dir = tempdir().unwrap();
    for door in Door::all() {
        let options = Options::new().mode(0o4755);
        let result = door.save_with(&options, dir.path().join("x"), "new");
        assert_unchanged(result, Step::Accept, libc::EINVAL);
    }
}

#[test]
fn the_mode_of_the_target_is_kept_if_asked() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    let keep = Options::new().keep_mode().mode(0o640);
    for door in Door::all() {
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o604)).unwrap();
        door.save_with(&keep, &target, "new").unwrap();
        assert_eq!(mode_of(&target), 0o604);
        // Nothing there: the mode that was given.
        fs::remove_file(&target).unwrap();
        door.save_with(&keep, &target, "new").unwrap();
        assert_eq!(mode_of(&target), 0o640);
        // Not asked: the default, whatever was there.
        door.save(&target, "new").unwrap();
        assert_eq!(mode_of(&target), 0o600);
        // A link's own mode, 0777, says nothing.
        fs::remove_file(&target).unwrap();
        std::os::unix::fs::symlink("elsewhere", &target).unwrap();
        door.save_with(&keep, &target, "new").unwrap();
        assert_eq!(mode_of(&target), 0o640);
    }
}

#[test]
fn the_owner_of_the_target_is_kept_if_asked() {
    need!(require_root());
    let dir = tempdir().unwrap();
    let target = dir.path().join("state.json");
    let save = |options: Options| {
        for writer in Door::writers() {
            own(&target);
            let request = Request::new(&target, "new").with(options.clone());
            let receipt = pollster::block_on(writer.submit(request)).unwrap();
            assert_eq!(receipt.carrier, Carrier::Pool, "the ring has no fchown");
            let stat = fs::metadata(&target).unwrap();
            assert_eq!((stat.uid(), stat.gid(), mode_of(&target)), (1234, 4321, 0o600));
        }
    };
    save(Options::new().keep_owner());
    own(&target);
    Options::new().keep_owner().replace(&target, "plain").unwrap();
    assert_eq!(fs::metadata(&target).unwrap().uid(), 1234);
    Options::new().replace(&target, "plain").unwrap();
    assert_eq!(fs::metadata(&target).unwrap().uid(), 0);
}

fn own(target: &Path) {
    fs::write(target, "old").unwrap();
    std::os::unix::fs::chown(target, Some(1234), Some(4321)).unwrap();
}

#[test]
fn a_default_access_list_does_not_change_the_mode() {
    let disk = need!(Disk::ext4());
    setfacl(&["-d", "-m", "u::rw,g::-,o::-,u:1234:r,m::r"], disk.path());
    // What the list makes of 0644 where nobody corrects it.
    let naive = disk.path().join("naive");
    fs::write(&naive, "").unwrap();
    assert_ne!(mode_of(&naive), 0o644, "the test must be able to fail");
    for (index, mode) in [0o644, 0o600, 0o666].into_iter().enumerate() {
        let options = Options::new().mode(mode);
        let target = disk.path().join(format!("plain-{index}"));
        options.replace(&target, "new").unwrap();
        assert_eq!(mode_of(&target), mode);
        for writer in Door::writers() {
            let target = disk.path().join(format!("{}-{index}", writer.engine().kind.name()));
            let request = Request::new(&target, "new").with(options.clone());
            let receipt = pollster::block_on(writer.submit(request)).unwrap();
            assert_eq!(receipt.carrier, Carrier::Pool, "a real descriptor is needed");
            assert_eq!(mode_of(&target), mode);
            assert_reads(&target, "new");
            // Nor does it let anybody else in, or keep the group out.
            let list = getfacl(&target);
            let shut_out = list.contains("user:1234:r--\t#effective:---");
            assert!(!list.contains("user:1234") || (mode == 0o600 && shut_out), "{list}");
        }
    }
    assert!(getfacl(&naive).contains("user:1234"), "the test must be able to fail");
    // Kept is what the old version had, and it had no list.
    let old = disk.path().join("plain-0");
    Options::new().keep_mode().replace(&old, "kept").unwrap();
    assert_eq!(mode_of(&old), 0o644);
    assert!(!getfacl(&old).contains("user:1234"));
    assert_no_temps(disk.path());
}

#[test]
fn the_access_list_of_the_target_is_kept_with_its_mode() {
    let disk = need!(Disk::xfs());
    let target = disk.path().join("state.json");
    for door in ["plain", "writer"] {
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        setfacl(&["-m", "u:1234:rw,g::-"], &target);
        let before = getfacl(&target);
        assert!(before.contains("user:1234:rw-"), "{before}");
        let options = Options::new().keep_mode();
        if door == "plain" {
            options.replace(&target, "new").unwrap();
        } else {
            for writer in Door::writers() {
                let request = Request::new(&target, "new").with(options.clone());
                pollster::block_on(writer.submit(request)).unwrap();
            }
        }
        assert_eq!(getfacl(&target), before);
        fs::remove_file(&target).unwrap();
    }
}

fn setfacl(arguments: &[&str], path: &Path) {
    let status = Command::new("setfacl").args(arguments).arg(path).status().expect("setfacl");
    assert!(status.success());
}

fn getfacl(path: &Path) -> String {
    let output = Command::new("getfacl").arg("-cpn").arg(path).output().expect("getfacl");
    String::from_utf8(output.stdout).unwrap()
}
