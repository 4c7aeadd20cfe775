//! How long the smallest durable write takes on a filesystem.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::statistics::median;

const BLOCK: usize = 4096;
const TIMES: usize = 50;

/// Median microseconds of overwriting a block of a file that is allocated and written already, and
/// of `fdatasync`: no metadata changes, so it is about the device's flush. On a filesystem that
/// copies on write it is more.
pub(crate) fn latency(dir: &Path) -> Result<f64> {
    let path = dir.join("flush");
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    file.write_all_at(&vec![1; BLOCK * TIMES], 0).context("write the file to flush")?;
    file.sync_all().context("sync the file to flush")?;
    let mut times = Vec::with_capacity(TIMES);
    for index in 0..TIMES {
        let start = Instant::now();
        file.write_all_at(&[2; BLOCK], (index * BLOCK) as u64).context("overwrite a block")?;
        file.sync_data().context("flush")?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(&path).context("remove the file to flush")?;
    Ok(median(times).unwrap_or_default())
}
