//! `managed-secrets seal`: reads a value and prints the sealed value for `spec.value`.
//!
//! ```text
//! --public-key FILE, or the cluster's ConfigMap ──▶ public key ──▶ --fingerprint ──┐
//! standard input, or a terminal without echo ─────▶ value ─────────────────────────┴▶ sealed value
//! ```
//!
//! The value is on no command line (every user of the machine can read those) and in no error.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use managed_secrets_api::types::Delivery;
use managed_secrets_crypto::Plaintext;
use managed_secrets_crypto::mss1::{self, Handling, PublishedKey, Scope};

use super::sealing_key::KeyArgs;
use super::{CliError, connect};
use super::{
    connect::{Connection, Interaction, Overrides, Wanted},
    say, value,
};

/// Arguments of `seal`. A value is never an argument.
#[derive(Args, Clone, Debug)]
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]
pub struct SealArgs {
    /// metadata.name of the ManagedSecret that the value is for (scope strict)
    #[arg(long, value_name = "OBJECT", env = "MANAGED_SECRETS_NAME")]
    pub name: Option<String>,

    /// Its namespace (scopes strict and namespace)
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_NAMESPACE")]
    pub namespace: Option<String>,

    /// Where the sealed value may be used
    #[arg(long, env = "MANAGED_SECRETS_SCOPE", value_enum, default_value_t)]
    pub scope: SealScope,

    /// Whether the value may be delivered.
    #[command(flatten)]
    pub handling: HandlingArgs,

    /// Which key to seal with.
    #[command(flatten)]
    pub key: KeyArgs,

    /// Kubeconfig file of the cluster; when absent KUBECONFIG, else ~/.kube/config
    #[arg(long, value_name = "FILE", env = "MANAGED_SECRETS_KUBECONFIG", value_parser = connect::path())]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig
    #[arg(long, value_name = "CONTEXT", env = "MANAGED_SECRETS_CONTEXT")]
    pub context: Option<String>,
}

impl SealArgs {
    /// The cluster that publishes the key.
    fn connection(&self) -> Result<Connection, CliError> {
        let flags = Overrides { context: self.context.clone().unwrap_or_default(), ..Overrides::default() };
        Ok(Connection::open(
            &Wanted { kubeconfig: self.kubeconfig.clone(), proxies_in_pod: true, flags },
            Interaction::Allowed,
        )?)
    }
}

/// `--no-delivery`.
#[derive(Args, Clone, Copy, Debug, Default)]
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]
pub struct HandlingArgs {
    /// Keep the value undelivered: delivering it as a Secret needs the permission to get
    /// secretvalues.values.managedsecrets.dev
    #[arg(long, env = "MANAGED_SECRETS_NO_DELIVERY")]
    pub no_delivery: bool,
}

impl From<HandlingArgs> for Handling {
    fn from(args: HandlingArgs) -> Self {
        if args.no_delivery { Self::Kept } else { Self::Deliverable }
    }
}

/// What a value is sealed as for an object with this delivery.
#[must_use]
pub fn handling(delivery: Delivery) -> Handling {
    match delivery {
        Delivery::Secret => Handling::Deliverable,
        Delivery::None => Handling::Kept,
    }
}

/// Where a sealed value may be used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum SealScope {
    /// In one ManagedSecret
    #[default]
    Strict,
    /// In any ManagedSecret of the namespace
    Namespace,
    /// Anywhere; the operator refuses it unless it runs with --allow-cluster-scope
    Cluster,
}

impl SealScope {
    /// The scope for an object. A flag that the scope ignores is refused: the user expects it to bind.
    pub fn of(self, namespace: Option<&str>, name: Option<&str>) -> Result<Scope, CliError> {
        let usage = |text: &str| CliError::Usage(text.to_owned());
        match (self, namespace.map(str::to_owned), name.map(str::to_owned)) {
            (Self::Strict, Some(namespace), Some(name)) => Ok(Scope::Strict { namespace, name }),
            (Self::Strict, _, None) => Err(usage("--name is missing; name the ManagedSecret that the value is for")),
            (Self::Strict | Self::Namespace, None, _) => {
                Err(usage("--namespace is missing; name the namespace of the ManagedSecret"))
            }
            (Self::Namespace, Some(namespace), None) => Ok(Scope::Namespace { namespace }),
            (Self::Cluster, None, None) => Ok(Scope::Cluster),
            (Self::Namespace, ..) => Err(usage("--name is not allowed with --scope namespace; remove it")),
            (Self::Cluster, ..) => {
                Err(usage("--namespace and --name are not allowed with --scope cluster; remove them"))
            }
        }
    }
}

/// Seals one value and prints the text.
pub fn seal(args: &SealArgs) -> Result<(), CliError> {
    let scope = args.scope.of(args.namespace.as_deref(), args.name.as_deref())?;
    let published = connect::block_on(args.key.key(async || args.connection()?.client()))?;
    say::print_document(&format!(
        "{}\n",
        sealed(&published, &scope, args.handling.into(), &value::from_standard_input()?)?
    ))
}

/// The sealed value.
pub fn sealed(key: &PublishedKey, scope: &Scope, handling: Handling, value: &Plaintext) -> Result<String, CliError> {
    mss1::seal(&key.key, scope, handling, value).map_err(|error| match error {
        mss1::SealError::Scope(rule) => CliError::Usage(format!("--namespace and --name {rule}")),
        other => CliError::failed("cannot seal", &other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_takes_exactly_what_it_binds_to() {
        use SealScope::{Cluster, Namespace, Strict};
        let given = [(None, None), (Some("prod"), None), (None, Some("db")), (Some("prod"), Some("db"))];
        for (kind, fitting) in [(Strict, 3), (Namespace, 1), (Cluster, 0)] {
            for (case, (namespace, name)) in given.into_iter().enumerate() {
                assert_eq!(kind.of(namespace, name).is_ok(), case == fitting, "{kind:?} {namespace:?} {name:?}");
            }
        }
    }
}
