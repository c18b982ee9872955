//! Finds the object of a secret by what the user calls it: one request, or two if the text looks like an id.
//!
//! `spec.name` and `status.id` are selectable fields, so that neither needs a list of the namespace. A text that looks
//! like an id may be the name of another secret: the command looks for both at the same time, and refuses a text that
//! is both.

use futures::future::try_join_all;
use kube::api::ListParams;
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::keys::{GROUP, KIND};
use managed_secrets_api::limits::{NAME_MAX, NAME_SYMBOLS};
use managed_secrets_cli::names;
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, say};
use uuid::Uuid;

use super::session::Session;

/// What a user calls a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Called {
    /// By its human-friendly name.
    Name(String),
    /// By its id, or by a name that looks like one.
    Id(String),
    /// By `metadata.name`: `msec/OBJECT`.
    Object(String),
}

impl Called {
    /// Parses NAME, ID or msec/OBJECT, and refuses anything else without a request.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        if let Some((kind, object)) = text.split_once('/') {
            let plain = kind.split('.').next().unwrap_or_default().to_lowercase();
            let known = ["msec", "managedsecret", "managedsecrets"].contains(&plain.as_str());
            let group = kind.split_once('.').is_none_or(|(_, group)| group == GROUP);
            if !known || !group || object.is_empty() {
                return Err(CliError::Usage(format!("name a {KIND} by NAME, ID or msec/OBJECT")));
            }
            let object = names::object(object).map_err(|rule| CliError::Usage(format!("msec/OBJECT: {rule}")))?;
            return Ok(Self::Object(object));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || NAME_SYMBOLS.contains(c);
        if !(1..=NAME_MAX).contains(&text.chars().count()) || !text.chars().all(fits) {
            let rule = format!("a name must be 1 to {NAME_MAX} letters, digits and {NAME_SYMBOLS}");
            return Err(CliError::Usage(rule));
        }
        Ok(if looks_like_an_id(text) { Self::Id(text.to_owned()) } else { Self::Name(text.to_owned()) })
    }

    /// The field selectors that find it, each in a request of its own.
    pub(super) fn selectors(&self) -> Vec<String> {
        match self {
            Self::Name(name) => vec![selector("spec.name", name)],
            Self::Id(id) => vec![selector("status.id", &id.to_lowercase()), selector("spec.name", id)],
            Self::Object(object) => vec![selector("metadata.name", object)],
        }
    }

    /// The error for a missing secret.
    pub(super) fn not_found(&self, namespace: &str) -> CliError {
        CliError::Failed(match self {
            Self::Name(name) => format!(
                "secret \"{name}\" not found in namespace \"{namespace}\"; run `kubectl msec list -A -o wide` to see \
                 the names, or name the object as msec/OBJECT"
            ),
            Self::Id(id) => format!(
                "secret with id or name \"{id}\" not found in namespace \"{namespace}\"; run `kubectl msec list -A -o \
                 wide` to see the ids"
            ),
            Self::Object(object) => format!(
                "{KIND} \"{object}\" not found in namespace \"{namespace}\"; run `kubectl msec list -A` to see the \
                 names"
            ),
        })
    }
}

/// Whether a text is a UUID as ids are written: 36 characters with hyphens, in either case.
pub(super) fn looks_like_an_id(text: &str) -> bool {
    text.len() == 36 && Uuid::try_parse(text).is_ok()
}

/// A field selector; `\`, `=` and `,` in the value are escaped (Kubernetes: fields.EscapeValue).
fn selector(field: &str, value: &str) -> String {
    let mut text = format!("{field}=");
    for c in value.chars() {
        if matches!(c, '\\' | '=' | ',') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// Every object of the namespace that is called so: several, if some wait for a name that another holds.
///
/// Fails if the text is the id of one secret and the name of another: it is ambiguous.
pub(super) async fn all(session: &Session, called: &Called) -> Result<Vec<ManagedSecret>, CliError> {
    let permission = Permission::to_objects("list").within(&session.namespace);
    let found = listed(session, called).await;
    chosen(called, found.map_err(|error| permission.explain("cannot look the secret up", &error))?)
}

/// What each selector selects.
async fn listed(session: &Session, called: &Called) -> kube::Result<Vec<Vec<ManagedSecret>>> {
    let list = async |selector: String| {
        let list = session.objects().list(&ListParams::default().fields(&selector)).await;
        list.map(|list| list.items)
    };
    try_join_all(called.selectors().into_iter().map(list)).await
}

fn chosen(called: &Called, found: Vec<Vec<ManagedSecret>>) -> Result<Vec<ManagedSecret>, CliError> {
    if let Called::Id(id) = called {
        unambiguous(id, found.iter().flatten())?;
    }
    Ok(found.into_iter().find(|list| !list.is_empty()).unwrap_or_default())
}

/// Refuses a text that is the id of one secret and the name of another, among the objects that it found as either.
pub(super) fn unambiguous<'a>(
    called: &str,
    found: impl IntoIterator<Item = &'a ManagedSecret>,
) -> Result<(), CliError> {
    let has_id = |object: &&ManagedSecret| {
        let status = object.status.as_ref();
        status.and_then(|status| status.id.as_deref()).is_some_and(|id| id.eq_ignore_ascii_case(called))
    };
    let reference = |object: &&ManagedSecret| format!("msec/{}", object.metadata.name.as_deref().unwrap_or_default());
    let (by_id, by_name): (Vec<_>, Vec<_>) = found.into_iter().partition(has_id);
    match by_id.first() {
        Some(by_id) if !by_name.is_empty() => Err(CliError::Failed(format!(
            "{called} is ambiguous: it is the id of {} and the name of {}; name the object as msec/OBJECT",
            reference(by_id),
            by_name.iter().map(reference).collect::<Vec<_>>().join(", ")
        ))),
        _ => Ok(()),
    }
}

/// The one object that the text names: of several with one name, the one that holds the name.
pub(super) async fn one(session: &Session, called: &str) -> Result<ManagedSecret, CliError> {
    let called = Called::parse(called)?;
    single(&called, all(session, &called).await?, &session.namespace)
}

/// The same; `None` if there is none.
pub(super) async fn one_if_any(session: &Session, called: &Called) -> Result<Option<ManagedSecret>, CliError> {
    let found = all(session, called).await?;
    if found.is_empty() { Ok(None) } else { single(called, found, &session.namespace).map(Some) }
}

/// The same; `None` if the user may not list ManagedSecrets.
pub(super) async fn one_if_permitted(session: &Session, called: &Called) -> Result<Option<ManagedSecret>, CliError> {
    match listed(session, called).await {
        Ok(found) => single(called, chosen(called, found)?, &session.namespace).map(Some),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => {
            let permission = Permission::to_objects("list").within(&session.namespace);
            Err(permission.explain("cannot look the secret up", &error))
        }
    }
}

fn single(called: &Called, found: Vec<ManagedSecret>, namespace: &str) -> Result<ManagedSecret, CliError> {
    let mut found = found;
    if found.len() > 1
        && let Some(holder) = found.iter().position(holds_its_name)
    {
        return Ok(found.swap_remove(holder));
    }
    let names: Vec<_> = found.iter().filter_map(|object| object.metadata.name.as_deref()).collect();
    match names.len() {
        0 => Err(called.not_found(namespace)),
        1 => Ok(found.remove(0)),
        _ => Err(CliError::Failed(format!(
            "several objects want this name and none has it: {}; name one as msec/OBJECT",
            names.join(", ")
        ))),
    }
}

/// A note for an object that was named by a name that it only waits for: `status.name` is the current name, and another
/// secret, such as a retained record, may hold the wanted one.
pub(super) fn only_wanted(called: &str, object: &ManagedSecret) -> Option<String> {
    let status = object.status.as_ref()?;
    let current = status.name.as_deref().filter(|name| *name != object.spec.name)?;
    let by_name = called == object.spec.name && status.id.as_deref() != Some(&called.to_lowercase());
    let object_name = object.metadata.name.as_deref().unwrap_or_default();
    by_name.then(|| format!("msec/{object_name} waits for the name {called} and is still called {current}"))
}

/// Says on standard error that an object was named by a name that it only waits for.
pub(super) fn note_if_only_wanted(called: &str, object: &ManagedSecret) {
    if let Some(other) = only_wanted(called, object) {
        say::tell(format_args!("note: {other}"));
    }
}

/// Objects as a message names them, the one that holds its name first; `None` without objects.
pub(super) fn holders(objects: &[ManagedSecret]) -> Option<String> {
    let (holding, waiting): (Vec<_>, Vec<_>) = objects.iter().partition(|object| holds_its_name(object));
    let name = |object: &&ManagedSecret| object.metadata.name.as_ref().map(|name| format!("msec/{name}"));
    let names: Vec<_> = holding.iter().chain(&waiting).filter_map(name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Whether the name that the object wants is the one it has.
fn holds_its_name(object: &ManagedSecret) -> bool {
    object.status.as_ref().is_some_and(|status| status.name.as_deref() == Some(&object.spec.name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_ids_and_objects_are_told_apart() {
        let id = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";
        for (text, expected) in [
            ("WEATHER_API_KEY", Called::Name("WEATHER_API_KEY".to_owned())),
            (id, Called::Id(id.to_owned())),
            // A UUID in a notation that no id of a secret has.
            (&id.replace('-', ""), Called::Name(id.replace('-', ""))),
            ("msec/db", Called::Object("db".to_owned())),
            ("managedsecret.managedsecrets.dev/db", Called::Object("db".to_owned())),
        ] {
            assert_eq!(Called::parse(text).unwrap(), expected);
        }
        for text in ["", "a b", "secret/db", "msec/", "managedsecrets.example.com/db", "ä", &"a".repeat(51)] {
            assert!(Called::parse(text).is_err(), "{text}");
        }
        for object in ["..", "../other/managedsecrets/db", "db/status", "db?x", "db%2f", "DB", "db,status.id=x", "/db"]
        {
            assert!(Called::parse(&format!("msec/{object}")).is_err(), "{object}");
        }
    }

    #[test]
    fn a_wanted_name_is_told_from_the_current_one() {
        let id = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";
        let object = |wanted: &str| -> ManagedSecret {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": "db"},
                "spec": {"name": wanted}, "status": {"name": "OLD", "id": id},
            }))
            .unwrap()
        };
        let says = only_wanted("NEW", &object("NEW"));
        assert_eq!(says.as_deref(), Some("msec/db waits for the name NEW and is still called OLD"));
        for (called, wanted) in [("OLD", "OLD"), ("msec/db", "NEW"), (id, "NEW"), (id, id)] {
            assert_eq!(only_wanted(called, &object(wanted)), None, "{called}");
        }
    }

    #[test]
    fn the_id_of_one_secret_and_the_name_of_another_is_refused() {
        let id = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";
        let object = |object: &str, name: &str, id: &str| -> ManagedSecret {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": object},
                "spec": {"name": name}, "status": {"name": name, "id": id},
            }))
            .unwrap()
        };
        let (one, other) = (object("one", "A", id), object("other", id, "another"));
        let error = unambiguous(&id.to_uppercase(), [&one, &other]).unwrap_err().to_string();
        assert!(error.contains("the id of msec/one and the name of msec/other"), "{error}");
        // One alone is meant, and so is an object whose name is its own id.
        assert!(unambiguous(id, [&one]).is_ok() && unambiguous(id, [&other]).is_ok());
        let both = object("both", id, id);
        assert!(unambiguous(id, [&both, &both]).is_ok());
    }

    #[test]
    fn selectors_are_escaped() {
        let called = Called::parse("A=B@$#-+=").unwrap();
        assert_eq!(called.selectors(), ["spec.name=A\\=B@$#-+\\="]);
        let id = Called::parse("2F0F6A0E-6f0e-4a3c-9d5b-0d3d6f6f3a11").unwrap();
        assert_eq!(
            id.selectors(),
            ["status.id=2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11", "spec.name=2F0F6A0E-6f0e-4a3c-9d5b-0d3d6f6f3a11"]
        );
    }
}
