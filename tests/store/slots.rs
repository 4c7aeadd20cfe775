//! Files with two inodes: nobody who holds an old version sees it change, whatever somebody else does to the two,
//! and nothing else is different from files that are made anew.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ringseal::{StateStore, StoreOptions};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{
    assert_no_temps, child, in_child, need, require_shared_syncs, spawn_child, tree,
};
use crate::{Place, assert_state, file, lazy, places};

/// A store whose files have two inodes, where they can.
pub(crate) fn open(root: &Path) -> StateStore {
    lazy().slots(100).other_name("config.json").open_blocking(root).unwrap()
}

/// Filesystems where files have two inodes: in memory, and where the log is shared.
pub(crate) fn with_slots() -> impl Iterator<Item = Result<Place, crate::Skipped>> {
    let has_slots = |place: &Result<Place, _>| match place {
        Ok(Place::Disk(disk)) => disk.name() == "tmpfs" || require_shared_syncs().is_ok(),
        Ok(Place::Directory(_)) => false,
        Err(_) => true,
    };
    places().into_iter().filter(has_slots)
}

pub(crate) fn state(root: &Path, id: &str) -> PathBuf {
    root.join(id).join("state.json")
}

pub(crate) fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// The spare of a container that has one file.
pub(crate) fn spare(root: &Path, id: &str) -> Option<PathBuf> {
    let temps = tree::temps(&root.join(id));
    assert!(temps.len() <= 1, "{temps:?}");
    temps.first().map(|name| root.join(id).join(name))
}

/// What a version holds: of every length, larger and smaller than the one before.
pub(crate) fn version(number: usize) -> Vec<u8> {
    let lengths = [0, 1, 5000, 100, 70_000, 4096, 3, 12_288];
    format!("{number:08}").into_bytes().into_iter().cycle().take(lengths[number % 8]).collect()
}

#[test]
fn a_file_that_is_saved_again_and_again_has_two_inodes() {
    for place in with_slots() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        let mut inodes = Vec::new();
        for number in 0..40 {
            store.save_bytes_blocking("a", version(number)).unwrap();
            assert_state(&store, "a", version(number));
            assert_eq!(file(&root, "a").unwrap(), version(number), "{}", place.name());
            inodes.push(inode(&state(&root, "a")));
            // The first file that replaces another is kept open, the second is exchanged with it.
            assert_eq!(spare(&root, "a").is_some(), number > 1, "{number}");
        }
        let of_all: HashSet<u64> = inodes[1..].iter().copied().collect();
        assert_eq!(of_all.len(), 2, "{}: {inodes:?}", place.name());
        assert!(inodes[1..].windows(2).all(|pair| pair[0] != pair[1]), "{inodes:?}");
        store.close_blocking().unwrap();
        assert_no_temps(&root.join("a"));
    }
}

#[test]
fn without_slots_every_version_has_an_inode_of_its_own_and_there_is_no_spare() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = lazy().slots(0).open_blocking(&root).unwrap();
        for number in 0..10 {
            store.save_bytes_blocking("a", version(number)).unwrap();
            assert_eq!(spare(&root, "a"), None, "{}", place.name());
        }
    }
}

#[test]
fn many_in_one_transaction_have_them_too() {
    for place in with_slots() {
        let place = need!(place);
        let root = place.root();
        let store = lazy().slots(1000).open_blocking(&root).unwrap();
        let ids: Vec<String> = (0..200).map(|id| format!("c{id}")).collect();
        for number in 0..10 {
            let all = ids.iter().enumerate().map(|(id, name)| (name, version(number + id)));
            let committed = store.save_all_blocking(all).unwrap();
            assert!(committed.not_visible.is_empty());
            for (id, name) in ids.iter().enumerate() {
                assert_eq!(file(&root, name).unwrap(), version(number + id), "{}", place.name());
                // Without a log in memory, a transaction goes by it all the same.
                assert_eq!(spare(&root, name).is_some(), number > 1);
            }
        }
    }
}

/// The kernel's pages of a version, as somebody sees them who has mapped it and closed it.
struct Mapping(*const u8, usize);

impl Mapping {
    fn of(file: &File) -> Option<Mapping> {
        let len = file.metadata().unwrap().len() as usize;
        if len == 0 {
            return None;
        }
        let (read, shared) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; it is never unmapped.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, read, shared, file, 0) };
        Some(Mapping(at.unwrap().cast(), len))
    }

    fn bytes(&self) -> Vec<u8> {
        // SAFETY: it is mapped to the end of the process, and the test fails if the file gets shorter: that
        // would kill it.
        unsafe { std::slice::from_raw_parts(self.0, self.1) }.to_vec()
    }
}

#[test]
fn whoever_holds_an_old_version_never_sees_it_change() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        let mut held: Vec<(usize, File)> = Vec::new();
        let mut mapped: Vec<(usize, Mapping)> = Vec::new();
        let mut linked = Vec::new();
        for number in 0..60 {
            store.save_bytes_blocking("a", version(number)).unwrap();
            let path = state(&root, "a");
            // One in three is held open, one is mapped, one has another name; some nobody holds.
            match number % 5 {
                0 => held.push((number, File::open(&path).unwrap())),
                1 => mapped.extend(Mapping::of(&File::open(&path).unwrap()).map(|of| (number, of))),
                2 => {
                    let link = root.join(format!("link-{number}"));
                    fs::hard_link(&path, &link).unwrap();
                    linked.push((number, link));
                }
                _ => {}
            }
            for (number, file) in &mut held {
                let mut found = Vec::new();
                file.seek(SeekFrom::Start(0)).unwrap();
                file.read_to_end(&mut found).unwrap();
                assert_eq!(found, version(*number), "held on {}", place.name());
            }
            for (number, mapping) in &mapped {
                assert_eq!(mapping.bytes(), version(*number), "mapped on {}", place.name());
            }
            for (number, link) in &linked {
                assert_eq!(fs::read(link).unwrap(), version(*number), "link on {}", place.name());
            }
        }
        assert!(held.len() > 10 && mapped.len() > 8 && linked.len() > 10);
        // Or the filesystem could not be unmounted.
        for (_, Mapping(at, len)) in mapped {
            // SAFETY: nothing of it is used any more.
            unsafe { rustix::mm::munmap(at.cast_mut().cast(), len) }.unwrap();
        }
    }
}

#[test]
fn a_container_with_spares_is_removed_whole() {
    for place in places() {
        let place = need!(place);
        let root = place.root();
        let store = open(&root);
        for number in 0..4 {
            let saves = store.transaction().save_bytes("a", version(number));
            let saves = saves.save_file("a", "config.json", version(number + 1));
            saves.commit_blocking().unwrap();
            store.save_bytes_blocking("b", version(number)).unwrap();
        }
        assert!(store.remove_blocking("a").unwrap().left.is_empty(), "{}", place.name());
        assert!(!root.join("a").exists());
        fs::write(root.join("b/foreign"), "").unwrap();
        assert_eq!(store.remove_blocking("b").unwrap().left, [root.join("b")]);
        assert_eq!(tree::names(&root.join("b")).into_iter().collect::<Vec<_>>(), ["foreign"]);
    }
}

/// A backup reads every file of the directory all the time, spares too. Nobody is killed, and what it finds at the
/// file's name is a whole version.
#[test]
fn a_backup_that_opens_the_spares_harms_nobody() {
    in_child("slots::a_backup_that_opens_the_spares_harms_nobody", || {
        for place in places() {
            let place = need!(place);
            let root = place.root();
            let store = open(&root);
            for _ in 0..2 {
                store.save_bytes_blocking("a", vec![b'a'; 40_000]).unwrap();
            }
            let is_over = AtomicBool::new(false);
            let (reads, spares) = std::thread::scope(|scope| {
                let backups: Vec<_> =
                    (0..2).map(|_| scope.spawn(|| back_up(&root, &is_over))).collect();
                for number in 0_u32..3000 {
                    let letter = b'a' + (number % 26) as u8;
                    let state = vec![letter; 1 + number as usize * 13 % 40_000];
                    store.save_bytes_blocking("a", state).unwrap();
                }
                is_over.store(true, Ordering::Relaxed);
                let read = backups.into_iter().map(|backup| backup.join().unwrap());
                read.fold((0, 0), |(all, some), (reads, spares)| (all + reads, some + spares))
            });
            assert!(reads > 100, "{reads} on {}", place.name());
            println!("{}: {reads} reads, {spares} of spares", place.name());
        }
    });
}

/// Reads all that is in a container's directory, again and again.
fn back_up(root: &Path, is_over: &AtomicBool) -> (usize, usize) {
    let (mut reads, mut spares) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        for name in tree::names(&root.join("a")) {
            // A spare may be gone by now.
            let Ok(bytes) = fs::read(root.join("a").join(&name)) else { continue };
            if name == "state.json" {
                assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == bytes[0]), "torn");
                reads += 1;
            } else {
                spares += 1;
            }
        }
    }
    (reads, spares)
}

/// Descriptors of this process below a directory.
fn descriptors_below(root: &Path) -> usize {
    let open = tree::names(Path::new("/proc/self/fd"));
    let targets =
        open.iter().filter_map(|fd| fs::read_link(Path::new("/proc/self/fd").join(fd)).ok());
    targets.filter(|target| target.starts_with(root)).count()
}

#[test]
fn slots_are_bounded() {
    for place in with_slots() {
        let place = need!(place);
        let root = place.root();
        let store = lazy().slots(4).open_blocking(&root).unwrap();
        for number in 0..100 {
            for id in 0..20 {
                store.save_bytes_blocking(&format!("c{id}"), version(number + id)).unwrap();
                assert_eq!(file(&root, &format!("c{id}")).unwrap(), version(number + id));
            }
            let below = descriptors_below(&root);
            assert!(below <= 6 + 4 * 3, "{below} on {}", place.name());
            let spares =
                tree::temps(&root).iter().filter(|path| path.contains("/.ringseal-spare-")).count();
            assert!(spares <= 4 && (number < 2 || spares > 0), "{spares} on {}", place.name());
        }
    }
}

#[test]
fn they_give_way_where_descriptors_are_few() {
    in_child("slots::they_give_way_where_descriptors_are_few", || {
        for place in with_slots() {
            let place = need!(place);
            let root = place.root();
            let store = lazy().slots(100).open_blocking(&root).unwrap();
            for number in 0..4 {
                for id in 0..60 {
                    store.save_bytes_blocking(&format!("c{id}"), version(number)).unwrap();
                }
            }
            let before = getrlimit(Resource::Nofile);
            let held = tree::names(Path::new("/proc/self/fd")).len();
            assert!(held > 180, "{held} on {}", place.name());
            // Those that are open stay; no more can be opened. One of them was the listing's own.
            let limit = Rlimit { current: Some(held as u64 - 1), maximum: before.maximum };
            setrlimit(Resource::Nofile, limit).unwrap();
            for id in 60..70 {
                let committed = store.save_bytes_blocking(&format!("c{id}"), "new").unwrap();
                assert!(committed.not_visible.is_empty());
            }
            setrlimit(Resource::Nofile, before).unwrap();
        }
    });
}

#[test]
fn what_a_killed_process_leaves_goes_when_the_store_is_opened() {
    const ROOT: &str = "RINGSEAL_TEST_ROOT";
    let name = "slots::what_a_killed_process_leaves_goes_when_the_store_is_opened";
    child::run_if_child(name, || {
        let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
        let store = open(&root);
        for number in 0.. {
            store.save_bytes_blocking("a", version(number)).unwrap();
            if number == 9 {
                println!("saved");
            }
        }
    });
    for place in with_slots() {
        let place = need!(place);
        let root = place.root();
        let mut child = spawn_child(name, [(ROOT, root.as_os_str())]);
        assert_eq!(child::lines(&mut child).next().as_deref(), Some("saved"));
        child::kill(child);
        assert!(spare(&root, "a").is_some(), "{}", place.name());
        let store = StoreOptions::new().open_blocking(&root).unwrap();
        let removed = store.recovery().leftovers.iter().filter(|leftover| leftover.removed);
        assert!(removed.count() >= 1, "{}", place.name());
        assert_no_temps(&root.join("a"));
        let found = file(&root, "a").unwrap();
        assert!((9..).take(1_000_000).any(|number| version(number) == found));
    }
}

/// A spare that a power cut has left in the directory does not keep it, when the removal of its container is replayed.
#[test]
fn a_container_that_was_removed_before_a_power_cut_is_gone_with_its_spare() {
    for disk in crate::disks() {
        let disk = need!(disk);
        let root = disk.path().join("root");
        let store = open(&root);
        if !crate::shares_its_log(&store) {
            continue;
        }
        for number in 0..4 {
            store.save_bytes_blocking("a", version(number)).unwrap();
        }
        assert!(spare(&root, "a").is_some());
        rustix::fs::syncfs(File::open(&root).unwrap()).unwrap();
        store.remove_blocking("a").unwrap();
        need!(disk.shutdown());
        drop(store);
        while StateStore::open_blocking(&root).is_ok() {}
        disk.remount();
        assert!(spare(&root, "a").is_some(), "the power cut came too late");
        let store = open(&root);
        assert!(!root.join("a").exists(), "{}", disk.name());
        store.close_blocking().unwrap();
    }
}
