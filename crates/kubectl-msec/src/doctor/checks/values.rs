//! The value API: whether the API server sends requests to the operator, and whether it says who sends them.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use managed_secrets_api::value::API_SERVICE;

use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Level, Read};
use crate::operator::logs_of;
use crate::value_api::is_served;

const APPLY: &str = "managed-secrets manifests --value-api | kubectl apply -f -, with the installation's options";
const FLAGS: &str = "start kube-apiserver with --requestheader-client-ca-file, --requestheader-allowed-names, \
                     --requestheader-username-headers, --requestheader-group-headers, \
                     --requestheader-extra-headers-prefix, --proxy-client-cert-file and --proxy-client-key-file; until \
                     then, values can be read through the operator's Service only";

/// Whether values can be read through the API server; and whether the API stops the deletion of namespaces.
pub(super) fn api(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let deployment = facts.deployment.known(check).ok().and_then(Option::as_ref);
    let runs = deployment.is_some_and(is_served);
    let Some(service) = facts.api_service.known(check)? else {
        return Ok(vec![not_registered(check, facts, runs)]);
    };
    if let Some(other) = namespace(service).filter(|namespace| *namespace != facts.own) {
        return Ok(vec![Finding::new(
            Level::Note,
            check,
            format!("APIService {API_SERVICE} belongs to the operator in the namespace {other}"),
            format!("kubectl msec doctor --operator-namespace {other}"),
        )]);
    }
    let mut findings = Vec::new();
    findings.extend(unavailable(check, facts, service, runs));
    let owners = service.metadata.owner_references.iter().flatten();
    if !owners.into_iter().any(|owner| owner.kind == "ClusterRole") {
        findings.push(Finding::new(
            Level::Warning,
            check,
            format!(
                "no ClusterRole owns APIService {API_SERVICE}: if you uninstall the operator, it may stay, and then no \
                 namespace of the cluster finishes deleting"
            ),
            format!(
                "the operator sets the owner while it runs: check that it runs, and read its log ({})",
                logs_of(&facts.own)
            ),
        ));
    }
    findings.extend(front_proxy(check, &facts.front_proxy));
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("APIService {API_SERVICE} is available")));
    }
    Ok(findings)
}

fn not_registered(check: &'static str, facts: &Facts, runs: bool) -> Finding {
    let is_limited = matches!(&facts.served, Read::Known(served) if !served.is_empty());
    match (runs, is_limited) {
        (false, _) => Finding::ok(check, "off: values are read from delivered Secrets only"),
        (true, true) => Finding::ok(check, "the operator answers requests to its Service"),
        (true, false) => Finding::new(
            Level::Warning,
            check,
            format!(
                "APIService {API_SERVICE} not found: the operator answers requests to its Service only, not those \
                 through the API server"
            ),
            APPLY,
        ),
    }
}

/// The namespace of the Service that answers.
fn namespace(service: &APIService) -> Option<&str> {
    service.spec.as_ref()?.service.as_ref()?.namespace.as_deref()
}

/// The problem of an APIService without a server.
fn unavailable(check: &'static str, facts: &Facts, service: &APIService, runs: bool) -> Option<Finding> {
    let conditions = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let available = conditions.into_iter().find(|condition| condition.type_ == "Available");
    if available.is_some_and(|condition| condition.status == "True") {
        return None;
    }
    let part = |text: Option<&String>| text.map(String::as_str).unwrap_or_default().to_owned();
    let (reason, message) = available.map_or_else(
        || ("Unknown".to_owned(), "the API server has not checked it yet".to_owned()),
        |condition| (part(condition.reason.as_ref()), part(condition.message.as_ref())),
    );
    let delete = format!("kubectl delete apiservice {API_SERVICE}");
    let todo = if runs {
        format!(
            "start the operator again ({} shows why it stopped). To let namespaces be deleted before that: {delete}, and \
             later {APPLY}",
            logs_of(&facts.own)
        )
    } else {
        format!("the operator does not serve the value API (--value-api): {delete}, or {APPLY}")
    };
    let what = format!(
        "APIService {API_SERVICE} is not available ({reason}: {message}): no value can be read through the API server, and \
         no namespace of the cluster finishes deleting"
    );
    Some(Finding::new(Level::Problem, check, what, todo))
}

/// What the API server publishes about its front proxy must be enough to recognise it.
fn front_proxy(check: &'static str, published: &Read<Option<ConfigMap>>) -> Option<Finding> {
    let published = match published.known(check) {
        Ok(published) => published.as_ref(),
        Err(unknown) => return Some(unknown),
    };
    let data = published.and_then(|map| map.data.as_ref());
    let text = |key: &str| data.and_then(|data| data.get(key)).map(|text| text.trim()).unwrap_or_default();
    let authority = text("requestheader-client-ca-file");
    let names: Vec<String> = serde_json::from_str(text("requestheader-allowed-names")).unwrap_or_default();
    if authority.is_empty() {
        let what = "the API server does not say who it is (no --requestheader-client-ca-file): the operator refuses the \
                    requests that the API server sends on behalf of users (HTTP 401)";
        return Some(Finding::new(Level::Problem, check, what, FLAGS));
    }
    (names.is_empty() && authority == text("client-ca-file")).then(|| {
        Finding::new(
            Level::Problem,
            check,
            "the API server allows any name for its front proxy, and its authority also signs the certificates of users: \
             each of them could act as any user, so the operator refuses these requests",
            "start kube-apiserver with --requestheader-allowed-names=NAME, the common name of --proxy-client-cert-file, or \
             with an authority for the front proxy alone",
        )
    })
}
