//! `update`: each part alone and together, what moved, and who else writes meanwhile.

use std::time::Instant;

use serde_json::{Value, json};

use super::{may, place};
use crate::integration::{
    msec::{terminal::Terminal, user_with},
    objects::{message, moved, next_second, status},
    operator::PATIENCE,
};

/// The lines below the first, which says that it was updated.
fn lines(out: &str) -> Vec<&str> {
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("managedsecret.managedsecrets.dev/db updated"), "{out}");
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_moves_alone_and_together() {
    let (site, operator, plugin) = place("updated").await;
    plugin.run_with(&["create", "DB", "--description", "old"], b"first").await.ok();
    let update = async |arguments: &[&str], input: &str| {
        next_second().await;
        let before = site.get("db").await;
        let ran = plugin.run_with(&[&["update", "msec/db"], arguments].concat(), input.as_bytes()).await;
        (before, ran.ok(), site.get("db").await)
    };

    let (before, out, after) = update(&["--description", "new, 天気"], "").await;
    assert_eq!(lines(&out), ["description: old -> new, 天気"]);
    assert_ne!(moved(&before).0, moved(&after).0);
    let (_, out, after) = update(&["--description", ""], "").await;
    assert_eq!(lines(&out), ["description: new, 天気 -> none"]);
    assert_eq!(after.spec.description, None);

    let (before, out, after) = update(&["--value-stdin"], "second").await;
    let dates = |object| status(object).value_updated_time.unwrap();
    assert_eq!(
        lines(&out),
        ["version: 1 -> 2".to_owned(), format!("value updated: {} -> {}", dates(&before), dates(&after))]
    );
    assert_eq!(site.value("db", "value").await.as_deref(), Some("second"));

    // The same value in other sealed text is no new value.
    let (before, out, after) = update(&["--value-stdin"], "second").await;
    assert_eq!(lines(&out), ["value: the same as before", "nothing changed"]);
    assert_eq!(moved(&before), moved(&after));
    assert_ne!(before.metadata.generation, after.metadata.generation);

    let (_, out, _) = update(&["--name", "DB2"], "").await;
    assert_eq!(lines(&out), ["name: DB -> DB2"]);
    let file = plugin.folder.file("value", "third\n");
    let (_, out, after) = update(&["--name", "DB3", "--description", "all", "--from-file", &file], "").await;
    assert_eq!(lines(&out)[..3], ["name: DB2 -> DB3", "description: none -> all", "version: 2 -> 3"]);
    assert_eq!(site.value("db", "value").await.as_deref(), Some("third\n"));
    assert_eq!(status(&after).id, status(&before).id);

    let (before, out, after) = update(&["--name", "DB3"], "").await;
    assert_eq!(out, "managedsecret.managedsecrets.dev/db unchanged\n");
    assert_eq!(before.metadata.resource_version, after.metadata.resource_version);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moved_is_told_also_of_two_changes_in_one_second() {
    let (site, operator, plugin) = place("hurry").await;
    plugin.run_with(&["create", "DB"], b"first").await.ok();
    // More changes than seconds go by, so that two of them share a date.
    let deadline = Instant::now() + 2 * PATIENCE;
    for version in 1.. {
        assert!(Instant::now() < deadline, "no two of {version} changes fell into one second");
        let before = status(&site.get("db").await).updated_date;
        let out = plugin.run_with(&["update", "DB", "--value-stdin"], format!("value {version}").as_bytes()).await.ok();
        assert_eq!(lines(&out)[0], format!("version: {version} -> {}", version + 1), "{out}");
        assert!(!out.contains("nothing changed"), "{out}");
        if before == status(&site.get("db").await).updated_date {
            break;
        }
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_descriptions_may_begin_with_a_hyphen() {
    let (site, operator, plugin) = place("hyphen").await;
    // The namespace before the command: behind -- it would be a name.
    let run =
        async |arguments: &[&str]| plugin.kubectl(&[&["msec", "-n", &site.namespace], arguments].concat(), b"").await;
    run(&["create", "--generate", "--object-name", "db", "--description", "- as in a list", "--", "-DB"]).await.ok();
    assert_eq!(site.get("db").await.spec.description.as_deref(), Some("- as in a list"));
    let out = plugin.run(&["update", "msec/db", "--name", "-FOO", "--description", "-"]).await.ok();
    assert_eq!(lines(&out), ["name: -DB -> -FOO", "description: - as in a list -> -"]);
    let value = run(&["value", "--", "-FOO"]).await.ok();
    assert_eq!(site.value("db", "value").await, Some(value));
    let taken_for_an_option = run(&["value", "-FOO"]).await;
    assert!(taken_for_an_option.error(2).contains("put -- before a name"), "{taken_for_an_option:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_source_takes_the_place_of_the_old_one() {
    let (site, operator, plugin) = place("source").await;
    site.source("upstream", "followed").await;
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "key"}});
    site.apply("db", json!({"name": "DB", "valueFrom": from})).await;
    site.served("db").await;
    let out = plugin.run_with(&["update", "DB", "--value-stdin"], b"followed").await.ok();
    assert_eq!(lines(&out), ["value: the same as before", "nothing changed"]);
    let spec = site.get("db").await.spec;
    assert!(spec.value.is_some() && spec.value_from.is_none());

    let out = plugin.run(&["update", "DB", "--generate", "9"]).await.ok();
    assert_eq!(lines(&out)[0], "version: 1 -> 2");
    let made = site.value("db", "value").await.unwrap();
    assert_eq!(made.len(), 9);
    // A longer one is for the next generated value, and the operator says so.
    let out = plugin.run(&["update", "DB", "--generate", "40"]).await.ok();
    let note = format!("note: {}", message(&site.get("db").await));
    assert_eq!(lines(&out), ["value: the same as before", &note, "nothing changed"]);
    assert!(note.contains("next generated value"), "{note}");
    assert_eq!(site.value("db", "value").await, Some(made));

    let out = plugin.run_with(&["update", "DB", "--value-stdin"], b"typed").await.ok();
    assert_eq!(lines(&out)[0], "version: 2 -> 3");
    let spec = site.get("db").await.spec;
    assert!(spec.value.is_some() && spec.generate.is_none());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_warned_of_and_waited_for() {
    let (site, operator, plugin) = place("rename").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.apply("holder", json!({"name": "TAKEN", "generate": {}})).await;
    site.served("db").await;
    site.served("holder").await;
    // Once the operator has said so, the wait has only to show it.
    let ran = plugin.run(&["update", "DB", "--name", "TAKEN", "--wait=false"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.err,
        "warning: the name TAKEN is in use by msec/holder: the secret keeps its old name until the new \
                         one is free\n"
    );
    site.reports("db", "False", "NameInUse").await;
    let ran = plugin.run(&["update", "msec/db", "--name", "TAKEN", "--timeout", "2s"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let lines: Vec<_> = ran.err.lines().collect();
    assert!(lines[0].starts_with("error: msec/db is unchanged, but not ready: waited for 2s; "), "{ran:?}");
    assert!(lines[0].contains("NameInUse") && lines[0].contains("holder"), "{ran:?}");
    assert_eq!(status(&site.get("db").await).name.as_deref(), Some("DB"));
    // Whatever waits for it: the name means its holder.
    let id = async |called: &str| {
        let shown: Value = serde_json::from_str(&plugin.run(&["get", called, "-o", "json"]).await.ok()).unwrap();
        shown["status"]["id"].as_str().unwrap().to_owned()
    };
    let held = id("msec/holder").await;
    site.delete("holder").await;
    site.served("db").await;
    assert_ne!(id("TAKEN").await, held);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_comes_between_is_not_overwritten() {
    let (site, operator, plugin) = place("between").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.served("db").await;
    // The object was looked at before the value is asked for: whatever happens meanwhile is a conflict.
    let mut terminal = Terminal::run(&plugin, &["update", "DB", "--value-stdin"]);
    terminal.shows("Value (not shown): ").await;
    terminal.hides().await;
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "key"}});
    site.apply("db", json!({"name": "DB", "description": "theirs", "valueFrom": from})).await;
    terminal.types("typed");
    let (code, shown) = terminal.end().await;
    assert_eq!(code, 0, "{shown}");
    let spec = site.served("db").await.spec;
    assert_eq!(spec.description(), "theirs");
    assert!(spec.value.is_some() && spec.value_from.is_none() && spec.generate.is_none());
    assert_eq!(site.value("db", "value").await.as_deref(), Some("typed"));

    // Another object of that name is another secret.
    let mut terminal = Terminal::run(&plugin, &["update", "DB", "--value-stdin"]);
    terminal.shows("Value (not shown): ").await;
    terminal.hides().await;
    site.delete("db").await;
    site.apply("db", json!({"name": "DB", "generate": {"length": 5}})).await;
    terminal.types("for the first");
    let (code, shown) = terminal.end().await;
    assert!(code == 1 && shown.contains("error: msec/db was deleted while the command ran"), "{shown}");
    assert!(site.get("db").await.spec.generate.is_some());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_and_not_done() {
    let (site, operator, plugin) = place("not-updated").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    let before = site.served("db").await;
    for (arguments, code, expected) in [
        (&["DB"][..], 2, "--description"),
        (&["DB", "--name", "a b"], 2, "spec.name: must"),
        (&["DB", "--value-stdin", "hunter2"], 2, "never from the command line"),
        (&["DB", "--value-stdin", "--generate"], 2, "cannot be used with"),
        (&["DB", "--value-stdin"], 2, "the value must not be empty"),
        (&["NOBODY", "--description", "x"], 1, "secret \"NOBODY\" not found"),
    ] {
        let ran = plugin.run(&[&["update"], arguments].concat()).await;
        let error = ran.err.lines().last().unwrap();
        assert!(ran.code == code && error.starts_with("error: ") && error.contains(expected), "{arguments:?}: {ran:?}");
        assert!(ran.out.is_empty() && !ran.err.contains("hunter"), "{ran:?}");
    }
    let client = ["update", "DB", "--description", "dry", "--dry-run=client"];
    assert_eq!(plugin.run(&client).await.ok(), "managedsecret.managedsecrets.dev/db updated (dry run)\n");
    let shown = plugin.run(&[&client[..], &["-o", "json"]].concat()).await.ok();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["spec"]["description"], "dry");
    let server = plugin.run(&["update", "DB", "--description", "dry", "--dry-run=server"]).await;
    assert_eq!(server.ok(), "managedsecret.managedsecrets.dev/db updated (server dry run)\n");

    let user = user_with(&site, &[may(&["get", "list"])]).await;
    let refused = plugin.impersonating(&user).run(&["update", "DB", "--description", "x"]).await;
    let right = format!("kubectl auth can-i patch managedsecrets.managedsecrets.dev/db -n {}", site.namespace);
    assert!(refused.error(1).contains(&right), "{refused:?}");
    assert_eq!(site.get("db").await.metadata.resource_version, before.metadata.resource_version);

    site.apply("db", json!({"name": "DB", "generate": {}, "suspend": true})).await;
    let suspended = plugin.run(&["update", "DB", "--description", "x"]).await;
    assert_eq!(suspended.code, 1, "{suspended:?}");
    assert!(suspended.err.contains("is updated, but not ready: Suspended: spec.suspend is true"), "{suspended:?}");
    let value = plugin.run(&["value", "DB"]).await;
    value.ok();
    assert_eq!(value.err, "note: this is the current value; spec.suspend is true, so no newer value is delivered\n");
    operator.stop().await;
}
