//! `kubectl msec can-read`: who can read the value of a secret, and through what.
//!
//! ```text
//! lookup, or retained record ─▶ ways to the value (pure) ─▶ the API server's authorizer ─▶ table or JSON, and the exit code
//! ```
//!
//! For the user who asks, the command creates `SelfSubjectAccessReview`s, which every user may do. For another user (`--as`),
//! it creates `LocalSubjectAccessReview`s, which the built-in role `admin` includes. Nothing is impersonated, so the other
//! user's permissions do not limit what the command sees.

use clap::Args;
use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use managed_secrets_api::keys::{DEFAULT_OPERATOR_NAMESPACE, LABEL_ID, LABEL_ROLE, ROLE_RECORD};
use managed_secrets_api::names::record_name;
use managed_secrets_api::record::{Delivered, RecordMeta, StoredRecord};
use managed_secrets_api::types::{Delivery, ManagedSecretSpec, ManagedSecretStatus};
use managed_secrets_api::{ManagedSecret, value};
use managed_secrets_cli::error::Exit;
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, names, say};
use serde::Serialize;
use serde_json::json;

use super::completion;
use super::lookup::{self, Called};
use super::output::ReportFormat;
use super::session::{ClusterArgs, Session};
use super::table::{Layout, Table};
use super::value_api::ValueApi;

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
    pub output: ReportFormat,
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
    /// What is to be known of a way that is open.
    remark: Option<&'static str>,
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
    let called = Called::parse(&args.secret)?;
    let api = ValueApi::find(&session.client, &args.operator_namespace).await;
    let api = api.map_err(|error| CliError::unreachable("cannot call the cluster", &error))?;
    let (namespace, operators) = (session.namespace.as_str(), args.operator_namespace.as_str());
    let (object, ways) = if let Some(object) = lookup::one_if_any(&session, &called).await? {
        lookup::note_if_only_wanted(&args.secret, &object);
        let ways = ways(&object, namespace, operators, api);
        (object, ways)
    } else {
        let record = retained(&session, &called).await.ok_or_else(|| called.not_found(namespace))?;
        say::tell(format_args!("note: no ManagedSecret has this secret; its record was retained"));
        let ways = ways_to_record(&record, namespace, operators, api);
        (former(&record), ways)
    };
    let findings = join_all(ways.iter().map(|way| find(&session, reader.as_ref(), way))).await;
    let findings = findings.into_iter().collect::<Result<Vec<_>, _>>()?;
    let is_open = findings.iter().any(|finding| finding.open);
    let who = reader.as_ref().map_or("you", |reader| reader.user.as_str());
    match args.output {
        ReportFormat::Json => {
            let status = object.status.unwrap_or_default();
            say::print_json(&json!({
                "user": reader.as_ref().map(|reader| &reader.user),
                "namespace": session.namespace, "name": status.name.unwrap_or(object.spec.name), "id": status.id,
                "object": object.metadata.name, "canRead": is_open, "ways": findings,
            }))?;
        }
        ReportFormat::Text => {
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
fn ways(object: &ManagedSecret, namespace: &str, operator_namespace: &str, api: ValueApi) -> Vec<Way> {
    let status = object.status.clone().unwrap_or_default();
    let mut ways = Vec::new();
    let target = status.target.map(|target| target.name);
    if let Some(name) = &target {
        ways.extend(secret(&format!("delivered Secret {name}"), Some(name), namespace, None));
    }
    let wanted = object.spec.target_name(object.metadata.name.as_deref().unwrap_or_default());
    if object.spec.delivery() == Delivery::Secret && target.as_deref() != Some(wanted) {
        let closed = Some("the value is not delivered there yet");
        ways.extend(secret(&format!("wanted Secret {wanted}"), Some(wanted), namespace, closed));
    }
    let by = |how: &str, handle: &str, closed: Option<&'static str>| api.way(how, handle, namespace, closed);
    let current = status.name.clone().unwrap_or_else(|| object.spec.name.clone());
    let not_yet = status.name.is_none().then_some("the operator has not stored the value yet");
    ways.push(by("name", &current, not_yet));
    if current != object.spec.name {
        let wanted = Some("the secret waits for this name");
        ways.push(by("name", &object.spec.name, wanted));
    }
    ways.extend(status.id.as_deref().map(|id| by("id", id, None)));
    if let Some(from) = &object.spec.value_from {
        let name = &from.secret_key_ref.name;
        ways.extend(secret(&format!("source Secret {name} (valueFrom)"), Some(name), namespace, None));
    }
    if target.is_some() {
        let through = "pod that mounts the delivered Secret".to_owned();
        ways.push(Way { through, verb: "create", resource: "pods", ..Way::get_secrets(namespace) });
    }
    ways.extend(secret(KEYS, None, operator_namespace, None));
    ways
}

/// What reads every value.
const KEYS: &str = "record, with the operator's keys";

/// The ways through one Secret, or all of a namespace. A list and a watch of Secrets return their values, as a get does.
fn secret(what: &str, name: Option<&str>, namespace: &str, closed: Option<&'static str>) -> [Way; 3] {
    ["get", "list", "watch"].map(|verb| Way {
        through: if verb == "get" { what.to_owned() } else { format!("{what}, by {verb}") },
        verb,
        name: name.map(str::to_owned),
        closed,
        ..Way::get_secrets(namespace)
    })
}

/// The ways to the value of a record without ManagedSecret.
fn ways_to_record(record: &RecordMeta, namespace: &str, operator_namespace: &str, api: ValueApi) -> Vec<Way> {
    let mut ways = Vec::new();
    // The Secret is retained with the record.
    if let Delivered::Own { name, .. } | Delivered::Adopted { name, .. } = &record.target {
        ways.extend(secret(&format!("delivered Secret {name}"), Some(name), namespace, None));
        let through = "pod that mounts the delivered Secret".to_owned();
        ways.push(Way { through, verb: "create", resource: "pods", ..Way::get_secrets(namespace) });
    }
    ways.push(api.way("name", &record.name, namespace, None));
    ways.push(api.way("id", &record.id, namespace, None));
    ways.extend(secret(KEYS, None, operator_namespace, None));
    ways
}

/// The ManagedSecret that a retained record was of.
fn former(record: &RecordMeta) -> ManagedSecret {
    let mut object = ManagedSecret::new(&record.owner, ManagedSecretSpec::default());
    object.metadata.name = None;
    object.spec.name.clone_from(&record.name);
    object.status = Some(ManagedSecretStatus {
        id: Some(record.id.clone()),
        name: Some(record.name.clone()),
        ..ManagedSecretStatus::default()
    });
    object
}

/// What a record says that no ManagedSecret owns; `None` if there is none, or if the user may not read it.
async fn retained(session: &Session, called: &Called) -> Option<RecordMeta> {
    let secrets = Api::<Secret>::namespaced(session.client.clone(), &session.namespace);
    let by_name = async |name: &str| {
        let found = secrets.get_metadata(&record_name(name)).await.ok()?;
        StoredRecord::of(&found.metadata).map(|record| record.meta).filter(|record| record.name == name)
    };
    match called {
        Called::Object(_) => None,
        Called::Name(name) => by_name(name).await,
        Called::Id(id) => {
            let labels = format!("{LABEL_ROLE}={ROLE_RECORD},{LABEL_ID}={}", id.to_lowercase());
            let found = secrets.list_metadata(&ListParams::default().labels(&labels)).await.ok()?;
            let mut records = found.items.iter().filter_map(|secret| StoredRecord::of(&secret.metadata));
            match records.next() {
                Some(record) => Some(record.meta),
                None => by_name(id).await,
            }
        }
    }
}

impl ValueApi {
    /// The way to a value by a name or an id.
    fn way(self, how: &str, handle: &str, namespace: &str, closed: Option<&'static str>) -> Way {
        Way {
            through: format!("value API, by {how} {handle}"),
            verb: value::VERB,
            group: value::GROUP,
            resource: value::PLURAL,
            name: Some(handle.to_owned()),
            closed: (self == Self::Off).then_some("the operator does not serve the value API").or(closed),
            remark: match self {
                Self::Registered | Self::Off => None,
                Self::Direct => Some("through the operator's Service"),
                Self::Unknown => Some("if the operator runs with --value-api: through its Service"),
            },
            ..Way::get_secrets(namespace)
        }
    }
}

impl Way {
    /// To get every Secret of a namespace.
    fn get_secrets(namespace: &str) -> Self {
        Self {
            through: String::new(),
            verb: "get",
            group: "",
            resource: "secrets",
            name: None,
            namespace: namespace.to_owned(),
            closed: None,
            remark: None,
        }
    }

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
        note: unknown.or_else(|| way.closed.or(way.remark).filter(|_| allowed == Some(true)).map(str::to_owned)),
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

    /// Through what, and whether it can be open. Lists and watches of Secrets are left out.
    fn seen(object: &ManagedSecret, api: ValueApi) -> Vec<(String, bool)> {
        let ways = ways(object, "shop", "system", api).into_iter().filter(|way| !["list", "watch"].contains(&way.verb));
        ways.map(|way| (way.through, way.closed.is_none())).collect()
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
        for api in [ValueApi::Registered, ValueApi::Direct, ValueApi::Unknown] {
            assert_eq!(seen(&delivered, api), all);
        }
        assert_eq!(seen(&delivered, ValueApi::Off)[1..3], [way("value API, by name DB", false), way(&by_id, false)]);
        let kept = object(&json!({"name": "DB", "generate": {}, "delivery": "None"}), &json!({"name": "DB", "id": ID}));
        assert_eq!(
            seen(&kept, ValueApi::Registered),
            [way("value API, by name DB", true), way(&by_id, true), way(record, true)]
        );
    }

    #[test]
    fn a_list_or_a_watch_of_secrets_is_a_way_like_a_get() {
        let target = json!({"name": "db", "key": "value", "uid": "u", "resourceVersion": "1"});
        let delivered = object(&json!({"name": "DB", "generate": {}}), &json!({"name": "DB", "target": target}));
        let ways = ways(&delivered, "shop", "system", ValueApi::Off);
        for (verb, through) in [
            ("get", "delivered Secret db"),
            ("list", "delivered Secret db, by list"),
            ("watch", "delivered Secret db, by watch"),
        ] {
            assert!(
                ways.iter().any(|way| way.verb == verb && way.through == through && way.name.as_deref() == Some("db")),
                "{ways:?}"
            );
        }
    }

    #[test]
    fn a_retained_record_has_the_ways_of_its_secret() {
        let date = || "2026-11-23T09:00:00Z".to_owned();
        let mut record = RecordMeta {
            id: ID.to_owned(),
            owner: "db".to_owned(),
            uid: "uid".to_owned(),
            name: "DB".to_owned(),
            description: String::new(),
            created: date(),
            updated: date(),
            value_updated: date(),
            version: 1,
            generation: 1,
            deletion_policy: managed_secrets_api::types::DeletionPolicy::Retain,
            source: managed_secrets_api::record::Source::Generate { revision: None },
            target: Delivered::None,
            history: managed_secrets_api::record::History::default(),
        };
        let seen = |record: &RecordMeta| -> Vec<String> {
            let ways = ways_to_record(record, "shop", "system", ValueApi::Registered).into_iter();
            ways.filter(|way| !["list", "watch"].contains(&way.verb)).map(|way| way.through).collect()
        };
        let by_id = format!("value API, by id {ID}");
        assert_eq!(seen(&record), ["value API, by name DB", &by_id, KEYS]);
        record.target = Delivered::Own { name: "login".to_owned(), key: "value".to_owned() };
        assert_eq!(seen(&record)[..2], ["delivered Secret login", "pod that mounts the delivered Secret"]);
        let former = former(&record);
        assert_eq!(former.spec.name, "DB");
        assert_eq!(former.status.unwrap().id.as_deref(), Some(ID));
    }

    #[test]
    fn what_is_only_wanted_is_not_open() {
        let target = json!({"name": "old", "key": "value", "uid": "u", "resourceVersion": "1"});
        let from = json!({"secretKeyRef": {"name": "upstream", "key": "k"}});
        let moving = object(
            &json!({"name": "NEW", "valueFrom": from, "target": {"name": "new"}}),
            &json!({"name": "OLD", "id": ID, "target": target}),
        );
        let found = seen(&moving, ValueApi::Registered);
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
        let found = seen(&new, ValueApi::Registered);
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
        let ways = ways(&kept, "shop", "system", ValueApi::Registered);
        let reader = Reader { user: "ann".to_owned(), groups: Vec::new(), uid: None };
        let check = "kubectl auth can-i get secretvalues.values.managedsecrets.dev/DB -n shop";
        assert_eq!(ways[0].check(None), check);
        assert_eq!(ways[0].check(Some(&reader)), format!("{check} --as ann"));
        let keys: Vec<_> = ways.iter().filter(|way| way.namespace == "system").map(|way| way.check(None)).collect();
        assert_eq!(keys, ["get", "list", "watch"].map(|verb| format!("kubectl auth can-i {verb} secrets -n system")));
    }
}
