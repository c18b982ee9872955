//! `get`, `list`, `public-key`, `explain`: what is shown, in which form, and at which cost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use super::{Plugin, terminal::Terminal};
use crate::integration::{
    installation::control_plane,
    objects::{Site, in_time, status},
    operator::{Setup, public_key},
};

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_shown_by_name_by_id_and_by_object() {
    let site = Site::new("shown").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("weather", json!({"name": "A=B@$#-+=", "description": "Wetter, 天気", "generate": {}})).await;
    site.apply("other", json!({"name": "OTHER", "generate": {}})).await;
    let weather = site.served("weather").await;
    site.served("other").await;
    let id = status(&weather).id.unwrap();
    let plugin = Plugin::new(&site).await;

    for called in ["A=B@$#-+=", &id, &id.to_uppercase(), "msec/weather", "managedsecret.managedsecrets.dev/weather"] {
        let shown: Value = serde_json::from_str(&plugin.run(&["get", called, "-o", "json"]).await.ok()).unwrap();
        assert_eq!(shown["status"]["id"], id, "{called}");
        let out = plugin.run(&["get", called]).await.ok();
        let lines: Vec<Vec<_>> = out.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(lines.len(), 2, "{out}");
        assert_eq!(lines[0], ["NAME", "SECRET", "ID", "READY", "REASON", "VERSION", "UPDATED", "AGE"]);
        assert_eq!(lines[1][..6], ["weather", "A=B@$#-+=", &id, "True", "Served", "1"]);
    }
    // The very columns of kubectl's own table.
    let ours = plugin.run(&["list", "-o", "wide", "--no-headers"]).await.ok();
    let theirs = plugin.kubectl(&["get", "msec", "-n", &site.namespace, "-o", "wide", "--no-headers"], b"").await;
    let cells = |line: &str| line.split("  ").map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    let rows = |text: &str| text.lines().map(cells).collect::<Vec<Vec<String>>>();
    let without_ages = |rows: Vec<Vec<String>>| -> Vec<Vec<String>> {
        rows.into_iter().map(|row| row.into_iter().filter(|cell| !cell.ends_with('s')).collect()).collect()
    };
    assert_eq!(without_ages(rows(&ours)), without_ages(rows(&theirs.out)));

    // When the next value is generated, of the one that has a schedule.
    site.apply("other", json!({"name": "OTHER", "generate": {"rotateEvery": "1h"}})).await;
    let next = status(&site.in_step("other").await).next_rotation.unwrap();
    let wide = plugin.run(&["list", "-o", "wide", "--sort-by", ".metadata.name"]).await.ok();
    let lines: Vec<_> = wide.lines().collect();
    let at = lines[0].find("ROTATION").expect("its column");
    let cell = |line: usize| lines[line].get(at..).unwrap_or_default().split("  ").next().unwrap_or_default().trim();
    assert_eq!((cell(1), cell(2)), (next.as_str(), ""), "{wide}");

    let names = plugin.run(&["list", "-o", "name", "--sort-by", ".metadata.name"]).await.ok();
    assert_eq!(names, "managedsecret.managedsecrets.dev/other\nmanagedsecret.managedsecrets.dev/weather\n");
    let sorted = plugin.run(&["list", "--no-headers", "--sort-by", "{.spec.description}"]).await.ok();
    assert!(sorted.starts_with("other"), "{sorted}");
    let json: Value = serde_json::from_str(&plugin.run(&["get", &id, "-o", "json"]).await.ok()).unwrap();
    assert_eq!(json["kind"], "ManagedSecret");
    assert_eq!(json["metadata"]["managedFields"], Value::Null);
    let list: Value = serde_json::from_str(&plugin.run(&["list", "-o", "json"]).await.ok()).unwrap();
    assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("List"), Some(2)));
    let everywhere = plugin.run(&["list", "-A", "--field-selector", &format!("status.id={id}")]).await.ok();
    assert!(everywhere.starts_with("NAMESPACE\t") && everywhere.contains(&site.namespace), "{everywhere}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_columns_that_line_up_and_colours_unless_it_wants_none() {
    // No operator: what is shown is what is written here.
    let site = Site::new("table").await;
    for (object, name, description, status, reason, version) in [
        ("db", "DB", "Wetter, 天気 \u{1b}[35m", "True", "Served", 7),
        ("long-object", "OTHER_NAME", "e\u{301}té", "False", "NameInUse", 12),
    ] {
        site.apply(object, json!({"name": name, "description": description, "generate": {}})).await;
        let place = json!({"name": "the-target", "key": "value", "uid": "u", "resourceVersion": "1"});
        site.write_status(
            object,
            json!({
                "id": "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11", "name": name, "version": version, "target": place,
                "updatedDate": "2026-01-02T03:04:05Z",
                "conditions": [{"type": "Ready", "status": status, "reason": reason, "message": "so it is",
                    "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            }),
        )
        .await;
    }
    let mut plugin = Plugin::new(&site).await;
    let list = async |plugin: &Plugin, arguments: &[&str]| {
        let (code, shown) = Terminal::run(plugin, &[&["list"], arguments].concat()).end().await;
        assert_eq!(code, 0, "{shown}");
        shown.replace("\r\n", "\n")
    };
    // All but the last two columns is known, which are ages.
    let without_ages = |text: &str| -> Vec<String> {
        let without_one = |line: &str| line.rsplit_once("   ").unwrap().0.trim_end().to_owned();
        text.lines().map(|line| without_one(&without_one(line))).collect()
    };
    let coloured = list(&plugin, &[]).await;
    plugin.env.push(("NO_COLOR".to_owned(), "1".to_owned()));
    let plain = list(&plugin, &[]).await;
    assert_eq!(
        without_ages(&plain),
        [
            "NAME          SECRET       ID                                     READY   REASON      VERSION",
            "db            DB           2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11   True    Served      7",
            "long-object   OTHER_NAME   2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11   False   NameInUse   12",
        ]
    );
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    let (green, red) = ("\u{1b}[32mTrue\u{1b}[0m", "\u{1b}[31mFalse\u{1b}[0m");
    assert!(coloured.contains(green) && coloured.contains(red), "{coloured:?}");
    let stripped = coloured.replace(green, "True").replace(red, "False");
    assert_eq!(without_ages(&stripped), without_ages(&plain));

    // Wide characters take two places, combining ones none; an escape sequence of a description's is none.
    let wide = list(&plugin, &["-o", "wide"]).await;
    assert!(!wide.contains('\u{1b}') && wide.contains("天気") && wide.contains("e\u{301}té"), "{wide:?}");
    let at = |line: &str, what: &str| line[..line.find(what).unwrap()].width();
    let lines: Vec<_> = wide.lines().collect();
    let places = [at(lines[0], "TARGET"), at(lines[1], "the-target"), at(lines[2], "the-target")];
    assert!(lines.len() == 3 && places.iter().all(|place| *place == places[0]), "{wide}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_expire_are_listed_by_the_time_that_is_left() {
    // No operator: the dates of the specs count.
    let site = Site::new("expiring").await;
    for (name, hours, warning) in [
        ("past", Some(-5), None),
        ("week", Some(7 * 24), Some("1h")),
        ("month", Some(29 * 24), None),
        ("year", Some(9000), None),
        ("never", None, None),
    ] {
        let mut spec = json!({"name": name.to_uppercase(), "generate": {}});
        if let Some(hours) = hours {
            spec["expires"] = json!(in_time(jiff::SignedDuration::from_hours(hours)));
        }
        if let Some(warning) = warning {
            spec["expiryWarning"] = json!(warning);
        }
        site.apply(name, spec).await;
    }
    let plugin = Plugin::new(&site).await;
    for (option, expected) in [
        ("--expiring", vec!["month", "past"]),
        ("--expiring=0d", vec!["past"]),
        ("--expiring=10d", vec!["past", "week"]),
        ("--expiring=720h", vec!["month", "past", "week"]),
        ("--expiring=999999d", vec!["month", "past", "week", "year"]),
    ] {
        let out = plugin.run(&["list", option, "--no-headers", "--sort-by", ".metadata.name"]).await.ok();
        let names: Vec<_> = out.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_eq!(names, expected, "{option}");
        let json: Value = serde_json::from_str(&plugin.run(&["list", option, "-o", "json"]).await.ok()).unwrap();
        let listed = json["items"].as_array().map_or(1, Vec::len);
        assert_eq!(listed, expected.len(), "{option}");
    }
    let out = plugin.run(&["list", "--expiring=10d"]).await.ok();
    let date = site.get("week").await.spec.expires.unwrap();
    assert!(out.lines().next().unwrap().ends_with("\tEXPIRES") && out.contains(&date), "{out}");
    assert!(!plugin.run(&["list"]).await.ok().contains("EXPIRES"));
    let wide = plugin.run(&["list", "-o", "wide"]).await.ok();
    assert!(wide.lines().next().unwrap().ends_with("EXPIRES"), "{wide}");
    let described = plugin.run(&["describe", "WEEK"]).await.ok();
    assert!(described.contains(&format!("Expires:        {date} (in ")), "{described}");
    let wrong = plugin.run(&["list", "--expiring=soon"]).await;
    assert!(wrong.error(2).contains("30d"), "{wrong:?}");
    let none = plugin.run(&["get", "NEVER", "--expiring"]).await;
    assert!(none.code == 0 && none.err.contains("No expiring secrets found"), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_in_one_line() {
    let site = Site::new("absent").await;
    let plugin = Plugin::new(&site).await;
    let absent = plugin.run(&["get", "NOBODY"]).await;
    assert!(absent.error(1).contains("NOBODY") && absent.err.contains(&site.namespace), "{absent:?}");
    let wrong = plugin.run(&["get", "no body"]).await;
    assert!(wrong.error(2).contains("letters, digits"), "{wrong:?}");
    let empty = plugin.run(&["list"]).await;
    assert_eq!((empty.code, empty.out.as_str()), (0, ""));
    assert!(empty.err.contains("No secrets found"), "{empty:?}");
    let reason = plugin.run(&["explain", "NameInUse"]).await;
    assert!(reason.ok().starts_with("NameInUse\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_by_name_costs_one_request_and_a_missing_right_is_named() {
    let site = Site::new("lookup").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    let id = status(&site.served("db").await).id.unwrap();
    let user = super::user_with(&site, &[(&["list"], "managedsecrets.dev", "managedsecrets")]).await;
    let plugin = Plugin::new(&site).await.impersonating(&user);
    let control_plane = control_plane().await;
    // What looks like an id may be a name as well, and is asked for as both.
    for (called, requests_needed) in [("DB", 1), ("msec/db", 1), (&id, 2)] {
        let mark = control_plane.audit_mark().await.unwrap();
        plugin.run(&["get", called]).await.ok();
        let requests = control_plane.requests_since(mark).await.unwrap();
        let ours: Vec<_> = requests.iter().filter(|request| request.username() == user).collect();
        assert_eq!(ours.len(), requests_needed, "{ours:?}");
    }
    let nobody = plugin.impersonating("nobody@example.com");
    let refused = nobody.run(&["get", "DB"]).await;
    let says = format!("kubectl auth can-i list managedsecrets.managedsecrets.dev -n {}", site.namespace);
    assert!(refused.error(1).contains(&says), "{refused:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_key_is_told_and_written_to_a_file() {
    let site = Site::new("key").await;
    let operator = Setup::of(&site.namespace).start().await;
    let key = public_key(&site.client).await;
    let plugin = Plugin::new(&site).await;
    let out = plugin.run(&["public-key", "--out", "key.json"]).await.ok();
    assert!(out.contains(&key.fingerprint()), "{out}");
    let again = plugin.run(&["public-key", "--public-key", "key.json", "--document"]).await.ok();
    assert_eq!(again, plugin.folder.read("key.json"));
    let other = plugin.run(&["public-key", "--fingerprint", &"0".repeat(64)]).await;
    assert!(other.error(1).contains("--fingerprint"), "{other:?}");
    // Everybody may read it where the operator is, and nowhere else.
    let nobody = plugin.impersonating("nobody@example.com");
    nobody.run(&["public-key"]).await.ok();
    let refused = nobody.run(&["public-key", "--operator-namespace", &site.namespace]).await;
    let says = format!("kubectl auth can-i get configmaps/managed-secrets-sealing-key -n {}", site.namespace);
    assert!(refused.error(1).contains(&says), "{refused:?}");
    operator.stop().await;
}
