//! `recover` removes what a dead writer left, and nothing else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::Command;

use ringseal::{AtomicFile, OwnerState, leftovers, recover};
use tempfile::tempdir;

use crate::support::{child, need, require_root, skip, spawn_child, tree};

const NAME: &str = "recovery::a_dead_writers_temp_goes_a_live_ones_stays";

#[test]
fn a_dead_writers_temp_goes_a_live_ones_stays() {
    child::run_if_child(NAME, leave_a_temp);
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    let mut process = spawn_child(NAME, [("DIR", path)]);
    let mut lines = child::lines(&mut process);
    assert_eq!(lines.next().as_deref(), Some("left"));
    let mine = AtomicFile::create(dir.path().join("mine")).unwrap();
    let names = tree::names(dir.path());
    assert_eq!(names.len(), 2);

    // Both are alive.
    let found = recover(dir.path()).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|left| left.owner == OwnerState::Alive && !left.removed));
    assert_eq!(tree::names(dir.path()), names);

    child::kill(process);
    let listed = leftovers(dir.path()).unwrap();
    assert!(listed.iter().all(|left| !left.removed));
    assert_eq!(tree::names(dir.path()), names, "listing removes nothing");
    let found = recover(dir.path()).unwrap();
    let dead: Vec<_> = found.iter().filter(|left| left.owner == OwnerState::Dead).collect();
    assert_eq!(dead.len(), 1);
    assert!(dead[0].removed && !dead[0].path.exists());
    assert_eq!(tree::names(dir.path()).len(), 1);
    mine.commit().unwrap();
    assert!(dir.path().join("mine").exists());
    assert_eq!(recover(dir.path()).unwrap(), []);
}

fn leave_a_temp() {
    let dir = std::env::var("DIR").unwrap();
    let mut file = AtomicFile::create(std::path::Path::new(&dir).join("theirs")).unwrap();
    file.write_all(b"half").unwrap();
    println!("left");
    loop {
        std::thread::park();
    }
}

#[test]
fn what_merely_looks_like_one_stays() {
    let dir = tempdir().unwrap();
    let dead =
        format!(".ringseal-1-{:016x}-{:032x}-{:x}-{:x}-{:x}-{:x}-{:016x}", 1, 2, 3, 4, 5, 6, 7);
    let lookalikes = [
        ".ringseal-1-x".to_owned(),
        ".ringseal-2-".to_owned() + &dead[12..],
        dead.clone() + ".bak",
        dead.to_uppercase(),
        dead[1..].to_owned(),
        "state.json".to_owned(),
        "state.json.tmp".to_owned(),
    ];
    for name in &lookalikes {
        fs::write(dir.path().join(name), "precious").unwrap();
    }
    // Of the right form, but of a machine and a boot that nobody here can judge.
    fs::write(dir.path().join(&dead), "another host's").unwrap();
    let found = recover(dir.path()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].owner, found[0].removed), (OwnerState::OtherMachine, false));
    assert_eq!(tree::names(dir.path()).len(), lookalikes.len() + 1);
}

#[test]
fn what_is_no_file_stays() {
    let dir = tempdir().unwrap();
    let name = name_of_an_earlier_boot();
    fs::create_dir(dir.path().join(&name)).unwrap();
    assert_eq!(recover(dir.path()).unwrap(), []);
    assert!(dir.path().join(&name).is_dir());
}

#[test]
fn a_temp_of_an_earlier_boot_goes() {
    let dir = tempdir().unwrap();
    let name = name_of_an_earlier_boot();
    fs::write(dir.path().join(&name), "half").unwrap();
    let found = recover(dir.path()).unwrap();
    assert_eq!((found[0].owner, found[0].removed), (OwnerState::EarlierBoot, true));
    // A link that keep-previous made to a symbolic link is one too; what it points to is not.
    fs::write(dir.path().join("precious"), "").unwrap();
    symlink("precious", dir.path().join(&name)).unwrap();
    assert!(recover(dir.path()).unwrap()[0].removed);
    assert_eq!(tree::names(dir.path()).len(), 1);
}

/// A name as this process makes them, with another boot in it.
fn name_of_an_earlier_boot() -> String {
    let dir = tempdir().unwrap();
    let _file = AtomicFile::create(dir.path().join("x")).unwrap();
    let name = tree::names(dir.path()).pop_first().unwrap();
    let mut fields: Vec<_> = name.split('-').collect();
    let boot = "0123456789abcdef0123456789abcdef";
    fields[3] = boot;
    fields.join("-")
}

/// From a pid namespace of its own a live owner looks dead: nothing of it may be removed.
#[test]
fn from_another_pid_namespace_nothing_is_removed() {
    const NAME: &str = "recovery::from_another_pid_namespace_nothing_is_removed";
    child::run_if_child(NAME, || {
        let found = recover(std::env::var("DIR").unwrap()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(!found[0].removed, "{found:?}");
        assert_eq!(found[0].owner, OwnerState::OtherNamespace);
    });
    need!(require_root());
    let dir = tempdir().unwrap();
    let _file = AtomicFile::create(dir.path().join("mine")).unwrap();
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env("RINGSEAL_TEST_CHILD", NAME)
        .env("DIR", dir.path())
        .output();
    let Ok(output) = output else {
        skip!("there is no unshare(1)");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(tree::names(dir.path()).len(), 1);
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let error = recover("/nowhere").unwrap_err();
    assert_eq!(error.step(), ringseal::Step::OpenDirectory);
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
}
