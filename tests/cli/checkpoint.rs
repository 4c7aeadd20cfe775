//! `ringseal checkpoint`: what is saved, and what is counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::command::*;
use crate::support::{Disk, need};

pub fn checkpoint(from: &Path, to: &Path, options: &[&str]) -> Output {
    let mut command = ringseal();
    command.arg("checkpoint").arg("--from").arg(from).arg("--to").arg(to);
    command.args(options).stdin(Stdio::null()).output().unwrap()
}

/// The files with these names in the directories of `directory`.
fn files_of(directory: &Path, names: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for id in fs::read_dir(directory).unwrap() {
        let id = id.unwrap().path();
        files.extend(names.iter().map(|name| id.join(name)).filter(|file| file.exists()));
    }
    files.sort();
    files
}

#[test]
fn the_sample_states_arrive_as_they_are() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/states");
    for engine in engines() {
        let dir = tempfile::tempdir().unwrap();
        // Directories above it are missing, too.
        let to = dir.path().join("saved/run");
        let output = checkpoint(&from, &to, &["--json", "--engine", engine]);
        assert_status(&output, 0);
        assert_eq!(stderr(&output), "");
        let sources = files_of(&from, &["state.json"]);
        let mut bytes = 0;
        for source in &sources {
            let target = to.join(source.strip_prefix(&from).unwrap());
            let content = fs::read(source).unwrap();
            assert_eq!(fs::read(&target).unwrap(), content);
            assert_eq!(mode(&target), mode(source), "{}", target.display());
            let (id, saved_id) = (source.parent().unwrap(), target.parent().unwrap());
            assert_eq!(mode(saved_id), mode(id), "{}", saved_id.display());
            bytes += content.len();
        }
        assert_eq!(sources.len(), 25, "the samples have changed: so must this test");
        assert_eq!(files_of(&to, &["state.json", "init.pid", "status"]).len(), sources.len());
        assert_eq!(fs::read_dir(&to).unwrap().count(), sources.len());
        assert_eq!((mode(dir.path().join("saved")), mode(&to)), (0o700, 0o700));
        assert_eq!(temporaries(dir.path()), Vec::<PathBuf>::new());

        let document = json(&output);
        assert_eq!(document["command"], "checkpoint");
        assert_eq!(document["from"], from.to_str().unwrap());
        assert_eq!(document["to"], to.to_str().unwrap());
        assert_eq!(document["files"], sources.len());
        assert_eq!(document["bytes"], bytes);
        assert!(document["seconds"].as_f64().unwrap() > 0.0);
        let counts = document["durability"].as_object().unwrap().values();
        assert_eq!(counts.map(|count| count.as_u64().unwrap()).sum::<u64>(), 25);
        assert_eq!((&document["failed"], &document["vanished"]), (&json!(0), &json!(0)));
        assert_eq!(document["interrupted"], false);
        assert_eq!(document["engine"]["kind"], *engine);
        assert_eq!(document["filesystem"]["directory"], to.to_str().unwrap());
        assert_eq!(document["failures"], json!([]));
    }
}

#[test]
fn modes_of_files_and_directories_are_kept() {
    for engine in engines() {
        let (from, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = dir.path().join("saved");
        make_states(from.path(), 4);
        let modes = [(0o600, 0o700), (0o644, 0o755), (0o640, 0o2710), (0o444, 0o711)];
        for (number, (of_file, of_id)) in modes.into_iter().enumerate() {
            let id = from.path().join(format!("container-{number:05}"));
            set_mode(id.join("state.json"), of_file);
            set_mode(id, of_id);
        }
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_ringseal")]);
        command.args(["checkpoint", "--engine", engine, "--from"]).arg(from.path());
        assert_status(&command.arg("--to").arg(&to).output().unwrap(), 0);
        assert_eq!(saved_states(&to, 4), 4);
        for (number, (of_file, of_id)) in modes.into_iter().enumerate() {
            let id = to.join(format!("container-{number:05}"));
            assert_eq!(mode(id.join("state.json")), of_file, "{engine}");
            assert_eq!(mode(id), of_id & 0o777, "{engine}");
        }
    }
}

#[test]
fn names_that_are_given_replace_the_default() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/states");
    for engine in engines() {
        let to = tempfile::tempdir().unwrap();
        let names = ["--name", "init.pid", "--name", "status", "--name", "status"];
        let options = [&names[..], &["--json", "--engine", engine]].concat();
        let output = checkpoint(&from, to.path(), &options);
        assert_status(&output, 0);
        let sources = files_of(&from, &["init.pid", "status"]);
        assert_eq!(sources.len(), 9, "the samples have changed: so must this test");
        for source in &sources {
            let target = to.path().join(source.strip_prefix(&from).unwrap());
            assert_eq!(fs::read(&target).unwrap(), fs::read(source).unwrap());
        }
        assert_eq!(json(&output)["files"], 9);
        assert_eq!(files_of(to.path(), &["state.json"]), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_second_checkpoint_replaces_the_first() {
    for engine in engines() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_states(from.path(), 300);
        assert_status(&checkpoint(from.path(), to.path(), &["--engine", engine]), 0);
        let changed = "container-00299/state.json";
        fs::write(from.path().join(changed), "changed").unwrap();
        assert_status(&checkpoint(from.path(), to.path(), &["--engine", engine]), 0);
        assert_eq!(fs::read(to.path().join(changed)).unwrap(), b"changed");
        assert_eq!(saved_states(to.path(), 299), 299);
    }
}

#[test]
fn what_is_no_container_is_no_item() {
    let (from, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let to = dir.path().join("saved");
    make_states(from.path(), 1);
    fs::write(from.path().join("README"), "a file").unwrap();
    fs::create_dir(from.path().join("empty")).unwrap();
    fs::create_dir_all(from.path().join("deep/er")).unwrap();
    fs::write(from.path().join("deep/er/state.json"), "too deep").unwrap();
    let output = checkpoint(from.path(), &to, &["--json"]);
    assert_status(&output, 0);
    assert_eq!(json(&output)["files"], 1);
    let ids: Vec<_> = fs::read_dir(&to).unwrap().map(|id| id.unwrap().file_name()).collect();
    assert_eq!(ids, ["container-00000"]);
}

#[test]
fn few_descriptors_are_enough() {
    for engine in engines() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_states(from.path(), 600);
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 48; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_ringseal")]);
        command.args(["checkpoint", "--engine", engine, "--from"]).arg(from.path());
        assert_status(&command.arg("--to").arg(to.path()).output().unwrap(), 0);
        assert_eq!(saved_states(to.path(), 600), 600);
    }
}

#[test]
fn the_text_tells_the_same() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_states(from.path(), 2);
    let output = checkpoint(from.path(), to.path(), &["--engine", "threads"]);
    assert_status(&output, 0);
    let text = stdout(&output);
    assert!(text.starts_with("saved:        2 files, 1.02 KiB, in "), "{text}");
    assert!(text.contains("\nfailed:       0\nengine:       threads (asked for)\n"), "{text}");
    assert!(text.contains("\nfilesystem:   "), "{text}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn stats_are_told_where_they_are_asked_for() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_states(from.path(), 20);
    // What cannot be replaced.
    fs::create_dir_all(to.path().join("container-00007/state.json")).unwrap();
    for engine in engines() {
        let output = checkpoint(from.path(), to.path(), &["--json", "--engine", engine, "--stats"]);
        assert_status(&output, 1);
        let stats = &json(&output)["stats"];
        assert_eq!((&stats["accepted"], &stats["answered"]), (&json!(20), &json!(20)));
        assert_eq!((&stats["failed"], &stats["failures"]), (&json!(1), &json!({ "check": 1 })));
        assert_eq!(stats["bytes"], json(&output)["bytes"]);
        assert_eq!((&stats["in_flight"], &stats["oldest_in_flight"]), (&json!(0), &json!(null)));
        assert_eq!(stats["latency"]["count"], 20);
        let carried = stats["carried"].as_object().unwrap().values();
        assert_eq!(carried.map(|count| count.as_u64().unwrap()).sum::<u64>(), 19);

        let options = ["--engine", engine, "--stats"];
        let text = stdout(&checkpoint(from.path(), to.path(), &options)).to_owned();
        let table = &text[text.find("\nwriter\n").expect("a table")..];
        for row in [
            "  accepted                    20\n",
            "  failed                       1\n",
            "    at check                   1\n",
        ] {
            assert!(table.contains(row), "{text}");
        }
        assert!(table.contains("  latency, mean "), "{text}");
    }
    let output = checkpoint(from.path(), to.path(), &["--json"]);
    assert!(json(&output).get("stats").is_none());
    assert!(!stdout(&checkpoint(from.path(), to.path(), &[])).contains("writer"));
}

#[test]
fn it_tells_how_often_the_device_was_flushed() {
    let from = tempfile::tempdir().unwrap();
    make_states(from.path(), 20);
    for make in [Disk::ext4, Disk::xfs, Disk::btrfs] {
        let disk = need!(make());
        let output = checkpoint(from.path(), &disk.path().join("to"), &["--json"]);
        assert_status(&output, 0);
        let flushes = json(&output)["flushes"].as_u64().unwrap();
        // The directories, the files, their renames: each a flush at least.
        assert!((3..200).contains(&flushes), "{}: {flushes}", disk.name());
        let output = checkpoint(from.path(), &disk.path().join("to"), &[]);
        assert!(stdout(&output).contains("\nflushes:      "), "{}", stdout(&output));
    }
    let memory = need!(Disk::tmpfs(8 << 20, None));
    let output = checkpoint(from.path(), &memory.path().join("to"), &["--json"]);
    assert!(json(&output)["flushes"].is_null());
}

#[test]
fn one_directory_is_not_saved_into_itself() {
    let from = tempfile::tempdir().unwrap();
    make_states(from.path(), 1);
    let alias = from.path().with_extension("alias");
    std::os::unix::fs::symlink(from.path(), &alias).unwrap();
    for to in [from.path(), &alias, &from.path().join("container-00000/..")] {
        let output = checkpoint(from.path(), to, &[]);
        assert_status(&output, 2);
        assert!(stderr(&output).contains("--from and --to are the same directory"));
    }
    fs::remove_file(alias).unwrap();
}

#[test]
fn a_source_that_is_missing_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let output = checkpoint(&from, &to, &["--json"]);
    assert_status(&output, 1);
    let message = format!(
        "{}: open-directory: No such file or directory (os error 2); unchanged",
        from.display()
    );
    assert_eq!(stderr(&output), format!("ringseal: {message}\n"));
    assert_eq!(json(&output)["failures"][0]["message"], message);
    assert_eq!(json(&output)["failed"], 1);
    assert!(!to.exists());
}
