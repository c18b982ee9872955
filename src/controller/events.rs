//! Events: what a user should see in `kubectl describe`, said once and not at every resync: a failure, its end, a new
//! value, a repair, a take-over. The first delivery is none of them: the status says it.
//!
//! Publishing never holds up a reconcile and never fails one: events go through bounded queues, and what does not fit
//! is dropped and counted. kube's recorder counts repeated ones in a series.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures::future::join_all;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use managed_secrets_api::{
    Reason,
    keys::{FIELD_MANAGER, GROUP, KIND, VERSION},
};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::view::Own;

/// Events that are published at the same time.
const PUBLISHERS: usize = 4;
/// Events that wait for one publisher.
const QUEUE: usize = 256;
/// Events that one publisher remembers, to count their repetitions. kube's recorder keeps each for six minutes, and longer if
/// no other comes: after a change of many objects that would be more memory than the cache needs for them.
const REMEMBERED: usize = 256;

/// Bytes of a note; the API server refuses an event with more.
const MAX_NOTE_BYTES: usize = 1024;

/// A note as far as it may go.
fn cut(note: &str) -> String {
    const MORE: &str = "…";
    if note.len() <= MAX_NOTE_BYTES {
        return note.to_owned();
    }
    let end = (0..=MAX_NOTE_BYTES - MORE.len()).rev().find(|&end| note.is_char_boundary(end)).unwrap_or_default();
    format!("{}{MORE}", &note[..end])
}

/// An event, and the object that it is about.
type About = (Event, ObjectReference);

/// Where events go.
#[derive(Clone)]
pub(super) struct Events {
    queues: Arc<[Waiting]>,
}

/// What waits for one publisher.
struct Waiting {
    queue: mpsc::Sender<About>,
    /// How many did not fit since the last one that was logged.
    dropped: Arc<AtomicUsize>,
}

impl Events {
    /// Queues, and the task that publishes what comes through them; the task ends with the last clone of the queues.
    pub(super) fn new(client: &Client) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let start = |_| {
            let (queue, events) = mpsc::channel(QUEUE);
            let dropped = Arc::<AtomicUsize>::default();
            let publish = publish(client.clone(), events, Arc::clone(&dropped));
            (Waiting { queue, dropped }, publish)
        };
        let (queues, publishers): (Vec<Waiting>, Vec<_>) = (0..PUBLISHERS).map(start).unzip();
        let publish = async move { drop(join_all(publishers).await) };
        (Self { queues: queues.into() }, publish)
    }

    /// Says something about an object. `action` keeps apart what has one reason: the recorder counts events that differ
    /// in their note alone as repetitions of the first.
    pub(super) fn say(&self, own: &Own, reason: Reason, action: &str, warning: bool, note: &str) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.as_str().to_owned(),
            note: Some(cut(note)),
            action: action.to_owned(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some(KIND.to_owned()),
            namespace: Some(own.namespace.clone()),
            name: Some(own.name.clone()),
            uid: Some(own.uid.clone()),
            ..ObjectReference::default()
        };
        // The events of one object stay in their order.
        let mut hasher = DefaultHasher::new();
        own.uid.hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % PUBLISHERS as u64).unwrap_or_default();
        let Waiting { queue, dropped } = &self.queues[turn];
        if queue.try_send((event, about)).is_err() {
            dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Publishes events, one after the other, until the last sender is dropped.
async fn publish(client: Client, mut events: mpsc::Receiver<About>, dropped: Arc<AtomicUsize>) {
    let recorder = || {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
        Recorder::new(client.clone(), reporter)
    };
    let (mut remembering, mut remembered) = (recorder(), 0);
    while let Some((event, about)) = events.recv().await {
        if remembered == REMEMBERED {
            (remembering, remembered) = (recorder(), 0);
        }
        remembered += 1;
        // The text of the error may repeat the note, which is ours; the code says enough.
        if let Err(error) = remembering.publish(&event, &about).await {
            let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
            debug!(code, reason = event.reason, "event not published");
        }
        if events.is_empty() {
            let dropped = dropped.swap(0, Relaxed);
            if dropped > 0 {
                warn!(dropped, "dropped events: too many waited to be published");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::convert::Infallible;

    use http::{Method, Request, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    /// What an API server is asked for that stores every event: the method, and how often the event was counted.
    type Asked = Arc<Mutex<Vec<(Method, i64)>>>;

    fn api_server() -> (Client, Asked) {
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        let client = Client::new(
            service_fn(move |request: Request<Body>| {
                let seen = Arc::clone(&seen);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    seen.lock().push((head.method, event["series"]["count"].as_i64().unwrap_or(1)));
                    Ok::<_, Infallible>(Response::new(Body::from(body.to_vec())))
                }
            }),
            "default",
        );
        (client, asked)
    }

    fn own(uid: &str) -> Own {
        let metadata = json!({"name": "db", "namespace": "shop", "uid": uid, "resourceVersion": "1", "generation": 1});
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "metadata": metadata, "spec": {"name": "DB"},
        });
        Own::new(serde_json::from_value(object).unwrap())
    }

    fn say(events: &Events, own: &Own) {
        events.say(own, Reason::Served, "Serve", false, "a note");
    }

    #[tokio::test]
    async fn an_event_is_counted_until_many_others_came() {
        // Enough for each publisher to have more than it remembers.
        const ROUNDS: usize = PUBLISHERS * 4;
        let (client, asked) = api_server();
        let (events, publish) = Events::new(&client);
        let publish = tokio::spawn(publish);
        say(&events, &own("first"));
        say(&events, &own("first"));
        // No more than may wait at once.
        for round in 0..ROUNDS {
            for number in 0..QUEUE / 2 {
                say(&events, &own(&format!("other-{round}-{number}")));
            }
            let queue = |it: &Waiting| it.queue.capacity();
            while events.queues.iter().map(queue).any(|capacity| capacity < QUEUE) {
                tokio::task::yield_now().await;
            }
        }
        say(&events, &own("first"));
        drop(events);
        publish.await.unwrap();
        let asked = asked.lock();
        assert_eq!(asked.len(), ROUNDS * QUEUE / 2 + 3);
        let counted: Vec<_> = asked.iter().filter(|(method, _)| method == Method::PATCH).collect();
        assert_eq!(counted, [&(Method::PATCH, 2)], "the third is an event of its own");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted() {
        let (client, asked) = api_server();
        let (events, publish) = Events::new(&client);
        (0..QUEUE + 3).for_each(|_| say(&events, &own("one")));
        let dropped: usize = events.queues.iter().map(|it| it.dropped.load(Relaxed)).sum();
        assert_eq!(dropped, 3);
        let counters: Vec<_> = events.queues.iter().map(|it| Arc::clone(&it.dropped)).collect();
        drop(events);
        publish.await;
        assert_eq!(asked.lock().len(), QUEUE);
        assert!(counters.iter().all(|it| it.load(Relaxed) == 0), "they were logged");
    }

    #[test]
    fn a_note_is_no_longer_than_the_api_server_takes() {
        let most = "n".repeat(MAX_NOTE_BYTES);
        assert_eq!(cut(&most), most);
        // The cut falls between characters, whatever their length.
        for filling in ["n", "ü", "字", "😀"] {
            for before in ["", "a", "ab", "abc"] {
                let note = format!("{before}{}", filling.repeat(MAX_NOTE_BYTES + 1));
                let short = cut(&note);
                assert!(short.len() <= MAX_NOTE_BYTES && short.len() > MAX_NOTE_BYTES - 8, "{}", short.len());
                assert!(short.ends_with('…') && note.starts_with(short.trim_end_matches('…')));
            }
        }
    }
}
