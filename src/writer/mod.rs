//! The writer: a handle by which many tasks share one engine.

mod builder;
mod stats;

use std::fmt;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

pub use builder::WriterBuilder;
pub use stats::{Carried, WriterStats};

use crate::engine::task::limits::{Limits, Permit};
use crate::engine::task::{Task, Tasks};
use crate::engine::{EngineStatus, Running, StartError, calls};
use crate::error::{Cause, Error, Result};
use crate::job::Job;
use crate::plan::{Outcome, Step};
use crate::receipt::{Carrier, Receipt};
use crate::reply::{self, NoAnswer};
use crate::request::{Options, Request, Target};
use crate::stats::Answered;
use crate::sys::fork;
use crate::trace;

/// Saves files durably, many at a time.
///
/// Saves of one target take effect in the order in which they were accepted: each when its future is
/// polled, finds room and has opened the directory; [`Receipt::sequence`] is that order. A version that is overtaken while it waits for an older one is not
/// written, if neither asks for more than a replace; its answer comes with the newer one's.
///
/// A cheap handle (`Clone + Send + Sync`); its futures run on any executor. What was accepted is
/// carried out to its end, whatever becomes of the future: dropping one means that nobody waits.
/// Dropping the last handle does not wait either, [`close`](Writer::close) does.
///
/// Targets are resolved on the thread that polls (or calls), in its working directory and root.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("state.json");
/// # pollster::block_on(async {
/// use ringseal::{Durability, Writer};
///
/// let writer = Writer::new()?;
/// let receipt = writer.replace(&path, &b"{\"pid\":42}"[..]).await?;
/// assert!(matches!(receipt.durability, Durability::Durable | Durability::Volatile
///     | Durability::DurableUnproven));
/// writer.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: Arc<Limits>,
    engine: Running,
    generation: u64,
}

impl Writer {
    /// A writer with the default settings.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn new() -> Result<Writer, StartError> {
        Writer::builder().build()
    }

    /// Settings.
    pub fn builder() -> WriterBuilder {
        WriterBuilder::default()
    }

    /// Replaces `target` by `bytes`, durably, with mode 0o600.
    ///
    /// Nothing happens until the future is first polled. It then waits for room (see
    /// [`WriterBuilder::max_in_flight`]) and for the answer.
    ///
    /// # Errors
    /// The step that failed, its cause and what is true of the target now.
    pub fn replace(&self, target: impl Into<Target>, bytes: impl Into<Bytes>) -> Save {
        self.submit(Request::new(target, bytes))
    }

    /// Replaces `target` by `value` as JSON, without a trailing newline.
    ///
    /// # Errors
    /// As [`replace`](Writer::replace); a value that does not serialise changes nothing.
    #[cfg(feature = "json")]
    pub fn replace_json<T>(&self, target: impl Into<Target>, value: &T) -> Save
    where
        T: serde::Serialize + ?Sized,
    {
        match Request::json(target, value) {
            Ok(request) => self.submit(request),
            Err(error) => Save(Box::pin(std::future::ready(Err(error)))),
        }
    }

    /// Carries a request out.
    ///
    /// # Errors
    /// As [`replace`](Writer::replace).
    pub fn submit(&self, request: impl Into<Request>) -> Save {
        let request = request.into();
        let shared = Arc::clone(&self.shared);
        Save(Box::pin(async move {
            let permit = shared.room(&request).await?;
            let (task, answer) = shared.prepare(request, permit)?;
            shared.accept(vec![task]);
            answer.await
        }))
    }

    /// As [`replace`](Writer::replace), on this thread: it waits for the answer.
    ///
    /// On an idle writer the system calls are made here, which is the fastest way to save one file.
    ///
    /// # Errors
    /// As [`replace`](Writer::replace).
    pub fn replace_blocking(
        &self,
        target: impl Into<Target>,
        bytes: impl Into<Bytes>,
    ) -> Result<Receipt> {
        self.submit_blocking(Request::new(target, bytes))
    }

    /// As [`submit`](Writer::submit), on this thread: it waits for the answer.
    ///
    /// # Errors
    /// As [`replace`](Writer::replace).
    pub fn submit_blocking(&self, request: impl Into<Request>) -> Result<Receipt> {
        let request = request.into();
        if !self.shared.is_forked() {
            if let Some(permit) = self.shared.limits.try_acquire_idle(request.bytes.len()) {
                return self.shared.carry(request, permit);
            }
        }
        pollster::block_on(self.submit(request))
    }

    /// Carries out many requests, and answers for each, in their order.
    ///
    /// Requests are taken from the iterator as there is room for them, so it may read the payloads
    /// as it goes. What there is room for is handed to the engine at once: the saves share their
    /// syncs, so that a thousand cost a few flushes. They may be on any number of filesystems.
    ///
    /// Of two requests for one target the later one stands in the end; the earlier may be left out
    /// ([`Receipt::coalesced_into`]).
    ///
    /// # Errors
    /// Each answer is a result of its own: one that fails does not touch the others.
    pub fn replace_all<I>(&self, requests: I) -> SaveAll
    where
        I: IntoIterator,
        I::Item: Into<Request> + 'static,
        I::IntoIter: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let mut requests = requests.into_iter().map(Into::into);
        SaveAll(Box::pin(async move {
            let mut answers = Vec::new();
            let mut next = requests.next();
            while let Some(request) = next.take() {
                // None is accepted before all are resolved: that can take its time, and the iterator is
                // the caller's, while others may wait for these targets.
                let mut batch = Tasks::new();
                let mut add = |answers: &mut Vec<_>, prepared| match prepared {
                    Ok((task, answer)) => {
                        batch.push(task);
                        answers.push(Ok(answer));
                    }
                    Err(error) => answers.push(Err(error)),
                };
                let room = shared.room(&request).await;
                add(&mut answers, room.and_then(|permit| shared.prepare(request, permit)));
                // Whatever finds room without waiting goes along.
                for request in requests.by_ref() {
                    let Some(permit) = shared.limits.try_acquire(request.bytes.len()) else {
                        next = Some(request);
                        break;
                    };
                    add(&mut answers, shared.prepare(request, permit));
                }
                shared.accept(batch);
            }
            let mut results = Vec::with_capacity(answers.len());
            for answer in answers {
                results.push(match answer {
                    Ok(answer) => answer.await,
                    Err(error) => Err(error),
                });
            }
            results
        }))
    }

    /// As [`replace_all`](Writer::replace_all), on this thread: it waits for the answers.
    pub fn replace_all_blocking<I>(&self, requests: I) -> Vec<Result<Receipt>>
    where
        I: IntoIterator,
        I::Item: Into<Request> + 'static,
        I::IntoIter: Send + 'static,
    {
        pollster::block_on(self.replace_all(requests))
    }

    /// Which engine runs, and why.
    pub fn engine(&self) -> EngineStatus {
        self.shared.engine.status()
    }

    /// What it has done so far, and what is under way: a snapshot, for metrics. It takes some microseconds, waits for
    /// no disk, and can be asked at any time, also of a closed writer. In a forked child all is zero.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use ringseal::{Step, Writer};
    ///
    /// let writer = Writer::new()?;
    /// writer.replace_blocking(dir.path().join("state.json"), "{}")?;
    /// writer.replace_blocking(dir.path(), "{}").unwrap_err();
    ///
    /// let stats = writer.stats();
    /// assert_eq!((stats.answered, stats.failed), (2, 1));
    /// assert_eq!(stats.failures.at(Step::Check), 1); // a directory stands there
    /// assert_eq!((stats.bytes, stats.oldest_in_flight), (2, None));
    /// println!("99 % within {:?}", stats.latency.p99);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> WriterStats {
        // First of all: in a forked child every lock may be held by a thread that is not there.
        if self.shared.is_forked() {
            return WriterStats::default();
        }
        WriterStats::new(self.shared.limits.passed(), self.shared.engine.counters())
    }

    /// Takes no more saves and waits until every accepted one is answered. Saves that waited for
    /// room, and later ones, answer [`Cause::Closed`]. All handles of this writer are closed.
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            if shared.is_forked() {
                return;
            }
            shared.limits.close();
            poll_fn(|context| match shared.is_forked() {
                true => Poll::Ready(()),
                false => shared.limits.poll_drained(context),
            })
            .await;
            if !shared.is_forked() {
                shared.engine.close();
            }
        }
    }

    /// As [`close`](Writer::close), on this thread.
    pub fn close_blocking(&self) {
        pollster::block_on(self.close());
    }
}

impl Shared {
    fn is_forked(&self) -> bool {
        fork::generation() != self.generation
    }

    /// Waits for room for the request.
    async fn room(&self, request: &Request) -> Result<Permit> {
        // First of all: in a forked child every lock may be held by a thread that is not there.
        let cause = if self.is_forked() {
            Cause::Forked
        } else {
            match self.limits.acquire(request.bytes.len()).await {
                Ok(permit) => return Ok(permit),
                Err(why) => why.into(),
            }
        };
        Err(Error::new(
            request.target.clone().into_shown(),
            Step::Accept,
            Outcome::Unchanged,
            cause,
        ))
    }

    /// Carries a request out on this thread. If others of its target are under way, it waits.
    fn carry(&self, request: Request, permit: Permit) -> Result<Receipt> {
        let Request { target, bytes, options } = request;
        let (mut job, permit) = Shared::resolve(target, &bytes, &options, permit)?;
        if let Some(turn) = self.engine.enter(&mut job) {
            let mut syncs = 0;
            let answer = job.look_again().and_then(|()| {
                calls::run(&mut job, &bytes);
                syncs = job.syncs;
                calls::finish(job, Carrier::Caller, bytes.len())
            });
            drop(turn);
            count(permit, answer.as_ref(), syncs);
            return answer;
        }
        let (task, answer) = self.task(job, bytes, permit);
        self.accept(vec![task]);
        pollster::block_on(answer)
    }

    /// Opens the target's directory and looks at it. What fails so is answered.
    fn resolve(
        target: Target,
        bytes: &Bytes,
        options: &Options,
        permit: Permit,
    ) -> Result<(Job, Permit)> {
        match Job::prepare(target, options) {
            Ok(job) => {
                trace::accepted(permit.number(), &job.place.shown, bytes.len());
                Ok((job, permit))
            }
            Err(error) => {
                count(permit, Err(&error), 0);
                Err(error)
            }
        }
    }

    /// Resolves a request.
    fn prepare(&self, request: Request, permit: Permit) -> Result<(Box<Task>, Answer)> {
        let Request { target, bytes, options } = request;
        let (job, permit) = Shared::resolve(target, &bytes, &options, permit)?;
        Ok(self.task(job, bytes, permit))
    }

    fn task(&self, job: Job, payload: Bytes, permit: Permit) -> (Box<Task>, Answer) {
        let (reply, answer) = reply::channel(self.generation);
        let answer = Answer { answer, target: job.place.shown.clone() };
        let mut task = Task::new(job, payload, permit, reply);
        self.engine.prepare(&mut task);
        (task, answer)
    }

    /// Accepts saves, in their order, and hands those that can be carried out now to the engine, all at
    /// once; or carries them out here, where nothing waits for a disk.
    fn accept(&self, tasks: Tasks) {
        let ready = tasks.into_iter().filter_map(|task| self.engine.accept(task));
        let is_mine = |task: &Task| self.engine.leaves_to_caller(&task.job, task.payload.len());
        let (mine, batch): (Tasks, Tasks) = ready.partition(|task| is_mine(task));
        let alone = batch.len() == 1 && self.limits.is_one_in_flight();
        self.engine.submit(batch, alone);
        for mut task in mine {
            task.carrier = Carrier::Caller;
            task.carry();
        }
    }
}

/// Counts a save whose answer this is, and gives its room back.
fn count(mut permit: Permit, answer: Result<&Receipt, &Error>, syncs: u64) {
    permit.give_back_for(Answered::of(answer, syncs));
    trace::answered(permit.number(), permit.took(), answer);
}

/// The answer to a save of this target.
struct Answer {
    answer: reply::Answer<Result<Receipt>>,
    target: PathBuf,
}

impl Future for Answer {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| {
            let cause = match answer {
                Ok(answer) => return answer,
                Err(NoAnswer::Forked) => Cause::Forked,
                Err(NoAnswer::Lost) => Cause::EngineLost,
            };
            let target = std::mem::take(&mut self.target);
            Err(Error::new(target, Step::Rename, Outcome::Unknown, cause))
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.is_forked() {
            self.engine.close();
        }
    }
}

/// A save in a [`Writer`]: a future of its answer.
///
/// Nothing happens before it is polled. Once it was accepted it is carried out; dropping it only
/// means that nobody waits.
///
/// Where the writer is full, saves find room in the order in which they were first polled. One
/// that stands in line must be polled on or dropped: kept and not polled, it holds up those behind.
/// Polling opens the target's directory, which can wait where that is on a network.
#[must_use = "futures do nothing unless polled"]
pub struct Save(Pin<Box<dyn Future<Output = Result<Receipt>> + Send>>);

/// Many saves in a [`Writer`]: a future of their answers, in the order of the requests.
///
/// As for [`Save`], what was accepted is carried out. Dropped early, it takes no more requests.
#[must_use = "futures do nothing unless polled"]
pub struct SaveAll(Pin<Box<dyn Future<Output = Vec<Result<Receipt>>> + Send>>);

impl Future for Save {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl Future for SaveAll {
    type Output = Vec<Result<Receipt>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Save {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Save").finish_non_exhaustive()
    }
}

impl fmt::Debug for SaveAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaveAll").finish_non_exhaustive()
    }
}
