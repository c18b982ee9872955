//! Values that go round: rings of `valueFrom` are named and come to rest, chains are followed, and new values that come
//! without end are followed at leisure.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    objects::{Site, message},
    operator::{Setup, Tap},
};

fn from(secret: &str, key: &str) -> Value {
    json!({"secretKeyRef": {"name": secret, "key": key}})
}

/// Objects `0`, `1`, …, each of which takes its value from the target of the one before; the first from `source`. The
/// last two deliver into Secrets that exist already.
struct Chain<'a> {
    site: &'a Site,
    length: usize,
}

impl Chain<'_> {
    fn name(number: usize) -> String {
        format!("link-{number}")
    }

    fn target(&self, number: usize) -> String {
        if number + 2 >= self.length { format!("theirs-{number}") } else { Self::name(number) }
    }

    async fn link(&self, number: usize, source: Value) {
        let target = json!({"name": self.target(number), "adoption": "IfUnowned"});
        let spec = json!({"name": format!("LINK_{number}"), "valueFrom": source, "target": target});
        self.site.apply(&Self::name(number), spec).await;
    }

    async fn forge(&self) {
        self.site.source("source", "one").await;
        for number in 0..self.length {
            if number + 2 >= self.length {
                self.site.foreign_secret(&self.target(number), &[("other", "theirs")]).await;
            }
            let source = if number == 0 { from("source", "key") } else { from(&self.target(number - 1), "value") };
            self.link(number, source).await;
        }
    }

    /// The first takes its value from the last.
    async fn close(&self) {
        self.link(0, from(&self.target(self.length - 1), "value")).await;
    }

    async fn delivers(&self, value: &str) {
        for number in 0..self.length {
            self.site.delivers(&self.target(number), "value", value).await;
        }
    }
}

fn writes(tap: &Tap) -> usize {
    tap.seen().iter().filter(|seen| seen.is_write()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_followed_and_a_ring_is_named_rests_and_heals() {
    let cases = [2, 3, 5].map(async |length| {
        let site = Site::new(&format!("ring-{length}")).await;
        let tap = Tap::recording();
        let operator = Setup::of(&site.namespace).calls(&tap).start().await;
        let chain = Chain { site: &site, length };
        chain.forge().await;
        chain.delivers("one").await;
        site.source("source", "two").await;
        chain.delivers("two").await;

        chain.close().await;
        for number in 0..length {
            let object = site.reports(&Chain::name(number), "False", "SourceRing").await;
            let text = message(&object);
            assert!((0..length).all(|other| text.contains(&Chain::name(other))), "{text}");
        }
        // Values that differ would go round for ever.
        site.intrude(&chain.target(0), json!({"stringData": {"value": "three"}})).await;
        site.delivers(&chain.target(0), "value", "two").await;
        let before = writes(&tap);
        site.apply("marker", json!({"name": "MARKER", "generate": {}})).await;
        site.served("marker").await;
        assert!(writes(&tap) - before <= 6, "{length}: {} writes in a ring at rest", writes(&tap) - before);
        chain.delivers("two").await;

        site.source("source", "four").await;
        chain.link(0, from("source", "key")).await;
        chain.delivers("four").await;
        for number in 0..length {
            site.in_step(&Chain::name(number)).await;
        }
        operator.stop().await;
    });
    futures::future::join_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_without_any_value_is_named() {
    let site = Site::new("ring-empty").await;
    let operator = Setup::of(&site.namespace).start().await;
    for (name, source) in [("a", "b"), ("b", "c"), ("c", "a")] {
        site.apply(name, json!({"name": name, "valueFrom": from(source, "value")})).await;
    }
    for name in ["a", "b", "c"] {
        site.reports(name, "False", "SourceRing").await;
    }
    site.apply("c", json!({"name": "c", "generate": {}})).await;
    for name in ["c", "b", "a"] {
        site.in_step(name).await;
    }
    assert_eq!(site.value("a", "value").await, site.value("c", "value").await);
    operator.stop().await;
}

/// What looks like a ring by names alone: another key, and a Secret that is not the target that it seems to be.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ring_is_followed() {
    let site = Site::new("no-ring").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.foreign_secret("upstream", &[("token", "one")]).await;
    site.apply("a", json!({"name": "A", "valueFrom": from("upstream", "token")})).await;
    let target = json!({"name": "upstream", "adoption": "IfUnowned"});
    site.apply("b", json!({"name": "B", "valueFrom": from("a", "value"), "target": target})).await;
    site.in_step("a").await;
    site.in_step("b").await;
    site.foreign_secret("theirs", &[("value", "two")]).await;
    site.apply("c", json!({"name": "C", "valueFrom": from("theirs", "value")})).await;
    site.apply("d", json!({"name": "D", "valueFrom": from("c", "value"), "target": {"name": "theirs"}})).await;
    site.in_step("c").await;
    site.reports("d", "False", "TargetNotOwned").await;
    site.intrude("theirs", json!({"stringData": {"value": "three"}})).await;
    site.delivers("c", "value", "three").await;
    operator.stop().await;
}

/// Whatever makes new values without end, such as a ring that leaves the namespace, is not followed at full speed.
#[tokio::test(flavor = "multi_thread")]
async fn new_values_without_end_are_followed_at_leisure() {
    let site = Site::new("restless").await;
    let tap = Tap::recording();
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    site.source("source", "first").await;
    site.apply("db", json!({"name": "NAME", "valueFrom": from("source", "key")})).await;
    site.in_step("db").await;
    let before = writes(&tap);
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut rounds = 0;
    while began.elapsed() < Duration::from_secs(12) || rounds <= 50 {
        ticks.tick().await;
        site.source("source", &format!("value {rounds}")).await;
        rounds += 1;
    }
    let spent = writes(&tap) - before;
    // At once, then after 1, 2, 4, 8 s: three writes each, and what a slow machine adds.
    assert!((3..=24).contains(&spent), "{spent} writes for {rounds} values");
    site.source("source", "last").await;
    site.delivers("db", "value", "last").await;
    site.in_step("db").await;
    operator.stop().await;
}
