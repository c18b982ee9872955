//! `diff`: words for what would change, and never a value.

use serde_json::json;

use super::{CANARY, manifest};
use crate::integration::{
    msec::{Plugin, user_with},
    objects::Site,
    operator::Setup,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_would_change_is_said_in_words() {
    let site = Site::new("diff").await;
    let operator = Setup::of(&site.namespace).start().await;
    let plugin = Plugin::new(&site).await;
    let sealed = site.seal("db", CANARY).await;
    let spec = json!({"name": "DB", "description": "old", "value": sealed});
    site.apply("db", spec).await;
    site.in_step("db").await;
    let place = format!("{}/db", site.namespace);
    let text = manifest(&site, "db", &sealed) + "  description: old\n";
    let diff = |text: String| {
        let file = plugin.folder.file("db.yaml", text);
        let plugin = &plugin;
        async move {
            let ran = plugin.run(&["diff", "-f", &file]).await;
            assert!(!format!("{ran:?}").contains(CANARY), "a value is said");
            (ran.code, ran.out)
        }
    };
    let lines = |lines: &[&str]| (1, format!("{place}:\n  {}\n", lines.join("\n  ")));
    assert_eq!(diff(text.clone()).await, (0, format!("{place}: unchanged\n")));
    assert_eq!(
        diff(text.replace("name: db #", "name: new #").replace(&sealed, CANARY)).await,
        (1, format!("{}/new: new\n", site.namespace))
    );
    // Plain text is compared with what is delivered.
    assert_eq!(diff(text.replace(&sealed, CANARY)).await, (0, format!("{place}: unchanged\n")));
    assert_eq!(diff(text.replace(&sealed, &format!("{CANARY}-2"))).await, lines(&["value: changes"]));
    // Sealed text cannot be opened: not even that of the same value.
    let again = site.seal("db", CANARY).await;
    let told = "value: the sealed value differs; whether the value changes is unknown until it is applied";
    assert_eq!(diff(text.replace(&sealed, &again)).await, lines(&[told]));
    let changed = text
        .replace("name: DB", "name: DB2")
        .replace(
            "description: old",
            "description: new\n  target: {name: db2, labels: {a: b}}\n  deletionPolicy: Retain",
        )
        .replace(&format!("  value: {sealed} # why\n"), "  generate: {}\n")
        .replace("metadata:\n", "metadata:\n  labels: {team: shop}\n");
    assert_eq!(
        diff(changed).await,
        lines(&[
            "name: DB → DB2",
            "description: \"old\" → \"new\"",
            "source: value → generate (the operator generates a new value)",
            "target.name: db → db2 (the Secret moves)",
            "deletionPolicy: Delete → Retain",
            "target.labels.a: new",
            "labels.team: new",
        ])
    );
    // As kubectl diff: more than 1 for what is no difference.
    let file = plugin.folder.file("db.yaml", text.replace("name: DB", "name: D B"));
    let broken = plugin.run(&["diff", "-f", &file]).await;
    assert!(broken.error(2).contains("db.yaml:9:3: spec.name: must consist of"), "{broken:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_the_value_is_not_told_whether_it_changes() {
    let site = Site::new("diffright").await;
    let operator = Setup::of(&site.namespace).start().await;
    let sealed = site.seal("db", CANARY).await;
    site.apply("db", json!({"name": "DB", "value": sealed})).await;
    site.in_step("db").await;
    let user = user_with(&site, &[(&["get"], "managedsecrets.dev", "managedsecrets")]).await;
    let plugin = Plugin::new(&site).await.impersonating(&user);
    for value in [CANARY, "another"] {
        let file = plugin.folder.file("db.yaml", manifest(&site, "db", value));
        let ran = plugin.run(&["diff", "-f", &file]).await;
        let says = format!(
            "value: whether it changes is unknown: its Secret cannot be read: permission denied: check `kubectl auth \
             can-i get secrets/db -n {}`",
            site.namespace
        );
        assert!(ran.code == 1 && ran.out.contains(&says), "{ran:?}");
    }
    // Nor is anybody, where the operator is not in step.
    let administrator = Plugin::new(&site).await;
    site.apply("db", json!({"name": "DB", "value": sealed, "suspend": true})).await;
    site.reports("db", "True", "Suspended").await;
    let file = administrator.folder.file("db.yaml", manifest(&site, "db", CANARY) + "  suspend: true\n");
    let ran = administrator.run(&["diff", "-f", &file]).await;
    assert!(ran.code == 1 && ran.out.contains("it is not up to date: Suspended"), "{ran:?}");
    let nobody = administrator.impersonating("nobody@example.com");
    let ran = nobody.run(&["diff", "-f", &file]).await;
    let says = format!("kubectl auth can-i get managedsecrets.managedsecrets.dev/db -n {}", site.namespace);
    assert!(ran.error(2).contains(&says), "{ran:?}");
    operator.stop().await;
}
