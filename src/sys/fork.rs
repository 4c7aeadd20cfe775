//! Which process is this: the one that made a handle, or a fork of it?
//!
//! A process id does not tell: a child in a new pid namespace can have its parent's. One page that
//! the kernel zeroes in every child (`MADV_WIPEONFORK`, Linux 4.14) does, also for a raw clone(2),
//! at the price of one load.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// The page, once it is mapped. No lock: a fork can come at any moment.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// Where the page cannot be had: numbers that the process id stands in for.
static UNWIPED: AtomicU64 = AtomicU64::new(0);

/// Generations given so far; a child goes on from its parent's count.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A number that is the same for the life of this process and differs from that of every process
/// it was forked from.
pub(crate) fn generation() -> u64 {
    let page = page();
    if ptr::eq(page, &UNWIPED) {
        return u64::from(std::process::id());
    }
    match page.load(Ordering::Acquire) {
        0 => {
            let new = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            match page.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => new,
                Err(current) => current,
            }
        }
        current => current,
    }
}

fn page() -> &'static AtomicU64 {
    let known = PAGE.load(Ordering::Acquire);
    let page = if known.is_null() { map() } else { known };
    // SAFETY: `page` is `UNWIPED` or a mapping that `map` made and published; neither is ever
    // unmapped, both are aligned and zeroed, and all access goes through the atomic.
    unsafe { &*page }
}

fn map() -> *mut AtomicU64 {
    let unwiped = ptr::from_ref(&UNWIPED).cast_mut();
    // Both calls round it up to a whole page. To ask for a page's size can need /proc.
    let len = size_of::<AtomicU64>();
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new anonymous mapping, which aliases nothing.
    let mapped = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, prot, flags) };
    let page = match mapped {
        Ok(page) => {
            // SAFETY: the whole of the mapping made above, which nobody else knows yet.
            match unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) } {
                Ok(()) => page.cast(),
                Err(_) => unwiped,
            }
        }
        Err(_) => unwiped,
    };
    match PAGE.compare_exchange(ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => page,
        // Another thread was first; its page serves, this one is left for the process's life.
        Err(first) => first,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_process_has_one_generation() {
        let here = super::generation();
        let there = std::thread::spawn(super::generation).join();
        assert_eq!(there.ok(), Some(here));
    }
}
