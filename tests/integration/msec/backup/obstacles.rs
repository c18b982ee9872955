//! What a restore meets: foreign holders of a name, missing rights, an interruption, wrong files.

use managed_secrets_api::{keys, names::record_name};
use serde_json::json;
use testkit::poll;

use super::{elsewhere, other_cluster, serve};
use crate::integration::{
    installation::RESTORER,
    msec::{Plugin, user_with},
    objects::{Site, id, status},
    operator::{PATIENCE, Setup},
};

/// Two secrets and their backup, with all keys; the operator stopped.
async fn backed_up(purpose: &str) -> (Site, Plugin) {
    let site = Site::new(purpose).await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("one", json!({"name": "ONE", "generate": {}})).await;
    site.apply("two", json!({"name": "TWO", "generate": {}})).await;
    site.in_step("one").await;
    site.in_step("two").await;
    let plugin = Plugin::new(&site).await;
    plugin.backup_into("backup/", &["--with-kek"]).await;
    operator.stop().await;
    (site, plugin)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_name_is_left_and_told_and_the_rest_goes_on() {
    let (site, plugin) = backed_up("conflicts").await;
    let (before, value) = (id(&site.get("two").await), site.value("two", "value").await.unwrap());
    let plane = other_cluster().await;
    let there = elsewhere(plane, &site).await;
    let restorer = Plugin::on(plane, &there);
    restorer.kubectl(&["create", "namespace", &site.namespace], b"").await;
    // Applied from Git before the restore, and served: it has an id and a value of its own by now.
    let operator = serve(plane, &there).await;
    there.apply("two", json!({"name": "TWO", "generate": {}})).await;
    let fresh = id(&there.served("two").await);
    let backup = plugin.file_path("backup");
    let ran = restorer.restore_trusted(&backup, &["--timeout=40s"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let conflict = format!(
        "record {}/{}: not restored: its name TWO belongs to the secret {fresh}",
        site.namespace,
        record_name("TWO")
    );
    assert!(ran.out.contains(&conflict) && ran.out.contains("1 secret is delivered with the backup's"), "{ran:?}");
    assert!(
        ran.err.contains("error: 1 of ") && ran.err.ends_with(" objects were not restored; see above\n"),
        "{ran:?}"
    );
    assert_eq!(id(&there.get("two").await), fresh);
    assert_eq!(id(&there.served("one").await), id(&site.get("one").await));

    // As the message says: delete it, and restore again.
    there.delete("two").await;
    there.gone(&record_name("TWO")).await;
    there.gone("two").await;
    let ran = restorer.restore_trusted(&backup, &["--timeout=40s"]).await;
    assert!(ran.ok().contains("2 secrets are delivered with the backup's"), "{ran:?}");
    assert_eq!(id(&there.get("two").await), before);
    there.delivers("two", "value", &value).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_restorer_or_lacks_a_right_is_told_so() {
    let (site, plugin) = backed_up("rights").await;
    let viewer = user_with(&site, &[(&["list"], keys::GROUP, keys::PLURAL)]).await;
    let refused = plugin.impersonating(&viewer).run(&["backup", "--out", "never.yaml"]).await;
    let says = format!("kubectl auth can-i list secrets -n {}", site.namespace);
    assert!(refused.error(1).contains(&says), "{refused:?}");

    let plane = other_cluster().await;
    let there = elsewhere(plane, &site).await;
    let admin = Plugin::on(plane, &there);
    let backup = plugin.file_path("backup");
    let refused = admin.restore_trusted_as(&backup, &["--create-namespaces"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    let whoami = admin.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"], b"").await.out;
    for says in [
        format!("policy {}", keys::POLICY_PROTECTED_SECRETS),
        format!("managed-secrets manifests --restorer {whoami} | kubectl apply -f -"),
        "run the same command to continue".to_owned(),
    ] {
        assert!(refused.err.contains(&says), "{says}: {refused:?}");
    }
    assert!(there.labelled().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_goes_on_where_it_was() {
    let (site, plugin) = backed_up("resumed").await;
    let plane = other_cluster().await;
    let there = elsewhere(plane, &site).await;
    let restorer = Plugin::on(plane, &there);
    // One who may restore Secrets only: the restore ends when it comes to the ManagedSecrets.
    let secrets: (&[&str], _, _) = (&["list", "get", "create", "patch"], "", "secrets");
    let group = user_with(&there, &[(&["list"], keys::GROUP, keys::PLURAL), secrets]).await;
    let subject = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("{group}-restorer")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": group},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]});
    let bound = restorer.kubectl(&["create", "-f", "-"], subject.to_string().as_bytes()).await;
    assert_eq!(bound.code, 0, "{bound:?}");
    restorer.kubectl(&["create", "namespace", &site.namespace], b"").await;
    let backup = plugin.file_path("backup");
    let who = ["--as", RESTORER, "--as-group", &group];
    poll("the rights to be in force", PATIENCE, || async {
        let may = [&["auth", "can-i", "patch", "secrets", "-n", &site.namespace], who.as_slice()].concat();
        Ok((restorer.kubectl(&may, b"").await.code == 0).then_some(()))
    })
    .await
    .unwrap();
    let ended = restorer.restore_trusted_as(&backup, &who).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    let says = format!("kubectl auth can-i create managedsecrets.managedsecrets.dev -n {}", site.namespace);
    assert!(ended.err.contains(&says) && ended.err.contains("run the same command to continue"), "{ended:?}");
    assert!(there.record("ONE").await.is_some() && there.objects().get_opt("one").await.unwrap().is_none());

    let operator = serve(plane, &there).await;
    let ran = restorer.restore_trusted(&backup, &["--timeout=40s"]).await;
    let out = ran.ok();
    assert!(ran.err.contains("note: 2 created, "), "{ran:?}");
    assert!(out.contains("2 secrets are delivered with the backup's"), "{out}");
    for name in ["one", "two"] {
        assert_eq!(status(&there.get(name).await).created_date, status(&site.get(name).await).created_date);
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_files_are_refused_whole_and_never_quoted() {
    let site = Site::new("wrong-files").await;
    let plugin = Plugin::new(&site).await;
    let foreign = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "y"}, "type": "Opaque",
        "stringData": {"a": "canary-value"}}"#;
    for (content, says) in [
        ("a: [canary-value", "invalid YAML at line 1"),
        ("just text", "must have metadata.name and metadata.namespace"),
        (foreign, "Secret y/x is not part of a backup"),
        ("# only comments\n", "no object to restore"),
    ] {
        let file = plugin.folder.file("wrong.yaml", content);
        let ran = plugin.run(&["restore", &file, "--yes"]).await;
        assert!(ran.error(2).contains(says), "{says}: {ran:?}");
        assert!(!ran.err.contains("canary"), "{ran:?}");
    }
    let absent = plugin.run(&["restore", "nowhere.yaml", "--yes"]).await;
    assert!(absent.error(2).contains("nowhere.yaml"), "{absent:?}");
    let file = plugin.folder.file(
        "wrong.yaml",
        r#"{"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": "x", "namespace": "y"}, "spec": {"name": "X", "generate": {}}}"#,
    );
    let unasked = plugin.run(&["restore", &file]).await;
    assert!(unasked.error(2).contains("--yes"), "{unasked:?}");
}
