//! The limit: a bare client that makes the same writes as the operator, with the operator's permissions and under its admission
//! policies, and does nothing else. It copies what the operator wrote for a sample.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use managed_secrets_api::{ManagedSecret, Reason, keys, names::record_name};
use rand::RngExt as _;
use serde_json::{Value, json};
use testkit::Result;

use crate::{
    ground::{Ground, format_error, json},
    load,
};

/// What the operator wrote for one object.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    record: Value,
    target: Value,
    status: Value,
}

impl Template {
    /// Copies what the operator wrote for the first object of a namespace.
    pub(crate) async fn copy(ground: &Ground, namespace: &str) -> Result<Self> {
        let name = load::name(0);
        let objects = Api::<ManagedSecret>::namespaced(ground.admin.clone(), namespace);
        let secrets = Api::<Secret>::namespaced(ground.admin.clone(), namespace);
        let own = json(&objects.get(&name).await?)?;
        let secret_name = own["spec"]["name"].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            record: written(&json(&secrets.get(&record_name(&secret_name)).await?)?),
            target: written(&json(&secrets.get(&name).await?)?),
            status: own["status"].clone(),
        })
    }
}

impl Template {
    /// Bytes of the bodies of its writes: record, target and status.
    pub(crate) fn bytes(&self) -> [(&'static str, usize); 3] {
        [("record", &self.record), ("target", &self.target), ("status", &self.status)]
            .map(|(what, body)| (what, body.to_string().len()))
    }
}

/// The part of a Secret that is written.
fn written(secret: &Value) -> Value {
    let metadata = &secret["metadata"];
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": secret["type"], "data": secret["data"],
        "metadata": {
            "labels": metadata["labels"], "annotations": metadata["annotations"],
            "ownerReferences": metadata["ownerReferences"],
        },
    })
}

/// A bare client in one namespace.
#[derive(Clone)]
pub(crate) struct Bare {
    client: Client,
    objects: Api<ManagedSecret>,
    secrets: Api<Secret>,
    template: Template,
}

impl Bare {
    pub(crate) fn new(client: &Client, namespace: &str, template: Template) -> Self {
        let (objects, secrets) =
            (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
        Self { client: client.clone(), objects, secrets, template }
    }

    /// Makes the writes of one object, one after the other.
    pub(crate) async fn write(&self, object: &ManagedSecret) -> Result<()> {
        self.write_secret(object, &record_name(&object.spec.name), &self.template.record).await?;
        self.deliver(object).await
    }

    /// Makes the writes after the deletion of a target, the event among them.
    pub(crate) async fn restore(&self, object: &ManagedSecret) -> Result<()> {
        self.deliver(object).await?;
        // A recorder that has seen no event before creates each one, as the operator's does for each object.
        let reporter = Reporter { controller: "bare".to_owned(), instance: None };
        let event = Event {
            type_: EventType::Warning,
            reason: Reason::TargetDriftCorrected.as_str().to_owned(),
            note: Some("restored the Secret".to_owned()),
            action: "Repair".to_owned(),
            secondary: None,
        };
        let publish = Recorder::new(self.client.clone(), reporter);
        publish.publish(&event, &object.object_ref(&())).await.map_err(|error| format_error("an event", &error))
    }

    /// Makes the writes of a delivery: target and status.
    async fn deliver(&self, object: &ManagedSecret) -> Result<()> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        self.write_secret(object, name, &self.template.target).await?;
        let mut status = self.template.status.clone();
        status["observedGeneration"] = json!(object.metadata.generation);
        // A status that is like the one before is not stored.
        status["target"]["resourceVersion"] = json!(rand::random_range(1_u32..1_000_000_000).to_string());
        let body = json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
            "metadata": {"name": name}, "status": status,
        });
        self.objects.patch_status(name, &params(), &Patch::Apply(&body)).await?;
        Ok(())
    }

    async fn write_secret(&self, owner: &ManagedSecret, name: &str, template: &Value) -> Result<()> {
        let body = filled(template, name, owner);
        self.secrets.patch(name, &params(), &Patch::Apply(&body)).await?;
        Ok(())
    }

    /// Applies all objects as their users, and makes the writes of each, for so many objects at once.
    pub(crate) async fn deliver_all(
        &self,
        users: &Api<ManagedSecret>,
        specs: &[(String, Value)],
        at_once: usize,
    ) -> Result<()> {
        let mut done = futures::stream::iter(specs)
            .map(|(name, spec)| async move {
                let object = load::apply(users, name, spec).await?;
                self.write(&object).await
            })
            .buffer_unordered(at_once);
        while let Some(done) = done.next().await {
            done?;
        }
        Ok(())
    }
}

fn params() -> PatchParams {
    PatchParams::apply(keys::FIELD_MANAGER).force()
}

/// A Secret like the template, of this name and owner, with other data of the same length.
fn filled(template: &Value, name: &str, owner: &ManagedSecret) -> Value {
    let mut body = template.clone();
    body["metadata"]["name"] = json!(name);
    if let Some(reference) = body["metadata"]["ownerReferences"].get_mut(0) {
        reference["name"] = json!(owner.metadata.name);
        reference["uid"] = json!(owner.metadata.uid);
    }
    for value in body["data"].as_object_mut().into_iter().flat_map(|data| data.values_mut()) {
        let length = value.as_str().and_then(|text| BASE64.decode(text).ok()).unwrap_or_default().len();
        let mut bytes = vec![0; length];
        rand::rng().fill(&mut bytes[..]);
        *value = json!(BASE64.encode(bytes));
    }
    body
}

/// Runs a bare controller until the task is dropped: it makes the writes of each object whose generation changes.
pub(crate) async fn follow(bare: Bare, client: Client, namespace: String) -> Result<()> {
    use kube::runtime::{WatchStreamExt as _, watcher};
    let objects = Api::<ManagedSecret>::namespaced(client, &namespace);
    let mut events = std::pin::pin!(watcher(objects, watcher::Config::default()).default_backoff().applied_objects());
    while let Some(event) = events.next().await {
        let object = event.map_err(|error| format_error("a watch", &error))?;
        let observed = object.status.as_ref().and_then(|status| status.observed_generation);
        if observed != object.metadata.generation {
            bare.write(&object).await?;
        }
    }
    Ok(())
}
