//! Supervises tasks that must not end. Every task of the engine is spawned here and none is detached: if one ends before
//! the shutdown, or panics, [`Supervisor::run`] returns an error that names it, and the process ends. The restart repairs
//! it. So a process never runs with a dead part.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::Notify,
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Why the process cannot continue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A task returned before the shutdown.
    #[error("the task {0} ended unexpectedly")]
    Ended(String),
    /// A task panicked. The log says where (see [`log_panics`](super::run::log_panics)).
    #[error("the task {0} panicked")]
    Panicked(String),
    /// Tasks did not stop within the grace time after the shutdown started.
    #[error("tasks did not stop in time: {}", .0.join(", "))]
    Stuck(Vec<String>),
}

/// Owns the tasks. Dropping it aborts them.
#[derive(Debug)]
pub struct Supervisor {
    spawner: Spawner,
}

/// Gives tasks to the supervisor, at any time, also from a supervised task.
#[derive(Debug, Clone)]
pub struct Spawner {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tasks: Mutex<Tasks>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Tasks {
    set: JoinSet<()>,
    known: HashMap<Id, Task>,
}

#[derive(Debug)]
struct Task {
    name: String,
    stop: CancellationToken,
}

impl Spawner {
    /// Starts `task` at once, outside of any other span. It must end after `stop` is cancelled, and not before.
    pub fn spawn<F>(&self, name: impl Into<String>, stop: CancellationToken, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = self.inner.tasks();
        let id = tasks.set.spawn(task).id();
        tasks.known.insert(id, Task { name: name.into(), stop });
        drop(tasks);
        self.inner.added.notify_one();
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// Creates a supervisor without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self { spawner: Spawner { inner: Arc::default() } }
    }

    /// Returns a handle that starts tasks.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Watches over the tasks until `shutdown` is cancelled and all of them have ended, for which they have `grace`.
    ///
    /// Returns a [`Failure`] at once if a task panics or ends before the shutdown; the caller then ends the process.
    pub async fn run(self, shutdown: CancellationToken, grace: Duration) -> Result<(), Failure> {
        let inner = &self.spawner.inner;
        let watched = async {
            loop {
                let added = inner.added.notified();
                match poll_fn(|cx| inner.tasks().poll(cx)).await {
                    Some(Ok(())) => {}
                    Some(Err(failure)) => return failure,
                    None => added.await,
                }
            }
        };
        tokio::select! {
            biased;
            failure = watched => return Err(failure),
            () = shutdown.cancelled() => {}
        }
        let drained = async {
            while let Some(ended) = poll_fn(|cx| inner.tasks().poll(cx)).await {
                ended?;
            }
            Ok(())
        };
        timeout(grace, drained).await.unwrap_or_else(|_| {
            let mut names: Vec<_> = inner.tasks().known.values().map(|task| task.name.clone()).collect();
            names.sort();
            Err(Failure::Stuck(names))
        })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Tasks may hold a spawner, and so the set that holds them: without this they would live longer than the supervisor.
        self.spawner.inner.tasks().set.abort_all();
    }
}

impl Inner {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock()
    }
}

impl Tasks {
    /// Returns the next task that ended: `Ok` if it ended by the shutdown. `None` if there are no tasks.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), Failure>>> {
        self.set.poll_join_next_with_id(cx).map(|ended| ended.map(|ended| self.judge(&ended)))
    }

    fn judge(&mut self, ended: &Result<(Id, ()), JoinError>) -> Result<(), Failure> {
        let (id, panicked) = match ended {
            Ok((id, ())) => (*id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(Task { name, stop }) = self.known.remove(&id) else { return Ok(()) };
        match (panicked, stop.is_cancelled()) {
            (true, _) => Err(Failure::Panicked(name)),
            (false, true) => Ok(()),
            (false, false) => Err(Failure::Ended(name)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::testing::within;

    const GRACE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_untold_ends_the_process() {
        let supervisor = Supervisor::new();
        let stop = CancellationToken::new();
        supervisor.spawner().spawn("steady", stop.clone(), pending());
        supervisor.spawner().spawn("frail", stop.clone(), async {});
        assert_eq!(within(supervisor.run(stop, GRACE)).await, Err(Failure::Ended("frail".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_the_process_also_one_of_a_task_that_came_later() {
        let supervisor = Supervisor::new();
        let stop = CancellationToken::new();
        let spawner = supervisor.spawner();
        supervisor.spawner().spawn("parent", stop.clone(), async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            spawner.spawn("child", CancellationToken::new(), async { panic!("on purpose") });
            pending::<()>().await;
        });
        assert_eq!(within(supervisor.run(stop, GRACE)).await, Err(Failure::Panicked("child".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_without_tasks_waits_for_the_first() {
        let supervisor = Supervisor::new();
        let spawner = supervisor.spawner();
        let run = tokio::spawn(supervisor.run(CancellationToken::new(), GRACE));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!run.is_finished());
        spawner.spawn("frail", CancellationToken::new(), async {});
        assert_eq!(within(run).await.unwrap(), Err(Failure::Ended("frail".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_may_end_when_it_was_told_to() {
        let supervisor = Supervisor::new();
        let (shutdown, stop) = (CancellationToken::new(), CancellationToken::new());
        let told = stop.clone();
        supervisor.spawner().spawn("told", stop.clone(), async move { told.cancelled().await });
        let until = shutdown.clone();
        supervisor.spawner().spawn("drains", shutdown.clone(), async move {
            until.cancelled().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        let run = tokio::spawn(supervisor.run(shutdown.clone(), GRACE));
        stop.cancel();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!run.is_finished());
        let began = tokio::time::Instant::now();
        shutdown.cancel();
        assert_eq!(within(run).await.unwrap(), Ok(()));
        assert!(began.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_named_and_aborted() {
        struct Told(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(());
            }
        }
        let supervisor = Supervisor::new();
        let (sender, dropped) = tokio::sync::oneshot::channel();
        let (told, spawner) = (Told(Some(sender)), supervisor.spawner());
        let shutdown = CancellationToken::new();
        supervisor.spawner().spawn("deaf", shutdown.clone(), async move {
            let _holds = (told, spawner);
            pending::<()>().await;
        });
        shutdown.cancel();
        assert_eq!(within(supervisor.run(shutdown, GRACE)).await, Err(Failure::Stuck(vec!["deaf".into()])));
        within(dropped).await.expect("aborted, although it holds a spawner");
    }
}
