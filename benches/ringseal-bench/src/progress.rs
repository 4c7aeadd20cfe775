//! The progress bar: on standard error, and only where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) fn bar(measurements: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{elapsed_precise} [{bar:30}] {pos}/{len}, {eta_precise} left  {wide_msg}",
    )
    .expect("the template is valid")
    .progress_chars("=> ");
    ProgressBar::new(measurements as u64).with_style(style)
}

/// A line above the bar; a plain line where there is none.
pub(crate) fn say(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() { eprintln!("{line}") } else { bar.println(line) }
}
