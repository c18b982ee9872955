//! What one namespace costs the others: many objects that want one name, and namespaces that hang.

use std::{net::TcpListener, path::Path, time::Duration};

use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use managed_secrets_api::{ManagedSecret, Reason, keys};
use serde_json::{Value, json};
use testkit::{Result, error::Context as _, poll};

use super::{Found, Size, latency::Edited, progress};
use crate::{
    ground::{Ground, PATIENCE, object},
    load::{self, Deliveries, Source},
    report::{Comparison, Figure},
    stats::{float, quantile},
};

const ROW: &str = "fairness";
const CROWD: &str = "crowd";
const QUIET: &str = "quiet";
const HANGING: [&str; 2] = ["hanging-1", "hanging-2"];
/// Objects of each namespace that hangs: more than the operator works on at once.
const HANGING_OBJECTS: usize = 50;
/// A webhook that never answers.
const SILENT: &str = "silent";
/// Edits whose CPU time is taken together: one edit takes less than the kernel counts.
const EDITS: usize = 20;
/// Objects that are applied at once.
const AT_ONCE: usize = 16;

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    let mut found = Found::default();
    found.figures.push(waiters(ground, size).await?);
    found.figures.extend(hanging(ground, size).await?);
    Ok(found)
}

/// CPU time of an edit of an object whose name many others want, against one whose name no other wants.
async fn waiters(ground: &Ground, size: Size) -> Result<Figure> {
    ground.create_namespace(CROWD).await?;
    let replica = ground.operator(&[]).await?;
    let objects = Api::<ManagedSecret>::namespaced(ground.admin.clone(), CROWD);
    let mut deliveries = Deliveries::watch(ground.admin.clone(), CROWD);
    let mut holder = Held { name: "holder", wants: "WANTED", edits: 0 };
    let mut alone = Held { name: "alone", wants: "UNWANTED", edits: 0 };
    for held in [&mut holder, &mut alone] {
        held.edit(&objects, &mut deliveries).await?;
    }
    progress(&format!("fairness: create {} objects that want one name", size.objects));
    let waiting: Vec<_> = (0..size.objects).map(|number| (load::name(number), generated("WANTED"))).collect();
    load::apply_all(&objects, &waiting, AT_ONCE).await?;
    poll("the objects to wait", PATIENCE, || async {
        let items = objects.list(&ListParams::default()).await?.items;
        Ok((items.iter().filter(|object| waits(object)).count() >= size.objects).then_some(()))
    })
    .await?;
    replica.until_idle().await?;
    let (mut measured, mut baseline) = (Vec::new(), Vec::new());
    for repetition in 1..=size.repetitions {
        progress(&format!("fairness, objects that want one name: repetition {repetition} of {}", size.repetitions));
        for (held, taken) in [(&mut alone, &mut baseline), (&mut holder, &mut measured)] {
            let before = replica.cpu()?;
            for _ in 0..EDITS {
                held.edit(&objects, &mut deliveries).await?;
            }
            taken.push((replica.cpu()? - before) * 1000.0 / float(EDITS));
        }
    }
    replica.stop().await?;
    ground.empty_namespace(CROWD).await?;
    let what = format!("CPU of an edit, while {} objects want its name", size.objects);
    Ok(Figure::new(ROW, what, "ms", measured).against(Comparison::Ratio { to: "no other wants it", baseline }))
}

/// An object that holds a name.
struct Held {
    name: &'static str,
    wants: &'static str,
    edits: usize,
}

impl Held {
    /// Edits its description, and waits until that is in the record.
    async fn edit(&mut self, objects: &Api<ManagedSecret>, deliveries: &mut Deliveries) -> Result<()> {
        self.edits += 1;
        let mut spec = generated(self.wants);
        spec["description"] = json!(format!("edit {}", self.edits));
        let generation = load::apply(objects, self.name, &spec).await?.metadata.generation.unwrap_or_default();
        deliveries.until_generation(self.name, generation).await.map(drop)
    }
}

/// How long an edit takes beside two namespaces in which a webhook that never answers holds up every write of a Secret.
async fn hanging(ground: &Ground, size: Size) -> Result<Vec<Figure>> {
    ground.create_namespace(QUIET).await?;
    for namespace in HANGING {
        ground.create_namespace(namespace).await?;
    }
    let key = ground.public_key().await?.key.clone();
    // It accepts connections, as the kernel does for it, and never says anything.
    let silent = TcpListener::bind(("127.0.0.1", 0)).context("listen on", Path::new("127.0.0.1"))?;
    let port = silent.local_addr().context("find the port of", Path::new("127.0.0.1"))?.port();
    let edits = size.samples.min(EDITS);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for repetition in 1..=size.repetitions {
        progress(&format!("fairness, namespaces that hang: repetition {repetition} of {}", size.repetitions));
        // A replica that hung before still has requests that hang.
        let replica = ground.operator(&[]).await?;
        let mut quiet = Edited::create(ground, QUIET, &key).await?;
        alone.push(quiet.edits(edits).await?);
        hang(ground, port).await?;
        beside.push(quiet.edits(edits).await?);
        replica.kill().await?;
        Api::<MutatingWebhookConfiguration>::all(ground.admin.clone()).delete(SILENT, &DeleteParams::default()).await?;
        for namespace in HANGING.into_iter().chain([QUIET]) {
            ground.empty_namespace(namespace).await?;
        }
    }
    let figure = |(what, share): (&str, f64)| {
        let of = |latencies: &[Vec<f64>]| latencies.iter().map(|it| quantile(it, share)).collect::<Vec<f64>>();
        let figure = Figure::new(ROW, format!("an edit beside two namespaces that hang: {what}"), "ms", of(&beside));
        figure.against(Comparison::Ratio { to: "alone", baseline: of(&alone) })
    };
    Ok(vec![figure(("p50", 0.5)), figure(("most", 1.0))])
}

/// Has two namespaces hang, with objects that are to be delivered there.
async fn hang(ground: &Ground, port: u16) -> Result<()> {
    let webhook: MutatingWebhookConfiguration = object(json!({
        "metadata": {"name": SILENT},
        "webhooks": [{
            "name": "silent.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 30,
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/")},
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": HANGING},
            ]},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["secrets"]}],
        }],
    }))?;
    Api::all(ground.admin.clone()).create(&PostParams::default(), &webhook).await?;
    for namespace in HANGING {
        let secrets = Api::<Secret>::namespaced(ground.admin.clone(), namespace);
        let probe = object(json!({"metadata": {"name": "probe"}}))?;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        poll("the silent webhook", PATIENCE, || async {
            let answer = tokio::time::timeout(Duration::from_secs(2), secrets.create(&dry, &probe)).await;
            Ok(answer.is_err().then_some(()))
        })
        .await?;
        let specs: Vec<_> =
            (0..HANGING_OBJECTS).map(|number| (load::name(number), generated(&load::name(number)))).collect();
        load::apply_all(&Api::namespaced(ground.admin.clone(), namespace), &specs, AT_ONCE).await?;
    }
    Ok(())
}

fn generated(name: &str) -> Value {
    let mut spec = json!({"name": name});
    spec[Source::Generate.field()] = json!({});
    spec
}

/// Whether an object waits because another one has its name.
fn waits(object: &ManagedSecret) -> bool {
    let mut conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|it| it.type_ == keys::CONDITION_READY && it.reason == Reason::NameInUse.as_str())
}
