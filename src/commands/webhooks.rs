//! From the flags of `run` to the options of the webhooks and of the value API, which share a port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use managed_secrets_api::{
    keys::{SEAL_CONFIGURATION, WARN_CONFIGURATION},
    names::cluster_object_name,
    value::{CLUSTER_ROLE, service_name},
};
use managed_secrets_cli::CliError;

use crate::{
    args::{DEFAULT_LISTEN, RunArgs},
    port::Port,
    values,
    webhook::{
        Options,
        certificates::{self, Reached, Source, api_service, authority::Lifetimes},
        server::Limits,
    },
};

/// Webhooks and value API as the flags ask for them.
pub(super) struct Plan {
    address: SocketAddr,
    drain: Duration,
    certificates: certificates::Options,
    allow_cluster_scope: bool,
    value_api: bool,
}

impl Plan {
    /// Checks the flags; `None` if both are off.
    pub(super) fn of(args: &RunArgs, operator_namespace: &str) -> Result<Option<Self>, CliError> {
        let address = match args.webhook_listen.0 {
            Some(address) => address,
            None if args.value_api => any_address()?,
            None => return Ok(None),
        };
        let reached = match &args.webhook_url {
            None => Reached::Service { name: args.webhook_service.clone(), namespace: operator_namespace.to_owned() },
            Some(url) => reached_by(url)?,
        };
        // A cluster has one APIService. An operator of some namespaces has no permission on it, and serves direct callers.
        let aggregated = args.value_api && args.namespaces.is_empty();
        let api_service = aggregated.then(|| api_service::Options {
            owner: cluster_object_name(CLUSTER_ROLE, operator_namespace, args.namespaces.is_empty()),
        });
        // Callers and the APIService use Services, also if the webhooks are reached by a URL.
        let services = [args.webhook_service.clone(), service_name(&args.webhook_service)];
        let services = services.into_iter().filter(|_| args.value_api);
        let name = |name| cluster_object_name(name, operator_namespace, args.namespaces.is_empty());
        let certificates = certificates::Options {
            operator_namespace: operator_namespace.to_owned(),
            source: args.webhook_cert_dir.clone().map_or(Source::Own, Source::Folder),
            reached,
            webhooks: args.webhook_listen.0.is_some(),
            also_named: services.map(|service| format!("{service}.{operator_namespace}.svc")).collect(),
            api_service,
            seal_configuration: name(SEAL_CONFIGURATION),
            warn_configuration: name(WARN_CONFIGURATION),
            lifetimes: Lifetimes::default(),
        };
        let drain = Duration::from_secs(args.webhook_drain.into());
        let (allow_cluster_scope, value_api) = (args.allow_cluster_scope, args.value_api);
        Ok(Some(Self { address, drain, certificates, allow_cluster_scope, value_api }))
    }

    /// Takes the port already, so that one that is taken is an error that the user reads. Must be called in a runtime.
    pub(super) fn bind(self) -> Result<(Options, Option<values::Options>), CliError> {
        let port = Port::bind(self.address)
            .map_err(|error| CliError::failed(&format!("cannot serve the webhooks on {}", self.address), &error))?;
        let webhooks = Options {
            port,
            certificates: self.certificates,
            limits: Limits { drain: self.drain, ..Limits::default() },
            allow_cluster_scope: self.allow_cluster_scope,
            stats: Arc::default(),
        };
        let values = || values::Options { limits: values::Limits::default(), stats: Arc::default() };
        Ok((webhooks, self.value_api.then(values)))
    }
}

/// The address that the webhooks have when no flag says another one.
fn any_address() -> Result<SocketAddr, CliError> {
    DEFAULT_LISTEN.parse().map_err(|error| CliError::failed("cannot serve the value API", &error))
}

fn reached_by(url: &http::Uri) -> Result<Reached, CliError> {
    let usage = || CliError::Usage("--webhook-url must be https://HOST:PORT, without a path".to_owned());
    let host = url.host().filter(|_| url.scheme_str() == Some("https")).ok_or_else(usage)?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(usage());
    }
    // A URL has an IPv6 address in brackets, a certificate has it without.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Reached::Url { url: url.to_string(), host })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_no_path() {
        for (url, expected) in
            [("https://127.0.0.1:9", "127.0.0.1"), ("https://[::1]:9/", "::1"), ("https://a.b", "a.b")]
        {
            match reached_by(&url.parse().unwrap()) {
                Ok(Reached::Url { host, .. }) => assert_eq!(host, expected),
                _ => panic!("{url}"),
            }
        }
        for url in ["http://a", "https://a/b", "https://a?b", "/a"] {
            assert!(reached_by(&url.parse().unwrap()).is_err(), "{url}");
        }
    }

    #[test]
    fn only_an_operator_of_the_whole_cluster_takes_the_api_service() {
        use clap::Parser as _;

        let planned = |flags: &[&str]| {
            let all = ["managed-secrets", "run"].iter().chain(flags);
            let crate::args::Command::Run(args) = crate::args::Cli::parse_from(all).command else {
                panic!("{flags:?}")
            };
            Plan::of(&args, "ms").unwrap().unwrap().certificates
        };
        assert!(planned(&["--value-api"]).api_service.is_some());
        assert!(planned(&["--value-api", "--namespace", "shop"]).api_service.is_none());
        // The Services of both doors.
        let names = ["managed-secrets.ms.svc", "managed-secrets-values.ms.svc"];
        assert_eq!(planned(&["--value-api"]).also_named, names);
        assert_eq!(planned(&["--value-api", "--namespace", "shop"]).also_named, names);
        assert_eq!(planned(&["--value-api", "--webhook-service", "x"]).also_named, ["x.ms.svc", "x-values.ms.svc"]);
        assert!(planned(&[]).also_named.is_empty());
    }
}
