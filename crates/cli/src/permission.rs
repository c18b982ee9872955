//! Reports a refusal: names the missing permission as the command `kubectl auth can-i` that checks it.

use std::fmt;

use managed_secrets_client::{CallError, RefusalKind};

use crate::CliError;
use crate::error::{NOT_INSTALLED, lacks_resource};

/// A permission that RBAC grants or denies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Permission<'a> {
    verb: &'a str,
    /// As kubectl writes it: `secrets`, or `managedsecrets.managedsecrets.dev`.
    resource: &'a str,
    subresource: Option<&'a str>,
    name: Option<&'a str>,
    /// None: in all namespaces, or of the whole cluster.
    namespace: Option<&'a str>,
}

/// ManagedSecrets as kubectl writes them: PLURAL.GROUP, which a test compares.
const OBJECTS: &str = "managedsecrets.managedsecrets.dev";

impl<'a> Permission<'a> {
    /// To do `verb` with a kind of core object, or one written as `resource.group`.
    #[must_use]
    pub fn to(verb: &'a str, resource: &'a str) -> Self {
        Self { verb, resource, subresource: None, name: None, namespace: None }
    }

    /// To do `verb` with ManagedSecrets.
    #[must_use]
    pub fn to_objects(verb: &'a str) -> Self {
        Self::to(verb, OBJECTS)
    }

    /// With one object.
    #[must_use]
    pub fn named(self, name: &'a str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// With a subresource of it.
    #[must_use]
    pub fn part(self, subresource: &'a str) -> Self {
        Self { subresource: Some(subresource), ..self }
    }

    /// In one namespace.
    #[must_use]
    pub fn within(self, namespace: &'a str) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    /// The error of a call that needs this permission. It names the permission if the permission is what is missing.
    #[must_use]
    pub fn explain(self, context: &str, error: &kube::Error) -> CliError {
        match error {
            // RBAC's own words, as opposed to those of an admission policy, which say more than we could.
            kube::Error::Api(status)
                if status.code == 403 && status.message.contains(&format!(" cannot {} resource ", self.verb)) =>
            {
                CliError::Failed(format!("{context}: permission denied: check `{self}`"))
            }
            kube::Error::Api(status) if self.resource == OBJECTS && lacks_resource(status) => {
                CliError::Failed(format!("{context}: {NOT_INSTALLED}"))
            }
            _ => CliError::from_kube(context, error),
        }
    }

    /// The same of a call about Secrets, whose answer is never repeated.
    #[must_use]
    pub fn explain_call(self, context: &str, error: &CallError) -> CliError {
        match error {
            CallError::Refused(refusal) if refusal.kind == RefusalKind::Rbac => {
                CliError::Failed(format!("{context}: permission denied: check `{self}`"))
            }
            CallError::Unreachable(_) => CliError::unreachable(context, error),
            _ => CliError::failed(context, error),
        }
    }
}

impl fmt::Display for Permission<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kubectl auth can-i {} {}", self.verb, self.resource)?;
        self.name.map_or(Ok(()), |name| write!(f, "/{name}"))?;
        self.subresource.map_or(Ok(()), |part| write!(f, " --subresource {part}"))?;
        match self.namespace {
            Some(namespace) => write!(f, " -n {namespace}"),
            None => f.write_str(" -A"),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use managed_secrets_api::keys::{GROUP, PLURAL};

    use super::*;

    #[test]
    fn a_right_is_said_as_kubectl_asks_for_it() {
        assert_eq!(OBJECTS, format!("{PLURAL}.{GROUP}"));
        assert_eq!(
            Permission::to("get", "secrets").named("db").within("shop").to_string(),
            "kubectl auth can-i get secrets/db -n shop"
        );
        assert_eq!(
            Permission::to_objects("get").named("db").part("value").within("shop").to_string(),
            "kubectl auth can-i get managedsecrets.managedsecrets.dev/db --subresource value -n shop"
        );
        assert_eq!(Permission::to("list", "pods").to_string(), "kubectl auth can-i list pods -A");
    }

    #[test]
    fn only_a_missing_permission_is_called_one() {
        let permission = Permission::to("get", "secrets").within("shop");
        let refusal = |code, message: &str| {
            let status = Status { code, message: message.to_owned(), ..Status::default() };
            permission.explain("cannot read", &kube::Error::Api(Box::new(status))).to_string()
        };
        let rbac = "secrets \"db\" is forbidden: User \"eve\" cannot get resource \"secrets\" in API group \"\"";
        assert!(refusal(403, rbac).ends_with("permission denied: check `kubectl auth can-i get secrets -n shop`"));
        assert_eq!(refusal(403, "a policy says no"), "cannot read: a policy says no");
        assert_eq!(refusal(500, rbac), format!("cannot read: {rbac}"));
    }
}
