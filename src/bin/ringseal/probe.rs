//! `ringseal probe`: what this host and a directory's filesystem can promise.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use ringseal::{FilesystemProbe, HostProbe, SyncMeans};
use serde_json::{Map, Value, json};

use crate::failures::Failures;
use crate::output::{Ending, Report, engine_to_json};
use crate::text::printable;

/// The options of `ringseal probe`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The directory whose filesystem to look at
    #[arg(default_value = ".")]
    directory: PathBuf,
}

/// Runs the command.
pub fn run(arguments: Arguments, as_json: bool) -> Ending {
    let path = &arguments.directory;
    let mut failures = Failures::new(as_json);
    let host = HostProbe::new();
    let filesystem = match ringseal::probe_directory(path) {
        Ok(filesystem) => Some(filesystem),
        Err(error) => {
            failures.add(error);
            None
        }
    };
    let mut text = host_to_text(&host);
    if let Some(filesystem) = &filesystem {
        text.push('\n');
        text.push_str(&filesystem_to_text(path, filesystem));
    }
    let filesystem = filesystem.map(|filesystem| filesystem_to_json(path, &filesystem));
    let fields = to_json(&host, filesystem);
    Ending::Report(Report { command: "probe", text, fields, failures, interrupted: false })
}

fn host_to_text(host: &HostProbe) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| add_line(&mut text, label, value);
    line("kernel", &host.kernel);
    match &host.engine {
        Some(status) => line("engine", &status.to_string()),
        None => line("engine", "none: no thread can be made"),
    }
    let ring = &host.ring;
    match (ring.exists, ring.why_not()) {
        (_, None) => line("io_uring", "usable"),
        (true, Some(why)) => line("io_uring", &format!("there, but not usable: {why}")),
        (false, Some(why)) => line("io_uring", &format!("not to be had: {why}")),
    }
    if ring.exists {
        line("operations", &found(&ring.operations));
        line("features", &found(&ring.features));
    }
    match ring.failed_sync_breaks_chain {
        Some(true) => line("failed fsync", "stops what is linked behind it in a chain"),
        Some(false) => line(
            "failed fsync",
            "does not stop what is linked behind it in a chain; ringseal does not rely on it",
        ),
        None => line("failed fsync", "could not be tried here"),
    }
    line("descriptors", &limit(host.descriptors_max));
    line("processes", &limit(host.processes_max));
    line("file size", &limit(host.file_size_max));
    text
}

/// Names of what is there, then of what is missing.
fn found(names: &[(&'static str, bool)]) -> String {
    let those = |wanted: bool| {
        let names = names.iter().filter(|(_, there)| *there == wanted).map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    match (those(true), those(false)) {
        (there, missing) if missing.is_empty() => there,
        (there, missing) if there.is_empty() => format!("missing: {missing}"),
        (there, missing) => format!("{there}; missing: {missing}"),
    }
}

fn limit(limit: Option<u64>) -> String {
    limit.map_or("no limit".to_owned(), |limit| format!("{limit} at most"))
}

fn filesystem_to_text(path: &Path, filesystem: &FilesystemProbe) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| add_line(&mut text, label, value);
    line("directory", &path.to_string_lossy());
    line("filesystem", filesystem.kind);
    line("sync", sync_sentence(filesystem.sync));
    if let Some(point) = &filesystem.mount_point {
        line("mounted at", &point.to_string_lossy());
    }
    if let Some(source) = &filesystem.source {
        line("mounted from", source);
    }
    line("options", &filesystem.options.join(","));
    line(
        "provable",
        match (filesystem.sync, filesystem.provable) {
            (SyncMeans::Nothing, _) => "nothing to prove",
            (_, true) => "yes: it can prove that it is alive after a sync",
            (_, false) => "no: the answer of a sync has to be believed",
        },
    );
    for warning in &filesystem.warnings {
        line("warning", warning);
    }
    text
}

/// Adds a line `label: value`, the values below each other.
pub fn add_line(text: &mut String, label: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:14}{}", format!("{label}:"), printable(value));
}

/// What a sync means, in words.
pub fn sync_sentence(sync: SyncMeans) -> &'static str {
    match sync {
        SyncMeans::Durable => "reaches stable storage, as far as the device tells the truth",
        SyncMeans::Nothing => "does nothing: it lives in memory, and a reboot empties it",
        _ => "means what this filesystem says it does: ringseal does not know it",
    }
}

fn to_json(host: &HostProbe, filesystem: Option<Value>) -> Value {
    let ring = &host.ring;
    json!({
        "kernel": host.kernel,
        "engine": host.engine.as_ref().map(engine_to_json),
        "ring": {
            "exists": ring.exists,
            "usable": ring.is_usable(),
            "why_not": ring.why_not().map(ToString::to_string),
            "operations": names_to_json(&ring.operations),
            "features": names_to_json(&ring.features),
            "failed_sync_breaks_chain": ring.failed_sync_breaks_chain,
        },
        "limits": {
            "descriptors": host.descriptors_max,
            "processes": host.processes_max,
            "file_size": host.file_size_max,
        },
        "filesystem": filesystem,
    })
}

fn names_to_json(names: &[(&'static str, bool)]) -> Value {
    let names = names.iter().map(|(name, there)| ((*name).to_owned(), Value::Bool(*there)));
    Value::Object(names.collect::<Map<_, _>>())
}

/// A filesystem as JSON.
pub fn filesystem_to_json(path: &Path, filesystem: &FilesystemProbe) -> Value {
    json!({
        "directory": path.to_string_lossy(),
        "kind": filesystem.kind,
        "sync": match filesystem.sync {
            SyncMeans::Durable => "durable",
            SyncMeans::Nothing => "nothing",
            _ => "unknown",
        },
        "mount_point": filesystem.mount_point.as_deref().map(Path::to_string_lossy),
        "source": filesystem.source,
        "options": filesystem.options,
        "provable": filesystem.provable,
        "warnings": filesystem.warnings,
    })
}
