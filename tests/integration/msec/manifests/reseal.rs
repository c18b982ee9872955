//! `reseal`: the key was replaced, and what is in Git follows, without anybody seeing a value.

use managed_secrets_crypto::mss1::{Handling, Sealed};
use serde_json::json;
use testkit::poll;

use super::{CANARY, manifest, value_of};
use crate::integration::{
    admission::{self, Premises, replace_the_sealing_key},
    msec::{Plugin, user_with},
    objects::moved,
    operator::{PATIENCE, public_key_of},
};

#[tokio::test(flavor = "multi_thread")]
async fn values_are_sealed_for_the_new_key_and_nothing_moves() {
    let premises = Premises::new("reseal").await;
    let (site, operator_namespace) = (&premises.site, premises.operator_namespace.as_str());
    let running = premises.start(premises.setup()).await;
    let old = public_key_of(&site.client, operator_namespace).await;
    let plugin = Plugin::on(admission::control_plane().await, site);
    let reseal = |file: &str| {
        let arguments = ["reseal", "-f", file, "--operator-namespace", operator_namespace].map(str::to_owned);
        let plugin = &plugin;
        async move { plugin.run(&arguments.each_ref().map(String::as_str)).await }
    };
    let seal = ["seal", "-f", ".", "--operator-namespace", operator_namespace];
    // One that is served, one that is delivered nowhere, one that is in Git only, one that is other on the cluster.
    plugin.folder.file("db.yaml", manifest(site, "db", &format!("'{CANARY}'")));
    plugin.folder.file("none.yaml", manifest(site, "none", CANARY) + "  delivery: None\n");
    plugin.folder.file("late.yaml", manifest(site, "late", CANARY));
    plugin.folder.file("other.yaml", manifest(site, "other", CANARY));
    plugin.folder.file("wide.yaml", manifest(site, "wide", CANARY));
    // One that is kept, and delivered by one who may.
    plugin.run(&[&seal[..2], &["wide.yaml", "--no-delivery"], &seal[3..]].concat()).await.ok();
    plugin.run(&seal).await.ok();
    for file in ["db.yaml", "none.yaml", "other.yaml", "wide.yaml"] {
        plugin.kubectl(&["apply", "-f", file], b"").await.ok();
    }
    site.apply("other", json!({"name": "OTHER", "value": site_sealed(&premises, "other").await})).await;
    for name in ["db", "other", "wide"] {
        site.in_step(name).await;
    }
    site.served("none").await;
    let before = site.get("db").await;
    let text = plugin.folder.read("db.yaml");
    let current = reseal("db.yaml").await;
    assert_eq!(current.ok(), format!("db.yaml: already current: {}/db\n", site.namespace));
    assert_eq!(plugin.folder.read("db.yaml"), text);

    running.stop().await;
    replace_the_sealing_key(&premises).await;
    let running = premises.start(premises.setup()).await;
    let new = poll("the new key to be published", PATIENCE, || async {
        let key = public_key_of(&site.client, operator_namespace).await;
        Ok((key.key_id() != old.key_id()).then_some(key))
    })
    .await
    .unwrap();
    for name in ["db", "other", "wide"] {
        site.in_step(name).await;
    }

    // Without the permission to read the Secret, the command says so, and the file stays.
    let rules: &[(&[&str], &str, &str)] =
        &[(&["get"], "", "configmaps"), (&["get"], "managedsecrets.dev", "managedsecrets")];
    let user = user_with(site, rules).await;
    let refused = plugin.impersonating(&user);
    let file = refused.folder.file("db.yaml", &text);
    let ran = refused.run(&["reseal", "-f", &file, "--operator-namespace", operator_namespace]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let says = format!(
        "skipped {0}/db: its Secret cannot be read: permission denied: check `kubectl auth can-i get secrets/db -n \
         {0}`",
        site.namespace
    );
    assert!(ran.out.contains(&says), "{ran:?}");
    assert_eq!(refused.folder.read("db.yaml"), text);

    a_value_inside_another_document_is_named_and_stays(&plugin, &text, operator_namespace).await;

    // All at once: what can be done is done, what cannot is told.
    let ran = reseal(".").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    for line in [
        format!("./db.yaml: resealed {}/db", site.namespace),
        format!("./wide.yaml: resealed {}/wide", site.namespace),
        format!("./late.yaml: skipped {}/late: it is not on the cluster", site.namespace),
        format!("./none.yaml: skipped {}/none: it is delivered to no Secret (delivery: None)", site.namespace),
        format!("./other.yaml: skipped {}/other: the cluster has another value", site.namespace),
    ] {
        assert!(ran.out.contains(&line), "{line}: {ran:?}");
    }
    assert!(ran.err.ends_with("error: 3 values were not resealed; see above\n"), "{ran:?}");
    assert!(!format!("{ran:?}").contains(CANARY));
    let resealed = plugin.folder.read("db.yaml");
    assert_eq!(text.replace(&value_of(&text), ""), resealed.replace(&value_of(&resealed), ""));
    for (file, handling) in [("db.yaml", Handling::Deliverable), ("wide.yaml", Handling::Kept)] {
        let sealed = Sealed::parse(&value_of(&plugin.folder.read(file))).unwrap();
        assert_eq!((sealed.key_id(), sealed.handling()), (new.key_id(), handling), "{file}");
    }

    // Applied, it is no new value.
    plugin.kubectl(&["apply", "-f", "db.yaml"], b"").await.ok();
    let after = site.in_step("db").await;
    assert_eq!(after.spec.value.as_ref().unwrap().0, value_of(&resealed));
    assert_eq!(moved(&after), moved(&before));
    site.delivers("db", "value", CANARY).await;

    // What another program wrote into the Secret is never sealed: it is not the object's value.
    running.kill().await;
    plugin.folder.file("db.yaml", &text);
    site.apply("db", json!({"name": "DB", "value": value_of(&text)})).await;
    let ran = reseal("db.yaml").await;
    assert!(ran.code == 1 && ran.out.contains("it is not up to date"), "{ran:?}");
    plugin.folder.file("wide.yaml", manifest(site, "wide", &site.get("wide").await.spec.value.unwrap().0));
    site.intrude("wide", json!({"stringData": {"value": "forged"}})).await;
    let ran = reseal("wide.yaml").await;
    assert!(ran.code == 1 && ran.out.contains("its Secret wide differs from what the operator wrote"), "{ran:?}");
}

/// Another value for an object, sealed for the premises' key.
async fn site_sealed(premises: &Premises, name: &str) -> String {
    let key = public_key_of(&premises.site.client, &premises.operator_namespace).await;
    crate::integration::objects::sealed(&key, &premises.site.strict(name), "another")
}

/// `text` is a manifest with a value that is sealed for the old key.
async fn a_value_inside_another_document_is_named_and_stays(plugin: &Plugin, text: &str, operator_namespace: &str) {
    let outer = format!(
        "kind: Object\napiVersion: a/v1\nmanifest: {{kind: ManagedSecret, apiVersion: managedsecrets.dev/v1alpha1, spec: \
         {{value: {}}}}}\n",
        value_of(text)
    );
    let file = plugin.folder.file("outer.yaml", &outer);
    let ran = plugin.run(&["reseal", "-f", "outer.yaml", "--operator-namespace", operator_namespace]).await;
    let says = "outer.yaml: skipped 3:81: manifest.spec.value: is the value of a ManagedSecret inside another object";
    assert!(ran.code == 1 && ran.out.contains(says), "{ran:?}");
    assert_eq!(plugin.folder.read("outer.yaml"), outer);
    std::fs::remove_file(file).unwrap();
}
