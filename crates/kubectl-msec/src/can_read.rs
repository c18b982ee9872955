//! `kubectl msec can-read`: who can read the value of a secret, and through what.
//!
//! ```text
//! lookup ─▶ ways to the value (pure) ─▶ the API server's authorizer ─▶ table or JSON, and the exit code
//! ```
//!
//! For the user who asks, the command creates `SelfSubjectAccessReview`s, which every user may do. For another user (`--as`),
//! it creates `LocalSubjectAccessReview`s, which the built-in role `admin` includes. Nothing is impersonated, so the other
//! user's permissions do not limit what the command sees.

use clap::{Args, ValueEnum};
use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::api::{Api, ObjectMeta, PostParams};
use managed_secrets_api::keys::DEFAULT_OPERATOR_NAMESPACE;
use managed_secrets_api::types::Delivery;
use managed_secrets_api::{ManagedSecret, value};
use managed_secrets_cli::error::Exit;
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, names, say};
use serde::Serialize;
use serde_json::json;

use super::completion;
use super::lookup;
use super::session::{ClusterArgs, Session};
use super::table::{Layout, Table};
use super::value_api;

const EXAMPLES: &str = "\
Without --as, the command answers for you. The exit code is 0 if at least one way is open, and 1 if none is.

It checks permissions as RBAC and other authorizers of the API server give them at this moment. It does not look for users \
who could get a permission: by changing roles, by impersonating others, or by acting as the operator. docs/security.md \
lists who can read what.

Examples:
  # A person, with groups
  kubectl msec can-read DB_PASSWORD --as ann --as-group developers

  # A service account
  kubectl msec can-read DB_PASSWORD --as system:serviceaccount:shop:checkout -o json";

/// Arguments of `can-read`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct CanReadArgs {
    /// The secret, by NAME, ID or msec/OBJECT
    #[arg(value_name = "NAME|ID", add = completion::secrets())]
    pub secret: String,

    /// Namespace of the operator and its keys
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE",
        default_value = DEFAULT_OPERATOR_NAMESPACE, value_parser = names::namespace)]
    pub operator_namespace: String,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Format,
}

/// How the answer is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// A line for each way to the value
    #[default]
    Text,
    /// JSON, for programs
    Json,
}

/// One way to the value, and the permission that opens it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Way {
    through: String,
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    name: Option<String>,
    namespace: String,
    /// Why this permission opens nothing at the moment.
    closed: Option<&'static str>,
}

/// A way, and whether it is open.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    through: String,
    /// `yes`, `no` or `unknown`.
    allowed: &'static str,
    /// Whether the value can be read in this way now.
    open: bool,
    check: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Who is asked about.
struct Reader {
    user: String,
    groups: Vec<String>,
    uid: Option<String>,
}

/// Shows who can read the value of a secret.
pub(super) async fn can_read(cluster: &ClusterArgs, args: &CanReadArgs) -> Result<(), CliError> {
    let reader = Reader::of(cluster)?;
    let session = Session::open(&cluster.without_impersonation())?;
    let object = lookup::one(&session, &args.secret).await?;
    lookup::note_if_only_wanted(&args.secret, &object);
    let is_registered = value_api::is_registered(&session.client).await;
    let is_registered = is_registered.map_err(|error| CliError::unreachable("cannot call the cluster", &error))?;
    let ways = ways(&object, &session.namespace, &args.operator_namespace, is_registered);
    let findings = join_all(ways.iter().map(|way| find(&session, reader.as_ref(), way))).await;
    let findings = findings.into_iter().collect::<Result<Vec<_>, _>>()?;
    let is_open = findings.iter().any(|finding| finding.open);
    let who = reader.as_ref().map_or("you", |reader| reader.user.as_str());
    match args.output {
        Format::Json => {
            let status = object.status.unwrap_or_default();
            say::print_json(&json!({
                "user": reader.as_ref().map(|reader| &reader.user),
                "namespace": session.namespace, "name": status.name.unwrap_or(object.spec.name), "id": status.id,
                "object": object.metadata.name, "canRead": is_open, "ways": findings,
            }))?;
        }
        Format::Text => {
            let can = if is_open { "can" } else { "cannot" };
            let name = object.status.and_then(|status| status.name).unwrap_or(object.spec.name);
            say::print_line(format_args!(
                "{who} {can} read the value of {name} in the namespace {}",
                session.namespace
            ))?;
            say::print_document(&table(&findings).render(Layout::of_standard_output(true)))?;
        }
    }
    if is_open { Ok(()) } else { Err(CliError::Found(Exit::Failed)) }
}

impl Reader {
    /// Whom the flags name; `None` is the user who asks.
    fn of(cluster: &ClusterArgs) -> Result<Option<Self>, CliError> {
        let text = |flag: &Option<String>| flag.clone().filter(|text| !text.is_empty());
        let Some(user) = text(&cluster.as_user) else {
            let rest = cluster.as_group.iter().any(|group| !group.is_empty()) || text(&cluster.as_uid).is_some();
            let usage = || CliError::Usage("--as-group and --as-uid need --as".to_owned());
            return if rest { Err(usage()) } else { Ok(None) };
        };
        let groups = groups(&user, &cluster.as_group);
        Ok(Some(Self { user, groups, uid: text(&cluster.as_uid) }))
    }
}

/// All groups of a user: those that are given, and those that the API server adds, as for impersonation
/// (`WithImpersonation` in apiserver's `pkg/endpoints/filters`).
fn groups(user: &str, given: &[String]) -> Vec<String> {
    let mut groups: Vec<String> = given.iter().filter(|group| !group.is_empty()).cloned().collect();
    let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    if let Some((namespace, _)) = account.filter(|_| groups.is_empty()) {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let added = if user == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    let is_known = |group: &String| ["system:unauthenticated", "system:authenticated"].contains(&group.as_str());
    if !groups.iter().any(is_known) {
        groups.push(added.to_owned());
    }
    groups
}

/// Every way to the value. Pure.
fn ways(object: &ManagedSecret, namespace: &str, operator_namespace: &str, is_registered: bool) -> Vec<Way> {
    let status = object.status.clone().unwrap_or_default();
    let get = |through: String, resource, name: Option<String>, closed| Way {
        through,
        verb: "get",
        group: "",
        resource,
        name,
        namespace: namespace.to_owned(),
        closed,
    };
    let mut ways = Vec::new();
    let target = status.target.map(|target| target.name);
    if let Some(name) = &target {
        ways.push(get(format!("delivered Secret {name}"), "secrets", Some(name.clone()), None));
    }
    let wanted = object.spec.target_name(object.metadata.name.as_deref().unwrap_or_default());
    if object.spec.delivery() == Delivery::Secret && target.as_deref() != Some(wanted) {
        let closed = Some("the value is not delivered there yet");
        ways.push(get(format!("wanted Secret {wanted}"), "secrets", Some(wanted.to_owned()), closed));
    }
    let not_installed = (!is_registered).then_some("the value API is not installed");
    let by = |how: &str, handle: &str, closed: Option<&'static str>| Way {
        through: format!("value API, by {how} {handle}"),
        verb: value::VERB,
        group: value::GROUP,
        resource: value::PLURAL,
        name: Some(handle.to_owned()),
        namespace: namespace.to_owned(),
        closed: not_installed.or(closed),
    };
    let current = status.name.clone().unwrap_or_else(|| object.spec.name.clone());
    let not_yet = status.name.is_none().then_some("the operator has not stored the value yet");
    ways.push(by("name", &current, not_yet));
    if current != object.spec.name {
        let wanted = Some("the secret waits for this name");
        ways.push(by("name", &object.spec.name, wanted));
    }
    ways.extend(status.id.as_deref().map(|id| by("id", id, None)));
    if let Some(from) = &object.spec.value_from {
        let name = from.secret_key_ref.name.clone();
        ways.push(get(format!("source Secret {name} (valueFrom)"), "secrets", Some(name), None));
    }
    if target.is_some() {
        let pods = get("pod that mounts the delivered Secret".to_owned(), "pods", None, None);
        ways.push(Way { verb: "create", ..pods });
    }
    let keys = get("record, with the operator's keys".to_owned(), "secrets", None, None);
    ways.push(Way { namespace: operator_namespace.to_owned(), ..keys });
    ways
}

impl Way {
    fn attributes(&self) -> ResourceAttributes {
        ResourceAttributes {
            verb: Some(self.verb.to_owned()),
            group: Some(self.group.to_owned()),
            resource: Some(self.resource.to_owned()),
            name: self.name.clone(),
            namespace: Some(self.namespace.clone()),
            ..ResourceAttributes::default()
        }
    }

    /// The command that checks the permission.
    fn check(&self, reader: Option<&Reader>) -> String {
        let resource = if self.group == value::GROUP { value::RESOURCE } else { self.resource };
        let permission = Permission::to(self.verb, resource);
        let permission = self.name.as_deref().map_or(permission, |name| permission.named(name)).within(&self.namespace);
        reader.map_or_else(|| permission.to_string(), |reader| format!("{permission} --as {}", reader.user))
    }
}

/// Asks the API server about one way.
async fn find(session: &Session, reader: Option<&Reader>, way: &Way) -> Result<Finding, CliError> {
    let answer = match reader {
        None => {
            let spec = SelfSubjectAccessReviewSpec {
                resource_attributes: Some(way.attributes()),
                ..SelfSubjectAccessReviewSpec::default()
            };
            let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
            let reviews = Api::<SelfSubjectAccessReview>::all(session.client.clone());
            reviews.create(&PostParams::default(), &review).await.map(|review| review.status)
        }
        Some(reader) => {
            let spec = SubjectAccessReviewSpec {
                user: Some(reader.user.clone()),
                groups: Some(reader.groups.clone()),
                uid: reader.uid.clone(),
                resource_attributes: Some(way.attributes()),
                ..SubjectAccessReviewSpec::default()
            };
            let metadata = ObjectMeta { namespace: Some(way.namespace.clone()), ..ObjectMeta::default() };
            let review = LocalSubjectAccessReview { metadata, spec, status: None };
            let reviews = Api::<LocalSubjectAccessReview>::namespaced(session.client.clone(), &way.namespace);
            reviews.create(&PostParams::default(), &review).await.map(|review| review.status)
        }
    };
    let (allowed, unknown) = match answer {
        Ok(status) => (Some(is_allowed(status.as_ref())), None),
        // One namespace's administrator may not ask about another namespace.
        Err(kube::Error::Api(status)) if status.code == 403 && reader.is_some() => {
            let permission = Permission::to("create", "localsubjectaccessreviews.authorization.k8s.io");
            (None, Some(format!("needs `{}`", permission.within(&way.namespace))))
        }
        Err(error) => return Err(CliError::from_kube("cannot check the permission", &error)),
    };
    Ok(Finding {
        through: way.through.clone(),
        allowed: match allowed {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        },
        open: allowed == Some(true) && way.closed.is_none(),
        check: way.check(reader),
        note: unknown.or_else(|| way.closed.filter(|_| allowed == Some(true)).map(str::to_owned)),
    })
}

fn is_allowed(status: Option<&SubjectAccessReviewStatus>) -> bool {
    status.is_some_and(|status| status.allowed)
}

/// A row for each way.
fn table(findings: &[Finding]) -> Table {
    let has_notes = findings.iter().any(|finding| finding.note.is_some());
    let mut columns = vec!["THROUGH", "ALLOWED", "CHECK"];
    columns.extend(has_notes.then_some("NOTE"));
    let row = |finding: &Finding| {
        let mut row = vec![finding.through.clone(), finding.allowed.to_owned(), finding.check.clone()];
        row.extend(has_notes.then(|| finding.note.clone().unwrap_or_default()));
        row
    };
    Table { columns: columns.into_iter().map(str::to_owned).collect(), rows: findings.iter().map(row).collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ID: &str = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";

    fn object(spec: &serde_json::Value, status: &serde_json::Value) -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": "db"},
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn seen(object: &ManagedSecret, is_registered: bool) -> Vec<(String, bool)> {
        let ways = ways(object, "shop", "system", is_registered);
        ways.into_iter().map(|way| (way.through, way.closed.is_none())).collect()
    }

    fn way(text: &str, is_open: bool) -> (String, bool) {
        (text.to_owned(), is_open)
    }

    #[test]
    fn every_way_to_a_value_is_asked_about() {
        let target = json!({"name": "db", "key": "value", "uid": "u", "resourceVersion": "1"});
        let delivered =
            object(&json!({"name": "DB", "generate": {}}), &json!({"name": "DB", "id": ID, "target": target}));
        let by_id = format!("value API, by id {ID}");
        let record = "record, with the operator's keys";
        let all = [
            way("delivered Secret db", true),
            way("value API, by name DB", true),
            way(&by_id, true),
            way("pod that mounts the delivered Secret", true),
            way(record, true),
        ];
        assert_eq!(seen(&delivered, true), all);
        assert_eq!(seen(&delivered, false)[1..3], [way("value API, by name DB", false), way(&by_id, false)]);
        let kept = object(&json!({"name": "DB", "generate": {}, "delivery": "None"}), &json!({"name": "DB", "id": ID}));
        assert_eq!(seen(&kept, true), [way("value API, by name DB", true), way(&by_id, true), way(record, true)]);
    }

    #[test]
    fn what_is_only_wanted_is_not_open() {
        let target = json!({"name": "old", "key": "value", "uid": "u", "resourceVersion": "1"});
        let from = json!({"secretKeyRef": {"name": "upstream", "key": "k"}});
        let moving = object(
            &json!({"name": "NEW", "valueFrom": from, "target": {"name": "new"}}),
            &json!({"name": "OLD", "id": ID, "target": target}),
        );
        let found = seen(&moving, true);
        for (text, is_open) in [
            ("delivered Secret old", true),
            ("wanted Secret new", false),
            ("value API, by name OLD", true),
            ("value API, by name NEW", false),
            ("source Secret upstream (valueFrom)", true),
        ] {
            assert!(found.contains(&way(text, is_open)), "{text}: {found:?}");
        }
        let new = object(&json!({"name": "DB", "generate": {}}), &json!(null));
        let found = seen(&new, true);
        assert_eq!(found[..2], [way("wanted Secret db", false), way("value API, by name DB", false)]);
    }

    #[test]
    fn groups_are_those_that_the_api_server_gives() {
        let of = |user: &str, given: &[&str]| -> BTreeSet<String> {
            groups(user, &given.iter().map(|&group| group.to_owned()).collect::<Vec<_>>()).into_iter().collect()
        };
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(of("ann", &[]), set(&["system:authenticated"]));
        assert_eq!(of("ann", &["dev", ""]), set(&["dev", "system:authenticated"]));
        let account = "system:serviceaccount:shop:web";
        let own = ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"];
        assert_eq!(of(account, &[]), set(&own));
        assert_eq!(of("system:anonymous", &[]), set(&["system:unauthenticated"]));
    }

    #[test]
    fn the_check_is_a_command_for_the_user_who_is_asked_about() {
        let kept = object(&json!({"name": "DB", "generate": {}, "delivery": "None"}), &json!({"name": "DB"}));
        let ways = ways(&kept, "shop", "system", true);
        let reader = Reader { user: "ann".to_owned(), groups: Vec::new(), uid: None };
        let check = "kubectl auth can-i get secretvalues.values.managedsecrets.dev/DB -n shop";
        assert_eq!(ways[0].check(None), check);
        assert_eq!(ways[0].check(Some(&reader)), format!("{check} --as ann"));
        assert_eq!(ways.last().unwrap().check(None), "kubectl auth can-i get secrets -n system");
    }
}
