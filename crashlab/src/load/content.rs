//! What a version of a file holds: bytes that tell which version they are, and whether they are whole.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ROOT;

/// Not the mode that a store gives if it is not told one.
pub(crate) const STORE_MODE: u32 = 0o640;

/// A version of a file: its number, one for each change of a run, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) number: u32,
    pub(crate) bytes: u32,
}

impl Version {
    /// The mode with which the version is saved: outside a store, one that tells it from its neighbours.
    pub(crate) fn mode(self, path: &str) -> u32 {
        match path.split('/').next() {
            Some(ROOT) => STORE_MODE,
            _ => [0o600, 0o640, 0o644][self.number as usize % 3],
        }
    }

    /// The version's bytes, in the file of this path.
    pub(crate) fn content(self, path: &str) -> Vec<u8> {
        let mut content = head(path, self.number, self.bytes).into_bytes();
        let mut random = fastrand::Rng::with_seed(u64::from(self.number) << 32 | hash(path));
        content.truncate(self.bytes as usize);
        let filler = self.bytes as usize - content.len();
        content.extend(std::iter::repeat_with(|| random.alphanumeric() as u8).take(filler));
        content
    }
}

fn head(path: &str, number: u32, bytes: u32) -> String {
    format!("{path} {number} {bytes} ")
}

fn hash(path: &str) -> u64 {
    path.bytes().fold(5381, |hash, byte| (hash * 33 + u64::from(byte)) & 0xffff_ffff)
}

/// What was found in a file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// A file of no bytes, which some version may be.
    Empty,
    Version(u32),
    /// A directory.
    Directory,
    /// No version is like this.
    Torn(String),
}

impl Found {
    /// Which version of the file of this path is it? `mode`: the file's, if it is known.
    pub(crate) fn of(path: &str, content: &[u8], mode: Option<u32>) -> Found {
        if content.is_empty() {
            return Found::Empty;
        }
        let text = String::from_utf8_lossy(&content[..content.len().min(200)]);
        let version = text.strip_prefix(path).and_then(|rest| {
            let mut words = rest.split_ascii_whitespace();
            Some(Version {
                number: words.next()?.parse().ok()?,
                bytes: words.next()?.parse().ok()?,
            })
        });
        match version {
            Some(version) if version.content(path) == content => match mode {
                Some(mode) if mode != version.mode(path) => {
                    Found::Torn(format!("version {} with the mode {mode:o}", version.number))
                }
                _ => Found::Version(version.number),
            },
            _ => {
                let zeros = content.iter().filter(|byte| **byte == 0).count();
                Found::Torn(format!("{} bytes, {zeros} of them 0", content.len()))
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Nothing => f.write_str("nothing"),
            Found::Empty => f.write_str("an empty file"),
            Found::Version(number) => write!(f, "version {number}"),
            Found::Directory => f.write_str("a directory"),
            Found::Torn(what) => write!(f, "no version: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_known_by_its_bytes_and_a_torn_one_is_none() {
        let version = Version { number: 7, bytes: 5000 };
        let content = version.content("a/state.json");
        assert_eq!(content.len(), 5000);
        assert_eq!(Found::of("a/state.json", &content, None), Found::Version(7));
        assert!(matches!(Found::of("b/state.json", &content, None), Found::Torn(_)));
        assert!(matches!(Found::of("a/state.json", &content[..4096], None), Found::Torn(_)));
        let mut torn = content.clone();
        torn[4096..].fill(0);
        assert!(matches!(Found::of("a/state.json", &torn, None), Found::Torn(_)));
        assert_eq!(Found::of("a/state.json", &[], None), Found::Empty);
        // Of seven, the second of three modes.
        assert_eq!(Found::of("a/state.json", &content, Some(0o640)), Found::Version(7));
        assert!(matches!(Found::of("a/state.json", &content, Some(0o600)), Found::Torn(_)));
    }
}
