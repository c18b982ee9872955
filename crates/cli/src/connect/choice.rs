//! Which cluster, user and namespace a kubeconfig and the flags mean together, and whether they can be used. Pure, but
//! for files that a kubeconfig names, which must be readable.
//!
//! The rules are client-go's (`tools/clientcmd/client_config.go` and `validation.go`). It differs in one thing: where
//! client-go falls back to `http://localhost:8080`, this is an error.

use std::{path::Path, time::Duration};

use super::kubeconfig::{Cluster, Context, Kubeconfig, User};

/// Versions of credential plugins' interface that client-go 0.36 speaks.
const EXEC_VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", EXEC_V1BETA1];
/// The version in which `interactiveMode` may be absent.
const EXEC_V1BETA1: &str = "client.authentication.k8s.io/v1beta1";
/// The namespace if nothing names one.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// What kubectl's connection flags ask for. An empty text is an absent one.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--context`
    pub context: String,
    /// `--cluster`
    pub cluster: String,
    /// `--user`
    pub user: String,
    /// `--namespace`
    pub namespace: String,
    /// `--server`
    pub server: String,
    /// `--certificate-authority`
    pub certificate_authority: String,
    /// `--insecure-skip-tls-verify`
    pub insecure_skip_tls_verify: bool,
    /// `--tls-server-name`
    pub tls_server_name: String,
    /// `--token`
    pub token: Token,
    /// `--client-certificate`
    pub client_certificate: String,
    /// `--client-key`
    pub client_key: String,
    /// `--as`
    pub impersonate: String,
    /// `--as-uid`
    pub impersonate_uid: String,
    /// `--as-group`
    pub impersonate_groups: Vec<String>,
    /// `--request-timeout`; zero is no limit.
    pub request_timeout: Option<Duration>,
}

/// A bearer token from the command line; it is never printed.
#[derive(Clone, Default)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl std::str::FromStr for Token {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl Overrides {
    /// The flag that chooses another cluster or user than those of a pod, or another way to trust them, if one is
    /// given: without a kubeconfig it cannot be obeyed.
    pub(super) fn choosing(&self) -> Option<&'static str> {
        [
            ("--context", &self.context),
            ("--cluster", &self.cluster),
            ("--user", &self.user),
            ("--server", &self.server),
            ("--client-certificate", &self.client_certificate),
            ("--client-key", &self.client_key),
            ("--tls-server-name", &self.tls_server_name),
        ]
        .into_iter()
        .find_map(|(flag, value)| (!value.is_empty()).then_some(flag))
        .or_else(|| self.insecure_skip_tls_verify.then_some("--insecure-skip-tls-verify"))
    }
}

/// What was meant.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The cluster, flags included.
    pub(super) cluster: Cluster,
    /// The user, flags included.
    pub(super) user: User,
    /// The namespace that a flag or the context names.
    pub(super) namespace: Option<String>,
}

/// Why a kubeconfig and the flags cannot be used together.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChoiceError {
    /// A named entry does not exist.
    #[error("{kind} {name:?} not found in {files}; run \"kubectl config {listing}\" to see the names")]
    NotFound {
        /// context, cluster or user.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where it was looked for.
        files: String,
        /// kubectl's command that lists such entries.
        listing: &'static str,
    },
    /// Neither a flag nor `current-context` says which context.
    #[error("no current context in {0}; choose one with --context or \"kubectl config use-context\"")]
    NoContext(String),
    /// The cluster has no address.
    #[error("cluster {0:?} of the kubeconfig has no server; add one or use --server")]
    NoServer(String),
    /// The cluster's settings contradict each other, or cannot be used.
    #[error("cluster {name:?} of the kubeconfig cannot be used: {problem}")]
    Cluster {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The user's credentials contradict each other, or cannot be used.
    #[error("user {name:?} of the kubeconfig cannot be used: {problem}")]
    User {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// Applies the flags to the kubeconfig.
pub(super) fn choose(kubeconfig: &Kubeconfig, flags: &Overrides) -> Result<Choice, ChoiceError> {
    let not_found = |kind, name: &str, listing| ChoiceError::NotFound {
        kind,
        name: name.to_owned(),
        files: kubeconfig.called(),
        listing,
    };
    let context_name = first([&flags.context, &kubeconfig.current_context]);
    let context = match kubeconfig.contexts.get(context_name) {
        Some(context) => context.clone(),
        // A context that does not exist is an error, even if flags name cluster and user.
        None if !context_name.is_empty() => return Err(not_found("context", context_name, "get-contexts")),
        None => Context::default(),
    };

    let cluster_name = first([&flags.cluster, &context.cluster]);
    let mut cluster = match kubeconfig.clusters.get(cluster_name) {
        Some(cluster) => cluster.clone(),
        None if !flags.cluster.is_empty() => return Err(not_found("cluster", cluster_name, "get-clusters")),
        None if !flags.server.is_empty() => Cluster::default(),
        None if !cluster_name.is_empty() => return Err(not_found("cluster", cluster_name, "get-clusters")),
        None if context_name.is_empty() => return Err(ChoiceError::NoContext(kubeconfig.called())),
        None => Cluster::default(),
    };
    override_cluster(&mut cluster, flags);
    check_cluster(cluster_name, &cluster)?;

    let user_name = first([&flags.user, &context.user]);
    let mut user = match kubeconfig.users.get(user_name) {
        Some(user) => user.clone(),
        None if !user_name.is_empty() => return Err(not_found("user", user_name, "get-users")),
        None => User::default(),
    };
    override_user(&mut user, flags);
    check_user(user_name, &mut user)?;

    let namespace = first([&flags.namespace, &context.namespace]);
    Ok(Choice { cluster, user, namespace: (!namespace.is_empty()).then(|| namespace.to_owned()) })
}

/// The first text that is not empty.
fn first<const N: usize>(texts: [&str; N]) -> &str {
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// Replaces what a flag gives.
fn replace(field: &mut String, flag: &str) {
    if !flag.is_empty() {
        flag.clone_into(field);
    }
}

fn override_cluster(cluster: &mut Cluster, flags: &Overrides) {
    replace(&mut cluster.server, &flags.server);
    // What the flags say of trust replaces all that the kubeconfig says.
    if flags.insecure_skip_tls_verify || !flags.certificate_authority.is_empty() {
        cluster.insecure_skip_tls_verify = flags.insecure_skip_tls_verify;
        cluster.certificate_authority.clone_from(&flags.certificate_authority);
        cluster.certificate_authority_data.clear();
    }
    // The name of the kubeconfig's server is not that of another one.
    if !flags.tls_server_name.is_empty() || !flags.server.is_empty() {
        cluster.tls_server_name.clone_from(&flags.tls_server_name);
    }
}

fn override_user(user: &mut User, flags: &Overrides) {
    replace(&mut user.token, &flags.token.0);
    replace(&mut user.impersonate, &flags.impersonate);
    replace(&mut user.impersonate_uid, &flags.impersonate_uid);
    if !flags.impersonate_groups.is_empty() {
        user.impersonate_groups.clone_from(&flags.impersonate_groups);
    }
    if !flags.client_certificate.is_empty() {
        user.client_certificate.clone_from(&flags.client_certificate);
        user.client_certificate_data.clear();
    }
    if !flags.client_key.is_empty() {
        user.client_key.clone_from(&flags.client_key);
        user.client_key_data.clear();
    }
}

fn check_cluster(name: &str, cluster: &Cluster) -> Result<(), ChoiceError> {
    if cluster.server.is_empty() {
        return Err(ChoiceError::NoServer(name.to_owned()));
    }
    let wrong = |problem| Err(ChoiceError::Cluster { name: name.to_owned(), problem });
    if !cluster.certificate_authority.is_empty() && !cluster.certificate_authority_data.is_empty() {
        return wrong("it has certificate-authority and certificate-authority-data; remove one".to_owned());
    }
    if let Err(problem) = readable("certificate-authority", &cluster.certificate_authority) {
        return wrong(problem);
    }
    Ok(())
}

fn check_user(name: &str, user: &mut User) -> Result<(), ChoiceError> {
    let wrong = |problem: String| Err(ChoiceError::User { name: name.to_owned(), problem });
    let said = |problem: &str| Err(ChoiceError::User { name: name.to_owned(), problem: problem.to_owned() });
    let has_password = !user.username.is_empty() || !user.password.is_empty();
    if has_password && !user.token.is_empty() {
        return said("it has a token and a password; remove one");
    }
    if !user.client_certificate.is_empty() || !user.client_certificate_data.is_empty() {
        if !user.client_certificate.is_empty() && !user.client_certificate_data.is_empty() {
            return said("it has client-certificate and client-certificate-data; remove one");
        }
        match (user.client_key.is_empty(), user.client_key_data.is_empty()) {
            (true, true) => return said("it has a client certificate and no client-key or client-key-data; add one"),
            (false, false) => return said("it has client-key and client-key-data; remove one"),
            _ => {}
        }
        let read = readable("client-certificate", &user.client_certificate);
        if let Err(problem) = read.and_then(|()| readable("client-key", &user.client_key)) {
            return wrong(problem);
        }
    }
    if let Err(problem) = check_impersonation(user) {
        return said(problem);
    }
    let Some(exec) = &mut user.exec else { return Ok(()) };
    if user.auth_provider.is_some() {
        return said("it has auth-provider and exec; remove one");
    }
    if exec.command.is_empty() {
        return said("exec has no command; add one");
    }
    if !EXEC_VERSIONS.contains(&exec.api_version.as_str()) {
        return wrong(format!("apiVersion of exec must be {}", EXEC_VERSIONS.join(" or ")));
    }
    if exec.env.iter().any(|variable| variable.name.is_empty()) {
        return said("a variable of exec has no name; add one");
    }
    if exec.interactive_mode.is_empty() && exec.api_version == EXEC_V1BETA1 {
        "IfAvailable".clone_into(&mut exec.interactive_mode);
    }
    if !["Never", "IfAvailable", "Always"].contains(&exec.interactive_mode.as_str()) {
        return said("interactiveMode of exec must be Never, IfAvailable or Always");
    }
    Ok(())
}

/// Groups, uid and extra fields need a user to impersonate.
pub(super) fn check_impersonation(user: &User) -> Result<(), &'static str> {
    let asks_more =
        !user.impersonate_uid.is_empty() || !user.impersonate_groups.is_empty() || !user.impersonate_extra.is_empty();
    if user.impersonate.is_empty() && asks_more {
        return Err("a uid, groups or extra fields to act as need a user; add --as");
    }
    Ok(())
}

/// An absent path is readable.
fn readable(field: &str, path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Ok(());
    }
    std::fs::File::open(Path::new(path)).map(drop).map_err(|error| format!("cannot read {field} {path}: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn kubeconfig() -> Kubeconfig {
        let cluster = |server: &str| Cluster { server: server.to_owned(), ..Cluster::default() };
        let user = |token: &str| User { token: token.to_owned(), ..User::default() };
        let context = |cluster: &str, user: &str, namespace: &str| Context {
            cluster: cluster.to_owned(),
            user: user.to_owned(),
            namespace: namespace.to_owned(),
        };
        Kubeconfig {
            clusters: [("a", cluster("https://a")), ("b", cluster("https://b"))]
                .map(|(name, it)| (name.to_owned(), it))
                .into(),
            users: [("a", user("ta")), ("b", user("tb"))].map(|(name, it)| (name.to_owned(), it)).into(),
            contexts: [
                ("a", context("a", "a", "")),
                ("b", context("b", "b", "shop")),
                ("lost", context("gone", "a", "")),
                ("alone", context("a", "gone", "")),
            ]
            .map(|(name, it)| (name.to_owned(), it))
            .into(),
            current_context: "a".to_owned(),
            ..Kubeconfig::default()
        }
    }

    fn chosen(flags: &Overrides) -> Result<(String, String, Option<String>), ChoiceError> {
        let choice = choose(&kubeconfig(), flags)?;
        Ok((choice.cluster.server, choice.user.token, choice.namespace))
    }

    fn flags(change: impl FnOnce(&mut Overrides)) -> Overrides {
        let mut flags = Overrides::default();
        change(&mut flags);
        flags
    }

    #[test]
    fn flags_replace_what_the_context_names() {
        let texts = |server: &str, token: &str, namespace: Option<&str>| {
            Ok((server.to_owned(), token.to_owned(), namespace.map(str::to_owned)))
        };
        assert_eq!(chosen(&Overrides::default()), texts("https://a", "ta", None));
        assert_eq!(chosen(&flags(|flags| flags.context = "b".into())), texts("https://b", "tb", Some("shop")));
        assert_eq!(chosen(&flags(|flags| flags.user = "b".into())), texts("https://a", "tb", None));
        let mixed = flags(|flags| {
            flags.context = "b".into();
            flags.cluster = "a".into();
            flags.namespace = "other".into();
            flags.token = Token("given".to_owned());
        });
        assert_eq!(chosen(&mixed), texts("https://a", "given", Some("other")));
    }

    #[test]
    fn what_does_not_exist_is_an_error_and_no_other_cluster() {
        for flags in [
            flags(|flags| flags.context = "gone".into()),
            flags(|flags| flags.cluster = "gone".into()),
            flags(|flags| flags.user = "gone".into()),
            flags(|flags| flags.context = "lost".into()),
            flags(|flags| flags.context = "alone".into()),
        ] {
            assert!(matches!(chosen(&flags), Err(ChoiceError::NotFound { .. })), "{flags:?}");
        }
        let nothing = choose(&Kubeconfig::default(), &Overrides::default());
        assert!(matches!(nothing, Err(ChoiceError::NoContext(_))));
    }

    #[test]
    fn trust_from_flags_replaces_that_of_the_kubeconfig() {
        let mut cluster = Cluster {
            certificate_authority_data: b"ca".to_vec(),
            tls_server_name: "name".to_owned(),
            ..Cluster::default()
        };
        override_cluster(&mut cluster, &flags(|flags| flags.insecure_skip_tls_verify = true));
        assert!(cluster.insecure_skip_tls_verify && cluster.certificate_authority_data.is_empty());
        assert_eq!(cluster.tls_server_name, "name");
        override_cluster(&mut cluster, &flags(|flags| flags.certificate_authority = "file".into()));
        assert!(!cluster.insecure_skip_tls_verify && cluster.certificate_authority == "file");
        override_cluster(&mut cluster, &flags(|flags| flags.server = "https://b".into()));
        assert_eq!(cluster.tls_server_name, "");
    }

    #[test]
    fn a_token_of_a_flag_is_not_printed() {
        let flags = flags(|flags| flags.token = Token("hunter2".to_owned()));
        assert!(!format!("{flags:?}").contains("hunter"));
    }
}
