//! The pulse of one watch: a layer below kube's `watcher`, which hides bookmarks and resumes silently.
//!
//! * Sets a deadline for the start of each answer, and for silences within a list. A watch may be silent; the watch timeout
//!   ends it.
//! * Reads each page of a list itself, and keeps it small (see the module `pages`).
//! * Records the revision that a watch starts at, and asks for the present one after a break (see `revision`).
//! * Records `Retry-After`, which kube keeps only if the body repeats it.
//! * Records when the server last sent something (see `contact`).
//! * Delays the request after a stream that was cut early: kube resumes an ended stream at once and without limit, so a
//!   proxy that cuts each stream at its start would get hundreds of requests a second.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use parking_lot::{Mutex, MutexGuard};
use pin_project_lite::pin_project;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::bytes::Bytes;
use tower::{BoxError, Service};
use tracing::{debug, warn};

use super::{
    Common, Timing,
    contact::Contact,
    pages::{MAX_BYTES, Pages, parameter, with_limit},
    revision::Seen,
};
use crate::{backoff::Jitter, client::retry_after, stats::Stats};

/// The state of one watch, shared by the layer, the watch's task and its handle.
#[derive(Debug)]
pub(super) struct Pulse {
    timing: Timing,
    stats: Arc<Stats>,
    common: Arc<Common>,
    pages: Pages,
    /// The highest revision that was seen.
    pub(super) seen: Arc<Seen>,
    /// When the server last sent something.
    pub(super) contact: Arc<Contact>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The delay that the last answer asked for.
    retry_after: Option<Duration>,
    /// Streams in a row that were cut early.
    cuts: u32,
    /// A stream broke or could not start, and none has started since.
    broken: bool,
    /// Held from when a page is read until its objects are decoded.
    turn: Option<OwnedSemaphorePermit>,
}

impl Pulse {
    pub(super) fn new(name: String, timing: Timing, stats: Arc<Stats>, common: Arc<Common>) -> Self {
        let nothing = State { retry_after: None, cuts: 0, broken: false, turn: None };
        let contact = Arc::new(Contact::new(name));
        common.contacts.register(&contact);
        Self {
            timing,
            stats,
            common,
            pages: Pages::default(),
            seen: Arc::default(),
            contact,
            state: Mutex::new(nothing),
        }
    }

    /// The last page is decoded: another watch may read a page.
    pub(super) fn decoded(&self) {
        self.state().turn = None;
    }

    /// Takes the `Retry-After` of the last answer.
    pub(super) fn take_retry_after(&self) -> Option<Duration> {
        self.state().retry_after.take()
    }

    /// Waits before a stream starts, if the streams before it were cut.
    async fn pause(&self) {
        let cuts = self.state().cuts;
        if cuts > 0 {
            let delay = self.timing.backoff.delay(cuts, Jitter::random());
            warn!(cuts, ?delay, "the stream was cut at its start; waiting before the next one");
            sleep(delay).await;
        }
    }

    fn stream_ended(&self, lasted: Duration) {
        // The short watch timeouts of tests do not count as a cut.
        let cut = lasted < self.timing.cut.min(self.timing.watch / 2);
        if cut {
            self.stats.watch_cuts.increment();
        }
        let mut state = self.state();
        state.cuts = if cut { state.cuts.saturating_add(1) } else { 0 };
        // The server ends a stream at its timeout, counted from a moment before its answer came.
        state.broken |= lasted < self.timing.watch.saturating_sub(Duration::from_secs(1));
    }

    /// A stream starts, or does not. After a break the server may be another one, with other data.
    fn stream_begins(&self, begins: bool) {
        if begins {
            self.contact.follows();
        }
        let mut state = self.state();
        if std::mem::replace(&mut state.broken, !begins) && begins {
            self.common.revisions.ask();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing done under this lock panics.
        self.state.lock()
    }
}

/// The deadline for an answer passed.
#[derive(Debug, thiserror::Error)]
#[error("the server sent nothing for {0:?}")]
struct Silence(Duration);

/// A client that records the pulse.
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
        Poll::Ready(Ok(())) // the client itself waits
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { client, pulse } = self.clone();
        let watch = is_watch(&request);
        let limit = parameter(request.uri(), "limit").and_then(|limit| limit.parse().ok());
        let page = limit.filter(|_| !watch);
        Box::pin(async move {
            if let Some(wanted) = page {
                return pulse.page(&client, request.into_parts().0, wanted).await;
            }
            if watch {
                pulse.pause().await;
                if let Some(version) = parameter(request.uri(), "resourceVersion") {
                    // The position at which it resumes, which includes the bookmarks that kube hides.
                    pulse.seen.note(version);
                }
            }
            let answer = pulse.send(&client, request).await;
            if watch {
                pulse.stream_begins(answer.as_ref().is_ok_and(|answer| answer.status().is_success()));
            }
            let answer = answer?;
            let kind = match (answer.status().is_success(), watch) {
                (true, true) => Kind::Stream { began: Instant::now() },
                (true, false) => pulse.list(),
                (false, _) => pulse.error(),
            };
            Ok(answer.map(|body| pulse.monitor(body, kind)))
        })
    }
}

impl Pulse {
    /// Sends a request, and waits until the answer begins.
    async fn send(&self, client: &Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let limit = self.timing.answer;
        let answer = timeout(limit, client.send(request)).await.map_err(|_| Silence(limit))?;
        match answer {
            Ok(_) => self.contact.answered(),
            Err(_) => self.contact.tried(),
        }
        let answer = answer?;
        self.state().retry_after = retry_after(answer.headers());
        Ok(answer)
    }

    /// Gets a page of a list of at most `wanted` objects, or fewer if that would be too large.
    async fn page(
        self: &Arc<Self>,
        client: &Client,
        head: Parts,
        wanted: u32,
    ) -> Result<Response<MonitoredBody<Body>>, BoxError> {
        self.decoded();
        loop {
            let limit = self.pages.limit(wanted);
            let mut smaller = head.clone();
            smaller.uri = with_limit(&head.uri, limit).unwrap_or(smaller.uri);
            let answer = self.send(client, Request::from_parts(smaller, Body::empty())).await?;
            if !answer.status().is_success() {
                return Ok(answer.map(|body| self.monitor(body, self.error())));
            }
            // Only now: a server that does not answer delays no other watch.
            let turn = Arc::clone(&self.common.turns).acquire_owned().await?;
            let (head, body) = answer.into_parts();
            let most = if limit > 1 { MAX_BYTES } else { usize::MAX };
            if let Some(bytes) = gather(self.monitor(body, self.list()), most).await? {
                self.pages.read(limit, bytes.len());
                self.state().turn = Some(turn);
                let body = self.monitor(Body::from(bytes), Kind::Whole);
                return Ok(Response::from_parts(head, body));
            }
            self.pages.shrink(limit);
            self.stats.pages_split.increment();
            debug!(limit, "a page of the list is too large; requesting fewer objects");
        }
    }

    fn monitor<B>(self: &Arc<Self>, body: B, kind: Kind) -> MonitoredBody<B> {
        MonitoredBody { body, monitor: Monitor { pulse: Arc::clone(self), kind } }
    }

    fn list(&self) -> Kind {
        Kind::List { limit: self.timing.answer, deadline: Box::pin(sleep(self.timing.answer)) }
    }

    fn error(&self) -> Kind {
        Kind::Error { limit: self.timing.answer, deadline: Box::pin(sleep(self.timing.answer)) }
    }
}

/// Reads a body; `None` if it has more than `most` bytes.
async fn gather<B>(body: B, most: usize) -> Result<Option<Vec<u8>>, BoxError>
where
    B: HttpBody<Data = Bytes, Error = BoxError>,
{
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > most {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Some(bytes))
}

/// As kube writes it into the query.
fn is_watch(request: &Request<Body>) -> bool {
    parameter(request.uri(), "watch") == Some("true")
}

pin_project! {
    /// A body that records the pulse.
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
    /// Was read already.
    Whole,
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
            match frame {
                Some(Err(_)) => this.monitor.pulse.contact.tried(),
                Some(Ok(_)) | None => this.monitor.pulse.contact.answered(),
            }
            if let Some(Ok(_)) = frame {
                // The deadline of an error covers its whole body.
                if let Kind::List { limit, deadline } = kind {
                    deadline.as_mut().reset(Instant::now() + *limit);
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match kind {
            Kind::Stream { .. } | Kind::Whole => Poll::Pending,
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
