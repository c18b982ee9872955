//! `create`: where the value comes from, what is refused before anything is sent, how it is waited for.

use managed_secrets_api::ManagedSecret;
use managed_secrets_crypto::mss1::{Handling, PublishedKey, Sealed, SealingKey};
use serde_json::{Value, json};
use testkit::audit::Request;
use zeroize::Zeroizing;

use super::{may, objects, place};
use crate::integration::{
    installation::control_plane,
    msec::{Plugin, terminal::Terminal, user_with},
    objects::{Site, id, status},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_comes_from_standard_input_or_a_file_or_is_generated() {
    let (site, operator, plugin) = place("created").await;
    let value = "  grüße, 天気\n";
    let ran = plugin.run_with(&["create", "WEATHER_API_KEY", "--description", "Wetter"], value.as_bytes()).await;
    let object = site.served("weather-api-key").await;
    assert_eq!(
        ran.ok(),
        format!("managedsecret.managedsecrets.dev/weather-api-key created\nid {}, version 1\n", id(&object))
    );
    // No terminal, no progress; but which key it was, and that the value ends in a line break.
    assert!(ran.err.starts_with("note: sealing with the public key with SHA-256 "), "{}", ran.err);
    assert!(ran.err.contains("\nnote: the value ends in a line break"), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 2, "{}", ran.err);
    assert_eq!(site.value("weather-api-key", "value").await.as_deref(), Some(value));
    assert_eq!((object.spec.name.as_str(), object.spec.description()), ("WEATHER_API_KEY", "Wetter"));
    let managers: Vec<_> =
        object.metadata.managed_fields.iter().flatten().filter_map(|it| it.manager.clone()).collect();
    assert!(managers.contains(&"kubectl-msec".to_owned()), "{managers:?}");

    let file = plugin.folder.file("value.txt", "from a file\r\n");
    let create = ["create", "A=B@$#", "--from-file", &file, "--object-name", "odd", "--deletion-policy", "Retain"];
    let ran = plugin.run(&[&create[..], &["-o", "json"]].concat()).await;
    let shown: Value = serde_json::from_str(&ran.ok()).unwrap();
    assert_eq!(shown["status"]["id"], id(&site.served("odd").await));
    assert_eq!(site.value("odd", "value").await.as_deref(), Some("from a file\r\n"));
    assert_eq!(serde_json::to_value(site.get("odd").await.spec.deletion_policy).unwrap(), json!("Retain"));

    let target = ["--target-name", "login", "--target-key", "password", "--target-type", "kubernetes.io/basic-auth"];
    let generate = ["create", "DB", "--generate", "12", "--alphabet", "Hex", "-o", "name"];
    let ran = plugin.run(&[&generate[..], &target].concat()).await;
    assert_eq!(ran.ok(), "managedsecret.managedsecrets.dev/db\n");
    let made = site.value("login", "password").await.unwrap();
    assert!(made.len() == 12 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    // Nothing is sealed, so no key is spoken of.
    assert_eq!(ran.err, "");

    let kept = plugin.run(&["create", "KEPT", "--generate", "--delivery", "None"]).await;
    assert!(kept.ok().contains("version 1"));
    assert_eq!(status(&site.get("kept").await).target, None);
    let handling = async || {
        let value = site.get("kept-text").await.spec.value.unwrap();
        Sealed::parse(&value.0).unwrap().handling()
    };
    plugin.run_with(&["create", "KEPT_TEXT", "--delivery", "None"], value.as_bytes()).await.ok();
    assert_eq!(handling().await, Handling::Kept);
    plugin.run_with(&["update", "KEPT_TEXT", "--value-stdin"], b"another").await.ok();
    assert_eq!(handling().await, Handling::Kept);
    assert!(plugin.run(&["describe", "KEPT_TEXT"]).await.ok().contains("only, kept (delivering it needs"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_is_refused_before_anything_is_sent() {
    let (site, operator, plugin) = place("refused").await;
    let wrong_pin = "0".repeat(64);
    let long = "x".repeat(201);
    let cases: &[(&[&str], &[u8], i32, &str)] = &[
        (&["A B"], b"hunter2", 2, "spec.name: must"),
        (&["A=B"], b"hunter2", 2, "--object-name is missing"),
        (&["MSEC_A"], b"hunter2", 2, "--object-name is missing"),
        (&["A", "--object-name", "A"], b"hunter2", 2, "metadata.name: must"),
        (&["A", "--object-name", "msec-a"], b"hunter2", 2, "must"),
        (&["A", "--description", &long], b"hunter2", 2, "spec.description: must have at most 200 characters"),
        (&["A", "--target-key", "a/b"], b"hunter2", 2, "spec.target.key: must"),
        (&["A", "--target-type", "kubernetes.io/service-account-token"], b"hunter2", 2, "spec.target.type: must"),
        (&["A", "--generate", "3501"], b"", 2, "spec.generate.length: must be at most 3500"),
        (&["A", "--generate", "--from-file", "f"], b"", 2, "cannot be used with"),
        (&["A", "--alphabet", "Hex"], b"hunter2", 2, "--generate"),
        (&["A", "--generate", "--alphabet", "Hax"], b"", 2, "Base64Url"),
        (&["--generate", "A"], b"", 2, "write the name before --generate"),
        (&["A", "--from-file", "/nonexistent/file"], b"", 2, "/nonexistent/file: "),
        (&["A"], b"", 2, "the value must not be empty"),
        (&["A"], b"hunter2\xff", 2, "the value must be valid UTF-8"),
        (&["A"], &[b'a'; 3501], 2, "the value must have at most 3500 characters"),
        (&["A", "hunter2"], b"", 2, "never from the command line"),
        (&["A", "--value", "hunter2"], b"", 2, "never from the command line"),
        (&["A", "--timeout", "soon"], b"hunter2", 2, "must be a duration"),
        (&["A", "-o", "table"], b"hunter2", 2, "--output: must be json, yaml or name"),
        (&["A", "--fingerprint", &wrong_pin], b"hunter2", 1, "--fingerprint"),
        (&["A", "--operator-namespace", "nowhere"], b"hunter2", 1, "nowhere/managed-secrets-sealing-key"),
    ];
    for (arguments, input, code, expected) in cases {
        let ran = plugin.run_with(&[&["create"], *arguments].concat(), input).await;
        assert!(ran.error(*code).contains(expected), "{arguments:?}: {ran:?}");
        assert!(!format!("{ran:?}").contains("hunter"), "{ran:?}");
    }
    assert_eq!(objects(&site).await, [""; 0]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_use_is_refused_at_once_and_by_whom_is_said() {
    let (site, operator, plugin) = place("taken").await;
    site.apply("holder", json!({"name": "TAKEN", "generate": {}})).await;
    site.served("holder").await;
    site.apply("waiter", json!({"name": "TAKEN", "generate": {}})).await;
    let taken = plugin.run_with(&["create", "TAKEN"], b"hunter2").await;
    assert_eq!(taken.error(1), "the name TAKEN is in use by msec/holder, msec/waiter");
    let object = plugin.run_with(&["create", "HOLDER"], b"hunter2").await;
    assert!(object.error(1).contains("msec/holder already exists and is called TAKEN"), "{object:?}");
    assert_eq!(objects(&site).await, ["holder", "waiter"]);

    // Made while the value was being typed.
    let mut terminal = Terminal::run(&plugin, &["create", "LATE"]);
    terminal.shows("Value (not shown): ").await;
    terminal.hides().await;
    site.apply("late", json!({"name": "OTHER", "generate": {}})).await;
    terminal.types("hunter2");
    let (code, shown) = terminal.end().await;
    assert!(
        code == 1 && shown.contains("error: cannot create the secret: ") && shown.contains("already exists"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_create_one_name_at_once_one_is_served_and_the_other_told() {
    let (site, operator, plugin) = place("race").await;
    let create = |object: &'static str, value: &'static [u8]| {
        let plugin = &plugin;
        async move {
            let arguments = ["create", "ONE", "--object-name", object, "--timeout", "40s"];
            (object, value, plugin.run_with(&arguments, value).await)
        }
    };
    let (a, b) = tokio::join!(create("a", b"value of a"), create("b", b"value of b"));
    let (winner, loser) = if a.2.code == 0 { (a, b) } else { (b, a) };
    assert!(winner.2.ok().ends_with("version 1\n"));
    let value = site.value(winner.0, "value").await.unwrap();
    assert_eq!(value.as_bytes(), winner.1);
    // Told at once if it looked after the other's write, else by the wait.
    assert_eq!(loser.2.code, 1, "{loser:?}");
    let error = loser.2.err.lines().last().unwrap();
    let at_once = error == format!("error: the name ONE is in use by msec/{}", winner.0);
    let by_the_wait = error.starts_with(&format!("error: msec/{} is created, but not ready: ", loser.0))
        && error.contains("NameInUse")
        && error.ends_with(&format!("held by ManagedSecret {}", winner.0));
    assert!(at_once || by_the_wait, "{error}");
    assert_eq!(site.value(loser.0, "value").await, None);

    // Of two who would make the same object, the API server lets one.
    let (a, b) = tokio::join!(plugin.run_with(&["create", "SAME"], b"a"), plugin.run_with(&["create", "SAME"], b"b"));
    let (winner, loser, value) = if a.code == 0 { (a, b, "a") } else { (b, a, "b") };
    winner.ok();
    assert_eq!(site.value("same", "value").await.as_deref(), Some(value));
    assert_eq!((loser.code, loser.out.as_str()), (1, ""), "{loser:?}");
    let error = loser.err.lines().last().unwrap();
    let expected = ["in use by msec/same", "the object msec/same already exists", "\"same\" already exists"];
    assert!(expected.iter().any(|text| error.contains(text)), "{error}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_last_state_or_a_final_failure() {
    let (site, operator, plugin) = place("waits").await;
    site.foreign_secret("held", &[("value", "someone's")]).await;
    let held = plugin.run_with(&["create", "HELD"], b"hunter2").await;
    assert_eq!(held.code, 1, "{held:?}");
    assert_eq!(held.out, "managedsecret.managedsecrets.dev/held created\n");
    let error = held.err.lines().last().unwrap();
    assert!(error.starts_with("error: msec/held is created, but not ready: TargetNotOwned: "), "{error}");
    operator.stop().await;

    // With -o nothing but the object is printed, and there is none to print.
    let generate = ["create", "LATE", "--generate", "--timeout", "1s", "-o", "yaml"];
    let late = plugin.run(&generate).await;
    let error = late.error(1);
    assert!(error.contains("waited for 1s; the last state is Pending: "), "{error}");
    assert!(error.contains("kubectl msec doctor"), "{error}");
    let unwaited = plugin.run(&["create", "UNWAITED", "--generate", "--wait=false"]).await;
    assert_eq!(unwaited.ok(), "managedsecret.managedsecrets.dev/unwaited created\n");
    assert_eq!(objects(&site).await, ["held", "late", "unwaited"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_manifest_and_changes_nothing() {
    let (site, operator, plugin) = place("dry").await;
    let key = plugin.run(&["public-key", "--document"]).await.ok();
    plugin.folder.file("key.json", key);
    let control_plane = control_plane().await;
    let user = user_with(&site, &[may(&["list", "create"])]).await;
    let limited = plugin.impersonating(&user);
    limited.folder.file("key.json", plugin.folder.read("key.json"));
    let asked = async |arguments: &[&str]| {
        let mark = control_plane.audit_mark().await.unwrap();
        let ran = limited.run_with(&[&["create", "DRY"], arguments].concat(), b"dry value").await;
        let requests = control_plane.requests_since(mark).await.unwrap();
        let ours: Vec<_> = requests.iter().filter(|it| it.username() == user).map(Request::summary).collect();
        (ran.ok(), ours)
    };
    // Nothing but the key is asked for, and with a file not even that.
    let (manifest, requests) = asked(&["--dry-run=client"]).await;
    assert!(requests.len() == 1 && requests[0].contains("/configmaps/managed-secrets-sealing-key"), "{requests:?}");
    assert!(manifest.contains("\n  value: mss1.") && !manifest.contains("dry value"), "{manifest}");
    let (json, requests) = asked(&["--dry-run=client", "--public-key", "key.json", "-o", "json"]).await;
    assert_eq!(requests, [""; 0]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["metadata"], json!({"name": "dry", "namespace": site.namespace}));
    let (said, requests) = asked(&["--dry-run=server"]).await;
    assert_eq!(said, "managedsecret.managedsecrets.dev/dry created (server dry run)\n");
    assert!(requests.iter().any(|request| request.contains(" create ") && request.contains("dryRun=All")));
    assert_eq!(objects(&site).await, [""; 0]);
    // What was shown is a manifest.
    let applied = plugin.kubectl(&["apply", "-f", "-"], manifest.as_bytes()).await;
    applied.ok();
    site.served("dry").await;
    site.delivers("dry", "value", "dry value").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named() {
    let (site, operator, plugin) = place("rights").await;
    let objects = "managedsecrets.managedsecrets.dev";
    for (verbs, expected, created) in [
        (&["watch"][..], format!("kubectl auth can-i list {objects} -n {}", site.namespace), false),
        (&["list"], format!("kubectl auth can-i create {objects} -n {}", site.namespace), false),
        (&["list", "create"], format!("kubectl auth can-i get {objects}/r -n {}", site.namespace), true),
    ] {
        let user = user_with(&site, &[may(verbs)]).await;
        let ran = plugin.impersonating(&user).run(&["create", "R", "--generate"]).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.lines().last().unwrap().contains(&expected), "{ran:?}");
        assert_eq!(!ran.out.is_empty(), created, "{ran:?}");
    }
    site.served("r").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cluster_is_said_so() {
    let site = Site::new("nowhere").await;
    let mut plugin = Plugin::new(&site).await;
    plugin.kubeconfig = "/nonexistent/kubeconfig".into();
    let ran = plugin.run(&["create", "A", "--generate"]).await;
    assert!(ran.error(3).contains("no file that KUBECONFIG names exists"), "{ran:?}");
    // A manifest needs none, with a namespace and a key.
    let key = SealingKey::new(Zeroizing::new([0x42; 32])).unwrap();
    let document = PublishedKey::new(key.public().clone(), jiff::Timestamp::now()).to_json().unwrap();
    plugin.folder.file("key.json", document);
    let ran = plugin.run_with(&["create", "A", "--dry-run=client", "--public-key", "key.json"], b"offline").await;
    let manifest: ManagedSecret = serde_saphyr::from_str(&ran.ok()).unwrap();
    let sealed = Sealed::parse(&manifest.spec.value.unwrap().0).unwrap();
    assert_eq!(sealed.open(&key, &site.namespace, "a").unwrap().as_bytes(), b"offline");
}
