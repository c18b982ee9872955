//! What the webhook adds to a write of plaintext: against the same write of a value that the client has sealed.

use std::time::Instant;

use kube::{Api, api::PostParams};
use managed_secrets_api::ManagedSecret;
use serde_json::{Value, json};
use testkit::{Result, control_plane::quiet_address, poll};

use super::{Found, Size, progress};
use crate::{
    ground::{Ground, PATIENCE, object},
    load::{self, Source, milliseconds},
    report::{Comparison, Figure, Goal},
    stats::quantile,
};

const ROW: &str = "admission";
const NAMESPACE: &str = "admission";
const PLAIN: &str = "a-value-of-usual-length";

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    ground.create_namespace(NAMESPACE).await?;
    let address = quiet_address()?;
    let replica =
        ground.operator(&[format!("--webhook-listen={address}"), format!("--webhook-url=https://{address}")]).await?;
    let key = ground.public_key().await?;
    let objects = Api::<ManagedSecret>::namespaced(ground.admin.clone(), NAMESPACE);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    poll("the API server to call the webhook", PATIENCE, || async {
        Ok(objects.create(&dry, &suspended("probe", &json!(PLAIN))?).await.ok())
    })
    .await?;
    let (mut plain, mut sealed) = (Vec::new(), Vec::new());
    for repetition in 0..size.repetitions {
        progress(&format!("admission: repetition {} of {}", repetition + 1, size.repetitions));
        let (mut of_plain, mut of_sealed) = (Vec::new(), Vec::new());
        for sample in 0..size.samples {
            let name = format!("sealed-{repetition}-{sample}");
            let text = load::sealed(&key.key, NAMESPACE, &name, PLAIN)?;
            of_sealed.push(create(&objects, &name, &json!(text)).await?);
            of_plain.push(create(&objects, &format!("plain-{repetition}-{sample}"), &json!(PLAIN)).await?);
        }
        plain.push(of_plain);
        sealed.push(of_sealed);
    }
    replica.stop().await?;
    ground.empty_namespace(NAMESPACE).await?;
    let mut found = Found::default();
    for (what, share, goal) in [("p50", 0.5, Goal::None), ("p99", 0.99, Goal::AtMost(2.0))] {
        let of = |repetitions: &[Vec<f64>]| repetitions.iter().map(|it| quantile(it, share)).collect::<Vec<f64>>();
        let against = Comparison::Added { to: "sealed by the client", baseline: of(&sealed) };
        let figure = Figure::new(ROW, format!("create with plaintext: {what}"), "ms", of(&plain));
        found.figures.push(figure.against(against).goal(goal));
    }
    Ok(found)
}

/// An object that the operator does not deliver, so that it does nothing beside the next write.
fn suspended(name: &str, value: &Value) -> Result<ManagedSecret> {
    let mut spec = json!({"name": name, "suspend": true});
    spec[Source::Value.field()] = value.clone();
    object(json!({"metadata": {"name": name}, "spec": spec}))
}

/// Creates an object. Returns the milliseconds that it took.
async fn create(objects: &Api<ManagedSecret>, name: &str, value: &Value) -> Result<f64> {
    let object = suspended(name, value)?;
    let began = Instant::now();
    objects.create(&PostParams::default(), &object).await?;
    Ok(milliseconds(began.elapsed()))
}
