//! `kubectl msec describe`: one secret in words, and what to do if it is not ready.
//!
//! ```text
//! lookup ─┬─ spec and status ──────────────▶ Facts ─▶ text
//!         ├─ the public key (ConfigMap) ───▶   │
//!         ├─ what uses the Secret ────────▶   │
//!         └─ what happened (events) ───────▶   │
//! ```
//!
//! Each part beside the object needs a permission of its own: a part that may not be read is shown as unknown, with the
//! permission that it needs, and the other parts are shown. It never shows a value: it does not even read the target
//! Secret.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::Api;
use kube::api::ListParams;
use managed_secrets_api::expiry::Expiry;
use managed_secrets_api::keys::{DEFAULT_OPERATOR_NAMESPACE, PUBLIC_KEY_CONFIGMAP, PUBLIC_KEY_DATA_KEY};
use managed_secrets_api::overlap::{self, Overlap};
use managed_secrets_api::types::{Adoption, DeletionPolicy, Delivery, EarlierVersion, Generate};
use managed_secrets_api::{ManagedSecret, Reason, value};
use managed_secrets_cli::names;
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::say::Lines;
use managed_secrets_cli::{CliError, sealing_key};
use managed_secrets_crypto::KeyId;
use managed_secrets_crypto::mss1::{Handling, Scope, Sealed};

use super::completion;
use super::lookup;
use super::restarts::{self, Restarted};
use super::session::{ClusterArgs, Session};
use super::state::State;
use super::table::age;
use super::users::{self, Users};
use super::value_api::ValueApi;

const EXAMPLES: &str = "\
Examples:
  kubectl msec describe WEATHER_API_KEY
  kubectl msec describe 2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";

/// Arguments of `describe`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct DescribeArgs {
    /// The secret, by NAME, ID or msec/OBJECT
    #[arg(value_name = "NAME|ID", add = completion::secrets())]
    pub secret: String,

    /// Namespace that the cluster's public key is read from
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE",
        default_value = DEFAULT_OPERATOR_NAMESPACE, value_parser = names::namespace)]
    pub operator_namespace: String,
}

/// A part that may be unknown; the text says why.
type Part<T> = Result<T, String>;

/// Everything that the command shows, read at one time.
struct Facts {
    object: ManagedSecret,
    namespace: String,
    /// The id of the current public key; none if it is not relevant.
    key: Option<Part<KeyId>>,
    /// What uses the target; none if there is no target.
    users: Option<Users>,
    /// The workloads that a new value restarts.
    restarts: Vec<Restarted>,
    /// How the value API can be called.
    value_api: Part<ValueApi>,
    events: Part<Vec<Event>>,
    now: Timestamp,
}

/// Describes one secret.
pub(super) async fn describe(cluster: &ClusterArgs, args: &DescribeArgs) -> Result<(), CliError> {
    let session = Session::open(cluster)?;
    let object = lookup::one(&session, &args.secret).await?;
    lookup::note_if_only_wanted(&args.secret, &object);
    let key = async {
        object.spec.value.as_ref()?;
        Some(present_key(&session, &args.operator_namespace).await.map_err(|error| error.to_string()))
    };
    let users = async {
        let target = object.status.as_ref()?.target.as_ref()?;
        Some(users::of_secret(&session, &target.name).await)
    };
    let value_api = ValueApi::find(&session.client, &args.operator_namespace);
    let restarts = restarts::of(&session, &object);
    let (key, users, restarts, value_api, events) =
        tokio::join!(key, users, restarts, value_api, events(&session, &object));
    let value_api = value_api.map_err(|error| error.to_string());
    let events = events.map_err(|error| error.to_string());
    let facts = Facts {
        namespace: session.namespace.clone(),
        key,
        users,
        restarts,
        value_api,
        events,
        now: Timestamp::now(),
        object,
    };
    facts.text().print()
}

async fn present_key(session: &Session, namespace: &str) -> Result<KeyId, CliError> {
    let permission = Permission::to("get", "configmaps").named(PUBLIC_KEY_CONFIGMAP).within(namespace);
    let map = Api::<ConfigMap>::namespaced(session.client.clone(), namespace).get_opt(PUBLIC_KEY_CONFIGMAP).await;
    let map = map.map_err(|error| permission.explain("cannot read the public key", &error))?;
    let document = map.and_then(|map| map.data?.remove(PUBLIC_KEY_DATA_KEY));
    let document = document.ok_or_else(|| {
        CliError::Failed(format!(
            "public key not found in namespace {namespace}; name the operator's namespace with --operator-namespace"
        ))
    })?;
    sealing_key::check(&document, None).map(|published| published.key.key_id())
}

/// The events about this very object, the newest last.
async fn events(session: &Session, object: &ManagedSecret) -> Result<Vec<Event>, CliError> {
    let permission = Permission::to("list", "events").within(&session.namespace);
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let list = session.api::<Event>().list(&params).await;
    let mut events = list.map_err(|error| permission.explain("cannot list events", &error))?.items;
    events.sort_by_key(last_seen);
    Ok(events)
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let own = event.event_time.as_ref().map(|time| time.0);
    let old = event.last_timestamp.as_ref().map(|time| time.0);
    series.or(own).or(old).or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

impl Facts {
    fn text(&self) -> Lines {
        let mut text = Lines::new();
        for (name, value) in self.lines() {
            text.line(format_args!("{:<16}{value}", format!("{name}:")));
        }
        self.conditions(&mut text);
        self.users(&mut text);
        self.restarts(&mut text);
        self.events(&mut text);
        let advice = self.advice();
        if !advice.is_empty() {
            text.line("What to do:");
            for line in advice {
                text.line(format_args!("  {line}"));
            }
        }
        text
    }

    fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let (spec, status) = (&self.object.spec, self.object.status.clone().unwrap_or_default());
        let value_api = value_api(&self.value_api, status.id.as_deref(), &self.namespace);
        let name = match &status.name {
            Some(name) if *name != spec.name => format!("{name} (current; wanted: {})", spec.name),
            _ => spec.name.clone(),
        };
        let date = |date: Option<String>| {
            let date = date.unwrap_or_else(|| "never".to_owned());
            let age = date.parse().ok().map(|at| format!(" ({} ago)", age(at, self.now))).unwrap_or_default();
            format!("{}{age}", &date)
        };
        let version = match (status.version, status.delivered) {
            (None, _) => "none yet".to_owned(),
            (Some(version), None) => version.to_string(),
            (Some(version), Some(delivered)) => format!("{version} (the delivered one is {delivered})"),
        };
        let earlier: Vec<_> = status.history.iter().flatten().map(|kept| kept.version.to_string()).collect();
        let mut lines = vec![
            ("Secret", name),
            ("ID", status.id.unwrap_or_else(|| "none yet".to_owned())),
            ("Object", format!("msec/{} in the namespace {}", self.name(), self.namespace)),
            ("Description", spec.description.as_deref().unwrap_or("none").to_owned()),
            ("State", State::of(&self.object).to_string()),
            ("Version", version),
            ("Created", date(status.created_date)),
            ("Updated", date(status.updated_date)),
            ("Value updated", date(status.value_updated_time)),
            ("Source", self.source()),
            ("Record", status.record.map_or_else(|| "none yet".to_owned(), |record| format!("Secret {}", record.name))),
        ];
        if let Some(expiry) = Expiry::of(spec) {
            lines.push(("Expires", expires(&expiry, self.now)));
        }
        if !earlier.is_empty() {
            lines.push(("Earlier values", earlier.join(", ")));
        }
        lines.push(("Target", self.target()));
        if let Some(template) = spec.template() {
            let keys: Vec<&str> = template.keys().map(String::as_str).collect();
            lines.push(("Template", format!("keys {}", keys.join(", "))));
        }
        if let Some(previous) = self.previous() {
            // What follows from the spec and the dates is true of a target that follows them.
            let is_ready = matches!(State::of(&self.object), State::Served);
            lines.push((
                "Previous value",
                if is_ready { previous } else { "unknown until the secret is ready".to_owned() },
            ));
        }
        lines.push(("Value API", value_api));
        lines.push(("On deletion", self.policy()));
        lines
    }

    /// Where the previous value is delivered, and until when.
    fn previous(&self) -> Option<String> {
        let (spec, status) = (&self.object.spec, self.object.status.as_ref()?);
        let key = overlap::key(spec).filter(|_| spec.delivery() == Delivery::Secret)?;
        let mut history = status.history.iter().flatten();
        let replaced = history.clone().find(|kept| kept.delivered_until.is_some());
        let is_previous = |kept: &&EarlierVersion| match status.delivered {
            Some(delivered) => replaced.is_some() && kept.version < delivered,
            None => replaced.is_some() || status.version == Some(kept.version + 1),
        };
        let previous = replaced.or_else(|| history.next()).filter(is_previous);
        let until = replaced.and_then(|kept| kept.delivered_until.as_deref());
        let since = until.or(status.value_updated_time.as_deref()).unwrap_or_default();
        let overlap = Overlap::of(spec, since, self.now);
        Some(match (previous, overlap) {
            (Some(previous), Overlap::Until(end)) => {
                format!("version {}, key {key} until {end}", previous.version)
            }
            (Some(previous), Overlap::Open) => {
                format!("version {}, key {key} until the next value", previous.version)
            }
            _ => format!("none now (key {key})"),
        })
    }

    fn source(&self) -> String {
        let spec = &self.object.spec;
        if let Some(generate) = &spec.generate {
            return self.generated(generate);
        }
        if let Some(from) = &spec.value_from {
            return format!("key {} of the Secret {}", from.secret_key_ref.key, from.secret_key_ref.name);
        }
        let Some(value) = &spec.value else { return "none".to_owned() };
        let Ok(sealed) = Sealed::parse(&value.0) else { return "an invalid sealed value".to_owned() };
        let scope = match sealed.scope() {
            Scope::Strict { namespace, name } => format!("for msec/{name} in the namespace {namespace} only"),
            Scope::Namespace { namespace } => format!("for the namespace {namespace}"),
            Scope::Cluster => "for the whole cluster".to_owned(),
        };
        let key = match &self.key {
            None => String::new(),
            Some(Ok(present)) if *present == sealed.key_id() => " (current)".to_owned(),
            Some(Ok(present)) => format!(" (the current key is {present}; `kubectl msec reseal` changes to it)"),
            Some(Err(why)) => format!(" (the current key is unknown: {why})"),
        };
        let kept = match sealed.handling() {
            Handling::Kept => {
                ", kept (delivering it needs the permission to get secretvalues.values.managedsecrets.dev)"
            }
            Handling::Deliverable => "",
        };
        format!("sealed value {scope}{kept}, key {}{key}", sealed.key_id())
    }

    fn generated(&self, generate: &Generate) -> String {
        let again = generate.rotate_every.is_some() || generate.revision.is_some();
        let once = if again { "" } else { " once" };
        let next = self.object.status.as_ref().and_then(|status| status.next_rotation.as_deref());
        let next = next.map(|next| format!(" (next: {next})")).unwrap_or_default();
        let every = generate.rotate_every.as_ref().map(|every| format!("; rotated every {every}{next}"));
        let revision = generate.revision.as_ref().map(|revision| format!("; revision {revision}"));
        format!(
            "generated{once}: {} characters, {:?}{}{}",
            generate.length(),
            generate.alphabet(),
            every.unwrap_or_default(),
            revision.unwrap_or_default()
        )
    }

    fn target(&self) -> String {
        let spec = &self.object.spec;
        let key =
            |key: Option<&str>| key.map_or_else(|| "no key with the value".to_owned(), |key| format!("key {key}"));
        let wanted = match spec.delivery() {
            Delivery::None => "none (spec.delivery: None)".to_owned(),
            Delivery::Secret => {
                let name = spec.target_name(self.name());
                format!("Secret {name}, {}, type {}", key(spec.value_key()), spec.target_type())
            }
        };
        let in_force = self.object.status.as_ref().and_then(|status| status.target.as_ref());
        match in_force {
            Some(target)
                if spec.delivery() == Delivery::Secret
                    && target.name == spec.target_name(self.name())
                    && target.key == spec.value_key().unwrap_or_default() =>
            {
                wanted
            }
            Some(target) => {
                let current = key(Some(target.key.as_str()).filter(|key| !key.is_empty()));
                format!("Secret {}, {current} (current; wanted: {wanted})", target.name)
            }
            None if spec.delivery() == Delivery::None => wanted,
            None => format!("none yet (wanted: {wanted})"),
        }
    }

    fn policy(&self) -> String {
        let wanted = self.object.spec.deletion_policy();
        let in_force = self.object.status.as_ref().and_then(|status| status.deletion_policy);
        let text = |policy| match policy {
            DeletionPolicy::Delete => "record and target are deleted (Delete)",
            DeletionPolicy::Retain => "record and target stay, and the name stays taken (Retain)",
        };
        match in_force {
            Some(DeletionPolicy::Delete)
                if wanted == DeletionPolicy::Delete && self.object.spec.adoption() == Adoption::IfUnowned =>
            {
                "record and target are deleted (Delete); an adopted target stays".to_owned()
            }
            Some(policy) if policy == wanted => text(policy).to_owned(),
            Some(policy) => format!("{}; wanted, but not effective yet: {}", text(policy), text(wanted)),
            None => format!("not effective yet: {}", text(wanted)),
        }
    }

    fn conditions(&self, text: &mut Lines) {
        let conditions =
            self.object.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        text.line("Conditions:");
        for condition in conditions {
            let since = age(condition.last_transition_time.0, self.now);
            let old = condition.observed_generation.is_some_and(|at| Some(at) != self.object.metadata.generation);
            let old = if old { ", of an older generation" } else { "" };
            let (type_, status, reason) = (&condition.type_, &condition.status, &condition.reason);
            text.line(format_args!("  {type_} is {status} for {since}{old}: {reason}"));
            text.line(format_args!("    {}", condition.message));
            if let Some(reason) = Reason::ALL.iter().find(|reason| reason.as_str() == condition.reason) {
                text.line(format_args!("    {}", plain(reason.description())));
            }
        }
        if conditions.is_empty() {
            text.line("  none: the operator has not looked at this object");
        }
    }

    fn users(&self, text: &mut Lines) {
        text.line("Used by:");
        let Some(users) = &self.users else {
            text.line("  nothing: there is no Secret");
            return;
        };
        for user in &users.known {
            text.line(format_args!("  {user}"));
        }
        let unknown = users.unknown(&self.namespace);
        for why in &unknown {
            text.line(format_args!("  unknown: {why}"));
        }
        if users.known.is_empty() && unknown.is_empty() {
            text.line(
                "  nothing: no pod, workload, service account, Ingress, ManagedSecret or BackendTLSPolicy of the \
                 namespace, and no Gateway or ListenerSet of the cluster",
            );
        }
    }

    fn restarts(&self, text: &mut Lines) {
        if !self.restarts.is_empty() {
            text.line("Restarted by a new value:");
        }
        for restarted in &self.restarts {
            text.line(format_args!("  {restarted}"));
        }
    }

    fn events(&self, text: &mut Lines) {
        text.line("Events:");
        let events = match &self.events {
            Ok(events) => events,
            Err(why) => {
                text.line(format_args!("  unknown: {why}"));
                return;
            }
        };
        for event in events {
            let seen = last_seen(event).map_or_else(|| "?".to_owned(), |at| age(at, self.now));
            let count = event.series.as_ref().and_then(|series| series.count).or(event.count).unwrap_or(1);
            let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
            text.line(format_args!(
                "  {seen} ago  {}  {}{times}: {}",
                event.type_.as_deref().unwrap_or("Normal"),
                event.reason.as_deref().unwrap_or_default(),
                event.message.as_deref().unwrap_or_default()
            ));
        }
        if events.is_empty() {
            text.line("  none that the cluster still keeps");
        }
    }

    /// What to do if it is not ready: the description of the reason, and commands if there are some.
    fn advice(&self) -> Vec<String> {
        let reason = match State::of(&self.object) {
            State::Served => return Vec::new(),
            State::Suspended => Reason::Suspended,
            State::Waiting(why) | State::Stalled(why) => {
                let known = Reason::ALL.iter().find(|reason| reason.as_str() == why.reason);
                let Some(known) = known else {
                    return vec![format!(
                        "This program does not know the reason {}; use the program of the operator's version",
                        why.reason
                    )];
                };
                *known
            }
        };
        let (namespace, object) = (&self.namespace, format!("msec/{}", self.name()));
        let mut lines = vec![plain(reason.description())];
        lines.extend(match reason {
            Reason::Pending => Some(format!("kubectl msec doctor -n {namespace}")),
            Reason::Suspended => Some(format!(
                "kubectl patch {object} -n {namespace} --type merge -p '{{\"spec\":{{\"suspend\":null}}}}'"
            )),
            Reason::NameInUse | Reason::NameCollision => {
                Some(format!("kubectl msec update {object} -n {namespace} --name NEW"))
            }
            Reason::SealedMalformed
            | Reason::SealedForAnotherPlace
            | Reason::SealedScopeNotAllowed
            | Reason::SealedWithUnknownKey
            | Reason::SealedWithRevokedKey
            | Reason::SealedWithRetiredKey
            | Reason::SealedTampered => Some(format!("kubectl msec update {object} -n {namespace} --value-stdin")),
            _ => None,
        });
        lines
    }
}

/// A reason's description on a terminal, without the Markdown of its documentation.
fn plain(description: &str) -> String {
    description.replace('`', "")
}

/// When the value expires, and from when on the operator warns.
fn expires(expiry: &Expiry, now: Timestamp) -> String {
    let away = |at: Timestamp| {
        if at <= now { format!("{at} ({} ago)", age(at, now)) } else { format!("{at} (in {})", age(now, at)) }
    };
    let warned = if now < expiry.warns_from { "the warning begins" } else { "the warning began" };
    format!("{}; {warned} {}", away(expiry.at), away(expiry.warns_from))
}

/// Where the value API has the value.
fn value_api(api: &Part<ValueApi>, id: Option<&str>, namespace: &str) -> String {
    match (api, id) {
        (Ok(ValueApi::Registered), Some(id)) => format!("{}/{id} in the namespace {namespace}", value::RESOURCE),
        (Ok(ValueApi::Registered), None) => "no value yet".to_owned(),
        (Ok(ValueApi::Direct), _) => "through the operator's Service only".to_owned(),
        (Ok(ValueApi::Off | ValueApi::Unknown), _) => "not registered".to_owned(),
        (Err(why), _) => format!("unknown: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_api_is_said_as_it_can_be_called() {
        let said = |api| value_api(&Ok(api), Some("the-id"), "shop");
        assert_eq!(said(ValueApi::Registered), "secretvalues.values.managedsecrets.dev/the-id in the namespace shop");
        assert_eq!(value_api(&Ok(ValueApi::Registered), None, "shop"), "no value yet");
        assert_eq!(said(ValueApi::Direct), "through the operator's Service only");
        for api in [ValueApi::Off, ValueApi::Unknown] {
            assert_eq!(said(api), "not registered");
        }
        assert_eq!(value_api(&Err("no answer".to_owned()), None, "shop"), "unknown: no answer");
    }

    #[test]
    fn an_expiry_says_how_far_away_it_is() {
        let at = |second| Timestamp::from_second(second).unwrap_or_default();
        let expiry = Expiry { at: at(10 * 86_400), warns_from: at(7 * 86_400) };
        for (now, text) in [
            (0, "1970-01-11T00:00:00Z (in 10d); the warning begins 1970-01-08T00:00:00Z (in 7d)"),
            (8 * 86_400, "1970-01-11T00:00:00Z (in 2d); the warning began 1970-01-08T00:00:00Z (24h ago)"),
            (12 * 86_400, "1970-01-11T00:00:00Z (2d ago); the warning began 1970-01-08T00:00:00Z (5d ago)"),
        ] {
            assert_eq!(expires(&expiry, at(now)), text);
        }
    }
}
