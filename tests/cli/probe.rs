//! `ringseal probe`

use std::fs;

use serde_json::Value;

use crate::command::*;

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned()
}

#[test]
fn json_holds_what_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let output = run(["probe", path, "--json"]);
    assert_status(&output, 0);
    let document = json(&output);
    assert_eq!(document["command"], "probe");
    assert_eq!(document["kernel"], kernel());
    let (ring, engine) = (&document["ring"], &document["engine"]);
    let usable = ring["usable"].as_bool().unwrap();
    assert_eq!(engine["kind"], "threads");
    assert!(!engine["why"].as_str().unwrap().is_empty());
    assert_eq!(ring["why_not"].is_null(), usable);
    for operation in ["openat", "write", "fsync", "renameat", "unlinkat", "close"] {
        assert!(ring["operations"][operation].is_boolean(), "{operation}");
    }
    if ring["exists"] == true {
        assert!(ring["failed_sync_breaks_chain"].is_boolean());
        assert!(ring["features"].as_object().unwrap().values().all(Value::is_boolean));
    }
    assert_eq!(document["limits"]["descriptors"], soft_limit("Max open files"));
    assert_eq!(document["limits"]["processes"], soft_limit("Max processes"));
    assert_eq!(document["limits"]["file_size"], soft_limit("Max file size"));

    let filesystem = &document["filesystem"];
    assert_eq!(filesystem["directory"], path);
    assert!(path.starts_with(filesystem["mount_point"].as_str().unwrap()));
    let options = filesystem["options"].as_array().unwrap();
    assert!(options.iter().any(|option| option == "rw"), "{options:?}");
    assert!(filesystem["provable"].is_boolean());
    assert!(filesystem["warnings"].is_array());
    let sync = match filesystem["kind"].as_str().unwrap() {
        "tmpfs" | "ramfs" => "nothing",
        "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "f2fs" | "zfs" | "overlay" => "durable",
        _ => "unknown",
    };
    assert_eq!(filesystem["sync"], sync);
}

/// A limit of this process, which the command inherits.
fn soft_limit(name: &str) -> Value {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().map_or(Value::Null, Value::from)
}

#[test]
fn the_text_tells_it_in_lines() {
    let output = run(["probe"]);
    assert_status(&output, 0);
    assert_eq!(stderr(&output), "");
    let text = stdout(&output);
    assert!(text.starts_with(&format!("kernel:       {}\n", kernel())), "{text}");
    for label in ["engine:", "io_uring:", "failed fsync:", "descriptors:", "processes:"] {
        assert_eq!(text.lines().filter(|line| line.starts_with(label)).count(), 1, "{label}");
    }
    assert!(text.contains("\n\ndirectory:    .\nfilesystem:   "), "{text}");
    for label in ["sync:", "mounted at:", "options:", "provable:"] {
        assert_eq!(text.lines().filter(|line| line.starts_with(label)).count(), 1, "{label}");
    }
}

#[test]
fn memory_is_called_memory() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let path = dir.path().to_str().unwrap();
    let filesystem = &json(&run(["probe", path, "--json"]))["filesystem"];
    if filesystem["kind"] != "tmpfs" {
        return;
    }
    assert_eq!(filesystem["sync"], "nothing");
    assert!(stdout(&run(["probe", path])).contains("\nsync:         does nothing: it lives in"));
    // A checkpoint into it says so, too.
    let from = tempfile::tempdir().unwrap();
    make_states(from.path(), 3);
    let output = crate::checkpoint::checkpoint(from.path(), dir.path(), &[]);
    assert_status(&output, 0);
    assert!(stdout(&output).contains(" does not survive a reboot\n"), "{}", stdout(&output));
    let output = crate::checkpoint::checkpoint(from.path(), dir.path(), &["--json"]);
    assert_eq!(json(&output)["durability"]["volatile"], 3);
}

#[test]
fn a_directory_that_is_missing_is_a_failure_beside_the_rest() {
    let output = run(["probe", "/nowhere", "--json"]);
    assert_status(&output, 1);
    let document = json(&output);
    assert_eq!(document["filesystem"], Value::Null);
    assert_eq!(document["failures"][0]["target"], "/nowhere");
    assert_eq!(document["failures"][0]["step"], "open-directory");
    assert_eq!(document["kernel"], kernel());
}
