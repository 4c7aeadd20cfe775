//! `ringseal recover`

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use crate::command::*;

/// The name of a temporary file whose owner is dead, as one that was killed has left it.
fn dead_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let (_dir, left) = leave_temporaries("threads");
        left[0].file_name().unwrap().to_str().unwrap().to_owned()
    })
}

fn plant(directory: &Path) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join(dead_name());
    fs::write(&path, "half").unwrap();
    path
}

#[test]
fn a_dry_run_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let planted = plant(dir.path());
    fs::write(dir.path().join("state.json"), "whole").unwrap();
    let path = dir.path().to_str().unwrap();

    let output = run(["recover", "--dry-run", path]);
    assert_status(&output, 0);
    let text = format!(
        "{}: its owner is dead: would be removed\n\
         1 temporary file in 1 directory: 1 would be removed, 0 would be left\n",
        planted.display()
    );
    assert_eq!((stdout(&output), stderr(&output)), (text.as_str(), ""));
    assert!(planted.exists());

    let output = run(["recover", path]);
    assert_status(&output, 0);
    let text = format!(
        "{}: its owner is dead: removed\n\
         1 temporary file in 1 directory: 1 removed, 0 left\n",
        planted.display()
    );
    assert_eq!((stdout(&output), stderr(&output)), (text.as_str(), ""));
    assert!(!planted.exists());
    assert_eq!(fs::read(dir.path().join("state.json")).unwrap(), b"whole");
}

#[test]
fn json_tells_each_file() {
    let dir = tempfile::tempdir().unwrap();
    let (planted, below) = (plant(dir.path()), plant(&dir.path().join("id")));
    let path = dir.path().to_str().unwrap();
    let document = |removed: bool, dry_run: bool| {
        json!({
            "command": "recover", "directory": path, "dry_run": dry_run, "recursive": false,
            "directories": 1, "removed": u64::from(removed), "left": u64::from(!removed),
            "leftovers": [{ "path": planted.to_str(), "owner": "dead", "removed": removed }],
            "not_entered": [], "failures": [], "store": null,
        })
    };
    let output = run(["recover", "--json", "--dry-run", path]);
    assert_eq!(json(&output), document(false, true));
    let output = run(["recover", "--json", path]);
    assert_eq!(json(&output), document(true, false));
    assert!(below.exists(), "it looks below only if it is asked to");
}

#[test]
fn recursion_follows_no_link() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inside =
        [plant(dir.path()), plant(&dir.path().join("a")), plant(&dir.path().join("a/b/c"))];
    let spared = plant(&outside.path().join("id"));
    symlink(outside.path(), dir.path().join("link")).unwrap();
    symlink(outside.path().join("id"), dir.path().join("a/link")).unwrap();
    let output = run(["recover", "--recursive", "--json", dir.path().to_str().unwrap()]);
    assert_status(&output, 0);
    let document = json(&output);
    assert_eq!((&document["removed"], &document["directories"]), (&json!(3), &json!(4)));
    let shown = document["leftovers"].as_array().unwrap().iter();
    let shown: Vec<_> = shown.map(|leftover| leftover["path"].as_str().unwrap()).collect();
    assert_eq!(shown, inside.each_ref().map(|path| path.to_str().unwrap()));
    assert!(inside.iter().all(|path| !path.exists()));
    assert!(spared.exists());
}

#[test]
fn recursion_stays_on_its_filesystem() {
    let dir = tempfile::tempdir().unwrap();
    let (planted, mounted) = (plant(dir.path()), dir.path().join("mounted"));
    fs::create_dir(&mounted).unwrap();
    // In a mount namespace of its own: what is mounted goes with it.
    let script = "mount -t tmpfs none \"$1/mounted\" || exit 77
        echo half > \"$1/mounted/$2\"
        \"$3\" recover --recursive \"$1\" || exit
        test -e \"$1/mounted/$2\" || exit 78";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(dir.path()).arg(dead_name());
    let output = command.arg(env!("CARGO_BIN_EXE_ringseal")).output().unwrap();
    if output.status.code() == Some(77) || stderr(&output).starts_with("unshare: ") {
        assert_ne!(std::env::var("RINGSEAL_NO_SKIP").as_deref(), Ok("1"), "nothing can be mounted");
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    assert_status(&output, 0);
    assert!(!planted.exists());
    let line = format!("{}: another filesystem: not entered\n", mounted.display());
    assert!(stdout(&output).contains(&line), "{}", stdout(&output));
}

#[test]
fn what_merely_looks_like_a_temporary_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let name = dead_name();
    let looks = [format!("{name}.old"), format!("x{name}"), ".ringseal-1-".to_owned()];
    for look in &looks {
        fs::write(dir.path().join(look), "mine").unwrap();
    }
    fs::create_dir(dir.path().join(name)).unwrap();
    let output = run(["recover", "--recursive", dir.path().to_str().unwrap()]);
    assert_status(&output, 0);
    assert_eq!(stdout(&output), "0 temporary files in 2 directories: 0 removed, 0 left\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn a_directory_that_cannot_be_read_is_a_failure() {
    for options in [&["recover"][..], &["recover", "--recursive"]] {
        let output = run([options, &["/nowhere/at/all", "--json"]].concat());
        assert_status(&output, 1);
        let message =
            "/nowhere/at/all: open-directory: No such file or directory (os error 2); unchanged";
        assert_eq!(stderr(&output), format!("ringseal: {message}\n"));
        let document = json(&output);
        assert_eq!(document["failures"][0]["message"], message);
        assert_eq!(document["failures"][0]["errno"], 2);
        assert_eq!(document["directories"], 0);
    }
}

#[test]
fn a_deep_tree_is_walked_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut deep = dir.path().to_owned();
    for _ in 0..200 {
        deep.push("d");
    }
    let planted = plant(&deep);
    let output = run(["recover", "--recursive", "--json", dir.path().to_str().unwrap()]);
    assert_status(&output, 0);
    assert_eq!(json(&output)["directories"], 201);
    assert!(!planted.exists());
}
