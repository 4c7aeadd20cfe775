//! `ringseal write`

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::command::*;

/// Arguments for no engine, and for each that there is.
pub fn engine_arguments() -> Vec<Vec<&'static str>> {
    let mut all = vec![vec![]];
    all.extend(engines().iter().map(|engine| vec!["--engine", *engine]));
    all
}

#[test]
fn standard_input_becomes_the_file_and_nothing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("state.json");
    let input = vec![b'n'; 3 << 20];
    for engine in engine_arguments() {
        fs::write(&target, "old").unwrap();
        let output = run_with(["write", target.to_str().unwrap()].iter().chain(&engine), &input);
        assert_status(&output, 0);
        assert_eq!((stdout(&output), stderr(&output)), ("", ""));
        assert!(fs::read(&target).unwrap() == input, "{engine:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn the_mode_is_exact_whatever_the_umask_is() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("state.json");
    for engine in engine_arguments() {
        for (umask, option, expected) in [
            ("077", "--mode=644", 0o644),
            ("077", "--mode=0777", 0o777),
            ("077", "--mode=0o040", 0o040),
            ("000", "--mode=600", 0o600),
            ("000", "--level=durable", 0o600),
        ] {
            let mut command = Command::new("sh");
            let script = format!("umask {umask}; exec \"$@\"");
            command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_ringseal"), "write"]);
            let output = feed(command.arg(&target).arg(option).args(&engine), b"new");
            assert_status(&output, 0);
            assert_eq!(mode(&target), expected, "{umask} {option} {engine:?}");
        }
    }
}

#[test]
fn keep_mode_takes_it_from_the_old_version() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("state.json");
    for engine in engine_arguments() {
        fs::write(&target, "old").unwrap();
        set_mode(&target, 0o604);
        let arguments = ["write", target.to_str().unwrap(), "--keep-mode", "--mode", "640"];
        assert_status(&run_with(arguments.iter().chain(&engine), "new"), 0);
        assert_eq!((mode(&target), &*fs::read(&target).unwrap()), (0o604, &b"new"[..]));
        fs::remove_file(&target).unwrap();
        assert_status(&run_with(arguments.iter().chain(&engine), "new"), 0);
        assert_eq!(mode(&target), 0o640);
    }
}

#[test]
fn create_new_leaves_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    for (number, engine) in engine_arguments().into_iter().enumerate() {
        let target = dir.path().join(number.to_string());
        let arguments = ["write", target.to_str().unwrap(), "--create-new"];
        assert_status(&run_with(arguments.iter().chain(&engine), "first"), 0);
        let output = run_with(arguments.iter().chain(&engine), "second");
        assert_status(&output, 1);
        let line = format!(
            "ringseal: {}: check: File exists (os error 17); unchanged\n",
            target.display()
        );
        assert_eq!(stderr(&output), line);
        assert_eq!(stdout(&output), "");
        assert_eq!(fs::read(&target).unwrap(), b"first");
    }
}

#[test]
fn keep_previous_keeps_the_version_before() {
    let dir = tempfile::tempdir().unwrap();
    for (number, engine) in engine_arguments().into_iter().enumerate() {
        let target = dir.path().join(number.to_string());
        let name = format!("{number}.previous");
        let previous = dir.path().join(&name);
        let arguments = ["write", target.to_str().unwrap(), "--keep-previous", &name];
        assert_status(&run_with(arguments.iter().chain(&engine), "first"), 0);
        assert!(!previous.exists());
        assert_status(&run_with(arguments.iter().chain(&engine), "second"), 0);
        assert_eq!(fs::read(&previous).unwrap(), b"first");
        assert_status(&run_with(arguments.iter().chain(&engine), "third"), 0);
        assert_eq!(fs::read(&previous).unwrap(), b"second");
        assert_eq!(fs::read(&target).unwrap(), b"third");
        assert_eq!(temporaries(dir.path()), Vec::<PathBuf>::new());
    }
}

#[test]
fn no_input_makes_an_empty_file() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("state.json");
    for engine in engine_arguments() {
        fs::write(&target, "old").unwrap();
        let arguments = ["write", target.to_str().unwrap(), "--json"];
        let output = run_with(arguments.iter().chain(&engine), "");
        assert_status(&output, 0);
        assert_eq!(fs::read(&target).unwrap(), b"");
        assert_eq!(json(&output)["bytes"], 0);
    }
}

#[test]
fn json_tells_who_did_what() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("state.json");
    let filesystem = json(&run(["probe", "--json", dir.path().to_str().unwrap()]));
    let expected = match &filesystem["filesystem"] {
        found if found["sync"] == "nothing" => "volatile",
        found if found["provable"] == true => "durable",
        _ => "durable_unproven",
    };
    for engine in engine_arguments() {
        let arguments = ["write", target.to_str().unwrap(), "--json"];
        let output = run_with(arguments.iter().chain(&engine), "new!");
        assert_status(&output, 0);
        let mut document = json(&output);
        let (kind, carrier) = match engine.get(1) {
            None => (json!(null), "caller"),
            Some(&"uring") => (json!("uring"), "ring"),
            Some(name) => (json!(name), "pool"),
        };
        assert_eq!(document["engine"]["kind"], kind);
        document["engine"] = json!(null);
        let all = json!({
            "command": "write", "target": target.to_str(), "bytes": 4, "durability": expected,
            "carrier": carrier, "engine": null, "failures": [],
        });
        assert_eq!(document, all);
    }
    let output = run_with(["write", target.to_str().unwrap(), "--json", "--level=atomic"], "new");
    let durability = json(&output)["durability"].clone();
    assert_eq!(durability, if expected == "volatile" { "volatile" } else { "atomic" });
}
