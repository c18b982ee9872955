//! Each tool: with no operator, at first, again, with a changed value, and with an object gone from Git.

use kube::{ResourceExt as _, api::ListParams};
use managed_secrets_api::{keys, names::record_name};

use super::{
    Bench, Entry, page,
    ways::{WAYS, Way},
};
use crate::integration::{
    objects::{id, moved, ready, status, version},
    operator::Setup,
};

const HEAD: &str = "\
| tool | first apply | the same again | its own comparison | new sealed text of the same value | a new value | deleted from Git | with no operator |
|---|---|---|---|---|---|---|---|
";

/// As long as a tool may wait for what will come.
const LONG: u8 = 50;
/// As long as a tool waits for what cannot come.
const SHORT: u8 = 4;

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
            "synced, Progressing"
        }
        Way::Helm(4) | Way::Flux => {
            assert!(!applied.well && applied.said.contains("InProgress"), "{way:?}: {applied:?}");
            "waits, then fails: InProgress"
        }
        _ => {
            assert!(applied.well, "{way:?}: {applied:?}");
            "succeeds; `kubectl wait` waits"
        }
    }
}

/// One namespace with an operator, and what Git holds of it.
struct Story {
    way: Way,
    bench: Bench,
    git: Vec<Entry>,
}

impl Story {
    /// Brings Git to the cluster and waits until the operator is done with everything; what differs then is nothing.
    async fn apply(&mut self, git: Vec<Entry>) -> &'static str {
        let Self { way, bench, .. } = self;
        let applied = way.apply(bench, &git, &self.git, LONG).await;
        assert!(applied.well, "{way:?}: {applied:?}");
        if way.waits() {
            // It has waited until it was so.
            assert_eq!(ready(&bench.site.get("weather").await).0, "True", "{way:?}");
        }
        for entry in &git {
            bench.site.in_step(entry.name).await;
        }
        self.git = git;
        match way.compare(bench, &self.git).await {
            None => "—",
            Some(differences) => {
                assert!(differences.is_empty(), "{way:?}: {differences:?}");
                "no difference"
            }
        }
    }

    /// What must not move.
    async fn state(&self) -> Vec<(String, Option<i64>)> {
        let mut state = Vec::new();
        for name in ["weather", "other"] {
            let object = self.bench.site.get(name).await;
            state.push((version(&object), object.metadata.generation));
        }
        state
    }
}

async fn row(way: Way) -> String {
    let git = async |bench: &Bench| {
        vec![Entry::of(&bench.site, "weather", "first").await, Entry::of(&bench.site, "other", "of another").await]
    };
    let bench = Bench::new("gitops").await;
    let operator = Setup::of(&bench.site.namespace).start().await;
    // Values are sealed with the key that an operator publishes, but that operator serves the other namespace only.
    let idle = without_operator(way, git).await;
    let site = bench.site.clone();
    let entries = git(&bench).await;
    let mut story = Story { way, git: Vec::new(), bench };

    let compared = story.apply(entries.clone()).await;
    let made = site.get("weather").await;
    assert_eq!(made.metadata.generation, Some(1), "{way:?}");
    assert_eq!(site.value("weather", "value").await.as_deref(), Some("first"));

    let state = story.state().await;
    for _ in 0..2 {
        story.apply(entries.clone()).await;
        assert_eq!(story.state().await, state, "{way:?}: applied again");
    }

    // Sealing never gives the same text twice: whoever seals anew in every pipeline run changes nothing but the text.
    let resealed = [vec![Entry::of(&site, "weather", "first").await], entries[1..].to_vec()].concat();
    story.apply(resealed.clone()).await;
    let object = site.get("weather").await;
    assert_eq!(object.spec.value.clone().unwrap().0, resealed[0].sealed, "{way:?}");
    assert_eq!(moved(&object), moved(&made), "{way:?}");

    let changed = [vec![Entry::of(&site, "weather", "second").await], entries[1..].to_vec()].concat();
    story.apply(changed.clone()).await;
    let object = site.get("weather").await;
    assert_eq!((status(&object).version, id(&object)), (Some(2), id(&made)), "{way:?}");
    assert_eq!(site.value("weather", "value").await.as_deref(), Some("second"), "{way:?}");

    story.apply(changed[..1].to_vec()).await;
    let gone = if way.prunes() {
        site.gone("other").await;
        site.gone(&record_name("OTHER")).await;
        assert!(site.objects().get_opt("other").await.unwrap().is_none(), "{way:?}");
        "deleted, with record and Secret"
    } else {
        site.in_step("other").await;
        "stays"
    };
    // Whatever pruned has not touched what the operator made of the other one, and would not know it for its own.
    assert_eq!(site.value("weather", "value").await.as_deref(), Some("second"), "{way:?}");
    for secret in site.secrets().list(&ListParams::default().labels(keys::LABEL_ROLE)).await.unwrap() {
        let foreign = secret.labels().keys().find(|key| !key.starts_with("managedsecrets.dev/"));
        assert!(foreign.is_none(), "{way:?}: {} carries {foreign:?}", secret.name_any());
    }
    operator.stop().await;
    format!(
        "| {} | created{} | no change | {compared} | text stored, version stays 1 | version 2, same id | {gone} | {idle} |\n",
        way.title(),
        if way.waits() { ", waited for" } else { "" },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_applies_twice_and_the_second_changes_nothing() {
    let mut seen = HEAD.to_owned();
    for way in WAYS {
        seen += &row(way).await;
    }
    page::hold(&seen);
}
