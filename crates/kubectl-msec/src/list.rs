//! `kubectl msec get` and `list`: everything about secrets but their values.
//!
//! The columns are the CRD's own printer columns: the API server makes the table (`as=Table`), so they are defined
//! once, and the output is that of `kubectl get msec`. Every format takes one request: the server adds each
//! object to its row of the table, so that rows can be sorted by any field.

use std::cmp::Ordering;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use http::header::{ACCEPT, HeaderValue};
use jiff::Timestamp;
use kube::Resource as _;
use kube::api::ListParams;
use kube::core::Request;
use managed_secrets_api::crd::EXPIRES_COLUMN;
use managed_secrets_api::expiry::Expiry;
use managed_secrets_api::{ManagedSecret, ManagedSecretSpec, duration};
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, say};
use serde::Deserialize;
use serde_json::{Value, json};

use super::completion;
use super::lookup::{self, Called};
use super::output::{Output, OutputArgs, plain, without_managed_fields};
use super::session::{ClusterArgs, Session};
use super::table::{Layout, Table};

/// Arguments of `get`.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// Which secrets, each by NAME, ID or msec/OBJECT; all of the namespace when absent
    #[arg(value_name = "NAME|ID", add = completion::secrets())]
    pub secrets: Vec<String>,

    /// Which of all, and how.
    #[command(flatten)]
    pub list: ListArgs,
}

/// Arguments of `list`.
#[derive(Args, Clone, Debug, Default)]
pub struct ListArgs {
    /// In every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Only objects with these labels, such as app=shop,tier!=test
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,

    /// Only objects with these fields: spec.name, status.id, metadata.name or metadata.namespace
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,

    /// Only secrets that have expired or expire within this time, such as 30d or 12h; without a time, those whose warning
    /// (spec.expiryWarning) has begun
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "clap's type for an option whose value may be left out")]
    pub expiring: Option<Option<Within>>,

    /// Sort by this field, such as .status.updatedDate
    #[arg(long, value_name = "FIELD")]
    pub sort_by: Option<Field>,

    /// Leave out the line of column names
    #[arg(long)]
    pub no_headers: bool,

    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A table as the API server makes it (meta.k8s.io/v1 Table).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerTable {
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    priority: i32,
}

#[derive(Deserialize)]
struct Row {
    cells: Vec<Value>,
    object: Value,
}

/// Shows all secrets of the namespace, or of all.
pub(super) async fn list(cluster: &ClusterArgs, args: &ListArgs) -> Result<(), CliError> {
    show(cluster, &[], args).await
}

/// Shows these secrets, or all.
pub(super) async fn get(cluster: &ClusterArgs, args: &GetArgs) -> Result<(), CliError> {
    show(cluster, &args.secrets, &args.list).await
}

async fn show(cluster: &ClusterArgs, secrets: &[String], args: &ListArgs) -> Result<(), CliError> {
    let called = secrets.iter().map(|secret| Called::parse(secret)).collect::<Result<Vec<_>, _>>()?;
    if !called.is_empty() && (args.all_namespaces || args.selector.is_some() || args.field_selector.is_some()) {
        let text = "names cannot be combined with --all-namespaces, --selector or --field-selector";
        return Err(CliError::Usage(text.to_owned()));
    }
    let session = Session::open(cluster)?;
    let expiring = args.expiring.map(|within| Expiring { within, now: Timestamp::now() });
    match &args.output.output {
        Some(Output::Object(format)) => {
            let mut items = Vec::new();
            for answer in answers(&session, &called, args, None).await? {
                items.extend(answer.get("items").and_then(Value::as_array).into_iter().flatten().cloned());
            }
            items.retain(|object| expiring.is_none_or(|expiring| expiring.includes(object)));
            items.iter_mut().for_each(without_managed_fields);
            if let Some(field) = &args.sort_by {
                items.sort_by(|one, other| field.compare(one, other));
            }
            match (called.len(), items.as_slice()) {
                (1, [item]) => format.print(item),
                _ => format.print(&json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})),
            }
        }
        columns => {
            let wide = matches!(columns, Some(Output::Wide));
            let mut tables = Vec::new();
            for answer in answers(&session, &called, args, Some(&TABLE)).await? {
                let table = serde_json::from_value::<ServerTable>(answer);
                // The error would quote the input.
                tables.push(table.map_err(|_| CliError::Failed("the server's table cannot be read".to_owned()))?);
            }
            if let Some(expiring) = expiring {
                for table in &mut tables {
                    table.rows.retain(|row| expiring.includes(&row.object));
                }
            }
            let shown = Shown { wide, expires: expiring.is_some(), all_namespaces: args.all_namespaces };
            let table = arrange(tables, shown, args.sort_by.as_ref());
            if table.rows.is_empty() {
                let place = if args.all_namespaces {
                    String::new()
                } else {
                    format!(" in the namespace {}", session.namespace)
                };
                let which = if expiring.is_some() { "No expiring secrets found" } else { "No secrets found" };
                say::tell(format_args!("{which}{place}."));
                return Ok(());
            }
            let text = table.render(Layout::of_standard_output(columns.is_some()));
            let from = if args.no_headers { text.find('\n').map_or(0, |end| end + 1) } else { 0 };
            say::print_document(&text[from..])
        }
    }
}

/// What makes the server answer with a table.
const TABLE: HeaderValue = HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");

/// One answer for each secret that was named, or one for all. A missing secret is an error.
async fn answers(
    session: &Session,
    called: &[Called],
    args: &ListArgs,
    accept: Option<&HeaderValue>,
) -> Result<Vec<Value>, CliError> {
    if called.is_empty() {
        let params = ListParams {
            label_selector: args.selector.clone(),
            field_selector: args.field_selector.clone(),
            ..ListParams::default()
        };
        let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
        return Ok(vec![request(session, namespace, &params, accept).await?]);
    }
    let mut answers = Vec::new();
    for called in called {
        let mut found = Vec::new();
        for selector in called.selectors() {
            let params = ListParams::default().fields(&selector);
            let answer = request(session, Some(&session.namespace), &params, accept).await?;
            let objects = objects(&answer);
            if !objects.is_empty() {
                found.push((answer, objects));
            }
        }
        if let Called::Id(id) = called {
            lookup::unambiguous(id, found.iter().flat_map(|(_, objects)| objects))?;
        }
        let (answer, objects) = found.into_iter().next().ok_or_else(|| called.not_found(&session.namespace))?;
        if let Called::Name(called) | Called::Id(called) = called {
            for object in &objects {
                lookup::note_if_only_wanted(called, object);
            }
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// The objects of an answer: a list holds them, and a table holds them within its rows.
fn objects(answer: &Value) -> Vec<ManagedSecret> {
    let all = |key: &str| answer.get(key).and_then(Value::as_array).into_iter().flatten();
    let objects = all("items").chain(all("rows").filter_map(|row| row.get("object")));
    objects.filter_map(|object| ManagedSecret::deserialize(object).ok()).collect()
}

async fn request(
    session: &Session,
    namespace: Option<&str>,
    params: &ListParams,
    accept: Option<&HeaderValue>,
) -> Result<Value, CliError> {
    let context = "cannot list secrets";
    let path = ManagedSecret::url_path(&(), namespace);
    let unsound = |error: &(dyn std::error::Error + 'static)| CliError::failed(context, error);
    let mut request = Request::new(path).list(params).map_err(|error| unsound(&error))?;
    if let Some(accept) = accept {
        request.headers_mut().insert(ACCEPT, accept.clone());
        // The objects beside their rows, instead of their metadata alone.
        let uri = format!("{}&includeObject=Object", request.uri());
        *request.uri_mut() = uri.parse().map_err(|error: http::uri::InvalidUri| unsound(&error))?;
    }
    let permission = Permission::to_objects("list");
    let permission = namespace.map_or(permission, |namespace| permission.within(namespace));
    session.client.request(request).await.map_err(|error| permission.explain(context, &error))
}

/// Which columns a table has besides the usual ones.
#[derive(Clone, Copy)]
struct Shown {
    wide: bool,
    expires: bool,
    all_namespaces: bool,
}

/// One table of those of several answers.
fn arrange(tables: Vec<ServerTable>, shown: Shown, sort: Option<&Field>) -> Table {
    let Shown { wide, expires, all_namespaces } = shown;
    let shown: Vec<_> = tables
        .first()
        .into_iter()
        .flat_map(|table| table.column_definitions.iter().enumerate())
        .filter(|(_, column)| wide || column.priority == 0 || expires && column.name == EXPIRES_COLUMN)
        .map(|(at, column)| (at, column.name.to_uppercase()))
        .collect();
    let mut rows: Vec<_> = tables.into_iter().flat_map(|table| table.rows).collect();
    if let Some(field) = sort {
        rows.sort_by(|one, other| field.compare(&one.object, &other.object));
    }
    let namespace =
        |row: &Row| all_namespaces.then(|| row.object.pointer("/metadata/namespace").map(plain).unwrap_or_default());
    Table {
        columns: all_namespaces
            .then(|| "NAMESPACE".to_owned())
            .into_iter()
            .chain(shown.iter().map(|(_, name)| name.clone()))
            .collect(),
        rows: rows
            .iter()
            .map(|row| {
                let cells = shown.iter().map(|(at, _)| row.cells.get(*at).map(plain).unwrap_or_default());
                namespace(row).into_iter().chain(cells).collect()
            })
            .collect(),
    }
}

/// Which secrets count as expiring.
#[derive(Clone, Copy)]
struct Expiring {
    /// Those that expire within this time; without it, those whose warning has begun.
    within: Option<Within>,
    now: Timestamp,
}

impl Expiring {
    fn includes(self, object: &Value) -> bool {
        let spec = object.get("spec").and_then(|spec| ManagedSecretSpec::deserialize(spec).ok());
        let Some(expiry) = spec.as_ref().and_then(Expiry::of) else { return false };
        match self.within {
            None => expiry.reason(self.now).is_some(),
            // A time that no calendar has is far away.
            Some(Within(time)) => self.now.checked_add(time).map_or(true, |until| expiry.at <= until),
        }
    }
}

/// A time from now on: days, or a duration as in `spec.expiryWarning`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Within(Duration);

impl FromStr for Within {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let days = text.strip_suffix('d').and_then(|days| duration::parse(&format!("{days}h")));
        let time = days.and_then(|hours| hours.checked_mul(24)).or_else(|| duration::parse(text));
        time.map(Self).ok_or("must be a time such as 30d, 12h or 1h30m")
    }
}

/// A field of an object: `.status.updatedDate`, or in braces as kubectl's users write it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field(Vec<String>);

impl FromStr for Field {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let keys: Vec<_> = path.strip_prefix('.').unwrap_or_default().split('.').map(str::to_owned).collect();
        if keys.iter().any(|key| key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric())) {
            return Err("must be a field such as .status.updatedDate");
        }
        Ok(Self(keys))
    }
}

impl Field {
    fn of(&self, object: &Value) -> String {
        self.0.iter().try_fold(object, |value, key| value.get(key)).map(plain).unwrap_or_default()
    }

    /// Orders numbers by value, everything else as text.
    fn compare(&self, one: &Value, other: &Value) -> Ordering {
        let (one, other) = (self.of(one), self.of(other));
        match (one.parse::<i64>(), other.parse::<i64>()) {
            (Ok(one), Ok(other)) => one.cmp(&other),
            _ => one.cmp(&other),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_days_or_a_duration() {
        let hours = |hours: u32| Ok(Within(duration::hours(hours)));
        for (text, time) in [("30d", hours(720)), ("0d", hours(0)), ("12h", hours(12)), ("720h0m0s", hours(720))] {
            assert_eq!(text.parse::<Within>(), time, "{text}");
        }
        for wrong in ["", "d", "30", "-1d", "1.5d", "1d12h", "30D", "1m1h"] {
            assert!(wrong.parse::<Within>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn expiring_is_what_expires_within_the_time_and_without_one_what_is_warned_of() {
        let now: Timestamp = "2027-03-01T00:00:00Z".parse().unwrap();
        let expires =
            |date: &str, warning: &str| json!({"spec": {"name": "A", "expires": date, "expiryWarning": warning}});
        let included = |object: &Value, time: Option<&str>| {
            Expiring { within: time.map(|time| time.parse().unwrap()), now }.includes(object)
        };
        let (soon, later, past) = (
            expires("2027-03-02T00:00:00Z", "1h"),
            expires("2027-04-30T00:00:00Z", "2000h"),
            expires("2027-02-28T00:00:00Z", "0s"),
        );
        assert_eq!([&soon, &later, &past].map(|object| included(object, None)), [false, true, true]);
        assert_eq!([&soon, &later, &past].map(|object| included(object, Some("24h"))), [true, false, true]);
        assert_eq!([&soon, &later, &past].map(|object| included(object, Some("999999d"))), [true; 3]);
        assert!(!included(&json!({"spec": {"name": "A"}}), Some("30d")));
    }

    #[test]
    fn objects_are_ordered_by_a_field_and_nothing_else() {
        let field = |text: &str| text.parse::<Field>();
        assert_eq!(field(".status.version"), field("{.status.version}"));
        let of = |version: u32| json!({"status": {"version": version, "name": version.to_string()}});
        for path in [".status.version", ".status.name"] {
            assert_eq!(field(path).unwrap().compare(&of(9), &of(10)), Ordering::Less, "{path}");
        }
        assert_eq!(field(".metadata.name").unwrap().compare(&of(1), &of(2)), Ordering::Equal, "both lack it");
        for wrong in ["", ".", "status", ".a..b", ".items[*].a", "{.a", "{range .a}", ".a[0]"] {
            assert!(field(wrong).is_err(), "{wrong}");
        }
    }
}
