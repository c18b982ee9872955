//! From the flags of `run` to the webhooks, and from the operator's parts to what they ask of it: the one place where
//! the rooms [`admission`](crate::webhook) and [`reconcile`](crate::controller) meet.

use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt as _};
use managed_secrets_api::{
    keys::{KIND, SEAL_CONFIGURATION, WARN_CONFIGURATION},
    names::cluster_object_name,
};
use managed_secrets_cli::CliError;
use managed_secrets_crypto::Keyring;

use crate::args::RunArgs;
use crate::{
    controller::{
        index::Holder,
        keys::Keys,
        run::{Beside, Parts},
        sinks::Shared,
    },
    webhook::{
        self,
        certificates::{self, Reached, Source, authority::Lifetimes},
        server::{Limits, Port},
    },
};

/// Where the webhooks are served when no flag says: on every address of the machine, IPv6 and IPv4.
pub const DEFAULT_LISTEN: &str = "[::]:8443";

/// Where the webhooks are served; `None` is `off`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| "must be ADDRESS:PORT or off")
    }
}

/// Webhooks as the flags ask for them.
pub(super) struct Plan {
    address: SocketAddr,
    drain: Duration,
    certificates: certificates::Options,
    allow_cluster_scope: bool,
}

impl Plan {
    /// Checks the flags; `None` where the webhooks are off.
    pub(super) fn of(args: &RunArgs, operator_namespace: &str) -> Result<Option<Self>, CliError> {
        let Some(address) = args.webhook_listen.0 else { return Ok(None) };
        let reached = match &args.webhook_url {
            None => Reached::Service { name: args.webhook_service.clone(), namespace: operator_namespace.to_owned() },
            Some(url) => reached_by(url)?,
        };
        let name = |name| cluster_object_name(name, operator_namespace, args.namespaces.is_empty());
        let certificates = certificates::Options {
            operator_namespace: operator_namespace.to_owned(),
            source: args.webhook_cert_dir.clone().map_or(Source::Own, Source::Folder),
            reached,
            seal_configuration: name(SEAL_CONFIGURATION),
            warn_configuration: name(WARN_CONFIGURATION),
            lifetimes: Lifetimes::default(),
        };
        let drain = Duration::from_secs(args.webhook_drain.into());
        Ok(Some(Self { address, drain, certificates, allow_cluster_scope: args.allow_cluster_scope }))
    }

    /// How long the webhooks go on after the signal to stop.
    pub(super) fn drain(&self) -> Duration {
        self.drain
    }

    /// Takes the port already, so that one that is taken is an error that the user reads. Must be called in a runtime.
    pub(super) fn bind(self) -> Result<webhook::Options, CliError> {
        let port = Port::bind(self.address)
            .map_err(|error| CliError::failed(&format!("cannot serve the webhooks on {}", self.address), &error))?;
        Ok(webhook::Options {
            port,
            certificates: self.certificates,
            limits: Limits { drain: self.drain, ..Limits::default() },
            allow_cluster_scope: self.allow_cluster_scope,
            stats: Arc::default(),
        })
    }
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

/// Starts the webhooks beside the operator.
#[must_use]
pub fn beside(options: webhook::Options) -> Beside {
    Box::new(move |parts| {
        let Parts { client, watcher, keys, shared } = parts;
        webhook::start(options, &client, &watcher, Arc::new(Rest { keys, shared }));
    })
}

/// The rest of the operator, as the webhooks see it.
struct Rest {
    keys: Arc<Keys>,
    shared: Arc<Shared>,
}

impl webhook::Operator for Rest {
    fn keyring(&self) -> Arc<Keyring> {
        self.keys.get()
    }

    fn look_again(&self) -> BoxFuture<'_, ()> {
        self.keys.look_again().map(drop).boxed()
    }

    fn holder_of_name(&self, namespace: &str, name: &str, object: &str) -> Option<String> {
        self.shared.index().holder_of_name(namespace, name, object).as_ref().map(described)
    }

    fn holder_of_target(&self, namespace: &str, secret: &str, object: &str) -> Option<String> {
        self.shared.index().holder_of_target(namespace, secret, object).as_ref().map(described)
    }

    fn lacks_source(&self, namespace: &str, secret: &str) -> bool {
        self.shared.index().lacks_source(namespace, secret)
    }
}

fn described(holder: &Holder) -> String {
    match holder {
        Holder::Object(name) => format!("{KIND} {name:?}"),
        Holder::Secret(name) => format!("Secret {name:?}, which was retained"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_webhooks_can_be_switched_off() {
        assert_eq!("off".parse(), Ok(Listen(None)));
        assert_eq!("127.0.0.1:1".parse(), Ok(Listen(Some(SocketAddr::from(([127, 0, 0, 1], 1))))));
        assert!(DEFAULT_LISTEN.parse::<Listen>().is_ok_and(|listen| listen.0.is_some()));
        assert!("8443".parse::<Listen>().is_err());
    }

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
}
