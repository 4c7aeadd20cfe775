//! A disk's contents in memory: pages which copies share until one of them writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

pub const PAGE: usize = 4096;
/// Pages in one leaf of the table: about the root of the number of pages of the disks used here.
const LEAF: usize = 128;

pub(super) type Page = Arc<[u8; PAGE]>;

#[derive(Clone)]
struct Leaf([Option<Page>; LEAF]);

/// A disk's contents. A copy is cheap; a page never written is zeros.
#[derive(Clone)]
pub struct Image {
    size: u64,
    leaves: Vec<Option<Arc<Leaf>>>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image of {} bytes, {} pages written", self.size, self.pages().count())
    }
}

/// One page's share of a range: which page, where in it, and where in the caller's bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let (page, start) = ((at / PAGE as u64) as usize, (at % PAGE as u64) as usize);
        let count = (PAGE - start).min(len - done);
        let piece = (page, start, done, count);
        done += count;
        (count > 0).then_some(piece)
    })
}

impl Image {
    pub fn new(size: u64) -> Image {
        let leaves = size.div_ceil((PAGE * LEAF) as u64) as usize;
        Image { size, leaves: vec![None; leaves] }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    fn page(&self, page: usize) -> Option<&Page> {
        self.leaves.get(page / LEAF)?.as_ref()?.0[page % LEAF].as_ref()
    }

    /// Fills `into`; behind the end are zeros.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        for (page, start, at, count) in pieces(offset, into.len()) {
            let into = &mut into[at..at + count];
            match self.page(page) {
                Some(page) => into.copy_from_slice(&page[start..start + count]),
                None => into.fill(0),
            }
        }
    }

    /// How much of a range lies on the disk: nothing is kept behind its end.
    fn clipped(&self, offset: u64, len: u64) -> usize {
        len.min(self.size.saturating_sub(offset)) as usize
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let bytes = &bytes[..self.clipped(offset, bytes.len() as u64)];
        for (page, start, at, count) in pieces(offset, bytes.len()) {
            let bytes = &bytes[at..at + count];
            let leaf = self.leaves[page / LEAF]
                .get_or_insert_with(|| Arc::new(Leaf([const { None }; LEAF])));
            let slot = &mut Arc::make_mut(leaf).0[page % LEAF];
            if let Ok(whole) = <&[u8; PAGE]>::try_from(bytes) {
                match slot.as_mut().and_then(Arc::get_mut) {
                    Some(page) => page.copy_from_slice(whole),
                    None => *slot = Some(Arc::new(*whole)),
                }
            } else {
                let page = slot.get_or_insert_with(|| Arc::new([0; PAGE]));
                Arc::make_mut(page)[start..start + count].copy_from_slice(bytes);
            }
        }
    }

    pub fn zero(&mut self, offset: u64, len: u64) {
        let len = self.clipped(offset, len);
        for (page, start, _, count) in pieces(offset, len) {
            if self.page(page).is_none() {
                continue;
            }
            let Some(leaf) = &mut self.leaves[page / LEAF] else { continue };
            let slot = &mut Arc::make_mut(leaf).0[page % LEAF];
            match slot {
                Some(page) if count < PAGE => {
                    Arc::make_mut(page)[start..start + count].fill(0);
                }
                _ => *slot = None,
            }
        }
    }

    /// The pages that were written, with their offsets.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u64, &Page)> {
        self.leaves.iter().enumerate().flat_map(|(number, leaf)| {
            let pages = leaf.iter().flat_map(|leaf| leaf.0.iter().enumerate());
            pages.filter_map(move |(place, page)| {
                Some((((number * LEAF + place) * PAGE) as u64, page.as_ref()?))
            })
        })
    }

    /// Into a sparse file, for a state that is to be looked at later.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.size)?;
        for (offset, page) in self.pages() {
            let count = self.clipped(offset, PAGE as u64);
            file.write_all_at(&page[..count], offset)?;
        }
        Ok(())
    }

    /// From a file; its holes, and pages of zeros, cost nothing.
    pub fn read_from(path: &Path) -> io::Result<Image> {
        Image::read_file(&File::open(path)?)
    }

    pub(super) fn read_file(file: &File) -> io::Result<Image> {
        let mut image = Image::new(file.metadata()?.len());
        let mut buffer = vec![0; LEAF * PAGE];
        let mut at = 0;
        loop {
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => data / PAGE as u64 * PAGE as u64,
                Err(Errno::NXIO) => return Ok(image),
                Err(error) => return Err(error.into()),
            };
            let hole = rustix::fs::seek(file, SeekFrom::Hole(data.max(at)))?;
            at = data;
            while at < hole {
                let count = buffer.len().min((hole - at) as usize);
                file.read_exact_at(&mut buffer[..count], at)?;
                for (place, page) in buffer[..count].chunks(PAGE).enumerate() {
                    if page.iter().any(|byte| *byte != 0) {
                        image.write(at + (place * PAGE) as u64, page);
                    }
                }
                at += count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(image: &Image) -> Vec<u8> {
        let mut bytes = vec![0xee; image.size() as usize];
        image.read(0, &mut bytes);
        bytes
    }

    #[test]
    fn does_what_an_array_does_and_copies_stand_apart() {
        let size = (LEAF + 3) * PAGE + 100;
        let mut random = fastrand::Rng::with_seed(7);
        let (mut image, mut array) = (Image::new(size as u64), vec![0u8; size]);
        let mut copies = Vec::new();
        for round in 0..400 {
            let offset = random.usize(0..size);
            let len = random.usize(0..4 * PAGE).min(size - offset);
            let (offset, len) = match round % 4 {
                0 => (offset / PAGE * PAGE, (len.div_ceil(PAGE) * PAGE).min(size - offset)),
                _ => (offset, len),
            };
            if round % 3 == 0 {
                image.zero(offset as u64, len as u64);
                array[offset..offset + len].fill(0);
            } else {
                let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
                image.write(offset as u64, &bytes);
                array[offset..offset + len].copy_from_slice(&bytes);
            }
            if round % 40 == 0 {
                copies.push((image.clone(), array.clone()));
            }
        }
        copies.push((image, array));
        assert!(copies.iter().all(|(image, array)| all(image) == *array));
    }

    #[test]
    fn nothing_is_kept_behind_the_end() {
        let mut image = Image::new(5000);
        image.write(4990, &[1; 100]);
        image.write(9000, &[1; 100]);
        image.zero(4995, 1 << 40);
        let mut bytes = [7; 20];
        image.read(4985, &mut bytes);
        assert_eq!(bytes, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn comes_back_from_a_file() -> io::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let mut image = Image::new(3 << 20);
        image.write(10, b"first");
        image.write((2 << 20) - 3, b"across two pages");
        image.write((3 << 20) - 4, b"last");
        image.save(file.path())?;
        let again = Image::read_from(file.path())?;
        assert_eq!(all(&again), all(&image));
        assert_eq!(again.pages().count(), 4);
        Ok(())
    }
}
