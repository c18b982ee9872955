//! Each tool: with no operator, at first, again, with a changed value, and with an object gone from Git.

use std::fmt::Write as _;

use kube::ResourceExt as _;
use managed_secrets::api::names::record_name;

use super::{
    Bench, Entry, page,
    ways::{Applied, WAYS, Way},
};
use crate::integration::{
    objects::{id, status, version},
    operator::{PATIENCE, Setup},
};

const HEAD: &str = "\
| tool | first apply | the same again | its own comparison | new sealed text of the same value | a new value | gone from Git | with no operator |
|---|---|---|---|---|---|---|---|
";

/// As long as a tool may wait for what will come.
const LONG: u8 = 50;
/// As long as a tool waits for what cannot come.
const SHORT: u8 = 2;

/// Whether the tool says that all is well while nobody serves anything.
async fn without_operator(way: Way, git: impl AsyncFn(&Bench) -> Vec<Entry>) -> &'static str {
    let bench = Bench::new("gitops-idle").await;
    let git = git(&bench).await;
    let applied = way.apply(&bench, &git, &[], SHORT).await;
    let object = bench.site.objects().get_opt("weather").await.unwrap();
    let object = object.unwrap_or_else(|| panic!("{way:?}: {applied:?}"));
    assert!(status(&object).id.is_none(), "{way:?}: served by nobody");
    match way {
        Way::Argocd { .. } => {
            assert!(applied.well, "{way:?}: {applied:?}");
            "synced, `Progressing`"
        }
        Way::Helm(4) | Way::Flux => {
            assert!(!applied.well && applied.said.contains("InProgress"), "{way:?}: {applied:?}");
            "waits, then fails: `InProgress`"
        }
        _ => {
            assert!(applied.well, "{way:?}: {applied:?}");
            "succeeds; `kubectl wait` waits"
        }
    }
}

/// What must not be seen: differences that nobody made.
fn no_drift(way: Way, applied: &Applied) -> &'static str {
    assert!(applied.well, "{way:?}: {applied:?}");
    match &applied.drift {
        None => "—",
        Some(drift) => {
            assert!(drift.is_empty(), "{way:?}: {drift:?}");
            "no difference"
        }
    }
}

async fn row(way: Way) -> String {
    let git = async |bench: &Bench| {
        vec![Entry::of(&bench.site, "weather", "first").await, Entry::of(&bench.site, "other", "of another").await]
    };
    // Values are sealed with the key that an operator publishes.
    let bench = Bench::new("gitops").await;
    let site = &bench.site;
    let operator = Setup::of(&site.namespace).start().await;
    let mut entries = git(&bench).await;
    let idle = without_operator(way, git).await;

    let first = way.apply(&bench, &entries, &[], LONG).await;
    let mut compared = no_drift(way, &first);
    // A tool that waits has waited.
    let waits = matches!(way, Way::Helm(4) | Way::Flux);
    if waits {
        assert_eq!(crate::integration::objects::ready(&site.get("weather").await).0, "True", "{way:?}");
    }
    let made = [site.in_step("weather").await, site.in_step("other").await];
    assert_eq!(site.value("weather", "value").await.as_deref(), Some("first"));
    let generations = made.each_ref().map(|object| object.metadata.generation);
    assert_eq!(generations, [Some(1), Some(1)], "{way:?}");

    for _ in 0..2 {
        compared = no_drift(way, &way.apply(&bench, &entries, &entries, LONG).await);
        let same = [site.get("weather").await, site.get("other").await];
        assert_eq!(same.each_ref().map(version), made.each_ref().map(version), "{way:?}: applied again");
        assert_eq!(same.each_ref().map(|object| object.metadata.generation), generations, "{way:?}: applied again");
    }

    // Sealing never gives the same text twice: whoever seals anew in every pipeline run changes nothing but the text.
    let mut resealed = entries.clone();
    resealed[0] = Entry::of(site, "weather", "first").await;
    no_drift(way, &way.apply(&bench, &resealed, &entries, LONG).await);
    let object = site.in_step("weather").await;
    assert_eq!(object.spec.value.clone().unwrap().0, resealed[0].sealed, "{way:?}");
    assert_eq!(status(&object).version, Some(1), "{way:?}");
    assert_eq!(status(&object).updated_date, status(&made[0]).updated_date, "{way:?}");

    entries = resealed.clone();
    entries[0] = Entry::of(site, "weather", "second").await;
    no_drift(way, &way.apply(&bench, &entries, &resealed, LONG).await);
    let object = site.in_step("weather").await;
    assert_eq!((status(&object).version, id(&object)), (Some(2), id(&made[0])), "{way:?}");
    site.delivers("weather", "value", "second").await;

    let less = entries[..1].to_vec();
    no_drift(way, &way.apply(&bench, &less, &entries, LONG).await);
    let gone = if way.prunes() {
        site.gone("other").await;
        site.gone(&record_name("OTHER")).await;
        assert!(site.objects().get_opt("other").await.unwrap().is_none(), "{way:?}");
        "deleted, with record and Secret"
    } else {
        site.in_step("other").await;
        "stays"
    };
    // Whatever pruned has not touched what the operator made of the other one.
    let object = site.in_step("weather").await;
    assert_eq!(site.value("weather", "value").await.as_deref(), Some("second"), "{way:?}");
    for secret in site.secrets().list(&kube::api::ListParams::default().labels(managed_secrets::api::keys::LABEL_ROLE)).await.unwrap()
    {
        let foreign = secret.labels().keys().find(|key| !key.starts_with("managedsecrets.dev/"));
        assert!(foreign.is_none(), "{way:?}: {} carries {foreign:?} of {}", secret.name_any(), object.name_any());
    }
    operator.stop().await;
    format!(
        "| {} | created{} | nothing moves | {compared} | text stored, version stays 1 | version 2, same id | {gone} | {idle} |\n",
        way.title(),
        if waits { ", waited for" } else { "" },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_applies_twice_and_the_second_changes_nothing() {
    let _ = PATIENCE;
    let mut seen = HEAD.to_owned();
    for way in WAYS {
        seen.write_str(&row(way).await).unwrap();
    }
    page::hold(&seen);
}
