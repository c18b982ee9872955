//! What the webhook adds to a write of plaintext: against the same write of a value that the client has sealed.

use std::{
    pin::{Pin, pin},
    time::Instant,
};

use futures::{Stream, StreamExt as _};
use kube::{
    Api,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use managed_secrets_api::ManagedSecret;
use serde_json::{Value, json};
use testkit::{Error, Result, control_plane::quiet_address, poll};

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
    let mut seen = pin!(watcher(objects.clone(), watcher::Config::default()).default_backoff().applied_objects());
    let (mut plain, mut sealed) = (Vec::new(), Vec::new());
    for repetition in 0..size.repetitions {
        progress(&format!("admission: repetition {} of {}", repetition + 1, size.repetitions));
        let (mut of_plain, mut of_sealed) = (Vec::new(), Vec::new());
        for sample in 0..size.samples {
            let name = format!("sealed-{repetition}-{sample}");
            let text = load::sealed(&key.key, NAMESPACE, &name, PLAIN)?;
            of_sealed.push(create(&objects, &name, &json!(text)).await?);
            until_looked_at(seen.as_mut(), &name).await?;
            let name = format!("plain-{repetition}-{sample}");
            of_plain.push(create(&objects, &name, &json!(PLAIN)).await?);
            until_looked_at(seen.as_mut(), &name).await?;
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

/// Waits until the operator has written the status of an object, so that this write is not beside the next sample.
async fn until_looked_at(
    mut seen: Pin<&mut impl Stream<Item = watcher::Result<ManagedSecret>>>,
    name: &str,
) -> Result<()> {
    let is_looked_at = |object: &ManagedSecret| {
        object.metadata.name.as_deref() == Some(name)
            && object.status.as_ref().is_some_and(|it| it.observed_generation.is_some())
    };
    let look =
        async { while !seen.next().await.is_some_and(|event| event.is_ok_and(|object| is_looked_at(&object))) {} };
    tokio::time::timeout(PATIENCE, look)
        .await
        .map_err(|_| Error::Deadline { what: format!("the status of {name}"), seconds: PATIENCE.as_secs() })
}

/// Creates an object. Returns the milliseconds that it took.
async fn create(objects: &Api<ManagedSecret>, name: &str, value: &Value) -> Result<f64> {
    let object = suspended(name, value)?;
    let began = Instant::now();
    objects.create(&PostParams::default(), &object).await?;
    Ok(milliseconds(began.elapsed()))
}
