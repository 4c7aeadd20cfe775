//! `ringseal checkpoint` where something else stands in a file's or a directory's place: it fails
//! alone, and no link is followed or written through.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};
use serde_json::Value;

use crate::checkpoint::checkpoint;
use crate::command::*;

/// The failures of a checkpoint, ordered by target, each as `(target, step, errno)`.
fn failures(document: &Value, to: &Path) -> Vec<(String, String, i64)> {
    let mut all = Vec::new();
    for failure in document["failures"].as_array().unwrap() {
        let target = failure["target"].as_str().unwrap();
        let target = target.strip_prefix(to.to_str().unwrap()).unwrap().to_owned();
        let step = failure["step"].as_str().unwrap().to_owned();
        assert_eq!(failure["outcome"], "unchanged");
        all.push((target, step, failure["errno"].as_i64().unwrap()));
    }
    all.sort();
    all
}

fn expected(failures: &[(&str, &str, i64)]) -> Vec<(String, String, i64)> {
    let owned = |&(target, step, errno): &(&str, &str, i64)| (target.into(), step.into(), errno);
    failures.iter().map(owned).collect()
}

#[test]
fn a_source_that_cannot_be_read_fails_alone() {
    for engine in engines() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_states(from.path(), 20);
        let secret = from.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let file = |number: usize| from.path().join(format!("container-{number:05}/state.json"));
        for number in [3, 5, 7] {
            fs::remove_file(file(number)).unwrap();
        }
        symlink(&secret, file(3)).unwrap();
        rustix::fs::mknodat(CWD, file(5), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::create_dir(file(7)).unwrap();
        // An id that is a link to a directory with a state, and one that leads nowhere.
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("state.json"), "elsewhere").unwrap();
        symlink(elsewhere.path(), from.path().join("linked")).unwrap();
        symlink("nowhere", from.path().join("dangling")).unwrap();

        let output = checkpoint(from.path(), to.path(), &["--json", "--engine", engine]);
        assert_status(&output, 1);
        let document = json(&output);
        let all = expected(&[
            ("/container-00003/state.json", "read", 40),
            ("/container-00005/state.json", "read", 22),
            ("/container-00007/state.json", "read", 21),
            ("/dangling", "read", 40),
            ("/linked", "read", 40),
        ]);
        assert_eq!(failures(&document, to.path()), all);
        assert_eq!((&document["failed"], &document["files"]), (&5.into(), &17.into()));
        let lines: Vec<_> = stderr(&output).lines().collect();
        assert_eq!(lines.len(), 5);
        let line = format!(
            "ringseal: {}/linked: read: {}/linked: Too many levels of symbolic links \
             (os error 40); unchanged",
            to.path().display(),
            from.path().display()
        );
        assert!(lines.contains(&line.as_str()), "{lines:?}");

        assert_eq!(saved_states(to.path(), 20), 17);
        for number in [3, 5, 7] {
            let target = to.path().join(format!("container-{number:05}/state.json"));
            assert!(fs::symlink_metadata(target).is_err());
        }
        assert!(fs::symlink_metadata(to.path().join("linked")).is_err());
        assert_eq!(temporaries(to.path()), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn a_planted_link_is_not_written_through() {
    for engine in engines() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_states(from.path(), 10);
        let victim = tempfile::tempdir().unwrap();
        fs::write(victim.path().join("state.json"), "victim's").unwrap();
        // At a file: it is replaced.
        let id = to.path().join("container-00002");
        fs::create_dir(&id).unwrap();
        symlink(victim.path().join("state.json"), id.join("state.json")).unwrap();
        // At a directory: that container fails.
        symlink(victim.path(), to.path().join("container-00004")).unwrap();
        // So does one whose directory's place a file takes.
        fs::write(to.path().join("container-00006"), "in the way").unwrap();

        let output = checkpoint(from.path(), to.path(), &["--json", "--engine", engine]);
        assert_status(&output, 1);
        let all = expected(&[
            ("/container-00004", "make-directory", 20),
            ("/container-00006", "make-directory", 20),
        ]);
        assert_eq!(failures(&json(&output), to.path()), all);
        assert_eq!(fs::read(victim.path().join("state.json")).unwrap(), b"victim's");
        assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 1);
        assert!(fs::symlink_metadata(id.join("state.json")).unwrap().is_file());
        assert_eq!(fs::read(to.path().join("container-00006")).unwrap(), b"in the way");
        fs::remove_file(to.path().join("container-00004")).unwrap();
        assert_eq!(saved_states(to.path(), 10), 8);
    }
}

#[test]
fn a_target_that_cannot_be_replaced_fails_alone() {
    for engine in engines() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_states(from.path(), 10);
        fs::create_dir_all(to.path().join("container-00001/state.json")).unwrap();
        let output = checkpoint(from.path(), to.path(), &["--engine", engine]);
        assert_status(&output, 1);
        let line = format!(
            "ringseal: {}/container-00001/state.json: check: Is a directory (os error 21); \
             unchanged\n",
            to.path().display()
        );
        assert_eq!(stderr(&output), line);
        assert!(stdout(&output).contains("\nfailed:       1\n"), "{}", stdout(&output));
        fs::remove_dir(to.path().join("container-00001/state.json")).unwrap();
        assert_eq!(saved_states(to.path(), 10), 9);
    }
}

#[test]
fn a_name_cannot_forge_a_line_of_output() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink("nowhere", from.path().join("a\nringseal: b\u{1b}[2J")).unwrap();
    let output = checkpoint(from.path(), to.path(), &[]);
    assert_status(&output, 1);
    assert_eq!(stderr(&output).lines().count(), 1);
    assert!(stderr(&output).contains("/a\\nringseal: b\\u{1b}[2J: read: "), "{}", stderr(&output));
}
