//! Work shared among threads, each at a bench of its own.

use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Error, Result};

use crate::bench::Bench;
use crate::disk::Filesystem;
use crate::figures::Tried;
use crate::report::Report;

/// Benches at work at a time. Most of the time they wait for their disks.
const WORKERS: usize = 2;

/// Carries out all jobs of a room on a filesystem, and adds up what came of them.
pub(crate) fn try_all<J: Send>(
    room: &str,
    filesystem: &'static Filesystem,
    jobs: Vec<J>,
    report: &Report,
    work: impl Fn(&mut Bench, J) -> Result<Tried> + Sync,
) -> Result<Tried> {
    let began = Instant::now();
    let bar = report.begin(&format!("{room} {}", filesystem.name), jobs.len() as u64);
    let mut sum = Tried::default();
    let done = |tried| {
        bar.step();
        sum.merge(&tried);
    };
    share(jobs, || Bench::new(filesystem), work, done)?;
    bar.end();
    sum.seconds = began.elapsed().as_secs_f64();
    Ok(sum)
}

/// Does every job, in any order, by a few threads, each with what `begin` gives it, and hands what comes of it to
/// `done` one by one. Ends at the first error.
pub(crate) fn share<J: Send, B, T: Send>(
    jobs: Vec<J>,
    begin: impl Fn() -> Result<B> + Sync,
    work: impl Fn(&mut B, J) -> Result<T> + Sync,
    mut done: impl FnMut(T) + Send,
) -> Result<()> {
    let jobs = Mutex::new(jobs.into_iter());
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let done: Mutex<&mut (dyn FnMut(T) + Send)> = Mutex::new(&mut done);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let ended = (|| -> Result<()> {
                    let mut bench = begin()?;
                    loop {
                        let job = lock(&jobs).next();
                        let Some(job) = job else { return Ok(()) };
                        if lock(&failed).is_some() {
                            return Ok(());
                        }
                        let came = work(&mut bench, job)?;
                        lock(&done)(came);
                    }
                })();
                if let Err(error) = ended {
                    lock(&failed).get_or_insert(error);
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn lock<T: ?Sized>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
