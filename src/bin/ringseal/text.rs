//! Lines of text for people.

use std::io::{self, Write};
use std::path::Path;

/// A line on standard error. A broken one is nobody's loss.
pub fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "ringseal: {}", printable(message));
}

/// Text as one line: control characters, which a name can hold, neither begin a new line nor reach
/// a terminal.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

/// A path as [`printable`] text.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// `1 file`, `2 files`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_line() {
        assert_eq!(printable("a\nringseal: b\u{1b}[2J\u{e9}"), "a\\nringseal: b\\u{1b}[2J\u{e9}");
    }
}
