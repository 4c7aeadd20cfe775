//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Measures ringseal against other ways of saving files durably.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure in directories that are there.
    Run {
        /// A directory to measure in; give it again for another filesystem.
        #[arg(long, value_name = "DIR", required_unless_present = "list")]
        dir: Vec<PathBuf>,
        #[command(flatten)]
        measuring: Measuring,
    },
    /// Make filesystems on loop devices, measure on each, and remove them (needs root).
    Loops {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        measuring: Measuring,
    },
    /// Many callers, each saving its own state again and again: saves a second, and latencies.
    Callers {
        /// A directory to measure in; without one, filesystems on loop devices (needs root).
        #[arg(long, value_name = "DIR")]
        dir: Vec<PathBuf>,
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        calling: Calling,
    },
    /// Draw an earlier run: its JSON becomes an SVG.
    Plot {
        /// What `--json` wrote.
        json: PathBuf,
        /// The drawing.
        svg: PathBuf,
    },
    /// The writers, one line each.
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Places {
    /// Where the images are stored, by default in the temporary directory: on a disk, or the figures
    /// are those of memory.
    #[arg(long = "in", value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Size of each image; it is sparse.
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = bytes)]
    pub image_size: u64,
    /// The filesystems.
    #[arg(long, value_delimiter = ',', default_value = "ext4,xfs,btrfs")]
    pub filesystems: Vec<Kind>,
    /// Measure on a tmpfs as well.
    #[arg(long)]
    pub tmpfs: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Measuring {
    /// Numbers of files that are saved in one go.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000", value_parser = count)]
    pub files: Vec<usize>,
    /// Bytes of each file.
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = bytes)]
    pub size: u64,
    /// Sizes between a quarter of SIZE and sixteen times SIZE, the same for every writer.
    #[arg(long)]
    pub vary_size: bool,
    /// Where the targets are.
    #[arg(long, value_enum, default_value_t = Layout::DirEach)]
    pub layout: Layout,
    /// Rounds of every number of files; by default as many as small numbers need to be steady.
    #[arg(long, value_parser = count)]
    pub rounds: Option<usize>,
    /// After so many seconds on one number of files no new round begins.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub cell_time: Duration,
    /// Only these writers: names, name/engine, or a beginning with `*`.
    #[arg(long, value_name = "WRITERS", value_delimiter = ',')]
    pub only: Vec<String>,
    /// List the writers and measure nothing.
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Calling {
    /// How many.
    #[arg(long, default_value = "64", value_parser = count)]
    pub callers: usize,
    /// States that they save in turn; by default each has one.
    #[arg(long, value_name = "N", value_parser = count)]
    pub states: Option<usize>,
    /// Seconds after which a store's files follow its log, instead of the store's default.
    #[arg(long, value_name = "SECONDS")]
    pub spread_after: Option<f64>,
    /// Measure somebody else on the same filesystem, too: who writes 4 KiB to a file and syncs it, fifty times a second.
    #[arg(long)]
    pub neighbour: bool,
    /// Bytes of each state.
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = bytes)]
    pub size: u64,
    /// How long each writer is measured in each round.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub time: Duration,
    /// Rounds.
    #[arg(long, default_value = "5", value_parser = count)]
    pub rounds: usize,
    /// Only these writers.
    #[arg(long, value_name = "WRITERS", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Calling {
    /// How many states there are.
    pub(crate) fn states(&self) -> usize {
        self.states.unwrap_or(self.callers).max(self.callers)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw time per file against the number of files.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// Where the targets of a cell are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layout {
    /// All in one directory.
    OneDir,
    /// Each in a directory of its own, as container states are.
    DirEach,
}

/// A filesystem that can be made in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).map_err(|error| format!("{error}"))
}

/// A number of bytes, with K, M or G for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((end, 'K' | 'k')) => (&text[..end], 10),
        Some((end, 'M' | 'm')) => (&text[..end], 20),
        Some((end, 'G' | 'g')) => (&text[..end], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("at least 1".into()),
        Some(bytes) => Ok(bytes),
        None => Err("too large".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<(Vec<PathBuf>, Measuring), clap::Error> {
        let options = Options::try_parse_from([&["ringseal-bench", "run"], args].concat())?;
        match options.command {
            Command::Run { dir, measuring } => Ok((dir, measuring)),
            other => panic!("parsed as {other:?}"),
        }
    }

    #[test]
    fn lists_and_repeated_options() {
        let (dirs, measuring) =
            run(&["--dir", "/a", "--dir", "/b", "--files", "1,30", "--layout", "one-dir"])
                .expect("valid");
        assert_eq!(dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(measuring.files, [1, 30]);
        assert_eq!(measuring.layout, Layout::OneDir);
        assert_eq!(measuring.rounds, None);
    }

    #[test]
    fn a_directory_is_needed_except_to_list() {
        assert!(run(&[]).is_err());
        assert!(run(&["--list"]).expect("valid").1.list);
    }

    #[test]
    fn zero_is_refused() {
        for args in [["--files", "0"], ["--rounds", "0"], ["--size", "0"]] {
            assert!(run(&[&["--dir", "/a"], &args[..]].concat()).is_err(), "{args:?}");
        }
    }

    #[test]
    fn sizes_with_suffixes() {
        assert_eq!(bytes("700"), Ok(700));
        assert_eq!(bytes("64K"), Ok(64 << 10));
        assert_eq!(bytes("4G"), Ok(4 << 30));
        assert!(bytes("").is_err());
        assert!(bytes("4T").is_err());
        assert!(bytes("99999999999G").is_err());
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
