//! Somebody else on the same filesystem, who syncs a file of his own now and then.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

const PAUSE: Duration = Duration::from_millis(20);

/// Until then; what a write of 4 KiB and a sync took, in microseconds.
pub(super) fn run(home: &Path, end: Instant) -> Result<Histogram<u64>> {
    let mut latencies = Histogram::new(3)?;
    let file = File::create(home.join("neighbour"))?;
    for turn in 0.. {
        let began = Instant::now();
        if began >= end {
            break;
        }
        file.write_all_at(&[turn as u8; 4096], turn % 256 * 4096)?;
        file.sync_data()?;
        latencies.record(began.elapsed().as_micros() as u64)?;
        thread::sleep(PAUSE);
    }
    Ok(latencies)
}
