//! What a person sees while the rooms work.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Says what goes on, on standard error.
#[derive(Debug, Default)]
pub(crate) struct Report;

/// A room at work.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    room: String,
}

impl Report {
    pub(crate) fn begin(&self, room: &str, jobs: u64) -> Bar {
        let style =
            ProgressStyle::with_template("{msg:28} {pos}/{len} {wide_bar} {elapsed} ({eta} left)");
        let bar = ProgressBar::new(jobs)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(room.to_owned());
        bar.enable_steady_tick(Duration::from_secs(1));
        Bar { bar, room: room.to_owned() }
    }

    pub(crate) fn say(&self, what: &str) {
        eprintln!("{what}");
    }
}

impl Bar {
    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    pub(crate) fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    pub(crate) fn end(self) {
        let (done, took) = (self.bar.position(), self.bar.elapsed().as_secs_f64());
        self.bar.finish_and_clear();
        eprintln!("{}: {done} done in {took:.0} s", self.room);
    }
}
