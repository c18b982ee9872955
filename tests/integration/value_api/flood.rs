//! Many reads at once, through both doors: some are refused with the time to wait, and the webhooks and other callers are
//! served.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use http::Request;
use kube::Client;
use managed_secrets::{
    port::Port,
    values::{self, Limits},
};
use managed_secrets_api::keys::{GROUP, OPERATOR_NAME};
use serde_json::json;
use testkit::{access::config_of, control_plane::poll};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Estate, FrontProxy, OPERATOR_NAMESPACE, Registered, apply, client::Identity, hidden, install, is_available,
    lead_outside, path, port_options,
};
use crate::integration::operator::{PATIENCE, Setup};

/// Reads through the operator's Service. Each has a connection of its own.
const DIRECT_READS: usize = 2_000;
/// Reads through the API server.
const AGGREGATED_READS: usize = 8_000;
/// Low, so that callers exceed them on a slow machine, too; only a request may take long there.
const LIMITS: Limits =
    Limits { rate: 5, burst: 20, at_once: 64, at_once_each: 16, kept: 96, kept_direct: 32, seconds: 60 };
/// The time between rounds of a caller that reads once through each door: a little less than the rate of one caller.
const ROUND: Duration = Duration::from_millis(500);
/// Direct connections at once: more than the operator has places for callers.
const AT_ONCE: usize = 128;

/// On a slow machine, the API server takes more than five seconds to check a token or a permission, and the caller is told to
/// wait. No other cause of this answer is right here.
const UNCHECKED: u16 = 503;

/// How often each status code was answered.
type Codes = BTreeMap<u16, usize>;

/// Reads through the operator's Service: with a permission, without one, and with tokens that are not valid.
async fn flood_directly(estate: Arc<Estate>, greedy: String, refused: String, path: String) -> [Codes; 3] {
    let answers = stream::iter(0..DIRECT_READS).map(async |n| {
        let wrong = format!("wrong.token.{n}");
        let (kind, token) = match n % 5 {
            0 => (1, &refused),
            1 => (2, &wrong),
            _ => (0, &greedy),
        };
        let answer = estate.direct(&Identity::Token(token), &path, &[]).await;
        if [429, UNCHECKED].contains(&answer.code) {
            let (body, is_limit) = (answer.json(), answer.code == 429);
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{answer:?}");
            assert_eq!(body["reason"], if is_limit { "TooManyRequests" } else { "ServiceUnavailable" });
            assert!(is_limit || body["message"].as_str().unwrap().ends_with("could not be checked"), "{body}");
        }
        (kind, answer.code)
    });
    let count = async |mut codes: [Codes; 3], (kind, code): (usize, u16)| {
        *codes[kind].entry(code).or_default() += 1;
        codes
    };
    answers.buffer_unordered(AT_ONCE).fold(Default::default(), count).await
}

/// Reads through the API server, by one user.
async fn flood_through_the_api_server(estate: Arc<Estate>, path: String) -> Codes {
    let mut config = estate.control_plane.access().config().await.unwrap();
    // Else it would repeat what is refused, until it gets the value.
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    let answers = stream::iter(0..AGGREGATED_READS).map(async |_| {
        let request = Request::get(&path).body(Vec::new()).unwrap();
        match client.request_text(request).await {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(error) => panic!("{error}"),
        }
    });
    let count = async |mut codes: Codes, code: u16| {
        *codes.entry(code).or_default() += 1;
        codes
    };
    answers.buffer_unordered(AT_ONCE).fold(Codes::new(), count).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_reads_too_much_is_told_to_wait_and_no_other_caller_is() {
    let (control_plane, authority) = install(FrontProxy::On, &[]).await;
    let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = port.address().unwrap();
    lead_outside(&control_plane, address.port()).await;
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, OPERATOR_NAME).await.unwrap();
    let setup = Setup {
        namespaces: Vec::new(),
        webhooks: Some(port_options(port, Registered::Yes)),
        values: Some(values::Options { limits: LIMITS, stats: Arc::default() }),
        ..Setup::of("")
    };
    let operator = setup.start_with(config_of(&kubeconfig).await.unwrap());
    let estate = Arc::new(Estate { control_plane, operator: None, address, authority });
    let client = estate.client().await;
    poll("the value API to be available", PATIENCE, || async { Ok(is_available(&client).await.then_some(())) })
        .await
        .unwrap();
    let site = estate.site("flood").await;
    hidden(&site, "db", "DB", "hunter2").await;
    let greedy = estate.reader(&site, "greedy", &["DB"]).await;
    let refused = estate.reader(&site, "refused", &["OTHER"]).await;
    let modest = estate.reader(&site, "modest", &["DB"]).await;
    let path = path(&site.namespace, "DB");
    let began = Instant::now();
    let directly = tokio::spawn(flood_directly(Arc::clone(&estate), greedy, refused, path.clone()));
    let aggregated = tokio::spawn(flood_through_the_api_server(Arc::clone(&estate), path.clone()));
    // Meanwhile another caller reads through each door at its own rate, and plain values are sealed.
    let user = format!("system:serviceaccount:{}:modest", site.namespace);
    let mut pace = interval(ROUND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rounds = 0;
    while !(directly.is_finished() && aggregated.is_finished()) {
        pace.tick().await;
        for answer in
            [estate.direct(&Identity::Token(&modest), &path, &[]).await, estate.aggregated(&user, &path, &[]).await]
        {
            assert_eq!(answer.code, 200, "another caller is not refused: {answer:?}");
        }
        let name = format!("plain-{rounds}");
        let manifest = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "ManagedSecret",
            "metadata": {"name": name, "namespace": site.namespace}, "spec": {"name": name, "value": "plain"},
        });
        apply(&estate.control_plane, &manifest).await;
        rounds += 1;
    }
    let ([greedy, refused, wrong], aggregated) = (directly.await.unwrap(), aggregated.await.unwrap());
    let all: usize = [&greedy, &refused, &wrong, &aggregated].iter().flat_map(|codes| codes.values()).sum();
    let seconds = u64::try_from(began.elapsed().as_millis()).unwrap().div_ceil(1000);
    let rate = u64::try_from(all).unwrap() / seconds;
    println!(
        "{greedy:?} {refused:?} {wrong:?} {aggregated:?}; {rate} reads per second; {rounds} rounds of another caller"
    );
    assert_eq!(all, DIRECT_READS + AGGREGATED_READS);
    for (codes, expected, slow) in [
        (greedy, 200, Some(UNCHECKED)),
        (refused, 403, Some(UNCHECKED)),
        (wrong, 401, Some(UNCHECKED)),
        (aggregated, 200, None),
    ] {
        assert!(codes.keys().all(|code| [expected, 429].contains(code) || slow == Some(*code)), "{codes:?}");
        assert!(codes.contains_key(&expected), "{codes:?}");
        // Wrong tokens are refused in any case.
        assert!(expected == 401 || codes.contains_key(&429), "{codes:?}");
    }
    assert!(rounds > 0, "another caller must get answers");
    operator.stop().await;
}
