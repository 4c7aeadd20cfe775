//! The files, as a filesystem keeps them: a version that was not synced may be there after a power cut, or
//! not, or in part; a sync that failed says nothing, and neither does a later one of the same pages.

use std::collections::BTreeMap;

use fastrand::Rng;
use rustix::io::Errno;

use super::super::Files;
use super::{REMOVED, Version, Without};
use crate::store::log::format::{Kind, Record};

/// What a file holds: a version, or nothing that was ever saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Version(Version),
    Garbage,
}

/// A file; `None` is that it is not there.
#[derive(Debug, Clone)]
pub(super) struct File {
    cached: Option<Content>,
    /// What a power cut may leave.
    perhaps: Vec<Option<Content>>,
    /// A sync of these pages has failed: they are never written again.
    failed: bool,
}

/// The files, as a filesystem keeps them. Those that were set aside have a name of their own.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) files: BTreeMap<String, File>,
    pub(super) rng: Rng,
    /// A path that nobody can write to.
    pub(super) immutable: Option<String>,
    /// Faults are over: a recovery has to succeed some day.
    pub(super) is_kind: bool,
    pub(super) without: Without,
}

impl World {
    fn set(&mut self, path: &str, content: Option<Content>) {
        let absent = File { cached: None, perhaps: vec![None], failed: false };
        let file = self.files.entry(path.to_owned()).or_insert(absent);
        if self.without == Without::FreshFilesAfterFailure && file.cached == content {
            return;
        }
        file.cached = content;
        file.perhaps.extend([content, Some(Content::Garbage)]);
        file.failed = false;
    }

    fn set_durably(&mut self, path: &str, content: Option<Content>) {
        let file = File { cached: content, perhaps: vec![content], failed: false };
        self.files.insert(path.to_owned(), file);
    }

    pub(super) fn get(&self, path: &str) -> Option<Version> {
        match self.files.get(path).and_then(|file| file.cached)? {
            Content::Version(version) => Some(version),
            Content::Garbage => Some(Version::MAX),
        }
    }

    pub(super) fn cut_power(&mut self) {
        for file in self.files.values_mut() {
            file.cached = file.perhaps[self.rng.usize(0..file.perhaps.len())];
            *file = File { cached: file.cached, perhaps: vec![file.cached], failed: false };
        }
    }
}

pub(super) fn aside(path: &str) -> String {
    format!("aside/{path}")
}

fn version_of(record: &Record) -> Version {
    match record.kind {
        Kind::Replace => record.data[..4].try_into().map_or(0, u32::from_le_bytes),
        Kind::Remove | Kind::Forget => REMOVED,
    }
}

impl Files for &mut World {
    fn publish(&mut self, record: &Record) -> Result<(), Errno> {
        if self.immutable.as_ref() == Some(&record.path) {
            return Err(Errno::PERM);
        }
        let content = Some(Content::Version(version_of(record)));
        self.set(&record.path, content.filter(|_| record.kind == Kind::Replace));
        if self.files.contains_key(&aside(&record.path)) {
            self.set(&aside(&record.path), None);
        }
        Ok(())
    }

    fn set_aside(&mut self, record: &Record) -> Result<(), Errno> {
        if self.without != Without::SettingAside {
            let content = Some(Content::Version(version_of(record)));
            self.set_durably(&aside(&record.path), content);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Errno> {
        let fails = !self.is_kind && self.rng.u8(0..10) == 0;
        if self.without == Without::DurableReplay && self.is_kind {
            return Ok(());
        }
        for file in self.files.values_mut() {
            if fails && file.perhaps.len() > 1 {
                file.failed = true;
            } else if !file.failed {
                file.perhaps = vec![file.cached];
            }
        }
        if fails { Err(Errno::IO) } else { Ok(()) }
    }
}
