//! `ringseal log`: what the log of a store holds.

use std::path::PathBuf;

use clap::Args;
use ringseal::{LogChange, LogEntry, LogReport, inspect_log};
use serde_json::{Value, json};

use crate::failures::{Failure, Failures};
use crate::output::{Ending, Report};
use crate::text::{count, printable};

/// The options of `ringseal log`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The root of the store
    root: PathBuf,
}

/// Runs the command. Nothing is changed, and a process may have the store open meanwhile.
pub fn run(arguments: Arguments, as_json: bool) -> Ending {
    let mut failures = Failures::new(as_json);
    let log = match inspect_log(&arguments.root) {
        Ok(log) => log,
        Err(error) => {
            failures.add(Failure::of_open(&arguments.root, &error));
            None
        }
    };
    if let Some(damage) = log.as_ref().and_then(|log| log.damage.as_ref()) {
        failures.add(Failure::new(&arguments.root, "log", damage, None));
    }
    let text = log.as_ref().map_or_else(String::new, to_text);
    let fields = json!({
        "root": arguments.root.to_string_lossy(),
        "log": log.as_ref().map(to_json),
    });
    Ending::Report(Report { command: "log", text, fields, failures, interrupted: false })
}

fn to_text(log: &LogReport) -> String {
    let mut text = String::new();
    let mut changes = 0;
    for entry in &log.live {
        let (segment, block) = entry.place;
        let LogEntry { sequence, epoch, kind, .. } = entry;
        text.push_str(&format!("{sequence} epoch {epoch} log.{segment}:{block} {kind}\n"));
        for change in &entry.changes {
            changes += u64::from(!change.is_forgotten);
            let path = printable(&format!("{}/{}", change.id, change.name));
            text.push_str(&match (change.is_forgotten, change.size) {
                (true, _) => format!("  forget {path}\n"),
                (false, Some(size)) => {
                    format!("  save {path} {size} bytes ({})\n", change.transaction)
                }
                (false, None) => format!("  remove {path} ({})\n", change.transaction),
            });
        }
    }
    if let (Some(first), Some(last)) = (log.spread.first(), log.spread.last()) {
        let number = log.spread.len();
        text.push_str(&format!("{first} to {last}: {number} writes that the files have\n"));
    }
    for sequence in &log.torn {
        text.push_str(&format!("{sequence} torn: it was never acknowledged, and is void\n"));
    }
    let kib = log.segment_bytes >> 10;
    let changes = count(changes, "change");
    text.push_str(&format!("two segments of {kib} KiB; {changes} that the files may lack\n"));
    text
}

fn to_json(log: &LogReport) -> Value {
    let change = |change: &LogChange| {
        json!({
            "id": change.id,
            "name": change.name,
            "size": change.size,
            "transaction": change.transaction,
            "forgotten": change.is_forgotten,
        })
    };
    let entry = |entry: &LogEntry| {
        json!({
            "sequence": entry.sequence,
            "epoch": entry.epoch,
            "segment": entry.place.0,
            "block": entry.place.1,
            "kind": entry.kind.name(),
            "spread": entry.spread,
            "changes": entry.changes.iter().map(change).collect::<Vec<_>>(),
        })
    };
    json!({
        "segment_bytes": log.segment_bytes,
        "sequence": log.sequence,
        "epoch": log.epoch,
        "live": log.live.iter().map(entry).collect::<Vec<_>>(),
        "spread": log.spread,
        "torn": log.torn,
        "damage": log.damage,
    })
}
