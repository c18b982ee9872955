//! Many reads at once: some are refused with the time to wait, and the webhooks and other callers are served.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt as _, stream};

use super::{Estate, FrontProxy, apply, client::Identity, hidden, path};

/// Reads of one caller.
const READS: usize = 10_000;
/// Connections at once: more than the operator has places for callers.
const AT_ONCE: usize = 128;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_reads_too_much_is_told_to_wait_and_no_other_caller_is() {
    let estate = Arc::new(Estate::start(FrontProxy::On).await);
    let site = estate.site("flood").await;
    hidden(&site, "db", "DB", "hunter2").await;
    let greedy = estate.reader(&site, "greedy", &["DB"]).await;
    let modest = estate.reader(&site, "modest", &["DB"]).await;
    let path = path(&site.namespace, "DB");
    let flood = stream::iter(0..READS)
        .map(async |_| estate.direct(&Identity::Token(&greedy), &path, &[]).await)
        .buffer_unordered(AT_ONCE)
        .fold(BTreeMap::<u16, usize>::new(), async |mut codes, answer| {
            if answer.code == 429 {
                assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{answer:?}");
                assert_eq!(answer.json()["reason"], "TooManyRequests");
            }
            *codes.entry(answer.code).or_default() += 1;
            codes
        });
    // Meanwhile another caller reads, and a plain value is sealed. In a task of its own: the flood would starve it.
    let (asked, token, its_path) = (Arc::clone(&estate), modest.clone(), path.clone());
    let namespace = site.namespace.clone();
    let others = tokio::spawn(async move {
        let mut refused = 0;
        for _ in 0..20 {
            let answer = asked.direct(&Identity::Token(&token), &its_path, &[]).await;
            match answer.code {
                200 => assert_eq!(answer.value(), "hunter2"),
                // All callers together have a limit, too; it is over in milliseconds.
                429 => refused += 1,
                other => panic!("{other}: {answer:?}"),
            }
        }
        assert!(refused < 20, "another caller must get answers");
        let manifest = serde_json::json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": "plain", "namespace": namespace}, "spec": {"name": "PLAIN", "value": "plain"},
        });
        apply(&asked.control_plane, &manifest).await;
    });
    let codes = flood.await;
    others.await.unwrap();
    println!("answers: {codes:?}");
    assert_eq!(codes.keys().copied().collect::<Vec<_>>(), [200, 429], "{codes:?}");
    assert_eq!(codes.values().sum::<usize>(), READS);
    let answer = estate.direct(&Identity::Token(&modest), &path, &[]).await;
    assert_eq!(answer.value(), "hunter2", "{answer:?}");
}
