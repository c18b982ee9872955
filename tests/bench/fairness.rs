//! What one namespace costs the others: `make bench-fairness`.
//!
//! ```text
//! fairness [--objects NUMBER]
//! ```
//!
//! Starts a control plane of its own and the operator, as it was built beside this one. In one namespace, many objects want
//! one name, and many follow one source. Prints what an edit of the name's holder costs, and how long an edit in another
//! namespace waits while the source changes. Then two namespaces hang: a webhook that never answers holds up every write of
//! a Secret there. Prints how long an edit in a third namespace takes beside them.

#![allow(clippy::disallowed_methods, reason = "it applies as other clients do")]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use managed_secrets_api::{ManagedSecret, keys};
use serde_json::{Value, json};
use testkit::{ControlPlane, Error, Operator, Options, Result, error::Context, poll, shared::crds};

/// The longest that any step may take.
const PATIENCE: Duration = Duration::from_secs(900);
const CROWD: &str = "crowd";
const QUIET: &str = "quiet";
const HANGING: [&str; 2] = ["hanging-1", "hanging-2"];
/// Objects of each namespace that hangs: more than the operator has workers.
const HANGING_OBJECTS: usize = 50;

#[derive(Parser)]
#[command(name = "fairness", about = "Measures what one namespace costs the others")]
struct Arguments {
    /// Objects that want one name, and as many that follow one source.
    #[arg(long, default_value_t = 2000)]
    objects: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().objects).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fairness: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(count: usize) -> Result<()> {
    let control_plane = ControlPlane::start_own(&Options { manifests: crds()?, ..Options::default() }).await?;
    let client = control_plane.access().admin_client().await?;
    for name in [CROWD, QUIET, keys::DEFAULT_OPERATOR_NAMESPACE].into_iter().chain(HANGING) {
        let namespace: Namespace = object(json!({"metadata": {"name": name}}))?;
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    }
    let here = std::env::current_exe().context("find", Path::new("this program"))?;
    let program = here.ancestors().nth(2).unwrap_or(Path::new(".")).join("managed-secrets");
    let operator = Operator::start(&control_plane, program, control_plane.access().kubeconfig_path(), &[]).await?;
    let crowd = Space { client: client.clone(), namespace: CROWD };
    let quiet = Space { client: client.clone(), namespace: QUIET };

    quiet.apply("db", generated("DB")).await?;
    crowd.apply("holder", generated("WANTED")).await?;
    crowd.until_ready("holder").await?;
    let began = Instant::now();
    crowd.apply_all(count, "waiter", |_| generated("WANTED")).await?;
    crowd.until_reason("NameInUse", count).await?;
    println!("{count} objects that want one name: told after {:.1?}", began.elapsed());

    let (before, edits) = (cpu(&operator)?, 10);
    for n in 0..edits {
        crowd.edit("holder", "WANTED", n).await?;
    }
    let used = cpu(&operator)?.saturating_sub(before);
    println!("an edit of the holder, with {count} waiters: {:.1?} of CPU", used / edits);

    let source = Api::<Secret>::namespaced(client.clone(), CROWD);
    source.create(&PostParams::default(), &object(secret("one"))?).await?;
    crowd
        .apply_all(count, "follower", |n| {
            json!({"name": format!("FOLLOWER_{n}"), "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "token"}}})
        })
        .await?;
    crowd.until_reason("Served", count + 1).await?;
    let alone = quiet.edit("db", "DB", 0).await?;
    let (before, began) = (cpu(&operator)?, Instant::now());
    source.patch("upstream", &PatchParams::default(), &Patch::Merge(secret("two"))).await?;
    let mut beside = Vec::new();
    for n in 1..6 {
        beside.push(quiet.edit("db", "DB", n).await?);
    }
    crowd.until_version(2, count).await?;
    let (took, used) = (began.elapsed(), cpu(&operator)?.saturating_sub(before));
    println!("a new value for {count} followers: {took:.1?}, {used:.1?} of CPU");
    println!("an edit in another namespace: {alone:.1?} alone; beside that, one after the other: {beside:.1?}");
    beside_what_hangs(&client, &quiet).await?;
    operator.stop().await?;
    Ok(())
}

/// Two namespaces hang while a third one is edited.
async fn beside_what_hangs(client: &Client, quiet: &Space) -> Result<()> {
    let mut alone = Vec::new();
    for n in 10..15 {
        alone.push(quiet.edit("db", "DB", n).await?);
    }
    // It accepts connections, as the kernel does for it, and never says anything.
    let silent = TcpListener::bind(("127.0.0.1", 0)).context("listen on", Path::new("127.0.0.1"))?;
    let port = silent.local_addr().context("find the port of", Path::new("127.0.0.1"))?.port();
    let webhook: MutatingWebhookConfiguration = object(json!({
        "metadata": {"name": "silent"},
        "webhooks": [{
            "name": "silent.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 30,
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/")},
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": HANGING},
            ]},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["secrets"]}],
        }],
    }))?;
    Api::all(client.clone()).create(&PostParams::default(), &webhook).await?;
    let spaces = HANGING.map(|namespace| Space { client: client.clone(), namespace });
    for space in &spaces {
        space.until_silent().await?;
        space.apply_all(HANGING_OBJECTS, "hangs", |n| generated(&format!("HANGS_{n}"))).await?;
    }
    let mut beside = Vec::new();
    for n in 20..30 {
        beside.push(quiet.edit("db", "DB", n).await?);
    }
    let mut done = 0;
    for space in &spaces {
        done += space.objects().list(&ListParams::default()).await?.items.iter().filter(|it| is_delivered(it)).count();
    }
    println!("{} objects of two namespaces hang; {done} of them were delivered", HANGING.len() * HANGING_OBJECTS);
    println!("an edit in a third namespace: {alone:.1?} alone; beside them: {beside:.1?}");
    Ok(())
}

fn is_delivered(object: &ManagedSecret) -> bool {
    object.status.as_ref().is_some_and(|status| status.target.is_some())
}

fn object<K: serde::de::DeserializeOwned>(json: Value) -> Result<K> {
    serde_json::from_value(json).map_err(|error| Error::Format { what: "an object".to_owned(), why: error.to_string() })
}

fn generated(name: &str) -> Value {
    json!({"name": name, "generate": {}})
}

fn secret(value: &str) -> Value {
    json!({"metadata": {"name": "upstream"}, "stringData": {"token": value}})
}

/// CPU time that the operator has used so far.
fn cpu(operator: &Operator) -> Result<Duration> {
    let pid = operator.log_path().with_extension("pid");
    let pid = fs::read_to_string(&pid).context("read", &pid)?;
    let path = format!("/proc/{}/stat", pid.trim());
    let stat = fs::read_to_string(&path).context("read", Path::new(&path))?;
    // After the name in brackets, user and system time are fields 14 and 15, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

struct Space {
    client: Client,
    namespace: &'static str,
}

impl Space {
    fn objects(&self) -> Api<ManagedSecret> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    async fn apply(&self, name: &str, spec: Value) -> Result<ManagedSecret> {
        let object = json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        Ok(self.objects().patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(&object)).await?)
    }

    async fn apply_all(&self, count: usize, prefix: &str, spec: impl Fn(usize) -> Value) -> Result<()> {
        let applied = (0..count).map(|n| (format!("{prefix}-{n}"), spec(n)));
        let mut applied =
            stream::iter(applied).map(|(name, spec)| async move { self.apply(&name, spec).await }).buffer_unordered(16);
        while let Some(done) = applied.next().await {
            done?;
        }
        Ok(())
    }

    /// Edits an object's description, and waits until that is in its status. Returns how long that took.
    async fn edit(&self, name: &str, wants: &str, number: u32) -> Result<Duration> {
        let began = Instant::now();
        let mut spec = generated(wants);
        spec["description"] = json!(format!("edit {number}"));
        let generation = self.apply(name, spec).await?.metadata.generation;
        poll("the edit", PATIENCE, || async {
            let status = self.objects().get(name).await?.status.unwrap_or_default();
            Ok((status.observed_generation == generation).then_some(()))
        })
        .await?;
        Ok(began.elapsed())
    }

    /// Waits until the API server asks the silent webhook about writes of Secrets here.
    async fn until_silent(&self) -> Result<()> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), self.namespace);
        let probe = object(secret("probe"))?;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        poll("the silent webhook", PATIENCE, || async {
            let answered = tokio::time::timeout(Duration::from_secs(2), secrets.create(&dry, &probe)).await;
            Ok(answered.is_err().then_some(()))
        })
        .await
    }

    async fn until_ready(&self, name: &str) -> Result<()> {
        poll("the object", PATIENCE, || async {
            Ok(self.objects().get(name).await?.status.and_then(|status| status.id).map(drop))
        })
        .await
    }

    async fn until_reason(&self, reason: &str, count: usize) -> Result<()> {
        let says = |object: &ManagedSecret| {
            let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.filter(|it| it.type_ == keys::CONDITION_READY).any(|it| it.reason == reason)
        };
        self.until(count, says).await
    }

    async fn until_version(&self, version: i64, count: usize) -> Result<()> {
        self.until(count, |object| object.status.as_ref().is_some_and(|status| status.version == Some(version))).await
    }

    async fn until(&self, count: usize, fits: impl Fn(&ManagedSecret) -> bool) -> Result<()> {
        poll("the objects", PATIENCE, || async {
            let objects = self.objects().list(&ListParams::default()).await?.items;
            Ok((objects.iter().filter(|object| fits(object)).count() >= count).then_some(()))
        })
        .await
    }
}
