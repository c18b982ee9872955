//! Events: what a user should see in `kubectl describe`, said once and not at every resync: a failure, its end, a new
//! value, a repair, a take-over. The first delivery is none of them: the status says it.
//!
//! Publishing never holds up a reconcile and never fails one: events go through a bounded queue, and what does not fit
//! is dropped. kube's recorder counts repeated ones in a series.

use std::sync::Arc;

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

/// Events waiting to be published.
const QUEUE: usize = 1024;

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

/// Where events go.
#[derive(Clone)]
pub(super) struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
}

impl Events {
    /// A queue, and the task that publishes what comes through it; the task ends with the last clone of the queue.
    pub(super) fn new(client: Client) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
        let recorder = Arc::new(Recorder::new(client, reporter));
        let publish = async move {
            while let Some((event, about)) = waiting.recv().await {
                // The text of the error may repeat the note, which is ours; the code says enough.
                if let Err(error) = recorder.publish(&event, &about).await {
                    let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
                    debug!(code, reason = event.reason, "event not published");
                }
            }
        };
        (Self { queue }, publish)
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
        if self.queue.try_send((event, about)).is_err() {
            warn!(reason = reason.as_str(), "dropped an event: too many events wait to be published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
