//! States that do not parse.

use std::path::PathBuf;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::layout::Layout;
use crate::error::{Cause, Error, Result};
use crate::plan::{Outcome, Step};

/// A state that is no JSON, or cannot be read.
#[non_exhaustive]
#[derive(Debug)]
pub struct Unreadable {
    /// The container.
    pub id: String,
    /// Its state file.
    pub path: PathBuf,
    /// Line and column where it stops making sense, from 1 on; `None` if it cannot be read.
    pub place: Option<(usize, usize)>,
    /// Why.
    pub error: Error,
}

impl Layout {
    /// Reads a state.
    pub(crate) fn parse<T: DeserializeOwned>(&self, id: &str, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| {
            let path = self.shown(&format!("{id}/{}", self.names.state));
            Error::new(path, Step::Check, Outcome::Unchanged, Cause::Parse(error))
        })
    }
}

/// Those of these containers whose state is unreadable.
pub(crate) fn all(
    layout: &Layout,
    ids: Vec<String>,
    load: impl Fn(&str) -> Result<Option<Bytes>>,
) -> Vec<Unreadable> {
    let mut found = Vec::new();
    for id in ids {
        let parsed = match load(&id) {
            Ok(None) => continue,
            Ok(Some(bytes)) => layout.parse::<serde_json::Value>(&id, &bytes).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = parsed {
            let place = match error.cause() {
                Cause::Parse(error) => Some((error.line(), error.column())),
                _ => None,
            };
            let path = error.target().to_owned();
            found.push(Unreadable { id, path, place, error });
        }
    }
    found
}
