//! The report, as it is written to JSON: the README has its fields with their units.

use serde::{Deserialize, Serialize};

use crate::options::{Layout, Measuring};
use crate::statistics::Spread;

/// Raised when a field changes its meaning or goes away.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub version: u32,
    pub ringseal: String,
    pub layout: Layout,
    pub vary_size: bool,
    /// What was asked for; empty for all.
    pub only: Vec<String>,
    pub filesystems: Vec<FilesystemReport>,
    pub results: Vec<Row>,
    pub skipped: Vec<Skipped>,
}

impl Report {
    pub(crate) fn new(measuring: &Measuring) -> Report {
        Report {
            version: VERSION,
            ringseal: env!("CARGO_PKG_VERSION").to_owned(),
            layout: measuring.layout,
            vary_size: measuring.vary_size,
            only: measuring.only.clone(),
            filesystems: Vec::new(),
            results: Vec::new(),
            skipped: Vec::new(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FilesystemReport {
    pub dir: String,
    pub filesystem: String,
    pub options: String,
    pub device: Option<String>,
    pub flush_us: f64,
    pub kernel: String,
    pub cpus: usize,
}

/// A writer on a filesystem with a number of files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub writer: String,
    pub engine: String,
    pub dir: String,
    pub filesystem: String,
    pub files: usize,
    pub size: u64,
    pub payload_bytes: u64,
    pub rounds: usize,
    pub threads: Option<usize>,
    pub us_per_file: Spread,
    pub cpu_us_per_file: f64,
    pub heap_bytes_per_file: f64,
    pub device_writes: Option<f64>,
    pub device_bytes: Option<f64>,
    pub device_flushes: Option<f64>,
    pub device_flushes_per_file: Option<f64>,
    pub ratio_to_std_loop: Option<f64>,
    pub note: Option<String>,
}

impl Row {
    pub(crate) fn is(&self, writer: &str, engine: &str) -> bool {
        self.writer == writer && self.engine == engine
    }
}

/// A row that is not there, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub writer: String,
    pub engine: String,
    /// None where it could not be made at all.
    pub dir: Option<String>,
    pub files: Option<usize>,
    pub why: String,
}
