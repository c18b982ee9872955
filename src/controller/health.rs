//! What the controller says about its health.
//!
//! In: watches, queue, keyring and caches. Out: checks. A check that a restart repairs belongs to [`Probe::Live`]; one
//! that says whether the webhooks may be asked belongs to [`Probe::Ready`].

use std::{sync::Arc, time::Duration};

use managed_secrets_engine::{
    health::{Health, Probe, Verdict},
    watch::{Timing, WatchState, Watcher},
};

use super::{keys::Keys, scopes::Scopes, sinks::Shared};

/// The name of the check of the keyring. A start that waits for a lost keyring reports it, too.
pub(crate) const KEYRING: &str = "keyring";
/// A watch is stuck after so many of its timeouts without an answer or an error.
const TIMEOUTS: u32 = 3;
/// Workers are stuck after so many deadlines of a reconcile.
const DEADLINES: u32 = 2;
/// How many names a line shows.
const MAX_NAMES: usize = 10;

/// Registers the checks. `deadline` is the longest time that a reconcile may take.
pub(super) fn register(health: &Health, watcher: &Watcher, shared: &Arc<Shared>, keys: &Arc<Keys>, deadline: Duration) {
    let (common, limit) = (Arc::clone(&watcher.common), stuck_after(watcher.timing));
    health.check("watches", &[Probe::Live], move || stuck(&common.states(), limit));
    let queue = shared.queue.clone();
    health.check("workers", &[Probe::Live], move || match queue.progress().stuck(deadline * DEADLINES) {
        Some(why) => Verdict::Failed(why),
        None => Verdict::Good,
    });
    if keys.silent_plugins().is_some() {
        let keys = Arc::clone(keys);
        health.check("kms", &[Probe::Ready], move || keys.kms_verdict());
    }
    let keys = Arc::clone(keys);
    health.check(KEYRING, &[Probe::Ready], move || keys.verdict());
    let shared = Arc::clone(shared);
    health.check("caches", &[Probe::Ready, Probe::Started], move || filled(&shared.scopes));
    let common = Arc::clone(&watcher.common);
    health.check("lists and watches", &[Probe::Ready], move || troubled(&common.states()));
}

/// The server ends a watch at its timeout, so one that works hears from it at least that often.
fn stuck_after(timing: Timing) -> Duration {
    timing.watch.max(timing.answer) * TIMEOUTS
}

fn stuck(watches: &[WatchState], limit: Duration) -> Verdict {
    let stuck = watches.iter().filter(|watch| watch.inactive > limit);
    match names(stuck.map(|watch| format!("{} ({} s)", watch.name, watch.inactive.as_secs()))) {
        Some(names) => Verdict::Failed(format!("nothing heard and no error: {names}")),
        None => Verdict::Good,
    }
}

/// A namespace that cannot be watched must not take the webhooks from the others; nor must an API server that fails now
/// and then.
fn troubled(watches: &[WatchState]) -> Verdict {
    let troubled = watches.iter().filter_map(|watch| Some(format!("{}: {}", watch.name, watch.trouble.as_ref()?)));
    names(troubled).map_or(Verdict::Good, Verdict::Degraded)
}

fn filled(scopes: &Scopes) -> Verdict {
    let waiting = scopes.waiting();
    let Some(names) = names(waiting.iter().map(|scope| match scope {
        Some(namespace) => format!("namespace {namespace}"),
        None => "all namespaces".to_owned(),
    })) else {
        return Verdict::Good;
    };
    let why = format!("ManagedSecrets and Secrets not listed yet, so no value is delivered there: {names}");
    if scopes.is_any_filled() { Verdict::Degraded(why) } else { Verdict::Failed(why) }
}

/// Joins the first names; `None` if there is none.
fn names(names: impl Iterator<Item = String>) -> Option<String> {
    let mut all: Vec<String> = names.collect();
    let more = all.len().saturating_sub(MAX_NAMES);
    all.truncate(MAX_NAMES);
    if all.is_empty() {
        return None;
    }
    let text = all.join(", ");
    Some(if more == 0 { text } else { format!("{text} and {more} more") })
}

#[cfg(test)]
#[allow(clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn watch(name: &str, inactive: u64, trouble: Option<&str>) -> WatchState {
        let inactive = Duration::from_secs(inactive);
        WatchState { name: name.to_owned(), unanswered: inactive, inactive, trouble: trouble.map(str::to_owned) }
    }

    #[test]
    fn a_watch_that_is_silent_for_three_timeouts_fails() {
        let limit = stuck_after(Timing::default());
        assert_eq!(limit, Duration::from_secs(600));
        let trouble = Some("list failed: 403 Forbidden");
        assert_eq!(stuck(&[watch("secrets", 599, None), watch("sources of a", 30, trouble)], limit), Verdict::Good);
        let Verdict::Failed(why) = stuck(&[watch("keyring", 5, None), watch("secrets", 601, None)], limit) else {
            panic!("must fail");
        };
        assert!(why.contains("secrets (601 s)") && !why.contains("keyring"), "{why}");
    }

    #[test]
    fn watches_in_trouble_are_named_up_to_a_limit() {
        assert_eq!(troubled(&[watch("secrets", 1, None)]), Verdict::Good);
        let many: Vec<_> = (0..12).map(|n| watch(&format!("w{n}"), 1, Some("403 Forbidden"))).collect();
        let Verdict::Degraded(why) = troubled(&many) else { panic!("must be said") };
        assert!(why.starts_with("w0: 403 Forbidden, w1: ") && why.ends_with("w9: 403 Forbidden and 2 more"), "{why}");
    }

    #[test]
    fn one_namespace_of_several_may_be_missing() {
        let scopes = Scopes::new(&["a".to_owned(), "b".to_owned()]);
        assert!(matches!(filled(&scopes), Verdict::Failed(why) if why.ends_with("namespace a, namespace b")));
        scopes.filled(Some("b"));
        assert!(matches!(filled(&scopes), Verdict::Degraded(why) if why.ends_with(": namespace a")));
        scopes.filled(Some("a"));
        assert_eq!(filled(&scopes), Verdict::Good);
        assert!(matches!(filled(&Scopes::new(&[])), Verdict::Failed(why) if why.ends_with(": all namespaces")));
    }
}
