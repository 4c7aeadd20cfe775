//! `ringseal store`, `ringseal log`, and `ringseal recover` of a store's root.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::command::*;
use crate::support::{Disk, need};

fn store(root: &Path, arguments: &[&str], input: &str) -> std::process::Output {
    let all = [&["store", root.to_str().unwrap()], arguments].concat();
    run_with(all, input)
}

#[test]
fn a_checkpoint_tells_what_the_store_has_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (from, root) = (dir.path().join("from"), dir.path().join("root"));
    make_states(&from, 20);
    let arguments = ["checkpoint", "--from", from.to_str().unwrap(), "--stats"];
    let text = stdout(&store(&root, &arguments, "")).to_owned();
    assert!(text.contains("\nstore\n  accepted                     1  transactions\n"), "{text}");
    assert!(text.contains("  groups                       1  of 20 changes together\n"), "{text}");
    let output = store(&root, &[&arguments[..], &["--json"]].concat(), "");
    assert_status(&output, 0);
    let stats = &json(&output)["stats"];
    assert_eq!((&stats["answered"], &stats["failures"]), (&json!(1), &json!({})));
    assert_eq!((&stats["changes"], &stats["latency"]["count"]), (&json!(20), &json!(1)));
    assert_eq!(stats["bytes"], json(&output)["bytes"]);
}

#[test]
fn it_does_by_hand_what_the_store_does() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let output = store(&root, &["save", "web-1", "--json"], "{\"pid\":1}");
    assert_status(&output, 0);
    let said = json(&output);
    assert_eq!((&said["command"], &said["action"]), (&json!("store"), &json!("save")));
    assert_eq!((&said["bytes"], &said["recovered"]), (&json!(9), &json!(0)));
    assert!(["logged", "direct"].contains(&said["route"].as_str().unwrap()), "{said}");
    assert_eq!(fs::read(root.join("web-1/state.json")).unwrap(), b"{\"pid\":1}");

    assert_status(&store(&root, &["save", "web-2"], "torn {"), 0);
    let output = store(&root, &["list"], "");
    assert_eq!((stdout(&output), stderr(&output)), ("web-1\nweb-2\n", ""));
    let output = store(&root, &["load", "web-1"], "");
    assert_eq!((stdout(&output), stderr(&output)), ("{\"pid\":1}", ""));
    assert_eq!(json(&store(&root, &["load", "web-1", "--json"], ""))["state"], "{\"pid\":1}");

    let output = store(&root, &["verify"], "");
    assert_status(&output, 1);
    assert_eq!(stdout(&output), "2 states: 1 cannot be read\n");
    let line = format!(
        "ringseal: {}: check: cannot be read: expected ident at line 1 column 2; unchanged\n",
        root.join("web-2/state.json").display()
    );
    assert_eq!(stderr(&output), line);

    fs::write(root.join("web-2/other"), "theirs").unwrap();
    let output = store(&root, &["remove", "web-2"], "");
    assert_status(&output, 0);
    let left = root.join("web-2");
    let line =
        format!("{}: it stays, for it holds files that are not the store's\n", left.display());
    assert_eq!(stdout(&output), line);
    for (gone, action) in [("web-2", "load"), ("web-3", "load"), ("web-3", "remove")] {
        let output = store(&root, &[action, gone], "");
        assert_status(&output, 1);
        assert!(stderr(&output).contains("No such file or directory"), "{}", stderr(&output));
    }
    for wrong in ["../x", "", ".."] {
        let output = store(&root, &["save", wrong], "x");
        assert_status(&output, 1);
        assert!(stderr(&output).contains("unchanged"), "{}", stderr(&output));
    }
    // Whoever only looks makes nothing.
    let nowhere = dir.path().join("nowhere");
    assert_status(&store(&nowhere, &["list"], ""), 1);
    assert!(!nowhere.exists());
}

#[test]
fn a_checkpoint_is_one_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/states");
    let arguments = ["checkpoint", "--from", from.to_str().unwrap(), "--json"];
    let output = store(&root, &arguments, "");
    assert_status(&output, 0);
    let said = json(&output);
    let ids = json(&store(&root, &["list", "--json"], ""))["ids"].clone();
    assert!(said["files"].as_u64().unwrap() > 1, "{said}");
    assert_eq!(said["files"], ids.as_array().unwrap().len());
    for id in ids.as_array().unwrap() {
        let file = Path::new(id.as_str().unwrap()).join("state.json");
        assert_eq!(fs::read(root.join(&file)).unwrap(), fs::read(from.join(&file)).unwrap());
    }
    assert_eq!(json(&store(&root, &["verify", "--json"], ""))["states"], said["files"]);
    // One that cannot be read, and nothing is saved.
    let odd = dir.path().join("odd");
    fs::create_dir_all(odd.join("a/state.json")).unwrap();
    fs::create_dir_all(odd.join("b")).unwrap();
    fs::write(odd.join("b/state.json"), "{}").unwrap();
    let other = dir.path().join("other");
    let output = store(&other, &["checkpoint", "--from", odd.to_str().unwrap()], "");
    assert_status(&output, 1);
    assert_eq!(stdout(&store(&other, &["list"], "")), "");
}

/// A store that is needed after a power cut, as scripts see it.
#[test]
fn a_log_is_shown_and_recovered() {
    let disk = need!(Disk::ext4());
    let root = disk.path().join("root");
    let path = root.to_str().unwrap();
    let held = ringseal::StoreOptions::new()
        .spread_after(std::time::Duration::from_secs(3600))
        .open_blocking(&root)
        .unwrap();
    held.save_all_blocking([("a", "1"), ("b", "22")]).unwrap();
    held.remove_blocking("b").unwrap();
    // While it is open everybody may look, and nobody else may write.
    let shown = json(&run(["log", path, "--json"]));
    let changes = &shown["log"]["live"].as_array().unwrap().last().unwrap()["changes"];
    assert_eq!(
        changes[1],
        json!({"id": "b", "name": "state.json", "size": null, "transaction": 0, "forgotten": false})
    );
    let refused = run(["recover", path]);
    assert_status(&refused, 1);
    let pid = std::process::id();
    assert!(stderr(&refused).contains(&format!("the store is open in process {pid}")));
    need!(disk.shutdown());
    let _ = held.close_blocking();
    drop(held);
    disk.remount();

    let text = run(["log", path]);
    assert_status(&text, 0);
    assert!(stdout(&text).contains("  save a/state.json 1 bytes (0)\n"), "{}", stdout(&text));
    assert!(stdout(&text).ends_with("4 changes that the files may lack\n"), "{}", stdout(&text));
    let dry = json(&run(["recover", "--dry-run", path, "--json"]));
    assert_eq!(dry["store"]["behind"].as_array().unwrap().len(), 3, "{dry}");
    let output = run(["recover", path]);
    assert_status(&output, 0);
    let line = format!("{}: put right from the log\n", root.join("a/state.json").display());
    assert!(stdout(&output).contains(&line), "{}", stdout(&output));
    assert_eq!(fs::read(root.join("a/state.json")).unwrap(), b"1");
    assert!(!root.join("b").exists());
    let again = json(&run(["recover", path, "--json"]));
    assert_eq!(again["store"]["replayed"], json!([]));
    assert!(stdout(&run(["log", path])).ends_with("0 changes that the files may lack\n"));
    let none = json(&run(["log", disk.path().to_str().unwrap(), "--json"]));
    assert_eq!(none["log"], json!(null));
    assert_status(&run(["log", "/nowhere"]), 1);
}
