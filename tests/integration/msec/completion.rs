//! Completion, as the real kubectl asks the plugin for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::json;

use super::{Plugin, user_with};
use crate::integration::{
    installation::control_plane,
    objects::{Site, status},
    operator::Setup,
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

fn values(offered: &(Vec<(String, String)>, String)) -> Vec<&str> {
    offered.0.iter().map(|(value, _)| value.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_offers_commands_flags_names_and_ids() {
    let site = Site::new("complete").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("weather", json!({"name": "WEATHER_API_KEY", "description": "OpenWeather", "generate": {}})).await;
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

    let names = offered(&plugin, &[&["get"], &place[..], &[""]].concat()).await;
    assert_eq!(names.1, ":4", "no file names");
    let mut found = names.0.clone();
    found.retain(|(value, _)| !value.starts_with('-'));
    found.sort();
    assert_eq!(
        found,
        [("OTHER=1".to_owned(), String::new()), ("WEATHER_API_KEY".to_owned(), "OpenWeather".to_owned())]
    );
    let begun = offered(&plugin, &[&["get"], &place[..], &["WEA"]].concat()).await;
    assert_eq!(values(&begun), ["WEATHER_API_KEY"]);
    let by_id = offered(&plugin, &[&["get"], &place[..], &[&id[..8]]].concat()).await;
    assert_eq!(by_id.0, [(id.clone(), "WEATHER_API_KEY".to_owned())]);
    let namespaces = offered(&plugin, &["get", "-n", &site.namespace[..6]]).await;
    assert!(values(&namespaces).contains(&site.namespace.as_str()), "{namespaces:?}");
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
    let mark = control_plane.audit_mark().await.unwrap();
    offered(&plugin, &["get", "-n", &site.namespace, "--as", &user, "X"]).await;
    let requests = control_plane.requests_since(mark).await.unwrap();
    let ours: Vec<_> = requests.iter().filter(|request| request.username() == user).collect();
    assert_eq!(ours.len(), 1, "{ours:?}");

    let refused = offered(&plugin, &["get", "-n", &site.namespace, "--as", "nobody@example.com", "X"]).await;
    assert_eq!(refused, (Vec::new(), ":0".to_owned()));
}
