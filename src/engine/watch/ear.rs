//! What one watch's client hears: a layer under kube's `watcher`, which swallows bookmarks and resumes quietly.
//!
//! * Stamps every good answer and every piece of a body: liveness is judged by it.
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

use super::Timing;
use crate::engine::{backoff::Jitter, client::retry_after};

/// What was heard, shared by the layer, the watch's task and its handle.
#[derive(Debug)]
pub(super) struct Ear {
    timing: Timing,
    heard: Mutex<Heard>,
}

#[derive(Debug)]
struct Heard {
    last: Instant,
    retry_after: Option<Duration>,
    /// Streams in a row that were cut early.
    cuts: u32,
}

impl Ear {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, heard: Mutex::new(Heard { last: Instant::now(), retry_after: None, cuts: 0 }) }
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.heard().last.elapsed()
    }

    /// What the last answer with a `Retry-After` asked for, once.
    pub(super) fn take_retry_after(&self) -> Option<Duration> {
        self.heard().retry_after.take()
    }

    fn stamp(&self) {
        self.heard().last = Instant::now();
    }

    /// How long to wait before a stream is begun.
    fn pause(&self) -> Duration {
        match self.heard().cuts {
            0 => Duration::ZERO,
            cuts => self.timing.backoff.delay(cuts, Jitter::random()),
        }
    }

    fn stream_ended(&self, lasted: Duration) {
        // A watch timeout as short as in tests is no cut.
        let cut = lasted < self.timing.cut.min(self.timing.watch / 2);
        let mut heard = self.heard();
        heard.cuts = if cut { heard.cuts.saturating_add(1) } else { 0 };
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Nothing done under this lock panics.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The deadline of an answer passed.
#[derive(Debug, thiserror::Error)]
#[error("nothing was heard from the server for {0:?}")]
struct Silence(Duration);

/// A client with an ear.
#[derive(Clone)]
pub(super) struct Listening {
    client: Client,
    ear: Arc<Ear>,
}

impl Listening {
    pub(super) fn new(client: Client, ear: Arc<Ear>) -> Self {
        Self { client, ear }
    }
}

impl Service<Request<Body>> for Listening {
    type Response = Response<Heeded<Body>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(())) // the client waits for itself
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { client, ear } = self.clone();
        let watch = is_watch(&request);
        Box::pin(async move {
            if watch {
                sleep(ear.pause()).await;
            }
            let limit = ear.timing.answer;
            let answer = timeout(limit, client.send(request)).await.map_err(|_| Silence(limit))??;
            if answer.status().is_success() {
                ear.stamp();
            }
            ear.heard().retry_after = retry_after(answer.headers());
            let kind = if watch && answer.status().is_success() {
                Kind::Stream { began: Instant::now() }
            } else {
                Kind::Whole { limit, deadline: Box::pin(sleep(limit)) }
            };
            Ok(answer.map(|body| Heeded { body, listening: Listens { ear, kind } }))
        })
    }
}

/// As kube writes it into the query.
fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair == "watch=true")
}

pin_project! {
    /// A body that is heard out.
    pub(super) struct Heeded<B> {
        #[pin]
        body: B,
        listening: Listens,
    }
}

struct Listens {
    ear: Arc<Ear>,
    kind: Kind,
}

enum Kind {
    /// A watch: may be silent, must not be short.
    Stream { began: Instant },
    /// A list, or an error: must not be silent.
    Whole { limit: Duration, deadline: Pin<Box<Sleep>> },
}

impl Drop for Listens {
    fn drop(&mut self) {
        if let Kind::Stream { began } = self.kind {
            self.ear.stream_ended(began.elapsed());
        }
    }
}

impl<B> HttpBody for Heeded<B>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        let Listens { ear, kind } = this.listening;
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            if let Some(Ok(_)) = frame {
                ear.stamp();
                if let Kind::Whole { limit, deadline } = kind {
                    deadline.as_mut().reset(Instant::now() + *limit);
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match kind {
            Kind::Stream { .. } => Poll::Pending,
            Kind::Whole { limit, deadline } => {
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
