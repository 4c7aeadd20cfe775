//! As root: filesystems on recording disks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::thread;

use super::*;

/// Private mounts for this test's thread; false, and said, where that cannot be.
fn ready() -> io::Result<bool> {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        eprintln!("SKIPPED: this test needs root and /dev/fuse");
        return Ok(false);
    }
    enter_private_mounts()?;
    Ok(true)
}

fn filesystem(name: &str) -> io::Result<&'static Filesystem> {
    Filesystem::by_name(name).ok_or_else(|| io::Error::other("no such filesystem"))
}

/// Writes some files one after the other, with a note after each fsync.
fn write_files(disk: &Disk, mounted: &Mounted, count: usize) -> io::Result<()> {
    let mut notes = File::options().append(true).open(disk.notes())?;
    let directory = File::open(mounted.path())?;
    for number in 0..count {
        let mut file = File::create(mounted.path().join(format!("file-{number}")))?;
        file.write_all(&vec![b'a' + number as u8; 20_000])?;
        file.sync_all()?;
        directory.sync_all()?;
        notes.write_all(format!("acked {number}\n").as_bytes())?;
    }
    Ok(())
}

/// How many of the files are there, whole, on a disk with these contents.
fn files_on(disk: &Disk, image: Image, kind: &Filesystem, at: &Path) -> io::Result<usize> {
    disk.load(image);
    let device = Device::attach(disk)?;
    let mounted = device.mount(kind, at)?;
    let whole = |number: &usize| {
        let expected = vec![b'a' + *number as u8; 20_000];
        fs::read(at.join(format!("file-{number}"))).is_ok_and(|bytes| bytes == expected)
    };
    let count = (0..26).take_while(whole).count();
    mounted.unmount()?;
    Ok(count)
}

/// Records, and at each note builds the disk with nothing of what was pending. Gives how many
/// files are there, note by note.
fn files_at_notes(kind: &Filesystem, latency: Latency) -> io::Result<Vec<usize>> {
    let at = tempfile::tempdir()?;
    let disk = Disk::new(kind.format()?)?;
    let device = Device::attach(&disk)?;
    let mounted = device.mount(kind, at.path())?;
    rustix::fs::syncfs(File::open(at.path())?)?;
    let base = disk.record(latency);
    write_files(&disk, &mounted, 6)?;
    disk.note("two\nlines");
    let tape = disk.stop();
    mounted.unmount()?;
    drop(device);

    let notes: Vec<_> = tape.events.iter().filter(|e| matches!(e, Event::Note(_))).collect();
    assert_eq!(notes.len(), 8);
    let mut found = Vec::new();
    let mut walk = Walk::new(&tape, base);
    while let Some(event) = walk.advance() {
        if let Event::Note(text) = event {
            if text.starts_with("acked") {
                // One that does not mount has none.
                found.push(files_on(&disk, walk.build(&[]), kind, at.path()).unwrap_or(0));
            }
        }
    }
    Ok(found)
}

#[test]
fn ext4_keeps_what_was_acked() -> io::Result<()> {
    if ready()? {
        for latency in [Latency::default(), Latency { max_us: 500, seed: 1 }] {
            assert_eq!(files_at_notes(filesystem("ext4")?, latency)?, [1, 2, 3, 4, 5, 6]);
        }
    }
    Ok(())
}

#[test]
fn every_filesystem_can_be_made_and_keeps_what_was_acked_if_it_is_sound() -> io::Result<()> {
    if ready()? {
        for kind in Filesystem::all() {
            let found = files_at_notes(kind, Latency { max_us: 100, seed: 2 })?;
            let lost = found.iter().enumerate().any(|(at, count)| *count < at + 1);
            assert!(found.len() == 6 && (!kind.sound || !lost), "{}: {found:?}", kind.name);
            assert!(lost || !kind.options.contains("nobarrier"), "{}: {found:?}", kind.name);
        }
    }
    Ok(())
}

#[test]
fn many_disks_at_once() -> io::Result<()> {
    if !ready()? {
        return Ok(());
    }
    let kind = filesystem("ext4")?;
    let image = kind.format()?;
    let work = || -> io::Result<()> {
        let at = tempfile::tempdir()?;
        let disk = Disk::new(image.clone())?;
        let slate = Slate::new()?;
        for _ in 0..10 {
            slate.load(&image)?;
            let device = Device::attach(&slate)?;
            let mounted = device.mount(kind, at.path())?;
            fs::write(at.path().join("file-0"), vec![b'a'; 20_000])?;
            mounted.unmount()?;
            drop(device);
            assert_eq!(files_on(&disk, slate.image()?, kind, at.path())?, 1);
            // The contents really are exchanged.
            slate.load(&image)?;
            assert_eq!(slate.image()?.pages().count(), image.pages().count());
            assert_eq!(files_on(&disk, image.clone(), kind, at.path())?, 0);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker died")))
        })
    })
}

#[test]
fn requests_fail_as_told() -> io::Result<()> {
    if !ready()? {
        return Ok(());
    }
    let disk = Disk::new(Image::new(1 << 20))?;
    let file = File::options().write(true).open(disk.file())?;
    let write = |byte: u8| std::os::unix::fs::FileExt::write_all_at(&file, &[byte; 512], 0);
    let errno = |answer: io::Result<()>| answer.err().and_then(|error| error.raw_os_error());
    let fault = Fault { of: Requests::Writes, from: 2, count: 1, kind: Kind::Lost, errno: 5 };
    let first = |disk: &Disk| {
        let mut byte = [0];
        disk.image().read(0, &mut byte);
        byte[0]
    };
    disk.record(Latency::default());

    disk.fail(fault);
    assert_eq!([errno(write(1)), errno(write(2)), errno(file.sync_all())], [None, Some(5), None]);
    assert_eq!(first(&disk), 1);
    assert_eq!(errno(write(3)), None);
    assert_eq!(disk.heal(), Hit { seen: 3, failed: 1 });

    disk.fail(Fault { kind: Kind::Taken, from: 1, count: u64::MAX, ..fault });
    assert_eq!(
        [errno(write(4)), errno(write(5)), errno(file.sync_all())],
        [Some(5), Some(5), None]
    );
    assert_eq!(disk.heal(), Hit { seen: 2, failed: 2 });
    assert_eq!(first(&disk), 5);

    disk.fail(Fault { of: Requests::Flushes, from: 1, errno: 28, ..fault });
    assert_eq!([errno(write(6)), errno(file.sync_all())], [None, Some(28)]);
    assert_eq!(disk.heal(), Hit { seen: 1, failed: 1 });

    let tape = disk.stop();
    let writes = tape.events.iter().filter(|event| matches!(event, Event::Write { .. })).count();
    let flushes = tape.events.iter().filter(|event| matches!(event, Event::Flush { .. })).count();
    assert_eq!((writes, flushes), (3, 2), "failed requests are not on the tape");
    assert_eq!(tape.at(tape.events.len()).pending.len(), 1);
    Ok(())
}

#[test]
fn what_was_not_synced_is_gone_after_a_shutdown() -> io::Result<()> {
    if !ready()? {
        return Ok(());
    }
    let kind = filesystem("ext4")?;
    let at = tempfile::tempdir()?;
    let disk = Disk::new(kind.format()?)?;
    let device = Device::attach(&disk)?;
    let mounted = device.mount(kind, at.path())?;
    fs::write(at.path().join("lost"), "never synced")?;
    mounted.shutdown()?;
    assert!(fs::write(at.path().join("more"), "x").is_err());
    mounted.unmount()?;
    let mounted = device.mount(kind, at.path())?;
    assert!(!at.path().join("lost").exists());
    mounted.unmount()
}
