//! A plain disk in memory, to look at states on: a request to a recording disk has to wait for a
//! thread of this process, a request to this one does not.

use std::fs::File;
use std::io::{self, IoSlice};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags};

use super::device::Backing;
use super::image::{Image, PAGE};

/// The kernel takes so many pieces in one call.
const MOST: usize = 1024;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// A disk whose contents can be exchanged, and nothing else.
#[derive(Debug)]
pub struct Slate {
    name: String,
    file: File,
}

impl Slate {
    pub fn new() -> io::Result<Slate> {
        // The device tells by its name when it has let go of it.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crashlab-{}-{number}", process::id());
        let file = rustix::fs::memfd_create(&*name, MemfdFlags::CLOEXEC)?;
        Ok(Slate { name, file: file.into() })
    }

    /// Puts these contents on it, while nothing is attached.
    pub fn load(&self, image: &Image) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        if before > 0 {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.file, hole, 0, before)?;
        }
        if before != image.size() {
            self.file.set_len(image.size())?;
        }
        let (mut begin, mut run) = (0, Vec::with_capacity(MOST));
        for (offset, page) in image.pages() {
            if run.len() == MOST || begin + (run.len() * PAGE) as u64 != offset {
                self.put(begin, &run)?;
                run.clear();
                begin = offset;
            }
            // The last page of a disk may stand over its end.
            let count = (image.size() - offset).min(PAGE as u64) as usize;
            run.push(IoSlice::new(&page[..count]));
        }
        self.put(begin, &run)
    }

    fn put(&self, offset: u64, pages: &[IoSlice<'_>]) -> io::Result<()> {
        let len: usize = pages.iter().map(|page| page.len()).sum();
        if rustix::io::pwritev(&self.file, pages, offset)? == len {
            return Ok(());
        }
        Err(io::Error::other("no memory for a disk's contents"))
    }

    #[cfg(test)]
    /// The contents as they are now.
    pub fn image(&self) -> io::Result<Image> {
        Image::read_file(&self.file)
    }
}

impl Backing for Slate {
    const DIRECT: bool = false;

    fn open(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn name(&self) -> String {
        format!("/memfd:{} (deleted)", self.name)
    }
}
