//! What a checkpoint says at its end.

use std::path::Path;
use std::time::Duration;

use indicatif::HumanBytes;
use ringseal::{Durability, EngineStatus, FilesystemProbe, Receipt, WriterStats};
use serde_json::{Value, json};

use crate::output::engine_to_json;
use crate::probe;
use crate::stats;
use crate::text::{count, shown};

/// What came of a checkpoint.
#[derive(Debug)]
pub struct Summary<'a> {
    from: &'a Path,
    to: &'a Path,
    files: u64,
    bytes: u64,
    durable: u64,
    unproven: u64,
    volatile: u64,
    /// Ids that were gone before they could be read.
    pub vanished: u64,
    /// A signal ended it early.
    pub interrupted: bool,
    /// The engine that carried the saves out; `None` if none could be started.
    pub engine: Option<EngineStatus>,
    /// How many failures there were.
    pub failed: u64,
    /// How long it took.
    pub took: Duration,
    /// The filesystem of `to`.
    pub filesystem: Option<FilesystemProbe>,
    /// Flushes of its device meanwhile; `None` without a device.
    pub flushes: Option<u64>,
    /// What the writer has counted, if it was asked for.
    pub stats: Option<WriterStats>,
}

impl Summary<'_> {
    /// Nothing is saved yet.
    pub fn new<'a>(from: &'a Path, to: &'a Path) -> Summary<'a> {
        Summary {
            from,
            to,
            files: 0,
            bytes: 0,
            durable: 0,
            unproven: 0,
            volatile: 0,
            vanished: 0,
            interrupted: false,
            engine: None,
            failed: 0,
            took: Duration::ZERO,
            filesystem: None,
            flushes: None,
            stats: None,
        }
    }

    /// A file is saved.
    pub fn add(&mut self, receipt: &Receipt) {
        self.files += 1;
        self.bytes += receipt.bytes;
        match receipt.durability {
            Durability::Durable => self.durable += 1,
            Durability::Volatile => self.volatile += 1,
            // What is not known to be more is counted as less.
            _ => self.unproven += 1,
        }
    }

    /// Lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: &str| probe::add_line(&mut text, label, value);
        let files = count(self.files, "file");
        let (bytes, seconds) = (HumanBytes(self.bytes), self.took.as_secs_f64());
        line("saved", &format!("{files}, {bytes}, in {seconds:.2} s"));
        line("failed", &self.failed.to_string());
        if self.vanished > 0 {
            let ids = count(self.vanished, "id");
            line("vanished", &format!("{ids}, gone before it could be read"));
        }
        if let Some(engine) = &self.engine {
            line("engine", &engine.to_string());
        }
        if let Some(flushes) = self.flushes {
            line("flushes", &format!("{flushes} of the device, other programs' included"));
        }
        if let Some(filesystem) = &self.filesystem {
            let sync = probe::sync_sentence(filesystem.sync);
            line("filesystem", &format!("{}; a sync {sync}", filesystem.kind));
            for warning in &filesystem.warnings {
                line("warning", warning);
            }
        }
        if self.unproven > 0 {
            let files = count(self.unproven, "file");
            line("warning", &format!("{files} could not be proved durable after the sync"));
        }
        if self.volatile > 0 {
            let to = shown(self.to);
            line("warning", &format!("what was saved in {to} does not survive a reboot"));
        }
        if self.interrupted {
            line("interrupted", "a signal ended it; what was saved stays, the rest was not begun");
        }
        if let Some(stats) = &self.stats {
            text.push_str(&stats::writer_to_text(stats));
        }
        text
    }

    /// For machines; the fields are listed in [`output`](crate::output).
    pub fn to_json(&self) -> Value {
        let filesystem = self.filesystem.as_ref();
        let mut fields = json!({
            "from": self.from.to_string_lossy(),
            "to": self.to.to_string_lossy(),
            "files": self.files,
            "bytes": self.bytes,
            "seconds": self.took.as_secs_f64(),
            "durability": {
                "durable": self.durable,
                "durable_unproven": self.unproven,
                "volatile": self.volatile,
            },
            "failed": self.failed,
            "flushes": self.flushes,
            "vanished": self.vanished,
            "interrupted": self.interrupted,
            "engine": self.engine.as_ref().map(engine_to_json),
            "filesystem": filesystem.map(|found| probe::filesystem_to_json(self.to, found)),
        });
        if let Some(stats) = &self.stats {
            fields["stats"] = stats::writer_to_json(stats);
        }
        fields
    }
}
