//! The kernel's counters of a block device: writes, bytes and flushes.

use std::fs;
use std::ops::Sub;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A block device, by its directory in sysfs.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    writes: PathBuf,
    flushes: PathBuf,
}

/// What a device has completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    pub writes: u64,
    pub bytes: u64,
    pub flushes: u64,
}

impl Device {
    /// The device that a mount's source names, or the one of this `major:minor`; none for a
    /// filesystem in memory or on a network.
    pub(crate) fn find(source: Option<&str>, numbers: &str) -> Option<Device> {
        // A btrfs has an anonymous device number, so its source is asked first; the root
        // filesystem's source can be a name that does not exist.
        let of_source = source.and_then(|path| fs::metadata(path).ok()).and_then(|metadata| {
            let device = metadata.rdev();
            let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
            metadata.file_type().is_block_device().then_some(numbers)
        });
        let numbers = of_source.as_deref().unwrap_or(numbers);
        let directory = fs::canonicalize(Path::new("/sys/dev/block").join(numbers)).ok()?;
        // The kernel counts no flushes for a partition.
        let whole = match directory.join("partition").exists() {
            true => directory.parent()?.to_path_buf(),
            false => directory.clone(),
        };
        Some(Device { writes: directory.join("stat"), flushes: whole.join("stat") })
    }

    pub(crate) fn counters(&self) -> Result<Counters> {
        let of = |path: &Path| {
            let text =
                fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            parse(&text).with_context(|| format!("{} is not understood", path.display()))
        };
        let counters = of(&self.writes)?;
        match self.writes == self.flushes {
            true => Ok(counters),
            false => Ok(Counters { flushes: of(&self.flushes)?.flushes, ..counters }),
        }
    }
}

impl Sub for Counters {
    type Output = Counters;

    fn sub(self, before: Counters) -> Counters {
        Counters {
            writes: self.writes.saturating_sub(before.writes),
            bytes: self.bytes.saturating_sub(before.bytes),
            flushes: self.flushes.saturating_sub(before.flushes),
        }
    }
}

/// The fields of `/sys/dev/block/*/stat`: writes are the 5th, sectors of 512 bytes the 7th,
/// flushes the 16th (since Linux 5.5).
fn parse(stat: &str) -> Option<Counters> {
    let fields: Vec<u64> =
        stat.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(Counters {
        writes: *fields.get(4)?,
        bytes: fields.get(6)? * 512,
        flushes: fields.get(15).copied().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_where_the_kernel_documents_them() {
        let stat = "  1 2 3 4 500 6 7000 8 9 10 11 12 13 14 15 1600 17\n";
        let counters = Counters { writes: 500, bytes: 7000 * 512, flushes: 1600 };
        assert_eq!(parse(stat), Some(counters));
        assert_eq!(parse("1 2 3"), None);
        assert_eq!(parse("a b c"), None);
    }

    #[test]
    fn differences() {
        let before = Counters { writes: 1, bytes: 512, flushes: 0 };
        let after = Counters { writes: 4, bytes: 2048, flushes: 2 };
        assert_eq!(after - before, Counters { writes: 3, bytes: 1536, flushes: 2 });
    }

    #[test]
    fn memory_has_no_device() {
        assert!(Device::find(Some("tmpfs"), "0:1").is_none());
        assert!(Device::find(None, "0:1").is_none());
    }
}
