//! The real program is killed while it works on a hundred objects of every kind.

use std::{collections::BTreeMap, time::Instant};

use futures::StreamExt as _;
use kube::api::ListParams;
use managed_secrets_api::{ManagedSecret, keys, names::record_name};
use serde_json::{Value, json};
use testkit::{Operator, poll};

use super::super::{
    installation::{self, OPERATOR_NAMESPACE},
    objects::{Site, ready},
    operator::PATIENCE,
    witness::Witness,
};

/// The operator's program.
pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_managed-secrets");
/// Objects of the mixed load: a third from each source.
pub(super) const MANY: usize = 100;

/// What a load looks like at one stage: spec and value (none: generated) by object.
pub(super) struct Stage(BTreeMap<String, (Value, Option<String>)>);

impl Stage {
    /// `stage` 0 is how the objects are made; with 1 each third is renamed, each third gets a new value, each third moves.
    pub(super) async fn of(site: &Site, stage: usize) -> Self {
        let upstream = |n: usize, stage: usize| format!("value-{n}-{stage}");
        let mut objects = BTreeMap::new();
        for n in 0..MANY {
            let renamed = if (n / 3) % 3 == 0 { stage } else { 0 };
            let valued = if (n / 3) % 3 == 1 { stage } else { 0 };
            let moved = if (n / 3) % 3 == 2 { stage } else { 0 };
            let object = format!("o{n}");
            let mut spec = json!({"name": format!("NAME_{n}_{renamed}"), "description": stage.to_string()});
            spec["target"] = json!({"name": format!("t{n}-{moved}")});
            let value = match n % 3 {
                0 => {
                    spec["generate"] = json!({});
                    None
                }
                1 => {
                    spec["value"] = json!(site.seal(&object, &upstream(n, valued)).await);
                    Some(upstream(n, valued))
                }
                _ => {
                    site.source(&format!("source-{n}"), &upstream(n, valued)).await;
                    spec["valueFrom"] = json!({"secretKeyRef": {"name": format!("source-{n}"), "key": "key"}});
                    Some(upstream(n, valued))
                }
            };
            objects.insert(object, (spec, value));
        }
        Self(objects)
    }

    pub(super) async fn apply(&self, site: &Site) {
        let applied = futures::stream::iter(&self.0).map(|(object, (spec, _))| site.apply(object, spec.clone()));
        applied.buffer_unordered(16).for_each(|_| async {}).await;
    }
}

pub(super) async fn list(site: &Site) -> Vec<ManagedSecret> {
    site.objects().list(&ListParams::default()).await.unwrap().items
}

pub(super) fn is_served(object: &ManagedSecret) -> bool {
    ready(object) == ("True".to_owned(), "Served".to_owned())
}

/// Waits until so many objects are served.
pub(super) async fn served(site: &Site, many: usize) {
    poll(&format!("{many} objects to be served"), PATIENCE * 2, || async {
        Ok((list(site).await.iter().filter(|object| is_served(object)).count() >= many).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_program_leaves_a_hundred_objects_for_the_next_one() {
    let began = Instant::now();
    let site = Site::new("killed").await;
    let control_plane = installation::control_plane().await;
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let arguments = ["--namespace", &site.namespace];
    let start = || Operator::start(control_plane, PROGRAM, &kubeconfig, &arguments);
    let witness = Witness::of(&site).await;

    let mut operator = start().await.unwrap();
    let mut ids = BTreeMap::new();
    let mut last = None;
    for stage in [0, 1] {
        let wanted = Stage::of(&site, stage).await;
        // Half of them are done, and others begun, when it is killed: all of them wait for it until it may go on.
        operator.pause().unwrap();
        wanted.apply(&site).await;
        operator.resume().unwrap();
        served(&site, MANY / 2).await;
        operator.kill().await.unwrap();
        let left = list(&site).await.iter().filter(|object| !is_served(object)).count();
        println!("stage {stage}: {left} of {MANY} objects were left to do when the program was killed");
        assert!(left > 0, "it was killed too late to show anything");
        operator = start().await.unwrap();
        served(&site, MANY).await;
        for object in list(&site).await {
            let id = object.status.unwrap().id.unwrap();
            let name = object.metadata.name.unwrap();
            assert_eq!(ids.entry(name).or_insert_with(|| id.clone()), &id);
        }
        last = Some(wanted);
    }
    // What is in flight is finished: old records and targets are gone.
    assert_eq!(operator.stop().await.unwrap(), 0);

    let wanted = last.unwrap();
    let mut labelled = site.labelled().await;
    labelled.sort();
    let mut expected = Vec::new();
    for (spec, value) in wanted.0.values() {
        let (name, target) = (spec["name"].as_str().unwrap(), spec["target"]["name"].as_str().unwrap());
        expected.extend([record_name(name), target.to_owned()]);
        if let Some(value) = value {
            assert!(site.value(target, "value").await.as_ref() == Some(value), "{target} holds a wrong value");
        }
    }
    expected.sort();
    assert_eq!(labelled, expected);
    // On the way, each target held its object's values and nothing else, and a generated one never changed.
    let mut generated = BTreeMap::new();
    for state in witness.states().await.into_iter().filter(|it| it.name.starts_with('t') && !it.deleted) {
        let n: usize = state.name[1..].split_once('-').unwrap().0.parse().unwrap();
        let value = &state.data["value"];
        if n.is_multiple_of(3) {
            assert!(generated.entry(n).or_insert_with(|| value.clone()) == value, "{} changed", state.name);
        } else {
            let allowed = [format!("value-{n}-0"), format!("value-{n}-1")];
            assert!(allowed.contains(value), "{} held a wrong value", state.name);
        }
    }
    println!("twice killed, {:.0?} in all", began.elapsed());
}
