//! Reads of a value: through the API server and from the operator itself, against GET of a Secret.
//!
//! Readers are service accounts with a Role. The operator limits the requests of one caller, so they take turns.

use std::time::Instant;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{Api, Client, Config, api::PostParams};
use managed_secrets_api::{
    keys::{self, DEFAULT_OPERATOR_NAMESPACE as OPERATOR_NAMESPACE},
    value::{self, Handle, TOKEN_AUDIENCE},
};
use serde_json::{Value, json};
use testkit::{Result, control_plane::quiet_address, poll};

use super::{Found, Size, progress};
use crate::{
    ground::{Ground, PATIENCE, format_error},
    load::{self, Deliveries, Source, milliseconds},
    report::{Comparison, Figure, Goal},
    stats::{float, quantile},
};

const ROW: &str = "reads";
const NAMESPACE: &str = "reads";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
/// The Service by which the API server reaches the operator on this machine.
const SERVICE: &str = "outside";
/// Readers: together they may read 2,000 values per second.
const READERS: usize = 40;
/// Reads at once, while the rate is measured.
const AT_ONCE: usize = 16;

/// A way to a value.
struct Door {
    name: &'static str,
    path: String,
    /// A client for each reader.
    readers: Vec<Client>,
}

impl Door {
    /// Reads the value once. Returns the milliseconds that it took.
    async fn read(&self, turn: usize) -> Result<f64> {
        let request =
            http::Request::get(&self.path).body(Vec::new()).map_err(|error| format_error("a path", &error))?;
        let began = Instant::now();
        self.readers[turn % self.readers.len()].request_text(request).await?;
        Ok(milliseconds(began.elapsed()))
    }

    /// Reads per second, of some at once.
    async fn rate(&self, reads: usize) -> Result<f64> {
        let began = Instant::now();
        stream::iter(0..reads).map(|turn| self.read(turn)).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(float(reads) / began.elapsed().as_secs_f64())
    }
}

pub(crate) async fn measure(ground: &Ground, size: Size) -> Result<Found> {
    ground.create_namespace(NAMESPACE).await?;
    let address = quiet_address()?;
    for object in value_api(address.port()) {
        ground.apply(&object).await?;
    }
    let flags = [
        "--value-api".to_owned(),
        format!("--webhook-listen={address}"),
        format!("--webhook-url=https://{address}"),
        format!("--webhook-service={SERVICE}"),
    ];
    let replica = ground.operator(&flags).await?;
    let key = ground.public_key().await?;
    let specs = load::specs(&ground.admin, NAMESPACE, Source::Value, &key.key, 1).await?;
    let mut deliveries = Deliveries::watch(ground.admin.clone(), NAMESPACE);
    load::apply_all(&Api::namespaced(ground.admin.clone(), NAMESPACE), &specs, 1).await?;
    deliveries.until_count(1).await?;
    let doors = doors(ground, &format!("https://{address}")).await?;

    progress("reads: each reader reads once through each door");
    for door in &doors {
        for turn in 0..READERS {
            // A Role takes effect in the background.
            poll("the permission to read", PATIENCE, || async { Ok(door.read(turn).await.ok()) }).await?;
        }
    }
    let mark = ground.control_plane.audit_mark().await?;
    let mut latencies: [Vec<Vec<f64>>; 3] = Default::default();
    let mut rates: [Vec<f64>; 3] = Default::default();
    for repetition in 1..=size.repetitions {
        progress(&format!("reads: repetition {repetition} of {}", size.repetitions));
        let mut taken: [Vec<f64>; 3] = Default::default();
        for turn in 0..size.samples {
            for (door, taken) in doors.iter().zip(&mut taken) {
                taken.push(door.read(turn).await?);
            }
        }
        for (all, taken) in latencies.iter_mut().zip(taken) {
            all.push(taken);
        }
        for (door, rates) in doors.iter().zip(&mut rates) {
            rates.push(door.rate(size.samples).await?);
        }
    }
    let record_reads = ground.requests(NAMESPACE, mark).await?.reads;
    replica.stop().await?;
    // Without the operator behind it, it would delay the garbage collector in the next rows.
    ground.control_plane.access().kubectl_ok(&["delete", "apiservice", value::API_SERVICE]).await?;
    ground.empty_namespace(NAMESPACE).await?;

    let mut found = Found::default();
    let [secret, ways @ ..] = &doors;
    for (number, door) in ways.iter().enumerate() {
        for (what, share, goal) in [("p50", 0.5, Goal::AtMost(1.5)), ("p99", 0.99, Goal::None)] {
            let of = |door: usize| latencies[door].iter().map(|it| quantile(it, share)).collect::<Vec<f64>>();
            let against = Comparison::Added { to: secret.name, baseline: of(0) };
            let figure = Figure::new(ROW, format!("{}: {what}", door.name), "ms", of(number + 1));
            found.figures.push(figure.against(against).goal(goal));
        }
        let against = Comparison::Ratio { to: secret.name, baseline: rates[0].clone() };
        let figure = Figure::new(ROW, format!("{}: reads", door.name), "/s", rates[number + 1].clone());
        found.figures.push(figure.against(against));
    }
    // Of each repetition, both doors are read through by the samples and by the rate.
    let reads = float(size.repetitions * size.samples * 2 * ways.len());
    let figure = Figure::new(ROW, "reads of the record per read", "", vec![float(record_reads) / reads]);
    found.figures.push(figure.goal(Goal::Exactly(1.0)));
    Ok(found)
}

/// GET of the delivered Secret, and both doors of the value API.
async fn doors(ground: &Ground, operator: &str) -> Result<[Door; 3]> {
    let api_services = Api::<APIService>::all(ground.admin.clone());
    let service = poll("the value API to be available", PATIENCE, || async {
        let service = api_services.get(value::API_SERVICE).await?;
        let conditions = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let available = conditions.into_iter().any(|it| it.type_ == "Available" && it.status == "True");
        Ok(available.then_some(service))
    })
    .await?;
    let bundle = service.spec.and_then(|spec| spec.ca_bundle).unwrap_or_default();
    let bundle = pem::parse_many(&bundle.0).map_err(|error| format_error("the CA bundle", &error))?;
    let bundle: Vec<Vec<u8>> = bundle.into_iter().map(pem::Pem::into_contents).collect();

    let names: Vec<String> = (0..READERS).map(|number| format!("reader-{number}")).collect();
    for object in readers(&names) {
        ground.apply(&object).await?;
    }
    let through = ground.control_plane.access().config().await?;
    let mut directly = Config::new(uri(operator)?);
    directly.root_cert = Some(bundle);
    let (mut served, mut direct) = (Vec::new(), Vec::new());
    for name in &names {
        served.push(reader(ground, &through, name, &[]).await?);
        direct.push(reader(ground, &directly, name, &[TOKEN_AUDIENCE]).await?);
    }
    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{}", load::name(0));
    let handle = load::spec(0)["name"].as_str().unwrap_or_default().to_owned();
    let path = Handle::parse(&handle).and_then(|handle| value::path(NAMESPACE, handle));
    let path = path.ok_or_else(|| format_error("a path", &"invalid name"))?;
    Ok([
        Door { name: "GET of a Secret", path: secret, readers: served.clone() },
        Door { name: "through the API server", path: path.clone(), readers: served },
        Door { name: "from the operator", path, readers: direct },
    ])
}

fn uri(text: &str) -> Result<http::Uri> {
    text.parse().map_err(|error| format_error("an address", &error))
}

/// A client of one reader, with a token for these audiences.
async fn reader(ground: &Ground, like: &Config, account: &str, audiences: &[&str]) -> Result<Client> {
    let accounts = Api::<ServiceAccount>::namespaced(ground.admin.clone(), NAMESPACE);
    let audiences = (!audiences.is_empty()).then(|| audiences.iter().map(ToString::to_string).collect());
    let spec = TokenRequestSpec { audiences, ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = answer.status.map(|status| status.token.unwrap_or_default()).unwrap_or_default();
    let mut config = Config::new(like.cluster_url.clone());
    config.root_cert.clone_from(&like.root_cert);
    config.auth_info.token = Some(token.into());
    Ok(Client::try_from(config)?)
}

/// Service accounts that may read the values and the Secrets of the namespace.
fn readers(names: &[String]) -> Vec<Value> {
    let metadata = json!({"name": "readers", "namespace": NAMESPACE});
    let account = |name: &String| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}});
    let subject = |name: &String| json!({"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE});
    let accounts: Vec<Value> = names.iter().map(account).collect();
    let subjects: Vec<Value> = names.iter().map(subject).collect();
    vec![
        json!({"apiVersion": "v1", "kind": "List", "items": accounts}),
        json!({"apiVersion": RBAC, "kind": "Role", "metadata": metadata, "rules": [
            {"apiGroups": [value::GROUP], "resources": [value::PLURAL], "verbs": [value::VERB]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        ]}),
        json!({"apiVersion": RBAC, "kind": "RoleBinding", "metadata": metadata, "subjects": subjects,
               "roleRef": {"apiGroup": RBAC_GROUP, "kind": "Role", "name": "readers"}}),
    ]
}

/// What the value API needs beside the installation, for an operator that the API server reaches on this machine.
fn value_api(port: u16) -> Vec<Value> {
    let name = value::CLUSTER_ROLE;
    let account = json!({"kind": "ServiceAccount", "name": keys::OPERATOR_NAME, "namespace": OPERATOR_NAMESPACE});
    let role_ref = |kind: &str, name: &str| json!({"apiGroup": RBAC_GROUP, "kind": kind, "name": name});
    vec![
        json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
            {"apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"],
             "resourceNames": [value::API_SERVICE], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": [RBAC_GROUP], "resources": ["clusterroles"], "resourceNames": [name], "verbs": ["get"]},
        ]}),
        json!({"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": name}, "subjects": [account],
               "roleRef": role_ref("ClusterRole", name)}),
        json!({"apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": name, "namespace": "kube-system"},
               "subjects": [account], "roleRef": role_ref("Role", "extension-apiserver-authentication-reader")}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "namespace": OPERATOR_NAMESPACE},
               "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}}),
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": value::API_SERVICE},
               "spec": {"group": value::GROUP, "version": value::VERSION, "groupPriorityMinimum": 1000,
                        "versionPriority": 15,
                        "service": {"name": SERVICE, "namespace": OPERATOR_NAMESPACE, "port": port}}}),
    ]
}
