//! The command as a whole: what a small run writes, and that it leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringseal-bench")).args(args).output().expect("it starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

#[test]
fn a_small_run_writes_its_json_and_its_drawing_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory to measure in");
    let out = tempfile::tempdir().expect("a directory for the output");
    let (json, svg) = (out.path().join("f.json"), out.path().join("f.svg"));
    let output = bench(&[
        "run",
        "--dir",
        text(dir.path()),
        "--files",
        "1,3",
        "--rounds",
        "1",
        "--json",
        text(&json),
        "--plot",
        text(&svg),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("std_loop") && printed.contains("3 files"), "{printed}");
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);

    let report: Value =
        serde_json::from_slice(&fs::read(&json).expect("written")).expect("it is JSON");
    assert_eq!(report["version"], 1);
    let skipped = report["skipped"].as_array().expect("an array");
    let failed: Vec<&Value> = skipped.iter().filter(|row| row["engine"] != "uring").collect();
    assert!(failed.is_empty(), "{failed:?}");
    let filesystem = &report["filesystems"][0];
    assert!(filesystem["filesystem"].is_string() && filesystem["flush_us"].is_number());
    let results = report["results"].as_array().expect("an array");
    assert!(results.len() >= 2 * 15, "{} rows", results.len());
    results.iter().for_each(check_row);

    let drawing = fs::read_to_string(&svg).expect("written");
    assert!(drawing.starts_with("<svg") && drawing.contains("std::fs loop"));
    let again = out.path().join("again.svg");
    assert!(bench(&["plot", text(&json), text(&again)]).status.success());
    assert_eq!(fs::read_to_string(&again).expect("written"), drawing);
}

fn check_row(row: &Value) {
    let us = |field: &str| row["us_per_file"][field].as_f64().expect("a number");
    assert!(us("min") <= us("median") && us("median") <= us("max"), "{row}");
    assert!(row["writer"].is_string() && row["engine"].is_string(), "{row}");
    assert_eq!(row["payload_bytes"], row["files"].as_u64().expect("a number") * 1024, "{row}");
    for field in ["cpu_us_per_file", "heap_bytes_per_file", "ratio_to_std_loop"] {
        assert!(row[field].is_number(), "{field} of {row}");
    }
    for field in ["device_writes", "device_bytes", "device_flushes", "device_flushes_per_file"] {
        assert!(row[field].is_number() || row[field].is_null(), "{field} of {row}");
    }
}

#[test]
fn chosen_writers_varied_sizes_one_directory() {
    let dir = tempfile::tempdir().expect("a directory to measure in");
    let args = ["run", "--files", "5", "--rounds", "1", "--layout", "one-dir", "--vary-size"];
    let only = ["--only", "std_loop,ringseal_replace*", "--dir", text(dir.path())];
    let output = bench(&[&args[..], &only[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("ringseal_replace_all") && !printed.contains("tokio"), "{printed}");
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
}

#[test]
fn an_unknown_writer_or_directory_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = bench(&["run", "--dir", text(dir.path()), "--only", "nothing"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing"));
    assert!(!bench(&["run", "--dir", "/no/such/directory"]).status.success());
}

#[test]
fn callers_save_with_every_writer() {
    let dir = tempfile::tempdir().expect("a directory to measure in");
    let out = tempfile::tempdir().expect("a directory for the output");
    let json = out.path().join("c.json");
    let args = ["callers", "--callers", "3", "--time", "1", "--rounds", "1", "--json", text(&json)];
    let output = bench(&[&args[..], &["--dir", text(dir.path())]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Value =
        serde_json::from_slice(&fs::read(&json).expect("written")).expect("it is JSON");
    let rows = rows.as_array().expect("an array");
    assert_eq!(rows.len(), 8);
    for row in rows {
        assert!(row["saves_per_second"].as_f64().expect("a number") > 0.0, "{row}");
        let us = |field: &str| row[field].as_u64().expect("a number");
        assert!(us("p50_us") <= us("p99_us") && us("p99_us") <= us("max_us"), "{row}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
}
