//! A scripted API server for unit tests. It is a [`Tap`] that answers every request itself, so time can be paused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{
    StreamExt as _,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
    future::BoxFuture,
};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::{Config, client::Body};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::bytes::Bytes;
use tower::BoxError;

use super::client::{Answer, Clients, Options, Tap, Wire};

/// More requests than any test intends. An endless loop of requests would never let paused time advance: after this many,
/// requests wait, and the test sees how many there were.
const STORM: usize = 10_000;

/// A line of a stream, or how it breaks.
pub(super) type Line = Result<Value, BoxError>;

/// The answer to one request.
pub(super) enum Reply {
    /// Status, headers, body.
    Whole(u16, Vec<(&'static str, &'static str)>, Value),
    /// The lines that come through the channel, until it closes.
    Stream(UnboundedReceiver<Line>),
    /// A list that starts and never continues.
    Stalled,
    /// No answer.
    Hang,
    /// The connection fails.
    Refused,
}

/// One request that was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) uri: String,
}

impl Seen {
    pub(super) fn is_watch(&self) -> bool {
        self.uri.contains("watch=true")
    }
}

/// The script, and the requests so far. After the script, `rest` answers.
pub(super) struct Server {
    script: Mutex<VecDeque<Reply>>,
    rest: Box<dyn Fn(&Seen) -> Reply + Send + Sync>,
    seen: Mutex<Vec<Seen>>,
}

impl Server {
    pub(super) fn new(
        script: impl IntoIterator<Item = Reply>,
        rest: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Arc<Self> {
        let script = Mutex::new(script.into_iter().collect());
        Arc::new(Self { script, rest: Box::new(rest), seen: Mutex::default() })
    }

    pub(super) fn clients(self: &Arc<Self>) -> Clients {
        let tap: Arc<dyn Tap> = self.clone();
        let options = Options { watch_tap: Some(Arc::clone(&tap)), call_tap: Some(tap), ..Options::default() };
        Clients::new(&Config::new("http://127.0.0.1:1".parse().unwrap()), &options).unwrap()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn lists(&self) -> usize {
        self.seen().iter().filter(|seen| !seen.is_watch()).count()
    }

    pub(super) fn watches(&self) -> usize {
        self.seen().iter().filter(|seen| seen.is_watch()).count()
    }

    /// The times between one request and the next.
    pub(super) fn gaps(&self) -> Vec<Duration> {
        self.seen().windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }
}

impl Tap for Server {
    fn exchange(&self, request: Request<Body>, _: Wire) -> BoxFuture<'static, Result<Answer, BoxError>> {
        let seen = Seen { at: Instant::now(), uri: request.uri().to_string() };
        let storm = {
            let mut all = self.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() > STORM
        };
        let scripted = self.script.lock().unwrap().pop_front();
        let reply = if storm { Reply::Hang } else { scripted.unwrap_or_else(|| (self.rest)(&seen)) };
        Box::pin(async move {
            match reply {
                Reply::Whole(status, headers, body) => {
                    let mut answer = Response::builder().status(status);
                    for (name, value) in headers {
                        answer = answer.header(name, value);
                    }
                    let body = Full::new(Bytes::from(body.to_string())).map_err(|never: Infallible| match never {});
                    Ok(answer.body(body.boxed_unsync()).unwrap())
                }
                Reply::Stream(lines) => {
                    let frames = lines.map(|line| line.map(|line| Frame::data(Bytes::from(format!("{line}\n")))));
                    Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
                }
                Reply::Stalled => {
                    let begin = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"{\"items\":[")))]);
                    Ok(Response::new(StreamBody::new(begin.chain(futures::stream::pending())).boxed_unsync()))
                }
                Reply::Hang => pending().await,
                Reply::Refused => Err("connection refused".into()),
            }
        })
    }
}

/// A list of config maps of these names, at version 1.
pub(super) fn list(names: &[&str]) -> Reply {
    let items: Vec<_> = names.iter().map(|name| config_map(name, "1")).collect();
    let list =
        json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "1"}, "items": items});
    Reply::Whole(200, vec![], list)
}

pub(super) fn config_map(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n", "resourceVersion": version}})
}

/// One line of a watch.
#[allow(clippy::unnecessary_wraps, reason = "other lines break")]
pub(super) fn event(kind: &str, object: &Value) -> Line {
    Ok(json!({"type": kind, "object": object}))
}

/// An error as the API server writes it, with this message.
pub(super) fn status(code: u16, message: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Because", "code": code, "message": message})
}

pub(super) fn failing(code: u16) -> Reply {
    Reply::Whole(code, vec![], status(code, "no"))
}

/// A watch that stays open as long as the sender lives.
pub(super) fn open() -> (UnboundedSender<Line>, Reply) {
    let (lines, receiver) = unbounded();
    (lines, Reply::Stream(receiver))
}

/// A watch of these lines that ends at once.
pub(super) fn short(lines: impl IntoIterator<Item = Line>) -> Reply {
    let (sender, reply) = open();
    for line in lines {
        sender.unbounded_send(line).unwrap();
    }
    reply
}

/// A watch without events.
pub(super) fn silent() -> Reply {
    let (lines, reply) = open();
    // It must outlive the test, which is what forgetting the only sender says.
    std::mem::forget(lines);
    reply
}

/// Returns the output of `future` within an hour. With paused time this takes no time: a test fails instead of hanging.
pub(super) async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(3600), future).await.expect("an end within an hour")
}

/// A number up to 100 is a group of its own; all above are of one.
impl super::queue::Grouped for u32 {
    type Group = Self;

    fn group(&self) -> &Self {
        if *self > 100 { &101 } else { self }
    }
}
