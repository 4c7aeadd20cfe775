//! Arguments that more than one command takes, and how they are read.

use std::ffi::OsString;
use std::path::{Component, Path};

use clap::ValueEnum;
use clap::builder::{OsStringValueParser, TypedValueParser};
use ringseal::{Engine, Level};

/// `--engine`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// io_uring where it works, threads elsewhere
    Auto,
    /// io_uring, or fail
    Uring,
    /// Plain system calls on a pool of threads
    Threads,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Engine {
        match name {
            EngineName::Auto => Engine::Auto,
            EngineName::Uring => Engine::Uring,
            EngineName::Threads => Engine::Threads,
        }
    }
}

/// `--level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelName {
    /// A power cut at any later moment leaves this version, or a later one
    Durable,
    /// Whole or not at all for readers, but nothing is synced
    Atomic,
}

impl From<LevelName> for Level {
    fn from(name: LevelName) -> Level {
        match name {
            LevelName::Durable => Level::Durable,
            LevelName::Atomic => Level::Atomic,
        }
    }
}

/// Reads permission bits: `644`, `0644` or `0o644`.
pub fn mode(text: &str) -> Result<u32, &'static str> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    // `from_str_radix` would take a sign.
    let all_octal = !digits.is_empty() && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if all_octal && mode <= 0o777 => Ok(mode),
        _ => Err("permission bits in octal are asked for, 0 to 777"),
    }
}

/// Reads the name of a file inside a directory.
pub fn file_name() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(check_file_name)
}

fn check_file_name(name: OsString) -> Result<OsString, &'static str> {
    match Path::new(&name).components().eq([Component::Normal(&name)]) {
        true => Ok(name),
        false => Err("one file name is asked for, without a `/`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_permission_bits() {
        assert_eq!(mode("644"), Ok(0o644));
        assert_eq!(mode("0o600"), Ok(0o600));
        assert_eq!(mode("0000"), Ok(0));
        for wrong in ["", "0o", "8", "+644", "-1", "1777", "4755", "u=rw", "99999999999"] {
            assert!(mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_one_component() {
        assert_eq!(check_file_name("init.pid".into()), Ok("init.pid".into()));
        for wrong in ["", ".", "..", "a/b", "/a", "a/", "./a"] {
            assert!(check_file_name(wrong.into()).is_err(), "{wrong}");
        }
    }
}
