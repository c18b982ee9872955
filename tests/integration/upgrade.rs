//! An upgrade from each saved installation, and back: `tests/upgrade` has its manifests, and its objects as they were in
//! etcd.
//!
//! `OLD_PROGRAM=FILE` also runs the operator that the saved manifests belong to, after the way back. `make test` has no such
//! program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env, fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Client, Config, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    client::Body,
};
use managed_secrets::install::manifests;
use managed_secrets_api::{
    ManagedSecret, ManagedSecretStatus, crd, keys,
    record::{self, StoredRecord},
};
use managed_secrets_crypto::{
    Kek, Keyring,
    keyring::{Document, Entry, KekError, Purpose, SealingKeyStatus, State, Wrapped},
    mse1::Place,
    mss1::{Sealed, SealingKey},
    recovery::{self, Recovered, RecoveryKey},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{ControlPlane, Operator, audit::Request, poll};

use super::{
    objects::{Site, ready, sealed, status},
    operator::{PATIENCE, public_key},
    program::PROGRAM,
    witness::Witness,
};

/// The namespace of the saved ManagedSecrets.
const NAMESPACE: &str = "shop";
/// Delivered Secrets, their keys and their values, as `tests/upgrade/save.sh` makes them.
const DELIVERED: [(&str, &str, &str); 6] = [
    ("plain", "value", "plain-second-value"),
    ("legacy", "password", "adopted-value"),
    ("following", "value", "upstream-second-value"),
    ("retained", "value", "retained-value"),
    ("retaining", "value", "retaining-value"),
    ("suspended", "value", "suspended-value"),
];

/// The object whose name another one has, as a difference begins.
const WAITS: &str = "ManagedSecret conflicting/";

/// The CRD and the manifests of one version, in files.
struct Version {
    crd: PathBuf,
    manifests: PathBuf,
}

/// A cluster on which the operator is replaced.
struct Cluster {
    control_plane: ControlPlane,
    site: Site,
}

impl Cluster {
    /// One that has this version, and these objects in etcd.
    async fn with(version: &Version, objects: &Value) -> Self {
        // The garbage collector must know the CRD from the start: see `testkit::Options`.
        let options = testkit::Options { manifests: vec![version.crd.clone()], ..testkit::Options::default() };
        let control_plane = ControlPlane::start_own(&options).await.unwrap();
        control_plane.access().kubectl_ok(&["create", "namespace", NAMESPACE]).await.unwrap();
        let client = control_plane.access().admin_client().await.unwrap();
        let this = Self { control_plane, site: Site { namespace: NAMESPACE.to_owned(), client } };
        this.apply(version).await;
        this.load(objects["items"].as_array().unwrap()).await;
        this
    }

    /// What the documents tell users to do.
    async fn apply(&self, version: &Version) {
        for file in [&version.crd, &version.manifests] {
            let file = file.to_str().unwrap();
            self.control_plane.access().kubectl_ok(&["apply", "--filename", file]).await.unwrap();
        }
    }

    /// Writes objects to etcd as the API server does, so they keep uid, generation, dates, status and managed fields.
    /// Only revisions are etcd's own; each status receives those of its Secrets.
    async fn load(&self, objects: &[Value]) {
        let (owners, owned): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object["kind"] == keys::KIND);
        // Owners first: the garbage collector deletes what has none.
        for object in &owners {
            self.put(object).await;
        }
        let mut revisions = HashMap::new();
        for object in owned {
            revisions.insert(object["metadata"]["uid"].as_str().unwrap().to_owned(), self.put(object).await);
        }
        for object in owners {
            let mut object = object.clone();
            for part in ["record", "target"] {
                let part = &mut object["status"][part];
                if let Some(revision) = part["uid"].as_str().and_then(|uid| revisions.get(uid)) {
                    part["resourceVersion"] = json!(revision);
                }
            }
            // What was null stays absent.
            if let Some(status) = object["status"].as_object_mut() {
                status.retain(|_, part| !part.is_null());
            }
            self.put(&object).await;
        }
    }

    /// Writes one object to etcd, and returns its revision.
    async fn put(&self, object: &Value) -> String {
        let resource = match object["kind"].as_str().unwrap() {
            "Secret" => "secrets".to_owned(),
            "ConfigMap" => "configmaps".to_owned(),
            kind => format!("{}/{}s", keys::GROUP, kind.to_lowercase()),
        };
        let text = |field: &str| object["metadata"][field].as_str().unwrap();
        let key = format!("/registry/{resource}/{}/{}", text("namespace"), text("name"));
        let body = json!({
            "key": BASE64_STANDARD.encode(key),
            "value": BASE64_STANDARD.encode(object.to_string()),
        });
        let etcd = Config::new(self.control_plane.etcd_url().unwrap().parse().unwrap());
        let request = http::Request::post("/v3/kv/put").body(Body::from(body.to_string().into_bytes())).unwrap();
        let answer = Client::try_from(etcd).unwrap().send(request).await.unwrap();
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["header"]["revision"].as_str().unwrap().to_owned()
    }

    /// Every ManagedSecret and Secret of the namespace, as the API server returns it.
    async fn objects(&self) -> BTreeMap<String, Value> {
        let every = ListParams::default();
        let objects = self.site.objects().list(&every).await.unwrap().items;
        let secrets = self.site.secrets().list(&every).await.unwrap().items;
        let of =
            |kind: &str, name: String, object: serde_json::Result<Value>| (format!("{kind} {name}"), object.unwrap());
        let objects = objects.iter().map(|it| of(keys::KIND, it.name_any(), serde_json::to_value(it)));
        objects.chain(secrets.iter().map(|it| of("Secret", it.name_any(), serde_json::to_value(it)))).collect()
    }

    async fn statuses(&self) -> BTreeMap<String, ManagedSecretStatus> {
        let objects = self.site.objects().list(&ListParams::default()).await.unwrap().items;
        objects.iter().map(|object| (object.name_any(), status(object))).collect()
    }

    async fn start(&self, program: impl AsRef<Path>, pod: &str, flags: &[&str]) -> Operator {
        let access = self.control_plane.access();
        let kubeconfig = access.kubeconfig_for(keys::DEFAULT_OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
        let arguments = [&["--log-level=debug", "--log-format=json"], flags].concat();
        let environment = [("POD_NAME", pod), ("MANAGED_SECRETS_OPERATOR_NAMESPACE", keys::DEFAULT_OPERATOR_NAMESPACE)];
        Operator::start_with(&self.control_plane, program, &kubeconfig, &arguments, &environment).await.unwrap()
    }

    /// Waits until the leader of these operators has looked at every ManagedSecret, and stops them all.
    async fn until_all_are_seen(&self, operators: Vec<Operator>) {
        let objects = self.site.objects().list(&ListParams::default()).await.unwrap().items.len();
        let passes = |operator: &Operator| {
            let log = operator.log().unwrap();
            log.lines().filter(|line| line.contains("pass ended")).count()
        };
        poll("a pass for each object", PATIENCE, || async {
            Ok((operators.iter().map(passes).sum::<usize>() >= objects).then_some(()))
        })
        .await
        .unwrap();
        for operator in operators {
            assert_eq!(operator.stop().await.unwrap(), 0);
        }
    }

    /// Runs two replicas of today's operator until they have seen every object. Returns the requests that write to the
    /// namespace.
    async fn run_today(&self, what: &str) -> Vec<String> {
        let mark = self.control_plane.audit_mark().await.unwrap();
        let mut replicas = Vec::new();
        for pod in ["first", "second"] {
            replicas.push(self.start(PROGRAM, pod, &["--leader-elect"]).await);
        }
        self.until_all_are_seen(replicas).await;
        let requests = self.control_plane.requests_since(mark).await.unwrap();
        let user = format!("system:serviceaccount:{}:{}", keys::DEFAULT_OPERATOR_NAMESPACE, keys::OPERATOR_NAME);
        let requests: Vec<_> = requests.into_iter().filter(|request| request.username() == user).collect();
        let writes: Vec<_> = requests.iter().filter(|request| request.is_write()).collect();
        println!("{what}: {} requests of two replicas, {} of them writes", requests.len(), writes.len());
        let there = |request: &&&Request| request.object().namespace == NAMESPACE;
        writes.iter().filter(there).map(|request| request.summary()).collect()
    }
}

/// Everything that a user does to a secret, in a namespace where each has been upgraded.
async fn change_all(cluster: &Cluster, witness: &Witness) {
    let site = &cluster.site;
    let ids = cluster.statuses().await;
    let operator = cluster.start(PROGRAM, "third", &["--leader-elect"]).await;
    let merge = async |name: &str, spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        site.objects().patch(name, &PatchParams::default(), &patch).await.unwrap();
    };
    // What was sealed and encrypted before can be opened.
    merge("undelivered", json!({"delivery": null})).await;
    site.delivers("undelivered", "value", "undelivered-value").await;
    merge("suspended", json!({"suspend": null})).await;
    site.delivers("suspended", "value", "suspended-later-value").await;
    // What was retained keeps its identity.
    site.apply(
        "retained",
        json!({"name": "RETAINED", "value": site_seal(site, "retained", "retained-later-value").await}),
    )
    .await;
    site.delivers("retained", "value", "retained-later-value").await;
    assert_eq!(site.served("retained").await.status.unwrap().version, Some(2), "a second version of the same secret");
    // A new value, of each kind.
    merge("plain", json!({"value": site_seal(site, "plain", "plain-third-value").await})).await;
    site.delivers("plain", "value", "plain-third-value").await;
    let upstream = json!({"stringData": {"token": "upstream-third-value"}});
    site.secrets().patch("upstream", &PatchParams::default(), &Patch::Merge(upstream)).await.unwrap();
    site.delivers("following", "value", "upstream-third-value").await;
    // Earlier values, where the version kept them.
    if ids.contains_key("earlier") {
        merge("earlier", json!({"version": 2})).await;
        site.delivers("earlier", "value", "earlier-value-2").await;
        merge("pinned", json!({"version": null})).await;
        site.delivers("pinned", "value", "pinned-second-value").await;
    }
    // A name that becomes free.
    merge("generated", json!({"name": "GENERATED_ELSEWHERE"})).await;
    site.served("conflicting").await;
    site.delivers("conflicting", "value", "conflicting-value").await;
    for (name, before) in ids {
        let now = site.served(&name).await;
        let now = status(&now);
        assert!(before.id.is_none() || now.id == before.id, "{name}");
        assert!(before.created_date.is_none() || now.created_date == before.created_date, "{name}");
    }
    assert_eq!(operator.stop().await.unwrap(), 0);
    // A pod has read the old values and then the new ones, and no other, from the same Secrets.
    for (secret, key, values) in [
        ("plain", "value", vec!["plain-second-value", "plain-third-value"]),
        ("legacy", "password", vec!["adopted-value"]),
        ("following", "value", vec!["upstream-second-value", "upstream-third-value"]),
        ("retained", "value", vec!["retained-value", "retained-later-value"]),
        ("suspended", "value", vec!["suspended-value", "suspended-later-value"]),
    ] {
        let expected: Vec<_> = values.into_iter().map(|value| Some(value.to_owned())).collect();
        assert_eq!(witness.values(secret, key).await, expected, "{secret}");
        assert_eq!(witness.uids(secret).await.len(), 1, "{secret}");
    }
}

async fn site_seal(site: &Site, name: &str, value: &str) -> String {
    sealed(&public_key(&site.client).await, &site.strict(name), value)
}

/// Makes the API server store each object again, which drops fields that the CRD does not have.
async fn store_again(site: &Site) {
    for object in site.objects().list(&ListParams::default()).await.unwrap().items {
        let touch = Patch::Merge(json!({"metadata": {"annotations": {"touched": "yes"}}}));
        let touched: ManagedSecret =
            site.objects().patch(&object.name_any(), &PatchParams::default(), &touch).await.unwrap();
        // And the status, which has an endpoint of its own.
        let same = Patch::Merge(json!({"status": touched.status}));
        site.objects().patch_status(&object.name_any(), &PatchParams::default(), &same).await.unwrap();
    }
}

/// The paths of what differs between objects, with what it was and is: no value that is delivered.
fn differences(before: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> Vec<String> {
    fn walk(path: &str, before: Option<&Value>, now: Option<&Value>, found: &mut Vec<String>) {
        match (before, now) {
            (Some(Value::Object(before)), Some(Value::Object(now))) => {
                for field in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
                    walk(&format!("{path}/{field}"), before.get(field), now.get(field), found);
                }
            }
            _ if before == now || path.ends_with("/managedFields") => {}
            _ if path.contains("/data/") || path.contains("/value") => found.push(path.to_owned()),
            _ => found.push(format!("{path}: {before:?} → {now:?}")),
        }
    }
    let mut found = Vec::new();
    for name in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        walk(name, before.get(name), now.get(name), &mut found);
    }
    found
}

/// Folders below `tests/upgrade`.
fn saved() -> Vec<PathBuf> {
    let entries = fs::read_dir(testkit::root().join("tests/upgrade")).unwrap();
    let folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    assert!(!folders.is_empty());
    folders
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_the_way_back_change_no_secret() {
    let folder = TempDir::new().unwrap();
    let today = Version { crd: folder.path().join("crd.json"), manifests: folder.path().join("manifests.yaml") };
    fs::write(&today.crd, serde_json::to_string(&crd::crd()).unwrap()).unwrap();
    fs::write(&today.manifests, manifests::print(&manifests::Options::default()).unwrap()).unwrap();
    for saved in saved() {
        let what = saved.file_name().unwrap().to_string_lossy().into_owned();
        let old = Version { crd: saved.join("crd.yaml"), manifests: saved.join("manifests.yaml") };
        let objects = fs::read_to_string(saved.join("objects.yaml")).unwrap();
        let cluster = Cluster::with(&old, &serde_saphyr::from_str(&objects).unwrap()).await;
        let before = cluster.objects().await;
        let witness = Witness::of(&cluster.site).await;

        cluster.apply(&today).await;
        let writes = cluster.run_today(&format!("upgrade from {what}")).await;
        // An object that waits reports `Stalled` after some time, so its status is the only one that may change.
        let mut differences = differences(&before, &cluster.objects().await);
        differences.retain(|difference| !difference.starts_with(WAITS));
        assert_eq!(differences, [""; 0]);
        assert!(writes.iter().all(|write| write.contains("/conflicting/status")), "{writes:#?}");
        assert_eq!(ready(&cluster.site.get("conflicting").await), ("False".to_owned(), "NameInUse".to_owned()));
        for (secret, key, value) in DELIVERED {
            assert_eq!(cluster.site.value(secret, key).await.as_deref(), Some(value), "{secret}");
        }
        change_all(&cluster, &witness).await;

        let (statuses, states) = (cluster.statuses().await, witness.states().await.len());
        cluster.apply(&old).await;
        store_again(&cluster.site).await;
        if let Some(program) = env::var_os("OLD_PROGRAM") {
            let operator = cluster.start(PathBuf::from(program), "old", &[]).await;
            cluster.until_all_are_seen(vec![operator]).await;
        }
        cluster.apply(&today).await;
        cluster.run_today(&format!("upgrade from {what} again")).await;
        for (name, status) in &statuses {
            let object = cluster.site.get(name).await;
            assert_eq!(ready(&object), ("True".to_owned(), "Served".to_owned()), "{name}");
            assert_eq!(object.status.as_ref(), Some(status), "{name}");
        }
        assert_eq!(witness.states().await[states..], [], "no Secret has changed");
        cluster.control_plane.stop().await.unwrap();
    }
}

/// Records of an earlier version move to another seed, without a cluster: each opens to the value that it had, with the keyring
/// and with the recovery key alone. So does the sealed text, after another sealing key was published.
#[test]
fn saved_records_and_sealed_text_open_after_their_keys_were_replaced() {
    for saved in saved() {
        let objects: Value = serde_saphyr::from_str(&fs::read_to_string(saved.join("objects.yaml")).unwrap()).unwrap();
        let secrets: Vec<Secret> = objects["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["kind"] == "Secret")
            .map(|secret| serde_json::from_value(secret.clone()).unwrap())
            .collect();
        let of_type = |type_: &'static str| secrets.iter().filter(move |it| it.type_.as_deref() == Some(type_));
        let data = |secret: &Secret, key: &str| secret.data.as_ref().unwrap()[key].0.clone();
        let kek = Kek::new(&data(of_type(keys::TYPE_KEK).next().unwrap(), keys::KEK_DATA_KEY)).unwrap();
        let keyring = data(of_type(keys::TYPE_KEYRING).next().unwrap(), keys::KEYRING_DATA_KEY);
        let mut document: Document = serde_json::from_slice(&keyring).unwrap();
        let open = |document: &Document| {
            Keyring::open([document], |wrapped: &Wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap()
        };
        let before = open(&document);
        let wrap = |bytes: &[u8]| {
            let Wrapped { provider, key_id, .. } = document.entries[0].wrapped.clone();
            Ok::<_, KekError>(Wrapped::new(provider, key_id, kek.wrap(bytes)?))
        };
        let mut changed = document.clone();
        let new = changed.add_seed(jiff::Timestamp::now(), wrap).unwrap();
        assert!(changed.activate_seed(new));
        // A new sealing key, and the earlier ones open only.
        let is_sealing = |entry: &&mut Entry| entry.purpose == Purpose::Sealing;
        changed.entries.iter_mut().filter(is_sealing).for_each(|entry| entry.state = State::OpenOnly);
        let made = Keyring::generate_entries(jiff::Timestamp::now(), wrap).unwrap().entries;
        changed.entries.extend(made.into_iter().filter(|entry| entry.purpose == Purpose::Sealing));
        document = changed;
        let after = open(&document);
        assert_eq!(after.active_seed().unwrap().id(), new);
        assert_ne!(after.current_public_key().unwrap().key.key_id(), before.current_public_key().unwrap().key.key_id());
        let recovery_key = RecoveryKey::generate().unwrap();
        assert!(recovery::cover(&mut document, &after, &[recovery_key.recipient()]).unwrap());
        let recovered = Recovered::open(&recovery_key, [&document]);

        let mut texts = 0;
        for object in objects["items"].as_array().unwrap() {
            let Some(text) = object["spec"]["value"].as_str() else { continue };
            let (namespace, name) = (&object["metadata"]["namespace"], &object["metadata"]["name"]);
            let sealed = Sealed::parse(text).unwrap();
            let SealingKeyStatus::Usable(key) = after.sealing_key(sealed.key_id()) else { panic!("{name}: its key") };
            let open =
                |key: &SealingKey| sealed.open(key, namespace.as_str().unwrap(), name.as_str().unwrap()).unwrap();
            assert!(open(key).same_as(&open(recovered.sealing_key(sealed.key_id()).unwrap())), "{name}");
            texts += 1;
        }
        assert!(texts > 3, "{texts}");
        let mut records = 0;
        for secret in of_type(keys::TYPE_RECORD) {
            let namespace = secret.metadata.namespace.as_deref().unwrap();
            let stored = StoredRecord::of(&secret.metadata).unwrap();
            let place = Place { namespace, object: &stored.meta.owner };
            let bytes = data(secret, keys::RECORD_DATA_KEY);
            let value = |bytes: &[u8], keyring: &Keyring| {
                record::open(bytes, &place, &stored.meta, &stored.commitment, |id| keyring.seed(id)).unwrap().value
            };
            let expected = value(&bytes, &before);
            let held = secret.data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
            let rewrapped = stored.rewrap(namespace, held, |id| after.seed(id), after.active_seed().unwrap()).unwrap();
            // Earlier values, too: one that does not open would be left out.
            let held: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key).collect();
            assert_eq!(rewrapped.data.keys().collect::<Vec<_>>(), held, "{}", secret.name_any());
            let moved = &rewrapped.data[keys::RECORD_DATA_KEY];
            assert_eq!(moved.seed_id(), new);
            assert!(value(moved.as_bytes(), &after).same_as(&expected), "{}", secret.name_any());
            for bytes in [bytes.as_slice(), moved.as_bytes()] {
                let opened =
                    record::open(bytes, &place, &stored.meta, &stored.commitment, |id| recovered.seed(id)).unwrap();
                assert!(opened.value.same_as(&expected), "{}", secret.name_any());
            }
            // What was not moved opens as before, and after a downgrade.
            assert!(value(&bytes, &after).same_as(&expected), "{}", secret.name_any());
            records += 1;
        }
        assert!(records > 5);
    }
}

/// Sealed text of an earlier version opens after its sealing key was replaced, and after it was retired and reinstated.
#[test]
fn saved_sealed_text_opens_after_its_key_was_replaced() {
    for saved in saved() {
        let objects: Value = serde_saphyr::from_str(&fs::read_to_string(saved.join("objects.yaml")).unwrap()).unwrap();
        let (secrets, owners): (Vec<_>, Vec<_>) =
            objects["items"].as_array().unwrap().iter().partition(|it| it["kind"] == "Secret");
        let data = |type_: &str, key: &str| {
            let secret = secrets.iter().find(|secret| secret["type"] == type_).unwrap();
            BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap()
        };
        let kek = Kek::new(&data(keys::TYPE_KEK, keys::KEK_DATA_KEY)).unwrap();
        let before: Document = serde_json::from_slice(&data(keys::TYPE_KEYRING, keys::KEYRING_DATA_KEY)).unwrap();
        let mut document = before.clone();
        let Wrapped { provider, key_id, .. } = document.entries[0].wrapped.clone();
        let wrap = |bytes: &[u8]| Ok::<_, KekError>(Wrapped::new(provider, key_id, kek.wrap(bytes)?));
        let now = jiff::Timestamp::now();
        let old = before.sealing_keys().next().unwrap().sealing_key_id().unwrap();
        let new = document.add_sealing_key(now, wrap).unwrap();
        assert!(document.activate_sealing_key(new) && document.retire_sealing_key(old, now));
        assert!(document.reinstate_sealing_key(old));

        let open = |document: &Document| {
            Keyring::open([document], |wrapped: &Wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap()
        };
        let (before, after) = (open(&before), open(&document));
        assert_eq!(after.current_public_key().unwrap().key.key_id(), new);
        let mut texts = 0;
        for owner in owners.iter().filter(|it| it["kind"] == keys::KIND) {
            let Some(text) = owner["spec"]["value"].as_str() else { continue };
            let name = owner["metadata"]["name"].as_str().unwrap();
            let sealed = Sealed::parse(text).unwrap();
            assert_eq!((sealed.key_id(), Sealed::key_named(text)), (old, Some(old)));
            let value = |keyring: &Keyring| match keyring.sealing_key(old) {
                SealingKeyStatus::Usable(key) => sealed.open(key, NAMESPACE, name).unwrap(),
                other => panic!("{other:?}"),
            };
            assert!(value(&after).same_as(&value(&before)), "{name}");
            texts += 1;
        }
        assert!(texts > 3, "{texts}");
    }
}
