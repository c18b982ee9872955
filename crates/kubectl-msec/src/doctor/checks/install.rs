//! Server, CRD, Deployment, policies, audit: what `managed-secrets crd` and `managed-secrets manifests` install.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use managed_secrets_api::crd;
use managed_secrets_api::keys::{GROUP, OPERATOR_NAME, PLURAL, POLICIES};
use managed_secrets_api::limits::KUBERNETES_MINORS;
use serde_json::Value;

use super::is_named;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Level};
use crate::operator::{Replicas, logs_of, scale_up_of};

const APPLY: &str = "managed-secrets manifests | kubectl apply -f -, with the installation's options";

/// The server's version.
pub(super) fn server(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let (major, minor) = facts.server.known(check)?;
    // Some providers write "36+".
    let number = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    let tested = major == "1" && number.is_some_and(|number| KUBERNETES_MINORS.contains(&number));
    let what = format!("Kubernetes {major}.{minor}");
    Ok(vec![if tested {
        Finding::ok(check, what)
    } else {
        let (oldest, newest) = (KUBERNETES_MINORS.start(), KUBERNETES_MINORS.end());
        let todo = format!("use Kubernetes 1.{oldest} to 1.{newest}, which this version is tested with");
        Finding::new(Level::Warning, check, format!("{what} is not supported"), todo)
    }])
}

/// The CRD: it exists, is established, and is the one that this program knows.
pub(super) fn crd(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let apply = "managed-secrets crd | kubectl apply -f -";
    let Some(found) = facts.crd.known(check)? else {
        let what = format!("CustomResourceDefinition {PLURAL}.{GROUP} not found");
        return Ok(vec![Finding::new(Level::Problem, check, what, apply)]);
    };
    let mut findings = Vec::new();
    let conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let refused: Vec<_> = conditions
        .filter(|it| ["Established", "NamesAccepted"].contains(&it.type_.as_str()) && it.status != "True")
        .collect();
    if found.status.is_none() || !refused.is_empty() {
        let why = refused.iter().filter_map(|it| it.message.as_deref()).collect::<Vec<_>>().join("; ");
        findings.push(Finding::new(
            Level::Problem,
            check,
            format!("the CustomResourceDefinition is not established: {why}"),
            "check whether another CRD has the same names: kubectl get crds",
        ));
    }
    let differing = differences(found);
    if !differing.is_empty() {
        let shown: Vec<_> = differing.iter().take(3).map(String::as_str).collect();
        let more = if differing.len() > shown.len() {
            format!(" and {} more fields", differing.len() - shown.len())
        } else {
            String::new()
        };
        findings.push(Finding::new(
            Level::Problem,
            check,
            format!(
                "the CustomResourceDefinition differs from that of version {} in {}{more}",
                env!("CARGO_PKG_VERSION"),
                shown.join(", ")
            ),
            format!("{apply}, with managed-secrets of the version that runs"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("{PLURAL}.{GROUP} is established and is that of this version")));
    }
    Ok(findings)
}

/// Where a CRD differs from that of this version.
fn differences(found: &CustomResourceDefinition) -> Vec<String> {
    let value = |crd: &CustomResourceDefinition| serde_json::to_value(&crd.spec).unwrap_or_default();
    let mut differing = Vec::new();
    compare(&value(&crd::crd()), &value(found), "spec", &mut differing);
    differing
}

/// Our CRD must be a part of theirs, to which the server adds defaults. A property that ours does not have is a difference:
/// another version has it.
fn compare(ours: &Value, theirs: &Value, path: &str, differing: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, ours) in ours {
                compare(ours, theirs.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"), differing);
            }
            if path.ends_with(".properties") {
                let unknown = theirs.keys().filter(|key| !ours.contains_key(*key));
                differing.extend(unknown.map(|key| format!("{path}.{key}")));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                compare(ours, theirs, &format!("{path}[{at}]"), differing);
            }
        }
        // Empty lists and maps may be left out.
        (Value::Array(ours), Value::Null) if ours.is_empty() => {}
        (Value::Object(ours), Value::Null) if ours.is_empty() => {}
        (ours, theirs) if ours == theirs => {}
        // The server may write a number in another form.
        (Value::Number(ours), Value::Number(theirs)) if ours.as_f64() == theirs.as_f64() => {}
        _ => differing.push(path.to_owned()),
    }
}

/// Deployment and service account.
pub(super) fn operator(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let own = &facts.own;
    let Some(deployment) = facts.deployment.known(check)? else {
        return Ok(vec![Finding::new(
            Level::Warning,
            check,
            format!("Deployment {own}/{OPERATOR_NAME} not found"),
            format!(
                "{APPLY}; or name another namespace with --operator-namespace. An operator outside the cluster needs \
                 no Deployment"
            ),
        )]);
    };
    let mut findings = Vec::new();
    let replicas @ Replicas { wanted, available } = Replicas::of(deployment);
    let logs =
        format!("{} shows why it stopped; kubectl -n {own} describe pods shows why it does not start", logs_of(own));
    if let Some(problem) = replicas.problem() {
        let todo = if wanted == 0 { scale_up_of(own) } else { logs };
        findings.push(Finding::new(Level::Problem, check, problem, todo));
    } else if available < wanted {
        findings.push(Finding::new(
            Level::Warning,
            check,
            format!("{available} of {wanted} replicas are available"),
            logs,
        ));
    }
    let images = images(deployment);
    if !images.iter().any(|image| version_of(image).is_none_or(|version| version == env!("CARGO_PKG_VERSION"))) {
        findings.push(Finding::new(
            Level::Note,
            check,
            format!(
                "the operator runs {}, and this program is version {}",
                images.join(", "),
                env!("CARGO_PKG_VERSION")
            ),
            "use the kubectl-msec of the operator's version",
        ));
    }
    if facts.account.known(check)?.is_none() {
        let what = format!("ServiceAccount {own}/{OPERATOR_NAME} not found: no new pod starts");
        findings.push(Finding::new(Level::Problem, check, what, APPLY));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("{available} of {wanted} replicas available, {}", images.join(", "))));
    }
    Ok(findings)
}

/// The namespaces that the operator is limited to: each exists, and the operator has its permissions there.
pub(super) fn namespaces(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let served = facts.served.known(check)?;
    let missing = served.iter().filter(|it| !it.exists || !it.bound).map(|it| {
        let namespace = &it.namespace;
        let (what, todo) = if it.exists {
            let what = format!(
                "the operator does not watch namespace {namespace}: RoleBinding {namespace}/{OPERATOR_NAME} not \
                 found, which gives the operator its permissions"
            );
            (what, APPLY.to_owned())
        } else {
            let what = format!("the operator does not watch namespace {namespace}: namespace not found");
            (what, format!("kubectl create namespace {namespace}, then {APPLY}; or remove it from these options"))
        };
        Finding::new(Level::Problem, check, what, todo)
    });
    let mut findings: Vec<Finding> = missing.collect();
    if findings.is_empty() {
        let names: Vec<&str> = served.iter().map(|it| it.namespace.as_str()).collect();
        let what = if names.is_empty() {
            "the operator watches all namespaces".to_owned()
        } else {
            format!("the operator watches {}", names.join(", "))
        };
        findings.push(Finding::ok(check, what));
    }
    Ok(findings)
}

fn images(deployment: &Deployment) -> Vec<String> {
    let pod = deployment.spec.template.spec.as_ref();
    pod.into_iter().flat_map(|pod| &pod.containers).filter_map(|container| container.image.clone()).collect()
}

/// The tag of an image, if it is a version: `place/name:1.2.3`, not `name@sha256:…`.
fn version_of(image: &str) -> Option<&str> {
    let tag = image.rsplit_once('/').map_or(image, |(_, name)| name).rsplit_once(':')?.1.trim_start_matches('v');
    let is_version =
        tag.split('.').count() == 3 && tag.split('.').all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    (is_version && !image.contains('@')).then_some(tag)
}

/// The policies: none is missing, and each is effective.
pub(super) fn policies(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let (policies, bindings) = (facts.policies.known(check)?, facts.bindings.known(check)?);
    let mut findings = Vec::new();
    for name in POLICIES {
        let Some(policy) = policies.iter().find(|it| is_named(it.metadata.name.as_ref(), name, &facts.own)) else {
            let todo = format!("{APPLY}, unless you left it out on purpose (--without-policy)");
            findings.push(Finding::new(Level::Warning, check, format!("policy {name} not found"), todo));
            continue;
        };
        let fails_closed =
            policy.spec.as_ref().is_some_and(|it| it.failure_policy.as_deref().unwrap_or("Fail") == "Fail");
        let denies = bindings.iter().map(|it| &it.spec).any(|binding| {
            Some(&binding.policy_name) == policy.metadata.name.as_ref()
                && binding.validation_actions.iter().any(|action| action == "Deny")
        });
        if !denies || !fails_closed {
            let what = format!(
                "policy {name} exists but refuses nothing: {}",
                if denies { "its failurePolicy is not Fail" } else { "it has no binding with the action Deny" }
            );
            findings.push(Finding::new(Level::Problem, check, what, APPLY));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("all {} policies are effective", POLICIES.len())));
    }
    Ok(findings)
}

/// The audit policy is a file of the API server, which no API shows.
#[allow(clippy::unnecessary_wraps, reason = "the type of every check")]
pub(super) fn audit(check: &'static str, _facts: &Facts) -> Result<Vec<Finding>, Finding> {
    Ok(vec![Finding::new(
        Level::Note,
        check,
        "this program cannot see whether the API server logs plain values",
        format!(
            "check that its audit policy contains this rule before any broader rule: {{level: Metadata, resources: \
             [{{group: {GROUP}}}, {{group: \"\", resources: [secrets]}}]}}"
        ),
    )])
}
