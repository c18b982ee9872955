//! The pulse of one watch: a layer under kube's `watcher`, which swallows bookmarks and resumes quietly.
//!
//! * Puts a deadline on the beginning of each answer, and on silences within a list. A watch may be silent; its end is
//!   the watch timeout's business.
//! * Notes `Retry-After`, which kube keeps only where the body repeats it.
//! * Slows down what comes after a stream that was cut early: kube resumes a stream that just ends at once and without
//!   end, so a proxy that cuts each stream as it begins would be asked hundreds of times a second.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use kube::{Client, client::Body};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::{BoxError, Service};
use tracing::warn;

use super::Timing;
use crate::engine::{backoff::Jitter, client::retry_after, stats::Stats};

/// What was heard on one watch, shared by the layer, the watch's task and its handle.
#[derive(Debug)]
pub(super) struct Pulse {
    timing: Timing,
    stats: Arc<Stats>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the last answer asked for.
    retry_after: Option<Duration>,
    /// Streams in a row that were cut early.
    cuts: u32,
}

impl Pulse {
    pub(super) fn new(timing: Timing, stats: Arc<Stats>) -> Self {
        Self { timing, stats, state: Mutex::new(State { retry_after: None, cuts: 0 }) }
    }

    /// The `Retry-After` of the last answer, once.
    pub(super) fn take_retry_after(&self) -> Option<Duration> {
        self.state().retry_after.take()
    }

    /// Waits before a stream is begun, if the ones before it were cut.
    async fn pause(&self) {
        let cuts = self.state().cuts;
        if cuts > 0 {
            let delay = self.timing.backoff.delay(cuts, Jitter::random());
            warn!(cuts, ?delay, "the stream was cut as it began: waiting before the next one");
            sleep(delay).await;
        }
    }

    fn stream_ended(&self, lasted: Duration) {
        // A watch timeout as short as in tests is no cut.
        let cut = lasted < self.timing.cut.min(self.timing.watch / 2);
        if cut {
            self.stats.watch_cuts.increment();
        }
        let mut state = self.state();
        state.cuts = if cut { state.cuts.saturating_add(1) } else { 0 };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing done under this lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The deadline of an answer passed.
#[derive(Debug, thiserror::Error)]
#[error("nothing was heard from the server for {0:?}")]
struct Silence(Duration);

/// A client that keeps a pulse.
#[derive(Clone)]
pub(super) struct Monitored {
    client: Client,
    pulse: Arc<Pulse>,
}

impl Monitored {
    pub(super) fn new(client: Client, pulse: Arc<Pulse>) -> Self {
        Self { client, pulse }
    }
}

impl Service<Request<Body>> for Monitored {
    type Response = Response<MonitoredBody<Body>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(())) // the client waits for itself
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { client, pulse } = self.clone();
        let watch = is_watch(&request);
        Box::pin(async move {
            if watch {
                pulse.pause().await;
            }
            let limit = pulse.timing.answer;
            let answer = timeout(limit, client.send(request)).await.map_err(|_| Silence(limit))??;
            pulse.state().retry_after = retry_after(answer.headers());
            let good = answer.status().is_success();
            let deadline = || Box::pin(sleep(limit));
            let kind = match (good, watch) {
                (true, true) => Kind::Stream { began: Instant::now() },
                (true, false) => Kind::List { limit, deadline: deadline() },
                (false, _) => Kind::Error { limit, deadline: deadline() },
            };
            Ok(answer.map(|body| MonitoredBody { body, monitor: Monitor { pulse, kind } }))
        })
    }
}

/// As kube writes it into the query.
fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair == "watch=true")
}

pin_project! {
    /// A body that keeps a pulse.
    pub(super) struct MonitoredBody<B> {
        #[pin]
        body: B,
        monitor: Monitor,
    }
}

struct Monitor {
    pulse: Arc<Pulse>,
    kind: Kind,
}

enum Kind {
    /// A watch: may be silent, must not be short.
    Stream { began: Instant },
    /// Must not be silent.
    List { limit: Duration, deadline: Pin<Box<Sleep>> },
    /// Must end soon.
    Error { limit: Duration, deadline: Pin<Box<Sleep>> },
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Kind::Stream { began } = self.kind {
            self.pulse.stream_ended(began.elapsed());
        }
    }
}

impl<B> HttpBody for MonitoredBody<B>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        let kind = &mut this.monitor.kind;
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            if let Some(Ok(_)) = frame {
                // The deadline of an error is for the whole of it.
                if let Kind::List { limit, deadline } = kind {
                    deadline.as_mut().reset(Instant::now() + *limit);
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match kind {
            Kind::Stream { .. } => Poll::Pending,
            Kind::List { limit, deadline } | Kind::Error { limit, deadline } => {
                ready!(deadline.as_mut().poll(cx));
                Poll::Ready(Some(Err(Silence(*limit).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
