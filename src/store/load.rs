//! Reading an open store: the files, and what they do not show yet.

use std::future::Future;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use super::StateStore;
use super::core::container;
use super::log::format::Kind;
#[cfg(feature = "json")]
use super::verify::{self, Unreadable};
use crate::error::{Cause, Result};
use crate::plan::Step;
use crate::reply::{NoAnswer, channel};

impl StateStore {
    /// Reads a container's state; `None` if it has none.
    ///
    /// # Errors
    /// At [`Step::Check`]: it cannot be read, or is no JSON of this type ([`Cause::Parse`], with line and
    /// column).
    #[cfg(feature = "json")]
    pub fn load<T>(&self, id: &str) -> impl Future<Output = Result<Option<T>>> + Send + use<T>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let id = id.to_owned();
        self.elsewhere(move |store| store.load_blocking(&id))
    }

    /// As [`load`](StateStore::load), on this thread.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "json")]
    pub fn load_blocking<T>(&self, id: &str) -> Result<Option<T>>
    where
        T: serde::de::DeserializeOwned,
    {
        let bytes = self.load_bytes_blocking(id)?;
        bytes.map(|bytes| self.handle.committer.layout.parse(id, &bytes)).transpose()
    }

    /// Reads a container's state, whatever its form; `None` if it has none.
    ///
    /// # Errors
    /// At [`Step::Check`] or [`Step::OpenDirectory`], if it cannot be read.
    pub fn load_bytes(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send + use<> {
        let id = id.to_owned();
        self.elsewhere(move |store| store.load_bytes_blocking(&id))
    }

    /// As [`load_bytes`](StateStore::load_bytes), on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn load_bytes_blocking(&self, id: &str) -> Result<Option<Bytes>> {
        let name = self.handle.committer.layout.names.state.clone();
        self.load_file_blocking(id, &name)
    }

    /// Reads one of a container's files; `None` if it has none of this name.
    ///
    /// # Errors
    /// As [`load_bytes`](StateStore::load_bytes); a name that the store was not told is refused.
    pub fn load_file_blocking(&self, id: &str, name: &str) -> Result<Option<Bytes>> {
        let path = self.path(id, name)?;
        self.check_open(&path)?;
        if let Some(hidden) = self.hidden(&path) {
            return Ok(hidden);
        }
        let layout = &self.handle.committer.layout;
        let read = layout.read(&path).map_err(|failure| layout.error(&path, failure))?;
        Ok(read.map(Bytes::from))
    }

    /// As [`load_file_blocking`](StateStore::load_file_blocking), by a thread of the store.
    ///
    /// # Errors
    /// As there.
    pub fn load_file(
        &self,
        id: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send + use<> {
        let (id, name) = (id.to_owned(), name.to_owned());
        self.elsewhere(move |store| store.load_file_blocking(&id, &name))
    }

    /// Reads a container's pid file; `None` if it has none, or it does not hold a number.
    ///
    /// # Errors
    /// As [`load_bytes`](StateStore::load_bytes).
    pub fn load_pid_blocking(&self, id: &str) -> Result<Option<u32>> {
        let name = self.handle.committer.layout.names.pid.clone();
        let pid = self.load_file_blocking(id, &name)?;
        Ok(pid.and_then(|pid| std::str::from_utf8(&pid).ok()?.trim().parse().ok()))
    }

    /// As [`load_pid_blocking`](StateStore::load_pid_blocking), by a thread of the store.
    ///
    /// # Errors
    /// As there.
    pub fn load_pid(&self, id: &str) -> impl Future<Output = Result<Option<u32>>> + Send + use<> {
        let id = id.to_owned();
        self.elsewhere(move |store| store.load_pid_blocking(&id))
    }

    /// The ids of all containers that have a state, in their order.
    ///
    /// # Errors
    /// If the root cannot be read.
    pub fn list(&self) -> impl Future<Output = Result<Vec<String>>> + Send + use<> {
        self.elsewhere(|store| store.list_blocking())
    }

    /// As [`list`](StateStore::list), on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn list_blocking(&self) -> Result<Vec<String>> {
        self.check_open("")?;
        let layout = &self.handle.committer.layout;
        let ids = layout.ids().map_err(|errno| layout.error("", (Step::OpenDirectory, errno)))?;
        let name = &layout.names.state;
        let has_state = |id: &String| match self.hidden(&format!("{id}/{name}")) {
            Some(hidden) => hidden.is_some(),
            None => layout.has(id, name),
        };
        Ok(ids.into_iter().filter(has_state).collect())
    }

    /// Reads every state, and reports those that are no JSON, with line and column. Nothing is changed.
    ///
    /// # Errors
    /// If the root cannot be read. A state that cannot be read is reported like the others.
    #[cfg(feature = "json")]
    pub fn verify(&self) -> impl Future<Output = Result<Vec<Unreadable>>> + Send + use<> {
        self.elsewhere(|store| store.verify_blocking())
    }

    /// As [`verify`](StateStore::verify), on this thread.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "json")]
    pub fn verify_blocking(&self) -> Result<Vec<Unreadable>> {
        let layout = &self.handle.committer.layout;
        let ids = self.list_blocking()?;
        Ok(verify::all(layout, ids, |id| self.load_bytes_blocking(id)))
    }

    /// Has something done by a thread of the store.
    fn elsewhere<T, F>(&self, body: F) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&StateStore) -> Result<T> + Send + 'static,
    {
        let store = self.clone();
        async move {
            store.check_fork("")?;
            let (reply, answer) = channel(store.handle.generation);
            let here = store.clone();
            store.handle.committer.pool.run(Box::new(move || reply.send(body(&here))));
            answer.await.unwrap_or_else(|lost| {
                Err(store.error(
                    "",
                    match lost {
                        NoAnswer::Forked => Cause::Forked,
                        NoAnswer::Lost => Cause::EngineLost,
                    },
                ))
            })
        }
    }

    /// What is durable of a path and not visible: its bytes, or that it was removed.
    fn hidden(&self, path: &str) -> Option<Option<Bytes>> {
        let committer = &self.handle.committer;
        let hidden = committer.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = committer.behind.as_ref().and_then(|behind| behind.saves.get(path));
        let known = behind.or_else(|| Some(Arc::clone(&hidden.get(path)?.record)));
        drop(hidden);
        let record = known?;
        // One for a directory that is not there any more is of no container.
        let directory = committer.layout.open(container(path)).ok()?.id;
        let is_data = record.kind == Kind::Replace;
        directory.is(&record.directory).then(|| is_data.then(|| record.data.clone()))
    }
}
