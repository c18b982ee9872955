//! The webhooks: whether the API server calls them, reaches them and trusts them, and which webhooks it calls before.

use jiff::SignedDuration;
use k8s_openapi::api::admissionregistration::v1::{RuleWithOperations, WebhookClientConfig};
use k8s_openapi::api::apps::v1::Deployment;
use managed_secrets_api::keys::{
    GROUP, OPERATOR_NAME, PLURAL, SEAL_CONFIGURATION, SEAL_WEBHOOK, WARN_CONFIGURATION, WARN_WEBHOOK, WEBHOOK_SECRET,
};
use managed_secrets_api::limits::AUTHORITY_DAYS;

use super::is_named;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Level};
use crate::operator;

const APPLY: &str = "managed-secrets manifests | kubectl apply -f -, with the installation's options; the operator \
                     completes it. Until then, the API server refuses plain values, and nothing else";

/// Both configurations, and those that see plain values before the operator does.
pub(super) fn configurations(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    if is_off(facts) {
        let what = "the webhooks are off (--webhook-listen=off): the API server refuses plain values";
        return Ok(vec![Finding::new(
            Level::Note,
            check,
            what,
            "seal values before you apply them: kubectl msec seal",
        )]);
    }
    let (mutating, validating) = (facts.mutating.known(check)?, facts.validating.known(check)?);
    let sealing = mutating.iter().find(|it| is_named(it.metadata.name.as_ref(), SEAL_CONFIGURATION, &facts.own));
    let warning = validating.iter().find(|it| is_named(it.metadata.name.as_ref(), WARN_CONFIGURATION, &facts.own));
    let seals = sealing.ok_or(MISSING).and_then(|it| {
        let ours = it.webhooks.iter().flatten().find(|it| it.name == SEAL_WEBHOOK);
        ours.map(|it| &it.client_config).ok_or(EMPTY)
    });
    let warns = warning.ok_or(MISSING).and_then(|it| {
        let ours = it.webhooks.iter().flatten().find(|it| it.name == WARN_WEBHOOK);
        ours.map(|it| &it.client_config).ok_or(EMPTY)
    });
    let mut findings = Vec::new();
    findings.extend(configuration(check, SEAL_CONFIGURATION, seals, Level::Problem));
    findings.extend(configuration(check, WARN_CONFIGURATION, warns, Level::Warning));
    if let Some(ours) = sealing.and_then(|it| it.metadata.name.as_deref()) {
        for other in mutating {
            let name = other.metadata.name.as_deref().unwrap_or_default();
            let sees = other.webhooks.iter().flatten().any(|it| it.rules.iter().flatten().any(concerns_us));
            if sees && name < ours && !is_sealing(name) {
                findings.push(Finding::new(
                    Level::Warning,
                    check,
                    format!(
                        "the API server calls MutatingWebhookConfiguration {name} before the operator's, so it sees \
                         plain values"
                    ),
                    "rename it or limit its rules, or seal values before you apply them",
                ));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            check,
            "both are installed with a CA bundle, and no other webhook sees plain values before them",
        ));
    }
    Ok(findings)
}

/// Whether a configuration belongs to an installation of this operator, for the whole cluster or not.
fn is_sealing(name: &str) -> bool {
    name.strip_prefix(SEAL_CONFIGURATION).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

const MISSING: &str = "not found";
const EMPTY: &str = "does not contain the operator's webhook";

/// One configuration of the operator: how its webhook is reached, or why it is not.
fn configuration(
    check: &'static str,
    name: &str,
    found: Result<&WebhookClientConfig, &str>,
    level: Level,
) -> Option<Finding> {
    match found {
        Err(why) => Some(Finding::new(level, check, format!("webhook configuration {name} {why}"), APPLY)),
        Ok(client) if client.ca_bundle.as_ref().is_none_or(|bundle| bundle.0.is_empty()) => Some(Finding::new(
            level,
            check,
            format!("webhook configuration {name} has no CA bundle: the API server skips the webhook"),
            "the operator writes it within a minute after its start: check that it runs, and read its log",
        )),
        Ok(_) => None,
    }
}

/// Whether a rule sends writes of ManagedSecrets to its webhook.
fn concerns_us(rule: &RuleWithOperations) -> bool {
    let has =
        |list: &Option<Vec<String>>, wanted: &[&str]| list.iter().flatten().any(|it| wanted.contains(&it.as_str()));
    has(&rule.api_groups, &["*", GROUP])
        && has(&rule.resources, &["*", "*/*", PLURAL])
        && has(&rule.operations, &["*", "CREATE", "UPDATE"])
}

/// Whether the Deployment turns off the webhooks.
fn is_off(facts: &Facts) -> bool {
    has_argument(facts, |argument| argument == "--webhook-listen=off")
}

/// Whether an argument of the Deployment fits.
fn has_argument(facts: &Facts, is_it: impl Fn(&str) -> bool) -> bool {
    let deployment: Option<&Deployment> = facts.deployment.known("").ok().and_then(Option::as_ref);
    deployment.is_some_and(|deployment| operator::has_argument(deployment, is_it))
}

/// Whether the API server reaches the webhooks.
pub(super) fn endpoints(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    if is_off(facts) {
        return Ok(Vec::new());
    }
    let configured = facts.mutating.known(check)?.iter();
    let sealing = configured.filter(|it| is_named(it.metadata.name.as_ref(), SEAL_CONFIGURATION, &facts.own));
    let client = sealing.flat_map(|it| it.webhooks.iter().flatten()).find(|it| it.name == SEAL_WEBHOOK);
    if client.is_some_and(|it| it.client_config.url.is_some()) {
        // The URL holds the secret path: it is never shown.
        return Ok(vec![Finding::new(
            Level::Note,
            check,
            "the webhooks have a URL, which doctor cannot check",
            "run kubectl apply --dry-run=server -o yaml with a ManagedSecret that has a plain value, and check that the \
             output has a sealed value",
        )]);
    }
    let slices = facts.endpoints.known(check)?;
    let ready = slices.iter().flat_map(|slice| &slice.endpoints).flatten();
    // Unset means ready (discovery.k8s.io/v1 EndpointConditions).
    let ready = ready.filter(|it| it.conditions.as_ref().is_none_or(|it| it.ready.unwrap_or(true))).count();
    Ok(vec![if ready > 0 {
        Finding::ok(check, format!("Service {}/{OPERATOR_NAME} has ready endpoints: {ready}", facts.own))
    } else {
        let what =
            format!("Service {}/{OPERATOR_NAME} has no ready endpoint: the API server refuses plain values", facts.own);
        let todo = format!("check the Service and the operator's pods: kubectl -n {} get service,pods", facts.own);
        Finding::new(Level::Problem, check, what, todo)
    }])
}

/// How old the certificate authority is. The command reads only dates from its Secret.
pub(super) fn certificates(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    if is_off(facts) {
        return Ok(Vec::new());
    }
    if has_argument(facts, |argument| argument.starts_with("--webhook-cert-dir")) {
        let what = "the certificates come from a folder (--webhook-cert-dir)";
        return Ok(vec![Finding::new(
            Level::Note,
            check,
            what,
            "the tool that creates them must renew them: check their dates",
        )]);
    }
    let created = facts.authorities.known(check)?;
    let Some(newest) = created.iter().flatten().max() else {
        let what = format!("Secret {}/{WEBHOOK_SECRET} with a certificate authority not found", facts.own);
        return Ok(vec![Finding::new(
            Level::Warning,
            check,
            what,
            "the operator creates it at its start: check that it runs",
        )]);
    };
    let life = SignedDuration::from_hours(24 * i64::from(AUTHORITY_DAYS));
    let (ends, renewed) = (*newest + life, *newest + life * 2 / 3);
    // A day of grace, because the operator does not check at every moment.
    let todo = "the operator renews it while it runs: check that it runs, and read its log";
    Ok(vec![if ends <= facts.now {
        Finding::new(Level::Problem, check, format!("the certificate authority expired at {ends}"), todo)
    } else if renewed + SignedDuration::from_hours(24) <= facts.now {
        Finding::new(
            Level::Warning,
            check,
            format!("the certificate authority should have been renewed at {renewed}"),
            todo,
        )
    } else {
        Finding::ok(
            check,
            format!("the certificate authority is valid until {ends}; the operator renews it at {renewed}"),
        )
    }])
}
