//! An operator that dies at a chosen request, and the sweep over all requests of some work.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures::{StreamExt as _, stream};

use super::operator::{Fault, Tap};

/// Crashes of one sweep side by side.
const WIDTH: usize = 8;

/// When the operator dies, by the number of its request since [`Killer::arm`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Death {
    /// Before the request is sent.
    Before(usize),
    /// After it was answered.
    After(usize),
}

/// Counts requests once it is armed, and kills the operator at one of them.
pub(super) struct Killer {
    /// What the operator's requests go through.
    pub(super) tap: Arc<Tap>,
    armed: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
}

impl Killer {
    /// Of every request.
    pub(super) fn new(death: Option<Death>) -> Self {
        Self::within("", death)
    }

    /// Of the requests whose path contains `part`.
    pub(super) fn within(part: &str, death: Option<Death>) -> Self {
        let (armed, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_armed, counted, part) = (Arc::clone(&armed), Arc::clone(&count), part.to_owned());
        let tap = Tap::new(move |_, request| {
            if !is_armed.load(Ordering::SeqCst) || !request.uri().path().contains(&part) {
                return Fault::Pass;
            }
            let n = counted.fetch_add(1, Ordering::SeqCst);
            match death {
                Some(Death::Before(at)) if at == n => Fault::DieBefore,
                Some(Death::After(at)) if at == n => Fault::DieAfter,
                _ => Fault::Pass,
            }
        });
        Self { tap, armed, count }
    }

    /// Counts from now on.
    pub(super) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// How many requests were counted.
    pub(super) fn requests(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// How a run ended.
pub(super) struct Run {
    /// How many requests it took.
    pub(super) requests: usize,
    /// Whether the operator died before the end.
    pub(super) died: bool,
}

/// Does the work undisturbed, and then with a crash before and after each of its requests. With `most` requests or more, it goes
/// round in circles.
pub(super) async fn sweep<W>(most: usize, work: impl Fn(Option<Death>) -> W)
where
    W: Future<Output = Result<Run, String>> + Send + 'static,
{
    let requests = work(None).await.unwrap().requests;
    assert!((1..most).contains(&requests), "{requests} requests");
    let deaths = (0..requests).flat_map(|n| [Death::Before(n), Death::After(n)]);
    let runs = deaths.map(|death| {
        let run = tokio::spawn(work(Some(death)));
        async move { (death, run.await.unwrap()) }
    });
    let ended: Vec<_> = stream::iter(runs).buffer_unordered(WIDTH).collect().await;
    let died = ended.iter().filter(|(_, ended)| ended.as_ref().is_ok_and(|run| run.died)).count();
    println!("{requests} requests undisturbed; {died} of {} runs died", ended.len());
    let wrong: Vec<_> =
        ended.iter().filter_map(|(death, ended)| Some(format!("{death:?}: {}", ended.as_ref().err()?))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The number of requests differs a little from run to run, so the last ones may not come.
    assert!(died * 10 >= ended.len() * 8, "{died} of {}", ended.len());
}
