//! One measurement: a writer saves all files of a cell once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

use crate::HEAP;
use crate::cell::Cell;
use crate::device::{Counters, Device};
use crate::writers::Writer;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub time: Duration,
    /// User and system time of all threads of the process, the ring's workers included.
    pub cpu: Duration,
    /// Highest heap use during the call above that before it.
    pub heap: usize,
    pub device: Option<Counters>,
}

pub(crate) fn measure(
    writer: &mut dyn Writer,
    cell: &Cell,
    device: Option<&Device>,
) -> Result<Sample> {
    cell.settle()?;
    let counters = |device: &Device| device.counters().context("the device's counters");
    let device_before = device.map(counters).transpose()?;
    HEAP.reset_peak_usage();
    let heap_before = HEAP.current_usage();
    let cpu_before = cpu_time();
    let start = Instant::now();
    let outcome = writer.save(cell);
    let time = start.elapsed();
    let cpu = cpu_time().saturating_sub(cpu_before);
    let heap = HEAP.peak_usage().saturating_sub(heap_before);
    let device_after = device.map(counters).transpose()?;
    outcome?;
    let device = device_before.zip(device_after).map(|(before, after)| after - before);
    Ok(Sample { time, cpu, heap, device })
}

/// User and system time of this process.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
