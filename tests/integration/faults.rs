//! An API server that does not do what it should: watches and calls that are refused, cut, silent or answered with
//! nonsense, and control planes that stop. Everything recovers, nothing wrong is served, and there is no storm.
//!
//! The server behind the faults is the real one; a [`Switch`] turns the fault on and off.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use super::operator::{Fault, PATIENCE, Seen, Tap};

mod calls;
mod late;
mod outage;
mod watches;

pub(super) use self::watches::FAST;

/// A fault that can be turned on and off, for the requests that it is meant for.
pub(super) struct Switch {
    pub(super) tap: Arc<Tap>,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Switch {
    /// Off.
    pub(super) fn new(meant: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let fault = Arc::<Mutex<Option<Fault>>>::default();
        let now = Arc::clone(&fault);
        let tap = Tap::new(move |_, request| {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            now.lock().unwrap().clone().filter(|_| meant(&path)).unwrap_or(Fault::Pass)
        });
        Self { tap, fault }
    }

    /// From now on, and for what is still coming in.
    pub(super) fn on(&self, fault: &Fault) {
        *self.fault.lock().unwrap() = Some(fault.clone());
        self.tap.cut_streams();
    }

    /// From now on, requests pass.
    pub(super) fn off(&self) {
        *self.fault.lock().unwrap() = None;
    }

    /// What was asked since `began`, by what asked it: lists and watches apart, and by path and label selector.
    fn asked_since(&self, began: Instant) -> HashMap<String, Vec<Seen>> {
        let mut by_asker = HashMap::<String, Vec<Seen>>::new();
        for seen in self.tap.seen().into_iter().filter(|seen| seen.at >= began) {
            let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
            let what = ["watch=true", "labelSelector", "fieldSelector"];
            let what: Vec<_> = what.into_iter().filter(|word| query.contains(word)).collect();
            by_asker.entry(format!("{path} {}", what.join(" "))).or_default().push(seen);
        }
        by_asker
    }
}

/// An answer of the API server that refuses.
pub(super) fn refusal(code: u16, reason: &str, retry_after: Option<u64>) -> Fault {
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "on purpose",
    });
    Fault::Answer { code, retry_after, body: body.to_string() }
}

/// A good answer with this body.
fn answer(body: &str) -> Fault {
    Fault::Answer { code: 200, retry_after: None, body: body.to_owned() }
}
