//! What README, guide and operations page say, done: every block marked `sh` is run as it is printed, in order, with the
//! real kubectl, our program, and an operator in its own process with the rights of the shipped manifests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets_api::keys;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{
    ControlPlane, Operator,
    control_plane::{blocking, quiet_address},
    poll,
};
use testkit::{
    markdown::{Block, Document},
    root,
};

use super::installation::{OPERATOR_NAMESPACE, PATIENCE, install, options};

/// Our program, as cargo built it.
const PROGRAM: &str = env!("CARGO_BIN_EXE_managed-secrets");

/// A folder to work in, with the examples in it; removed in the end.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(root().join("examples"), folder.path().join("examples")).unwrap();
        Self(folder)
    }

    /// The same, with the manifests and the CRD, for pages that write into neither folder.
    fn with_manifests() -> Self {
        let folder = Self::new();
        for shipped in ["deploy", "crds"] {
            symlink(root().join(shipped), folder.path().join(shipped)).unwrap();
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path().join(name)).unwrap()).unwrap()
    }
}

/// A document whose blocks are run, section by section.
struct Story {
    sections: BTreeMap<String, Vec<Block>>,
    order: Vec<String>,
}

impl Story {
    fn read(path: &str) -> Self {
        let document = Document::read(path).unwrap();
        let mut sections = BTreeMap::<String, Vec<Block>>::new();
        for block in document.blocks.into_iter().filter(|block| block.language == "sh") {
            sections.entry(block.section.clone()).or_default().push(block);
        }
        let order = document.headings.into_iter().filter(|heading| sections.contains_key(heading)).collect();
        Self { sections, order }
    }

    /// Runs the blocks of a section, all in one shell, and returns what they printed.
    async fn run(&mut self, section: &str, folder: &Folder, plane: &ControlPlane) -> String {
        self.order.retain(|left| left != section);
        let blocks = self.sections.remove(section).unwrap_or_else(|| panic!("there is no section {section} to run"));
        let script: String = blocks.iter().map(|block| block.text.as_str()).collect();
        bash(section, &script, folder.path(), plane).await
    }

    /// Runs every section that is left, in order.
    async fn run_all(&mut self, folder: &Folder, plane: &ControlPlane) {
        while let Some(section) = self.order.first().cloned() {
            self.run(&section, folder, plane).await;
        }
    }

    /// Every block of the document has been run, but those that another test runs.
    fn end(mut self, elsewhere: &[&str]) {
        for section in elsewhere {
            assert!(self.sections.remove(*section).is_some(), "there is no section {section}");
        }
        assert!(self.sections.is_empty(), "never run: {:?}", self.sections.keys());
    }
}

/// Runs a script as a reader would: kubectl and our program in the path, one kubeconfig, nothing on standard input.
async fn bash(title: &str, script: &str, folder: &Path, plane: &ControlPlane) -> String {
    let access = plane.access();
    let programs = [access.kubectl_path(), Path::new(PROGRAM)].map(|program| program.parent().unwrap().to_owned());
    let jq = blocking(testkit::binaries::jq_folder).await.unwrap();
    let others = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(programs.into_iter().chain([jq]).chain(env::split_paths(&others))).unwrap();
    let mut command = Command::new("bash");
    command.args(["-e", "-u", "-o", "pipefail", "-x", "-c", script]).current_dir(folder).stdin(Stdio::null());
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("MANAGED_SECRETS_")) {
        command.env_remove(name);
    }
    command.env("PATH", path).env("KUBECONFIG", access.kubeconfig_path()).env("KUBERC", "off").env("HOME", folder);
    let output = blocking(move || Ok(command.output().unwrap())).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{title}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The operator as the installed Deployment would run it, but without webhooks.
async fn operator(plane: &ControlPlane) -> Operator {
    operator_with(plane, &[]).await
}

/// With webhooks, which the API server reaches by a URL: there is no network of pods.
async fn operator_with_webhooks(plane: &ControlPlane) -> Operator {
    let address = quiet_address().unwrap();
    let (listen, url) = (format!("--webhook-listen={address}"), format!("--webhook-url=https://{address}"));
    let operator = operator_with(plane, &[&listen, &url]).await;
    let probe = json!({
        "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
        "metadata": {"name": "probe", "namespace": "default"}, "spec": {"name": "PROBE", "value": "probe"},
    });
    poll("the API server to call the webhook", PATIENCE, || async {
        let create = ["create", "--dry-run=server", "-f", "-"];
        let answer = plane.access().kubectl_with_input(&create, &probe.to_string()).await?;
        Ok(answer.status.success().then_some(()))
    })
    .await
    .unwrap();
    operator
}

async fn operator_with(plane: &ControlPlane, arguments: &[&str]) -> Operator {
    let kubeconfig = plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let operator = Operator::start(plane, PROGRAM, &kubeconfig, arguments).await.unwrap();
    poll("the operator to publish the sealing key", PATIENCE, || async {
        let map = ["-n", OPERATOR_NAMESPACE, "get", "configmap", keys::PUBLIC_KEY_CONFIGMAP];
        Ok(plane.access().kubectl(&map).await?.status.success().then_some(()))
    })
    .await
    .unwrap();
    operator
}

/// Of each ManagedSecret: id, dates and version, and the value that its target holds.
async fn secrets(plane: &ControlPlane) -> BTreeMap<String, Value> {
    let access = plane.access();
    let get = ["get", "msec", "--all-namespaces", "-o", "json"];
    let objects: Value = serde_json::from_str(&access.kubectl_ok(&get).await.unwrap()).unwrap();
    let mut secrets = BTreeMap::new();
    for object in objects["items"].as_array().unwrap() {
        let (status, name) = (&object["status"], object["metadata"]["name"].as_str().unwrap());
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        let target = status["target"]["name"].as_str().unwrap_or_default();
        let value = if target.is_empty() {
            Value::Null
        } else {
            let get = ["-n", namespace, "get", "secret", target, "-o", "json"];
            let secret: Value = serde_json::from_str(&access.kubectl_ok(&get).await.unwrap()).unwrap();
            secret["data"].clone()
        };
        let fields = ["id", "name", "createdDate", "updatedDate", "valueUpdatedTime", "version", "deletionPolicy"];
        let mut kept: serde_json::Map<_, _> = fields.iter().map(|&f| (f.to_owned(), status[f].clone())).collect();
        assert!(kept.values().all(|field| !field.is_null()), "{namespace}/{name}: {status}");
        kept.insert("data".to_owned(), value);
        secrets.insert(format!("{namespace}/{name}"), kept.into());
    }
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn readme_and_guide_can_be_followed() {
    let (folder, plane) = (Folder::new(), install(&options(), &[]).await.unwrap());
    let mut readme = Story::read("README.md");
    readme.run("Install", &folder, &plane).await;
    let operator = operator_with_webhooks(&plane).await;
    let printed = readme.run("Use", &folder, &plane).await;
    assert!(printed.contains("WEATHER_API_KEY") && printed.contains("only-an-example"), "{printed}");
    readme.end(&[]);

    let mut guide = Story::read("docs/guide.md");
    for (section, says) in [
        ("Generate a value", "session-key condition met"),
        ("Apply a plain value", "condition met\n1"),
        ("Seal a value", "condition met\n1"),
        ("Follow another Secret", "another-example"),
        ("Use the value in a pod", "api-key condition met"),
        ("Choose how the Secret looks", "kubernetes.io/basic-auth"),
        ("Deliver into a Secret that exists", "password username"),
        ("Keep a value without delivering it", "break-glass condition met"),
        ("Find a secret", "WEATHER_API_KEY"),
        ("Change the value or the description", "condition met\n2"),
        ("Rotate", "version 2"),
        ("Rename", "condition met"),
        ("Delete", "\"session-key\" deleted"),
    ] {
        if section == "Delete" {
            guide.run("Pause", &folder, &plane).await;
        }
        let printed = guide.run(section, &folder, &plane).await;
        assert!(printed.contains(says), "{section}: {printed}");
    }
    guide.run_all(&folder, &plane).await;
    guide.end(&[]);
    assert_eq!(operator.stop().await.unwrap(), 0);
    plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_about_installation_and_upgrade_can_be_followed() {
    let (folder, plane) =
        (Folder::with_manifests(), ControlPlane::start_own(&testkit::Options::default()).await.unwrap());
    let (mut installation, mut upgrade) = (Story::read("docs/install.md"), Story::read("docs/upgrade.md"));
    let printed = installation.run("Plain manifests", &folder, &plane).await;
    assert!(printed.contains("deployment.apps/managed-secrets created"), "{printed}");
    let printed = installation.run("kustomize", &folder, &plane).await;
    assert!(printed.contains("deployment.apps/managed-secrets configured"), "{printed}");
    let get = ["-n", OPERATOR_NAMESPACE, "get", "deployment", "managed-secrets", "-o", "json"];
    let deployment: Value = serde_json::from_str(&plane.access().kubectl_ok(&get).await.unwrap()).unwrap();
    assert_eq!(deployment["spec"]["replicas"], 3);
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "registry.example.com/managed-secrets:0.1.0");
    let printed = upgrade.run("Steps", &folder, &plane).await;
    assert!(printed.contains("customresourcedefinition.apiextensions.k8s.io/managedsecrets.managedsecrets.dev"));
    upgrade.run("Go back to an earlier version", &folder, &plane).await;
    installation.run("Serve some namespaces only", &folder, &plane).await;
    let file = fs::read_to_string(folder.path().join("manifests.yaml")).unwrap();
    assert!(file.contains("namespace: shop") && file.contains("--namespace=shop"), "{file}");
    installation.end(&["Uninstall"]);
    upgrade.end(&[]);
    plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_git_can_be_followed() {
    let (folder, plane) = (Folder::new(), install(&options(), &[]).await.unwrap());
    let operator = operator(&plane).await;
    bash("a repository", "git init --quiet", folder.path(), &plane).await;
    let mut git = Story::read("docs/git.md");
    for (section, says) in [
        ("The public key", "SHA-256:"),
        ("Seal files", "deploy/weather.yaml: sealed shop/weather-api-key"),
        ("Turn Secrets into ManagedSecrets", ""),
        ("Check manifests", ""),
        ("Other documents", "mss1."),
        ("Check overlays", "weather.yaml: sealed test/weather-api-key"),
        ("Refuse plaintext in commits", ""),
        ("Say what a change would do", "shop/weather-api-key: unchanged"),
        ("Seal again for a new key", "deploy/weather.yaml: already current: shop/weather-api-key"),
    ] {
        let printed = git.run(section, &folder, &plane).await;
        assert!(printed.contains(says), "{section}: {printed}");
    }
    git.end(&[]);
    assert_eq!(operator.stop().await.unwrap(), 0);
    plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugins_page_can_be_followed() {
    let (folder, plane) = (Folder::new(), install(&options(), &[]).await.unwrap());
    let operator = operator(&plane).await;
    bash("a namespace", "kubectl create namespace shop", folder.path(), &plane).await;
    let mut page = Story::read("docs/kubectl-msec.md");
    for (section, says) in [
        ("Create", "managedsecret.managedsecrets.dev/db-password created"),
        ("Find and describe", "WEATHER_API_KEY\t"),
        ("Read a value", "only-an-example"),
        ("Change", "OPENWEATHER_KEY"),
        ("Delete", "deleted"),
        ("Export to Git", "shop/weather-api-key: unchanged"),
        ("Keys", "asked the operator to rotate sealing"),
    ] {
        let printed = page.run(section, &folder, &plane).await;
        assert!(printed.contains(says), "{section}: {printed}");
    }
    page.end(&[]);
    assert_eq!(operator.stop().await.unwrap(), 0);
    plane.stop().await.unwrap();
}

/// Sections of the operations page.
const BACK_UP_BY_HAND: &str = "Back up without the plugin";
const RESTORE_BY_HAND: &str = "Restore without the plugin";
const RESTORE_HERE: &str = "Restore where the operator is installed";
const LOST_KEYS: &str = "When keys are lost";

/// What `secrets` must find again, one of each kind: sealed, generated, followed, adopted, undelivered, retained.
const ESTATE: &str = r"
kubectl create namespace shop
kubectl create namespace prod
for example in generate value-from adoption delivery-none target; do kubectl -n shop apply -f examples/$example.yaml; done
kubectl -n prod apply -f examples/retain.yaml
kubectl apply -f - <<YAML
apiVersion: managedsecrets.dev/v1alpha1
kind: ManagedSecret
metadata: {name: sealed, namespace: prod}
spec: {name: SEALED, value: $(printf %s 'only-an-example' | managed-secrets seal --namespace prod --name sealed)}
YAML
kubectl wait --for=condition=Ready msec --all --all-namespaces --timeout=60s
";

/// A Secret with our label that something else than a ManagedSecret owns, such as a copy.
const OTHER_OWNER: &str = r"
kubectl -n prod create configmap other
uid=$(kubectl -n prod get configmap other -o jsonpath='{.metadata.uid}')
kubectl -n prod create -f - <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: copy
  labels: {managedsecrets.dev/role: target}
  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: other, uid: $uid}]
YAML
";

const REINSTALL: &str = "
managed-secrets crd | kubectl apply -f -
managed-secrets manifests --image registry.example.com/managed-secrets:0.1.0 | kubectl apply -f -
kubectl wait --for=condition=Established crd/managedsecrets.managedsecrets.dev --timeout=60s
";

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_restores_every_secret_in_another_cluster() {
    let folder = Folder::new();
    let (mut operations, mut installation) = (Story::read("docs/operations.md"), Story::read("docs/install.md"));

    let first = install(&options(), &[]).await.unwrap();
    installation.run("Plain manifests", &folder, &first).await;
    operations.run("A KEK outside etcd", &folder, &first).await;
    let running = operator(&first).await;
    bash("the estate", ESTATE, folder.path(), &first).await;
    let before = secrets(&first).await;
    assert_eq!(before.len(), 7, "{:?}", before.keys());
    operations.run("Back up", &folder, &first).await;
    operations.run(BACK_UP_BY_HAND, &folder, &first).await;
    for file in ["keys.json", "secrets.json"] {
        let items = folder.json(file)["items"].clone();
        assert!(items.as_array().unwrap().iter().all(|item| item["metadata"]["ownerReferences"].is_null()), "{file}");
    }
    assert_eq!(folder.json("keys.json")["items"].as_array().unwrap().len(), 2);
    // Another owner reference holds nothing up.
    bash("another owner", OTHER_OWNER, folder.path(), &first).await;
    let printed = installation.run("Uninstall", &folder, &first).await;
    assert!(printed.contains("prod\t"), "what is retained is listed: {printed}");
    assert_eq!(running.stop().await.unwrap(), 0);
    // Installed again, the operator has its keys, and what was retained is taken over.
    bash("the same installation", REINSTALL, folder.path(), &first).await;
    let running = operator(&first).await;
    let retained = "kubectl -n prod apply -f examples/retain.yaml
        kubectl -n prod wait --for=condition=Ready msec --all --timeout=60s";
    bash("a retained secret", retained, folder.path(), &first).await;
    let after = secrets(&first).await;
    assert_eq!(after.len(), 1, "{:?}", after.keys());
    for (name, secret) in after {
        assert_eq!(before[&name], secret, "{name}");
    }
    assert_eq!(running.stop().await.unwrap(), 0);
    first.stop().await.unwrap();

    // The source of a `valueFrom`, and the other keys of an adopted Secret, are for their owners to restore.
    let upstream = "kubectl create namespace shop; kubectl -n shop create secret generic upstream --from-literal=token=only-an-example";
    let legacy = "kubectl -n shop create secret generic legacy --from-literal=username=shop";
    let crds = || testkit::Options { manifests: vec![root().join("crds")], ..testkit::Options::default() };

    let second = ControlPlane::start_own(&crds()).await.unwrap();
    bash("what others restore", &format!("{upstream}; {legacy}"), folder.path(), &second).await;
    operations.run("Restore", &folder, &second).await;
    let running = operator(&second).await;
    // There are no nodes: what the Deployment of a running operator would report.
    let available = "kubectl -n managed-secrets-system patch deployment managed-secrets --subresource=status \
        --type=merge -p '{\"status\": {\"replicas\": 2, \"readyReplicas\": 2, \"availableReplicas\": 2}}'";
    bash("an available replica", available, folder.path(), &second).await;
    let again = bash("the same once more", "kubectl msec restore backup/ --yes", folder.path(), &second).await;
    assert!(again.contains("7 secrets are delivered with the backup's ids, dates and versions"), "{again}");
    is_as_it_was(&before, running, second, &folder).await;

    let third = ControlPlane::start_own(&crds()).await.unwrap();
    bash("what others restore", upstream, folder.path(), &third).await;
    operations.run(RESTORE_BY_HAND, &folder, &third).await;
    // Targets need not be in a backup.
    bash("a lost target", "kubectl -n shop delete secret session-key", folder.path(), &third).await;
    operations.end(&[RESTORE_HERE, LOST_KEYS]);
    let running = operator(&third).await;
    is_as_it_was(&before, running, third, &folder).await;
}

/// Everything is served as before, and belongs to whom it belonged; ends the control plane.
async fn is_as_it_was(before: &BTreeMap<String, Value>, running: Operator, plane: ControlPlane, folder: &Folder) {
    let served = "kubectl wait --for=condition=Ready msec --all --all-namespaces --timeout=60s";
    bash("the restored estate", served, folder.path(), &plane).await;
    assert_eq!(secrets(&plane).await, *before);

    // What the operator had made is its own again, and goes with its owner; what it had adopted stays.
    let removal = "kubectl -n shop delete msec registry-password legacy-password
        kubectl -n shop wait --for=delete secret/registry-login --timeout=60s
        kubectl -n shop get secret legacy -o jsonpath='{.data.username}'";
    bash("removal", removal, folder.path(), &plane).await;
    assert_eq!(running.stop().await.unwrap(), 0);
    plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_keys_are_restored_or_given_up() {
    let (folder, plane) = (Folder::new(), install(&options(), &[]).await.unwrap());
    let mut operations = Story::read("docs/operations.md");
    let running = operator(&plane).await;
    bash("the estate", ESTATE, folder.path(), &plane).await;
    operations.run(BACK_UP_BY_HAND, &folder, &plane).await;
    assert_eq!(running.stop().await.unwrap(), 0);

    lose(keys::TYPE_KEYRING, keys::KEYRING_NAME, &plane).await;
    operations.run(RESTORE_HERE, &folder, &plane).await;
    let mut backup = folder.json("keys.json");
    backup["items"].as_array_mut().unwrap().retain(|item| item["type"] == keys::TYPE_KEYRING);
    poll("the restorer to be known, and the keyring restored", PATIENCE, || async {
        let create = plane.access().kubectl_with_input(&["create", "-f", "-"], &backup.to_string()).await?;
        Ok(create.status.success().then_some(()))
    })
    .await
    .unwrap();
    let running = operator(&plane).await;
    // Only a program that opens the record can write it again.
    let edit = "kubectl -n shop patch msec session-key --type merge -p '{\"spec\": {\"description\": \"restored\"}}'
        kubectl -n shop wait --for=condition=Ready msec/session-key --timeout=60s";
    bash("an edit", edit, folder.path(), &plane).await;
    let before = secrets(&plane).await;
    assert_eq!(running.stop().await.unwrap(), 0);

    lose(keys::TYPE_KEK, keys::KEK_PREFIX, &plane).await;
    operations.run(LOST_KEYS, &folder, &plane).await;
    let running = operator(&plane).await;
    let reason = "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}";
    for (namespace, name, says) in [("prod", "sealed", "SealedWithUnknownKey"), ("shop", "break-glass", "RecordLost")] {
        let wait = ["-n", namespace, "wait", &format!("{reason}={says}"), &format!("msec/{name}"), "--timeout=60s"];
        plane.access().kubectl_ok(&wait).await.unwrap();
    }
    poll("the five other records to be rebuilt", PATIENCE, || async {
        let selector = format!("type={}", keys::TYPE_RECORD);
        let list = ["get", "secrets", "--all-namespaces", "--field-selector", &selector, "-o", "name"];
        Ok((plane.access().kubectl_ok(&list).await?.lines().count() == 5).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(secrets(&plane).await, before);
    assert_eq!(running.stop().await.unwrap(), 0);
    plane.stop().await.unwrap();
}

/// Removes the keys of this type; the operator then ends, and names the Secret to restore.
async fn lose(type_: &str, name: &str, plane: &ControlPlane) {
    let access = plane.access();
    let selector = format!("type={type_}");
    access.kubectl_ok(&["-n", OPERATOR_NAMESPACE, "delete", "secrets", "--field-selector", &selector]).await.unwrap();
    let kubeconfig = access.kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let operator = Operator::start(plane, PROGRAM, &kubeconfig, &[]).await.unwrap();
    assert_eq!(operator.exit_code().await.unwrap(), 1);
    let log = operator.log().unwrap();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(&format!("restore Secret {OPERATOR_NAMESPACE}/{name}")), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_rule_keeps_values_out_of_the_log() {
    let folder = Folder::new();
    let document = Document::read("docs/operations.md").unwrap();
    let rule = document.blocks.iter().find(|block| block.section == "The audit log").unwrap();
    // Whatever else is logged, is logged whole.
    let others = "- level: RequestResponse\n";
    let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{}{others}", rule.text);
    let file = folder.path().join("policy.yaml");
    fs::write(&file, policy).unwrap();
    let plane = ControlPlane::start_own(&testkit::Options {
        manifests: vec![root().join("crds")],
        apiserver_flags: vec![format!("--audit-policy-file={}", file.display())],
        ..testkit::Options::default()
    })
    .await
    .unwrap();
    let plaintext = "kubectl create secret generic audited --from-literal=key=audited-canary
        kubectl create -f - <<YAML && exit 1 || true
apiVersion: managedsecrets.dev/v1alpha1
kind: ManagedSecret
metadata: {name: audited}
spec: {name: AUDITED, value: audited-canary}
YAML
        kubectl create configmap audited --from-literal=key=another-canary";
    bash("plaintext", plaintext, folder.path(), &plane).await;
    let log = plane.audit_log().unwrap();
    let log = poll("the last request to be logged", PATIENCE, || async {
        Ok(Some(fs::read_to_string(&log).unwrap()).filter(|log| log.contains("another-canary")))
    })
    .await
    .unwrap();
    assert!(log.contains("/managedsecrets") && log.contains("/secrets"), "the requests are not in the log");
    for canary in ["audited-canary", &BASE64_STANDARD.encode("audited-canary")] {
        assert!(!log.contains(canary), "a value is in the audit log");
    }
    plane.stop().await.unwrap();
}
