//! Completion, as the real kubectl asks the plugin for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::json;
use testkit::poll;

use super::{Plugin, user_with};
use crate::integration::{
    installation::control_plane,
    objects::{Site, status},
    operator::{PATIENCE, Setup},
};

/// What kubectl offers for the last word: candidates with their descriptions, and its directive.
async fn offered(plugin: &Plugin, words: &[&str]) -> (Vec<(String, String)>, String) {
    // kubectl's completion scripts for bash, zsh and fish all call this.
    let ran = plugin.kubectl(&[&["__complete", "msec"], words].concat(), b"").await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let mut lines: Vec<_> = ran.out.lines().map(str::to_owned).collect();
    let directive = lines.pop().unwrap();
    let split = |line: String| {
        let (value, help) = line.split_once('\t').unwrap_or((&line, ""));
        (value.to_owned(), help.to_owned())
    };
    (lines.into_iter().map(split).collect(), directive)
}

/// The same, until it fits: a cluster that is slow at the moment gives nothing in the time that a user waits who
/// pressed a key.
async fn offers(
    plugin: &Plugin,
    words: &[&str],
    fits: impl Fn(&(Vec<(String, String)>, String)) -> bool,
) -> (Vec<(String, String)>, String) {
    let last = std::sync::Mutex::new(None);
    let waited = poll("an offer that fits", PATIENCE, || async {
        let offered = offered(plugin, words).await;
        *last.lock().unwrap() = Some(offered.clone());
        Ok(fits(&offered).then_some(offered))
    })
    .await;
    waited.unwrap_or_else(|error| panic!("{words:?}: {error}: {last:?}"))
}

fn values(offered: &(Vec<(String, String)>, String)) -> Vec<&str> {
    offered.0.iter().map(|(value, _)| value.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_offers_commands_flags_names_and_ids() {
    let site = Site::new("complete").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("weather", json!({"name": "WEATHER_API_KEY", "description": "OpenWeather\u{1b}[31m", "generate": {}}))
        .await;
    site.apply("other", json!({"name": "OTHER=1", "generate": {}})).await;
    let id = status(&site.served("weather").await).id.unwrap();
    site.served("other").await;
    let plugin = Plugin::new(&site).await;
    let place = ["-n", &site.namespace];

    let commands = offered(&plugin, &[""]).await;
    for command in ["create", "update", "delete", "get", "list", "value", "explain"] {
        assert!(values(&commands).contains(&command), "{command}: {commands:?}");
    }
    let flags = offered(&plugin, &["list", "--sort"]).await;
    assert!(values(&flags).contains(&"--sort-by"), "{flags:?}");

    let without_flags = |offered: &(Vec<(String, String)>, String)| {
        let mut found = offered.0.clone();
        found.retain(|(value, _)| !value.starts_with('-'));
        found.sort();
        found
    };
    let both =
        [("OTHER=1".to_owned(), String::new()), ("WEATHER_API_KEY".to_owned(), "OpenWeather\\u{1b}[31m".to_owned())];
    let names =
        offers(&plugin, &[&["get"], &place[..], &[""]].concat(), |offered| without_flags(offered) == both).await;
    assert_eq!(names.1, ":4", "no file names");
    offers(&plugin, &[&["get"], &place[..], &["WEA"]].concat(), |it| values(it) == ["WEATHER_API_KEY"]).await;
    let by_id = [(id.clone(), "WEATHER_API_KEY".to_owned())];
    offers(&plugin, &[&["get"], &place[..], &[&id[..8]]].concat(), |it| it.0 == by_id).await;
    let namespace = site.namespace.as_str();
    offers(&plugin, &["get", "-n", &namespace[..6]], |it| values(it).contains(&namespace)).await;
    let reasons = offered(&plugin, &["explain", "NameIn"]).await;
    assert_eq!(values(&reasons), ["NameInUse"]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_cost_one_request_and_a_refusal_is_silence() {
    let site = Site::new("completion-cost").await;
    let user = user_with(&site, &[(&["list"], "managedsecrets.dev", "managedsecrets")]).await;
    let plugin = Plugin::new(&site).await;
    let control_plane = control_plane().await;
    // Where it was asked within the time at all, it was asked once.
    let asked = poll("the question", PATIENCE, || async {
        let mark = control_plane.audit_mark().await?;
        offered(&plugin, &["get", "-n", &site.namespace, "--as", &user, "X"]).await;
        let requests = control_plane.requests_since(mark).await?;
        let ours = requests.iter().filter(|request| request.username() == user).count();
        Ok((ours > 0).then_some(ours))
    });
    assert_eq!(asked.await.unwrap(), 1);

    let refused = offered(&plugin, &["get", "-n", &site.namespace, "--as", "nobody@example.com", "X"]).await;
    assert_eq!(refused, (Vec::new(), ":0".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_are_those_of_the_kubeconfig_that_is_named() {
    let site = Site::new("contexts").await;
    let plugin = Plugin::new(&site).await;
    let other = plugin.folder.file(
        "other",
        "apiVersion: v1\nkind: Config\nclusters: []\nusers: []\n\
         contexts: [{name: elsewhere, context: {cluster: c, user: u}}]\n",
    );
    let named = offered(&plugin, &["list", "--kubeconfig", &other, "--context", ""]).await;
    assert_eq!(values(&named), ["elsewhere"]);
    let own = offered(&plugin, &["list", "--context", ""]).await;
    assert!(!values(&own).contains(&"elsewhere") && !own.0.is_empty(), "{own:?}");
}
