//! Helm 3 and 4: a release from its installation to its end, and what its release Secrets hold.

use std::process::Command;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube::{ResourceExt as _, api::ListParams};
use managed_secrets_api::names::record_name;
use serde_json::json;

use super::{Bench, Entry, OWNER};
use crate::integration::{
    objects::{id, status, version},
    operator::Setup,
    program::{Ran, finish},
};

impl Bench {
    /// `helm upgrade --install` of these.
    async fn upgrade(&self, major: u8, entries: &[Entry], more: &[&str]) -> Ran {
        let values = self.plugin.folder.file("values.json", Entry::values(entries));
        let upgrade = ["upgrade", "--install", OWNER, Bench::chart(), "-f", &values, "--wait", "--timeout", "50s"];
        self.helm(major, &[&upgrade, more].concat()).await
    }

    /// Everything that Helm keeps of its releases, as text.
    async fn releases(&self) -> Vec<String> {
        let kept = ListParams::default().fields("type=helm.sh/release.v1");
        let mut texts = Vec::new();
        for secret in self.site.secrets().list(&kept).await.unwrap() {
            let packed = BASE64_STANDARD.decode(&secret.data.unwrap()["release"].0).unwrap();
            let mut gzip = Command::new("gzip");
            gzip.arg("-dc");
            let ran = finish(gzip, &packed).await;
            assert_eq!(ran.code, 0, "{ran:?}");
            texts.push(ran.out);
        }
        texts
    }
}

async fn life_of_a_release(major: u8) {
    let bench = Bench::new("helm").await;
    let site = &bench.site;
    let operator = Setup::of(&site.namespace).start().await;
    let value = uuid::Uuid::new_v4().to_string();
    let first = Entry::of(site, "weather", &value).await;
    bench.upgrade(major, std::slice::from_ref(&first), &[]).await.ok();
    let made = site.in_step("weather").await;
    assert_eq!(site.value("weather", "value").await.as_deref(), Some(value.as_str()));

    let other = uuid::Uuid::new_v4().to_string();
    let mut second = Entry::of(site, "weather", &other).await;
    "changed".clone_into(&mut second.description);
    bench.upgrade(major, std::slice::from_ref(&second), &[]).await.ok();
    site.in_step("weather").await;
    site.delivers("weather", "value", &other).await;

    // What nobody but a person has set stays through a rollback: the chart says nothing of it.
    let patch = r#"{"spec":{"deletionPolicy":"Delete"},"metadata":{"annotations":{"example.com/note":"kept"}}}"#;
    bench.kubectl(&["patch", "msec", "weather", "--type=merge", "-p", patch], "").await.ok();
    bench.helm(major, &["rollback", OWNER, "1", "--wait", "--timeout", "50s"]).await.ok();
    let back = site.in_step("weather").await;
    site.delivers("weather", "value", &value).await;
    assert_eq!((status(&back).version, id(&back)), (Some(3), id(&made)), "a rollback is a new version of the secret");
    assert_eq!(back.spec.description.as_deref(), Some("as in Git"));
    assert_eq!(back.annotations().get("example.com/note").map(String::as_str), Some("kept"));
    assert!(back.spec.deletion_policy.is_some());
    // Again: the same release, and nothing moves.
    bench.helm(major, &["rollback", OWNER, "1", "--wait", "--timeout", "50s"]).await.ok();
    assert_eq!(version(&site.get("weather").await), version(&back));

    let releases = bench.releases().await;
    assert_eq!(releases.len(), 4, "two upgrades, two rollbacks");
    for release in &releases {
        assert!(release.contains(&first.sealed) || release.contains(&second.sealed), "the search finds nothing");
        assert!(![&value, &other].iter().any(|value| release.contains(value.as_str())), "a value in a release Secret");
    }

    bench.helm(major, &["uninstall", OWNER, "--wait"]).await.ok();
    for secret in ["weather", &record_name("WEATHER")] {
        site.gone(secret).await;
    }
    assert!(bench.releases().await.is_empty());
    // Installed again it is another secret.
    bench.upgrade(major, &[first], &[]).await.ok();
    assert_ne!(id(&site.in_step("weather").await), id(&made));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_3_from_install_to_uninstall() {
    life_of_a_release(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_4_from_install_to_uninstall() {
    life_of_a_release(4).await;
}

/// Why charts hold sealed text only: Helm stores first, and asks the cluster then.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_in_clear_is_refused_and_stands_in_the_release_secret_all_the_same() {
    for major in [3, 4] {
        let bench = Bench::new("helm-plain").await;
        let value = uuid::Uuid::new_v4().to_string();
        let plain = Entry { name: "weather", description: String::new(), sealed: value.clone() };
        let refused = bench.upgrade(major, &[plain], &[]).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(bench.site.objects().get_opt("weather").await.unwrap().is_none());
        assert!(!refused.err.contains(&value) && !refused.out.contains(&value), "the refusal repeats the value");
        assert!(bench.releases().await.iter().any(|release| release.contains(&value)), "Helm {major} has changed");
    }
}

/// What a person changes in the cluster under Helm's hands.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_the_cluster_is_kept_by_helm_3_and_refused_by_helm_4() {
    for major in [3, 4] {
        let bench = Bench::new("helm-drift").await;
        let site = &bench.site;
        let operator = Setup::of(&site.namespace).start().await;
        let entry = Entry::of(site, "weather", "the value").await;
        bench.upgrade(major, std::slice::from_ref(&entry), &[]).await.ok();
        let patch = json!({"spec": {"description": "by hand"}}).to_string();
        bench.kubectl(&["patch", "msec", "weather", "--type=merge", "-p", &patch], "").await.ok();
        let again = bench.upgrade(major, std::slice::from_ref(&entry), &[]).await;
        if major == 3 {
            again.ok();
            // For custom resources it compares the old chart with the new one, and both say the same.
            assert_eq!(site.get("weather").await.spec.description.as_deref(), Some("by hand"));
        } else {
            assert!(again.code == 1 && again.err.contains("conflict"), "{again:?}");
            bench.upgrade(major, &[entry], &["--force-conflicts"]).await.ok();
            assert_eq!(site.get("weather").await.spec.description.as_deref(), Some("as in Git"));
        }
        operator.stop().await;
    }
}
